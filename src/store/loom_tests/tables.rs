//! The tables of single words: names, removals, and early-data strikes.

use std::time::Duration;

use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, Ordering};
use loom::thread;

use super::model;
use crate::clock::UnixMillis;
use crate::store::Served;
use crate::store::names::Names;
use crate::store::removals::Removals;
use crate::store::strikes::Bucket;

/// A table of names with room for four.
fn table() -> Arc<Vec<AtomicU64>> {
    Arc::new((0..4).map(|_| AtomicU64::new(0)).collect())
}

const TIME: UnixMillis = UnixMillis::from_secs(1_700_000_000);
const KEEP: Duration = Duration::from_secs(86_400);

/// Hashes whose search begins at the same word, with different tags.
const NAMES: [u64; 2] = [1 << 40, 2 << 40];

#[test]
fn loom_a_mark_is_not_lost_among_those_who_serve_the_name() {
    for known in [false, true] {
        model(3, move || {
            let table = table();
            if known {
                Names(&table).note_served(NAMES[0], 1, TIME, KEEP);
            }
            let others = [1, 2].map(|print| {
                let table = table.clone();
                thread::spawn(move || Names(&table).note_served(NAMES[0], print, TIME, KEEP))
            });
            Names(&table).note_mixed(NAMES[0], TIME, KEEP);
            assert_eq!(Names(&table).served(NAMES[0], TIME), Served::Mixed);
            others.into_iter().for_each(|handle| handle.join().unwrap());
            assert_eq!(Names(&table).served(NAMES[0], TIME), Served::Mixed);
        });
    }
}

#[test]
fn loom_of_two_that_serve_a_name_differently_one_is_the_last_and_nothing_is_marked() {
    model(4, || {
        let table = table();
        let other = table.clone();
        let other = thread::spawn(move || Names(&other).note_served(NAMES[0], 1, TIME, KEEP));
        Names(&table).note_served(NAMES[0], 2, TIME, KEEP);
        other.join().unwrap();
        let last = Names(&table).served(NAMES[0], TIME);
        assert!([Served::By(1), Served::By(2)].contains(&last), "{last:?}");
        let filled = table.iter().filter(|word| word.load(Ordering::Relaxed) != 0);
        assert_eq!(filled.count(), 1, "one word for one name");
    });
}

#[test]
fn loom_two_names_that_meet_at_a_word_are_both_entered() {
    model(4, || {
        let table = table();
        let other = table.clone();
        let other = thread::spawn(move || Names(&other).note_served(NAMES[0], 1, TIME, KEEP));
        Names(&table).note_served(NAMES[1], 2, TIME, KEEP);
        other.join().unwrap();
        assert_eq!(Names(&table).served(NAMES[0], TIME), Served::By(1));
        assert_eq!(Names(&table).served(NAMES[1], TIME), Served::By(2));
    });
}

/// Removals with the fingerprints 1 and 2 in a bucket that has no more room.
struct Removed {
    words: Vec<AtomicU64>,
    watermark: AtomicU64,
}

impl Removed {
    fn new() -> Arc<Self> {
        let words = [100 << 32 | 1, 200 << 32 | 2].map(AtomicU64::new).into();
        Arc::new(Removed { words, watermark: AtomicU64::new(0) })
    }

    fn note(&self, print: u32, end: u32) {
        Removals { bucket: &self.words, watermark: &self.watermark, latest: u32::MAX }
            .note(print, end);
    }

    fn contains(&self, print: u32, end: u32) -> bool {
        Removals { bucket: &self.words, watermark: &self.watermark, latest: u32::MAX }
            .contains(print, end)
    }
}

#[test]
fn loom_what_gives_way_to_another_removal_is_removed_at_every_moment() {
    model(3, || {
        let table = Removed::new();
        let others = [(3, 300), (4, 150)].map(|(print, end)| {
            let table = table.clone();
            thread::spawn(move || table.note(print, end))
        });
        assert!(table.contains(1, 100) && table.contains(2, 200));
        others.into_iter().for_each(|handle| handle.join().unwrap());
        assert!(
            [(1, 100), (2, 200), (3, 300), (4, 150)].iter().all(|it| table.contains(it.0, it.1))
        );
        assert!(!table.contains(5, 201), "what never gave way");
    });
}

