//! The strike register: which tickets have carried early data.
//!
//! A table of single words, changed by compare-and-set alone: no lease and no log, so a process that is stopped or
//! killed in the midst takes nothing away from the others.
//!
//! ```text
//! bits 32..64  until when the strike counts, seconds since 1970
//!       0..32  fingerprint: upper half of a keyed hash of the ticket's id
//! ```
//!
//! The lower bits of the hash choose a bucket of 16 words. Who claims an id looks at the whole bucket, puts its word in
//! the place of one whose time is over, and looks at the whole bucket again. Between the two lies a fence: of two who
//! claim the same id at the same time, at least one sees the other, and who sees another is refused. Both may be; never
//! are both allowed. A bucket without a free word refuses. Nothing makes room for anything else.
//!
//! A process that was stopped in the midst goes on with the time at which it began, and what others claimed meanwhile
//! may be over and gone. So whoever took longer than [`LONGEST_CLAIM`] is refused, and strikes count that much longer.
//!
//! Owns: the strike register. Called by: `engine`. Threads and forks: any number, in any process; nobody waits.
//! Failure: refusal, which costs the client a round trip.

#![forbid(unsafe_code)]

use std::time::Duration;

use siphasher::sip::SipHasher13;

use super::layout::STRIKE_BUCKET;
use super::sync::{AtomicU64, Ordering, fence};
use super::{Store, seconds};
use crate::clock::{self, UnixMillis};

/// A claim that takes longer is refused.
const LONGEST_CLAIM: Duration = Duration::from_secs(1);

/// Words that are searched together.
pub(super) struct Bucket<'a>(pub(super) &'a [AtomicU64]);

impl Bucket<'_> {
    /// Whether nobody claimed the fingerprint before, in which case it is claimed until `until` now. `is_late` says, at
    /// the end, whether the answer came too late to be sure.
    pub(super) fn claim(
        &self,
        print: u32,
        until: u32,
        now: u32,
        is_late: impl FnOnce() -> bool,
    ) -> bool {
        let claimed = self.0.iter().enumerate().find_map(|(index, word)| {
            let seen = word.load(Ordering::Relaxed);
            let free = !counts(seen, now);
            let set = || {
                let mine = u64::from(until) << 32 | u64::from(print);
                word.compare_exchange(seen, mine, Ordering::AcqRel, Ordering::Relaxed)
            };
            (free && !self.is_claimed(print, now, None) && set().is_ok()).then_some(index)
        });
        // Who claimed before is seen here, or sees our word behind its own fence.
        fence(Ordering::SeqCst);
        claimed.is_some_and(|own| !self.is_claimed(print, now, Some(own)) && !is_late())
    }

    /// Whether a word other than `own` holds the fingerprint.
    fn is_claimed(&self, print: u32, now: u32, own: Option<usize>) -> bool {
        self.0.iter().enumerate().any(|(index, word)| {
            let seen = word.load(Ordering::Acquire);
            Some(index) != own
                && counts(seen, now)
                && seen & u64::from(u32::MAX) == u64::from(print)
        })
    }
}

/// Whether the time of a word is not over. An empty one's is.
fn counts(word: u64, now: u32) -> bool {
    word >> 32 > u64::from(now)
}

impl Store {
    /// Claims early data for the ticket of that id: true for one of all who claim it within `window`, and only where it
    /// is certain that none of them goes unseen. Waits for nobody.
    pub fn strike(&self, id: &[u8], window: Duration, now: UnixMillis) -> bool {
        // What was claimed before this memory was made, or before a crash that an older file has survived, or in a
        // newer file, is not known.
        if self.region.on_disk || self.is_superseded() || now < self.created() + window {
            return false;
        }
        let [k0, k1] = self.region.seed();
        let hash = SipHasher13::new_with_keys(k0, k1).hash(id);
        let [_, _, _, _, a, b, c, d] = hash.to_le_bytes();
        // Seconds are rounded up.
        let until = seconds(now + window + LONGEST_CLAIM).saturating_add(1);
        let is_late = || clock::now() > now + LONGEST_CLAIM;
        self.bucket(hash).claim(u32::from_le_bytes([a, b, c, d]), until, seconds(now), is_late)
    }

    fn bucket(&self, hash: u64) -> Bucket<'_> {
        let geometry = self.region.geometry();
        let buckets = geometry.strikes / STRIKE_BUCKET;
        let index = usize::try_from(hash % buckets as u64).unwrap_or(0);
        let at = geometry.strikes_at() + index * STRIKE_BUCKET * 8;
        Bucket(self.region.units(at, STRIKE_BUCKET))
    }
}
