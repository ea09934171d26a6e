//! Which policy served a name last at one context, with our info callback in place, as far as a program has seen it.
//!
//! The node remembers names by place, port included, and whatever program served them. FTP servers have a new port for each
//! transfer, and some refuse one that does not resume; but control connection and transfers are one context's. And a
//! program that was started anew at a place may not leave our info callback alone.
//!
//! Owns: one table in a process, in memory that forked children share. Called by: attaching, and the callbacks, for the
//! guess that comes before the decision ([`super::confirm`]). Threads and forks: words are atomic; a context is told from
//! others by a random number, so children may write of contexts that they alone have. Failure: a name that another one
//! pushed out is not known, and without memory none is.

use std::sync::atomic::{AtomicU64, Ordering};

use once_cell::race::OnceBox;

use crate::sys;

const NAMES: usize = 4096;

/// In each word the upper 48 bits of a hash of name and context, and the fingerprint of the policy.
type Words = Option<&'static [AtomicU64]>;

const PRINT: u64 = 0xffff;

/// What is known of the names of one context.
#[derive(Clone, Copy)]
pub(super) struct Elsewhere(u64);

impl Elsewhere {
    /// Of the context that has this number, which no other has.
    pub(super) fn of(number: [u8; 16]) -> Self {
        words();
        Elsewhere(number.first_chunk().copied().map_or(0, u64::from_le_bytes))
    }

    /// The fingerprint of the policy that served the name of this hash.
    pub(super) fn served(self, name: u64) -> Option<u16> {
        let hash = self.hash(name);
        let word = word(hash)?.load(Ordering::Relaxed);
        let print = u16::try_from(word & PRINT).ok();
        print.filter(|_| word != 0 && word & !PRINT == hash & !PRINT)
    }

    /// Remembers it.
    pub(super) fn note(self, name: u64, print: u16) {
        let hash = self.hash(name);
        if let Some(word) = word(hash) {
            word.store(hash & !PRINT | u64::from(print), Ordering::Relaxed);
        }
    }

    fn hash(self, name: u64) -> u64 {
        const ODD: u64 = 0x9E37_79B9_7F4A_7C15;
        let mixed = (name ^ self.0).wrapping_mul(ODD);
        (mixed ^ mixed >> 32).wrapping_mul(ODD)
    }
}

/// The table. It is made with the first context, before the process forks.
fn words() -> Words {
    static WORDS: OnceBox<Words> = OnceBox::new();
    *WORDS.get_or_init(|| Box::new(sys::shared_words(NAMES)))
}

fn word(hash: u64) -> Option<&'static AtomicU64> {
    words()?.get(usize::try_from(hash & PRINT).unwrap_or(0) % NAMES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_known_by_what_served_it_last_at_that_context() {
        let (context, another) = (Elsewhere::of([1; 16]), Elsewhere::of([2; 16]));
        let (one, other) = (0x1234_5678_9abc_0001, 0x4321_5678_9abc_0002);
        context.note(one, 7);
        context.note(one, 8);
        assert_eq!(context.served(one), Some(8));
        assert_eq!([context.served(other), another.served(one)], [None, None]);
    }

    #[test]
    fn names_push_others_out_and_are_never_taken_for_them() {
        let context = Elsewhere::of([3; 16]);
        let print = |name: u64| (name % 7) as u16;
        (0..20_000).for_each(|name| context.note(name, print(name)));
        let known: Vec<_> = (0..20_000).filter(|name| context.served(*name).is_some()).collect();
        assert!(known.iter().all(|name| context.served(*name) == Some(print(*name))));
        assert!((NAMES / 2..=NAMES).contains(&known.len()), "{}", known.len());
    }
}
