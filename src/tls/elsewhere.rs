//! Which policy served a name last at any port of one context, as far as this process has seen.
//!
//! The node remembers names by place, port included. FTP servers have a new port for each transfer, and some refuse one
//! that does not resume; but control connection and transfers are one process's, and one context's.
//!
//! Owns: [`Elsewhere`], which an attachment keeps. Called by: the callbacks, for the guess that comes before the decision
//! ([`super::confirm`]). Threads and forks: words are atomic; children inherit a copy. Failure: a name that another one
//! pushed out is not known.

use std::sync::atomic::{AtomicU64, Ordering};

const NAMES: usize = 16;

/// In each word the upper 48 bits of a name's hash, and the fingerprint of the policy.
#[derive(Default)]
pub(super) struct Elsewhere([AtomicU64; NAMES]);

const PRINT: u64 = 0xffff;

impl Elsewhere {
    /// The fingerprint of the policy that served the name of this hash.
    pub(super) fn served(&self, hash: u64) -> Option<u16> {
        let word = self.word(hash).load(Ordering::Relaxed);
        let print = u16::try_from(word & PRINT).ok();
        print.filter(|_| word != 0 && word & !PRINT == hash & !PRINT)
    }

    /// Remembers it.
    pub(super) fn note(&self, hash: u64, print: u16) {
        self.word(hash).store(hash & !PRINT | u64::from(print), Ordering::Relaxed);
    }

    fn word(&self, hash: u64) -> &AtomicU64 {
        &self.0[usize::try_from(hash & PRINT).unwrap_or(0) % NAMES]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_known_by_what_served_it_last() {
        let elsewhere = Elsewhere::default();
        let (one, other) = (0x1234_5678_9abc_0001, 0x4321_5678_9abc_0002);
        elsewhere.note(one, 7);
        elsewhere.note(one, 8);
        assert_eq!(elsewhere.served(one), Some(8));
        assert_eq!(elsewhere.served(other), None);
        // One at the same place pushes it out.
        elsewhere.note(one ^ 1 << 60, 9);
        assert_eq!(elsewhere.served(one), None);
    }
}
