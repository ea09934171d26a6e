//! The look-up thread's connection, and the questions that are under way on it.
//!
//! Owns: both. Called by: the look-up thread ([`super::desk`]). Threads: that one. Forks: a child never touches it.
//! Unanswered: a question that failed is handed back with its [`Failure`]; with a connection that is lost, all of them.
//!
//! What is measured is the vault, not this host. An answer that is there when this thread looks counts as one, however late
//! it looks. And silence counts only as far as this thread could listen ([`Listening`]): where it gets no processor, a
//! The vault of the same host, or what stands between, may get none either.

use std::collections::VecDeque;
use std::time::Duration;

use super::requests::{Answers, Id};
use crate::clock;
use crate::cluster::transport::{Failure, Transport, Vault};

/// How long the thread waits for a connection, and at least for an answer. Handshakes may wait less; but an answer that
/// comes late costs no new connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(1);
const LEAST_LIMIT: Duration = Duration::from_millis(250);

/// Most questions at a time, of up to [`super::requests::BATCH`] sessions each.
const MOST_UNDER_WAY: usize = 32;

/// The thread's connection.
pub(super) struct Line<'a> {
    transport: &'a dyn Transport,
    /// From then on an answer is late.
    budget: Duration,
    vault: Option<Box<dyn Vault>>,
    /// It has answered something: the vault may have ended it since.
    has_served: bool,
    under_way: VecDeque<Batch>,
    listening: Listening,
}

/// How long was listened for answers: the time that goes by, but no more of it than was asked for where the system lets
/// this thread go on much later.
#[derive(Default)]
struct Listening {
    time: Duration,
    /// The time since boot up to which that is.
    noted: Duration,
}

/// Sessions that were asked for together.
pub(super) struct Batch {
    pub(super) ids: Vec<Id>,
    pub(super) sent: Duration,
    /// By [`Listening`].
    heard_from: Duration,
    /// For how many budgets there was silence.
    late: u32,
}

impl Batch {
    pub(super) fn is_late(&self) -> bool {
        self.late > 0
    }
}

/// What became of questions.
pub(super) enum Outcome {
    /// The oldest was answered.
    Answered(Batch, Answers),
    Failed(Unanswered),
    /// No answer has come.
    Silence,
    /// Nor has one for a budget, or for another one.
    Late(Lateness),
}

/// A budget of silence.
pub(super) struct Lateness {
    pub(super) since: Duration,
    /// Nothing was late before.
    pub(super) is_new: bool,
}

/// Questions that will not be answered.
pub(super) struct Unanswered {
    pub(super) failure: Failure,
    pub(super) batches: Vec<Batch>,
    /// The connection may have been of no use since before they were sent.
    pub(super) may_be_old: bool,
}

impl<'a> Line<'a> {
    pub(super) fn new(transport: &'a dyn Transport, budget: Duration) -> Self {
        let (under_way, listening) = (VecDeque::new(), Listening::default());
        Line { transport, budget, vault: None, has_served: false, under_way, listening }
    }

    pub(super) fn is_connected(&self) -> bool {
        self.vault.is_some()
    }

