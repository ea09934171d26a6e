//! What each command shows and does, on the memory of a server that this process plays.

use std::fs;
use std::path::Path;

use crate::support::{Place, Ran, run, tool};
use serde_json::Value;
use tlsresume::clock;
use tlsresume::engine::{NewSession, Policy};

const LOOKING: [&[&str]; 3] = [&["status"], &["keys", "list"], &["metrics"]];
const CHANGING: [&[&str]; 3] =
    [&["keys", "rotate"], &["keys", "revoke", "--all"], &["sessions", "flush"]];

fn keys(place: &Place) -> Vec<Value> {
    place.run(&["--json", "keys", "list"]).json().as_array().expect("a list").clone()
}

fn has(key: &Value, field: &str, value: &str) -> bool {
    key[field] == value
}

#[test]
fn rotation_shows_a_pending_key() {
    let place = Place::new();
    let server = place.server();
    let before = keys(&place);
    let said = place.run(&["keys", "rotate"]).printed();
    let known = |name: &Value| before.iter().any(|key| key["name"] == *name);
    let after = keys(&place);
    let new: Vec<_> = after.iter().filter(|key| !known(&key["name"])).collect();
    assert_eq!(new.len(), 1, "{new:?}");
    assert!(has(new[0], "state", "pending") && has(new[0], "kind", "ticket"), "{new:?}");
    let name = new[0]["name"].as_str().expect("text");
    assert!(said.contains(&format!("\n{name} encrypts from ")), "{said}");
    assert!(server.keys(clock::now()).iter().any(|key| key.name.to_string() == name));
}

#[test]
fn a_revoked_key_is_gone_from_the_servers_ring() {
    let place = Place::new();
    let server = place.server();
    let active = keys(&place).into_iter().find(|key| has(key, "state", "active"));
    let name = active.expect("one encrypts")["name"].as_str().expect("text").to_owned();
    let done = place.run(&["--json", "keys", "revoke", &name]).json();
    assert_eq!(done["revoked"], serde_json::json!([name]));
    assert!(server.keys(clock::now()).iter().all(|key| key.name.to_string() != name));
    assert_eq!(server.report(clock::now()).keys.revoked, 1);
    let again = place.run(&["keys", "revoke", &name]).complaint();
    assert!(again.contains("no key of that name is in the ring"), "{again}");
}

#[test]
fn revoking_all_replaces_every_key() {
    let place = Place::new();
    let server = place.server();
    let before = server.keys(clock::now());
    let done = place.run(&["--json", "keys", "revoke", "--all"]).json();
    assert_eq!(done["revoked"].as_array().map(Vec::len), Some(before.len()));
    let after = server.keys(clock::now());
    assert!(!after.is_empty());
    assert!(after.iter().all(|key| before.iter().all(|old| old.name != key.name)));
}

#[test]
fn a_flush_forgets_the_stored_sessions() {
    let place = Place::new();
    let (server, now) = (place.server(), clock::now());
    let id = server.new_session_id(server.new_family(now), now).expect("there is an id key");
    let session = NewSession {
        id: &id,
        name: b"shop.example",
        policy: Policy::PUBLIC,
        began: now,
        authenticated: None,
        expires: now + std::time::Duration::from_secs(60),
        value: b"session",
        note: 0,
    };
    server.keep_session(&session, now, std::time::Duration::from_secs(20));
    assert_eq!(place.run(&["--json", "status"]).json()["sessions_live"], 1);
    assert_eq!(place.run(&["--json", "sessions", "flush"]).json()["forgotten"], 1);
    assert_eq!(server.report(clock::now()).sessions_live, 0);
}

#[test]
fn a_list_of_keys_has_a_line_for_each_with_times_in_utc() {
    let place = Place::new();
    let server = place.server();
    let text = place.run(&["keys", "list"]).printed();
    let keys = server.keys(clock::now());
    assert_eq!(text.lines().count(), 1 + keys.len(), "{text}");
    for key in keys {
        let line = text.lines().find(|line| line.starts_with(&key.name.to_string()));
        let cells: Vec<_> = line.expect("each key has one").split_whitespace().collect();
        assert_eq!(cells.len(), 8, "{cells:?}");
        let is_time = |cell: &&str| cell.len() == 20 && cell.ends_with('Z') && &cell[10..11] == "T";
        assert!(cells[3..7].iter().all(is_time), "{cells:?}");
        assert_eq!(cells[7], "own");
    }
}

