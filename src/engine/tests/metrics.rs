//! The report as Prometheus text.

use std::collections::{BTreeMap, BTreeSet};

use super::support::*;
use crate::engine::Engine;
use crate::stats::Counter;

/// Every series of DESIGN 3.7 that a node without a cluster has.
const SERIES: &[&str] = &[
    "tlsresume_tickets_issued_total",
    "tlsresume_tickets_accepted_total{key=\"current\"}",
    "tlsresume_tickets_accepted_total{key=\"older\"}",
    "tlsresume_tickets_rejected_total{reason=\"unknown_key\"}",
    "tlsresume_tickets_rejected_total{reason=\"expired\"}",
    "tlsresume_tickets_rejected_total{reason=\"revoked\"}",
    "tlsresume_tickets_rejected_total{reason=\"mac\"}",
    "tlsresume_sessions_stored_total",
    "tlsresume_sessions_hit_total",
    "tlsresume_sessions_missed_total{reason=\"absent\"}",
    "tlsresume_sessions_missed_total{reason=\"expired\"}",
    "tlsresume_sessions_missed_total{reason=\"forged_id\"}",
    "tlsresume_sessions_missed_total{reason=\"binding\"}",
    "tlsresume_sessions_missed_total{reason=\"parse\"}",
    "tlsresume_sessions_evicted_total",
    "tlsresume_sessions_live",
    "tlsresume_store_bytes{state=\"used\"}",
    "tlsresume_store_bytes{state=\"free\"}",
    "tlsresume_keys{state=\"pending\"}",
    "tlsresume_keys{state=\"active\"}",
    "tlsresume_keys{state=\"accepting\"}",
    "tlsresume_keys{state=\"revoked\"}",
    "tlsresume_key_age_seconds",
    "tlsresume_rotations_total",
    "tlsresume_early_data_total{verdict=\"allowed\"}",
    "tlsresume_early_data_total{verdict=\"refused\"}",
];

fn is_name(name: &str) -> bool {
    let mut letters = name.chars();
    letters.next().is_some_and(|first| first.is_ascii_lowercase())
        && letters
            .all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_')
}

/// The samples of a text that keeps the rules of format 0.0.4.
fn parse(text: &str) -> BTreeMap<String, u64> {
    assert!(text.ends_with('\n') && !text.contains("\n\n"));
    let (mut helped, mut typed, mut samples) = (BTreeSet::new(), BTreeMap::new(), BTreeMap::new());
    let mut family = "";
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect("a name and a text");
            assert!(is_name(name) && !help.trim().is_empty() && !help.contains('\\'), "{line}");
            assert!(helped.insert(name), "{name} twice");
            family = name;
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a name and a type");
            assert_eq!(name, family, "TYPE follows HELP");
            assert!(matches!(kind, "counter" | "gauge"), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            assert!(typed.insert(name, kind).is_none(), "{name} twice");
        } else {
            let (series, number) = line.rsplit_once(' ').expect("a series and a value");
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            assert!(name == family && typed.contains_key(name), "{line}: outside its family");
            let labels = labels.strip_suffix('}').expect("closed");
            if !labels.is_empty() {
                let (label, state) = labels.split_once('=').expect("one label");
                let state = state.strip_prefix('"').and_then(|state| state.strip_suffix('"'));
                assert!(is_name(label) && is_name(state.expect("quoted")), "{line}");
            }
            let number = number.parse().unwrap_or_else(|_| panic!("{line}: no number"));
            assert!(samples.insert(series.to_owned(), number).is_none(), "{series} twice");
        }
    }
    assert_eq!(helped.len(), typed.len());
    samples
}

#[test]
fn the_text_is_valid_and_has_every_series_of_the_contract() {
    let engine = Engine::new(alone()).unwrap();
    let samples = parse(&engine.metrics(now()));
    for series in SERIES {
        assert!(samples.contains_key(*series), "{series} is missing");
    }
}

#[test]
fn each_counter_shows_in_a_series_of_its_own() {
    let engine = Engine::new(alone()).unwrap();
    let before = parse(&engine.metrics(now()));
    for index in 0..Counter::COUNT {
        // Far apart, so that a swap cannot pass.
        let amount = 1_000_000 * (index as u64 + 1);
        engine.counters().0[index].fetch_add(amount, std::sync::atomic::Ordering::Relaxed);
    }
    let after = parse(&engine.metrics(now()));
    let mut moved: Vec<_> = after
        .iter()
        .map(|(series, value)| value - before.get(series).copied().unwrap_or(0).min(*value))
        .filter(|moved| *moved >= 1_000_000)
        .map(|moved| moved / 1_000_000)
        .collect();
    moved.sort_unstable();
    assert_eq!(moved, (1..=Counter::COUNT as u64).collect::<Vec<_>>());
    assert_eq!(
        after["tlsresume_tickets_rejected_total{reason=\"mac\"}"],
        1_000_000 * (Counter::TicketsMac as u64 + 1)
    );
}

#[test]
fn keys_and_their_age_are_those_of_the_ring() {
    let engine = Engine::new(alone()).unwrap();
    let later = now() + HOUR * 3 + seconds(70);
    issue(&engine, later);
    let samples = parse(&engine.metrics(later));
    let keys = |state: &str| samples[&format!("tlsresume_keys{{state=\"{state}\"}}")];
    assert_eq!((keys("active"), keys("accepting"), keys("revoked")), (1, 3, 0));
    assert!((4..=5).contains(&keys("pending")), "{}", keys("pending"));
    let age = samples["tlsresume_key_age_seconds"];
    assert!((55..=65).contains(&age), "{age} s");
    let rotations = samples["tlsresume_rotations_total"];
    let ticket_keys = keys("active") + keys("accepting") + keys("pending");
    assert_eq!(rotations, ticket_keys + 2, "and the id keys of this week and the next");
}
