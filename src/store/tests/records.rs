//! One process, one thread: what goes in, comes out, makes room.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::support::*;
use crate::clock::UnixMillis;
use crate::store::{Evicted, Lease, MAX_VALUE, NotInserted, Origin, Store};

/// The smallest memory: one shard.
pub(super) const SMALL: usize = 512 * 1024;

#[test]
fn a_session_of_every_length_comes_back_as_it_was() {
    let store = Store::anonymous(SMALL).unwrap();
    for len in (0..600).chain([4096, 16_384, MAX_VALUE - 1, MAX_VALUE]) {
        insert(&store, len as u64, len).unwrap();
        assert!(finds(&store, len as u64, len), "{len} bytes");
    }
}

#[test]
fn a_value_that_is_too_long_is_refused_and_harms_nothing() {
    let store = Store::anonymous(SMALL).unwrap();
    insert(&store, 1, TYPICAL).unwrap();
    for len in [MAX_VALUE + 1, 65_535, 65_536, 65_536 + TYPICAL, 1 << 20] {
        assert_eq!(insert(&store, 1, len), Err(NotInserted::TooLong));
    }
    assert!(finds(&store, 1, TYPICAL));
}

#[test]
fn what_is_not_there_is_not_found() {
    let store = Store::anonymous(SMALL).unwrap();
    assert!(store.lookup(&[0; 24]).is_none(), "zeros, as fresh memory is");
    assert!(store.lookup(&key(1)).is_none());
    assert!(!store.remove(&key(1)));
}

#[test]
fn the_newest_record_of_a_key_takes_the_place_of_the_former() {
    let store = Store::anonymous(SMALL).unwrap();
    for round in 0..100 {
        insert(&store, 1, round).unwrap();
        assert!(finds(&store, 1, round));
        assert_eq!(store.live(NOW), 1);
    }
    assert!(store.remove(&key(1)));
    assert!(store.lookup(&key(1)).is_none(), "and no former one comes back");
}

#[test]
fn a_record_is_removed_once() {
    let store = Store::anonymous(SMALL).unwrap();
    insert(&store, 1, TYPICAL).unwrap();
    assert!(store.remove(&key(1)));
    assert!(!store.remove(&key(1)));
    insert(&store, 1, TYPICAL).unwrap();
    assert!(store.remove(&key(1)), "once for each time it is inserted");
}

#[test]
fn the_time_of_a_record_is_the_callers_to_judge_and_counts_in_reports() {
    let store = Store::anonymous(SMALL).unwrap();
    insert(&store, 1, TYPICAL).unwrap();
    let end = UnixMillis::from_secs(LATER.into());
    assert_eq!(store.live(UnixMillis(end.0 - 1)), 1);
    assert_eq!(store.live(end), 0);
    assert!(finds(&store, 1, TYPICAL), "whatever its times say");
}

#[test]
fn room_is_made_by_the_oldest_and_counted() {
    let store = Store::anonymous(SMALL).unwrap();
    let (mut evicted, total) = (0, 20_000);
    for number in 0..total {
        evicted += insert(&store, number, TYPICAL).unwrap().sessions;
    }
    let found: Vec<_> = (0..total).filter(|number| finds(&store, *number, TYPICAL)).collect();
    assert_eq!(evicted + found.len() as u64, total, "each is either found or was counted");
    assert_eq!(store.live(NOW), found.len() as u64);
    let oldest = found[0];
    let gaps = total - oldest - found.len() as u64;
    assert!(gaps * 200 < found.len() as u64, "{gaps} went before older ones");
}

#[test]
fn nothing_is_counted_that_was_over_removed_or_replaced() {
    let store = Store::anonymous(SMALL).unwrap();
    let over = UnixMillis::from_secs(LATER.into());
    let mut evicted = Evicted::default();
    let mut count = |more: Evicted| {
        evicted.sessions += more.sessions;
    };
    for number in 0..1900 {
        count(store.insert(&session(number), &value(number, TYPICAL), NOW, PATIENT).unwrap());
        if number % 2 == 0 {
            store.remove(&key(number));
        }
    }
    for _ in 0..5000 {
        count(store.insert(&session(1_000_000), &value(1, TYPICAL), over, PATIENT).unwrap());
    }
    assert_eq!(evicted, Evicted::default());
}

