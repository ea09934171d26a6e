//! What a resumed handshake costs the server: with the library, divided by OpenSSL's own tickets
//! and cache; and whether it costs more behind many virtual hosts. benches/handshake.c shakes
//! hands; here it is run, counted and timed.
//!
//! Instructions say what the code costs, to a fraction of a percent and on any machine; CPU time
//! adds what they leave out, the kernel's work and the processor's caches.

#[path = "support/callgrind.rs"]
mod callgrind;
mod support;

use std::process::Command;
use std::thread;

use serde::Serialize;
use support::{Outcome, Spread, Table, progress, publish};
use tlsresume_testkit::server::example;

/// Kinds of resumption, with the visits that take about a tenth of a second.
const MODES: [(&str, u32); 4] =
    [("tls12-ticket", 1024), ("tls12-id", 1024), ("tls13-stateless", 256), ("tls13-stateful", 256)];

/// One client finds everything in a cache, so it shows what caches can do; 64 show what is left
/// of that with many. They share 16 server names.
const POPULATIONS: [u32; 2] = [1, 64];

/// Visits that are counted: a multiple of 64, so that every client comes equally often.
const COUNTED: u32 = 128;
const COUNTS: usize = 2;
const TIMED_PAIRS: usize = 11;

const CALLGRIND: [&str; 4] = [
    "--zero-before=measure",
    "--toggle-collect=server_begin",
    "--toggle-collect=server_step",
    "--toggle-collect=server_end",
];

/// Virtual hosts behind the context that accepts, each a context of its own.
const HOSTS: [u32; 3] = [1, 500, 3000];
/// Whether any context of the node verifies clients: then policies are compared.
const RULES: [&str; 2] = ["public", "rules"];

#[derive(Clone, Copy)]
enum Side {
    Own,
    Library,
}

