//! Forgetting what a shard holds, at the cost of what was written to it and not of its size.
//!
//! Memory that is read or written for the first time is memory that the system has to find, so what was never used is
//! left alone. Two things are kept for that. Of the log, the positions between which something may stand that is not
//! wiped: writers raise the upper one before they write, also for a record that is never finished. Of the index, which
//! parts were ever used: writers set a part's bit after they have written there.
//!
//! A flush takes no lease. It leaves for the next one what writers add meanwhile: they write behind the head that it saw
//! first. Only a writer that was stopped in the midst, and goes on after others have taken its place, writes before it.
//! It finds that out, and then the next flush wipes the whole log.

#![forbid(unsafe_code)]

use std::ops::Range;

use super::layout::BUCKET;
use super::record::Key;
use super::shard::Shard;
use super::sync::{AtomicU32, Ordering, fence};

/// Parts of an index, as many as a word has bits.
const PARTS: usize = 64;

/// In the place of the position up to which everything is wiped: none is known.
const NOTHING_WIPED: u64 = u64::MAX;

impl Shard<'_> {
    /// Forgets and wipes everything.
    pub(super) fn clear(&self) {
        let head = self.head.load(Ordering::Acquire);
        self.clear_index();
        self.wipe_log(head);
        self.tail.store(head, Ordering::Relaxed);
        self.sent.store(head, Ordering::Relaxed);
    }

    /// Says where a writer is going to write.
    pub(super) fn note_written(&self, begin: u64, end: u64) {
        if self.wiped.load(Ordering::Relaxed) > begin {
            self.note_late();
        }
        let seen = self.written.load(Ordering::Relaxed);
        // One that is farther by more than a lap is not from us.
        if seen < end || seen - end > self.log.len() as u64 {
            self.written.store(end, Ordering::Relaxed);
        }
    }

    /// Says that something was written where everything may count as wiped.
    pub(super) fn note_late(&self) {
        // After what was written: who sees this wipes that.
        self.wiped.swap(NOTHING_WIPED, Ordering::AcqRel);
    }

    /// Says that a key's entry was written. To be called after it was.
    pub(super) fn note_touched(&self, key: &Key) {
        // A flush that sees no bit wipes no entry: either it comes before the entry, or the bit is seen to be gone.
        fence(Ordering::SeqCst);
        let bits = self.choices(key).map(|bucket| 1u64 << self.part_of(bucket));
        let bits = bits[0] | bits[1];
        if self.touched.load(Ordering::Relaxed) & bits != bits {
            self.touched.fetch_or(bits, Ordering::Relaxed);
        }
    }

    /// The index entries that may be in use.
    pub(super) fn touched_entries(&self) -> impl Iterator<Item = &AtomicU32> {
        self.touched_parts().flat_map(|part| &self.index[self.part(part)])
    }

    fn touched_parts(&self) -> impl Iterator<Item = usize> + use<> {
        let touched = self.touched.load(Ordering::Acquire);
        (0..PARTS).filter(move |part| touched >> part & 1 != 0)
    }

    fn clear_index(&self) {
        for part in self.touched_parts() {
            self.touched.fetch_and(!(1 << part), Ordering::Relaxed);
            // Who writes an entry from now on sets the bit again: see `note_touched`.
            fence(Ordering::SeqCst);
            self.index[self.part(part)].iter().for_each(|entry| entry.store(0, Ordering::Release));
        }
    }

    fn wipe_log(&self, head: u64) {
        let wiped = self.wiped.load(Ordering::Acquire);
        let written = self.written.load(Ordering::Relaxed).max(head);
        self.units_between(wiped, written).into_iter().for_each(|units| {
            self.log[units].iter().for_each(|unit| unit.store(0, Ordering::Relaxed));
        });
        // Killed before this, it leaves all of it to the next one. So it does when a late writer came meanwhile.
        let _ = self.wiped.compare_exchange(wiped, head, Ordering::Release, Ordering::Relaxed);
    }

    /// Where in the log the positions are: at most twice, since it begins anew at its end. All of it, where they make no
    /// sense.
    fn units_between(&self, from: u64, to: u64) -> [Range<usize>; 2] {
        let len = self.log.len();
        match to.checked_sub(from) {
            Some(0) => [0..0, 0..0],
            Some(units) if units < len as u64 => {
                let (first, last) = (self.offset(from), self.offset(to));
                if first < last { [first..last, 0..0] } else { [first..len, 0..last] }
            }
            _ => [0..len, 0..0],
        }
    }

    /// The part that a bucket lies in.
    fn part_of(&self, bucket: usize) -> usize {
        bucket * PARTS / (self.index.len() / BUCKET)
    }

    /// The entries of a part.
    fn part(&self, part: usize) -> Range<usize> {
        let buckets = self.index.len() / BUCKET;
        let begin = |part: usize| (part * buckets).div_ceil(PARTS) * BUCKET;
        begin(part)..begin(part + 1)
    }
}
