//! Which families were removed, and what keeps copies of a removed session away.
//!
//! A removal is written twice. A record in the log goes to other nodes and keeps copies of a session from being taken
//! in; new sessions overwrite it. What a handshake asks is a table of single words, changed by compare-and-set alone,
//! which no session can push anything out of:
//!
//! ```text
//! bits 32..64  end: the last second, since 1970, in which what was removed could be resumed
//!       0..32  fingerprint: upper half of a keyed hash of the removal's key
//! ```
//!
//! The lower bits of the hash choose a bucket of 8 words, a cache line. A new word takes the place of the one with the
//! earliest end, an empty one first; before that, the *watermark* is raised to the end of what gives way. Whatever ends
//! at the watermark or earlier counts as removed. So a removal is never lost, also not to a clock that is put back: in
//! doubt there is a full handshake. Words that are over give way first, and a watermark that has passed hurts nobody.
//!
//! Owns: the table of removals and its watermark. Called by: `engine`. Threads and forks: any number, in any process;
//! the table has no lock, a record in the log waits for its shard's lease as long as the caller allows. Failure: what
//! the table has no room for moves the watermark; what the log has no time for is removed on this node only, which is
//! an error.

#![forbid(unsafe_code)]

use std::time::Duration;

use siphasher::sip::SipHasher13;

use super::layout::{REMOVAL_BUCKET, WORD, word};
use super::sync::{AtomicU64, Ordering};
use super::{Evicted, Key, Kind, Meta, NotInserted, Origin, Store, seconds};
use crate::clock::UnixMillis;

/// A change that others get in the way of so often raises the watermark instead.
const ATTEMPTS: usize = 100;

/// A bucket of words, and the table's watermark.
pub(super) struct Removals<'a> {
    pub(super) bucket: &'a [AtomicU64],
    pub(super) watermark: &'a AtomicU64,
    /// Until when any removal counts. A watermark or an end beyond it is damage, and says nothing.
    pub(super) latest: u32,
}

impl Removals<'_> {
    /// From now on what has that fingerprint, and ends then or earlier, is removed.
    pub(super) fn note(&self, print: u32, end: u32) {
        let mine = u64::from(end) << 32 | u64::from(print);
        for _ in 0..ATTEMPTS {
            let Some((word, seen)) = self.place(print) else { break };
            if is_of(seen, print) {
                if end_of(seen) >= u64::from(end) {
                    return;
                }
            } else if end_of(seen) > u64::from(end) {
                // The new one is what gives way.
                break;
            } else {
                // Before the word goes: who misses it sees this.
                self.raise(end_of(seen));
            }
            if word.compare_exchange(seen, mine, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                return;
            }
        }
        self.raise(end.into());
    }

    /// Whether what has that fingerprint and end was removed. It may answer yes for what was not, but never no for what
    /// was.
    pub(super) fn contains(&self, print: u32, end: u32) -> bool {
        let is_noted = self.bucket.iter().any(|word| is_of(word.load(Ordering::Acquire), print));
        // After the words: whoever replaced one has raised this before.
        let watermark = self.watermark.load(Ordering::Acquire);
        is_noted || (u64::from(end)..=self.latest.into()).contains(&watermark)
    }

    fn raise(&self, end: u64) {
        let latest = self.latest.into();
        if end <= latest {
            let raised = |seen| (seen < end || seen > latest).then_some(end);
            let _ = self.watermark.fetch_update(Ordering::AcqRel, Ordering::Acquire, raised);
        }
    }

    /// The word of that fingerprint, or the one that makes room for it.
    fn place(&self, print: u32) -> Option<(&AtomicU64, u64)> {
        let words = self.bucket.iter().map(|word| (word, word.load(Ordering::Acquire)));
        words.min_by_key(|(_, seen)| (!is_of(*seen, print), end_of(*seen)))
    }
}

/// Whether a word is there and has that fingerprint.
fn is_of(word: u64, print: u32) -> bool {
    word != 0 && word & u64::from(u32::MAX) == u64::from(print)
}

fn end_of(word: u64) -> u64 {
    word >> 32
}

