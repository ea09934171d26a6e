//! What was seen, as tables, and what ours is held to.

use std::time::Duration;

use tlsresume_testkit::LoadReport;

use crate::clients::{COUNT, PATIENCE_S, PAUSE_MS};
use crate::support::Table;
use crate::{Measured, Phase, Results, Seen, WINDOW_S};

/// How many times as long as when all is well, or as the bystanders at the same time, handshakes may take for no reason
/// but the machine's other work, and because new clients are not known to the other node: there are twice as many full
/// handshakes.
const NOISE_RATIO: u64 = 3;

/// How long a single handshake may take in any case. Whoever waits for a cache that is silent or late waits for longer.
const NOISE: Duration = Duration::from_millis(100);

/// What is wrong with a server of ours whose handshakes may wait for `budget`.
pub(crate) fn faults(seen: &[Seen], budget: Duration) -> Vec<String> {
    let healthy = &seen[0];
    let budget = micros(budget);
    let mut faults = Vec::new();
    for it in seen {
        let usual = NOISE_RATIO * healthy.p99_us.max(it.bystander_p99_us) + budget;
        let most = micros(NOISE).max(NOISE_RATIO * it.bystander_longest_us) + budget;
        if it.failed > 0 {
            faults.push(format!("{}: {} not served", it.phase.name(), it.failed));
        }
        if it.p99_us > usual {
            let (name, p99) = (it.phase.name(), time(it.p99_us));
            faults.push(format!("{name}: p99 {p99}, more than {}", time(usual)));
        }
        if it.max_us > most {
            faults.push(format!(
                "{}: a handshake took {}, more than {}",
                it.phase.name(),
                time(it.max_us),
                time(most)
            ));
        }
    }
    faults
}

pub(crate) fn tables(results: &Results) -> [Table; 2] {
    [overview(results), details(results)]
}

/// One phase in one line of text.
pub(crate) fn line(seen: &Seen) -> String {
    format!(
        "{}: {} handshakes, p99 {}, longest {}, {} not served, {} resumed",
        seen.phase.name(),
        seen.handshakes,
        p99(seen),
        time(seen.longest_us),
        failed(seen),
        resumed(seen)
    )
}

fn overview(results: &Results) -> Table {
    let phases = Phase::ALL.map(Phase::name);
    let mut table = Table::new(
        "A session cache that stalls: handshakes in its way",
        &format!(
            "Longest visit / p99 of handshakes / not served / resumed. {COUNT} clients with TLS 1.2 ids go from one \
             node of two to the other, with pauses of {PAUSE_MS} ms: half of them with a session of before, of whom \
             the first share resumed tells; the others with a new one, made in the same phase, for their second \
             visit. Visits begin for {WINDOW_S} s; who hears nothing for {PATIENCE_S} s gives up (hung). Goal of ours: \
             all are served; p99 and the longest are within {NOISE_RATIO} times those of a server without a cache on \
             the network, visited at the same time (p99: or its own when healthy; longest: or {} ms), and the look-up \
             budget (pull: 5 ms). {}. Clients and servers share {} cores.",
            NOISE.as_millis(),
            results.versions.join(", "),
            std::thread::available_parallelism().map_or(0, usize::from),
        ),
        &[&["server"][..], &phases, &["goal"]].concat(),
    );
    for measured in &results.measured {
        let cell = |phase: Phase| {
            let found = measured.seen.iter().find(|it| it.phase == phase);
            found.map_or("-".to_owned(), |it| {
                format!("{} / {} / {} / {}", time(it.longest_us), p99(it), failed(it), resumed(it))
            })
        };
        let mut cells = vec![measured.server.to_owned()];
        cells.extend(Phase::ALL.map(cell));
        cells.push(verdict(measured));
        table.row(cells);
    }
    table
}

fn details(results: &Results) -> Table {
    let mut table = Table::new(
        "The same in detail",
        "Times are from connect to the end of the handshake, of those that were served, and those of the kind of \
         client that had the longer ones; `longest` is of all connections, to the end of the answer or of the client's \
         patience. The ratio is that of the 99th percentile to the healthy one.",
        &[
            "server",
            "phase",
            "handshakes",
            "median",
            "p99",
            "ratio",
            "max",
            "longest",
            "failed",
            "hung",
            "resumed",
            "bystanders' longest",
        ],
    );
    for measured in &results.measured {
        let healthy = float(measured.seen[0].p99_us).max(1.0);
        for it in &measured.seen {
            table.row([
                measured.server.to_owned(),
                it.phase.name().to_owned(),
                it.handshakes.to_string(),
                if_any(it, time(it.median_us)),
                p99(it),
                if_any(it, format!("{:.2}", float(it.p99_us) / healthy)),
                if_any(it, time(it.max_us)),
                time(it.longest_us),
                it.failed.to_string(),
                it.hung.to_string(),
                resumed(it),
                time(it.bystander_longest_us),
            ]);
        }
    }
    table
}

fn verdict(measured: &Measured) -> String {
    match measured.faults.as_deref() {
        None => "-".into(),
        Some([]) => "pass".into(),
        Some(faults) => format!("fail: {}", faults.join("; ")),
    }
}

/// Those that were not served, and how many of them because they heard nothing.
fn failed(seen: &Seen) -> String {
    match seen.hung {
        0 => seen.failed.to_string(),
        hung => format!("{} ({hung} hung)", seen.failed),
    }
}

/// Of those that came before, and of those that were new.
fn resumed(seen: &Seen) -> String {
    let text = |share: Option<f64>| share.map_or("-".into(), |it| format!("{it:.0} %"));
    format!("{}, {}", text(seen.resumed_regulars), text(seen.resumed_newcomers))
}

/// Percent of the sessions that were offered.
pub(crate) fn percent_resumed(report: &LoadReport) -> Option<f64> {
    let offered = report.resumed + report.not_resumed_after_first;
    (offered > 0).then(|| float(report.resumed) / float(offered) * 100.0)
}

fn p99(seen: &Seen) -> String {
    if_any(seen, time(seen.p99_us))
}

/// Nobody was served, so there is no time of handshakes.
fn if_any(seen: &Seen, text: String) -> String {
    if seen.handshakes == 0 { "-".into() } else { text }
}

fn time(us: u64) -> String {
    let ms = float(us) / 1000.0;
    if ms < 1000.0 { format!("{ms:.1} ms") } else { format!("{:.1} s", ms / 1000.0) }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

pub(crate) fn float(number: u64) -> f64 {
    u32::try_from(number).map_or(f64::INFINITY, f64::from)
}
