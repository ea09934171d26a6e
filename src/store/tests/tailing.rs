//! The agent's walk along the logs.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use super::records::SMALL;
use super::support::*;
use crate::clock::UnixMillis;
use crate::store::layout::WORD;
use crate::store::{Kind, Meta, NotInserted, Origin, Record, Store, Tail};

const ALL: usize = usize::MAX;

fn elsewhere(number: u64) -> Meta {
    Meta { origin: Origin::Elsewhere, ..session(number) }
}

fn key_numbers(records: &[Record], among: u64) -> Vec<u64> {
    let number = |meta: &Meta| (0..among).find(|number| key(*number) == meta.key);
    records.iter().map(|(meta, _)| number(meta).expect("a key of this test")).collect()
}

/// Everything that is to be sent, taken in steps of `most`.
fn drain(store: &Store, most: usize) -> (Vec<Record>, bool) {
    let (mut records, mut lapped) = (Vec::new(), false);
    for shard in 0..store.shards() {
        loop {
            let from = store.sent(shard);
            let tail = store.tail(shard, from, most);
            assert!(tail.records.len() <= most);
            store.advance_sent(shard, store.sent(shard), tail.next);
            records.extend(tail.records);
            lapped |= tail.lapped;
            if tail.next == from {
                break;
            }
        }
    }
    (records, lapped)
}

fn insert_all(store: &Store, numbers: std::ops::Range<u64>, len: usize) {
    for number in numbers {
        insert(store, number, len).unwrap();
    }
}

fn remove_for_all(store: &Store, number: u64) {
    let until = UnixMillis::from_secs(LATER.into());
    store.remove_for_all(&key(number), until, Origin::Here, NOW, PATIENT).unwrap();
}

#[test]
fn each_session_of_this_node_is_read_once_whole_and_in_order() {
    for most in [1, 2, 7, ALL] {
        let store = Store::anonymous(SMALL).unwrap();
        assert_eq!(drain(&store, most), (vec![], false), "nothing is there yet");
        for round in 0..3 {
            let numbers = round * 100..round * 100 + 100;
            for number in numbers.clone() {
                insert(&store, number, number as usize).unwrap();
            }
            let (records, lapped) = drain(&store, most);
            let expected: Vec<_> = numbers
                .map(|number| (session(number), value(number, number as usize).into()))
                .collect();
            assert_eq!((records, lapped), (expected, false));
        }
    }
}

#[test]
fn sessions_of_mixed_sizes_are_read_over_many_laps() {
    let store = Store::anonymous(SMALL).unwrap();
    let len = |number: u64| mix(number) as usize % 9000;
    for number in 0..4000 {
        insert(&store, number, len(number)).unwrap();
        if number % 20 == 19 {
            let (records, lapped) = drain(&store, 6);
            let expected = number - 19..=number;
            assert!(!lapped);
            assert_eq!(key_numbers(&records, 4000), expected.collect::<Vec<_>>());
        }
    }
}

#[test]
fn what_came_from_elsewhere_is_never_read() {
    let store = Store::anonymous(SMALL).unwrap();
    for number in 0..30 {
        match number % 3 {
            2 => insert(&store, number, 99),
            _ => store.accept(&elsewhere(number), &value(number, 99), NOW, PATIENT),
        }
        .unwrap();
    }
    let (records, _) = drain(&store, ALL);
    let expected = (0..30).filter(|number| number % 3 == 2);
    assert_eq!(key_numbers(&records, 30), expected.collect::<Vec<_>>());
}

#[test]
fn what_was_removed_or_replaced_before_it_was_read_is_not_read() {
    let store = Store::anonymous(SMALL).unwrap();
    insert_all(&store, 0..4, 50);
    assert!(store.remove(&key(1)));
    insert(&store, 2, 60).unwrap();
    let (records, _) = drain(&store, ALL);
    assert_eq!(key_numbers(&records, 4), [0, 3, 2]);
    assert_eq!(*records[2].1, value(2, 60));
}

