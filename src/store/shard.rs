//! One shard: a log that overwrites its oldest records, and an index into it.
//!
//! The log's positions count 8-byte units and only grow; a position lies at `position % log_units`. Everything before
//! `head - log_units` is overwritten. An index entry is 12 bits of the key and the low 20 bits of a position, so it can
//! be told from the entry alone whether it still points into the log. A key may be in either of two buckets.
//!
//! Writers take the shard's lease; readers take nothing. Both are safe without it: every record carries a keyed check,
//! the head moves by compare-and-exchange, and an entry that points to anything but its own record is a miss. A writer
//! that is killed loses the record it was writing; one that wakes up after its lease was taken over spoils at most the
//! records it overwrites, which then are misses.

#![forbid(unsafe_code)]

use super::layout::BUCKET;
use super::record::{self, Key, Kind, Meta, Stands};
use super::sync::{AtomicU32, AtomicU64, Ordering, fence};
use zeroize::Zeroizing;

/// A shard's parts of the mapping.
#[derive(Clone, Copy)]
pub(super) struct Shard<'a> {
    /// Position of the next record.
    pub(super) head: &'a AtomicU64,
    /// Position of the oldest record that was not accounted for as overwritten.
    pub(super) tail: &'a AtomicU64,
    /// Position up to which records are in the index: behind the head while a writer is between the two.
    pub(super) entered: &'a AtomicU64,
    /// Position up to which the agent has sent.
    pub(super) sent: &'a AtomicU64,
    /// Position up to which a writer has come, also one that never moved the head.
    pub(super) written: &'a AtomicU64,
    /// Position up to which everything is wiped.
    pub(super) wiped: &'a AtomicU64,
    /// Which parts of the index were used, one bit each.
    pub(super) touched: &'a AtomicU64,
    pub(super) index: &'a [AtomicU32],
    pub(super) log: &'a [AtomicU64],
    /// Key of the records' checks.
    pub(super) seed: [u64; 2],
}

/// What went out of the log to make room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Evicted {
    /// Sessions whose time was not over.
    pub sessions: u64,
}

impl Evicted {
    fn count(&mut self, meta: &Meta, now: u32) {
        if meta.kind == Kind::Session && meta.expires > now {
            self.sessions += 1;
        }
    }
}

const POSITION_BITS: u32 = 20;
const POSITION_MASK: u64 = (1 << POSITION_BITS) - 1;

/// No head gets here: a million records a second take longer than a hundred years.
const FARTHEST: u64 = 1 << 62;

