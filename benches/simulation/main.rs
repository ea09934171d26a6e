//! `make simulation`: fleets that share one ring, through partitions, restarts and losses of Redis; see the model.

#[path = "../support/mod.rs"]
#[allow(dead_code, reason = "it measures nothing over and over")]
mod support;

mod model;

use std::env;
use std::process::ExitCode;

use model::{CLAIMS, Parameters, Report};
use support::{Outcome, progress};
use tlsresume::clock;

const USAGE: &str = "usage: simulation [--nodes 10,100,1000] [--seeds N] [--seed S] [--hours H] [--brisk] [--calm] [--json]";

/// What the command line asks for.
struct Wanted {
    nodes: Vec<usize>,
    seeds: u64,
    seed: u64,
    hours: u64,
    brisk: bool,
    calm: bool,
    json: bool,
}

fn main() -> Outcome<ExitCode> {
    let wanted = Wanted::read(env::args().skip(1))?;
    let mut reports = Vec::new();
    for nodes in &wanted.nodes {
        for seed in wanted.seed..wanted.seed + wanted.seeds {
            let started = clock::since_boot();
            match model::run(&wanted.parameters(*nodes, seed)) {
                Ok(mut report) => {
                    report.run_seconds = (clock::since_boot() - started).as_secs_f64();
                    progress(format_args!("{nodes} nodes, seed {seed}: every claim holds"));
                    reports.push(report);
                }
                Err(claim) => {
                    progress(format_args!(
                        "{claim}\nto see it again: {}",
                        wanted.again(*nodes, seed)
                    ));
                    return Ok(ExitCode::FAILURE);
                }
            }
        }
    }
    show(&reports, wanted.json)?;
    let untried = wanted.untried(&reports);
    untried.iter().for_each(progress);
    Ok(if untried.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Wanted {
    fn read(mut words: impl Iterator<Item = String>) -> Outcome<Wanted> {
        let mut wanted = Wanted {
            nodes: vec![10, 100, 1000],
            seeds: 1,
            seed: 1,
            hours: 6,
            brisk: false,
            calm: false,
            json: false,
        };
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or(USAGE);
            match word.as_str() {
                "--nodes" => {
                    let numbers = value()?;
                    wanted.nodes = numbers.split(',').map(str::parse).collect::<Result<_, _>>()?;
                }
                "--seeds" => wanted.seeds = value()?.parse()?,
                "--seed" => wanted.seed = value()?.parse()?,
                "--hours" => wanted.hours = value()?.parse()?,
                "--brisk" => wanted.brisk = true,
                "--calm" => wanted.calm = true,
                "--json" => wanted.json = true,
                // cargo's.
                "--bench" => {}
                _ => return Err(USAGE.into()),
            }
        }
        Ok(wanted)
    }

    fn parameters(&self, nodes: usize, seed: u64) -> Parameters {
        let make = if self.brisk { Parameters::brisk } else { Parameters::hourly };
        let parameters = make(nodes, seed, self.hours);
        if self.calm { parameters.calm() } else { parameters }
    }

    /// Claims that nothing was tried of in any run of one size: nothing is known of them. Without faults there are no
    /// revocations, which the fourth is about.
    fn untried(&self, reports: &[Report]) -> Vec<String> {
        let claims = if self.calm { 1..=3 } else { 1..=CLAIMS };
        let sizes = self.nodes.iter().flat_map(|nodes| claims.clone().map(|claim| (*nodes, claim)));
        let untried = sizes.filter(|(nodes, claim)| {
            let mut runs = reports.iter().filter(|it| it.nodes == *nodes);
            runs.all(|it| it.claims_tried[claim - 1] == 0)
        });
        let text = |(nodes, claim)| {
            format!("{nodes} nodes: claim {claim} was never tried; more --hours or --seeds do")
        };
        untried.map(text).collect()
    }

    fn again(&self, nodes: usize, seed: u64) -> String {
        let brisk = if self.brisk { " --brisk" } else { "" };
        let calm = if self.calm { " --calm" } else { "" };
        format!(
            "make simulation ARGS='--nodes {nodes} --seed {seed} --hours {}{brisk}{calm}'",
            self.hours
        )
    }
}

#[expect(clippy::print_stdout, reason = "the result of the program")]
fn show(reports: &[Report], json: bool) -> Outcome<()> {
    if json {
        println!("{}", serde_json::to_string_pretty(reports)?);
        return Ok(());
    }
    println!(
        "| nodes | seed | tickets tried | refused | claims tried | new key reaches all (median, p99) | all agree after a fault (median, most) | sent, received per node and hour | ring: bytes, heap | keys per period (rejoined ones included) | run |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|");
    for it in reports {
        println!(
            "| {} | {} | {} | {} | {} | {} ms, {} ms | {} ms, {} ms | {} KB, {} KB | {}, {} | {:.2} | {:.1} s |",
            it.nodes,
            it.seed,
            it.tickets_tried,
            it.tickets_refused,
            it.claims_tried.map(|count| count.to_string()).join(", "),
            it.key_reaches_all_median,
            it.key_reaches_all_p99,
            it.convergence_median,
            it.convergence_max,
            it.sent_per_node_hour / 1000,
            it.received_per_node_hour / 1000,
            it.ring_bytes,
            it.ring_heap_bytes,
            it.keys_published_per_period,
            it.run_seconds,
        );
    }
    Ok(())
}
