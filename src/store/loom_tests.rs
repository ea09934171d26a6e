//! Every order in which the steps of two or three threads can come, by the model checker.
//!
//! `RUSTFLAGS="--cfg loom" cargo test --release --lib loom`

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod ring;
mod tables;

use std::time::Duration;

use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

use super::bell::Bell;
use super::layout::BUCKET;
use super::lease::{Lease, Waiter};
use super::record::{Kind, Meta, Origin};
use super::shard::Shard;

/// All orders with at most so many switches that nobody asked for.
fn model(switches: usize, run: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(switches);
    builder.check(run);
}

/// A clock that stands still at a time in milliseconds.
struct At(u64);

impl Waiter for At {
    fn now(&self) -> Duration {
        Duration::from_millis(self.0)
    }

    fn pause(&self) {
        thread::yield_now();
    }
}

const HOLD: Duration = Duration::from_millis(10);

fn take(word: &AtomicU64, now: u64) -> Option<Lease<'_>> {
    Lease::acquire(word, HOLD, Duration::ZERO, &At(now))
}

#[test]
fn loom_a_lease_that_has_not_expired_has_one_holder() {
    model(4, || {
        let shared = Arc::new((AtomicU64::new(0), AtomicUsize::new(0)));
        let work = |(word, holders): &(AtomicU64, AtomicUsize), now| {
            if let Some(lease) = take(word, now) {
                assert_eq!(holders.fetch_add(1, Ordering::Relaxed), 0, "two holders");
                assert!(lease.still_held());
                holders.fetch_sub(1, Ordering::Relaxed);
            }
        };
        let threads: Vec<_> = [100, 100, 103]
            .into_iter()
            .map(|now| {
                let shared = shared.clone();
                move || work(&shared, now)
            })
            .collect();
        let mut threads = threads.into_iter();
        let mine = threads.next().unwrap();
        let handles: Vec<_> = threads.map(thread::spawn).collect();
        mine();
        handles.into_iter().for_each(|handle| handle.join().unwrap());
        assert_eq!(shared.0.load(Ordering::Relaxed), 0, "given back");
    });
}

#[test]
fn loom_what_a_holder_wrote_its_successor_sees() {
    model(4, || {
        let shared = Arc::new((AtomicU64::new(0), AtomicU64::new(0)));
        let work = |(word, data): &(AtomicU64, AtomicU64)| match take(word, 100) {
            Some(_lease) => {
                let seen = data.load(Ordering::Relaxed);
                data.store(seen + 1, Ordering::Relaxed);
                1
            }
            None => 0,
        };
        let other = shared.clone();
        let handle = thread::spawn(move || work(&other));
        let held = work(&shared) + handle.join().unwrap();
        assert_eq!(shared.1.load(Ordering::Relaxed), held, "a write was lost");
    });
}

#[test]
fn loom_an_expired_lease_has_one_successor_and_its_late_return_takes_nothing_away() {
    model(4, || {
        let word = Arc::new(AtomicU64::new(0));
        let taken = Arc::new(AtomicUsize::new(0));
        let late = take(&word, 100).expect("free");
        let successors: Vec<_> = (0..2)
            .map(|_| {
                let (word, taken) = (word.clone(), taken.clone());
                thread::spawn(move || {
                    // It dies with the lease, so what is seen below is its word.
                    if let Some(lease) = take(&word, 110) {
                        taken.fetch_add(1, Ordering::Relaxed);
                        std::mem::forget(lease);
                    }
                })
            })
            .collect();
        drop(late);
        successors.into_iter().for_each(|handle| handle.join().unwrap());
        // None, if the late one gave it back just as both tried; whoever took it still has it.
        let taken = taken.load(Ordering::Relaxed) as u64;
        assert!(taken <= 1, "{taken} successors");
        assert_eq!(word.load(Ordering::Relaxed), taken * 120_000_000);
    });
}

const SEED: [u64; 2] = [1, 2];

/// A shard with one bucket of entries and room for a few records.
struct Memory {
    head: AtomicU64,
    tail: AtomicU64,
    entered: AtomicU64,
    sent: AtomicU64,
    written: AtomicU64,
    wiped: AtomicU64,
    touched: AtomicU64,
    index: Vec<AtomicU32>,
    log: Vec<AtomicU64>,
}

