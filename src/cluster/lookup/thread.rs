//! Whether a thread of ours runs.
//!
//! Owns: that. Called by: the desk and the waker, each for its own thread, under its lock. Threads: the owner's lock.
//! Forks: a child begins anew. Failure: a thread that the system refused is tried again later.

use std::time::Duration;

/// A thread of ours.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Thread {
    #[default]
    None,
    Running,
    /// The system refused one; not before this time again.
    RefusedUntil(Duration),
}

impl Thread {
    /// Whether there is one, or one may be tried.
    pub(super) fn may_run(self, now: Duration) -> bool {
        !matches!(self, Thread::RefusedUntil(time) if now < time)
    }

    /// Notes that there is one from now on; whether the caller is to start it.
    pub(super) fn starts(&mut self) -> bool {
        std::mem::replace(self, Thread::Running) != Thread::Running
    }
}

#[cfg(test)]
mod tests {
    use super::super::locks::contained;
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(1_000_000 + ms)
    }

    #[test]
    fn a_thread_that_was_refused_is_tried_again_later_and_one_that_ended_at_once() {
        let mut thread = Thread::RefusedUntil(ms(60));
        assert!(!thread.may_run(ms(59)) && thread.may_run(ms(60)));
        assert!(thread.starts() && !thread.starts());
        assert!(!contained(|| panic!("in a test")), "and this thread goes on");
        thread = Thread::None;
        assert!(thread.may_run(ms(0)) && thread.starts());
    }
}
