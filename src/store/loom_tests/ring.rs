//! The ring's slots: readers, writers, and writers that come late.

use loom::sync::Arc;
use loom::sync::atomic::AtomicU64;
use loom::thread;

use super::{SEED, model};
use crate::store::slots::Slots;

/// The ring's places, with room for one unit. Its lease comes and goes in the order that a test says.
struct Places {
    word: AtomicU64,
    slots: [Vec<AtomicU64>; 2],
}

/// Leases of writers.
const FIRST: u64 = 10;
const LATE: u64 = 20;
const NEXT: u64 = 30;

impl Places {
    fn new(bytes: &[u8]) -> Arc<Self> {
        let slot = || (0..4).map(|_| AtomicU64::new(0)).collect();
        let places = Places { word: AtomicU64::new(0), slots: [slot(), slot()] };
        assert!(places.slots().publish(0, FIRST, bytes));
        Arc::new(places)
    }

    fn slots(&self) -> Slots<'_> {
        let [first, second] = &self.slots;
        Slots { word: &self.word, slots: [first, second], seed: SEED }
    }

    /// What who takes the lease over does: the ring that it found, and whether it has put its own in force.
    fn take_over(&self, bytes: &[u8]) -> (Vec<u8>, bool) {
        self.slots().shut_out_others();
        let (seen, found) = self.slots().read();
        let found = found.expect("a ring is in force while one writer is late").to_vec();
        (found, self.slots().publish(seen, NEXT, bytes))
    }

    fn ring(&self) -> Option<Vec<u8>> {
        self.slots().read().1.map(|bytes| bytes.to_vec())
    }
}

#[test]
fn loom_a_reader_sees_the_old_ring_or_the_new_never_a_mix() {
    model(3, || {
        let places = Places::new(b"old");
        let (old, _) = places.slots().read();
        let writer = places.clone();
        let handle = thread::spawn(move || assert!(writer.slots().publish(old, NEXT, b"newer")));
        let (word, bytes) = places.slots().read();
        let bytes = bytes.expect("one of the places is whole while one writer writes");
        match bytes.as_slice() {
            b"old" => assert_eq!(word, old, "never the old ring under the new word"),
            b"newer" => assert_ne!(word, old),
            mix => panic!("{mix:?}"),
        }
        handle.join().unwrap();
        assert_eq!(places.ring().unwrap(), b"newer");
    });
}

#[test]
fn loom_a_late_writer_changes_nothing_once_it_was_shut_out() {
    model(2, || {
        let places = Places::new(b"old");
        let (seen, _) = places.slots().read();
        let late = places.clone();
        let late = thread::spawn(move || late.slots().publish(seen, LATE, b"late"));
        let (found, published) = places.take_over(b"next");
        let late = late.join().unwrap();
        assert_eq!(late, found == b"late", "in time, or not at all");
        let expected = if published { b"next".to_vec() } else { found };
        // A ring whose first place was spoiled before the second was written is written again by the next.
        assert_eq!(places.ring().unwrap(), expected);
    });
}

#[test]
fn loom_a_late_writer_that_is_killed_before_it_moves_the_word_changes_nothing() {
    model(2, || {
        let places = Places::new(b"old");
        let late = places.clone();
        // It expects a word that never was, which is as if it ended there.
        let late = thread::spawn(move || late.slots().publish(u64::MAX, LATE, b"late"));
        let (found, published) = places.take_over(b"next");
        assert_eq!(found, b"old");
        assert!(!late.join().unwrap());
        let expected: &[u8] = if published { b"next" } else { b"old" };
        assert_eq!(places.ring().unwrap(), expected);
    });
}

#[test]
fn loom_a_reader_beside_a_late_writer_and_its_successor_sees_a_whole_ring_or_none() {
    // Three threads with many steps: one switch more takes hours.
    model(1, || {
        let places = Places::new(b"old");
        let (seen, _) = places.slots().read();
        let (late, next) = (places.clone(), places.clone());
        let late = thread::spawn(move || late.slots().publish(seen, LATE, b"late"));
        let next = thread::spawn(move || next.take_over(b"next"));
        if let Some(bytes) = places.ring() {
            let whole: [&[u8]; 3] = [b"old", b"late", b"next"];
            assert!(whole.contains(&&bytes[..]), "{bytes:?}");
        }
        late.join().unwrap();
        next.join().unwrap();
    });
}
