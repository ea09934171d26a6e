//! How often something may be done that costs the transport more than it costs whoever asks for it.
//!
//! Owns: [`Pace`]. Pure: time is an argument. Threads and forks: the owner's. Failure: none.

use std::time::Duration;

/// A few times at once, and then once in every so long.
pub(super) struct Pace<const AT_ONCE: u32> {
    every: Duration,
    /// When all that was done would have been done, one after the other.
    done: Duration,
}

impl<const AT_ONCE: u32> Pace<AT_ONCE> {
    pub(super) const fn once_in(every: Duration) -> Self {
        Pace { every, done: Duration::ZERO }
    }

    /// Whether it may be done now.
    pub(super) fn allows(&self, now: Duration) -> bool {
        self.done <= now + self.every * (AT_ONCE - 1)
    }

    /// It is done.
    pub(super) fn note(&mut self, now: Duration) {
        self.done = self.done.max(now) + self.every;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_at_once_are_allowed_and_then_one_in_every_so_long() {
        let mut pace = Pace::<4>::once_in(Duration::from_millis(500));
        let mut times = Vec::new();
        for at in (10_000..15_000).map(Duration::from_millis) {
            if pace.allows(at) {
                pace.note(at);
                times.push(at.as_millis());
            }
        }
        assert_eq!(times[..6], [10_000, 10_001, 10_002, 10_003, 10_500, 11_000]);
        assert_eq!(times.len(), 4 + 9);
        let later = Duration::from_secs(100);
        assert!((0..4).all(|_| pace.allows(later) && {
            pace.note(later);
            true
        }));
        assert!(!pace.allows(later), "what was not done is not saved up");
    }
}
