//! The table of removals: what it holds, what it says in doubt, and that no session makes room in it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use proptest::prelude::*;

use super::records::SMALL;
use super::support::*;
use crate::clock::UnixMillis;
use crate::store::layout::REMOVAL_BUCKET;
use crate::store::removals::Removals;
use crate::store::{Origin, Store, word};

const HOUR: Duration = Duration::from_secs(3600);

fn end() -> UnixMillis {
    NOW + HOUR
}

fn remove_until(store: &Store, number: u64, until: UnixMillis) {
    store.remove_for_all(&key(number), until, Origin::Elsewhere, NOW, PATIENT).unwrap();
}

fn is_removed(store: &Store, number: u64) -> bool {
    store.is_removed(&key(number), end())
}

/// A bucket of its own.
struct Table {
    words: Vec<AtomicU64>,
    watermark: AtomicU64,
}

impl Table {
    fn new() -> Self {
        let words = (0..REMOVAL_BUCKET).map(|_| AtomicU64::new(0)).collect();
        Table { words, watermark: AtomicU64::new(0) }
    }

    fn removals(&self) -> Removals<'_> {
        Removals { bucket: &self.words, watermark: &self.watermark, latest: u32::MAX }
    }

    fn watermark(&self) -> u64 {
        self.watermark.load(Ordering::Relaxed)
    }
}

#[test]
fn what_was_removed_is_and_nothing_else() {
    let store = Store::anonymous(SMALL).unwrap();
    assert!(!store.has_removals(NOW) && !is_removed(&store, 1));
    remove_until(&store, 1, end());
    assert!(store.has_removals(end()) && !store.has_removals(end() + HOUR));
    assert!(is_removed(&store, 1) && !is_removed(&store, 2));
}

#[test]
fn a_removal_survives_any_number_of_later_sessions_and_a_flush() {
    let store = Store::anonymous(SMALL).unwrap();
    remove_until(&store, 0, end());
    assert!((1..10_000).all(|number| insert(&store, number, TYPICAL).is_ok()));
    assert!(!store.keeps_away(&key(0), NOW), "the log was overwritten");
    assert!(is_removed(&store, 0));
    store.clear();
    assert!(is_removed(&store, 0));
    assert_eq!(store.region.word(word::REMOVED_UNTIL).load(Ordering::Relaxed), 0);
}

#[test]
fn sessions_that_were_used_take_no_room_in_the_table() {
    let store = Store::anonymous(SMALL).unwrap();
    insert(&store, 1, TYPICAL).unwrap();
    store.remove_here(&key(1), end(), NOW, PATIENT).unwrap();
    assert!(store.keeps_away(&key(1), end()) && !finds_session(&store, 1));
    assert!(!store.has_removals(NOW) && !is_removed(&store, 1));
}

fn finds_session(store: &Store, number: u64) -> bool {
    store.lookup(&key(number)).is_some_and(|(meta, _)| meta.kind == crate::store::Kind::Session)
}

#[test]
fn a_removal_counts_also_where_others_keep_the_log() {
    let store = Store::anonymous(SMALL).unwrap();
    let held = crate::clock::since_boot() + Duration::from_secs(5);
    store.shard(0).0.store(u64::try_from(held.as_nanos()).unwrap(), Ordering::Relaxed);
    let none = Duration::ZERO;
    assert!(store.remove_for_all(&key(1), end(), Origin::Here, NOW, none).is_err());
    assert!(is_removed(&store, 1));
}

#[test]
fn a_full_bucket_raises_the_watermark_to_the_end_of_what_gives_way() {
    let table = Table::new();
    (0..8).for_each(|print| table.removals().note(print, 100 + print));
    assert_eq!(table.watermark(), 0, "there was room");
    assert!(!table.removals().contains(50, 1));
    table.removals().note(50, 200);
    assert_eq!(table.watermark(), 100, "the earliest end went");
    assert!(table.removals().contains(0, 100), "and is removed all the same");
    assert!((1..8).all(|print| table.removals().contains(print, 100 + print)));
    assert!(table.removals().contains(60, 100) && !table.removals().contains(60, 101));
    table.removals().note(70, 100);
    assert!(table.removals().contains(70, 100));
    assert!((1..8).all(|print| table.removals().contains(print, 300)), "later ones stay");
    table.removals().note(3, 400);
    table.removals().note(3, 10);
    assert_eq!(table.watermark(), 100, "the same again takes no room");
}

#[test]
fn a_table_that_is_full_forgets_nothing() {
    let store = Store::anonymous(SMALL).unwrap();
    let many = store.region.geometry().removals as u64 * 3;
    let until = |number: u64| end() + Duration::from_secs(mix(number) % 3600);
    (0..many).for_each(|number| remove_until(&store, number, until(number)));
    assert!((0..many).all(|number| store.is_removed(&key(number), until(number))));
    assert!(!store.is_removed(&key(many), end() + HOUR * 2), "later than everything that went");
}

#[test]
fn whatever_the_table_holds_a_removal_is_removed_and_has_room() {
    let store = Store::anonymous(SMALL).unwrap();
    let geometry = *store.region.geometry();
    let words = store.region.units(geometry.removals_at(), geometry.removals);
    for noise in [|_| u64::MAX, |word: u64| mix(word), |word: u64| word << 32, |word: u64| !word] {
        words.iter().zip(0..).for_each(|(word, at)| word.store(noise(at), Ordering::Relaxed));
        for mark in [0, 1, u64::from(u32::MAX), u64::MAX] {
            store.region.word(word::REMOVED_UNTIL).store(mark, Ordering::Relaxed);
            for number in 0..100 {
                remove_until(&store, number, end());
                assert!(is_removed(&store, number));
            }
        }
    }
}

#[test]
fn threads_that_fill_a_bucket_together_lose_no_removal() {
    let table = Table::new();
    thread::scope(|scope| {
        for writer in 0..3u32 {
            let table = &table;
            scope.spawn(move || {
                for round in 0..3000 {
                    let (print, end) = (round * 3 + writer, mix(round.into()) as u32 % 5000);
                    table.removals().note(print, end);
                    assert!(table.removals().contains(print, end));
                    let (before, end) = (round / 2, mix((round / 2).into()) as u32 % 5000);
                    assert!(table.removals().contains(before * 3 + writer, end));
                }
            });
        }
    });
}

proptest! {
    #[test]
    fn beside_a_list_every_removal_is_removed_and_little_else_is(
        steps in prop::collection::vec((0u32..40, 1u32..1000), 1..100),
    ) {
        let table = Table::new();
        let (mut noted, mut ends) = (Vec::new(), Vec::new());
        for (print, end) in steps {
            table.removals().note(print, end);
            noted.push((print, end));
            ends.push(end);
            ends.sort_unstable();
            for (print, end) in &noted {
                prop_assert!(table.removals().contains(*print, *end));
            }
            // As many as fit stay, those with the latest ends.
            let gone = ends.iter().rev().nth(REMOVAL_BUCKET).copied().unwrap_or(0);
            prop_assert!(!table.removals().contains(77, gone + 1));
        }
    }
}
