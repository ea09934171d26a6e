//! Sessions by their ids.

use super::support::*;
use crate::clock::UnixMillis;
use crate::engine::{Engine, Lookup, NewSession, Policy, Visit};
use crate::stats::Counter;

fn keep(engine: &Engine, now: UnixMillis, value: &[u8]) -> [u8; 32] {
    let id = engine.new_session_id(engine.new_family(now), now).expect("an engine has an id key");
    keep_as(engine, &id, now, now, value);
    id
}

fn keep_as(engine: &Engine, id: &[u8], authenticated: UnixMillis, now: UnixMillis, value: &[u8]) {
    keep_under(engine, id, Policy::PUBLIC, authenticated, now, value);
}

fn keep_under(
    engine: &Engine,
    id: &[u8],
    policy: Policy,
    authenticated: UnixMillis,
    now: UnixMillis,
    value: &[u8],
) {
    let expires = authenticated + HOUR;
    let authenticated = Some(authenticated);
    let new = NewSession { policy, authenticated, expires, note: 77, ..session(id, value, now) };
    engine.keep_session(&new, now, PATIENT);
}

fn find(engine: &Engine, id: &[u8], now: UnixMillis) -> Option<Vec<u8>> {
    let found = engine.find_session(id, &SHOP, Lookup::Keep, now)?;
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
fn a_session_is_tied_to_its_server_name_and_tells_its_policy() {
    let (engine, now) = (Engine::new(alone()).unwrap(), now());
    let id = engine.new_session_id(engine.new_family(now), now).unwrap();
    keep_under(&engine, &id, rules(1), now, now, b"session");
    for name in [&b"other.example"[..], b"Shop.example", b""] {
        let visit = Visit { name, ..SHOP };
        assert!(engine.find_session(&id, &visit, Lookup::Consume, now).is_none());
    }
    assert_eq!(engine.counters().value(Counter::SessionsBinding), 3);
    engine.note_served(&SHOP, rules(1), now);
    let found = engine.find_session(&id, &SHOP, Lookup::Keep, now).expect("not consumed");
    assert_eq!((found.policy, &found.value[..], found.note), (rules(1), &b"session"[..], 77));
    engine.note_served(&SHOP, rules(2), now);
    assert!(engine.find_session(&id, &SHOP, Lookup::Keep, now).is_none(), "another one serves");
}

#[test]
fn all_sessions_and_tickets_of_a_family_are_forgotten_together_on_the_node() {
    let (place, now) = (Place::new(), now());
    let (engine, other) = (place.engine(), place.engine());
    let family = engine.new_family(now);
    let ids = [(); 2].map(|()| engine.new_session_id(family, now).unwrap());
    ids.iter().for_each(|id| keep_as(&engine, id, now, now, b"session"));
    let issuing = engine.issuing_key(SHOP.name, Policy::PUBLIC, now, now).unwrap();
    let vector = issuing.key.vector(Some(family), &[7; 16]);
    let (ticket, stranger) = (Ticket { issuing, vector }, keep(&engine, now, b"another"));
    assert!(opening(&other, &ticket, now).is_some());
    assert!(other.forget_session(&ids[0], now).unwrap());
    assert!(find(&engine, &ids[0], now).is_none() && find(&engine, &ids[1], now).is_none());
    assert!(opening(&engine, &ticket, now).is_none());
    assert_eq!(engine.counters().value(Counter::TicketsRevoked), 1);
    assert!(find(&engine, &stranger, now).is_some(), "another family");
}

#[test]
fn a_family_stays_forgotten_however_many_sessions_strangers_make() {
    let (engine, now) = (Engine::new(alone()).unwrap(), now());
    let family = engine.new_family(now);
    let ids = [(); 2].map(|()| engine.new_session_id(family, now).unwrap());
    ids.iter().for_each(|id| keep_as(&engine, id, now, now, b"session"));
    let issuing = engine.issuing_key(SHOP.name, Policy::PUBLIC, now, now).unwrap();
    let vector = issuing.key.vector(Some(family), &[7; 16]);
    let ticket = Ticket { issuing, vector };
    assert!(engine.forget_session(&ids[0], now).unwrap());
    for _ in 0..5000 {
        keep(&engine, now, &[7; 136]);
    }
    keep_as(&engine, &ids[1], now, now, b"session");
    let last = now + engine.config.resumption.lifetime;
    for now in [now, family.ends().min(last)] {
        assert!(opening(&engine, &ticket, now).is_none() && find(&engine, &ids[1], now).is_none());
    }
    assert!(engine.counters().value(Counter::TicketsRevoked) > 0, "for the removal");
    assert!(opens(&engine, &issue(&engine, now), now), "another family");
    engine.flush_sessions().unwrap();
    assert!(opening(&engine, &ticket, now).is_none());
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
    let given = engines.iter().cycle().take(4);
    let given = given.filter(|e| e.find_session(&id, &SHOP, Lookup::Consume, now).is_some());
    assert_eq!(given.count(), 1);
    assert_eq!(engines[0].counters().value(Counter::SessionsAbsent), 3);
}

#[test]
fn a_forgotten_session_is_gone_everywhere() {
    let (place, now) = (Place::new(), now());
    let (first, second) = (place.engine(), place.engine());
    let id = keep(&first, now, b"session");
    assert!(second.forget_session(&id, now).unwrap());
    assert!(!first.forget_session(&id, now).unwrap());
    assert!(find(&first, &id, now).is_none());
    assert!(!first.forget_session(b"no id", now).unwrap());
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
