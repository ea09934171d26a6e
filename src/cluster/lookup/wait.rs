//! One handshake's wait for one answer.
//!
//! Owns: the answer, until it is fetched. Called by: the handshake that waits, and the threads that tell it. Threads:
//! whatever the order, a wait is told once and never blocks who tells it. Locks are the standard library's: unlike
//! those of `parking_lot` they have no table in common, which a fork could leave locked. Forks: see [`Inquiry`]'s end.
//! Failure: none; a wait that nobody tells ends at its deadline.

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use super::desk::Desk;
use super::requests::Id;
use super::{Answer, locked, waited};
use crate::clock;
use crate::sys::{self, EventFd};

/// Who waits, for whoever tells.
pub(super) struct Wait {
    /// Not waited for any longer.
    pub(super) deadline: Duration,
    /// Too short to tell whether it would have helped to wait: the thread has little time left for others.
    pub(super) is_short: bool,
    answer: Mutex<Option<Answer>>,
    told: Condvar,
    /// What is rung when a handshake waits that was paused. Whoever writes to it has the lock, so that nobody writes
    /// to a descriptor that was closed, which may be something else by then.
    bell: Mutex<Option<Arc<EventFd>>>,
}

impl Wait {
    #[cfg(test)]
    pub(super) fn until(deadline: Duration) -> Arc<Self> {
        Self::new(deadline, false)
    }

    pub(super) fn new(deadline: Duration, is_short: bool) -> Arc<Self> {
        let (answer, told, bell) = (Mutex::new(None), Condvar::new(), Mutex::new(None));
        Arc::new(Wait { deadline, is_short, answer, told, bell })
    }

    pub(super) fn tell(&self, answer: Answer) {
        *locked(&self.answer) = Some(answer);
        self.told.notify_one();
    }

    /// The answer; `None` when there was none until the deadline, or for so long.
    fn fetch(&self, longest: Duration) -> Option<Answer> {
        let deadline = self.deadline.min(clock::since_boot() + longest);
        let mut answer = locked(&self.answer);
        loop {
            let left = deadline.saturating_sub(clock::since_boot());
            if answer.is_some() || left.is_zero() {
                return answer.take();
            }
            answer = waited(&self.told, answer, left);
        }
    }

    /// The answer, if there is one.
    pub(super) fn told(&self) -> Option<Answer> {
        locked(&self.answer).take()
    }

    /// Whether there is nothing more to wait for.
    pub(super) fn is_over(&self, now: Duration) -> bool {
        now >= self.deadline || locked(&self.answer).is_some()
    }

    pub(super) fn ring(&self) {
        if let Some(bell) = &*locked(&self.bell) {
            bell.raise();
        }
    }

    pub(super) fn has_bell(&self) -> bool {
        locked(&self.bell).is_some()
    }
}

/// A question to Redis whose answer is awaited. Dropped before that, nobody waits any more.
pub struct Inquiry {
    desk: Arc<Desk>,
    id: Id,
    wait: Arc<Wait>,
}

impl Inquiry {
    pub(super) fn new(desk: Arc<Desk>, id: Id, wait: Arc<Wait>) -> Self {
        Inquiry { desk, id, wait }
    }

    /// The answer, waited for until the budget is over, and no longer than `longest`. Not in a child that was forked meanwhile: nobody would tell it,
    /// and it may have inherited the locks in a state in which nobody opens them again.
    pub fn answer(self, longest: Duration) -> Answer {
        if !self.desk.is_of_this_process() {
            return Answer::Unavailable;
        }
        let given_up = || self.desk.give_up(&self.id, &self.wait);
        self.wait.fetch(longest).unwrap_or_else(given_up)
    }

    /// Whether [`Inquiry::answer`] would return at once.
    pub fn is_over(&self) -> bool {
        !self.desk.is_of_this_process() || self.wait.is_over(clock::since_boot())
    }

    /// Has `bell` rung when that is so. `false` when nobody can: the thread for it was refused.
    #[must_use]
    pub(crate) fn ring(&self, bell: &Arc<EventFd>) -> bool {
        if !self.desk.is_of_this_process() {
            return false;
        }
        *locked(&self.wait.bell) = Some(Arc::clone(bell));
        Desk::watch(&self.desk, &self.wait)
    }
}

impl Drop for Inquiry {
    /// The bell belongs to who gave it again. In a child that was forked meanwhile nobody would ring it, and whoever
    /// rang at that moment in the parent left it locked here: then it is leaked.
    fn drop(&mut self) {
        if self.desk.is_of_this_process() {
            *locked(&self.wait.bell) = None;
            self.desk.leave(&self.id, &self.wait);
        } else if let Ok(mut bell) = self.wait.bell.try_lock() {
            *bell = None;
        }
    }
}

impl std::fmt::Debug for Inquiry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inquiry").field("is_over", &self.is_over()).finish_non_exhaustive()
    }
}

/// Whether something belongs to this process, not to the one that it was forked from.
pub(super) fn is_current(generation: u32) -> bool {
    generation == sys::fork_generation()
}
