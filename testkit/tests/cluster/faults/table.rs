//! What the faults cost, in a table: printed, and written to `target/bench/cluster-faults.json`.

use std::fs;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tlsresume_testkit::load::{Latency, LoadReport};
use tlsresume_testkit::say;
use tlsresume_testkit::server::example;

use super::{Fault, is_deep};
use crate::nodes::Sharing;

/// How much longer than a healthy handshake one may take while Redis is not.
const RATIO: f64 = 1.2;

/// `cluster.lookup_budget`, as it is by default.
const BUDGET_US: f64 = 5000.0;

/// How much longer than that it may take in the worst of all pairs: one look-up, and as much for a
/// scheduler that has dozens of processes and two processors. Whoever waited for Redis itself would
/// wait for hundreds of milliseconds.
const WORST_US: f64 = 2.0 * BUDGET_US;

/// Of the processors: if others had more of them than this, a pair does not count.
const STOLEN: f64 = 0.05;

/// Fewer pairs that count say nothing.
const LEAST: usize = 6;

/// One cell in one run.
pub(super) struct Outcome {
    pub(super) sharing: Sharing,
    pub(super) kind: String,
    pub(super) looks_up: bool,
    /// Of the first connections of the fault, when it is not yet known.
    pub(super) opening: LoadReport,
    pub(super) pairs: Vec<Pair>,
    /// From the end of the fault to full service.
    pub(super) service: Duration,
}

/// The same connections to nodes that are well and, at once, to those that are not.
#[derive(Clone)]
pub(super) struct Pair {
    pub(super) healthy: LoadReport,
    pub(super) faulty: LoadReport,
    /// The share of the processors that others had meanwhile.
    pub(super) stolen: f64,
}

/// One cell in all runs.
#[derive(Debug)]
struct Row {
    fault: &'static str,
    sharing: Sharing,
    kind: String,
    looks_up: bool,
    handshakes: u64,
    resumed: u64,
    pairs: usize,
    /// Those whose times count.
    undisturbed: usize,
    full: Times,
    all: Times,
    service_ms: f64,
}

/// 99th percentiles in microseconds: medians over all runs, or over all pairs of all runs.
#[derive(Debug)]
struct Times {
    healthy_us: f64,
    opening_us: f64,
    faulty_us: f64,
    opening_excess_us: f64,
    /// Medians of the pairs' own.
    ratio: f64,
    excess_us: f64,
    /// Of the worst of them.
    worst_ratio: f64,
    worst_excess_us: f64,
}

static ROWS: Mutex<Vec<Row>> = Mutex::new(Vec::new());

/// Adds a fault; checks its times where they mean something.
pub(super) fn enter<F: Fault>(runs: &[Vec<Outcome>]) {
    let rows = rows::<F>(runs);
    let (first, text) = {
        let mut all = ROWS.lock().unwrap_or_else(PoisonError::into_inner);
        let first = all.len();
        all.extend(rows);
        write(&all);
        (first, all.iter().map(Row::text).collect::<Vec<_>>())
    };
    say(HEAD);
    text.iter().for_each(|row| say(row));
    if is_deep() {
        let all = ROWS.lock().unwrap_or_else(PoisonError::into_inner);
        let slow: Vec<_> =
            all[first..].iter().filter(|row| !row.is_quick(F::ANSWERS)).map(Row::text).collect();
        assert!(slow.is_empty(), "slower than they may be:\n{HEAD}\n{}", slow.join("\n"));
    }
}

/// Whether all times are as short as they have to be.
pub(super) fn is_quick<F: Fault>(runs: &[Vec<Outcome>]) -> bool {
    rows::<F>(runs).iter().all(|row| row.is_quick(F::ANSWERS))
}

fn rows<F: Fault>(runs: &[Vec<Outcome>]) -> Vec<Row> {
    let cells = runs.first().map_or(0, Vec::len);
    (0..cells).map(|cell| Row::of::<F>(runs, cell)).collect()
}

const HEAD: &str = "fault              | nodes | kind               | handshakes | resumed \
     | pairs | healthy p99 | opening p99 | faulty p99 | ratio | worst | all: healthy | faulty | ratio | worst | service ms";

impl Row {
    fn of<F: Fault>(runs: &[Vec<Outcome>], cell: usize) -> Row {
        let outcomes: Vec<_> = runs.iter().map(|run| &run[cell]).collect();
        let faulty = || outcomes.iter().flat_map(|it| &it.pairs).map(|it| &it.faulty);
        let first = outcomes[0];
        Row {
            fault: F::NAME,
            sharing: first.sharing,
            kind: first.kind.clone(),
            looks_up: first.looks_up,
            handshakes: faulty().map(|it| it.handshakes).sum(),
            resumed: faulty().map(|it| it.resumed).sum(),
            pairs: faulty().count(),
            undisturbed: undisturbed(&outcomes).count(),
            full: Times::of(&outcomes, |it| &it.full_us),
            all: Times::of(&outcomes, |it| &it.latency_us),
            service_ms: median(outcomes.iter().map(|it| it.service.as_secs_f64() * 1000.0)),
        }
    }

