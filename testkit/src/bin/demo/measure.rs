//! The situations that returning clients find, and how they fare in them.

use std::net::SocketAddr;

use serde::Serialize;
use tlsresume_testkit::{Connection, DEADLINE, Load, LoadReport, Mode, Result, Visitor, client};

use crate::fleet::Fleet;
use crate::interrupt::{self, Outcome};

/// Connections of each load client.
const LOAD: u32 = 200;

/// What happens between a client's first visit and its return.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Situation {
    /// Nothing: the client is only sent to the other server.
    RoundRobin,
    /// Servers have begun to encrypt tickets with another key.
    AfterRotation,
    /// All workers were killed with SIGKILL.
    WorkersKilled,
    /// Both servers were stopped, then started.
    AfterRestart,
}

/// How the returning clients fared. Only connections that offered a session count.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Measurement {
    pub(crate) handshakes: u64,
    pub(crate) resumed: u64,
    pub(crate) failed: u64,
    /// Mean over the load clients' connections, in microseconds.
    pub(crate) server_cpu_us: u64,
    /// A line for each client that did not fare well.
    #[serde(skip)]
    troubles: Vec<String>,
}

impl Situation {
    pub(crate) const ALL: [Situation; 4] = [
        Situation::RoundRobin,
        Situation::AfterRotation,
        Situation::WorkersKilled,
        Situation::AfterRestart,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Situation::RoundRobin => "round robin",
            Situation::AfterRotation => "after rotation",
            Situation::WorkersKilled => "workers killed",
            Situation::AfterRestart => "after restart",
        }
    }

    fn bring_about(self, fleet: &mut Fleet) -> Outcome<()> {
        match self {
            Situation::RoundRobin => {}
            Situation::AfterRotation => fleet.await_rotation()?,
            Situation::WorkersKilled => fleet.kill_workers()?,
            Situation::AfterRestart => fleet.restart()?,
        }
        Ok(())
    }
}

impl Measurement {
    /// Nobody had to pay for a full handshake again.
    pub(crate) fn is_perfect(&self) -> bool {
        self.failed == 0 && self.resumed == self.handshakes
    }

    fn add_guest(&mut self, name: &str, returned: Result<Connection>) {
        self.handshakes += 1;
        match returned {
            Ok(connection) if is_resumed(&connection) => self.resumed += 1,
            Ok(_) => self.troubles.push(format!("{name}: not resumed")),
            Err(error) => {
                self.failed += 1;
                self.troubles.push(format!("{name}: {error}"));
            }
        }
    }

    /// By now no server is going away: a connection that was cut is a failure.
    fn add_load(&mut self, report: &LoadReport, mode: Mode) {
        let (unresumed, failed) = (report.not_resumed_after_first, report.failed + report.reset);
        self.handshakes += u64::from(LOAD) - 1;
        self.resumed += report.resumed;
        self.failed += failed;
        if unresumed + failed > 0 {
            let counts = format!("{unresumed} not resumed, {failed} failed");
            self.troubles.push(format!("load_client, {mode}: {counts}. {}", report.first_error));
        }
    }
}

/// Sends every client on its first visit, brings the situation about, and has them all come back.
pub(crate) fn measure(fleet: &mut Fleet, situation: Situation) -> Outcome<Measurement> {
    let half = if fleet.has_library() { "with" } else { "without" };
    progress(&format!("{half} the library: {}", situation.name()));
    let addresses = fleet.addresses();
    let guests = first_visits(addresses)?;
    let loads = start_loads(addresses)?;

    situation.bring_about(fleet)?;

    let mut measurement = Measurement::default();
    for guest in guests {
        interrupt::check()?;
        measurement.add_guest(&guest.name, guest.visitor.come_back(guest.next));
    }
    finish_loads(loads, &mut measurement)?;
    if fleet.has_library() && !measurement.troubles.is_empty() {
        progress(&measurement.troubles.join("\n"));
        progress(&fleet.log());
    }
    Ok(measurement)
}

/// A client between its visits.
struct Guest {
    name: String,
    visitor: Box<dyn Visitor>,
    next: SocketAddr,
}

/// Every client in every mode, half of them at each server, to return at the other one.
fn first_visits([a, b]: [SocketAddr; 2]) -> Outcome<Vec<Guest>> {
    let mut guests = Vec::new();
    for client in client::all() {
        for mode in Mode::ALL {
            interrupt::check()?;
            let (at, next) = if guests.len() % 2 == 0 { (a, b) } else { (b, a) };
            let name = format!("{}, {mode}", client.name());
            let visitor = client.visit(at, mode)?;
            guests.push(Guest { name, visitor, next });
        }
    }
    Ok(guests)
}

/// Client and server agree on it.
fn is_resumed(connection: &Connection) -> bool {
    let server_agrees = connection.answer.as_ref().is_some_and(|it| it.resumed);
    connection.reused && server_agrees
}

fn start_loads(addresses: [SocketAddr; 2]) -> Result<Vec<Load>> {
    let start = |mode| Load::start(&addresses, LOAD, mode);
    Mode::ALL.into_iter().map(start).collect()
}

fn finish_loads(loads: Vec<Load>, measurement: &mut Measurement) -> Outcome<()> {
    let (mut cpu_us, mut handshakes) = (0, 0);
    for (load, mode) in loads.into_iter().zip(Mode::ALL) {
        interrupt::check()?;
        let report = load.finish(DEADLINE)?;
        cpu_us += report.server_cpu_us;
        handshakes += report.handshakes;
        measurement.add_load(&report, mode);
    }
    measurement.server_cpu_us = cpu_us.checked_div(handshakes).unwrap_or_default();
    Ok(())
}

#[expect(clippy::print_stderr, reason = "stdout is for the result")]
fn progress(text: &str) {
    eprintln!("{text}");
}
