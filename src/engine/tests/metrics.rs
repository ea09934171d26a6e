//! The report as Prometheus text.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::support::*;
use crate::engine::Engine;
use crate::stats::{Counter, Gauge};

/// Every series of docs/metrics.md.
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
    "tlsresume_transport_up{transport=\"redis\"}",
    "tlsresume_transport_sent_total",
    "tlsresume_transport_received_total",
    "tlsresume_transport_dropped_total",
    "tlsresume_transport_rejected_total{reason=\"format\"}",
    "tlsresume_transport_rejected_total{reason=\"secret\"}",
    "tlsresume_transport_rejected_total{reason=\"forged\"}",
    "tlsresume_transport_rejected_total{reason=\"clock\"}",
    "tlsresume_transport_rejected_total{reason=\"expired\"}",
    "tlsresume_nodes",
    "tlsresume_nodes_out_of_sync",
    "tlsresume_nodes_other_secret",
    "tlsresume_lookup_seconds_bucket{le=\"0.005\"}",
    "tlsresume_lookup_seconds_bucket{le=\"+Inf\"}",
    "tlsresume_lookup_seconds_sum",
    "tlsresume_lookup_seconds_count",
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
            assert!(matches!(kind, "counter" | "gauge" | "histogram"), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            assert!(typed.insert(name, kind).is_none(), "{name} twice");
        } else {
            let (series, number) = line.rsplit_once(' ').expect("a series and a value");
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            let part = name.strip_prefix(family).expect("in its family");
            let is_histogram = typed.get(family) == Some(&"histogram");
            assert_eq!(is_histogram, ["_bucket", "_sum", "_count"].contains(&part), "{line}");
            assert!(is_histogram || typed.contains_key(name), "{line}: outside its family");
            let labels = labels.strip_suffix('}').expect("closed");
            if !labels.is_empty() {
                let (label, state) = labels.split_once('=').expect("one label");
                let state = state.strip_prefix('"').and_then(|state| state.strip_suffix('"'));
                let state = state.expect("quoted");
                assert!(is_name(label) && (is_name(state) || label == "le"), "{line}");
            }
            // A sum of seconds is told in microseconds here.
            let number = match number.parse::<f64>() {
                Ok(seconds) if name.ends_with("_sum") => {
                    let micros = Duration::from_secs_f64(seconds).as_micros();
                    u64::try_from(micros).unwrap()
                }
                _ => number.parse().unwrap_or_else(|_| panic!("{line}: no number")),
            };
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
    // What the histogram is made of shows added up: see the next test.
    let alone = |index: &u64| !(LOOKUPS_FROM..=LOOKUPS_TO).contains(index);
    for index in (0..Counter::COUNT).filter(|index| alone(&(*index as u64))) {
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
    let expected = (0..Counter::COUNT as u64).filter(alone).map(|index| index + 1);
    assert_eq!(moved, expected.collect::<Vec<_>>());
    assert_eq!(
        after["tlsresume_tickets_rejected_total{reason=\"mac\"}"],
        1_000_000 * (Counter::TicketsMac as u64 + 1)
    );
}

const LOOKUPS_FROM: u64 = Counter::LookupsUnder1ms as u64;
const LOOKUPS_TO: u64 = Counter::LookupMicros as u64;

#[test]
fn a_lookup_counts_in_every_bucket_that_it_fits_in_and_in_the_sum() {
    let engine = Engine::new(alone()).unwrap();
    for micros in [0, 1_000, 1_001, 4_000, 50_000, 1_000_001, 3_000_000] {
        engine.counters().count_lookup(Duration::from_micros(micros));
    }
    let samples = parse(&engine.metrics(now()));
    let buckets = ["0.001", "0.002", "0.005", "0.01", "0.05", "1", "+Inf"]
        .map(|most| samples[&format!("tlsresume_lookup_seconds_bucket{{le=\"{most}\"}}")]);
    assert_eq!(buckets, [2, 3, 4, 4, 5, 5, 7]);
    assert_eq!(samples["tlsresume_lookup_seconds_count"], 7);
    assert_eq!(samples["tlsresume_lookup_seconds_sum"], 4_056_002);
}

#[test]
fn gauges_show_what_the_agent_said_last() {
    let engine = Engine::new(alone()).unwrap();
    let gauges = [
        (Gauge::TransportUp, 1),
        (Gauge::Nodes, 5),
        (Gauge::NodesOutOfSync, 2),
        (Gauge::NodesOtherSecret, 1),
    ];
    for (gauge, value) in gauges {
        engine.store.set_gauge(gauge, 77);
        engine.store.set_gauge(gauge, value);
    }
    let samples = parse(&engine.metrics(now()));
    assert_eq!(samples["tlsresume_transport_up{transport=\"redis\"}"], 1);
    assert_eq!(samples["tlsresume_nodes"], 5);
    assert_eq!(samples["tlsresume_nodes_out_of_sync"], 2);
    assert_eq!(samples["tlsresume_nodes_other_secret"], 1);
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
