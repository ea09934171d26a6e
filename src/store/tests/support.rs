//! What the tests of the store share: keys and values that are told by a number.

use std::time::Duration;

use crate::clock::UnixMillis;
use crate::store::{Evicted, Key, Kind, Meta, NotInserted, Origin, Store};

pub(super) const NOW: UnixMillis = UnixMillis::from_secs(1_700_000_000);

/// What no test expires before.
pub(super) const LATER: u32 = 1_700_100_000;

/// Much longer than a healthy machine needs: tests that wait for it fail.
pub(super) const PATIENT: Duration = Duration::from_secs(20);

/// What the TLS layer gives the store of a 168-byte session: all but the 32 bytes of its id.
pub(super) const TYPICAL: usize = 136;

/// Numbers that look random and are the same in each run (splitmix64).
pub(super) fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(0x1234_5678_9abc);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

pub(super) fn key(number: u64) -> Key {
    let mut key = [0; 24];
    for (part, index) in key.chunks_mut(8).zip(1..) {
        part.copy_from_slice(&mix(number ^ index << 56).to_le_bytes());
    }
    key
}

/// A value that only this number has, so that a mix of two is none.
pub(super) fn value(number: u64, len: usize) -> Vec<u8> {
    let words = (0..len.div_ceil(8) as u64).flat_map(|at| mix(number ^ at << 40).to_le_bytes());
    words.take(len).collect()
}

pub(super) fn session(number: u64) -> Meta {
    Meta {
        key: key(number),
        binding: mix(number ^ 1),
        expires: LATER,
        authenticated: number as u32,
        kind: Kind::Session,
        origin: Origin::Here,
        note: number as u8,
    }
}

pub(super) fn insert(store: &Store, number: u64, len: usize) -> Result<Evicted, NotInserted> {
    store.insert(&session(number), &value(number, len), NOW, PATIENT)
}

/// Whether the session of that number is there, and then as it was inserted.
pub(super) fn finds(store: &Store, number: u64, len: usize) -> bool {
    store.lookup(&key(number)).is_some_and(|(meta, found)| {
        assert_eq!(meta, session(number));
        assert_eq!(*found, value(number, len), "the value of another");
        true
    })
}
