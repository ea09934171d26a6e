//! Threads on one store.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use super::records::SMALL;
use super::support::*;
use crate::store::Store;

#[test]
fn of_many_who_remove_a_record_one_does() {
    const THREADS: u64 = 4;
    const KEYS: u64 = 300;
    let store = Store::anonymous(SMALL).unwrap();
    let (barrier, removed) = (Barrier::new(THREADS as usize), AtomicU64::new(0));
    for number in 0..KEYS {
        insert(&store, number, TYPICAL).unwrap();
    }
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for number in 0..KEYS {
                    barrier.wait();
                    removed.fetch_add(u64::from(store.remove(&key(number))), Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(removed.into_inner(), KEYS);
}

#[test]
fn lookups_among_inserts_never_give_a_value_of_another_key() {
    const KEYS: u64 = 3000;
    let store = Store::anonymous(SMALL).unwrap();
    let (done, found) = (AtomicBool::new(false), AtomicU64::new(0));
    let len = |number: u64| mix(number) as usize % 2000;
    thread::scope(|scope| {
        let writers: Vec<_> = (0..2)
            .map(|writer| {
                let store = &store;
                scope.spawn(move || {
                    for round in 0..KEYS * 2 {
                        let number = mix(round << 1 | writer) % KEYS;
                        // Others may keep the shard on a busy machine; that is not what this is about.
                        let _ = insert(store, number, len(number));
                    }
                })
            })
            .collect();
        for reader in 0..2 {
            let (store, done, found) = (&store, &done, &found);
            scope.spawn(move || {
                let mut round = 0;
                while !done.load(Ordering::Relaxed) {
                    let number = mix(round ^ reader << 50) % KEYS;
                    found
                        .fetch_add(u64::from(finds(store, number, len(number))), Ordering::Relaxed);
                    round += 1;
                }
            });
        }
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        done.store(true, Ordering::Relaxed);
    });
    assert!(found.into_inner() > 0);
}

#[test]
fn a_session_that_is_replaced_is_found_at_every_moment() {
    let store = Store::anonymous(SMALL).unwrap();
    insert(&store, 1, TYPICAL).unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            // Less than a lap of the log: a reader that stops half-way still has what it found.
            for _ in 0..1500 {
                let _ = insert(&store, 1, TYPICAL);
            }
            done.store(true, Ordering::Relaxed);
        });
        while !done.load(Ordering::Relaxed) {
            assert!(finds(&store, 1, TYPICAL));
        }
    });
}

#[test]
fn flushing_among_inserts_and_lookups_gives_nothing_wrong() {
    let store = Store::anonymous(SMALL).unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for thread in 0..2 {
            let (store, done) = (&store, &done);
            scope.spawn(move || {
                let mut round = 0;
                while !done.load(Ordering::Relaxed) {
                    let number = mix(round ^ thread << 50) % 500;
                    let _ = insert(store, number, TYPICAL);
                    finds(store, mix(number) % 500, TYPICAL);
                    round += 1;
                }
            });
        }
        for _ in 0..200 {
            store.clear();
        }
        done.store(true, Ordering::Relaxed);
    });
    store.clear();
    insert(&store, 1, TYPICAL).unwrap();
    assert!(finds(&store, 1, TYPICAL));
}
