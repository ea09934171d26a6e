//! One handshake's wait for one answer.
//!
//! Owns: the answer, until it is fetched. Called by: the handshake that waits, and the threads that tell it. Threads:
//! whatever the order, a wait is told once and never blocks who tells it. Locks are the standard library's: unlike
//! those of `parking_lot` they have no table in common, which a fork could leave locked. Forks: see the end of an
//! [inquiry](super::inquiry).
//! Failure: none; a wait that nobody tells ends at its deadline.

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use super::answer::Answer;
use super::locks::{locked, waited};
use crate::clock;
use crate::sys::EventFd;

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
    pub(super) fn fetch(&self, longest: Duration) -> Option<Answer> {
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

    pub(super) fn set_bell(&self, bell: &Arc<EventFd>) {
        *locked(&self.bell) = Some(Arc::clone(bell));
    }

    pub(super) fn take_bell(&self) {
        *locked(&self.bell) = None;
    }

    /// The same, unless somebody has the lock: a fork may have left it locked.
    pub(super) fn try_take_bell(&self) {
        if let Ok(mut bell) = self.bell.try_lock() {
            *bell = None;
        }
    }
}
