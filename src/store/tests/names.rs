//! The table of names: beside a model, full, under threads, over the years.

#![allow(clippy::print_stdout, reason = "the bytes are what one of the tests is for")]

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use proptest::prelude::*;

use super::records::SMALL;
use super::support::*;
use crate::clock::UnixMillis;
use crate::config::Config;
use crate::store::names::Names;
use crate::store::{Served, Store};

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);
const KEEP: Duration = Duration::from_secs(7 * 86_400);

/// Times of marks start over after so many seconds.
const TURN: u64 = 600 << 20;

fn hash(store: &Store, number: u64) -> u64 {
    store.name_hash(&[b"shop", &number.to_le_bytes()])
}

#[derive(Clone, Debug)]
enum Step {
    Serve(u64, u16),
    Mix(u64),
    Wait(u64),
    /// The clock is put back, by minutes.
    Back(u64),
}

fn arb_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => (0u64..6, 0u16..3).prop_map(|(name, print)| Step::Serve(name, print)),
        2 => (0u64..6).prop_map(Step::Mix),
        5 => prop_oneof![0u64..30, 0u64..20_000].prop_map(Step::Wait),
        1 => (0u64..3000).prop_map(Step::Back),
    ]
}

/// What the table is to know, with times that do not start over.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    print: Option<u16>,
    /// The end of the mark in units of ten minutes; 0: there was none since the last fingerprint that was not marked.
    until: u64,
}

fn units(time: UnixMillis) -> u64 {
    time.secs() / 600
}

impl Known {
    fn is_mixed(self, now: UnixMillis) -> bool {
        units(now) < self.until
    }

    fn mark(&mut self, print: Option<u16>, now: UnixMillis) {
        let until = units(now + KEEP) + 1;
        if !self.is_mixed(now) || until > self.until {
            *self = Known { print, until };
        }
    }

    fn serve(&mut self, print: u16, now: UnixMillis) {
        if !self.is_mixed(now) {
            *self = Known { print: Some(print), until: 0 };
        } else if self.print != Some(print) {
            self.mark(Some(print), now);
        }
    }

    fn served(self, now: UnixMillis) -> Served {
        match self.print {
            _ if self.is_mixed(now) => Served::Mixed,
            Some(print) => Served::By(print),
            None => Served::Nothing,
        }
    }
}

proptest! {
    #[test]
    fn the_table_knows_what_a_map_would_know_wherever_in_time_it_starts(
        steps in prop::collection::vec(arb_step(), 1..200),
        start in prop_oneof![Just(1_700_000_000), TURN * 3 - 900_000..TURN * 3 + 900_000],
    ) {
        let store = Store::anonymous(SMALL).unwrap();
        let mut model = HashMap::<u64, Known>::new();
        let mut now = UnixMillis::from_secs(start);
        for step in steps {
            match step {
                Step::Serve(name, print) => {
                    store.note_served(hash(&store, name), print, now, KEEP);
                    model.entry(name).or_default().serve(print, now);
                }
                Step::Mix(name) => {
                    store.note_mixed(hash(&store, name), now, KEEP);
                    let known = model.entry(name).or_default();
                    known.mark(known.print, now);
                }
                Step::Wait(minutes) => now = now + MINUTE * minutes as u32,
                Step::Back(minutes) => now = now - MINUTE * minutes as u32,
            }
            for name in 0..6 {
                let known = model.get(&name).copied().unwrap_or_default();
                prop_assert_eq!(store.served(hash(&store, name), now), known.served(now));
            }
        }
    }

    #[test]
    fn a_mark_counts_for_as_long_as_it_was_set_for_and_not_twenty_minutes_longer(
        start in 0..TURN * 5,
        keep in 1u64..KEEP.as_secs(),
        later in 0u64..2 * KEEP.as_secs(),
    ) {
        let store = Store::anonymous(SMALL).unwrap();
        let (now, keep) = (UnixMillis::from_secs(start), Duration::from_secs(keep));
        let name = hash(&store, 1);
        store.note_mixed(name, now, keep);
        let found = store.served(name, now + Duration::from_secs(later));
        if later < keep.as_secs() {
            prop_assert_eq!(found, Served::Mixed);
        } else if later >= keep.as_secs() + 1200 {
            prop_assert_eq!(found, Served::Nothing, "no fingerprint was seen");
        }
        prop_assert_eq!(store.served(name, now - DAY * 365 * 9), Served::Mixed, "the clock went back");
    }
}

#[test]
fn nothing_is_written_that_is_known() {
    let words = (0..512).map(|_| AtomicU64::new(0)).collect::<Vec<_>>();
    let names = Names(&words);
    let state = || words.iter().map(|word| word.load(Ordering::Relaxed)).collect::<Vec<_>>();
    names.note_served(5, 1, NOW, KEEP);
    let known = state();
    names.note_served(5, 1, NOW + DAY * 40, KEEP);
    assert_eq!(state(), known, "served by the same again");
    names.note_served(5, 2, NOW, KEEP);
    assert_ne!(state(), known, "served by another");
    names.note_mixed(5, NOW, KEEP);
    let mixed = state();
    for print in [1, 2, 3, 1] {
        names.note_served(5, print, NOW + Duration::from_secs(1), KEEP);
        names.note_mixed(5, NOW, KEEP);
        assert_eq!(state(), mixed, "the mark is as long as it can be");
    }
    names.note_served(5, 2, NOW + MINUTE * 10, KEEP);
    assert_eq!(state(), mixed, "what was served last, served again");
    names.note_served(5, 1, NOW + MINUTE * 10, KEEP);
    assert_ne!(state(), mixed, "another one makes the mark longer");
    assert_eq!(state().iter().filter(|word| **word != 0).count(), 1, "one word for one name");
}

