//! A lock that outlives its holders.
//!
//! One word of shared memory: zero when free, else the boot-clock time, in nanoseconds, until which its holder has it.
//! Whoever finds that time past takes it over, so a holder that was killed or frozen delays others by the hold time
//! once, and nothing in memory names a process (ids are reused, and differ between namespaces). What a lease guards
//! must therefore stay harmless under a holder that wakes up late: see [`super::shard`] and [`super::slots`].
//!
//! | word                                   | meaning                                          |
//! |----------------------------------------|--------------------------------------------------|
//! | 0                                      | free                                             |
//! | now < word <= now + [`LONGEST_HOLD`]   | held                                             |
//! | word <= now                            | abandoned: free to take                          |
//! | word > now + [`LONGEST_HOLD`]          | never written by us (corrupt memory): free       |

#![forbid(unsafe_code)]

use std::time::Duration;

use super::sync::{AtomicU64, Ordering};

/// No lease is taken for longer.
pub(super) const LONGEST_HOLD: Duration = Duration::from_secs(10);

/// What a waiter does between two attempts, and the clock it measures by: real in the store, simulated in models.
pub(super) trait Waiter {
    /// Time since boot.
    fn now(&self) -> Duration;
    /// Lets others run.
    fn pause(&self);
}

/// A held lease: gives it back when dropped, unless it was taken over meanwhile.
pub(super) struct Lease<'a> {
    word: &'a AtomicU64,
    until: u64,
    taken_over: bool,
}

impl<'a> Lease<'a> {
    /// Takes the lease for `hold`, or `None` when others have it for all of `patience`.
    pub(super) fn acquire(
        word: &'a AtomicU64,
        hold: Duration,
        patience: Duration,
        waiter: &impl Waiter,
    ) -> Option<Self> {
        let give_up = waiter.now() + patience;
        loop {
            let now = waiter.now();
            if let Some(lease) = Self::try_acquire(word, now, hold) {
                return Some(lease);
            }
            if now >= give_up {
                return None;
            }
            waiter.pause();
        }
    }

    fn try_acquire(word: &'a AtomicU64, now: Duration, hold: Duration) -> Option<Self> {
        let seen = word.load(Ordering::Relaxed);
        if means_held(seen, now) {
            return None;
        }
        // The successor's time is later than any that it takes over, so no two holders ever have the same word.
        let until = nanos(now + hold.min(LONGEST_HOLD));
        word.compare_exchange(seen, until, Ordering::Acquire, Ordering::Relaxed)
            .is_ok()
            // Only now: a lease that is made is given back.
            .then(|| Lease { word, until, taken_over: seen != 0 })
    }

    /// Keeps it for `hold` from now on; `false` when it was taken over. One that ran out unnoticed is kept as well.
    pub(super) fn renew(&mut self, now: Duration, hold: Duration) -> bool {
        // Never earlier than what it was: whoever comes to see a word sees a later one than all before it.
        let until = nanos(now + hold.min(LONGEST_HOLD)).max(self.until);
        let kept =
            self.word.compare_exchange(self.until, until, Ordering::AcqRel, Ordering::Relaxed);
        if kept.is_ok() {
            self.until = until;
        }
        kept.is_ok()
    }

    /// Whether anybody has the lease.
    pub(super) fn is_held(word: &AtomicU64, now: Duration) -> bool {
        means_held(word.load(Ordering::Relaxed), now)
    }

    /// What no other holder of this lease ever had, for as long as it is not renewed.
    pub(super) fn holder(&self) -> u64 {
        self.until
    }

    /// Whether the former holder has not given it back, and may go on as if it had it.
    pub(super) fn was_taken_over(&self) -> bool {
        self.taken_over
    }

    /// Whether nobody has taken it over.
    pub(super) fn still_held(&self) -> bool {
        self.word.load(Ordering::Relaxed) == self.until
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        // Fails when the lease was taken over: then it is not ours to give back.
        let _ = self.word.compare_exchange(self.until, 0, Ordering::Release, Ordering::Relaxed);
    }
}

fn means_held(word: u64, now: Duration) -> bool {
    nanos(now) < word && word <= nanos(now + LONGEST_HOLD)
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
