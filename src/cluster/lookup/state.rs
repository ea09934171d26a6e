//! What the desk knows under its lock: the requests, the breaker, and how the thread does.
//!
//! Owns: that. Called by: the desk, with the time as an argument. Threads: the desk's lock. Forks: a child has a desk of
//! its own. Failure: silence that several questions meet counts once.

use std::time::Duration;

use super::answer::Key;
use super::circuit::Circuit;
use super::requests::{Id, Requests};
use super::thread::Thread;
use crate::sys;
use crate::trouble::Say;

#[derive(Default)]
pub(super) struct State {
    pub(super) requests: Requests,
    pub(super) circuit: Circuit,
    /// The last session that was looked up was taken.
    took: bool,
    pub(super) thread: Thread,
    pub(super) over: bool,
    /// Since when the thread has been making a connection.
    pub(super) connecting: Option<Duration>,
    /// Since when and until when what failed last had gone on.
    failed: (Duration, Duration),
    /// Somebody asked since then.
    pub(super) is_asked: bool,
}

impl State {
    pub(super) fn has_work(&self, now: Duration) -> bool {
        self.requests.next_due(now).is_some_and(|due| due <= now)
            || self.circuit.breaker().probe_due(now)
    }

    /// What is to be asked; probes one at a time, when nothing else is under way.
    pub(super) fn take_up(&mut self, now: Duration, is_idle: bool) -> Vec<Id> {
        let batch = self.requests.take_up(now);
        if let Some((_, take)) = batch.last() {
            self.took = *take;
        } else if is_idle && self.circuit.breaker().probe_due(now) {
            return vec![probe(self.took)];
        }
        batch
    }

    /// Who asks while a connection takes longer than that would wait in vain.
    pub(super) fn connects_for_long(&self, now: Duration, budget: Duration) -> bool {
        self.connecting.is_some_and(|since| now > since + budget)
    }

    /// What was begun at `since` failed. Questions that meet the same silence count once: those that were asked during
    /// most of a budget, as long as it was not noticed.
    pub(super) fn note_failure(
        &mut self,
        since: Duration,
        now: Duration,
        budget: Duration,
    ) -> Say<()> {
        let (begun, noticed) = self.failed;
        if since < noticed.min(begun + budget * 3 / 4) {
            return Say::Nothing;
        }
        (self.failed, self.is_asked) = ((since, now), false);
        let say = self.circuit.note(now, |breaker| {
            breaker.probe_failed(now);
            breaker.failure(now);
        });
        if !self.circuit.breaker().allows() {
            // Nobody waits any more.
            self.requests.fail_all();
        }
        say
    }
}

/// A session that nobody has, looked up as the last one was. Only that shows that look-ups are answered: a vault that
/// answers otherwise may have none of the slots, load its data, or not permit them; and of one that refuses to write,
/// sessions may still be read, but not be taken.
fn probe(take: bool) -> Id {
    let mut key = Key::default();
    // Where the kernel refuses, one that is not random serves as well.
    let _ = sys::random(&mut key);
    (key, take)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUDGET: Duration = Duration::from_millis(5);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(1_000_000 + ms)
    }

    #[test]
    fn a_silence_counts_once_however_many_questions_it_meets() {
        let mut state = State::default();
        let mut fail = |since, now| state.note_failure(ms(since), ms(now), BUDGET);
        assert_eq!(fail(0, 5), Say::Nothing);
        for sent in 0..3 {
            assert_eq!(fail(sent, 6), Say::Nothing);
        }
        assert_eq!(fail(4, 9), Say::Nothing, "the second: a budget later, or nearly");
        assert_eq!(fail(7, 12), Say::Nothing);
        assert_eq!(fail(9, 14), Say::Trouble(0), "the third");
    }

    #[test]
    fn failures_that_come_at_once_count_one_after_the_other() {
        let mut state = State::default();
        let says = [0, 1, 2].map(|now| state.note_failure(ms(now), ms(now), BUDGET));
        assert_eq!(says, [Say::Nothing, Say::Nothing, Say::Trouble(0)]);
    }

    #[test]
    fn who_comes_while_a_connection_takes_long_does_not_wait() {
        let mut state = State::default();
        assert!(!state.connects_for_long(ms(0), BUDGET));
        state.connecting = Some(ms(0));
        assert!(!state.connects_for_long(ms(5), BUDGET) && state.connects_for_long(ms(6), BUDGET));
    }
}
