//! Rotation, revocation, import.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use super::support::*;
use crate::clock::UnixMillis;
use crate::config::Bind;
use crate::engine::memory::Memory;
use crate::engine::{Engine, Lookup, Policy, Visit};
use crate::ring::file::{self, Format};
use crate::ring::{Age, Digest, KeyName, Ring, TicketKey};
use crate::secret::Secret;
use crate::stats::Counter;

#[test]
fn a_rotation_takes_over_after_the_delay_in_every_process() {
    let (place, start) = (Place::new(), now());
    let (first, second) = (place.engine(), place.engine());
    // By then the key of the start is active, so the new one waits for its turn.
    let now = start + seconds(11);
    let before = issue(&first, now);
    first.rotate_keys().unwrap();
    assert_eq!(issue(&second, start), before, "not at once");
    let later = now + seconds(60);
    let after = issue(&second, later);
    assert_ne!(after, before);
    assert_eq!(issue(&first, later), after);
    assert_eq!(opening(&second, &before, later).unwrap().age, Age::Older);
    assert_eq!(opening(&second, &after, later).unwrap().age, Age::Current);
}

#[test]
fn a_server_that_starts_waits_for_another_that_makes_the_first_keys() {
    let place = Place::new();
    let first = Engine::with_memory(place.config(), Memory::open).unwrap();
    let (tell, told) = mpsc::channel();
    thread::scope(|scope| {
        let change = |ring: &Ring| {
            scope.spawn(|| tell.send(place.engine()).unwrap());
            let early = told.recv_timeout(Duration::from_millis(200));
            assert!(early.is_err(), "it started without keys");
            first.maintained(ring, now())
        };
        first.change_ring(PATIENT, change).unwrap();
    });
    let second = told.recv().unwrap();
    assert_eq!(issue(&second, now()), issue(&first, now()));
}

#[test]
fn a_revoked_key_opens_nothing_in_any_process() {
    let (place, now) = (Place::new(), now());
    let (first, second) = (place.engine(), place.engine());
    let ticket = issue(&first, now);
    second.revoke_keys(Some(ticket.name())).unwrap();
    assert!(opening(&first, &ticket, now).is_none());
    assert_eq!(first.counters().value(Counter::TicketsRevoked), 1);
    let next = issue(&first, now);
    assert_ne!(next.name(), ticket.name());
    assert!(opens(&second, &next, now));
    assert!(second.revoke_keys(Some(ticket.name())).is_err(), "it is not there any more");
    assert!(second.revoke_keys(Some(KeyName([9; 16]))).is_err(), "nobody knows it");
    assert_eq!(first.report(now).keys.revoked, 1);
}

#[test]
fn revoking_all_ends_every_ticket_and_session_and_new_ones_take_their_place() {
    let (place, now) = (Place::new(), now());
    let (first, second) = (place.engine(), place.engine());
    let ticket = issue(&first, now);
    let id = first.new_session_id(first.new_family(now), now).unwrap();
    first.keep_session(&session(&id, b"session", now), now, PATIENT);
    assert!(first.find_session(&id, &SHOP, Lookup::Keep, now).is_some());
    second.revoke_keys(None).unwrap();
    assert!(opening(&first, &ticket, now).is_none());
    assert!(first.find_session(&id, &SHOP, Lookup::Keep, now).is_none());
    assert_eq!(first.counters().value(Counter::SessionsForgedId), 1);
    let fresh = issue(&first, now);
    assert!(opens(&second, &fresh, now));
    assert!(first.new_session_id(first.new_family(now), now).is_some());
    // Twice within one millisecond too.
    first.revoke_keys(None).unwrap();
    assert!(opening(&second, &fresh, now).is_none());
    assert!(opens(&second, &issue(&first, now), now));
}

#[test]
fn keys_bound_for_a_visitor_end_with_the_ring_key_they_come_from() {
    let (engine, now) = (Engine::new(alone()).unwrap(), now());
    let ticket = issue(&engine, now);
    assert!(opens(&engine, &ticket, now), "and is cached now");
    engine.revoke_keys(None).unwrap();
    assert!(opening(&engine, &ticket, now).is_none());
}

