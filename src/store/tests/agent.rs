//! The agent's place, its bell, and what it leaves to its successor.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use zeroize::Zeroizing;

use super::records::SMALL;
use super::support::*;
use crate::clock::since_boot;
use crate::store::holds::BootClock;
use crate::store::lease::{Lease, Waiter};
use crate::store::{Origin, Store, word};

const HOLD: Duration = Duration::from_secs(9);

/// A clock that stands where it is put.
struct At(Cell<u64>);

impl Waiter for At {
    fn now(&self) -> Duration {
        Duration::from_millis(self.0.get())
    }

    fn pause(&self) {}
}

#[test]
fn a_node_has_one_agent_until_it_gives_its_place_back() {
    let store = Store::anonymous(SMALL).unwrap();
    assert!(!store.agent_lives());
    let mut agent = store.hold_agent(HOLD).unwrap();
    assert!(store.agent_lives() && store.hold_agent(HOLD).is_none());
    assert!(agent.renew(HOLD));
    assert!(store.hold_agent(HOLD).is_none());
    drop(agent);
    assert!(!store.agent_lives() && store.hold_agent(HOLD).is_some());
}

#[test]
fn the_place_of_an_agent_that_died_is_free_when_its_time_is_over() {
    let (word, clock) = (AtomicU64::new(0), At(Cell::new(100)));
    let take = || Lease::acquire(&word, Duration::from_millis(10), Duration::ZERO, &clock);
    let mut dead = take().unwrap();
    clock.0.set(109);
    assert!(Lease::is_held(&word, clock.now()) && take().is_none());
    clock.0.set(110);
    assert!(!Lease::is_held(&word, clock.now()));
    let mut successor = take().unwrap();
    assert!(!dead.renew(clock.now(), Duration::from_millis(10)), "taken over");
    drop(dead);
    assert!(successor.still_held() && successor.renew(clock.now(), Duration::from_millis(10)));
}

#[test]
fn a_renewed_lease_lasts_from_then_on_and_one_that_ran_out_unseen_goes_on() {
    let (word, clock) = (AtomicU64::new(0), At(Cell::new(100)));
    let hold = Duration::from_millis(10);
    let mut lease = Lease::acquire(&word, hold, Duration::ZERO, &clock).unwrap();
    for now in [105, 110, 150] {
        clock.0.set(now);
        assert!(lease.renew(clock.now(), hold), "at {now}");
        let held_at = |time| Lease::is_held(&word, Duration::from_millis(time));
        assert!(held_at(now + 9) && !held_at(now + 10), "at {now}");
    }
    assert!(lease.renew(clock.now(), Duration::ZERO));
    assert!(Lease::is_held(&word, clock.now()), "renewing shortens nothing");
    drop(lease);
    assert_eq!(word.load(Ordering::Relaxed), 0);
}

#[test]
fn a_renewal_is_never_longer_than_others_believe() {
    let store = Store::anonymous(SMALL).unwrap();
    let mut agent = store.hold_agent(HOLD * 1000).unwrap();
    assert!(agent.renew(HOLD * 1000));
    assert!(store.agent_lives() && store.hold_agent(HOLD).is_none());
}

#[test]
fn new_sessions_and_removals_of_this_node_and_new_rings_ring_and_nothing_else_does() {
    let store = Store::anonymous(SMALL).unwrap();
    let mut last = store.rings();
    let mut rang = || {
        let before = std::mem::replace(&mut last, store.rings());
        store.rings() - before
    };
    insert(&store, 1, 20).unwrap();
    assert_eq!(rang(), 1);
    let remove = |origin| store.remove_for_all(&key(1), NOW + HOLD, origin, NOW, PATIENT);
    remove(Origin::Here).unwrap();
    assert_eq!(rang(), 1);
    assert!(store.update_ring(PATIENT, |_| Some(Zeroizing::new(vec![1]))));
    assert_eq!(rang(), 1);
    assert!(store.update_ring(PATIENT, |_| None));
    remove(Origin::Elsewhere).unwrap();
    let elsewhere = crate::store::Meta { origin: Origin::Elsewhere, ..session(2) };
    store.accept(&elsewhere, &[], NOW, PATIENT).unwrap();
    store.remove(&key(2));
    insert(&store, 2, 1 << 20).unwrap_err();
    assert_eq!(rang(), 0);
}

