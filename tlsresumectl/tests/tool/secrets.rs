//! No command prints key material, in whatever form.

use std::fmt::Write;

use crate::support::{Place, run, tool};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use tlsresume::ring::{Material, wire};
use tlsresume::store::Store;

/// Every secret of the ring in this memory.
fn secrets(place: &Place) -> Vec<Vec<u8>> {
    let store = Store::open_existing(&place.memory()).expect("a server's memory");
    let bytes = store.read_ring().1.expect("a ring");
    let ring = wire::decode(&bytes).expect("a whole one");
    ring.records()
        .flat_map(|record| match &record.material {
            Material::Ticket(key) => vec![key.aes().expose().to_vec(), key.mac().expose().to_vec()],
            Material::SessionId(key) => vec![key.secret().to_vec()],
        })
        .collect()
}

/// The ways in which a secret might show, of any 8 bytes of it.
fn shapes(secret: &[u8]) -> Vec<Vec<u8>> {
    let window = |part: &[u8]| {
        let mut list = String::new();
        part.iter().for_each(|byte| write!(list, "{byte}, ").expect("a text"));
        vec![
            part.to_vec(),
            hex::encode(part).into_bytes(),
            hex::encode_upper(part).into_bytes(),
            list.trim_end_matches(", ").as_bytes().to_vec(),
            list.trim_end_matches(", ").replace(' ', "").into_bytes(),
        ]
    };
    // Base64 has three phases; 9 bytes from any of them show in whole characters.
    let coded = (0..3).flat_map(|phase| {
        let part = &secret[phase..phase + 9];
        [STANDARD_NO_PAD.encode(part).into_bytes(), URL_SAFE_NO_PAD.encode(part).into_bytes()]
    });
    secret.windows(8).flat_map(window).chain(coded).collect()
}

fn assert_hides(text: &str, secrets: &[Vec<u8>], what: &[&str]) {
    for shape in secrets.iter().flat_map(|secret| shapes(secret)) {
        let shows = text.as_bytes().windows(shape.len()).any(|part| part == shape);
        assert!(!shows, "{what:?} shows a secret");
    }
}

#[test]
fn a_secret_would_be_seen_in_each_of_these_forms() {
    let secret: Vec<u8> = (0..32).map(|index| index * 7 + 3).collect();
    let forms = [hex::encode(&secret), STANDARD_NO_PAD.encode(&secret), format!("{secret:?}")];
    for form in forms {
        let text = format!("key = {form}\n");
        let seen =
            std::panic::catch_unwind(|| assert_hides(&text, std::slice::from_ref(&secret), &[]));
        assert!(seen.is_err(), "{form}");
    }
}

#[test]
fn no_command_prints_key_material() {
    let place = Place::new();
    let secret_text = "a-cluster-secret-of-more-than-32-bytes";
    let secret_file = place.file("secret", secret_text);
    let config = format!(
        "memory.path = {:?}\nlog.level = \"trace\"\nkeys.source = \"derived\"\ncluster.secret_file = {secret_file:?}\n",
        place.memory()
    );
    let file = place.file("config", &config);
    let file = file.to_str().expect("UTF-8");
    let _server = place.server();
    let commands: [&[&str]; 11] = [
        &["status"],
        &["keys", "list"],
        &["keys", "rotate"],
        &["metrics"],
        &["--config", file, "status"],
        &["--config", file, "keys", "list"],
        &["--config", file, "keys", "rotate"],
        &["--config", file, "keys", "revoke", "--all"],
        &["config", "check", file],
        &["sessions", "flush"],
        &["keys", "revoke", "--all"],
    ];
    let mut known = vec![secret_text.as_bytes().to_vec()];
    for arguments in commands {
        for json in [&["--log-level", "trace"][..], &["--log-level", "trace", "--json"]] {
            known.extend(secrets(&place));
            let ran = place.run(&[json, arguments].concat());
            known.extend(secrets(&place));
            known.sort();
            known.dedup();
            assert_hides(&(ran.out + &ran.err), &known, arguments);
        }
    }
    assert!(known.len() > 20, "the ring has secrets");
    let agent = crate::agent::started(place.command(&["--log-level", "trace", "agent"]));
    assert_hides(&agent.transcript().to_string(), &secrets(&place), &["agent"]);
}

#[test]
fn a_check_hides_the_password_in_the_address_of_redis() {
    let place = Place::new();
    let secret = place.file("secret", "s".repeat(40));
    for url in ["redis://user:hunter2@host", "hunter2", "redis://user:hunter2@ho st"] {
        let text = format!("redis.url = {url:?}\ncluster.secret_file = {secret:?}\n");
        let file = place.file("config", &text);
        for json in [&["config", "check"][..], &["--json", "config", "check"]] {
            let ran = run(tool().args(json).arg(&file));
            let said = ran.out + &ran.err;
            assert!(!said.contains("hunter2"), "{said}");
        }
    }
}