/// Key material of a format's own sizes: the first that it can write.
fn file_of(format: Format) -> Vec<u8> {
    let key = |number: u8, aes, mac| {
        let secret = |len, byte: u8| Secret::new(&vec![byte; len]);
        let (aes, mac) = (secret(aes, number), secret(mac, number + 100));
        TicketKey::new(KeyName([number; 16]), aes, mac, Digest::Sha256).expect("fits")
    };
    let valid = (UnixMillis::from_secs(1_000_000_000), UnixMillis::from_secs(4_000_000_000));
    let tries = [(32, 32), (16, 16), (32, 64)].into_iter().flat_map(|(aes, mac)| {
        [3, 1].map(|count| (1..=count).map(|number| key(number, aes, mac)).collect::<Vec<_>>())
    });
    let mut written = tries.filter_map(|keys| file::write(format, &keys, valid).ok());
    written.next().unwrap_or_else(|| panic!("{format}: no sizes fit")).to_vec()
}

#[test]
fn imported_keys_of_every_format_open_tickets_as_they_are_and_take_over_after_the_delay() {
    for format in Format::ALL {
        let (place, start) = (Place::new(), now());
        let (engine, other) = (place.engine(), place.engine());
        // Made before; active by the time of the import.
        let old = issue(&engine, start);
        let data = file_of(format);
        let keys = file::parse(format, &data, "test").unwrap();
        engine.import_keys(&data, format).unwrap();
        for entry in &keys.keys {
            let opening = other.opening_key(&entry.key.name(), &[0; 16], &SHOP, start);
            let opening = opening.expect("known");
            assert_eq!(*opening.key.key(), entry.key, "{format}: as others have it");
        }
        let later = start + seconds(60);
        let encrypts = &keys.keys[keys.encrypts].key;
        assert_eq!(*issue(&other, later).issuing.key.key(), *encrypts, "{format}");
        assert!(opens(&other, &old, later));
        let scheduled = issue(&other, start + HOUR + seconds(60));
        assert_ne!(scheduled.issuing.key.key(), encrypts, "{format}: until the next scheduled key");
        assert!(opens(&engine, &issue(&other, later), start + HOUR + seconds(60)));
        let over = start + Duration::from_secs(3600 * 14);
        assert!(other.opening_key(&encrypts.name(), &[0; 16], &SHOP, over).is_none());
    }
}

#[test]
fn tickets_of_servers_that_bind_nothing_are_refused_where_the_node_has_rules() {
    let (engine, start) = (Engine::new(alone()).unwrap(), now());
    engine.import_keys(&file_of(Format::Nginx), Format::Nginx).unwrap();
    let later = start + seconds(60);
    let theirs = issue(&engine, later);
    assert_eq!(theirs.name(), KeyName([1; 16]), "a key that they have");
    engine.note_served(&Visit { name: b"other.example", ..SHOP }, rules(1), later);
    assert!(opening(&engine, &theirs, later).is_none());
    assert_eq!(engine.counters().value(Counter::TicketsUnknownKey), 1);
    for (name, policy) in [(&b"shop.example"[..], Policy::PUBLIC), (b"other.example", rules(1))] {
        let visit = Visit { name, ..SHOP };
        engine.note_served(&visit, policy, later);
        let own = issue_under(&engine, name, policy, later).unwrap();
        assert_ne!(own.name(), KeyName([1; 16]), "a key derived from theirs");
        assert_eq!(opening_at(&engine, &own, &visit, later).unwrap().policy, policy);
    }
}

#[test]
fn without_binding_imported_keys_are_used_as_they_are_everywhere() {
    let mut config = alone();
    config.resumption.bind = Bind::Off;
    let (engine, start) = (Engine::new(config).unwrap(), now());
    engine.import_keys(&file_of(Format::Nginx), Format::Nginx).unwrap();
    let visit = Visit { accepting: rules(1), ..SHOP };
    let opening = engine.opening_key(&KeyName([1; 16]), &[0; 16], &visit, start);
    assert!(opening.is_some());
}

#[test]
fn data_that_is_no_key_file_changes_nothing() {
    let (engine, now) = (Engine::new(alone()).unwrap(), now());
    let before = issue(&engine, now);
    assert!(engine.import_keys(b"short", Format::Nginx).is_err());
    assert!(engine.import_keys(&file_of(Format::Nginx), Format::H2o).is_err());
    assert_eq!(issue(&engine, now), before);
}

#[test]
fn more_keys_than_the_ring_holds_are_an_error_and_change_nothing() {
    let engine = Engine::new(alone()).unwrap();
    let now = now();
    let fill = || (0..400).map(|_| engine.rotate_keys()).find_map(Result::err);
    let error = fill().expect("full at last").to_string();
    assert!(error.contains("256 keys"), "{error}");
    let ticket = issue(&engine, now);
    assert!(opens(&engine, &ticket, now), "and everything goes on");
    engine.revoke_keys(None).unwrap();
    engine.rotate_keys().unwrap();
}
