//! What the faults cost, in a table: printed, and written to `target/bench/cluster-faults.json`.

use std::fs;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tlsresume_testkit::load::LoadReport;
use tlsresume_testkit::matrix::Kind;
use tlsresume_testkit::say;
use tlsresume_testkit::server::example;

use super::{Fault, is_deep};
use crate::nodes::Sharing;

/// How much longer than a healthy handshake one may take while Redis is not.
const RATIO: f64 = 1.2;

/// `cluster.lookup_budget`, as it is by default.
const BUDGET_US: f64 = 5000.0;

/// One cell in one run.
pub(super) struct Outcome {
    pub(super) sharing: Sharing,
    pub(super) kind: Kind,
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
}

/// The medians of one cell over all runs, or over all pairs of all runs.
#[derive(Debug)]
struct Row {
    fault: &'static str,
    sharing: Sharing,
    kind: Kind,
    handshakes: u64,
    resumed: u64,
    /// 99th percentiles of full handshakes, in microseconds.
    healthy_us: f64,
    opening_us: f64,
    faulty_us: f64,
    opening_excess_us: f64,
    /// Medians of the pairs' own.
    ratio: f64,
    excess_us: f64,
    service_ms: f64,
}

static ROWS: Mutex<Vec<Row>> = Mutex::new(Vec::new());

/// Adds a fault; checks its times where they mean something.
pub(super) fn enter<F: Fault>(runs: &[Vec<Outcome>]) {
    let cells = runs.first().map_or(0, Vec::len);
    let rows: Vec<_> = (0..cells).map(|cell| Row::of::<F>(runs, cell)).collect();
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

const HEAD: &str = "fault              | nodes | kind              | handshakes | resumed | healthy p99 | opening p99 \
     | faulty p99 | ratio | service ms";

impl Row {
    fn of<F: Fault>(runs: &[Vec<Outcome>], cell: usize) -> Row {
        let outcomes: Vec<_> = runs.iter().map(|run| &run[cell]).collect();
        let pairs: Vec<_> = outcomes.iter().flat_map(|it| &it.pairs).collect();
        let of_runs = |value: &dyn Fn(&Outcome) -> f64| median(outcomes.iter().map(|it| value(it)));
        let of_pairs = |value: &dyn Fn(&Pair) -> f64| median(pairs.iter().map(|it| value(it)));
        let healthy_us = of_pairs(&|it| p99(&it.healthy));
        let first = outcomes[0];
        Row {
            fault: F::NAME,
            sharing: first.sharing,
            kind: first.kind,
            handshakes: pairs.iter().map(|it| it.faulty.handshakes).sum(),
            resumed: pairs.iter().map(|it| it.faulty.resumed).sum(),
            healthy_us,
            opening_us: of_runs(&|it| p99(&it.opening)),
            faulty_us: of_pairs(&|it| p99(&it.faulty)),
            opening_excess_us: of_runs(&|it| p99(&it.opening) - RATIO * healthy_us),
            ratio: of_pairs(&|it| p99(&it.faulty) / p99(&it.healthy)),
            excess_us: of_pairs(&|it| p99(&it.faulty) - RATIO * p99(&it.healthy)),
            service_ms: of_runs(&|it| it.service.as_secs_f64() * 1000.0),
        }
    }

    /// Pushing nodes never wait. Others wait for the budget until they know better, and now and then for
    /// what a Redis that does answer does not have.
    fn is_quick(&self, answers: bool) -> bool {
        let waits = self.sharing == Sharing::Pull && self.kind.is_stored();
        match (waits, answers) {
            (false, _) => self.ratio <= RATIO,
            (true, false) => self.opening_excess_us <= BUDGET_US && self.ratio <= RATIO,
            (true, true) => self.excess_us <= BUDGET_US,
        }
    }

    fn text(&self) -> String {
        format!(
            "{:18} | {:5} | {:17} | {:10} | {:7} | {:11} | {:11} | {:10} | {:5.2} | {:10.0}",
            self.fault,
            self.sharing.to_string(),
            self.kind.to_string(),
            self.handshakes,
            self.resumed,
            self.healthy_us,
            self.opening_us,
            self.faulty_us,
            self.ratio,
            self.service_ms,
        )
    }

    fn json(&self) -> Value {
        json!({
            "fault": self.fault,
            "sessions": self.sharing.to_string(),
            "kind": self.kind.to_string(),
            "handshakes": self.handshakes,
            "resumed": self.resumed,
            "failed": 0, // else the test had failed
            "healthy_full_p99_us": self.healthy_us,
            "opening_full_p99_us": self.opening_us,
            "faulty_full_p99_us": self.faulty_us,
            "ratio": self.ratio,
            "service_ms": self.service_ms,
        })
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn p99(report: &LoadReport) -> f64 {
    // Longer than minutes no handshake takes.
    f64::from(u32::try_from(report.full_us.p99).unwrap_or(u32::MAX))
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
