//! `keys`: the ring, by names and times. No key is ever printed.

use serde_json::{Value, json};
use tlsresume::clock;
use tlsresume::engine::{Engine, KeyEntry, KeyKind, KeyState};
use tlsresume::ring::KeyName;

use crate::output::{Exit, Failure, Output, table};
use crate::reach::Reach;
use crate::time;

pub(crate) fn list(engine: &Engine, out: Output) -> Result<Exit, Failure> {
    let keys = engine.keys(clock::now());
    out.print(|| keys.iter().map(as_json).collect(), || as_table(&keys))
}

pub(crate) fn rotate(engine: &Engine, out: Output) -> Result<Exit, Failure> {
    let made = newly_made(engine, |engine| engine.rotate_keys())?;
    let reach = Reach::of_change(engine);
    let line =
        |key: &KeyEntry| format!("{} encrypts from {}\n", key.name, time::text(key.activates));
    let text = || {
        let head = format!("made {}: {}\n", keys_in_words(made.len()), reach.text());
        head + &made.iter().map(line).collect::<String>()
    };
    let json = || reach.add_to(json!({ "made": made.iter().map(as_json).collect::<Value>() }));
    out.print(json, text)?;
    Ok(reach.conclude())
}

/// One key, or with `None` all of them.
pub(crate) fn revoke(engine: &Engine, name: Option<KeyName>, out: Output) -> Result<Exit, Failure> {
    let before = engine.keys(clock::now());
    let made = newly_made(engine, |engine| engine.revoke_keys(name))?;
    let after = engine.keys(clock::now());
    let is_gone = |key: &&KeyEntry| after.iter().all(|other| other.name != key.name);
    let revoked: Vec<_> = before.iter().filter(is_gone).map(|key| key.name.to_string()).collect();
    let reach = Reach::of_change(engine);
    let text = || {
        let (gone, new) = (keys_in_words(revoked.len()), keys_in_words(made.len()));
        format!("revoked {gone}: {}\nmade {new} to take over", reach.text())
    };
    let json = || {
        let made: Value = made.iter().map(as_json).collect();
        reach.add_to(json!({ "revoked": revoked, "made": made }))
    };
    out.print(json, text)?;
    Ok(reach.conclude())
}

fn keys_in_words(count: usize) -> String {
    format!("{count} {}", if count == 1 { "key" } else { "keys" })
}

/// The ticket keys that are there after `change` and were not before.
fn newly_made(
    engine: &Engine,
    change: impl FnOnce(&Engine) -> tlsresume::error::Result<()>,
) -> tlsresume::error::Result<Vec<KeyEntry>> {
    let before = engine.keys(clock::now());
    change(engine)?;
    let is_new = |key: &KeyEntry| before.iter().all(|other| other.name != key.name);
    let mut keys = engine.keys(clock::now());
    keys.retain(|key| key.kind == KeyKind::Ticket && is_new(key));
    Ok(keys)
}

fn as_table(keys: &[KeyEntry]) -> String {
    let head = ["name", "kind", "state", "made", "activates", "retires", "accept_until", "origin"];
    let row = |key: &KeyEntry| {
        vec![
            key.name.to_string(),
            kind(key).to_owned(),
            state(key).to_owned(),
            time::text(key.made),
            time::text(key.activates),
            time::text(key.retires),
            time::text(key.accept_until),
            if key.imported { "imported" } else { "own" }.to_owned(),
        ]
    };
    let rows: Vec<_> =
        std::iter::once(head.map(str::to_owned).to_vec()).chain(keys.iter().map(row)).collect();
    table(&rows)
}

fn as_json(key: &KeyEntry) -> Value {
    json!({
        "name": key.name.to_string(),
        "kind": kind(key),
        "state": state(key),
        "made": time::json(key.made),
        "activates": time::json(key.activates),
        "retires": time::json(key.retires),
        "accept_until": time::json(key.accept_until),
        "imported": key.imported,
    })
}

fn kind(key: &KeyEntry) -> &'static str {
    match key.kind {
        KeyKind::Ticket => "ticket",
        KeyKind::SessionId => "session_id",
    }
}

fn state(key: &KeyEntry) -> &'static str {
    match key.state {
        KeyState::Pending => "pending",
        KeyState::Active => "active",
        KeyState::Accepting => "accepting",
        KeyState::Expired => "expired",
    }
}
