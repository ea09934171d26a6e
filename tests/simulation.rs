//! A simulated fleet keeps its claims: no ticket refused, one ring after every fault. The model says what exactly.

#![allow(missing_docs, reason = "a test")]

#[path = "../benches/simulation/model/mod.rs"]
mod model;

use model::{CLAIMS, Parameters};

/// Runs that are short enough for an unoptimised build; all together try every claim.
fn hold(nodes: usize, seeds: std::ops::Range<u64>, hours: u64) {
    let mut tried = [0; CLAIMS];
    for seed in seeds {
        let report = model::run(&Parameters::brisk(nodes, seed, hours)).unwrap_or_else(|claim| {
            panic!(
                "{claim}\nto see it again: make simulation \
                 ARGS='--brisk --nodes {nodes} --seed {seed} --hours {hours}'"
            )
        });
        assert_eq!(report.tickets_refused, 0, "seed {seed}: {report:?}");
        assert!(report.tickets_tried > 100 && report.faults > 0, "seed {seed}: {report:?}");
        (0..CLAIMS).for_each(|claim| tried[claim] += report.claims_tried[claim]);
    }
    assert!(tried.iter().all(|count| *count > 0), "{tried:?}");
}

#[test]
fn ten_nodes_refuse_no_ticket_and_agree_after_every_fault() {
    hold(10, 0..10, 4);
}

#[test]
fn a_hundred_nodes_refuse_no_ticket_and_agree_after_every_fault() {
    hold(100, 0..2, 1);
}

/// Seeds with which tickets are refused where nobody rejoins, as found with `make simulation`.
#[test]
fn keys_that_were_made_alone_give_way_to_those_of_the_fleet() {
    hold(10, 38..39, 4);
    hold(30, 4..5, 4);
}

#[test]
fn a_fleet_without_faults_makes_one_key_in_each_period() {
    let hours = 4;
    for seed in 0..3 {
        let parameters = Parameters::brisk(30, seed, hours).calm();
        let report = model::run(&parameters).expect("every claim holds");
        let periods = 12 * usize::try_from(hours).expect("small");
        let made = report.keys_made_later;
        assert!((periods - 1..=periods + 1).contains(&made), "{made} keys in {periods} periods");
    }
}