    /// Nothing is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.under_way.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.under_way.len() >= MOST_UNDER_WAY
    }

    pub(super) fn connect(&mut self) -> Result<(), Failure> {
        let mut vault = self.transport.connect_vault(CONNECT_LIMIT)?;
        vault.limit(self.limit());
        (self.vault, self.has_served) = (Some(vault), false);
        Ok(())
    }

    pub(super) fn disconnect(&mut self) {
        self.vault = None;
    }

    /// Sends a question.
    pub(super) fn ask(&mut self, ids: Vec<Id>) -> Result<(), Unanswered> {
        let sent = clock::since_boot();
        if self.is_idle() {
            self.listening.noted = sent;
        }
        let heard_from = self.listening.time;
        self.under_way.push_back(Batch { ids, sent, heard_from, late: 0 });
        let (Some(vault), Some(batch)) = (&mut self.vault, self.under_way.back_mut()) else {
            return Err(self.fail(Failure::Lost("not connected".into())));
        };
        match vault.ask(&batch.ids) {
            Ok(()) if vault.is_answered_alone() => {
                batch.sent = clock::since_boot();
                Ok(())
            }
            Ok(()) => {
                batch.late = u32::from(clock::since_boot() > sent + self.budget);
                Ok(())
            }
            Err(failure) => Err(self.fail(failure)),
        }
    }

    /// Waits for an answer, for so long at most.
    pub(super) fn fetch(&mut self, longest: Duration) -> Outcome {
        loop {
            let (looked, wait) = (clock::since_boot(), self.until_silence_means_something());
            let Some(vault) = &mut self.vault else { return Outcome::Silence };
            match vault.fetch(looked + wait.min(longest)) {
                Ok(None) if wait.is_zero() => return self.silence(),
                Ok(None) => self.listening.go_on(clock::since_boot(), wait.min(longest)),
                Ok(Some(answers)) => return self.answered(answers),
                Err(failure) => return Outcome::Failed(self.fail(failure)),
            }
            // Then it is looked once more.
            if !self.until_silence_means_something().is_zero() {
                return Outcome::Silence;
            }
        }
    }

    fn answered(&mut self, answers: Answers) -> Outcome {
        self.has_served = true;
        let batch = self.under_way.pop_front();
        batch.map_or(Outcome::Silence, |it| Outcome::Answered(it, answers))
    }

    fn until_silence_means_something(&self) -> Duration {
        let late = self.under_way.iter().map(|it| it.heard_from + self.budget * (it.late + 1));
        let lost = self.under_way.front().map(|it| it.heard_from + self.limit());
        let next = late.chain(lost).min().unwrap_or(Duration::MAX);
        next.saturating_sub(self.listening.time)
    }

    /// No answer was there when it was looked for at last.
    fn silence(&mut self) -> Outcome {
        let (budget, limit, time) = (self.budget, self.limit(), self.listening.time);
        if self.under_way.front().is_some_and(|oldest| time >= oldest.heard_from + limit) {
            return Outcome::Failed(self.fail(Failure::Lost("no answer in time".into())));
        }
        let mut lateness = None;
        for it in &mut self.under_way {
            if time >= it.heard_from + budget * (it.late + 1) {
                let (since, is_new) = (it.sent + budget * it.late, it.late == 0);
                lateness = Some(Lateness { since, is_new });
                it.late += 1;
            }
        }
        lateness.map_or(Outcome::Silence, Outcome::Late)
    }

    /// A refusal is the answer to the oldest question, and the connection goes on.
    fn fail(&mut self, failure: Failure) -> Unanswered {
        let is_lost = !failure.is_refusal();
        let count = if is_lost { self.under_way.len() } else { 1 };
        let batches: Vec<_> = self.under_way.drain(..count.min(self.under_way.len())).collect();
        let is_early = batches.iter().all(|batch| !batch.is_late());
        let may_be_old = is_lost && self.has_served && is_early;
        if is_lost {
            (self.vault, self.has_served) = (None, false);
        }
        Unanswered { failure, batches, may_be_old }
    }

    fn limit(&self) -> Duration {
        self.budget.max(LEAST_LIMIT)
    }
}

impl Listening {
    /// It was listened again, for `asked` or until `now`.
    fn go_on(&mut self, now: Duration, asked: Duration) {
        /// How late a thread may wake up that has its processor.
        const USUAL_DELAY: Duration = Duration::from_micros(500);
        self.time += now.saturating_sub(self.noted).min(asked + USUAL_DELAY);
        self.noted = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn micros(micros: u64) -> Duration {
        Duration::from_micros(micros)
    }

    #[test]
    fn time_goes_by_as_ever_for_a_thread_that_has_its_processor() {
        let mut listening = Listening { time: Duration::ZERO, noted: micros(1000) };
        for slice in 1..=10 {
            listening.go_on(micros(1000 + 700 * slice), micros(500));
        }
        assert_eq!(listening.time, micros(7000));
    }

    #[test]
    fn while_the_host_is_busy_no_more_counts_than_was_listened() {
        let mut listening = Listening { time: Duration::ZERO, noted: micros(1000) };
        listening.go_on(micros(1_001_000), micros(500));
        assert_eq!(listening.time, micros(1000));
        listening.go_on(micros(1_001_600), micros(500));
        assert_eq!(listening.time, micros(1600));
    }
}