#[test]
fn a_removal_of_this_node_is_read_in_the_place_of_the_session() {
    let store = Store::anonymous(SMALL).unwrap();
    insert_all(&store, 0..3, 50);
    remove_for_all(&store, 1);
    let (records, _) = drain(&store, ALL);
    assert_eq!(key_numbers(&records, 3), [0, 2, 1]);
    let (meta, value) = &records[2];
    assert_eq!((meta.kind, meta.expires, value.len()), (Kind::Removal, LATER, 0));
    let until = UnixMillis::from_secs(LATER.into());
    store.remove_for_all(&key(2), until, Origin::Elsewhere, NOW, PATIENT).unwrap();
    assert_eq!(drain(&store, ALL), (vec![], false), "nobody tells others what they told");
}

#[test]
fn a_lapped_reader_goes_on_at_the_oldest_record_that_is_whole() {
    let store = Store::anonymous(SMALL).unwrap();
    let total = 20_000;
    insert_all(&store, 0..total, TYPICAL);
    let (records, lapped) = drain(&store, 100);
    assert!(lapped);
    let read = key_numbers(&records[..1], total)[0];
    let first = (0..total).find(|number| finds(&store, *number, TYPICAL)).unwrap();
    assert_eq!(read, first);
    // The index is full here, so some sessions went before older ones.
    let found = (0..total).filter(|number| finds(&store, *number, TYPICAL)).count();
    assert_eq!(records.len(), found, "and everything after it is read");
}

#[test]
fn a_position_ahead_of_the_log_counts_as_lapped() {
    let store = Store::anonymous(SMALL).unwrap();
    insert(&store, 1, TYPICAL).unwrap();
    for from in [1000, 1 << 40, u64::MAX] {
        let Tail { records, next, lapped } = store.tail(0, from, ALL);
        assert!(lapped);
        assert_eq!((key_numbers(&records, 2), next), (vec![1], store.tail(0, 0, ALL).next));
    }
}

#[test]
fn what_was_sent_is_remembered_in_memory_and_sent_again_on_demand() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = Store::open(&path, 9 << 20).unwrap();
    assert_eq!(store.shards(), 3);
    insert_all(&store, 0..200, TYPICAL);
    assert_eq!(drain(&store, ALL).0.len(), 200);
    drop(store);
    let store = Store::open(&path, 9 << 20).unwrap();
    assert_eq!(drain(&store, ALL), (vec![], false), "the next agent goes on there");
    store.send_again();
    let (records, lapped) = drain(&store, 9);
    assert_eq!((records.len(), lapped), (200, false));
}

#[test]
fn a_flush_leaves_nothing_to_send_and_misses_nothing_after_it() {
    let store = Store::anonymous(SMALL).unwrap();
    insert_all(&store, 0..100, TYPICAL);
    store.clear();
    assert_eq!(drain(&store, ALL), (vec![], false));
    store.send_again();
    assert_eq!(drain(&store, ALL), (vec![], false));
    insert(&store, 5, TYPICAL).unwrap();
    assert_eq!(key_numbers(&drain(&store, ALL).0, 6), [5]);
}

#[test]
fn a_record_between_head_and_index_waits_until_it_is_entered() {
    let store = Store::anonymous(SMALL).unwrap();
    insert(&store, 1, TYPICAL).unwrap();
    let (_, shard) = store.shard(0);
    let before = shard.entered.load(Ordering::Relaxed);
    insert(&store, 2, TYPICAL).unwrap();
    // As if its writer had not got there yet.
    shard.entered.store(before, Ordering::Relaxed);
    let tail = store.tail(0, 0, ALL);
    assert_eq!((key_numbers(&tail.records, 3), tail.next), (vec![1], before));
    assert!(!store.tail(0, tail.next, ALL).lapped);
    insert(&store, 3, TYPICAL).unwrap();
    let rest = store.tail(0, tail.next, ALL);
    assert_eq!(key_numbers(&rest.records, 4), [2, 3], "the next writer vouches for it");
}

#[test]
fn a_spoiled_record_hides_none_of_those_behind_it() {
    for spoil in [0x5555_5555_5555_5555, 0, u64::MAX, 0xff << 48, 0x0001_0200 << 32] {
        for units in [1, 6, 8] {
            let store = Store::anonymous(SMALL).unwrap();
            insert_all(&store, 0..50, TYPICAL);
            let (_, shard) = store.shard(0);
            for unit in 0..units {
                // The header's last unit says how long the record is.
                shard.log[5 + unit].store(spoil, Ordering::Relaxed);
            }
            let read = key_numbers(&store.tail(0, 0, ALL).records, 50);
            assert_eq!(read, (1..50).collect::<Vec<_>>(), "{spoil:#x}, {units} units");
        }
    }
}