impl Shard<'_> {
    /// Appends a record, replacing one of the same key. `None` when another writer moved the head meanwhile (our lease
    /// was taken over) or the record is longer than half the log.
    pub(super) fn insert(&self, meta: &Meta, value: &[u8], now: u32) -> Option<Evicted> {
        let units = record::units(value.len());
        if units > self.log.len() / 2 {
            return None;
        }
        let mut evicted = Evicted::default();
        let head = self.head.load(Ordering::Relaxed);
        // A place that no writer ever reaches is not from us: the log begins anew.
        let begin = if head > FARTHEST { 0 } else { head };
        let start = self.skip_short_end(begin, units);
        let end = start + units as u64;
        self.note_written(begin, end);
        self.make_room(begin, end, now, &mut evicted);
        let offset = self.offset(start);
        if start != begin {
            record::write_pad(&self.log[self.offset(begin)..]);
        }
        record::write(&self.log[offset..offset + units], meta, value, self.seed);
        let moved = self.head.compare_exchange(head, end, Ordering::Release, Ordering::Relaxed);
        if moved.is_err() {
            self.note_late();
            return None;
        }
        self.point(&meta.key, start, now, &mut evicted);
        self.note_touched(&meta.key);
        self.note_entered(end);
        Some(evicted)
    }

    /// A copy of the record of that key.
    pub(super) fn lookup(&self, key: &Key) -> Option<(Meta, Zeroizing<Vec<u8>>)> {
        let (_, _, at) = self.entries(key).find(|(_, _, at)| record::has_key(at, key))?;
        record::read(at, self.seed).filter(|(meta, _)| meta.key == *key)
    }

    /// Removes the record of that key; true for exactly one of those who remove it at the same time. What stands in the
    /// place of a removed record stays: of two who remove a record, the second finds nothing.
    pub(super) fn remove(&self, key: &Key) -> bool {
        let found = self
            .entries(key)
            .find(|(_, _, at)| record::has_key(at, key) && !record::is_removal(at));
        found.is_some_and(|(entry, seen, _)| {
            entry.compare_exchange(seen, 0, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        })
    }

    /// How many sessions are found in the index whose time is not over.
    pub(super) fn live(&self, now: u32) -> u64 {
        let head = self.head.load(Ordering::Relaxed);
        let entries = self.touched_entries().map(|entry| entry.load(Ordering::Acquire));
        let records = entries.filter_map(|entry| self.record_of(entry, head));
        let live = records.filter(|meta| meta.kind == Kind::Session && meta.expires > now);
        live.count() as u64
    }

    /// Units of the log that hold records.
    pub(super) fn used_units(&self) -> usize {
        let head = self.head.load(Ordering::Relaxed);
        let used = head.saturating_sub(self.tail.load(Ordering::Relaxed));
        usize::try_from(used).unwrap_or(usize::MAX).min(self.log.len())
    }

    /// A record does not wrap: if it does not fit before the log's end, it starts over at its beginning.
    fn skip_short_end(&self, head: u64, units: usize) -> u64 {
        let left = self.log.len() - self.offset(head);
        if left < units { head.saturating_add(left as u64) } else { head }
    }

    /// Accounts for the records that a head at `end` will have overwritten.
    fn make_room(&self, head: u64, end: u64, now: u32, evicted: &mut Evicted) {
        let keep_from = end.saturating_sub(self.log.len() as u64);
        let mut tail = self.tail.load(Ordering::Relaxed);
        if tail > head || head - tail > self.log.len() as u64 {
            tail = keep_from;
        }
        while tail < keep_from {
            let offset = self.offset(tail);
            tail += match record::look(&self.log[offset..]) {
                Stands::Record(meta, units) => {
                    if self.points_to(&meta.key, tail) {
                        evicted.count(&meta, now);
                    }
                    units as u64
                }
                Stands::Pad => (self.log.len() - offset) as u64,
                // Spoiled by a writer that woke up too late. The next record starts at one of the next units.
                Stands::Garbage => 1,
            };
        }
        self.tail.store(tail, Ordering::Relaxed);
        // Whoever reads what is written over the old records sees that they are gone.
        fence(Ordering::Release);
    }

    /// Enters a position: in the place of the key's former record, else of an entry that points nowhere, else of the
    /// oldest of a bucket.
    fn point(&self, key: &Key, position: u64, now: u32, evicted: &mut Evicted) {
        let new = entry_for(key, position);
        let former = self.entries(key).find(|(_, _, at)| record::has_key(at, key));
        let target = match former {
            Some((entry, _, _)) => entry,
            None => self.least_useful(key, now, evicted),
        };
        target.store(new, Ordering::Release);
    }

    /// Lets the agent pass the record. A writer that wakes up late does not take back what others entered meanwhile.
    fn note_entered(&self, end: u64) {
        let seen = self.entered.load(Ordering::Relaxed);
        if seen < end || seen > self.head.load(Ordering::Relaxed) {
            self.entered.store(end, Ordering::Release);
        }
    }

    fn least_useful(&self, key: &Key, now: u32, evicted: &mut Evicted) -> &AtomicU32 {
        let head = self.head.load(Ordering::Relaxed);
        let [first, second] = self.buckets(key);
        let free = |bucket: &[AtomicU32]| {
            bucket.iter().filter(|entry| self.position(entry, head).is_none()).count()
        };
        let bucket = if free(second) > free(first) { second } else { first };
        let oldest =
            bucket.iter().min_by_key(|entry| self.position(entry, head)).expect("16 entries");
        if let Some(meta) = self.record_of(oldest.load(Ordering::Relaxed), head) {
            evicted.count(&meta, now);
        }
        oldest
    }

    /// The record that an entry points to; `None` where another one, or none, has come to stand there.
    fn record_of(&self, entry: u32, head: u64) -> Option<Meta> {
        let position = if entry == 0 { None } else { self.resolve(entry, head) }?;
        match record::look(&self.log[self.offset(position)..]) {
            Stands::Record(meta, _) if entry_for(&meta.key, position) == entry => Some(meta),
            _ => None,
        }
    }

    /// Index entries that may be the key's, each with its value and the record that it points to.
    fn entries(&self, key: &Key) -> impl Iterator<Item = (&AtomicU32, u32, &[AtomicU64])> {
        let tag = tag_of(key);
        self.buckets(key).into_iter().flatten().filter_map(move |entry| {
            let seen = entry.load(Ordering::Acquire);
            if seen >> POSITION_BITS != tag {
                return None;
            }
            // After the entry: an older head would not know the position of a record that was just replaced.
            let position = self.resolve(seen, self.head.load(Ordering::Acquire))?;
            Some((entry, seen, &self.log[self.offset(position)..]))
        })
    }

    pub(super) fn points_to(&self, key: &Key, position: u64) -> bool {
        let wanted = entry_for(key, position);
        self.buckets(key).into_iter().flatten().any(|entry| entry.load(Ordering::Relaxed) == wanted)
    }

    fn position(&self, entry: &AtomicU32, head: u64) -> Option<u64> {
        let seen = entry.load(Ordering::Relaxed);
        if seen == 0 { None } else { self.resolve(seen, head) }
    }

    /// The position that an entry means, if the log still holds it.
    fn resolve(&self, entry: u32, head: u64) -> Option<u64> {
        let age = head.wrapping_sub(u64::from(entry)) & POSITION_MASK;
        let held = age > 0 && age <= self.log.len() as u64;
        if held { head.checked_sub(age) } else { None }
    }

    fn buckets(&self, key: &Key) -> [&[AtomicU32]; 2] {
        let (buckets, _) = self.index.as_chunks::<BUCKET>();
        self.choices(key).map(|bucket| buckets[bucket].as_slice())
    }

    /// The two buckets that a key may be in.
    pub(super) fn choices(&self, key: &Key) -> [usize; 2] {
        let [_, choice, _] = record::key_words(key);
        [choice & 0xffff_ffff, choice >> 32].map(|half| usize_mod(half, self.index.len() / BUCKET))
    }

    pub(super) fn offset(&self, position: u64) -> usize {
        usize_mod(position, self.log.len())
    }
}

/// 12 bits of the key; never 0, so that no entry in use is 0.
fn tag_of(key: &Key) -> u32 {
    let [_, _, last] = record::key_words(key);
    low_32_bits(last % 4095) + 1
}

fn entry_for(key: &Key, position: u64) -> u32 {
    tag_of(key) << POSITION_BITS | low_32_bits(position & POSITION_MASK)
}

fn low_32_bits(value: u64) -> u32 {
    let [a, b, c, d, ..] = value.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

fn usize_mod(value: u64, modulus: usize) -> usize {
    usize::try_from(value % modulus as u64).unwrap_or(0)
}
