//! Keys from files and from a secret; what a configuration may not ask for.

use std::path::PathBuf;

use super::support::*;
use crate::config::{Config, KeyFormat, KeySource, Peers};
use crate::engine::Engine;
use crate::ring::file::{self, Format};
use crate::ring::{Digest, KeyName, TicketKey};
use crate::secret::Secret;

fn key(number: u8) -> TicketKey {
    let secret = |byte: u8| Secret::new(&[byte; 32]);
    TicketKey::new(KeyName([number; 16]), secret(number), secret(number + 100), Digest::Sha256)
        .expect("fits")
}

fn written(format: Format, keys: &[u8]) -> Vec<u8> {
    let keys: Vec<_> = keys.iter().map(|number| key(*number)).collect();
    file::write(format, &keys, (now() - HOUR, now() + HOUR * 100)).unwrap().to_vec()
}

fn from_files(place: &Place, format: KeyFormat, files: Vec<PathBuf>) -> Config {
    let mut config = place.config();
    (config.keys.source, config.keys.format, config.keys.files) = (KeySource::Files, format, files);
    config
}

fn is(ticket: &Ticket, number: u8) -> bool {
    *ticket.issuing.key.key() == key(number)
}

fn knows(engine: &Engine, number: u8) -> bool {
    opens_plain(engine, &key(number), now())
}

#[test]
fn of_several_nginx_files_the_first_encrypts_and_all_open_for_good() {
    let place = Place::new();
    let files = [3, 1, 2]
        .map(|number| place.file(&format!("{number}.key"), &written(Format::Nginx, &[number])));
    let engine = Engine::new(from_files(&place, KeyFormat::Nginx, files.to_vec())).unwrap();
    for later in [0, 10, 1000, 100_000] {
        let now = now() + HOUR * later;
        assert!(is(&issue(&engine, now), 3));
        assert!([1, 2, 3].iter().all(|number| opens_plain(&engine, &key(*number), now)));
    }
    assert!(
        engine.new_session_id(engine.new_family(now()), now()).is_some(),
        "session ids have a key of their own"
    );
}

#[test]
fn the_last_but_one_key_of_a_haproxy_file_encrypts() {
    let place = Place::new();
    // The current key, the next one, then older ones.
    let file = place.file("keys", &written(Format::Haproxy, &[5, 6, 4]));
    let engine = Engine::new(from_files(&place, KeyFormat::Haproxy, vec![file])).unwrap();
    assert!(is(&issue(&engine, now()), 5));
    assert!([4, 5, 6].iter().all(|number| knows(&engine, *number)));
}

#[test]
fn each_format_encrypts_with_the_key_that_its_server_encrypts_with() {
    for (format, keys) in [
        (KeyFormat::Dnsdist, &[7, 8, 9][..]),
        (KeyFormat::Openssl, &[7]),
        (KeyFormat::Nghttpx, &[7]),
        (KeyFormat::Nginx, &[7]),
    ] {
        let place = Place::new();
        let data = written(format.to_string().parse().unwrap(), keys);
        let file = place.file("keys", &data);
        let engine = Engine::new(from_files(&place, format, vec![file])).unwrap();
        assert!(is(&issue(&engine, now()), 7), "{format}");
        assert!(keys.iter().all(|number| knows(&engine, *number)), "{format}");
    }
}

#[test]
fn a_process_that_starts_with_other_files_drops_the_keys_of_the_former() {
    let place = Place::new();
    let file = |number| {
        let name = format!("{number}.key");
        vec![place.file(&name, &written(Format::Nginx, &[number]))]
    };
    let first = Engine::new(from_files(&place, KeyFormat::Nginx, file(1))).unwrap();
    let second = Engine::new(from_files(&place, KeyFormat::Nginx, file(2))).unwrap();
    assert!(!knows(&second, 1) && knows(&second, 2));
    assert!(knows(&first, 2), "all processes have the keys of the one that read last");
}

#[test]
fn keys_from_files_replace_generated_ones_that_the_memory_still_holds() {
    let place = Place::new();
    drop(place.engine());
    let file = place.file("1.key", &written(Format::Nginx, &[1]));
    let engine = Engine::new(from_files(&place, KeyFormat::Nginx, vec![file])).unwrap();
    for later in [0, 1, 5, 20] {
        assert!(is(&issue(&engine, now() + HOUR * later), 1), "{later} h later");
    }
    drop(engine);
    let generated = place.engine();
    let ticket = issue(&generated, now());
    assert!(!is(&ticket, 1));
    assert!(!knows(&generated, 1), "it would be accepted for ever");
}

#[test]
fn key_files_that_are_missing_or_wrong_are_errors_that_name_them() {
    let place = Place::new();
    let cases = [
        place.path("missing"),
        place.file("empty", b""),
        place.file("wrong", &[7; 47]),
        place.file("long", &[7; 70_000]),
        PathBuf::from("/dev/null"),
    ];
    for path in cases {
        let config = from_files(&place, KeyFormat::Nginx, vec![path.clone()]);
        let error = Engine::new(config).err().expect("an error").to_string();
        assert!(error.contains(path.to_str().unwrap()), "{error}");
    }
}

