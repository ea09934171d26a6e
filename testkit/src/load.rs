//! The load client of the examples, as a child process.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use serde::Deserialize;

use crate::server::{OURS, example};
use crate::{Mode, Process, Result};

/// How long the first connection may take.
const LIMIT: Duration = Duration::from_secs(15);

/// A running `load_client` that has made its first connection and waits for
/// [`finish`](Load::finish) with the others.
#[derive(Debug)]
pub struct Load {
    process: Process,
}

/// What `load_client` says at its end.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct LoadReport {
    /// Connections whose handshake and response were in order.
    pub handshakes: u64,
    /// Those among them that resumed a session.
    pub resumed: u64,
    /// TLS failures.
    pub failed: u64,
    /// Connections that the server refused or cut off, as when it was killed.
    pub reset: u64,
    /// Those that offered a session in vain.
    pub not_resumed_after_first: u64,
    /// CPU time of the server's handshakes, all together, in microseconds.
    pub server_cpu_us: u64,
    /// From connect to the end of the handshake.
    pub latency_us: Latency,
    /// Text of the first TLS failure.
    pub first_error: String,
}

/// Percentiles in microseconds.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Latency {
    /// The median.
    pub p50: u64,
    /// The 99th percentile.
    pub p99: u64,
}

impl Load {
    /// Makes the first of `connections`, to the first of `addresses`; the others go round robin.
    pub fn start(addresses: &[SocketAddr], connections: u32, mode: Mode) -> Result<Load> {
        let mut command = Command::new(example("load_client")?);
        command.arg("--hold").args(["--connections", &connections.to_string()]);
        command.args(mode_options(mode));
        for address in addresses {
            command.args(["--connect", &address.to_string()]);
        }

        let process = Process::start(command, OURS)?;
        process.wait_for("its first connection", LIMIT, |transcript| {
            transcript.stdout().any(|line| line == "holding").then_some(())
        })?;
        Ok(Load { process })
    }

    /// Makes all other connections, which may take `limit` together.
    pub fn finish(mut self, limit: Duration) -> Result<LoadReport> {
        self.process.close_input();
        self.process.wait_end(limit)?;
        let transcript = self.process.transcript();
        transcript
            .stdout()
            .find_map(|line| serde_json::from_str(line).ok())
            .ok_or_else(|| self.process.unexpected("ended without a report"))
    }
}

fn mode_options(mode: Mode) -> &'static [&'static str] {
    match mode {
        Mode::Tls12Id => &["--tls1.2", "--no-ticket"],
        Mode::Tls12Ticket => &["--tls1.2"],
        Mode::Tls13 => &["--tls1.3"],
    }
}
