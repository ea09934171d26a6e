//! Rings as bytes.

use proptest::prelude::*;

use super::support::*;
use crate::ring::wire::{MAX_LEN, decode, encode};
use crate::ring::{KeyName, MAX_RECORDS, MAX_REVOCATIONS, Ring};

/// A ring that passes for one, or nothing: never a panic, never one that is too large.
fn check_hostile(bytes: &[u8]) {
    if let Some(ring) = decode(bytes) {
        assert!(ring.records().count() <= MAX_RECORDS);
        assert!(ring.revoked.len() <= MAX_REVOCATIONS);
        assert_eq!(encode(&ring).as_slice(), bytes, "only what encode would write is accepted");
    }
}

proptest! {
    #[test]
    fn every_ring_reads_back_as_it_was(a in arb_ring(), b in arb_ring()) {
        let ring = a.merge(&b);
        let bytes = encode(&ring);
        prop_assert!(bytes.len() <= MAX_LEN);
        prop_assert_eq!(decode(&bytes), Some(ring));
    }

    #[test]
    fn a_ring_cut_short_or_with_more_behind_it_is_refused(
        ring in arb_ring(),
        extra in prop::collection::vec(any::<u8>(), 1..40),
    ) {
        let bytes = encode(&ring);
        for len in 0..bytes.len() {
            prop_assert_eq!(decode(&bytes[..len]), None);
        }
        prop_assert_eq!(decode(&[bytes.as_slice(), &extra].concat()), None);
    }

    #[test]
    fn bytes_changed_anywhere_never_panic_and_never_exceed_the_limits(
        ring in arb_ring(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = encode(&ring).to_vec();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        check_hostile(&bytes);
    }

    #[test]
    fn arbitrary_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        check_hostile(&bytes);
        if let Some(version) = bytes.first_mut() {
            *version = 1;
        }
        if let Some(counts) = bytes.get_mut(17..21) {
            counts.iter_mut().for_each(|byte| *byte &= 3);
        }
        check_hostile(&bytes);
    }
}

#[test]
fn more_records_or_revocations_than_allowed_are_refused() {
    let mut ring = full_ring(0, MAX_RECORDS + 1);
    assert_eq!(decode(&encode(&ring)), None);
    ring = full_ring(0, MAX_RECORDS);
    for number in 0..MAX_REVOCATIONS {
        let mut name = [1; 16];
        name[..8].copy_from_slice(&(number as u64).to_be_bytes());
        ring.revoked.insert(KeyName(name), START);
    }
    let bytes = encode(&ring);
    assert!(bytes.len() <= MAX_LEN, "the fullest ring fits");
    assert_eq!(decode(&bytes), Some(ring.clone()));
    ring.revoked.insert(KeyName([2; 16]), START);
    assert_eq!(decode(&encode(&ring)), None);
}

#[test]
fn bytes_of_another_version_are_refused() {
    let mut bytes = encode(&Ring::default());
    for version in (0..=255).filter(|version| *version != 1) {
        bytes[0] = version;
        assert_eq!(decode(&bytes), None);
    }
}
