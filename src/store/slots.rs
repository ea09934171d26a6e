//! Two slots for the ring's bytes, and a word that says which writer's bytes are in force.
//!
//! The word is a counter (upper 32 bits), which every change moves, and the token of the writer whose ring is in force
//! (lower 32 bits). Each slot says in its header who wrote it. It counts only when its token is the word's. A token is
//! a hash of its writer's lease, which no other holder ever had.
//!
//! A writer fills a slot that is not in force, moves the word, then copies its bytes into the other slot, so that no
//! slot keeps keys that the ring has dropped. Killed before it moves the word, it leaves the old ring in force; killed
//! after that, the new one.
//!
//! A writer that was stopped and goes on after its lease was taken over changes nothing: who took over has moved the
//! counter first, so the late one's compare-and-exchange fails; and what it goes on to write has its own token, so it
//! does not count. It may spoil one slot; the successor's bytes are in both.

#![forbid(unsafe_code)]

use std::hash::Hasher;

use siphasher::sip::SipHasher13;
use zeroize::Zeroizing;

use super::record::{read_bytes, write_bytes};
use super::sync::{AtomicU64, Ordering, fence};

/// Length, stamp and check come before the bytes.
pub(super) const HEADER_UNITS: usize = 3;

/// A reader that the ring is changed under so often goes on with what it has.
const READS: usize = 4;

const ONE: u64 = 1 << 32;
const TOKEN: u64 = ONE - 1;

/// The ring's place in the mapping.
#[derive(Clone, Copy)]
pub(super) struct Slots<'a> {
    /// Counter and token of the ring in force.
    pub(super) word: &'a AtomicU64,
    pub(super) slots: [&'a [AtomicU64]; 2],
    /// Key of the checks.
    pub(super) seed: [u64; 2],
}

impl<'a> Slots<'a> {
    /// The word, and the bytes that are in force under it; no bytes when neither slot holds them.
    pub(super) fn read(&self) -> (u64, Option<Zeroizing<Vec<u8>>>) {
        let mut word = self.word.load(Ordering::Acquire);
        for _ in 0..READS {
            let bytes = self.slots.iter().find_map(|slot| self.read_slot(slot, word));
            // Who sees a slot that was written anew sees that the word had moved.
            fence(Ordering::Acquire);
            let now = self.word.load(Ordering::Acquire);
            if bytes.is_some() || now == word {
                return (word, bytes);
            }
            word = now;
        }
        (word, None)
    }

    /// Keeps the ring in force as it is, and whoever has read the word before from moving it. For who has taken over
    /// from a writer that may go on.
    pub(super) fn shut_out_others(&self) {
        self.word.fetch_add(ONE, Ordering::AcqRel);
    }

    /// Puts `bytes` in force, written by the holder of `lease`, if the word is still `seen`; `false` also when they do
    /// not fit, or when a late writer spoiled them at once.
    pub(super) fn publish(&self, seen: u64, lease: u64, bytes: &[u8]) -> bool {
        let [first, second] = self.slots;
        if bytes.len() > (first.len() - HEADER_UNITS) * 8 {
            return false;
        }
        let stamp = (seen.wrapping_add(ONE) & !TOKEN) | self.token(lease);
        // Of two that are in force either may go first.
        let is_second_whole = self.read_slot(second, seen).is_some();
        let (target, other) = if is_second_whole { (first, second) } else { (second, first) };
        self.write_slot(target, stamp, bytes);
        let published = self.read_slot(target, stamp).is_some()
            && self.word.compare_exchange(seen, stamp, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        if published {
            self.write_slot(other, stamp, bytes);
        }
        published
    }

    fn read_slot(&self, slot: &[AtomicU64], word: u64) -> Option<Zeroizing<Vec<u8>>> {
        let [len, stamp, check] = [0, 1, 2].map(|unit| slot[unit].load(Ordering::Relaxed));
        if !is_in_force(stamp, word) {
            return None;
        }
        let len = usize::try_from(len).ok().filter(|len| (1..=slot.len() * 8).contains(len))?;
        let from = slot.get(HEADER_UNITS..HEADER_UNITS + len.div_ceil(8))?;
        // A ring that cannot be read counts as damaged, so this may not fail: callers have seen that there is memory.
        let bytes = read_bytes(Vec::with_capacity(from.len() * 8), from, len);
        (self.check(stamp, &bytes) == check).then_some(bytes)
    }

    fn write_slot(&self, slot: &'a [AtomicU64], stamp: u64, bytes: &[u8]) {
        slot[0].store(0, Ordering::Release);
        fence(Ordering::Release);
        let (header, body) = slot.split_at(HEADER_UNITS);
        write_bytes(body, bytes);
        body[bytes.len().div_ceil(8)..].iter().for_each(|unit| unit.store(0, Ordering::Relaxed));
        header[1].store(stamp, Ordering::Relaxed);
        header[2].store(self.check(stamp, bytes), Ordering::Relaxed);
        header[0].store(bytes.len() as u64, Ordering::Release);
    }

    fn check(&self, stamp: u64, bytes: &[u8]) -> u64 {
        let mut hasher = self.hasher();
        hasher.write(&stamp.to_le_bytes());
        hasher.write(bytes);
        hasher.finish()
    }

    fn token(&self, lease: u64) -> u64 {
        self.hasher().hash(&lease.to_le_bytes()) & TOKEN
    }

    fn hasher(&self) -> SipHasher13 {
        SipHasher13::new_with_keys(self.seed[0], self.seed[1])
    }
}

/// Whether what was written with that stamp is in force under the word: it is the same writer's, and the counter has
/// only been moved by others who took over since.
fn is_in_force(stamp: u64, word: u64) -> bool {
    let later = word.wrapping_sub(stamp) >> 32;
    stamp & TOKEN == word & TOKEN && later < ONE / 2
}
