//! What the agent sleeps on until there is something to send.
//!
//! A sequence that every ring moves, and a word in which a waiter leaves the sequence that it waits on. Who rings moves
//! the sequence and then looks for a waiter; who waits leaves its mark and then looks at the sequence: one of the two
//! sees the other, so no ring is missed. Without a waiter a ring is one addition, one fence and one load.
//!
//! The mark is taken away by the first who rings, so many rings wake a waiter once, and one that was killed costs one
//! needless call of the kernel in all. The mark names its sequence: a waiter that has seen a ring already keeps its
//! mark, however late who rang comes to look, for the next ring is to wake it.

#![forbid(unsafe_code)]

use super::sync::{AtomicU32, AtomicU64, Ordering, fence};

/// The bell's parts of the mapping.
#[derive(Clone, Copy)]
pub(super) struct Bell<'a> {
    pub(super) sequence: &'a AtomicU32,
    /// 0, or what a waiter waits on: see [`mark`].
    pub(super) waiter: &'a AtomicU64,
}

impl Bell<'_> {
    /// How often it was rung, as far as 32 bits tell.
    pub(super) fn rings(&self) -> u32 {
        self.sequence.load(Ordering::Acquire)
    }

    /// Rings, and calls `wake` when somebody may wait.
    pub(super) fn ring(&self, wake: impl FnOnce()) {
        let rung = self.sequence.fetch_add(1, Ordering::AcqRel).wrapping_add(1);
        fence(Ordering::SeqCst);
        let waiter = self.waiter.load(Ordering::Relaxed);
        if waits_for(waiter, rung) {
            // Fails when another one waits by now, who has seen this ring or looks for it next.
            let _ = self.waiter.compare_exchange(waiter, 0, Ordering::Relaxed, Ordering::Relaxed);
            wake();
        }
    }

    /// Calls `sleep`, which must not sleep once the sequence has moved, unless it was rung since `seen`.
    pub(super) fn wait(&self, seen: u32, sleep: impl FnOnce()) {
        // A store would do: what a late ringer takes away is an older mark. The model checker knows that of a swap
        // only.
        self.waiter.swap(mark(seen), Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if self.rings() == seen {
            sleep();
        }
    }
}

/// The sequence that is waited on, and a bit that makes it differ from 0.
fn mark(seen: u32) -> u64 {
    u64::from(seen) | WAITS
}

const WAITS: u64 = 1 << 32;

/// Whether the mark is that of a waiter that has not seen the ring that moved the sequence to `rung`. Sequences wrap
/// around: what is up to half of all numbers behind came before.
fn waits_for(mark: u64, rung: u32) -> bool {
    let seen = u32::try_from(mark & !WAITS).unwrap_or_default();
    let behind = rung.wrapping_sub(seen);
    mark != 0 && behind != 0 && behind <= u32::MAX / 2
}
