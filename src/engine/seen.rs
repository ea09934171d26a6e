//! Under which policies this program has served which names, each judged when it was in force.
//!
//! The node's table of names does not tell which program it has a name from. But a program may keep the library from
//! judging what resumes (`tls::confirm`), and then a session must not resume there, however well the node knows the name.
//! So only what the program itself, with its forked children, was seen to do counts.
//!
//! Owns: one table in a process, in memory that forked children share. Called by: `engine`, for visits where rules matter,
//! and by `tls` before a server forks. Threads and forks: words are atomic; contexts are told apart by random numbers, so
//! children may write of contexts that they alone have. Failure: what others pushed out was not seen, and without memory
//! nothing was.

use std::sync::atomic::{AtomicU64, Ordering};

use once_cell::race::OnceBox;

use crate::sys;

/// A hosting server's 100,000 names find room: fewer than one in a hundred is pushed out. 2 MiB, of which the system gives
/// what is written to.
const WORDS: usize = 1 << 18;

/// A hash may be in any word of its line, which is one of the processor's cache.
const LINE: usize = 8;

type Table = Option<&'static [AtomicU64]>;

/// Makes the table, if that was not done yet. What forks before does not share it.
pub fn prepare() {
    table();
}

pub(super) fn contains(hash: u64) -> bool {
    line(hash).iter().any(|word| word.load(Ordering::Relaxed) == hash)
}

pub(super) fn insert(hash: u64) {
    let line = line(hash);
    let has_room = |word: &&AtomicU64| [0, hash].contains(&word.load(Ordering::Relaxed));
    let pushed_out = || line.get(upper_bits(hash) % LINE);
    if let Some(word) = line.iter().find(has_room).or_else(pushed_out) {
        word.store(hash, Ordering::Relaxed);
    }
}

pub(super) fn remove(hash: u64) {
    for word in line(hash) {
        // Where it fails, something else is there.
        let _ = word.compare_exchange(hash, 0, Ordering::Relaxed, Ordering::Relaxed);
    }
}

fn table() -> Table {
    static TABLE: OnceBox<Table> = OnceBox::new();
    *TABLE.get_or_init(|| Box::new(sys::shared_words(WORDS)))
}

/// Where a hash may be; nothing without memory.
fn line(hash: u64) -> &'static [AtomicU64] {
    let lines = table().map_or(&[][..], |words| words.as_chunks::<LINE>().0);
    let number = usize::try_from(hash % (WORDS / LINE) as u64).unwrap_or(0);
    lines.get(number).map_or(&[], |line| line)
}

fn upper_bits(hash: u64) -> usize {
    usize::from(hash.to_be_bytes()[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Like the hashes that the engine makes.
    fn hash(number: u64) -> u64 {
        let mixed = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (mixed ^ mixed >> 32).wrapping_mul(0xD6E8_FEB8_6659_FD93)
    }

    /// One test, for there is one table.
    #[test]
    fn a_hundred_thousand_are_known_and_those_beyond_push_others_out() {
        const FIRST: u64 = 1 << 40;
        let count = |names: u64| (FIRST..FIRST + names).filter(|it| contains(hash(*it))).count();
        (FIRST..FIRST + 100_000).for_each(|number| insert(hash(number)));
        assert!(count(100_000) > 99_000, "{}", count(100_000));
        remove(hash(FIRST));
        assert!(!contains(hash(FIRST)));
        insert(hash(FIRST));
        assert!(contains(hash(FIRST)));
        (FIRST..FIRST + 600_000).for_each(|number| insert(hash(number)));
        assert!((WORDS / 2..=WORDS).contains(&count(600_000)), "{}", count(600_000));
        (FIRST..FIRST + 600_000).for_each(|number| remove(hash(number)));
        assert_eq!(count(600_000), 0);
    }
}
