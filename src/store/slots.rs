//! Two slots for the ring's bytes and a generation that says which of them counts: generation modulo 2.
//!
//! A writer fills the other slot, then moves the generation; killed half-way it leaves the old ring in force. After
//! that it writes the first slot too, so no slot keeps keys that the ring has dropped. A slot that was spoiled by a
//! writer that woke up too late fails its check; the reader then uses the other one.

#![forbid(unsafe_code)]

use siphasher::sip::SipHasher13;
use zeroize::Zeroizing;

use super::record::{read_bytes, write_bytes};
use super::sync::{AtomicU64, Ordering, fence};

/// Length and check come before the bytes.
const HEADER_UNITS: usize = 2;

/// The ring's place in the mapping.
#[derive(Clone, Copy)]
pub(super) struct Slots<'a> {
    pub(super) generation: &'a AtomicU64,
    pub(super) slots: [&'a [AtomicU64]; 2],
    /// Key of the checks.
    pub(super) seed: [u64; 2],
}

impl<'a> Slots<'a> {
    /// The generation of the ring in force, and its bytes; no bytes when neither slot holds any.
    pub(super) fn read(&self) -> (u64, Option<Zeroizing<Vec<u8>>>) {
        let generation = self.generation.load(Ordering::Acquire);
        let bytes = self.read_slot(generation).or_else(|| {
            // Who sees the one being written sees the other one written.
            fence(Ordering::Acquire);
            self.read_slot(generation.wrapping_add(1))
        });
        (generation, bytes)
    }

    /// Puts `bytes` in force if nobody else did since `generation`; `false` also when they do not fit.
    pub(super) fn publish(&self, generation: u64, bytes: &[u8]) -> bool {
        let next = generation.wrapping_add(1);
        if bytes.len() > (self.slot(next).len() - HEADER_UNITS) * 8 {
            return false;
        }
        self.write_slot(next, bytes);
        let moved = self
            .generation
            .compare_exchange(generation, next, Ordering::Release, Ordering::Relaxed)
            .is_ok();
        if moved {
            self.write_slot(generation, bytes);
        } else {
            // We are late, and the slot may be the one in force by now: the successor's copy in the other one counts.
            self.slot(next)[0].store(0, Ordering::Relaxed);
        }
        moved
    }

    fn read_slot(&self, generation: u64) -> Option<Zeroizing<Vec<u8>>> {
        let slot = self.slot(generation);
        let len = usize::try_from(slot[0].load(Ordering::Relaxed)).ok()?;
        let check = slot[1].load(Ordering::Relaxed);
        let body = slot.get(HEADER_UNITS..HEADER_UNITS + len.div_ceil(8))?;
        let bytes = read_bytes(body, len);
        (len > 0 && self.check(&bytes) == check).then_some(bytes)
    }

    fn write_slot(&self, generation: u64, bytes: &[u8]) {
        let slot = self.slot(generation);
        slot[0].store(0, Ordering::Release);
        fence(Ordering::Release);
        let (header, body) = slot.split_at(HEADER_UNITS);
        write_bytes(body, bytes);
        body[bytes.len().div_ceil(8)..].iter().for_each(|unit| unit.store(0, Ordering::Relaxed));
        header[1].store(self.check(bytes), Ordering::Relaxed);
        header[0].store(bytes.len() as u64, Ordering::Release);
    }

    fn slot(&self, generation: u64) -> &'a [AtomicU64] {
        self.slots[usize::from(generation & 1 == 1)]
    }

    fn check(&self, bytes: &[u8]) -> u64 {
        SipHasher13::new_with_keys(self.seed[0], self.seed[1]).hash(bytes)
    }
}