#[test]
fn sessions_of_mixed_sizes_survive_many_laps_of_the_log() {
    let store = Store::anonymous(SMALL).unwrap();
    let len = |number: u64| mix(number) as usize % 9000;
    let (mut evicted, total) = (0, 4000);
    for number in 0..total {
        evicted += insert(&store, number, len(number)).unwrap().sessions;
        assert!(finds(&store, number, len(number)));
        if number >= 30 {
            assert!(finds(&store, number - 30, len(number - 30)), "thirty are less than a lap");
        }
    }
    let found = (0..total).filter(|number| finds(&store, *number, len(*number))).count() as u64;
    assert_eq!(evicted + found, total);
    assert_eq!(store.live(NOW), found);
}

#[test]
fn an_index_entry_that_has_come_to_point_to_another_record_counts_for_nothing() {
    let store = Store::anonymous(SMALL).unwrap();
    insert(&store, 1, TYPICAL).unwrap();
    let (_, shard) = store.shard(0);
    let own = shard.index.iter().position(|entry| entry.load(Ordering::Relaxed) != 0).unwrap();
    let entry = shard.index[own].load(Ordering::Relaxed);
    shard.touched.store(u64::MAX, Ordering::Relaxed);
    for (other, spot) in shard.index.iter().enumerate().filter(|(spot, _)| *spot != own) {
        // Another tag, the same position.
        spot.store(entry ^ 1 << 25, Ordering::Relaxed);
        assert_eq!(store.live(NOW), 1, "entry {other}");
    }
    let evicted = (2..200).map(|number| insert(&store, number, TYPICAL).unwrap().sessions);
    assert!(evicted.sum::<u64>() <= 1, "nothing goes that lives, but for the one they hide");
}

#[test]
fn a_removal_keeps_copies_away_for_as_long_as_it_says() {
    let store = Store::anonymous(SMALL).unwrap();
    let until = NOW + Duration::from_secs(100);
    insert(&store, 1, TYPICAL).unwrap();
    assert!(!store.keeps_away(&key(1), NOW), "a session");
    store.remove_for_all(&key(1), until, Origin::Elsewhere, NOW, PATIENT).unwrap();
    assert!(store.keeps_away(&key(1), until));
    assert!(!store.keeps_away(&key(1), until + Duration::from_secs(1)));
    assert!(!store.keeps_away(&key(2), NOW), "nothing");
}

#[test]
fn clearing_forgets_and_wipes_every_record() {
    let store = Store::anonymous(SMALL).unwrap();
    for number in 0..500 {
        insert(&store, number, TYPICAL).unwrap();
    }
    assert!(store.usage().used > 0);
    store.clear();
    assert!((0..500).all(|number| store.lookup(&key(number)).is_none()));
    assert_eq!((store.live(NOW), store.usage().used), (0, 0));
    assert!(is_wiped(&store));
}

fn is_wiped(store: &Store) -> bool {
    let (_, shard) = store.shard(0);
    shard.log.iter().all(|unit| unit.load(Ordering::Relaxed) == 0)
        && shard.index.iter().all(|entry| entry.load(Ordering::Relaxed) == 0)
}

#[test]
fn each_of_many_flushes_wipes_all_wherever_in_the_log_it_begins() {
    let store = Store::anonymous(SMALL).unwrap();
    // Nothing, one, most of a lap, more than a lap; with all of them, ends of the log in every place.
    for round in 0..60 {
        for number in 0..[0, 1, 7, 1500, 3000][round % 5] {
            insert(&store, number, mix(number) as usize % 300).unwrap();
        }
        store.clear();
        assert!(is_wiped(&store), "round {round}");
    }
}