#[test]
fn the_kernel_is_called_only_while_somebody_may_wait() {
    let store = Store::anonymous(SMALL).unwrap();
    let (bell, calls) = (store.bell(), Cell::new(0));
    let ring = || bell.ring(|| calls.set(calls.get() + 1));
    (0..10).for_each(|_| ring());
    assert_eq!(calls.get(), 0);
    // One that was killed while it waited.
    bell.wait(bell.rings(), || ());
    (0..10).for_each(|_| ring());
    assert_eq!(calls.get(), 1, "one call too many, in all");
    let slept = Cell::new(false);
    bell.wait(bell.rings() - 1, || slept.set(true));
    assert!(!slept.get(), "it was rung since");
}

#[test]
fn nobody_takes_away_the_mark_of_one_who_has_heard_him_already() {
    let store = Store::anonymous(SMALL).unwrap();
    let bell = store.bell();
    bell.wait(bell.rings(), || ());
    let mark = bell.waiter.load(Ordering::Relaxed);
    // A ring that moved the sequence and saw the mark of the dead one, and is slow to take it away.
    bell.sequence.fetch_add(1, Ordering::Relaxed);
    bell.wait(bell.rings(), || ());
    let slow = bell.waiter.compare_exchange(mark, 0, Ordering::Relaxed, Ordering::Relaxed);
    assert!(slow.is_err(), "the next ring wakes");
}

#[test]
fn a_waiter_wakes_when_a_session_comes_and_sleeps_no_longer_than_told() {
    let store = Store::anonymous(SMALL).unwrap();
    let before = since_boot();
    store.wait_bell(store.rings(), Duration::from_millis(20));
    assert!(since_boot() - before >= Duration::from_millis(19), "nothing came");
    store.wait_bell(store.rings().wrapping_sub(1), PATIENT);
    thread::scope(|scope| {
        let seen = store.rings();
        scope.spawn(|| {
            while store.region.word(word::BELL_WAITER).load(Ordering::SeqCst) == 0 {
                thread::yield_now();
            }
            insert(&store, 1, 20).unwrap();
        });
        while store.rings() == seen {
            store.wait_bell(seen, PATIENT);
        }
    });
    assert!(since_boot() - before < PATIENT / 2);
}

#[test]
fn no_ring_is_missed_however_waiting_and_ringing_meet() {
    const ROUNDS: u32 = 20_000;
    let store = Store::anonymous(SMALL).unwrap();
    let (heard, slept_through) = (AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut seen = 0;
            while seen < ROUNDS {
                let before = since_boot();
                store.wait_bell(seen, PATIENT);
                slept_through.fetch_or(since_boot() - before >= PATIENT, Ordering::Relaxed);
                seen = store.rings();
                heard.store(seen.into(), Ordering::Release);
            }
        });
        for round in 0..ROUNDS {
            store.ring_bell();
            // Each ring is answered before the next one: nothing else would wake who missed it.
            while heard.load(Ordering::Acquire) <= round.into() {
                thread::yield_now();
            }
        }
    });
    assert!(!slept_through.into_inner());
}

#[test]
fn what_the_agent_leaves_is_there_for_the_next_one() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = Store::open(&path, SMALL).unwrap();
    assert_eq!((store.stream_cursor(), store.has_first_copy()), ((0, 0), false));
    let node = store.node_id();
    assert_ne!(node, [0; 8]);
    store.set_stream_cursor((1_700_000_000_123, 7));
    store.note_first_copy();
    // A process that is killed gives nothing back.
    std::mem::forget(Lease::acquire(
        store.region.word(word::AGENT_LEASE),
        HOLD,
        Duration::ZERO,
        &BootClock::default(),
    ));
    let next = Store::open(&path, SMALL).unwrap();
    assert_eq!((next.stream_cursor(), next.has_first_copy()), ((1_700_000_000_123, 7), true));
    assert!(next.agent_lives());
    assert_eq!(next.node_id(), node);
    store.region.word(word::SEED).fetch_xor(1, Ordering::Relaxed);
    let replaced = Store::open(&path, SMALL).unwrap();
    assert_ne!(replaced.node_id(), node, "another memory is another node");
    assert_eq!((replaced.stream_cursor(), replaced.has_first_copy()), ((0, 0), false));
    assert!(!replaced.agent_lives());
}