/// The record of a removal, which keeps copies away until then.
fn removal(key: &Key, until: UnixMillis, origin: Origin, now: UnixMillis) -> Meta {
    Meta {
        key: *key,
        binding: 0,
        expires: seconds(until),
        authenticated: seconds(now),
        kind: Kind::Removal,
        origin,
        note: 0,
    }
}

impl Store {
    /// Removes the session of that key on this node, if it is there. From then on [`Store::is_removed`] says so of the
    /// key, whether it is that of a session or of a family. Copies of the session are kept away while the log has the
    /// record of the removal. The agent sends that record to other nodes when `origin` is this one. `until` must not be
    /// earlier than the last second in which any of what is removed could be resumed. `patience` is the longest wait
    /// for the shard's lease. Not for single use: everybody who removes succeeds.
    ///
    /// # Errors
    /// [`NotInserted::Busy`]: it is removed, but not kept away, and other nodes are not told.
    pub fn remove_for_all(
        &self,
        key: &Key,
        until: UnixMillis,
        origin: Origin,
        now: UnixMillis,
        patience: Duration,
    ) -> Result<Evicted, NotInserted> {
        self.region.word(word::REMOVALS_UNTIL).fetch_max(until.0, Ordering::AcqRel);
        let (removals, print) = self.removals_of(key);
        removals.note(print, seconds(until));
        self.log_removal(&removal(key, until, origin, now), now, patience)
    }

    /// Removes the session of that key on this node alone, if it is there, and keeps copies of it away until then,
    /// while the log has the record of it. For sessions that were used: there are too many for the table.
    ///
    /// # Errors
    /// [`NotInserted::Busy`]: then only what is there was removed, and a copy may come.
    pub fn remove_here(
        &self,
        key: &Key,
        until: UnixMillis,
        now: UnixMillis,
        patience: Duration,
    ) -> Result<Evicted, NotInserted> {
        self.log_removal(&removal(key, until, Origin::Elsewhere, now), now, patience)
    }

    fn log_removal(
        &self,
        removal: &Meta,
        now: UnixMillis,
        patience: Duration,
    ) -> Result<Evicted, NotInserted> {
        self.insert(removal, &[], now, patience).inspect_err(|_| {
            self.remove(&removal.key);
        })
    }

    /// Whether anything was removed for all whose removal may still count: one load, where nothing ever is.
    pub fn has_removals(&self, now: UnixMillis) -> bool {
        now.0 <= self.region.word(word::REMOVALS_UNTIL).load(Ordering::Acquire)
    }

    /// Whether what the key stands for, which ends at `ends`, was removed for all. After very many removals it may
    /// answer yes for what was not removed, but never no for what was. Reads two cache lines, and waits for nobody.
    /// Superseded memory answers from its own table.
    pub fn is_removed(&self, key: &Key, ends: UnixMillis) -> bool {
        let (removals, print) = self.removals_of(key);
        removals.contains(print, seconds(ends))
    }

    /// Whether a removal in the log keeps copies of the session of that key away until then, or longer.
    pub fn keeps_away(&self, key: &Key, until: UnixMillis) -> bool {
        self.lookup(key).is_some_and(|(found, _)| {
            found.kind == Kind::Removal && found.expires >= seconds(until)
        })
    }

    /// Where the table has a key's word, and its fingerprint.
    fn removals_of(&self, key: &Key) -> (Removals<'_>, u32) {
        let [k0, k1] = self.region.seed();
        let hash = SipHasher13::new_with_keys(k0, k1).hash(key);
        let [_, _, _, _, a, b, c, d] = hash.to_le_bytes();
        let geometry = self.region.geometry();
        let buckets = geometry.removals / REMOVAL_BUCKET;
        let index = usize::try_from(hash % buckets as u64).unwrap_or(0);
        let at = geometry.removals_at() + index * REMOVAL_BUCKET * WORD;
        let bucket = self.region.units(at, REMOVAL_BUCKET);
        let watermark = self.region.word(word::REMOVED_UNTIL);
        let until = self.region.word(word::REMOVALS_UNTIL).load(Ordering::Acquire);
        let latest = seconds(UnixMillis(until));
        (Removals { bucket, watermark, latest }, u32::from_le_bytes([a, b, c, d]))
    }
}
