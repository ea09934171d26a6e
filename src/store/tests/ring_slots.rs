//! The two places of the ring, and writers that do not finish.

use std::sync::atomic::Ordering;
use std::time::Duration;

use zeroize::Zeroizing;

use super::records::SMALL;
use super::support::*;
use crate::store::layout::{Geometry, SLOT_BYTES, WORD};
use crate::store::{BootClock, Lease, RING_HOLD, Store, word};

fn put(store: &Store, bytes: &[u8]) -> bool {
    store.update_ring(PATIENT, |_| Some(Zeroizing::new(bytes.to_vec())))
}

fn ring(store: &Store) -> Option<Vec<u8>> {
    store.read_ring().1.map(|bytes| bytes.to_vec())
}

/// Spoils the place of the ring in force (0) or the other one (1).
fn spoil(store: &Store, other: u64) {
    let slot = usize::from((store.ring_generation() + other) % 2 == 1);
    let units = store.region.units(Geometry::slot_at(slot), SLOT_BYTES / WORD);
    units[3].fetch_xor(1, Ordering::Relaxed);
}

#[test]
fn fresh_memory_has_no_ring() {
    let store = Store::anonymous(SMALL).unwrap();
    assert_eq!((store.ring_generation(), store.read_ring()), (0, (0, None)));
}

#[test]
fn the_ring_comes_back_as_it_was_put_and_moves_the_generation_each_time() {
    let store = Store::anonymous(SMALL).unwrap();
    for (len, generation) in [1, 7, 8, 9, 1000, 44_053, 3].into_iter().zip(1..) {
        let bytes = value(generation, len);
        assert!(put(&store, &bytes));
        assert_eq!(store.read_ring().0, generation);
        assert_eq!(ring(&store), Some(bytes));
    }
    assert!(store.update_ring(PATIENT, |bytes| {
        assert_eq!(bytes.map(<[u8]>::len), Some(3), "the change sees what is in force");
        None
    }));
    assert_eq!(store.ring_generation(), 7, "nothing changed");
}

#[test]
fn the_largest_ring_fits_and_a_longer_one_leaves_the_old() {
    let store = Store::anonymous(SMALL).unwrap();
    let largest = value(1, SLOT_BYTES - 16);
    assert!(put(&store, &largest));
    assert!(!put(&store, &value(2, SLOT_BYTES - 15)));
    assert_eq!(ring(&store), Some(largest));
}

#[test]
fn both_places_hold_the_ring_so_no_dropped_key_stays_behind() {
    let store = Store::anonymous(SMALL).unwrap();
    put(&store, &[0xaa; 200]);
    put(&store, &[0xbb; 20]);
    for slot in [0, 1] {
        let units = store.region.units(Geometry::slot_at(slot), SLOT_BYTES / WORD);
        let left = units.iter().filter(|unit| {
            unit.load(Ordering::Relaxed).to_le_bytes().windows(2).any(|pair| pair == [0xaa, 0xaa])
        });
        assert_eq!(left.count(), 0, "slot {slot}");
    }
}

#[test]
fn a_writer_killed_half_way_leaves_the_old_ring() {
    let store = Store::anonymous(SMALL).unwrap();
    put(&store, &value(1, 300));
    let next = usize::from(store.ring_generation().is_multiple_of(2));
    let units = store.region.units(Geometry::slot_at(next), SLOT_BYTES / WORD);
    for written in 0..40 {
        // It wrote the length last; here also first, as a machine might.
        units[0].store(300 * (written % 2), Ordering::Relaxed);
        units[1 + written as usize].store(mix(written), Ordering::Relaxed);
        assert_eq!(ring(&store), Some(value(1, 300)));
    }
    assert!(put(&store, &value(2, 300)), "and the next writer is not disturbed");
    assert_eq!(ring(&store), Some(value(2, 300)));
}

#[test]
fn a_spoiled_place_in_force_falls_back_to_the_other() {
    let store = Store::anonymous(SMALL).unwrap();
    put(&store, &value(1, 300));
    spoil(&store, 0);
    assert_eq!(ring(&store), Some(value(1, 300)));
    spoil(&store, 1);
    assert_eq!(ring(&store), None, "both are spoiled");
    assert!(put(&store, &value(2, 300)));
    assert_eq!(ring(&store), Some(value(2, 300)));
}

#[test]
fn a_writer_that_comes_late_changes_nothing() {
    let store = Store::anonymous(SMALL).unwrap();
    put(&store, &value(1, 300));
    let late = store.slots();
    let (generation, _) = late.read();
    assert!(put(&store, &value(2, 300)));
    assert!(!late.publish(generation, &value(3, 300)));
    assert_eq!(ring(&store), Some(value(2, 300)));
    assert_eq!(store.ring_generation(), generation + 1);
}

#[test]
fn a_change_is_dropped_when_the_lease_was_taken_over_meanwhile() {
    let store = Store::anonymous(SMALL).unwrap();
    put(&store, &value(1, 300));
    let done = store.update_ring(PATIENT, |_| {
        store.region.word(word::RING_LEASE).store(0, Ordering::Relaxed);
        assert!(put(&store, &value(2, 300)), "another one, meanwhile");
        Some(Zeroizing::new(value(3, 300)))
    });
    assert!(!done);
    assert_eq!(ring(&store), Some(value(2, 300)));
    let done = store.update_ring(PATIENT, |_| {
        store.region.word(word::RING_LEASE).fetch_add(1, Ordering::Relaxed);
        Some(Zeroizing::new(value(3, 300)))
    });
    assert!(!done, "also when the other has not put its ring yet");
    assert_eq!(ring(&store), Some(value(2, 300)));
}

#[test]
fn a_ring_that_others_change_is_not_waited_for_longer_than_told() {
    let store = Store::anonymous(SMALL).unwrap();
    put(&store, &value(1, 300));
    let word = store.region.word(word::RING_LEASE);
    let held =
        Lease::acquire(word, Duration::from_secs(9), PATIENT, &BootClock::default()).expect("free");
    assert!(!store.update_ring(Duration::from_millis(1), |_| panic!("it is not ours")));
    assert_eq!(ring(&store), Some(value(1, 300)), "reading waits for nobody");
    drop(held);
    // One who holds it and dies delays others by the hold time once.
    std::mem::forget(Lease::acquire(
        word,
        Duration::from_millis(30),
        PATIENT,
        &BootClock::default(),
    ));
    assert!(store.update_ring(RING_HOLD, |_| None));
}
