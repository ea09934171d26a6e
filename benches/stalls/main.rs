//! What a session cache on the network that stalls does to a server's handshakes: nginx with the library, beside Apache
//! and H2O with their own caches in Redis and memcached, and nginx with a cache that needs no network.
//!
//! The same clients visit all of them, with TLS 1.2 session ids, from one node of two to the other and back: what one
//! node made, the other has to be told of or to look up.

#[path = "../support/mod.rs"]
#[allow(dead_code, reason = "nothing here is measured over and over")]
mod support;

mod cache;
mod clients;
mod fleet;
mod table;

use std::env;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use serde::Serialize;
use support::{Outcome, progress, publish};

use cache::Cache;
use clients::{Clients, Visits};
use fleet::{Fleet, Kind};

/// How long visits begin in one phase; it ends when the last of them has.
const WINDOW_S: u32 = 6;

/// Visits that are not counted: before the first phase, and after one for whatever it left behind.
const SETTLE_S: u32 = 1;

/// Where a server looks for a cache that has none.
const NOWHERE: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0));

/// How late each reply of a slow cache is.
const LATE: Duration = Duration::from_millis(500);

/// What happens to the cache while clients come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Phase {
    Healthy,
    /// SIGSTOP: connections stay open, and nobody is answered.
    Stopped,
    /// Replies are late.
    Late,
    /// SIGKILL: its port refuses connections.
    Killed,
    /// Started again, with nothing in it.
    Again,
}

/// What clients saw of one kind of server in one phase.
#[derive(Debug, Serialize)]
struct Seen {
    phase: Phase,
    handshakes: u64,
    median_us: u64,
    p99_us: u64,
    max_us: u64,
    /// Of all connections, failed ones included, from connect to the end of the answer.
    longest_us: u64,
    /// Not served, whatever the reason.
    failed: u64,
    /// Of those, given up after [`clients::PATIENCE_S`].
    hung: u64,
    /// Percent of the offers of those that came before the fault, and of those that were new in it; none if nobody
    /// was served that offered a session.
    resumed_regulars: Option<f64>,
    resumed_newcomers: Option<f64>,
    /// Of a server without a cache on the network, at the same time.
    bystander_p99_us: u64,
    bystander_longest_us: u64,
    /// Text of the first TLS failure.
    first_error: String,
}

#[derive(Serialize)]
struct Measured {
    server: &'static str,
    cache: &'static str,
    is_ours: bool,
    seen: Vec<Seen>,
    /// Of ours alone: empty, or what is not as it should be.
    faults: Option<Vec<String>>,
}

#[derive(Serialize)]
struct Results {
    versions: Vec<String>,
    window_s: u32,
    clients: u32,
    measured: Vec<Measured>,
}

fn main() -> Outcome<()> {
    // Before anything is measured: a missing program is told at once.
    let versions = fleet::versions()?;
    let bystander = Fleet::start(Kind::Alone, NOWHERE)?;
    // `cargo bench --bench stalls -- Apache` measures those with that in their name.
    let wanted: Vec<String> = env::args().skip(1).filter(|it| !it.starts_with('-')).collect();
    let is_wanted =
        |kind: &Kind| wanted.is_empty() || wanted.iter().any(|it| kind.name().contains(it));
    let measured = Kind::ALL
        .into_iter()
        .filter(is_wanted)
        .map(|kind| measure(kind, &bystander))
        .collect::<Outcome<Vec<_>>>()?;
    let results = Results { versions, window_s: WINDOW_S, clients: clients::COUNT, measured };
    publish("stalls", &results, &table::tables(&results))
}

fn measure(kind: Kind, bystander: &Fleet) -> Outcome<Measured> {
    progress(format_args!("stalls: {}", kind.name()));
    let mut cache = Cache::start(kind.cache())?;
    let fleet = Fleet::start(kind, cache.address())?;
    let mut clients = Clients::of(fleet.addresses(), bystander.addresses())?;
    clients.visit(SETTLE_S)?;

    let mut seen = Vec::new();
    for &phase in kind.phases() {
        cache.enter(phase)?;
        let visits =
            clients.visit(WINDOW_S).map_err(|error| format!("{error}\n{}", fleet.log()))?;
        seen.push(Seen::of(phase, &visits));
        progress(format_args!("stalls: {}: {}", kind.name(), table::line(&seen[seen.len() - 1])));
        // The next fault begins with a cache that is well; coming back is a phase of its own.
        if matches!(phase, Phase::Stopped | Phase::Late) {
            cache.enter(Phase::Healthy)?;
            clients.visit(SETTLE_S)?;
        }
    }
    let faults = kind.budget().map(|budget| table::faults(&seen, budget));
    let (server, cache) = (kind.name(), kind.cache().map_or("none", cache::Program::name));
    Ok(Measured { server, cache, is_ours: faults.is_some(), seen, faults })
}

impl Seen {
    /// Of both kinds of clients the worse percentiles count.
    fn of(phase: Phase, visits: &Visits) -> Seen {
        let mut report = visits.regulars.clone();
        report.add(&visits.newcomers);
        Seen {
            phase,
            handshakes: report.handshakes,
            median_us: report.latency_us.p50,
            p99_us: report.latency_us.p99,
            max_us: report.latency_us.max,
            longest_us: report.longest_us,
            failed: report.failed + report.reset,
            hung: report.hung,
            resumed_regulars: table::percent_resumed(&visits.regulars),
            resumed_newcomers: table::percent_resumed(&visits.newcomers),
            bystander_p99_us: visits.bystanders.latency_us.p99,
            bystander_longest_us: visits.bystanders.longest_us,
            first_error: report.first_error,
        }
    }
}

impl Phase {
    const ALL: [Phase; 5] =
        [Phase::Healthy, Phase::Stopped, Phase::Late, Phase::Killed, Phase::Again];

    fn name(self) -> &'static str {
        match self {
            Phase::Healthy => "healthy",
            Phase::Stopped => "stopped",
            Phase::Late => "500 ms late",
            Phase::Killed => "killed",
            Phase::Again => "healthy again",
        }
    }
}