#[test]
fn keys_from_files_are_shown_as_imported_and_never_end() {
    let place = Place::new();
    let file = place.file("key", Vec::from_iter(200..248));
    let mut config = place.config();
    config.keys.source = tlsresume::config::KeySource::Files;
    config.keys.files = vec![file];
    let _server = tlsresume::engine::Engine::new(config).expect("a key file");
    let keys = keys(&place);
    let key = keys.iter().find(|key| has(key, "kind", "ticket")).expect("the file's");
    assert_eq!((&key["imported"], &key["accept_until"]), (&Value::Bool(true), &Value::Null));
    assert_eq!(key["name"], hex::encode(Vec::from_iter(200..216)));
    let text = place.run(&["keys", "list"]).printed();
    assert!(text.contains("never") && text.contains("imported"), "{text}");
}

#[test]
fn json_output_parses_and_has_the_same_numbers() {
    let place = Place::new();
    let server = place.server();
    let report = server.report(clock::now());
    let status = place.run(&["--json", "status"]).json();
    assert_eq!(status["realm"], "default");
    assert_eq!(status["memory"], place.memory().to_str().expect("UTF-8"));
    let census = report.keys;
    let states = [
        ("pending", census.pending),
        ("active", census.active),
        ("accepting", census.accepting),
        ("revoked", census.revoked),
    ];
    for (state, count) in states {
        assert_eq!(status["keys"][state], count, "{state}");
    }
    let usage = report.usage;
    for (state, count) in [("used", usage.used), ("free", usage.free), ("overhead", usage.overhead)]
    {
        assert_eq!(status["store_bytes"][state], count, "{state}");
    }
    let rotations = report.counter(tlsresume::stats::Counter::Rotations);
    assert_eq!(status["counters"]["rotations"], rotations);

    let text = place.run(&["status"]).printed();
    let line = format!("keys      {} pending, {} active", census.pending, census.active);
    assert!(text.contains(&line), "{text}");
    assert!(text.contains(&format!("\n\nrotations  {rotations}\n")), "{text}");

    let metrics = place.run(&["metrics"]).printed();
    assert!(metrics.contains(&format!("\ntlsresume_rotations_total {rotations}\n")), "{metrics}");
    let series = place.run(&["--json", "metrics"]).json();
    assert_eq!(series["tlsresume_rotations_total"], rotations);
    let samples = metrics.lines().filter(|line| !line.starts_with('#')).count();
    assert_eq!(series.as_object().map(serde_json::Map::len), Some(samples));
}

#[test]
fn looking_creates_no_file() {
    let place = Place::new();
    for arguments in LOOKING.into_iter().chain(CHANGING) {
        let said = place.run(arguments).complaint_with(2);
        assert!(said.contains("start a server with this memory.path first"), "{said}");
        assert_eq!(place.files(), Vec::<String>::new(), "{arguments:?}");
    }
}

#[test]
fn looking_leaves_the_memory_as_it_was() {
    let place = Place::new();
    drop(place.server());
    let before = fs::read(place.memory()).expect("readable");
    for arguments in LOOKING {
        place.run(arguments).printed();
        // Also with settings by which other keys are due.
        run(place.command(arguments).env("TLSRESUME_KEYS_AHEAD", "16")).printed();
        run(place.command(arguments).env("TLSRESUME_MEMORY_SIZE", "1MiB")).printed();
    }
    assert!(fs::read(place.memory()).expect("readable") == before, "a byte changed");
    assert_eq!(place.files(), ["memory"]);
}

#[test]
fn without_a_path_every_command_says_what_to_set() {
    for arguments in LOOKING.into_iter().chain(CHANGING).chain([&["agent"][..]]) {
        let said = run(tool().args(arguments)).complaint();
        assert!(said.contains("memory.path is not set"), "{said}");
        assert!(said.contains("TLSRESUME_CONFIG") && said.contains("TLSRESUME_MEMORY_PATH"));
    }
}

#[test]
fn a_file_of_another_realm_is_refused_with_the_remedy() {
    let place = Place::new();
    let server = place.server();
    let before = server.keys(clock::now());
    for arguments in LOOKING.into_iter().chain(CHANGING).chain([&["agent"][..]]) {
        let said = run(place.command(arguments).env("TLSRESUME_REALM", "other")).complaint();
        assert!(said.contains(place.memory().to_str().expect("UTF-8")), "{said}");
        assert!(said.contains("belongs to another realm; "), "{said}");
    }
    assert_eq!(server.keys(clock::now()), before);
}

#[test]
fn a_file_of_something_else_is_refused_and_left_as_it_was() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    place.file("memory", "of something else");
    fs::set_permissions(place.memory(), fs::Permissions::from_mode(0o600)).expect("ours");
    for arguments in LOOKING.into_iter().chain(CHANGING).chain([&["agent"][..]]) {
        let said = place.run(arguments).complaint();
        assert!(said.contains("is not a libtlsresume file"), "{said}");
    }
    assert_eq!(fs::read(place.memory()).expect("readable"), b"of something else");
}