impl Memory {
    fn new() -> Self {
        Memory {
            head: AtomicU64::new(0),
            tail: AtomicU64::new(0),
            entered: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            written: AtomicU64::new(0),
            wiped: AtomicU64::new(0),
            touched: AtomicU64::new(0),
            index: (0..BUCKET).map(|_| AtomicU32::new(0)).collect(),
            log: (0..28).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    fn is_wiped(&self) -> bool {
        self.index.iter().all(|entry| entry.load(Ordering::Relaxed) == 0)
            && self.log.iter().all(|unit| unit.load(Ordering::Relaxed) == 0)
    }

    fn shard(&self) -> Shard<'_> {
        Shard {
            head: &self.head,
            tail: &self.tail,
            entered: &self.entered,
            sent: &self.sent,
            written: &self.written,
            wiped: &self.wiped,
            touched: &self.touched,
            index: &self.index,
            log: &self.log,
            seed: SEED,
        }
    }
}

fn record(key: u8) -> Meta {
    Meta {
        key: [key; 24],
        binding: 3,
        expires: 9,
        authenticated: 1,
        kind: Kind::Session,
        origin: Origin::Here,
        note: 5,
    }
}

#[test]
fn loom_of_all_who_remove_a_record_one_does() {
    model(3, || {
        let memory = Arc::new(Memory::new());
        memory.shard().insert(&record(1), b"value", 0).unwrap();
        let others: Vec<_> = (0..2)
            .map(|_| {
                let memory = memory.clone();
                thread::spawn(move || u32::from(memory.shard().remove(&[1; 24])))
            })
            .collect();
        let mine = u32::from(memory.shard().remove(&[1; 24]));
        let removed: u32 = others.into_iter().map(|handle| handle.join().unwrap()).sum();
        assert_eq!(removed + mine, 1);
        assert!(memory.shard().lookup(&[1; 24]).is_none());
    });
}

#[test]
fn loom_a_lookup_beside_an_insert_finds_the_record_whole_or_not_at_all() {
    model(2, || {
        let memory = Arc::new(Memory::new());
        let writer = memory.clone();
        let handle = thread::spawn(move || {
            assert!(writer.shard().insert(&record(1), b"value", 0).is_some())
        });
        if let Some((meta, value)) = memory.shard().lookup(&[1; 24]) {
            assert_eq!((meta, value.as_slice()), (record(1), &b"value"[..]));
        }
        handle.join().unwrap();
        assert!(memory.shard().lookup(&[1; 24]).is_some());
    });
}

#[test]
fn loom_a_record_that_is_replaced_is_found_old_or_new() {
    model(2, || {
        let memory = Arc::new(Memory::new());
        memory.shard().insert(&record(1), b"old", 0).unwrap();
        let writer = memory.clone();
        let handle =
            thread::spawn(move || assert!(writer.shard().insert(&record(1), b"new", 0).is_some()));
        let (_, value) = memory.shard().lookup(&[1; 24]).expect("there all the time");
        assert!([&b"old"[..], b"new"].contains(&value.as_slice()));
        handle.join().unwrap();
        assert_eq!(memory.shard().lookup(&[1; 24]).unwrap().1.as_slice(), b"new");
    });
}

#[test]
fn loom_a_writer_whose_lease_was_taken_over_gives_nobody_a_wrong_value() {
    model(2, || {
        let memory = Arc::new(Memory::new());
        let seen = Arc::new(AtomicBool::new(false));
        let writers = [1, 2].map(|key| {
            let (memory, seen) = (memory.clone(), seen.clone());
            thread::spawn(move || {
                let inserted = memory.shard().insert(&record(key), &[key; 8], 0).is_some();
                seen.fetch_or(inserted, Ordering::Relaxed);
            })
        });
        writers.into_iter().for_each(|handle| handle.join().unwrap());
        for key in [1, 2] {
            if let Some((meta, value)) = memory.shard().lookup(&[key; 24]) {
                assert_eq!((meta, value.as_slice()), (record(key), &[key; 8][..]));
            }
        }
        assert!(seen.load(Ordering::Relaxed), "one of them gets through");
    });
}

#[test]
fn loom_after_a_flush_beside_an_insert_the_next_flush_leaves_nothing() {
    model(1, || {
        let memory = Arc::new(Memory::new());
        let writer = memory.clone();
        let handle =
            thread::spawn(move || assert!(writer.shard().insert(&record(1), &[], 0).is_some()));
        memory.shard().clear();
        handle.join().unwrap();
        memory.shard().clear();
        assert!(memory.is_wiped());
    });
}

#[test]
fn loom_what_a_late_writer_wrote_beside_a_flush_is_wiped_by_the_next() {
    model(2, || {
        let memory = Arc::new(Memory::new());
        // As inserts do, without a lease: the second to move the head was overtaken.
        let write = |memory: &Memory| {
            let shard = memory.shard();
            let head = shard.head.load(Ordering::Relaxed);
            shard.note_written(head, head + 1);
            shard.log[shard.offset(head)].store(7, Ordering::Relaxed);
            let moved =
                shard.head.compare_exchange(head, head + 1, Ordering::Release, Ordering::Relaxed);
            if moved.is_err() {
                shard.note_late();
            }
        };
        let other = memory.clone();
        let handle = thread::spawn(move || write(&other));
        write(&memory);
        memory.shard().clear();
        handle.join().unwrap();
        memory.shard().clear();
        assert!(memory.is_wiped());
    });
}

/// A bell, and the kernel's part of it: who sleeps is there, or has seen that the sequence moved.
struct Sleepers {
    sequence: AtomicU32,
    waiter: AtomicU64,
    kernel: (Mutex<()>, Condvar),
}

impl Sleepers {
    fn bell(&self) -> Bell<'_> {
        Bell { sequence: &self.sequence, waiter: &self.waiter }
    }

    fn ring(&self) {
        self.bell().ring(|| {
            let _inside = self.kernel.0.lock().unwrap();
            self.kernel.1.notify_all();
        });
    }

    fn wait(&self, seen: u32) {
        self.bell().wait(seen, || {
            let inside = self.kernel.0.lock().unwrap();
            if self.sequence.load(Ordering::SeqCst) == seen {
                drop(self.kernel.1.wait(inside).unwrap());
            }
        });
    }
}

#[test]
fn loom_who_waits_for_the_bell_hears_every_ring() {
    // The mark is none, or that of a waiter which was killed.
    for mark in [0, 1 << 32] {
        model(3, move || {
            let sleepers = Arc::new(Sleepers {
                sequence: AtomicU32::new(0),
                waiter: AtomicU64::new(mark),
                kernel: (Mutex::new(()), Condvar::new()),
            });
            let ringers: Vec<_> = (0..2)
                .map(|_| {
                    let sleepers = sleepers.clone();
                    thread::spawn(move || sleepers.ring())
                })
                .collect();
            // A ring that is missed leaves this asleep for ever, which the model checker reports.
            let mut seen = 0;
            while seen < 2 {
                sleepers.wait(seen);
                seen = sleepers.bell().rings();
            }
            ringers.into_iter().for_each(|handle| handle.join().unwrap());
        });
    }
}
