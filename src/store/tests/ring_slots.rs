//! The two places of the ring, and writers that do not finish.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use zeroize::Zeroizing;

use super::records::SMALL;
use super::support::*;
use crate::store::holds::{BootClock, RING_HOLD};
use crate::store::layout::{Geometry, SLOT_BYTES, WORD};
use crate::store::slots::HEADER_UNITS;
use crate::store::{Lease, Store, word};

fn put(store: &Store, bytes: &[u8]) -> bool {
    store.update_ring(PATIENT, |_| Some(Zeroizing::new(bytes.to_vec())))
}

fn ring(store: &Store) -> Option<Vec<u8>> {
    store.read_ring().1.map(|bytes| bytes.to_vec())
}

/// How many rings there were.
fn count(store: &Store) -> u64 {
    store.ring_generation() >> 32
}

fn slot(store: &Store, index: usize) -> &[AtomicU64] {
    store.region.units(Geometry::slot_at(index), SLOT_BYTES / WORD)
}

fn spoil(store: &Store, index: usize) {
    slot(store, index)[HEADER_UNITS + 1].fetch_xor(1, Ordering::Relaxed);
}

/// Takes the ring's lease and never gives it back, as one who is stopped for long.
fn stopped(store: &Store) -> u64 {
    let word = store.region.word(word::RING_LEASE);
    let hold = Duration::from_millis(1);
    let lease = Lease::acquire(word, hold, PATIENT, &BootClock::default()).expect("free");
    let holder = lease.holder();
    std::mem::forget(lease);
    holder
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
        assert_eq!(count(&store), generation);
        assert_eq!(store.read_ring().0, store.ring_generation());
        assert_eq!(ring(&store), Some(bytes));
    }
    assert!(store.update_ring(PATIENT, |bytes| {
        assert_eq!(bytes.map(<[u8]>::len), Some(3), "the change sees what is in force");
        None
    }));
    assert_eq!(count(&store), 7, "nothing changed");
}

#[test]
fn the_largest_ring_fits_and_a_longer_one_leaves_the_old() {
    let store = Store::anonymous(SMALL).unwrap();
    let largest = value(1, SLOT_BYTES - 24);
    assert!(put(&store, &largest));
    assert!(!put(&store, &value(2, SLOT_BYTES - 23)));
    assert_eq!(ring(&store), Some(largest));
}

#[test]
fn both_places_hold_the_ring_so_no_dropped_key_stays_behind() {
    let store = Store::anonymous(SMALL).unwrap();
    put(&store, &[0xaa; 200]);
    put(&store, &[0xbb; 20]);
    for index in [0, 1] {
        let left = slot(&store, index).iter().filter(|unit| {
            unit.load(Ordering::Relaxed).to_le_bytes().windows(2).any(|pair| pair == [0xaa, 0xaa])
        });
        assert_eq!(left.count(), 0, "slot {index}");
    }
}

#[test]
fn a_writer_killed_half_way_leaves_the_old_ring() {
    for index in [0, 1] {
        let store = Store::anonymous(SMALL).unwrap();
        put(&store, &value(1, 300));
        for written in 0..40 {
            // It wrote the length last; here also first, as a machine might.
            slot(&store, index)[0].store(300 * (written % 2), Ordering::Relaxed);
            slot(&store, index)[1 + written as usize].store(mix(written), Ordering::Relaxed);
            assert_eq!(ring(&store), Some(value(1, 300)));
        }
        assert!(put(&store, &value(2, 300)), "and the next writer is not disturbed");
        assert_eq!(ring(&store), Some(value(2, 300)));
        assert!(put(&store, &value(3, 300)));
        spoil(&store, 1 - index);
        assert_eq!(ring(&store), Some(value(3, 300)), "which has written both places");
    }
}

#[test]
fn of_two_places_one_may_be_spoiled() {
    for index in [0, 1] {
        let store = Store::anonymous(SMALL).unwrap();
        put(&store, &value(1, 300));
        spoil(&store, index);
        assert_eq!(ring(&store), Some(value(1, 300)));
        // The next writer leaves the whole one alone until its own is in force.
        assert!(store.update_ring(PATIENT, |bytes| bytes.map(|_| Zeroizing::new(value(2, 300)))));
        assert_eq!(ring(&store), Some(value(2, 300)));
        spoil(&store, 0);
        spoil(&store, 1);
        assert_eq!(ring(&store), None, "both are spoiled");
        assert!(put(&store, &value(3, 300)));
        assert_eq!(ring(&store), Some(value(3, 300)));
    }
}

#[test]
fn a_place_counts_only_with_the_token_of_the_writer_in_force() {
    let store = Store::anonymous(SMALL).unwrap();
    put(&store, &value(1, 300));
    let old: Vec<_> = slot(&store, 0).iter().map(|unit| unit.load(Ordering::Relaxed)).collect();
    put(&store, &value(2, 300));
    for (unit, bits) in slot(&store, 0).iter().zip(&old) {
        unit.store(*bits, Ordering::Relaxed);
    }
    assert_eq!(ring(&store), Some(value(2, 300)), "whole, but not in force");
    // Nor with the stamp of the one in force, which is part of the check.
    let stamp = slot(&store, 1)[1].load(Ordering::Relaxed);
    slot(&store, 0)[1].store(stamp, Ordering::Relaxed);
    spoil(&store, 1);
    assert_eq!(ring(&store), None);
}

#[test]
fn a_writer_whose_lease_was_taken_over_changes_nothing_from_any_step_on() {
    for (index, after_others) in [(0, false), (0, true), (1, false), (1, true)] {
        let store = Store::anonymous(SMALL).unwrap();
        put(&store, &value(1, 300));
        let (late, holder) = (store.region.slots(), stopped(&store));
        let (seen, _) = late.read();
        // It has written half a slot, or a whole one.
        slot(&store, index)[0].store(0, Ordering::Relaxed);
        assert!(store.update_ring(PATIENT, |bytes| {
            assert_eq!(bytes, Some(&value(1, 300)[..]));
            let late_is_fenced = !after_others && !late.publish(seen, holder, &value(9, 300));
            assert!(
                after_others || late_is_fenced,
                "it went on before the other one had published"
            );
            Some(Zeroizing::new(value(2, 300)))
        }));
        assert_eq!(ring(&store), Some(value(2, 300)));
        assert!(!late.publish(seen, holder, &value(9, 300)));
        assert_eq!(ring(&store), Some(value(2, 300)), "whatever the late one has written");
        assert_eq!(count(&store), 3, "a ring, a lease that was taken over, a ring");
    }
}

#[test]
fn a_lease_that_is_taken_over_for_nothing_still_shuts_the_late_writer_out() {
    let store = Store::anonymous(SMALL).unwrap();
    put(&store, &value(1, 300));
    let (late, holder) = (store.region.slots(), stopped(&store));
    let (seen, _) = late.read();
    assert!(store.update_ring(PATIENT, |_| None));
    assert!(!late.publish(seen, holder, &value(9, 300)));
    assert_eq!(ring(&store), Some(value(1, 300)));
    assert!(put(&store, &value(2, 300)));
    assert_eq!(ring(&store), Some(value(2, 300)));
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