#[test]
fn a_flush_wipes_what_a_writer_left_that_was_killed_before_it_was_done() {
    let store = Store::anonymous(SMALL).unwrap();
    for number in 0..50 {
        insert(&store, number, TYPICAL).unwrap();
    }
    store.clear();
    let (_, shard) = store.shard(0);
    let head = shard.head.load(Ordering::Relaxed);
    shard.note_written(head, head + 20);
    (head..head + 20).for_each(|at| shard.log[shard.offset(at)].store(7, Ordering::Relaxed));
    store.clear();
    assert!(is_wiped(&store));
}

#[test]
fn a_flush_wipes_what_stands_before_the_place_that_the_last_one_came_to() {
    let store = Store::anonymous(SMALL).unwrap();
    insert(&store, 1, TYPICAL).unwrap();
    let (_, shard) = store.shard(0);
    let early = shard.head.load(Ordering::Relaxed);
    for number in 2..50 {
        insert(&store, number, TYPICAL).unwrap();
    }
    store.clear();
    // As a damaged head does it, or a writer that has slept.
    shard.head.store(early, Ordering::Relaxed);
    insert(&store, 1, TYPICAL).unwrap();
    store.clear();
    assert!(is_wiped(&store));
}

#[test]
fn what_an_overtaken_writer_wrote_behind_a_flush_is_wiped_by_the_next() {
    let store = Store::anonymous(SMALL).unwrap();
    let (_, shard) = store.shard(0);
    let head = shard.head.load(Ordering::Relaxed);
    shard.note_written(head, head + 1);
    // It is stopped here: another one takes its place, and everything is flushed.
    insert(&store, 1, TYPICAL).unwrap();
    store.clear();
    shard.log[shard.offset(head)].store(7, Ordering::Relaxed);
    // It finds that the head has moved.
    shard.note_late();
    store.clear();
    assert!(is_wiped(&store));
}

#[test]
fn a_report_and_a_flush_read_no_part_of_the_index_that_was_never_used() {
    let store = Store::anonymous(SMALL).unwrap();
    let (_, shard) = store.shard(0);
    assert_eq!(shard.touched_entries().count(), 0);
    insert(&store, 1, TYPICAL).unwrap();
    let of_one = shard.touched_entries().count();
    assert!(of_one > 0 && of_one < shard.index.len() / 16, "{of_one}");
    for number in 0..1000 {
        insert(&store, number, TYPICAL).unwrap();
    }
    assert_eq!(shard.touched_entries().count(), shard.index.len());
    store.clear();
    assert_eq!(shard.touched_entries().count(), 0);
}

#[test]
fn evictions_are_counted_after_clearing_as_before() {
    let store = Store::anonymous(SMALL).unwrap();
    for number in 0..1234 {
        insert(&store, number, 100).unwrap();
    }
    store.clear();
    let numbers = 10_000..40_000;
    let evicted: u64 =
        numbers.clone().map(|number| insert(&store, number, 0).unwrap().sessions).sum();
    let left = numbers.clone().filter(|number| finds(&store, *number, 0)).count() as u64;
    assert_eq!(evicted + left, numbers.end - numbers.start);
}

#[test]
fn a_shard_that_others_keep_costs_the_patience_and_lookups_nothing() {
    let store = Store::anonymous(SMALL).unwrap();
    insert(&store, 1, TYPICAL).unwrap();
    let (lease, _) = store.shard_of(&key(1));
    let hold = Duration::from_secs(9);
    let held = Lease::acquire(lease, hold, PATIENT, &crate::store::holds::BootClock::default())
        .expect("is free");
    let patience = Duration::from_millis(1);
    let before = crate::clock::since_boot();
    let refused = store.insert(&session(2), &[], NOW, patience);
    let waited = crate::clock::since_boot() - before;
    assert_eq!(refused, Err(NotInserted::Busy));
    assert!(waited >= patience && waited < hold / 2, "{waited:?}");
    assert!(finds(&store, 1, TYPICAL));
    assert!(store.remove(&key(1)), "removing waits for nobody either");
    drop(held);
    assert!(store.insert(&session(2), &[], NOW, Duration::ZERO).is_ok());
}