#[test]
fn the_option_names_the_configuration_before_the_variable_does() {
    let place = Place::new();
    let _server = place.server();
    let config = |name, text: &str| place.file(name, text).to_str().expect("UTF-8").to_owned();
    let right = config("right", &format!("memory.path = {:?}", place.memory()));
    let wrong = config("wrong", "memory.pth = \"/nowhere\"");
    run(tool().env("TLSRESUME_CONFIG", &right).arg("status")).printed();
    run(tool().env("TLSRESUME_CONFIG", &wrong).args(["--config", &right, "status"])).printed();
    run(tool().env("TLSRESUME_CONFIG", &wrong).args(["status", "--config", &right])).printed();
    let said = run(tool().env("TLSRESUME_CONFIG", &wrong).arg("status")).complaint();
    assert!(said.contains("wrong:1: "), "{said}");
}

#[test]
fn the_log_level_of_the_option_is_that_of_the_library() {
    let place = Place::new();
    let agent = |level| {
        let mut command = place.command(&["--log-level", level, "agent"]);
        // Refused after the memory was opened, so that it ends.
        run(command.env("TLSRESUME_REALM", "other"))
    };
    drop(place.server());
    assert!(agent("info").err.contains("tlsresume: info: "));
    assert!(!agent("warn").err.contains("tlsresume: info: "));
    assert_eq!(place.run(&["--log-level", "loud", "status"]).status, Some(1));
}

#[test]
fn arguments_that_make_no_sense_end_with_status_1() {
    let place = Place::new();
    let name = "0".repeat(32);
    let cases: [&[&str]; 7] = [
        &[],
        &["no-such-command"],
        &["keys", "revoke"],
        &["keys", "revoke", "short"],
        &["keys", "revoke", &name, "--all"],
        &["config", "check"],
        &["status", "--no-such-option"],
    ];
    for arguments in cases {
        let Ran { status, out, err } = place.run(arguments);
        assert_eq!((status, out.as_str()), (Some(1), ""), "{arguments:?}");
        assert!(!err.is_empty(), "{arguments:?}");
    }
    assert!(tool_prints(&["--help"]).contains("Usage: tlsresumectl"));
    assert!(tool_prints(&["--version"]).starts_with("tlsresumectl "));
}

fn tool_prints(arguments: &[&str]) -> String {
    run(tool().args(arguments)).printed()
}

fn check(file: &Path, json: bool) -> Ran {
    let mut command = tool();
    if json {
        command.arg("--json");
    }
    run(command.args(["config", "check"]).arg(file))
}

#[test]
fn a_configuration_without_mistakes_is_shown_where_it_differs_from_the_defaults() {
    let place = Place::new();
    let file = place.file("config", "realm = \"shop\"\n[keys]\nrotate = \"30m\"\nahead = 4\n");
    assert_eq!(check(&file, false).printed(), "ok\nrealm = \"shop\"\nkeys.rotate = \"30m\"\n");
    let shown = check(&file, true).json();
    let expected = serde_json::json!(
        { "ok": true, "settings": { "realm": "shop", "keys.rotate": "30m" } }
    );
    assert_eq!(shown, expected);
    let over = run(tool().env("TLSRESUME_REALM", "b").args(["config", "check"]).arg(&file));
    assert!(over.printed().contains("realm = \"b\"\n"), "variables override");
    assert_eq!(check(&place.file("empty", ""), false).printed(), "ok\n");
}

#[test]
fn a_mistake_is_told_as_the_library_tells_it() {
    let place = Place::new();
    let texts = ["memory.pth = 1", "keys.rotate = \"1y\"", "realm", "keys.source = \"files\""];
    for (index, text) in texts.into_iter().enumerate() {
        let file = place.file(&format!("{index}"), text);
        let origin = file.to_str().expect("UTF-8");
        let said = tlsresume::config::Config::from_toml(text, origin, &|_| None);
        let expected = format!("tlsresumectl: {}\n", said.expect_err("is a mistake"));
        assert_eq!(check(&file, false).complaint(), expected);
        assert_eq!(check(&file, true).complaint(), expected);
    }
    let said = check(&place.path("missing"), false).complaint();
    assert!(said.contains("missing: open the configuration: No such file"), "{said}");
    let text = "keys.source = \"files\"\nkeys.files = [\"/no/such/key\"]";
    let said = check(&place.file("files", text), false).complaint();
    assert!(said.contains("/no/such/key: read: No such file"), "{said}");
}
