//! Programs that are no servers: what they may make, and what they must leave alone.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::support::*;
use crate::config::{Config, KeySource};
use crate::engine::{Engine, KeyKind, KeyState};

fn refusal(made: crate::error::Result<Engine>) -> String {
    made.err().expect("is refused").to_string()
}

/// The generation of the ring in shared memory: moves when anybody changes it.
fn generation(engine: &Engine) -> u64 {
    engine.store.ring_generation()
}

#[test]
fn looking_changes_no_ring_although_keys_are_due() {
    let place = Place::new();
    let server = place.engine();
    let visitor = Engine::existing(place.config()).unwrap();
    let before = generation(&server);
    let later = now() + HOUR * 30;
    assert!(visitor.report(later).keys.pending == 0 && !visitor.keys(later).is_empty());
    assert!(!visitor.metrics(later).is_empty());
    assert_eq!(generation(&server), before);
    issue(&server, later);
    assert_ne!(generation(&server), before, "they were due");
}

#[test]
fn looking_with_other_settings_than_the_server_changes_no_ring() {
    let place = Place::new();
    let secret = place.file("secret", &[b'x'; 40]);
    let server = place.engine();
    let before = generation(&server);
    let mut config = place.config();
    config.keys.source = KeySource::Derived;
    config.cluster.secret_file = Some(secret);
    let visitor = Engine::existing(config).unwrap();
    assert_eq!(visitor.keys(now()), server.keys(now()));
    assert_eq!(generation(&server), before);
}

#[test]
fn what_a_visitor_asks_for_reaches_the_servers() {
    let (place, now) = (Place::new(), now());
    let server = place.engine();
    let visitor = Engine::existing(place.config()).unwrap();
    let ticket = issue(&server, now);
    visitor.rotate_keys().unwrap();
    assert_eq!(server.keys(now), visitor.keys(now));
    visitor.revoke_keys(Some(ticket.name())).unwrap();
    assert!(opening(&server, &ticket, now).is_none());
    visitor.revoke_keys(None).unwrap();
    visitor.flush_sessions().unwrap();
    assert!(opens(&server, &issue(&server, now), now));
}

#[test]
fn what_is_not_there_is_not_made() {
    let place = Place::new();
    let error = refusal(Engine::existing(place.config()));
    assert!(error.contains("start a server with this memory.path first"), "{error}");
    assert!(!place.path("memory").exists());
    fs::write(place.path("memory"), b"").unwrap();
    fs::set_permissions(place.path("memory"), fs::Permissions::from_mode(0o600)).unwrap();
    let error = refusal(Engine::existing(place.config()));
    assert!(error.contains("start a server with this memory.path first"), "{error}");
    assert_eq!(fs::metadata(place.path("memory")).unwrap().len(), 0);
}

#[test]
fn memory_without_a_path_is_refused_with_what_to_set() {
    for made in [Engine::existing(alone()), Engine::at_path(alone())] {
        let error = refusal(made);
        assert!(error.contains("TLSRESUME_MEMORY_PATH"), "{error}");
    }
}

#[test]
fn memory_of_another_realm_is_refused_and_left_as_it_was() {
    let place = Place::new();
    let server = place.engine();
    let before = generation(&server);
    let other = || Config { realm: "other".into(), ..place.config() };
    let error = refusal(Engine::existing(other()));
    assert!(error.contains("belongs to another realm; set realm"), "{error}");
    assert!(refusal(Engine::at_path(other())).contains("belongs to another realm"));
    assert_eq!(generation(&server), before);
}

#[test]
fn memory_of_another_size_is_used_as_it_is() {
    let place = Place::new();
    let server = place.engine();
    for make in [Engine::existing, Engine::at_path] {
        let mut config = place.config();
        config.memory.size *= 2;
        let visitor = make(config).unwrap();
        visitor.rotate_keys().unwrap();
        assert_eq!(server.keys(now()), visitor.keys(now()));
    }
}

#[test]
fn memory_that_does_not_fit_is_refused_by_visitors_and_replaced_by_agents() {
    let place = Place::new();
    drop(place.engine());
    let file = fs::File::options().write(true).open(place.path("memory")).unwrap();
    file.set_len(300_000).unwrap();
    let error = refusal(Engine::existing(place.config()));
    assert!(error.contains("is cut short; the next server that starts replaces it"), "{error}");
    assert_eq!(fs::metadata(place.path("memory")).unwrap().len(), 300_000);
    let agent = Engine::at_path(place.config()).unwrap();
    assert_eq!(place.engine().keys(now()), agent.keys(now()));
}

#[test]
fn an_agent_that_cannot_have_the_memory_does_not_work_in_its_own() {
    let place = Place::new();
    let file = place.file("memory", b"of something else");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let error = refusal(Engine::at_path(place.config()));
    assert!(error.contains("is not a libtlsresume file"), "{error}");
    assert_eq!(fs::read(file).unwrap(), b"of something else");
}

#[test]
fn the_states_of_keys_are_those_of_the_census() {
    let engine = Engine::new(alone()).unwrap();
    let later = now() + HOUR * 3 + seconds(70);
    issue(&engine, later);
    engine.rotate_keys().unwrap();
    for hours in [0, 1, 2, 5, 20, 40] {
        let now = later + HOUR * hours;
        let keys = engine.keys(now);
        let in_state = |state| {
            let tickets = keys.iter().filter(|key| key.kind == KeyKind::Ticket);
            tickets.filter(|key| key.state == state).count() as u64
        };
        let census = engine.report(now).keys;
        assert_eq!(in_state(KeyState::Pending), census.pending);
        assert_eq!(in_state(KeyState::Active), census.active);
        assert_eq!(in_state(KeyState::Accepting), census.accepting);
        let ids = keys.iter().filter(|key| key.kind == KeyKind::SessionId);
        assert_eq!(ids.filter(|key| key.state == KeyState::Active).count(), 1);
    }
}

#[test]
fn a_check_says_what_the_start_would_say() {
    let place = Place::new();
    let mut config = place.config();
    assert!(Engine::check(&config).is_ok());
    assert!(!place.path("memory").exists());
    config.keys.source = KeySource::Files;
    config.keys.files = vec![place.path("missing")];
    let said = Engine::check(&config).expect_err("no such file").to_string();
    assert_eq!(said, refusal(Engine::new(config.clone())));
    config.keys.files = vec![];
    config.redis.url = vec!["redis://host".into()];
    let said = Engine::check(&config).expect_err("no transports").to_string();
    assert_eq!(said, refusal(Engine::new(config)));
}