/// What one run of the program does.
#[derive(Clone, Copy)]
struct Task {
    mode: &'static str,
    clients: u32,
    visits: u32,
    /// How many virtual hosts there are, and whether there are rules.
    hosts: Option<(u32, &'static str)>,
}

#[derive(Serialize)]
struct Comparison {
    mode: &'static str,
    clients: u32,
    /// Instructions of each count.
    own: Vec<u64>,
    library: Vec<u64>,
    instructions_ratio: f64,
    /// The largest difference between two counts of one side, in percent.
    spread_percent: f64,
    own_cpu_us: f64,
    cpu_ratio: Spread,
}

/// Instructions behind each number of virtual hosts.
#[derive(Serialize)]
struct Scaling {
    mode: &'static str,
    rules: &'static str,
    hosts: [u32; 3],
    library: Vec<u64>,
    /// The largest difference between two of them, in percent.
    spread_percent: f64,
}

#[derive(Serialize)]
struct Results {
    comparisons: Vec<Comparison>,
    scalings: Vec<Scaling>,
}

fn main() -> Outcome<()> {
    let mut comparisons = Vec::new();
    for clients in POPULATIONS {
        for (mode, timed) in MODES {
            progress(format_args!("handshakes: {mode}, {clients} clients"));
            comparisons.push(compare(mode, clients, timed)?);
        }
    }
    let mut scalings = Vec::new();
    for rules in RULES {
        for (mode, _) in MODES {
            progress(format_args!("handshakes: {mode}, {rules}, up to 3,000 virtual hosts"));
            scalings.push(scale(mode, rules)?);
        }
    }
    let tables = [comparison_table(&comparisons), scaling_table(&scalings)];
    publish("handshakes", &Results { comparisons, scalings }, &tables)
}

fn compare(mode: &'static str, clients: u32, timed: u32) -> Outcome<Comparison> {
    let counted = Task { mode, clients, visits: COUNTED, hosts: None };
    let timed = Task { visits: timed, ..counted };
    let (own, library) = count_both(counted)?;
    let mut own_times = Vec::new();
    let mut ratios = Vec::new();
    for _ in 0..TIMED_PAIRS {
        let own = cpu_ns(Side::Own, timed)?;
        ratios.push(cpu_ns(Side::Library, timed)? / own);
        own_times.push(own / 1000.0);
    }
    Ok(Comparison {
        mode,
        clients,
        instructions_ratio: mean(&library) / mean(&own),
        spread_percent: spread_percent(&own).max(spread_percent(&library)),
        own,
        library,
        own_cpu_us: Spread::of(own_times).median,
        cpu_ratio: Spread::of(ratios),
    })
}

fn scale(mode: &'static str, rules: &'static str) -> Outcome<Scaling> {
    let behind = |hosts| {
        let task = Task { mode, clients: 1, visits: COUNTED, hosts: Some((hosts, rules)) };
        count_instructions(Side::Library, task)
    };
    let library = HOSTS.into_iter().map(behind).collect::<Outcome<Vec<u64>>>()?;
    Ok(Scaling { mode, rules, hosts: HOSTS, spread_percent: spread_percent(&library), library })
}

/// Both sides at once: counts do not depend on what else the machine does.
fn count_both(task: Task) -> Outcome<(Vec<u64>, Vec<u64>)> {
    let count = |side| {
        let counts = (0..COUNTS).map(|_| count_instructions(side, task));
        counts.collect::<Outcome<Vec<u64>>>().map_err(|error| error.to_string())
    };
    let (own, library) = thread::scope(|scope| {
        let own = scope.spawn(|| count(Side::Own));
        (own.join(), count(Side::Library))
    });
    Ok((own.map_err(|_| "counting panicked")??, library?))
}

fn count_instructions(side: Side, task: Task) -> Outcome<u64> {
    let total = callgrind::instructions(&CALLGRIND, command_line(side, task)?)?;
    Ok(total / u64::from(task.visits))
}

/// CPU time of the server, the kernel's work for it included, per visit.
fn cpu_ns(side: Side, task: Task) -> Outcome<f64> {
    let command_line = command_line(side, task)?;
    let run = Command::new(&command_line[0]).args(&command_line[1..]).output()?;
    if !run.status.success() {
        return Err(String::from_utf8_lossy(&run.stderr).into());
    }
    Ok(String::from_utf8(run.stdout)?.trim().parse()?)
}

fn command_line(side: Side, task: Task) -> Outcome<Vec<String>> {
    let side = match side {
        Side::Own => "own",
        Side::Library => "library",
    };
    let program = example("handshake")?.to_string_lossy().into_owned();
    let (clients, visits) = (task.clients.to_string(), task.visits.to_string());
    let mut words = vec![program, side.into(), task.mode.into(), clients, visits];
    if let Some((hosts, rules)) = task.hosts {
        words.extend([hosts.to_string(), rules.into()]);
    }
    Ok(words)
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn mean(counts: &[u64]) -> f64 {
    counts.iter().sum::<u64>() as f64 / counts.len() as f64
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn spread_percent(counts: &[u64]) -> f64 {
    let (least, most) = (counts.iter().min(), counts.iter().max());
    least.zip(most).map_or(0.0, |(least, most)| (most - least) as f64 / *least as f64 * 100.0)
}

fn comparison_table(results: &[Comparison]) -> Table {
    let mut table = Table::new(
        "Cost of a resumed handshake, server only: library / OpenSSL's own tickets and cache",
        "Instructions: callgrind, mean of 2 counts of 128 handshakes. CPU time: user and system, \
         11 alternating pairs, median ratio (min-max). 64 clients share 16 server names.",
        &[
            "resumption",
            "clients",
            "instructions: own",
            "library",
            "ratio",
            "spread",
            "CPU: own",
            "ratio",
        ],
    );
    for result in results {
        table.row([
            result.mode.to_owned(),
            result.clients.to_string(),
            format!("{:.0}", mean(&result.own)),
            format!("{:.0}", mean(&result.library)),
            format!("{:.4}", result.instructions_ratio),
            format!("{:.2} %", result.spread_percent),
            format!("{:.1} µs", result.own_cpu_us),
            result.cpu_ratio.to_string(),
        ]);
    }
    table
}

fn scaling_table(results: &[Scaling]) -> Table {
    let mut table = Table::new(
        "Cost of a resumed handshake behind virtual hosts: instructions of the server",
        "callgrind, 128 handshakes of one client. Rules: another context has verified a client, so \
         policies are compared. Spread: between the numbers of hosts.",
        &["resumption", "contexts", "1 host", "500 hosts", "3,000 hosts", "spread"],
    );
    for result in results {
        let counts = result.library.iter().map(u64::to_string);
        let spread = format!("{:.2} %", result.spread_percent);
        table.row(
            [result.mode, result.rules]
                .map(str::to_owned)
                .into_iter()
                .chain(counts)
                .chain([spread]),
        );
    }
    table
}
