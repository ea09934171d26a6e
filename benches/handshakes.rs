//! What a resumed handshake costs the server: with the library, divided by OpenSSL's own tickets
//! and cache. benches/handshake.c shakes hands; here it is run, counted and timed.
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

#[derive(Clone, Copy)]
enum Side {
    Own,
    Library,
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

fn main() -> Outcome<()> {
    let mut results = Vec::new();
    for clients in POPULATIONS {
        for (mode, timed) in MODES {
            progress(format_args!("handshakes: {mode}, {clients} clients"));
            results.push(compare(mode, clients, timed)?);
        }
    }
    publish("handshakes", &results, &[table(&results)])
}

fn compare(mode: &'static str, clients: u32, timed: u32) -> Outcome<Comparison> {
    let (own, library) = count_both(mode, clients)?;
    let mut own_times = Vec::new();
    let mut ratios = Vec::new();
    for _ in 0..TIMED_PAIRS {
        let own = cpu_ns(Side::Own, mode, clients, timed)?;
        ratios.push(cpu_ns(Side::Library, mode, clients, timed)? / own);
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

/// Both sides at once: counts do not depend on what else the machine does.
fn count_both(mode: &str, clients: u32) -> Outcome<(Vec<u64>, Vec<u64>)> {
    let count = |side| {
        let counts = (0..COUNTS).map(|_| count_instructions(side, mode, clients));
        counts.collect::<Outcome<Vec<u64>>>().map_err(|error| error.to_string())
    };
    let (own, library) = thread::scope(|scope| {
        let own = scope.spawn(|| count(Side::Own));
        (own.join(), count(Side::Library))
    });
    Ok((own.map_err(|_| "counting panicked")??, library?))
}

fn count_instructions(side: Side, mode: &str, clients: u32) -> Outcome<u64> {
    let total = callgrind::instructions(&CALLGRIND, command_line(side, mode, clients, COUNTED)?)?;
    Ok(total / u64::from(COUNTED))
}

/// CPU time of the server, the kernel's work for it included, per visit.
fn cpu_ns(side: Side, mode: &str, clients: u32, visits: u32) -> Outcome<f64> {
    let [program, args @ ..] = command_line(side, mode, clients, visits)?;
    let run = Command::new(program).args(args).output()?;
    if !run.status.success() {
        return Err(String::from_utf8_lossy(&run.stderr).into());
    }
    Ok(String::from_utf8(run.stdout)?.trim().parse()?)
}

fn command_line(side: Side, mode: &str, clients: u32, visits: u32) -> Outcome<[String; 5]> {
    let side = match side {
        Side::Own => "own",
        Side::Library => "library",
    };
    let program = example("handshake")?.to_string_lossy().into_owned();
    Ok([program, side.into(), mode.into(), clients.to_string(), visits.to_string()])
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

fn table(results: &[Comparison]) -> Table {
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
