//! Tickets: opened by every process, tied to name and policy, for their lifetime.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use super::support::*;
use crate::clock::UnixMillis;
use crate::config::{Bind, Config};
use crate::engine::{Engine, Judged, Policy, Visit};
use crate::ring::Age;
use crate::stats::Counter;

#[test]
fn a_ticket_of_one_process_opens_in_every_other() {
    let (place, now) = (Place::new(), now());
    let (first, second) = (place.engine(), place.engine());
    for (issuer, opener) in [(&first, &second), (&second, &first), (&first, &first)] {
        let ticket = issue(issuer, now);
        let opening = opening(opener, &ticket, now).expect("known");
        assert_eq!((opening.key, opening.age), (ticket.issuing.key, Age::Current));
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
fn a_ticket_is_tied_to_its_server_name_and_tells_its_policy() {
    let (engine, now) = (Engine::new(alone()).unwrap(), now());
    let names: [&[u8]; 4] = [b"shop.example", b"Shop.example", b"other.example", b""];
    for name in names {
        for policy in [Policy::PUBLIC, rules(1), rules(2)] {
            let ticket = issue_under(&engine, name, policy, now).unwrap();
            for other in names {
                let visit = Visit { name: other, ..SHOP };
                engine.note_served(&visit, policy, now);
                let opening = opening_at(&engine, &ticket, &visit, now).unwrap();
                assert_eq!(opening.key == ticket.issuing.key, name == other);
                assert_eq!(opening.policy, policy);
            }
        }
    }
}

#[test]
fn a_ticket_that_says_another_policy_than_its_own_has_another_key() {
    let (engine, now) = (Engine::new(alone()).unwrap(), now());
    let [one, other] =
        [rules(1), rules(2)].map(|policy| issue_under(&engine, SHOP.name, policy, now).unwrap());
    let forged = Ticket { issuing: other.issuing.clone(), vector: one.vector };
    engine.note_served(&SHOP, rules(2), now);
    let opening = opening(&engine, &forged, now).unwrap();
    assert_ne!(opening.key, one.issuing.key);
}

#[test]
fn a_ticket_is_opened_where_its_policy_served_the_name_last_and_nowhere_else() {
    let (place, now) = (Place::new(), now());
    let (engine, other) = (place.engine(), place.engine());
    let ticket = |policy| issue_under(&engine, SHOP.name, policy, now).unwrap();
    let (public, verified) = (ticket(Policy::PUBLIC), ticket(rules(1)));
    assert!(opening(&other, &public, now).is_some(), "there are no rules yet");
    engine.note_served(&SHOP, rules(1), now);
    assert!(opening(&other, &public, now).is_none(), "known to the node");
    assert!(opening(&other, &verified, now).is_some());
    let elsewhere = Visit { accepting: rules(3), ..SHOP };
    assert!(opening_at(&other, &public, &elsewhere, now).is_none(), "not known at this listener");
    engine.note_served(&elsewhere, Policy::PUBLIC, now);
    assert!(opening_at(&other, &public, &elsewhere, now).is_some());
    assert!(opening(&other, &public, now).is_none(), "listeners are told apart");
    other.note_mixed(&SHOP, Policy::PUBLIC, now);
    assert!(opening(&engine, &verified, now).is_none(), "several serve it");
    assert!(place.engine().has_rules(), "also for those that come later");
}

#[test]
fn a_name_counts_where_this_program_served_it_and_the_node_knows_nothing_else() {
    let (engine, now) = (Place::new().engine(), now());
    let (policy, other) = (rules(1), rules(2));
    let at_another_port = Visit { listener: [1; 18], ..SHOP };
    engine.note_served(&at_another_port, policy, now);
    assert!(engine.may_resume(&SHOP, policy, now), "FTP has a new port for each transfer");
    assert!(!engine.may_resume(&SHOP, other, now));
    engine.note_served(&SHOP, other, now);
    assert!(!engine.may_resume(&SHOP, policy, now), "the place itself counts first");
    assert!(engine.may_resume(&at_another_port, policy, now));
    for judged in [Judged::Unknown, Judged::WhereSeen { context: 2 }] {
        let visit = Visit { judged, ..SHOP };
        assert!(!engine.may_resume(&visit, other, now), "as a program that was started anew");
    }
    let judged = Judged::Always { context: 3 };
    assert!(engine.may_resume(&Visit { judged, ..SHOP }, other, now), "the node knows enough");
    let elsewhere = Visit { judged, listener: [2; 18], ..SHOP };
    assert!(!engine.may_resume(&elsewhere, other, now), "nobody knows it there");
    engine.note_mixed(&SHOP, other, now);
    assert!(!engine.may_resume(&SHOP, other, now));
    assert!(!engine.may_resume(&at_another_port, other, now), "it is not judged any more");
}

#[test]
fn what_was_served_before_there_were_rules_resumes_under_them_and_nothing_else() {
    let (engine, now) = (Engine::new(alone()).unwrap(), now());
    engine.note_served(&SHOP, Policy::PUBLIC, now);
    assert!(!engine.has_rules());
    engine.note_rules();
    assert!(engine.may_resume(&SHOP, Policy::PUBLIC, now));
    let another = Visit { name: b"other.example", ..SHOP };
    assert!(!engine.may_resume(&another, Policy::PUBLIC, now), "nothing is known of it");
    engine.note_served(&another, Policy::PUBLIC, now);
    assert!(engine.may_resume(&another, Policy::PUBLIC, now));
}

#[test]
fn without_binding_every_name_opens_every_ticket() {
    let mut config = alone();
    config.resumption.bind = Bind::Off;
    let (engine, now) = (Engine::new(config).unwrap(), now());
    let ticket = issue(&engine, now);
    let visit = Visit { name: b"other.example", accepting: rules(1), ..SHOP };
    assert_eq!(opening_at(&engine, &ticket, &visit, now).unwrap().key, ticket.issuing.key);
}

#[test]
fn a_throw_away_key_never_opens() {
    let (engine, now) = (Engine::new(alone()).unwrap(), now());
    let throw_away = || Engine::throw_away_key(crate::sys::random).unwrap();
    let ticket = Ticket { issuing: throw_away(), vector: [0; 16] };
    assert!(opening(&engine, &ticket, now).is_none());
    assert_ne!(throw_away(), ticket.issuing);
}

#[test]
fn a_connection_that_is_older_than_a_revocation_or_a_flush_gets_no_ticket() {
    type Request = fn(&Engine) -> crate::error::Result<()>;
    let requests: [Request; 2] = [|engine| engine.revoke_keys(None), Engine::flush_sessions];
    for request in requests {
        let (engine, began) = (Engine::new(alone()).unwrap(), now());
        let asks = |began, now| engine.issuing_key(SHOP.name, Policy::PUBLIC, began, now);
        let before = UnixMillis(began.0 - 1);
        assert!(asks(before, began).is_some());
        request(&engine).unwrap();
        let later = began + seconds(60);
        assert!(asks(before, later).is_none());
        assert!(asks(later, later).is_some());
    }
}

#[test]
fn a_ticket_ends_with_its_family_whatever_its_session_says() {
    let (engine, now) = (Engine::new(alone()).unwrap(), now());
    let family = engine.new_family(now);
    let renewed = now + HOUR * 11;
    engine.note_served(&SHOP, rules(1), now);
    let issuing = engine.issuing_key(SHOP.name, rules(1), renewed, renewed).unwrap();
    let vector = issuing.key.vector(Some(family), &[9; 16]);
    let ticket = Ticket { issuing, vector };
    assert_eq!(opening(&engine, &ticket, renewed).unwrap().family, Some(family));
    assert!(opening(&engine, &ticket, now + HOUR * 12).is_some(), "its last second counts");
    assert!(opening(&engine, &ticket, now + HOUR * 12 + seconds(1)).is_none());
    assert_eq!(engine.counters().value(Counter::TicketsExpired), 1);
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
