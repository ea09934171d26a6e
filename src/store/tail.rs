//! What the agent reads off a shard's log: the records that this node made, in their order.
//!
//! It takes no lease. A record counts when its check holds and the index points to it, and the walk goes only as far as
//! records are in the index, so that none is passed before it could be seen. Writers note what they are about to
//! overwrite in the tail before they do; a walk that was overtaken goes on there.

#![forbid(unsafe_code)]

use zeroize::Zeroizing;

use super::record::{self, Kind, Meta, Origin, Stands};
use super::shard::Shard;
use super::sync::{AtomicU64, Ordering, fence};

/// A record with its value.
pub type Record = (Meta, Zeroizing<Vec<u8>>);

/// A part of a shard's log, as far as it is for other nodes.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Tail {
    /// Sessions and removals that this node made, oldest first.
    pub records: Vec<Record>,
    /// Where to go on.
    pub next: u64,
    /// Records may be missing: they were overwritten before they were read.
    pub lapped: bool,
}

impl Shard<'_> {
    /// Reads from a position on, up to `most` records. Where that position is not in the log any more, or not yet, it
    /// starts with the oldest record. Never looks at more than twice the log's length, whatever it holds: what is left
    /// then is for the next call.
    pub(super) fn read_from(&self, from: u64, most: usize) -> Tail {
        // Before the head, which is never behind it.
        let entered = self.entered.load(Ordering::Acquire);
        let head = self.head.load(Ordering::Acquire);
        let oldest = self.oldest(head);
        let lapped = from < oldest || from > head;
        let next = if lapped { oldest } else { from };
        let mut tail = Tail { next, lapped, ..Tail::default() };
        let written_by_us = (oldest..=head).contains(&entered);
        self.walk(&mut tail, if written_by_us { entered } else { head }, most);
        tail
    }

    /// Where the oldest record starts.
    pub(super) fn oldest(&self, head: u64) -> u64 {
        let begin = head.saturating_sub(self.log.len() as u64);
        let tail = self.tail.load(Ordering::Relaxed);
        if (begin..=head).contains(&tail) { tail } else { begin }
    }

    fn walk(&self, tail: &mut Tail, end: u64, most: usize) {
        let mut work = 2 * self.log.len();
        while tail.next < end && tail.records.len() < most && work > 0 {
            let position = tail.next;
            let at = &self.log[self.offset(position)..];
            let (found, units, cost) = self.step(at, position);
            tail.next = position.saturating_add(units as u64).min(end);
            work = work.saturating_sub(cost);
            // A record that was found was whole, whatever has become of it since.
            let surely_read = if found.is_some() { tail.next } else { position };
            tail.records.extend(found);
            self.note_overtaken(tail, surely_read, end);
        }
    }

    /// What stands at a position: a record for others, if it is one; how many units to go on; how many were looked at.
    fn step(&self, at: &[AtomicU64], position: u64) -> (Option<Record>, usize, usize) {
        match record::look(at) {
            Stands::Record(_, units) => match record::read(at, self.seed) {
                Some(record) => {
                    (Some(record).filter(|it| self.is_for_others(it, position)), units, units)
                }
                None => (None, 1, units),
            },
            // Spoiled, wiped, or before the log's end: the next record starts at one of the next units. Even the mark
            // that nothing more comes is not believed: a writer that woke up late may have put it over a record.
            Stands::Pad | Stands::Garbage => (None, 1, 1),
        }
    }

    fn is_for_others(&self, (meta, _): &Record, position: u64) -> bool {
        meta.origin == Origin::Here
            && matches!(meta.kind, Kind::Session | Kind::Removal)
            && self.points_to(&meta.key, position)
    }

    /// Goes on behind what writers have overwritten meanwhile, or may have.
    fn note_overtaken(&self, tail: &mut Tail, surely_read: u64, end: u64) {
        fence(Ordering::Acquire);
        let oldest = self.tail.load(Ordering::Relaxed);
        if oldest > surely_read {
            tail.lapped = true;
            tail.next = oldest.min(end);
        }
    }
}
