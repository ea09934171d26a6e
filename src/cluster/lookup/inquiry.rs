//! A question that a handshake has left at the desk.
//!
//! Owns: the handshake's part in the wait. Called by: the handshake. Threads: the one that waits; an inquiry that is
//! left behind is dropped by whoever drops its handshake. Forks: nobody answers in a child, see [`Inquiry`]'s end.
//! Failure: [`Answer::Unavailable`] at the deadline.

use std::sync::Arc;
use std::time::Duration;

use super::answer::Answer;
use super::desk::Desk;
use super::requests::Id;
use super::wait::Wait;
use crate::clock;
use crate::sys::EventFd;

/// What became of a question.
#[derive(Debug)]
pub enum Asked {
    /// There is nothing to wait for.
    Answered(Answer),
    /// The answer will come, or the time be over.
    Waits(Inquiry),
}

/// A question to the vault whose answer is awaited. Dropped before that, nobody waits any more.
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
        self.wait.set_bell(bell);
        self.desk.watch(&self.wait)
    }
}

impl Drop for Inquiry {
    /// The bell belongs to who gave it again. In a child that was forked meanwhile nobody would ring it, and whoever
    /// rang at that moment in the parent left it locked here: then it is leaked.
    fn drop(&mut self) {
        if self.desk.is_of_this_process() {
            self.wait.take_bell();
            self.desk.leave(&self.id, &self.wait);
        } else {
            self.wait.try_take_bell();
        }
    }
}

impl std::fmt::Debug for Inquiry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inquiry").field("is_over", &self.is_over()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::tests::in_memory::InMemory;

    const BUDGET: Duration = Duration::from_millis(5);
    const AMPLE: Duration = Duration::from_secs(60);

    #[test]
    fn what_another_process_asked_is_answered_without_its_locks() {
        let desk = Desk::of_another_process(Arc::new(InMemory::new()), BUDGET);
        let wait = Wait::until(Duration::ZERO);
        desk.lock_for_ever();
        let inquiry = Inquiry::new(Arc::clone(&desk), ([0; 24], false), wait);
        assert!(inquiry.is_over());
        assert_eq!(inquiry.answer(AMPLE), Answer::Unavailable);
    }
}
