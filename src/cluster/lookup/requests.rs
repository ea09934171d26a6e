//! What the handshakes of this process want from the vault: who waits for which session, what is asked next.
//!
//! Owns: the requests, and what the vault did not have a moment ago. Called by: the desk, under its lock, with the time as an argument. Threads: the desk's lock.
//! Forks: a child has requests of its own. Failure: more than [`MOST_WAITING`] are not taken in.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::absent::Absent;
use super::answer::Answer;
use super::wait::Wait;
use crate::cluster::breaker::Breaker;
use crate::cluster::transport::Wanted;

/// Which session, and whether it is taken.
pub(super) type Id = Wanted;

/// What the vault has under each of the keys asked for.
pub(super) type Answers = Vec<Option<Vec<u8>>>;

/// Most handshakes that wait at a time; with more, the vault is too slow anyway.
pub(super) const MOST_WAITING: usize = 1024;

/// Most requests in one exchange with the vault.
pub(super) const BATCH: usize = 64;

/// An absent session is asked for this often at most, while somebody waits: the node that made it may be about to write
/// it. The pauses double, so a long wait costs few questions. Where that was in vain a few times in a row, say because
/// The vault is full, few are asked for again ([`Requests::patience`]).
pub(super) const TRIES: u32 = 10;

#[derive(Default)]
pub(super) struct Requests {
    by_id: HashMap<Id, Request>,
    waiting: usize,
    absent: Absent,
    /// Whether it helps to ask again for an absent session: a failure is one that stays absent, a success one that
    /// comes, and a probe one that is asked for again although that did not help others.
    patience: Breaker,
}

/// One session that is looked up.
struct Request {
    /// Nobody: all gave up while the vault was being asked.
    waits: Vec<Arc<Wait>>,
    /// When it may be asked for (again).
    due: Duration,
    /// How often the vault said that it is not there.
    asked: u32,
    /// It is part of the exchange that goes on.
    taken_up: bool,
}

/// What became of who wanted to wait.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Entered {
    /// It waits.
    Waits,
    /// The session is being taken by another.
    Taken,
    /// The vault said a moment ago that it has no such session.
    Absent,
    /// Too many wait.
    Full,
}

impl Requests {
    pub(super) fn enter(&mut self, id: Id, wait: &Arc<Wait>, now: Duration) -> Entered {
        if self.waiting >= MOST_WAITING {
            return Entered::Full;
        }
        let (key, take) = id;
        match self.by_id.get_mut(&id) {
            Some(_) if take => return Entered::Taken,
            Some(request) => request.waits.push(Arc::clone(wait)),
            None if self.absent.has(&key, now) => return Entered::Absent,
            None => {
                let waits = vec![Arc::clone(wait)];
                self.by_id.insert(id, Request { waits, due: now, asked: 0, taken_up: false });
            }
        }
        self.waiting += 1;
        Entered::Waits
    }

    /// One waits no longer, if it still did. Whether the vault said meanwhile that the session is not there.
    pub(super) fn leave(&mut self, id: &Id, wait: &Arc<Wait>, now: Duration) -> bool {
        let Some(request) = self.by_id.get_mut(id) else { return false };
        let place = request.waits.iter().position(|other| Arc::ptr_eq(other, wait));
        let Some(place) = place else { return false };
        request.waits.swap_remove(place);
        self.waiting -= 1;
        let was_asked = request.asked > 0;
        if request.waits.is_empty() && !request.taken_up {
            self.by_id.remove(id);
            if was_asked && !wait.is_short {
                self.note_in_vain(now);
            }
        }
        was_asked
    }