#[test]
fn a_log_full_of_false_records_costs_each_call_no_more_than_its_length() {
    let store = Store::anonymous(SMALL).unwrap();
    let (_, shard) = store.shard(0);
    // Every unit is the last of a header: of a session as long as can be.
    shard.log.iter().for_each(|unit| unit.store(0x0001_ff00 << 32, Ordering::Relaxed));
    let end = shard.log.len() as u64;
    shard.head.store(end, Ordering::Relaxed);
    shard.entered.store(end, Ordering::Relaxed);
    let (mut from, before) = (0, crate::clock::since_boot());
    for _ in 0..20 {
        let tail = store.tail(0, from, ALL);
        assert!(tail.records.is_empty() && !tail.lapped && tail.next > from && tail.next < end);
        from = tail.next;
    }
    assert!(crate::clock::since_boot() - before < PATIENT);
}

#[test]
fn two_writers_and_a_reader_miss_nothing_and_read_nothing_twice() {
    const EACH: u64 = 12_000;
    let store = Store::anonymous(SMALL).unwrap();
    // Long ones: an index that is full would drop some, whoever reads.
    let len = |number: u64| mix(number) as usize % 2000;
    let done = AtomicBool::new(false);
    let [behind, lost, preempted] = [(); 3].map(|()| AtomicU64::new(0));
    let (mut seen, mut lapped) = (HashSet::new(), false);
    thread::scope(|scope| {
        let writers: Vec<_> = (0..2)
            .map(|writer| {
                let (store, behind, lost, preempted) = (&store, &behind, &lost, &preempted);
                scope.spawn(move || {
                    for round in 0..EACH {
                        // No more than the log keeps, so that the reader can follow.
                        let gone = || behind.load(Ordering::Relaxed) + lost.load(Ordering::Relaxed);
                        while gone() + 100 < writer + 2 * round {
                            thread::yield_now();
                        }
                        let number = round << 1 | writer;
                        // Taken over from a writer that had no processor.
                        let busy = insert(store, number, len(number)) == Err(NotInserted::Busy);
                        lost.fetch_add(busy.into(), Ordering::Relaxed);
                    }
                    preempted.fetch_add(preemptions(), Ordering::Relaxed);
                })
            })
            .collect();
        let follow = |seen: &mut HashSet<_>| {
            let (records, was_lapped) = drain(&store, 16);
            for (meta, found) in records {
                let number = u64::from(meta.authenticated);
                assert_eq!(meta, session(number));
                assert_eq!(*found, value(number, len(number)));
                assert!(seen.insert(number), "{number} twice");
            }
            behind.store(seen.len() as u64, Ordering::Relaxed);
            was_lapped
        };
        scope.spawn(|| {
            writers.into_iter().for_each(|writer| writer.join().unwrap());
            done.store(true, Ordering::Relaxed);
        });
        while !done.load(Ordering::Relaxed) {
            lapped |= follow(&mut seen);
        }
        lapped |= follow(&mut seen);
    });
    assert!(!lapped);
    // What was lost may have been read before it was taken back.
    let (seen, lost) = (seen.len() as u64, lost.into_inner());
    assert!(seen <= 2 * EACH && seen + lost >= 2 * EACH, "{seen} and {lost}");
    let preempted = preempted.into_inner();
    assert!(lost < EACH / 100 + preempted, "{lost} lost, {preempted} times preempted");
}

/// How often this thread lost its processor to another.
fn preemptions() -> u64 {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let count = status.lines().find_map(|line| line.strip_prefix("nonvoluntary_ctxt_switches:"));
    count.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
}

#[test]
fn a_reader_that_is_overtaken_reads_only_what_is_whole() {
    let store = Store::anonymous(SMALL).unwrap();
    let len = |number: u64| mix(number) as usize % 3000;
    let (done, mut read) = (AtomicBool::new(false), 0);
    thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..20_000 {
                insert(&store, number, len(number)).unwrap();
            }
            done.store(true, Ordering::Relaxed);
        });
        let mut last = None;
        while !done.load(Ordering::Relaxed) {
            for (meta, found) in drain(&store, 50).0 {
                let number = u64::from(meta.authenticated);
                assert_eq!((meta, &*found), (session(number), &value(number, len(number))));
                assert!(last < Some(number), "in order");
                last = Some(number);
                read += 1;
            }
        }
    });
    assert!(read > 0);
}

