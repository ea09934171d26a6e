//! The clients of all servers: load clients that make a round for each phase. Half of them are regulars, who come with
//! the session that they have had since before the first phase; the others are new again and again, return once to the
//! other node, and are heard of no more. Bystanders do the same at a server that shares nothing, at the same time: what
//! they wait for is the machine.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use tlsresume_testkit::server::example;
use tlsresume_testkit::{LoadReport, Process};

use crate::support::Outcome;

/// At the same time, half of each kind; few enough that nobody waits for a free worker or thread of a server that does
/// well.
pub(crate) const COUNT: u32 = 8;

/// Those who come to a server without any fault.
const BYSTANDERS: u32 = 2;

/// Of each between its visits: the machine is not to be busy, so that who waits does not wait for others.
pub(crate) const PAUSE_MS: u32 = 20;

/// A client that hears nothing for so long gives up.
pub(crate) const PATIENCE_S: u32 = 12;

pub(crate) struct Clients {
    regulars: Group,
    newcomers: Group,
    bystanders: Group,
}

/// What all kinds saw in one round.
pub(crate) struct Visits {
    pub(crate) regulars: LoadReport,
    pub(crate) newcomers: LoadReport,
    pub(crate) bystanders: LoadReport,
}

struct Group {
    process: Process,
    /// How often they were sent.
    rounds: usize,
}

impl Clients {
    pub(crate) fn of(addresses: &[SocketAddr], bystander: &[SocketAddr]) -> Outcome<Clients> {
        Ok(Clients {
            regulars: Group::start(addresses, COUNT / 2, &[])?,
            newcomers: Group::start(addresses, COUNT / 2, &["--returns", "1"])?,
            bystanders: Group::start(bystander, BYSTANDERS, &["--returns", "1"])?,
        })
    }

    /// Visits begin for so long; returns when the last one has ended.
    pub(crate) fn visit(&mut self, seconds: u32) -> Outcome<Visits> {
        self.regulars.send(seconds)?;
        self.newcomers.send(seconds)?;
        self.bystanders.send(seconds)?;
        Ok(Visits {
            regulars: self.regulars.await_return()?,
            newcomers: self.newcomers.await_return()?,
            bystanders: self.bystanders.await_return()?,
        })
    }
}

impl Group {
    fn start(addresses: &[SocketAddr], count: u32, options: &[&str]) -> Outcome<Group> {
        let mut command = Command::new(example("load_client")?);
        command.args(["--rounds", "--tls1.2", "--no-ticket"]).args(options);
        command.args(["--threads", &count.to_string(), "--pause", &PAUSE_MS.to_string()]);
        command.args(["--timeout", &PATIENCE_S.to_string()]);
        for address in addresses {
            command.args(["--connect", &address.to_string()]);
        }
        Ok(Group { process: Process::start(command, "libtlsresume")?, rounds: 0 })
    }

    fn send(&mut self, seconds: u32) -> Outcome<()> {
        self.rounds += 1;
        Ok(self.process.write(&format!("{seconds}\n"))?)
    }

    fn await_return(&self) -> Outcome<LoadReport> {
        let limit = Duration::from_secs(u64::from(4 * PATIENCE_S));
        Ok(self.process.wait_for("a report", limit, |transcript| {
            let reports = transcript.stdout().filter_map(|line| serde_json::from_str(line).ok());
            reports.into_iter().nth(self.rounds - 1)
        })?)
    }
}
