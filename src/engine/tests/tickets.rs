//! Tickets: opened by every process, tied to name and policy, for their lifetime.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use super::support::*;
use crate::clock::UnixMillis;
use crate::config::Config;
use crate::engine::{Binding, Engine, Policy};
use crate::ring::Age;
use crate::stats::Counter;

#[test]
fn a_ticket_of_one_process_opens_in_every_other() {
    let (place, now) = (Place::new(), now());
    let (first, second) = (place.engine(), place.engine());
    for (issuer, opener) in [(&first, &second), (&second, &first), (&first, &first)] {
        let ticket = issue(issuer, now);
        let opening = opening(opener, &ticket, now).expect("known");
        assert_eq!((opening.key, opening.age), (ticket, Age::Current));
    }
    assert_eq!(first.counters().value(Counter::TicketsIssued), 3, "counted for the node");
}

#[test]
fn processes_without_common_memory_do_not_open_each_others_tickets() {
    let now = now();
    let (one, other) = (Engine::new(alone()).unwrap(), Engine::new(alone()).unwrap());
    assert!(opening(&other, &issue(&one, now), now).is_none());
    assert_eq!(other.counters().value(Counter::TicketsUnknownKey), 1);
}

#[test]
fn a_ticket_is_tied_to_its_server_name_and_policy() {
    let (engine, now) = (Engine::new(alone()).unwrap(), now());
    let verifying = Policy::Verifying([1; 32]);
    let bindings = [
        engine.binding(b"shop.example", Policy::NoVerification),
        engine.binding(b"other.example", Policy::NoVerification),
        engine.binding(b"", Policy::NoVerification),
        engine.binding(b"shop.example", verifying),
        engine.binding(b"shop.example", Policy::Verifying([2; 32])),
    ];
    for (index, binding) in bindings.iter().enumerate() {
        let ticket = engine.issuing_key(binding, true, now).unwrap();
        for (other, binding) in bindings.iter().enumerate() {
            let opening = engine.opening_key(&ticket.name(), binding, true, now).unwrap();
            assert_eq!(opening.key == ticket, index == other, "{index} and {other}");
        }
    }
}

#[test]
fn without_binding_every_name_opens_every_ticket() {
    let mut config = alone();
    config.resumption.bind = false;
    let (engine, now) = (Engine::new(config).unwrap(), now());
    let other = engine.binding(b"other.example", Policy::Verifying([1; 32]));
    assert_eq!(other, Binding::NONE);
    let ticket = issue(&engine, now);
    let opening = engine.opening_key(&ticket.name(), &other, true, now).unwrap();
    assert_eq!(opening.key, ticket);
}

#[test]
fn a_throw_away_key_never_opens() {
    let (engine, now) = (Engine::new(alone()).unwrap(), now());
    let ticket = Engine::throw_away_key(crate::sys::random).unwrap();
    assert!(opening(&engine, &ticket, now).is_none());
    assert_ne!(Engine::throw_away_key(crate::sys::random).unwrap(), ticket);
}

#[test]
fn tickets_open_after_rotation_as_older_and_expire_with_their_lifetime() {
    let (engine, start) = (Engine::new(alone()).unwrap(), now());
    let ticket = issue(&engine, start);
    let later = start + HOUR * 2;
    issue(&engine, later);
    assert_eq!(opening(&engine, &ticket, later).unwrap().age, Age::Older);
    assert!(opens(&engine, &ticket, start + HOUR * 12));
    assert!(opening(&engine, &ticket, start + HOUR * 13 + seconds(11)).is_none());
    assert_eq!(engine.counters().value(Counter::TicketsExpired), 1);
}

#[test]
fn a_clock_that_steps_an_hour_back_and_forth_loses_no_ticket() {
    let (place, start) = (Place::new(), now());
    let (first, second) = (place.engine(), place.engine());
    let mut tickets = Vec::new();
    let steps = [0, 60, 0, 120, 60, 61, 1, 180, 120, 0, 240];
    for minutes in steps {
        let now = start + seconds(60 * minutes);
        tickets.push(issue(&first, now));
        for ticket in &tickets {
            assert!(opens(&first, ticket, now) && opens(&second, ticket, now), "{minutes} min");
        }
    }
    let back = UnixMillis(start.0 - 3_600_000);
    tickets.push(issue(&second, back));
    assert!(tickets.iter().all(|ticket| opens(&first, ticket, back)));
}

#[test]
fn processes_with_different_schedules_on_one_memory_lose_nothing_and_keep_nothing_too_long() {
    let (place, start) = (Place::new(), now());
    let engine = |rotate, lifetime| {
        let mut config = place.config();
        (config.keys.rotate, config.resumption.lifetime) = (rotate, lifetime);
        Engine::new(config).unwrap()
    };
    // The short one comes first, so its keys are there when the long one comes.
    let engines = [engine(HOUR / 4, HOUR), engine(HOUR * 5, HOUR * 30)];
    let mut tickets = Vec::new();
    for round in 0..400u32 {
        let now = start + seconds(617) * round;
        for engine in &engines {
            let ticket = issue(engine, now);
            let ends = now + engine.config().resumption.lifetime;
            tickets.push((ticket, now, ends));
        }
        tickets.retain(|(ticket, issued, ends)| {
            if now < *ends {
                let opened = engines.iter().all(|engine| opens(engine, ticket, now));
                assert!(opened, "{:?} lost after {:?}", ticket.name(), now.since(*issued));
            }
            // Encrypting for at most five hours, a lifetime of thirty, and the activation delay.
            let over = now > *issued + HOUR * 35 + seconds(11);
            if over {
                assert!(engines.iter().all(|engine| opening(engine, ticket, now).is_none()));
            }
            !over
        });
    }
}

#[test]
fn memory_that_cannot_be_used_costs_sharing_and_nothing_else() {
    let (place, now) = (Place::new(), now());
    let foreign = place.file("memory", b"something else");
    std::fs::set_permissions(&foreign, Permissions::from_mode(0o600)).unwrap();
    let config = Config { memory: small(Some(&foreign)), ..Config::default() };
    let engine = Engine::new(config).unwrap();
    assert!(opens(&engine, &issue(&engine, now), now));
    assert_eq!(std::fs::read(foreign).unwrap(), b"something else");
}

#[test]
fn a_process_that_starts_again_opens_the_tickets_from_before() {
    let (place, now) = (Place::new(), now());
    let ticket = issue(&place.engine(), now);
    assert!(opens(&place.engine(), &ticket, now));
}

#[test]
fn the_keys_survive_a_change_of_the_memorys_size() {
    let (place, now) = (Place::new(), now());
    let old = place.engine();
    let ticket = issue(&old, now);
    let mut config = place.config();
    config.memory.size = 1 << 20;
    let new = Engine::new(config).unwrap();
    assert!(opens(&new, &ticket, now) && opens(&old, &issue(&new, now), now));
}