#[test]
fn a_session_that_is_known_is_not_taken_in_again() {
    let store = Store::anonymous(SMALL).unwrap();
    let accept = |meta: &Meta, now| store.accept(meta, &value(1, 20), now, PATIENT);
    assert!(accept(&elsewhere(1), NOW).is_ok());
    let used = store.usage();
    assert_eq!(accept(&elsewhere(1), NOW), Err(NotInserted::Present));
    insert(&store, 2, 20).unwrap();
    assert_eq!(accept(&elsewhere(2), NOW), Err(NotInserted::Present), "also one of this node");
    assert!(store.usage().used > used.used);
    let over = UnixMillis::from_secs(LATER.into());
    assert!(accept(&Meta { expires: LATER + 1, ..elsewhere(1) }, over).is_ok());
}

#[test]
fn a_removal_keeps_copies_away_until_it_ends() {
    let store = Store::anonymous(SMALL).unwrap();
    let end = UnixMillis::from_secs(NOW.secs() + 60);
    let remove =
        |number| store.remove_for_all(&key(number), end, Origin::Elsewhere, NOW, PATIENT).unwrap();
    insert(&store, 1, 20).unwrap();
    for number in 1..3 {
        remove(number);
        let (meta, _) = store.lookup(&key(number)).unwrap();
        assert_eq!(meta.kind, Kind::Removal);
        let accept = |now| store.accept(&elsewhere(number), &[], now, PATIENT);
        assert_eq!(accept(NOW), Err(NotInserted::Present));
        assert!(accept(end).is_ok());
    }
}

#[test]
fn a_removal_that_arrives_replaces_the_session_once() {
    let store = Store::anonymous(SMALL).unwrap();
    insert(&store, 1, 20).unwrap();
    let removal = Meta { kind: Kind::Removal, ..elsewhere(1) };
    assert!(store.accept(&removal, &[], NOW, PATIENT).is_ok());
    assert_eq!(store.accept(&removal, &[], NOW, PATIENT), Err(NotInserted::Present));
    assert_eq!(store.lookup(&key(1)).unwrap().0, removal);
}

#[test]
fn a_removal_counts_as_nothing_and_cannot_be_removed() {
    let store = Store::anonymous(SMALL).unwrap();
    insert(&store, 1, 20).unwrap();
    remove_for_all(&store, 1);
    assert_eq!(store.live(NOW), 0);
    assert!(!store.remove(&key(1)), "who consumes after a removal gets nothing");
    assert_eq!(store.lookup(&key(1)).unwrap().0.kind, Kind::Removal);
    let mut evicted = 0;
    (2..3000).for_each(|number| remove_for_all(&store, number));
    for _ in 0..3000 {
        let more = store.insert(&session(9999), &value(1, TYPICAL), NOW, PATIENT).unwrap();
        evicted += more.sessions;
    }
    assert_eq!(evicted, 0);
}

#[test]
fn a_removal_that_has_to_wait_too_long_still_removes_what_is_there() {
    let store = Store::anonymous(SMALL).unwrap();
    insert(&store, 1, 20).unwrap();
    let (lease, _) = store.shard_of(&key(1));
    lease.store(
        u64::try_from((crate::clock::since_boot() + PATIENT / 4).as_nanos()).unwrap(),
        Ordering::Relaxed,
    );
    let patience = std::time::Duration::ZERO;
    let until = UnixMillis::from_secs(LATER.into());
    let refused = store.remove_for_all(&key(1), until, Origin::Here, NOW, patience);
    assert_eq!(refused, Err(NotInserted::Busy));
    assert!(store.lookup(&key(1)).is_none());
}

#[test]
fn a_bit_of_the_origin_is_covered_by_the_check() {
    let store = Store::anonymous(SMALL).unwrap();
    store.accept(&elsewhere(1), &value(1, 20), NOW, PATIENT).unwrap();
    let word = store.region.geometry().log_at(0) + 5 * WORD;
    store.region.units(word, 1)[0].fetch_xor(0x80 << 48, Ordering::Relaxed);
    assert!(store.lookup(&key(1)).is_none());
    assert_eq!(store.tail(0, 0, ALL).records, []);
}
