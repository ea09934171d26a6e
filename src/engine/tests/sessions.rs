//! Sessions by their ids.

use super::support::*;
use crate::clock::UnixMillis;
use crate::engine::{Binding, Engine, Lookup, NewSession, Policy};
use crate::stats::Counter;

fn keep(engine: &Engine, now: UnixMillis, value: &[u8]) -> [u8; 32] {
    let id = engine.new_session_id(now).expect("an engine has an id key");
    keep_as(engine, &id, now, now, value);
    id
}

fn keep_as(engine: &Engine, id: &[u8], authenticated: UnixMillis, now: UnixMillis, value: &[u8]) {
    let (binding, expires) = (shop(engine), authenticated + HOUR);
    let session = NewSession { id, binding: &binding, authenticated, expires, value, note: 77 };
    engine.keep_session(&session, now, PATIENT);
}

fn find(engine: &Engine, id: &[u8], now: UnixMillis) -> Option<Vec<u8>> {
    let found = engine.find_session(id, &shop(engine), Lookup::Keep, now)?;
    assert_eq!(found.note, 77);
    Some(found.value.to_vec())
}

#[test]
fn a_session_of_one_process_is_found_by_every_other_and_after_a_restart() {
    let (place, now) = (Place::new(), now());
    let (first, second) = (place.engine(), place.engine());
    let id = keep(&first, now, b"session");
    assert_eq!(find(&second, &id, now).as_deref(), Some(&b"session"[..]));
    drop((first, second));
    assert_eq!(find(&place.engine(), &id, now).as_deref(), Some(&b"session"[..]));
}

#[test]
fn a_session_is_tied_to_its_server_name_and_policy() {
    let (engine, now) = (Engine::new(alone()).unwrap(), now());
    let id = keep(&engine, now, b"session");
    let others = [
        engine.binding(b"other.example", Policy::NoVerification),
        engine.binding(b"shop.example", Policy::Verifying([1; 32])),
        Binding::NONE,
    ];
    for other in others {
        assert!(engine.find_session(&id, &other, Lookup::Consume, now).is_none());
    }
    assert_eq!(engine.counters().value(Counter::SessionsBinding), 3);
    assert!(find(&engine, &id, now).is_some(), "and nobody else's request consumes it");
}

#[test]
fn a_session_ends_at_its_time() {
    let (engine, now) = (Engine::new(alone()).unwrap(), now());
    let id = keep(&engine, now, b"session");
    assert!(find(&engine, &id, now + HOUR).is_some(), "its last second counts, as for OpenSSL");
    assert!(find(&engine, &id, now + HOUR + seconds(1)).is_none());
    assert_eq!(engine.counters().value(Counter::SessionsExpired), 1);
}

#[test]
fn forged_ids_are_counted_and_looked_up_nowhere() {
    let (engine, now) = (Engine::new(alone()).unwrap(), now());
    let id = keep(&engine, now, b"session");
    for byte in 0..32 {
        let mut forged = id;
        forged[byte] ^= 1;
        assert!(find(&engine, &forged, now).is_none());
    }
    for length in [0, 1, 16, 31, 33] {
        assert!(find(&engine, &vec![7; length], now).is_none());
    }
    let counted = |counter| engine.counters().value(counter);
    assert_eq!(counted(Counter::SessionsForgedId), 32 + 5);
    assert_eq!(counted(Counter::SessionsAbsent), 0, "a look-up would have found nothing");
    // Not even kept: the store holds nothing that could not be asked for.
    keep_as(&engine, &[7; 32], now, now, b"forged");
    assert_eq!((counted(Counter::SessionsStored), counted(Counter::SessionsDropped)), (1, 1));
}

#[test]
fn a_consumed_session_is_given_once() {
    let (place, now) = (Place::new(), now());
    let engines = [place.engine(), place.engine()];
    let id = keep(&engines[0], now, b"session");
    let binding = shop(&engines[0]);
    let given = engines.iter().cycle().take(4);
    let given = given.filter(|e| e.find_session(&id, &binding, Lookup::Consume, now).is_some());
    assert_eq!(given.count(), 1);
    assert_eq!(engines[0].counters().value(Counter::SessionsAbsent), 3);
}

#[test]
fn a_forgotten_session_is_gone_everywhere() {
    let (place, now) = (Place::new(), now());
    let (first, second) = (place.engine(), place.engine());
    let id = keep(&first, now, b"session");
    assert!(second.forget_session(&id, now));
    assert!(!first.forget_session(&id, now));
    assert!(find(&first, &id, now).is_none());
    assert!(!first.forget_session(b"no id", now));
}

#[test]
fn a_session_that_is_too_long_is_dropped_and_counted() {
    let (engine, now) = (Engine::new(alone()).unwrap(), now());
    let id = keep(&engine, now, &vec![7; 70_000]);
    assert!(find(&engine, &id, now).is_none());
    assert_eq!(engine.counters().value(Counter::SessionsDropped), 1);
}

#[test]
fn evicted_sessions_are_counted() {
    let (engine, now) = (Engine::new(alone()).unwrap(), now());
    (0..20).for_each(|_| drop(keep(&engine, now, &[7; 60_000]).to_vec()));
    let report = engine.report(now);
    assert_eq!(report.counter(Counter::SessionsStored), 20);
    assert_eq!(report.counter(Counter::SessionsEvicted) + report.sessions_live, 20);
    assert!(report.counter(Counter::SessionsEvicted) > 10);
}

#[test]
fn a_flush_forgets_every_session_also_those_that_turn_up_later() {
    let (place, now) = (Place::new(), now());
    let (first, second) = (place.engine(), place.engine());
    let id = keep(&first, now, b"session");
    let ticket = issue(&first, now);
    second.flush_sessions().unwrap();
    assert!(find(&first, &id, now).is_none());
    assert_eq!(first.report(now).sessions_live, 0);
    keep_as(&first, &id, now - seconds(60), now, b"from another host");
    assert!(find(&first, &id, now).is_none(), "authenticated before the flush");
    let later = now + seconds(2);
    let fresh = keep(&first, later, b"new");
    assert!(find(&second, &fresh, later).is_some());
    assert!(opens(&second, &ticket, now), "tickets have keys of their own");
}