#[test]
fn being_served_by_another_marks_no_name_and_makes_a_mark_longer() {
    let store = Store::anonymous(SMALL).unwrap();
    let name = hash(&store, 1);
    for print in [1, 2, 1, 3] {
        store.note_served(name, print, NOW, KEEP);
        assert_eq!(store.served(name, NOW), Served::By(print), "what served last");
    }
    store.note_mixed(name, NOW, KEEP);
    store.note_served(name, 3, NOW + KEEP, KEEP);
    let over = NOW + KEEP + MINUTE * 20;
    assert_eq!(store.served(name, over), Served::By(3), "served by the same: no contradiction");
    store.note_served(name, 4, NOW + KEEP, KEEP);
    assert_eq!(store.served(name, over), Served::Mixed);
    assert_eq!(store.served(name, over + KEEP), Served::By(4));
}

#[test]
fn a_hundred_thousand_names_fit_into_the_default_memory() {
    const NAMES: u64 = 100_000;
    // Several seeds: none of them is lucky.
    for _ in 0..4 {
        let store = Store::anonymous(Config::default().memory.size as usize).unwrap();
        let print = |name: u64| name as u16;
        for name in 0..NAMES {
            store.note_served(hash(&store, name), print(name), NOW, KEEP);
        }
        let refused = (0..NAMES)
            .filter(|name| store.served(hash(&store, *name), NOW) == Served::NoRoom)
            .count();
        // Two names that share 26 bits of their hashes and lie near each other are one to the table.
        let wrong = (0..NAMES)
            .filter(|name| store.served(hash(&store, *name), NOW) != Served::By(print(*name)))
            .count();
        let bytes = store.region.geometry().names * 8;
        println!("{NAMES} names in {bytes} bytes of {}: {wrong} mixed up", store.size());
        assert_eq!(refused, 0);
        assert!(wrong <= 4, "{wrong} names have another's entry");
    }
}

#[test]
fn a_full_table_says_so_and_forgets_nothing() {
    let words = (0..512).map(|_| AtomicU64::new(0)).collect::<Vec<_>>();
    let names = Names(&words);
    (0..2000).for_each(|name| names.note_served(mix(name), 7, NOW, KEEP));
    assert!((0..512).all(|name| names.served(mix(name), NOW) == Served::By(7)));
    assert!((513..2000).all(|name| names.served(mix(name), NOW) == Served::NoRoom));
    names.note_mixed(mix(1999), NOW, KEEP);
    assert_eq!(names.served(mix(1999), NOW), Served::NoRoom);
    names.note_mixed(mix(3), NOW, KEEP);
    assert_eq!(names.served(mix(3), NOW), Served::Mixed, "what is there can still be marked");
    assert_eq!(names.served(mix(3), NOW + KEEP + MINUTE * 20), Served::By(7), "and stays");
}

#[test]
fn parts_of_a_name_are_told_apart_and_memories_too() {
    let (one, other) = (Store::anonymous(SMALL).unwrap(), Store::anonymous(SMALL).unwrap());
    let parts: [&[&[u8]]; 5] = [&[b"ab", b"c"], &[b"a", b"bc"], &[b"abc"], &[b"abc", b""], &[]];
    let hashes = parts.map(|parts| one.name_hash(parts));
    for (index, hash) in hashes.iter().enumerate() {
        assert!(!hashes[..index].contains(hash), "{index}");
        assert_eq!(*hash, one.name_hash(parts[index]));
        assert_ne!(*hash, other.name_hash(parts[index]));
    }
}

#[test]
fn that_a_connection_had_rules_is_known_for_ever() {
    let store = Store::anonymous(SMALL).unwrap();
    assert!(!store.has_restricted());
    store.note_restricted();
    store.note_restricted();
    store.clear();
    assert!(store.has_restricted());
}

#[test]
fn a_mark_is_seen_at_every_moment_while_others_write_around_it_and_over_it() {
    const MARKED: u64 = 50;
    let store = Store::anonymous(SMALL).unwrap();
    let (marked, done) = (AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        for writer in 0..2u64 {
            let (store, done) = (&store, &done);
            scope.spawn(move || {
                for round in (0..).take_while(|_| !done.load(Ordering::Relaxed)) {
                    let name = mix(round << 1 | writer) % 200;
                    store.note_served(hash(store, name), (round % 3) as u16, NOW, KEEP);
                }
            });
        }
        scope.spawn(|| {
            for name in 0..MARKED {
                store.note_mixed(hash(&store, name), NOW, KEEP);
                marked.store(name + 1, Ordering::Release);
            }
        });
        for _ in 0..2000 {
            let so_far = marked.load(Ordering::Acquire);
            for name in 0..so_far {
                assert_eq!(store.served(hash(&store, name), NOW), Served::Mixed, "name {name}");
            }
        }
        done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn threads_that_enter_the_same_names_fill_one_word_for_each() {
    let store = Store::anonymous(SMALL).unwrap();
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                (0..1000).for_each(|name| store.note_served(hash(&store, name), 1, NOW, KEEP))
            });
        }
    });
    let filled = store.names().0.iter().filter(|word| word.load(Ordering::Relaxed) != 0);
    assert_eq!(filled.count(), 1000);
}
