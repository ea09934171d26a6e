//! Which names were served by what: a hint for every process of the node.
//!
//! A table of single words, changed by compare-and-set alone: no lease, so no process can be in the way of another. It
//! maps a keyed hash of the caller's to a fingerprint of the caller's: what served the name last. A caller who knows
//! that the name is served by different things marks it as *mixed*, for a time that it chooses. Being served by another
//! fingerprint does not set the mark: a stranger can cause that with one handshake. It makes a mark that is on longer.
//!
//! ```text
//! bits 38..64  tag: upper bits of the hash, never 0
//!      36..38  what is known: 0 one fingerprint, 1 mixed, 2 mixed and no fingerprint known
//!      16..36  end of the mark, in units of 10 minutes since 1970, modulo 2^20
//!       0..16  fingerprint
//! ```
//!
//! The lower bits of the hash choose where a search begins; it goes on word by word, up to [`WINDOW`] words. A word
//! that was filled stays filled with the same tag for as long as the memory lives. So a search ends at the first empty
//! word, and two who enter the same hash meet at the same word.
//!
//! Times of marks are compared modulo 2^20 units: a mark counts until its end, when that is at most half of them (10
//! years) ahead. Callers give marks a week at most (`resumption.lifetime`), so a clock may go back by almost 10 years
//! and the mark still counts. One that ended more than 10 years ago counts again until something is observed: the
//! caller is then too careful, never too careless.
//!
//! Owns: the table of names, and the flag that rules are known. Called by: `engine`. Threads and forks: any number, in
//! any process; nobody waits. Failure: a name that finds no room is [`Served::NoRoom`]; a change that others get in the
//! way of too often is given up.

#![forbid(unsafe_code)]

use std::hash::Hasher;
use std::time::Duration;

use siphasher::sip::SipHasher13;

use super::Store;
use super::layout::word;
use super::served::Served;
use super::sync::{AtomicU64, Ordering};
use crate::clock::UnixMillis;

/// How many words a search looks at. At the default size, 100,000 names need half of it at most.
const WINDOW: usize = 512;

/// A change that others get in the way of so often is given up. Each of them has changed the word, and a word changes a
/// few times in ten minutes.
const ATTEMPTS: usize = 100;

const UNIT: u64 = 600;
const TIME_BITS: u32 = 20;
const TIMES: u64 = 1 << TIME_BITS;
const TAG_BITS: u32 = 26;
const TAGS: u64 = (1 << TAG_BITS) - 1;
const TIME_AT: u32 = 16;
const STATE_AT: u32 = TIME_AT + TIME_BITS;
const TAG_AT: u32 = STATE_AT + 2;
const _: () = assert!(TAG_AT + TAG_BITS == 64);

/// The longest time that a mark can be given, whatever a caller asks for: far less than half of the times that can be
/// told apart.
const LONGEST: Duration = Duration::from_secs(400 * 86_400);

/// The words of the table, a power of two of them.
#[derive(Clone, Copy)]
pub(super) struct Names<'a>(pub(super) &'a [AtomicU64]);

/// One word, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    tag: u64,
    known: Known,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    One(u16),
    /// Until that time, in units; and the fingerprint seen last, where one was.
    Mixed(u64, Option<u16>),
}

/// The word of a name, or the one where it would be entered.
struct Place<'a> {
    word: &'a AtomicU64,
    seen: u64,
}

impl Names<'_> {
    pub(super) fn served(&self, hash: u64, now: UnixMillis) -> Served {
        match self.find(hash) {
            None => Served::NoRoom,
            Some(Place { seen: 0, .. }) => Served::Nothing,
            Some(place) => match Entry::decode(place.seen).known {
                Known::One(print) => Served::By(print),
                Known::Mixed(until, _) if counts(until, now) => Served::Mixed,
                Known::Mixed(_, Some(print)) => Served::By(print),
                Known::Mixed(_, None) => Served::Nothing,
            },
        }
    }

    pub(super) fn note_served(&self, hash: u64, print: u16, now: UnixMillis, keep: Duration) {
        self.change(hash, |known| after_serving(known, print, now, keep));
    }

    pub(super) fn note_mixed(&self, hash: u64, now: UnixMillis, keep: Duration) {
        self.change(hash, |known| {
            let print = match known {
                Some(Known::One(print)) => Some(print),
                Some(Known::Mixed(_, print)) => print,
                None => None,
            };
            renewed(known, print, now, keep)
        });
    }

    /// Puts what `next` makes of the entry in its place, if that is something else. Does nothing where there is no
    /// room.
    fn change(&self, hash: u64, next: impl Fn(Option<Known>) -> Known) {
        for _ in 0..ATTEMPTS {
            let Some(Place { word, seen }) = self.find(hash) else { return };
            let known = (seen != 0).then(|| Entry::decode(seen).known);
            let changed = Entry { tag: tag_of(hash), known: next(known) }.encode();
            let set = || word.compare_exchange(seen, changed, Ordering::AcqRel, Ordering::Relaxed);
            if changed == seen || set().is_ok() {
                return;
            }
        }
    }

    fn find(&self, hash: u64) -> Option<Place<'_>> {
        let mask = self.0.len() - 1;
        let begin = usize::try_from(hash & mask as u64).unwrap_or(0);
        (0..WINDOW.min(self.0.len())).find_map(|step| {
            let word = &self.0[(begin + step) & mask];
            let seen = word.load(Ordering::Acquire);
            (seen == 0 || seen >> TAG_AT == tag_of(hash)).then_some(Place { word, seen })
        })
    }
}

