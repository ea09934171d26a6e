//! Resumed or not, how many handshakes a second four servers make, with the library and without:
//! behind round robin, and as four workers of one server.

mod support;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Serialize;
use support::{Outcome, Spread, Table, progress, publish};
use tlsresume::clock;
use tlsresume_testkit::server::{Settings, example};
use tlsresume_testkit::{Folder, LoadReport, Mode, Server};

const SERVERS: u32 = 4;
const ROUNDS: usize = 7;

/// Clients at the same time, and the connections of all together in one run.
const CLIENTS: u32 = 4;
const CONNECTIONS: u32 = 240;

/// The options of `openssl req` for a common kind of certificate.
const CERTIFICATES: [(&str, &[&str]); 2] = [
    ("RSA-2048", &["-newkey", "rsa:2048"]),
    ("P-256", &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]),
];

/// Where the clients' next connection may go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Site {
    /// Four servers that share memory.path; without the library they share nothing.
    Group,
    /// Four workers of one server.
    Node,
}

/// Servers of one kind, with the addresses that clients use in turn.
struct Fleet {
    addresses: Vec<SocketAddr>,
    /// Ended when dropped.
    _servers: Vec<Server>,
}

#[derive(Serialize)]
struct Comparison {
    site: &'static str,
    certificate: &'static str,
    mode: String,
    /// Handshakes a second, median of the rounds.
    without: f64,
    with: f64,
    /// Percent of the handshakes, in the last round.
    without_resumed: f64,
    with_resumed: f64,
    ratio: Spread,
    goal: f64,
}

fn main() -> Outcome<()> {
    let memory = Folder::in_memory()?;
    let folder = Folder::new()?;
    let mut results = Vec::new();
    for site in [Site::Group, Site::Node] {
        for (certificate, options) in CERTIFICATES {
            let files = make_certificate(folder.path(), options)?;
            let path = memory.file(format!("{certificate}-{}", site.name()));
            let with = site.start(&files, &["--name", "with"], Some(&path))?;
            let without = site.start(&files, &["--plain"], None)?;
            for mode in Mode::ALL {
                progress(format_args!("throughput: {}, {certificate}, {mode}", site.name()));
                results.push(compare(site, certificate, mode, &with, &without)?);
            }
        }
    }
    publish("throughput", &results, &[table(&results)])
}

impl Site {
    fn name(self) -> &'static str {
        match self {
            Site::Group => "4 servers, round robin",
            Site::Node => "1 server, 4 workers",
        }
    }

    /// What the JDK's proposal for distributed TLS sessions asks for.
    fn goal(self) -> f64 {
        match self {
            Site::Group => 1.20,
            Site::Node => 1.05,
        }
    }

    fn start(
        self,
        (certificate, key): &(PathBuf, PathBuf),
        args: &[&str],
        memory: Option<&Path>,
    ) -> Outcome<Fleet> {
        let (servers, workers) = match self {
            Site::Group => (SERVERS, 1),
            Site::Node => (1, SERVERS),
        };
        let mut settings: Settings = Server::example()?
            .args(["--workers".into(), workers.to_string()])
            .arg("--cert")
            .arg(certificate)
            .arg("--key")
            .arg(key)
            .args(args);
        if let Some(path) = memory {
            settings = settings.env("TLSRESUME_MEMORY_PATH", path);
        }
        let servers: Vec<Server> = (0..servers)
            .map(|_| settings.clone().start())
            .collect::<tlsresume_testkit::Result<_>>()?;
        Ok(Fleet { addresses: servers.iter().map(Server::address).collect(), _servers: servers })
    }
}

fn make_certificate(folder: &Path, options: &[&str]) -> Outcome<(PathBuf, PathBuf)> {
    let (certificate, key) = (folder.join("cert.pem"), folder.join("key.pem"));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-nodes", "-days", "2", "-subj", "/CN=bench.example"])
        .args(options)
        .arg("-out")
        .arg(&certificate)
        .arg("-keyout")
        .arg(&key)
        .output()?;
    if !made.status.success() {
        return Err(String::from_utf8_lossy(&made.stderr).into());
    }
    Ok((certificate, key))
}

fn compare(
    site: Site,
    certificate: &'static str,
    mode: Mode,
    with: &Fleet,
    without: &Fleet,
) -> Outcome<Comparison> {
    let mut rates = [Vec::new(), Vec::new()];
    let mut resumed = [0.0, 0.0];
    for _ in 0..ROUNDS {
        for (side, fleet) in [without, with].into_iter().enumerate() {
            let (rate, percent) = run_load(fleet, mode)?;
            rates[side].push(rate);
            resumed[side] = percent;
        }
    }
    let [without, with] = rates;
    let ratio = Spread::of(with.iter().zip(&without).map(|(with, without)| with / without));
    Ok(Comparison {
        site: site.name(),
        certificate,
        mode: mode.to_string(),
        without: Spread::of(without).median,
        with: Spread::of(with).median,
        without_resumed: resumed[0],
        with_resumed: resumed[1],
        ratio,
        goal: site.goal(),
    })
}

/// Handshakes a second, and how many percent of them resumed.
fn run_load(fleet: &Fleet, mode: Mode) -> Outcome<(f64, f64)> {
    let mut command = Command::new(example("load_client")?);
    command.args(["--connections", &CONNECTIONS.to_string(), "--threads", &CLIENTS.to_string()]);
    command.args(match mode {
        Mode::Tls12Id => ["--tls1.2", "--no-ticket"].as_slice(),
        Mode::Tls12Ticket => &["--tls1.2"],
        Mode::Tls13 => &["--tls1.3"],
    });
    for address in &fleet.addresses {
        command.args(["--connect", &address.to_string()]);
    }

    let start = clock::since_boot();
    let output = command.output()?;
    let elapsed = clock::since_boot() - start;
    let report: LoadReport = serde_json::from_slice(&output.stdout)?;
    if report.handshakes != u64::from(CONNECTIONS) {
        return Err(format!("load_client: {report:?}").into());
    }
    let percent = count(report.resumed) / count(report.handshakes) * 100.0;
    Ok((count(report.handshakes) / elapsed.as_secs_f64(), percent))
}

fn count(number: u64) -> f64 {
    u32::try_from(number).map_or(f64::INFINITY, f64::from)
}

fn table(results: &[Comparison]) -> Table {
    let mut table = Table::new(
        "Handshakes a second, with the library and without",
        &format!(
            "{CLIENTS} clients that return again and again, each with its newest session; clients and servers share \
             {} cores. {ROUNDS} alternating rounds of {CONNECTIONS} connections; median ratio (min-max). Goal: what \
             the JDK's proposal for distributed TLS sessions asks of a cluster (1.20) and of a single node (1.05).",
            std::thread::available_parallelism().map_or(0, usize::from),
        ),
        &[
            "site",
            "certificate",
            "resumption",
            "without",
            "resumed",
            "with",
            "resumed",
            "ratio",
            "goal",
        ],
    );
    for result in results {
        let verdict = if result.ratio.median >= result.goal { "pass" } else { "fail" };
        table.row([
            result.site.to_owned(),
            result.certificate.to_owned(),
            result.mode.clone(),
            format!("{:.0}/s", result.without),
            format!("{:.0} %", result.without_resumed),
            format!("{:.0}/s", result.with),
            format!("{:.0} %", result.with_resumed),
            result.ratio.to_string(),
            format!("{:.2}: {verdict}", result.goal),
        ]);
    }
    table
}
