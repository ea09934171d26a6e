//! What the agent sleeps on until there is something to send.
//!
//! A sequence that every ring moves, and a word in which a waiter leaves the sequence that it waits on. Who rings moves
//! the sequence and then looks for a waiter; who waits leaves its mark and then looks at the sequence: one of the two
//! sees the other, so no ring is missed. Without a waiter a ring is one addition and one load.
//!
//! The mark is taken away by the first who rings, so many rings wake a waiter once, and one that was killed costs one
//! needless call of the kernel in all. The mark names its sequence, so that nobody takes away the mark of a waiter that
//! has seen his ring already.

#![forbid(unsafe_code)]

use super::sync::{AtomicU32, AtomicU64, Ordering};

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
        self.sequence.load(Ordering::SeqCst)
    }

    /// Rings, and calls `wake` when somebody may wait.
    pub(super) fn ring(&self, wake: impl FnOnce()) {
        self.sequence.fetch_add(1, Ordering::SeqCst);
        let waiter = self.waiter.load(Ordering::SeqCst);
        if waiter != 0 {
            // Fails when another one waits by now, who has seen this ring or looks for it next.
            let _ = self.waiter.compare_exchange(waiter, 0, Ordering::SeqCst, Ordering::SeqCst);
            wake();
        }
    }

    /// Calls `sleep`, which must not sleep once the sequence has moved, unless it was rung since `seen`.
    pub(super) fn wait(&self, seen: u32, sleep: impl FnOnce()) {
        self.waiter.store(mark(seen), Ordering::SeqCst);
        if self.rings() == seen {
            sleep();
        }
    }
}

/// The sequence that is waited on, and a bit that makes it differ from 0.
fn mark(seen: u32) -> u64 {
    u64::from(seen) | 1 << 32
}
