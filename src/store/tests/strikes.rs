//! The strike register: what it allows once, what it refuses, and that nothing makes room.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use proptest::prelude::*;
use tempfile::TempDir;

use super::records::SMALL;
use super::support::*;
use crate::clock::{self, UnixMillis};
use crate::store::Store;
use crate::store::layout::STRIKE_BUCKET;
use crate::store::strikes::Bucket;
use crate::sys;

const WINDOW: Duration = Duration::from_secs(20);
const SECOND: Duration = Duration::from_secs(1);

/// A time when a register that is made now is complete.
fn complete() -> UnixMillis {
    clock::now() + WINDOW * 100
}

fn strikes(store: &Store, number: u64, now: UnixMillis) -> bool {
    store.strike(&key(number), WINDOW, now)
}

#[test]
fn an_id_is_allowed_once_within_the_window() {
    let (store, now) = (Store::anonymous(SMALL).unwrap(), complete());
    for number in 0..100 {
        assert!(strikes(&store, number, now));
    }
    for later in [0, 1, WINDOW.as_secs() - 1, WINDOW.as_secs()] {
        assert!((0..100).all(|number| !strikes(&store, number, now + SECOND * later as u32)));
    }
    assert!(strikes(&store, 1, now + WINDOW + SECOND * 3), "what is over is no obstacle");
}

#[test]
fn nothing_is_allowed_until_the_memory_is_as_old_as_the_window() {
    let store = Store::anonymous(SMALL).unwrap();
    let made = store.created();
    for later in [0, 1, WINDOW.as_millis() as u64 - 1] {
        assert!(!strikes(&store, later, made + Duration::from_millis(later)));
    }
    assert!(!strikes(&store, 7, made - WINDOW), "a clock put back is no proof");
    assert!(strikes(&store, 8, made + WINDOW));
}

#[test]
fn a_register_that_is_full_refuses_and_forgets_nothing() {
    let (store, now) = (Store::anonymous(SMALL).unwrap(), complete());
    let words = store.region.geometry().strikes as u64;
    let allowed: Vec<_> = (0..words * 4).filter(|number| strikes(&store, *number, now)).collect();
    assert_eq!(allowed.len() as u64, words, "each word holds one");
    assert!(allowed.iter().all(|number| !strikes(&store, *number, now + WINDOW)));
    assert!(!strikes(&store, words * 5, now + WINDOW));
    let over = now + WINDOW + SECOND * 3;
    assert!((0..100).all(|number| strikes(&store, words * 6 + number, over)), "and then goes on");
}

#[test]
fn a_flush_and_new_sessions_leave_strikes_alone() {
    let (store, now) = (Store::anonymous(SMALL).unwrap(), complete());
    assert!((0..50).all(|number| strikes(&store, number, now)));
    store.clear();
    assert!((0..8000).all(|number| insert(&store, number, TYPICAL).is_ok()));
    assert!((0..50).all(|number| !strikes(&store, number, now)));
}

#[test]
fn a_file_on_a_disk_allows_nothing_and_one_in_memory_does() {
    // Where the sources are, a disk on most machines.
    for place in [Path::new("/dev/shm"), Path::new(env!("CARGO_MANIFEST_DIR"))] {
        let directory = TempDir::new_in(place).unwrap();
        let path = directory.path().join("store");
        let store = Store::open(&path, SMALL).unwrap();
        let in_memory = sys::in_memory(&File::open(&path).unwrap()).unwrap();
        assert_eq!(strikes(&store, 1, complete()), in_memory, "{}", place.display());
        drop(store);
        let store = Store::open(&path, SMALL).unwrap();
        assert_eq!(strikes(&store, 2, complete()), in_memory, "{}, found", place.display());
    }
    let mut store = Store::anonymous(SMALL).unwrap();
    store.region.on_disk = true;
    assert!(!strikes(&store, 3, complete()));
}

#[test]
fn of_many_who_claim_an_id_at_most_one_is_allowed() {
    const THREADS: u64 = 4;
    const KEYS: u64 = 300;
    let (store, now) = (Store::anonymous(SMALL).unwrap(), complete());
    let (barrier, first) = (Barrier::new(THREADS as usize), AtomicU64::new(0));
    let mut most = vec![];
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|_| {
                scope.spawn(|| {
                    let claim = |number: &u64| {
                        barrier.wait();
                        let allowed = strikes(&store, *number, now);
                        first.fetch_add(u64::from(allowed), Ordering::Relaxed);
                        allowed
                    };
                    (0..KEYS).filter(claim).collect::<Vec<_>>()
                })
            })
            .collect();
        most = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
    });
    let total = most.len();
    most.sort_unstable();
    most.dedup();
    assert_eq!(most.len(), total, "an id was allowed twice");
    assert!((0..KEYS).all(|number| !strikes(&store, number, now)), "all are claimed");
}

#[test]
fn an_answer_that_comes_late_is_no_and_the_claim_stays() {
    let words = (0..STRIKE_BUCKET).map(|_| AtomicU64::new(0)).collect::<Vec<_>>();
    let bucket = Bucket(&words);
    assert!(!bucket.claim(1, 20, 10, || true));
    assert!(!bucket.claim(1, 20, 10, || false), "it was claimed");
    let store = Store::anonymous(SMALL).unwrap();
    // Asked two seconds ago.
    let window = Duration::ZERO;
    let now = clock::now() - SECOND * 2;
    store.region.word(crate::store::word::CREATED).store(0, Ordering::Relaxed);
    assert!(!store.strike(&key(1), window, now));
    assert!(store.strike(&key(2), window, clock::now()), "asked just now");
}

#[test]
fn whatever_the_register_holds_the_answer_is_yes_once_at_most() {
    let (store, now) = (Store::anonymous(SMALL).unwrap(), complete());
    let geometry = *store.region.geometry();
    let words = store.region.units(geometry.strikes_at(), geometry.strikes);
    for noise in [|_| u64::MAX, |word: u64| mix(word), |word: u64| word << 32, |word: u64| !word] {
        words.iter().zip(0..).for_each(|(word, at)| word.store(noise(at), Ordering::Relaxed));
        for number in 0..300 {
            strikes(&store, number, now);
            assert!(!strikes(&store, number, now));
        }
    }
}

proptest! {
    #[test]
    fn what_is_allowed_is_what_a_map_would_allow(
        steps in prop::collection::vec((0u64..40, 0u64..6), 1..300),
    ) {
        let store = Store::anonymous(SMALL).unwrap();
        let (mut now, mut claimed) = (complete(), HashMap::<u64, UnixMillis>::new());
        for (number, later) in steps {
            now = now + SECOND * later as u32;
            let allowed = strikes(&store, number, now);
            match claimed.get(&number) {
                Some(at) if now <= *at + WINDOW => prop_assert!(!allowed, "{number} twice"),
                // Rounding and lateness make it longer.
                Some(at) if now < *at + WINDOW + SECOND * 3 => {}
                _ => prop_assert!(allowed, "{number} for the first time"),
            }
            if allowed {
                claimed.insert(number, now);
            }
        }
    }
}