#[test]
fn keys_from_files_cannot_be_rotated() {
    let place = Place::new();
    let file = place.file("1.key", &written(Format::Nginx, &[1]));
    let engine = Engine::new(from_files(&place, KeyFormat::Nginx, vec![file])).unwrap();
    assert!(engine.rotate_keys().is_err());
    assert!(is(&issue(&engine, now()), 1));
}

/// Two hosts: no common memory, one secret.
fn derived_pair(place: &Place) -> [Engine; 2] {
    let file = place
        .file("secret", b"0123456789abcdef0123456789abcdef\nan older secret, which still opens\n");
    [(), ()].map(|()| {
        let mut config = alone();
        config.keys.source = KeySource::Derived;
        config.cluster.secret_file = Some(file.clone());
        Engine::new(config).unwrap()
    })
}

#[test]
fn derived_keys_agree_on_hosts_that_share_a_secret_alone_for_as_long_as_they_run() {
    let place = Place::new();
    let [first, second] = derived_pair(&place);
    let start = now();
    let mut tickets = Vec::new();
    for round in 0..100u32 {
        let now = start + seconds(1777) * round;
        let ticket = issue(&first, now);
        assert_eq!(issue(&second, now), ticket);
        tickets.push((ticket, now));
        tickets.retain(|(_, issued)| now < *issued + HOUR * 12);
        for (ticket, issued) in &tickets {
            assert!(opens(&second, ticket, now), "issued at {issued:?}, lost at {now:?}");
        }
    }
    let names: std::collections::BTreeSet<_> =
        tickets.iter().map(|(ticket, _)| ticket.name()).collect();
    assert!(names.len() >= 12, "one each hour: {}", names.len());
}

#[test]
fn derived_session_ids_are_known_on_every_host() {
    let place = Place::new();
    let [first, second] = derived_pair(&place);
    let id = first.new_session_id(first.new_family(now()), now()).unwrap();
    let lookup = crate::engine::Lookup::Keep;
    assert!(second.find_session(&id, &SHOP, lookup, now()).is_none());
    let counted = |counter| second.counters().value(counter);
    assert_eq!(counted(crate::stats::Counter::SessionsForgedId), 0);
    assert_eq!(counted(crate::stats::Counter::SessionsAbsent), 1);
}

#[test]
fn a_derived_ring_that_a_restarted_process_finds_is_brought_up_to_date() {
    let place = Place::new();
    let file = place.file("secret", &[b'x'; 40]);
    let engine = || {
        let mut config = place.config();
        config.keys.source = KeySource::Derived;
        config.cluster.secret_file = Some(file.clone());
        Engine::new(config).unwrap()
    };
    drop(engine());
    let later = now() + HOUR * 30;
    let (restarted, [fresh, _]) = (engine(), derived_pair(&Place::new()));
    assert_ne!(issue(&restarted, later).name(), issue(&fresh, later).name(), "another secret");
    let ticket = issue(&restarted, later);
    assert!(opens(&restarted, &ticket, later + HOUR * 12 - seconds(1)));
}

#[test]
fn a_secret_that_is_missing_or_too_short_is_an_error_that_says_so() {
    let place = Place::new();
    let mut config = alone();
    config.keys.source = KeySource::Derived;
    let error = Engine::new(config.clone()).err().expect("no file").to_string();
    assert!(error.contains("cluster.secret_file"), "{error}");
    config.cluster.secret_file = Some(place.file("short", b"0123456789abcdef0123456789abcde\n"));
    let error = Engine::new(config.clone()).err().expect("too short").to_string();
    assert!(error.contains("31 bytes") && error.contains("at least 32"), "{error}");
    config.cluster.secret_file = Some(place.path("missing"));
    assert!(Engine::new(config).is_err());
}

#[test]
fn transports_that_are_not_there_yet_are_refused_with_the_key_that_asks_for_one() {
    let with = |change: fn(&mut Config)| {
        let mut config = alone();
        change(&mut config);
        Engine::new(config).err().expect("is refused").to_string()
    };
    for (key, error) in [
        ("memcached.servers", with(|config| config.memcached.servers = vec!["host:1".into()])),
        ("peers", with(|config| config.peers.listen = "127.0.0.1:7557".parse().ok())),
        ("peers", with(|config| config.peers.members = vec!["host:7557".into()])),
        ("peers", with(|config| config.peers.multicast = "239.0.0.1:7557".parse().ok())),
    ] {
        assert!(
            error.starts_with(&format!("{key}: this release has no such transport")),
            "{error}"
        );
    }
    let mut config = alone();
    config.peers = Peers { ttl: 3, ..Peers::default() };
    assert!(Engine::new(config).is_ok(), "what turns nothing on is fine");
}