    fn is_quick(&self, answers: bool) -> bool {
        let is_quick = |times: &Times| {
            times.are_short(self.looks_up, answers) && times.worst_excess_us <= WORST_US
        };
        self.undisturbed >= LEAST && is_quick(&self.full) && is_quick(&self.all)
    }

    fn text(&self) -> String {
        let Row { full, all, .. } = self;
        let sharing = self.sharing.to_string();
        let pairs = format!("{}/{}", self.undisturbed, self.pairs);
        let counts = format!("{:10} | {:7} | {pairs:5}", self.handshakes, self.resumed);
        format!(
            "{:18} | {sharing:5} | {:18} | {counts} | {:11.0} | {:11.0} | {:10.0} | {:5.2} | {:5.2} \
             | {:12.0} | {:6.0} | {:5.2} | {:5.2} | {:10.0}",
            self.fault,
            self.kind,
            full.healthy_us,
            full.opening_us,
            full.faulty_us,
            full.ratio,
            full.worst_ratio,
            all.healthy_us,
            all.faulty_us,
            all.ratio,
            all.worst_ratio,
            self.service_ms,
        )
    }

    fn json(&self) -> Value {
        json!({
            "fault": self.fault,
            "sessions": self.sharing.to_string(),
            "kind": self.kind,
            "handshakes": self.handshakes,
            "resumed": self.resumed,
            "failed": 0, // else the test had failed
            "pairs": self.pairs,
            "undisturbed_pairs": self.undisturbed,
            "full": self.full.json(),
            "all": self.all.json(),
            "service_ms": self.service_ms,
        })
    }
}

impl Times {
    fn of(outcomes: &[&Outcome], latency: fn(&LoadReport) -> &Latency) -> Times {
        // Longer than minutes no handshake takes.
        let p99 = |it: &LoadReport| f64::from(u32::try_from(latency(it).p99).unwrap_or(u32::MAX));
        let pairs = || undisturbed(outcomes);
        let healthy = || pairs().map(|it| p99(&it.healthy));
        let faulty = || pairs().map(|it| p99(&it.faulty));
        let opening = || outcomes.iter().map(|it| p99(&it.opening));
        let ratios = || pairs().map(|it| p99(&it.faulty) / p99(&it.healthy));
        let excesses = || pairs().map(|it| p99(&it.faulty) - RATIO * p99(&it.healthy));
        let healthy_us = median(healthy());
        Times {
            healthy_us,
            opening_us: median(opening()),
            faulty_us: median(faulty()),
            opening_excess_us: median(opening().map(|it| it - RATIO * healthy_us)),
            ratio: median(ratios()),
            excess_us: median(excesses()),
            worst_ratio: ratios().fold(0.0, f64::max),
            worst_excess_us: excesses().fold(f64::MIN, f64::max),
        }
    }

    /// Who looks nothing up never waits. Others wait for the budget until they know better, and now and
    /// then for what a Redis that does answer does not have.
    fn are_short(&self, waits: bool, answers: bool) -> bool {
        match (waits, answers) {
            (false, _) => self.ratio <= RATIO,
            (true, false) => self.opening_excess_us <= BUDGET_US && self.ratio <= RATIO,
            (true, true) => self.opening_excess_us <= BUDGET_US && self.excess_us <= BUDGET_US,
        }
    }

    fn json(&self) -> Value {
        json!({
            "healthy_p99_us": self.healthy_us,
            "opening_p99_us": self.opening_us,
            "faulty_p99_us": self.faulty_us,
            "ratio": self.ratio,
            "worst_ratio": self.worst_ratio,
            "worst_excess_us": self.worst_excess_us,
        })
    }
}

/// The pairs whose times say something.
fn undisturbed<'a>(outcomes: &[&'a Outcome]) -> impl Iterator<Item = &'a Pair> {
    let pairs = outcomes.iter().flat_map(|it| &it.pairs);
    pairs.filter(|pair| !is_deep() || pair.stolen <= STOLEN)
}

/// No number where there are none.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    let at = |nth: usize| values.get(nth).copied().unwrap_or(f64::NAN);
    f64::midpoint(at(values.len().saturating_sub(1) / 2), at(values.len() / 2))
}

/// All rows of this program so far.
fn write(rows: &[Row]) {
    let rows: Vec<_> = rows.iter().map(Row::json).collect();
    let text = serde_json::to_string_pretty(&rows).expect("it is plain data");
    let examples = example("load_client").expect("the load came from it");
    let folder = examples.with_file_name("../bench");
    let name = if is_deep() { "cluster-faults.json" } else { "cluster-faults-quick.json" };
    fs::create_dir_all(&folder)
        .and_then(|()| fs::write(folder.join(name), text + "\n"))
        .expect("the target folder is writable");
}