    /// What is to be asked for now: those first that are due for longest.
    pub(super) fn take_up(&mut self, now: Duration) -> Vec<Id> {
        let due = self.by_id.iter().filter(|(_, request)| request.is_due(now));
        let mut due: Vec<_> = due.map(|(id, request)| (request.due, *id)).collect();
        due.sort_unstable();
        due.truncate(BATCH);
        let batch: Vec<Id> = due.into_iter().map(|(_, id)| id).collect();
        for id in &batch {
            if let Some(request) = self.by_id.get_mut(id) {
                request.taken_up = true;
            }
        }
        batch
    }

    /// When something is to be asked for.
    pub(super) fn next_due(&self, now: Duration) -> Option<Duration> {
        self.by_id
            .values()
            .filter(|request| request.is_wanted(now))
            .map(|request| request.due)
            .min()
    }

    /// The vault could not be asked: they are due again.
    pub(super) fn put_back(&mut self, batch: &[Id]) {
        for id in batch {
            let Some(request) = self.by_id.get_mut(id) else { continue };
            request.taken_up = false;
            if request.waits.is_empty() {
                self.by_id.remove(id);
            }
        }
    }

    /// Tells who waits what the vault said. A session that is not there is asked for again, the first time after `pause`.
    pub(super) fn answer(
        &mut self,
        batch: &[Id],
        answers: Answers,
        now: Duration,
        pause: Duration,
    ) {
        let mut answers = answers.into_iter();
        for id in batch {
            match answers.next().flatten() {
                Some(sealed) => {
                    self.absent.forget(&id.0);
                    self.note_found(id);
                    self.tell(id, &Answer::Found(sealed));
                }
                None => {
                    self.absent.note(&id.0, now);
                    if !self.comes_again(id, now, pause) {
                        self.tell(id, &Answer::Absent);
                    }
                }
            }
        }
    }

    /// Tells all who wait, whatever they wait for, that there is no answer.
    pub(super) fn fail_all(&mut self) {
        let ids: Vec<_> = self.by_id.keys().copied().collect();
        self.fail(&ids);
    }

    pub(super) fn fail(&mut self, batch: &[Id]) {
        batch.iter().for_each(|id| self.tell(id, &Answer::Unavailable));
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.by_id.is_empty() && self.waiting == 0
    }

    fn tell(&mut self, id: &Id, answer: &Answer) {
        let Some(request) = self.by_id.remove(id) else { return };
        self.waiting -= request.waits.len();
        request.waits.iter().for_each(|wait| wait.tell(answer.clone()));
    }

    /// Whether an absent session is asked for again: somebody will still wait then, and it may help.
    fn comes_again(&mut self, id: &Id, now: Duration, pause: Duration) -> bool {
        let Some(request) = self.by_id.get_mut(id) else { return false };
        let due = now + pause * 2u32.saturating_pow(request.asked);
        let was_again = request.asked > 0;
        request.asked += 1;
        (request.taken_up, request.due) = (false, due);
        let comes = request.asked < TRIES && request.is_wanted(due);
        let is_fair = request.waits.iter().any(|wait| !wait.is_short);
        match was_again {
            true if !comes && is_fair => self.note_in_vain(now),
            false if comes => return self.may_be_patient(now),
            _ => {}
        }
        comes
    }

    fn may_be_patient(&mut self, now: Duration) -> bool {
        let is_probe = self.patience.probe_due(now);
        if is_probe {
            // One at a time: it has failed until it succeeds.
            self.patience.probe_failed(now);
        }
        is_probe || self.patience.allows()
    }

    fn note_found(&mut self, id: &Id) {
        if self.by_id.get(id).is_some_and(|request| request.asked > 0) {
            self.patience.success();
        }
    }

    fn note_in_vain(&mut self, now: Duration) {
        self.patience.failure(now);
    }
}

impl Request {
    fn is_due(&self, now: Duration) -> bool {
        !self.taken_up && self.due <= now && self.is_wanted(now)
    }

    /// Whether anybody waits then. Who has waited for long enough is about to leave.
    fn is_wanted(&self, then: Duration) -> bool {
        self.waits.iter().any(|wait| wait.deadline > then)
    }
}