/// What is known once `print` has served the name.
fn after_serving(known: Option<Known>, print: u16, now: UnixMillis, keep: Duration) -> Known {
    match known {
        Some(mixed @ Known::Mixed(until, before)) if counts(until, now) => match before {
            Some(before) if before == print => mixed,
            _ => renewed(known, Some(print), now, keep),
        },
        _ => Known::One(print),
    }
}

/// A mark until `keep` after `now`, or the present one if that lasts as long: names that are served by two things in
/// turn are written once in ten minutes, not each time.
fn renewed(known: Option<Known>, print: Option<u16>, now: UnixMillis, keep: Duration) -> Known {
    let until = end_of(now, keep);
    match known {
        Some(mixed @ Known::Mixed(before, _))
            if counts(before, now) && ahead(before, now) >= ahead(until, now) =>
        {
            mixed
        }
        _ => Known::Mixed(until, print),
    }
}

/// The first unit that a mark does not cover any more.
fn end_of(now: UnixMillis, keep: Duration) -> u64 {
    (now + keep.min(LONGEST)).secs().div_euclid(UNIT).wrapping_add(1) % TIMES
}

/// How many units a time is ahead; one that is behind is ahead by more than half of all.
fn ahead(until: u64, now: UnixMillis) -> u64 {
    until.wrapping_sub(now.secs() / UNIT) % TIMES
}

/// Whether a mark with that end is in force.
fn counts(until: u64, now: UnixMillis) -> bool {
    (1..=TIMES / 2).contains(&ahead(until, now))
}

fn tag_of(hash: u64) -> u64 {
    1 + (hash >> TAG_AT) % TAGS
}

impl Entry {
    fn encode(self) -> u64 {
        let (state, until, print) = match self.known {
            Known::One(print) => (0, 0, print),
            Known::Mixed(until, Some(print)) => (1, until, print),
            Known::Mixed(until, None) => (2, until, 0),
        };
        self.tag << TAG_AT | state << STATE_AT | until << TIME_AT | u64::from(print)
    }

    /// Whatever the word says means something.
    fn decode(word: u64) -> Self {
        let [low, high, ..] = word.to_le_bytes();
        let print = u16::from_le_bytes([low, high]);
        let until = word >> TIME_AT & (TIMES - 1);
        let known = match word >> STATE_AT & 3 {
            0 => Known::One(print),
            1 => Known::Mixed(until, Some(print)),
            _ => Known::Mixed(until, None),
        };
        Entry { tag: word >> TAG_AT, known }
    }
}

impl Store {
    /// The hash by which the table of names knows the name that `parts` make up. It is keyed with this memory's seed,
    /// so that clients can neither predict nor choose it.
    pub fn name_hash(&self, parts: &[&[u8]]) -> u64 {
        let [k0, k1] = self.region.seed();
        let mut hasher = SipHasher13::new_with_keys(k0, k1);
        for part in parts {
            hasher.write(&(part.len() as u64).to_le_bytes());
            hasher.write(part);
        }
        hasher.finish()
    }

    /// What served the name of that hash. Reads one or two cache lines in most cases, and waits for nobody.
    pub fn served(&self, hash: u64, now: UnixMillis) -> Served {
        self.names().served(hash, now)
    }

    /// Remembers that what `print` stands for was the last to serve the name. If the name is mixed and something else
    /// served it before, the mark lasts until `keep` after `now` at least. Writes only when something changes.
    pub fn note_served(&self, hash: u64, print: u16, now: UnixMillis, keep: Duration) {
        self.names().note_served(hash, print, now, keep);
    }

    /// Marks the name as mixed until `keep` after `now`, or until the end of its present mark if that is later. Without
    /// room the name stays [`Served::NoRoom`].
    pub fn note_mixed(&self, hash: u64, now: UnixMillis, keep: Duration) {
        self.names().note_mixed(hash, now, keep);
    }

    /// Remembers, for as long as the memory lives, that this node knows rules for clients: a connection was served
    /// under them, or a context that has them was attached.
    pub fn note_restricted(&self) {
        let word = self.region.word(word::RESTRICTED);
        if word.load(Ordering::Relaxed) == 0 {
            word.store(1, Ordering::Release);
        }
    }

    /// Whether this node knows rules for clients, since the memory was made.
    pub fn has_restricted(&self) -> bool {
        self.region.word(word::RESTRICTED).load(Ordering::Relaxed) != 0
    }

    pub(super) fn names(&self) -> Names<'_> {
        let geometry = self.region.geometry();
        Names(self.region.units(geometry.names_at(), geometry.names))
    }
}