#[test]
fn loom_a_removal_that_is_made_longer_is_not_lost_to_one_that_takes_its_word() {
    model(3, || {
        let table = Removed::new();
        let others = [(1, 400), (3, 300)].map(|(print, end)| {
            let table = table.clone();
            thread::spawn(move || table.note(print, end))
        });
        assert!(table.contains(1, 100) && table.contains(2, 200));
        others.into_iter().for_each(|handle| handle.join().unwrap());
        assert!(table.contains(1, 400) && table.contains(2, 200) && table.contains(3, 300));
    });
}

/// Words of the strike register, and a clock in seconds.
struct Register {
    words: Vec<AtomicU64>,
    clock: AtomicU64,
}

/// How long strikes count there, in seconds, and how late an answer may come.
const WINDOW: u32 = 20;
const LONGEST: u32 = 1;

impl Register {
    fn new(words: &[u64]) -> Arc<Self> {
        let words = words.iter().map(|word| AtomicU64::new(*word)).collect();
        Arc::new(Register { words, clock: AtomicU64::new(100) })
    }

    fn claim(&self, print: u32, now: u32) -> bool {
        let is_late = || {
            // A clock never shows an earlier time to who has seen what was done at a later one.
            let time = self.clock.fetch_add(0, Ordering::AcqRel);
            time > u64::from(now + LONGEST)
        };
        Bucket(&self.words).claim(print, now + WINDOW + LONGEST + 1, now, is_late)
    }

    fn goes_on_to(&self, time: u32) {
        self.clock.swap(time.into(), Ordering::AcqRel);
    }
}

/// A word whose time is over.
const OVER: u64 = 100 << 32 | 7;

#[test]
fn loom_of_two_who_claim_an_id_at_most_one_is_allowed() {
    for words in [&[0, 0][..], &[OVER, 0], &[u64::MAX, OVER, OVER]] {
        model(4, move || {
            let register = Register::new(words);
            let other = register.clone();
            let other = thread::spawn(move || other.claim(1, 100));
            let mine = register.claim(1, 100);
            assert!(!(mine && other.join().unwrap()), "allowed twice");
            assert!(!register.claim(1, 100), "it is claimed, or there is no room");
        });
    }
}

#[test]
fn loom_of_two_who_take_different_words_at_most_one_is_allowed() {
    model(4, || {
        // Over for one, and in force for the other, whose time is a second earlier.
        let register = Register::new(&[101 << 32 | 7, 0]);
        let other = register.clone();
        let other = thread::spawn(move || other.claim(1, 100));
        let mine = register.claim(1, 101);
        assert!(!(mine && other.join().unwrap()), "allowed twice");
    });
}

#[test]
fn loom_of_three_who_claim_over_an_expired_word_at_most_one_is_allowed_for_each_id() {
    model(2, || {
        let register = Register::new(&[OVER, 0]);
        let claims = [1, 2].map(|print| {
            let register = register.clone();
            thread::spawn(move || register.claim(print, 100))
        });
        let mine = register.claim(1, 101);
        let [same, _other] = claims.map(|claim| claim.join().unwrap());
        assert!(!(mine && same), "allowed twice");
    });
}

#[test]
fn loom_a_claim_that_is_stopped_at_any_step_allows_nothing_twice() {
    model(3, || {
        let register = Register::new(&[OVER, 0]);
        let stopped = register.clone();
        let stopped = thread::spawn(move || stopped.claim(1, 100));
        let replay = register.claim(1, 101);
        // Long after that another one takes the place of what is over.
        let over = 101 + WINDOW + LONGEST + 1;
        register.goes_on_to(over);
        register.claim(2, over);
        assert!(!(replay && stopped.join().unwrap()), "allowed twice");
    });
}
