//! A simulated fleet keeps its claims: no ticket refused, one ring after every fault. The model says what exactly.

#![allow(missing_docs, reason = "a test")]

#[path = "../benches/simulation/model/mod.rs"]
mod model;

use model::Parameters;

/// Runs that are short enough for an unoptimised build.
fn hold(nodes: usize, seeds: std::ops::Range<u64>, hours: u64) {
    for seed in seeds {
        let report = model::run(&Parameters::brisk(nodes, seed, hours)).unwrap_or_else(|claim| {
            panic!(
                "{claim}\nto see it again: make simulation \
                 ARGS='--brisk --nodes {nodes} --seed {seed} --hours {hours}'"
            )
        });
        assert!(report.tickets_tried > 100 && report.faults > 0, "{report:?}");
    }
}

#[test]
fn ten_nodes_refuse_no_ticket_and_agree_after_every_fault() {
    hold(10, 0..8, 4);
}

#[test]
fn a_hundred_nodes_refuse_no_ticket_and_agree_after_every_fault() {
    hold(100, 0..2, 1);
}
