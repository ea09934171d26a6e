//! Sessions that the vault was asked for and did not have.
//!
//! Who presents an id again and again that no host has would have each handshake ask and wait. It is not asked for again
//! for [`REMEMBERED`]: no longer, for in pull mode the host that made a session may write it a moment later; and only
//! what the vault said is remembered, never that it said nothing. A session that comes to this host meanwhile is found in
//! its store, which is looked into first.
//!
//! Owns: digests of keys, in a table that never grows: of two keys with one place the later one stays. Digests are keyed
//! by this process alone, so nobody can choose a key that hides another one. Called by: who asks the vault, under its lock.
//! Threads: that lock. Forks: a child begins anew. Failure: what is not remembered is asked for.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use super::answer::Key;

/// How long it is taken for granted that a session is not there.
pub(super) const REMEMBERED: Duration = Duration::from_secs(1);

/// Places: 24 KiB, once there is anything to remember.
const PLACES: usize = 1024;

#[derive(Default)]
pub(super) struct Absent {
    hasher: RandomState,
    /// None as long as there is nothing in it.
    places: Vec<Place>,
}

#[derive(Clone, Copy)]
struct Place {
    digest: u64,
    until: Duration,
}

impl Absent {
    /// The vault does not have it.
    pub(super) fn note(&mut self, key: &Key, now: Duration) {
        self.places.resize(PLACES, Place { digest: 0, until: Duration::ZERO });
        let (digest, at) = self.place_of(key);
        self.places[at] = Place { digest, until: now + REMEMBERED };
    }

    /// The vault has it after all.
    pub(super) fn forget(&mut self, key: &Key) {
        let (digest, at) = self.place_of(key);
        if let Some(place) = self.places.get_mut(at).filter(|place| place.digest == digest) {
            place.until = Duration::ZERO;
        }
    }

    /// Whether the vault said a moment ago that it does not have it.
    pub(super) fn has(&self, key: &Key, now: Duration) -> bool {
        let (digest, at) = self.place_of(key);
        self.places.get(at).is_some_and(|place| place.digest == digest && now < place.until)
    }

    fn place_of(&self, key: &Key) -> (u64, usize) {
        let digest = self.hasher.hash_one(key);
        #[allow(
            clippy::cast_possible_truncation,
            reason = "the remainder is below the number of places"
        )]
        let at = (digest % PLACES as u64) as usize;
        (digest, at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: usize) -> Key {
        let mut key = [0; 24];
        key[..8].copy_from_slice(&number.to_le_bytes());
        key
    }

    #[test]
    fn an_absent_session_is_remembered_for_a_second_and_no_other_is() {
        let (mut absent, now) = (Absent::default(), Duration::from_secs(9));
        assert!(!absent.has(&key(1), now), "nothing is remembered at first");
        absent.note(&key(1), now);
        let last = now + REMEMBERED - Duration::from_nanos(1);
        assert!(absent.has(&key(1), now) && absent.has(&key(1), last));
        assert!(!absent.has(&key(1), now + REMEMBERED));
        assert!((2..100_000).all(|other| !absent.has(&key(other), now)));
    }

    #[test]
    fn a_session_that_came_is_absent_no_more() {
        let (mut absent, now) = (Absent::default(), Duration::from_secs(9));
        absent.forget(&key(1));
        absent.note(&key(1), now);
        absent.forget(&key(1));
        assert!(!absent.has(&key(1), now));
    }

    #[test]
    fn the_table_does_not_grow_and_the_later_ones_stay() {
        let (mut absent, now) = (Absent::default(), Duration::from_secs(9));
        (0..100 * PLACES).for_each(|number| absent.note(&key(number), now));
        assert_eq!(absent.places.len(), PLACES);
        let remembered = (0..100 * PLACES).filter(|number| absent.has(&key(*number), now)).count();
        assert!(remembered <= PLACES && absent.has(&key(100 * PLACES - 1), now), "{remembered}");
    }
}
