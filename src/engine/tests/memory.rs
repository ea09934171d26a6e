//! Private memory gives way to the file that it stands in for.

use super::support::*;
use crate::config::{Config, KeySource};
use crate::engine::{Engine, Policy};

/// A place, and the configuration of engines whose directory is missing.
fn missing(place: &Place) -> Config {
    let memory = small(Some(&place.path("directory").join("memory")));
    Config { memory, ..Config::default() }
}

/// The file is made by another server, and looked for.
fn found(engine: &Engine, place: &Place) -> Engine {
    std::fs::create_dir(place.path("directory")).unwrap();
    let other = Engine::new(engine.config().clone()).unwrap();
    engine.store.look_at_once();
    other
}

#[test]
fn an_instance_with_private_memory_goes_on_with_the_file_once_it_is_there() {
    let (place, now) = (Place::new(), now());
    let engine = Engine::new(missing(&place)).unwrap();
    let ticket = issue(&engine, now);
    engine.store.look_at_once();
    assert!(opens(&engine, &ticket, now), "there is none yet");
    let other = found(&engine, &place);
    assert!(!opens(&engine, &ticket, now), "a key that nobody else knows");
    assert_eq!(engine.store.node_id(), other.store.node_id());
    for (from, to) in [(&engine, &other), (&other, &engine)] {
        assert!(opens(to, &issue(from, now), now));
    }
}

#[test]
fn what_private_memory_refused_is_refused_when_the_file_takes_its_place() {
    let (place, now) = (Place::new(), now());
    let mut config = missing(&place);
    config.keys.source = KeySource::Derived;
    config.cluster.secret_file = Some(place.file("secret", &[b'x'; 40]));
    let engine = Engine::new(config).unwrap();
    let kept = issue(&engine, now);
    let family = engine.new_family(now);
    let id = engine.new_session_id(family, now).unwrap();
    let issuing = engine.issuing_key(SHOP.name, Policy::PUBLIC, now, now).unwrap();
    let vector = issuing.key.vector(Some(family), &[7; 16]);
    let removed = Ticket { issuing, vector };
    engine.forget_session(&id, now).unwrap();
    let other = found(&engine, &place);
    assert!(opens(&engine, &kept, now), "the key follows from the secret");
    assert!(opening(&engine, &removed, now).is_none(), "but what was removed stays so");
    assert!(engine.store.before().is_some());

    let second = Place::new();
    let engine = Engine::new(Config { memory: missing(&second).memory, ..other.config().clone() });
    let engine = engine.unwrap();
    engine.revoke_keys(None).unwrap();
    let other = found(&engine, &second);
    assert!(!opens(&engine, &kept, now) && !opens(&other, &kept, now), "on every process");
}

#[test]
fn another_realms_file_and_one_that_is_being_made_are_left_alone() {
    let (place, now) = (Place::new(), now());
    let engine = Engine::new(missing(&place)).unwrap();
    let ticket = issue(&engine, now);
    std::fs::create_dir(place.path("directory")).unwrap();
    let path = place.path("directory").join("memory");
    std::fs::write(&path, b"").unwrap();
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&path, private).unwrap();
    engine.store.look_at_once();
    assert!(opens(&engine, &ticket, now), "an empty file");
    let _other = Engine::new(Config { realm: "other".into(), ..engine.config().clone() }).unwrap();
    engine.store.look_at_once();
    assert!(opens(&engine, &ticket, now), "another realm's");
}
