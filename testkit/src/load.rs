//! The load client of the examples, as a child process: a given number of connections, or traffic
//! that goes on until the test has seen enough.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde::Deserialize;

use crate::error::Doing;
use crate::server::{OURS, example};
use crate::{DEADLINE, Mode, Process, Result};

/// A running `load_client` that has made its first connection and waits for
/// [`finish`](Load::finish) with the others.
#[derive(Debug)]
pub struct Load {
    process: Process,
}

/// What `load_client` says at its end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct LoadReport {
    /// Connections whose handshake and response were in order.
    pub handshakes: u64,
    /// Those among them that resumed a session.
    pub resumed: u64,
    /// TLS failures.
    pub failed: u64,
    /// Those among them that got no answer in time.
    pub hung: u64,
    /// Connections that the server refused or cut off, as when it was killed.
    pub reset: u64,
    /// Those that offered a session in vain.
    pub not_resumed_after_first: u64,
    /// Offers that were in vain and were repeated ([`insist`](TrafficSettings::insist)).
    pub offered_again: u64,
    /// CPU time of the server's handshakes, all together, in microseconds.
    pub server_cpu_us: u64,
    /// The longest of all connections, served or not, from connect to the end of the answer, in
    /// microseconds.
    pub longest_us: u64,
    /// From connect to the end of the handshake.
    pub latency_us: Latency,
    /// The same of the handshakes that resumed nothing.
    pub full_us: Latency,
    /// From a client's getting a session to the beginning of the first connection that resumed it.
    pub delay_us: Latency,
    /// Text of the first TLS failure.
    pub first_error: String,
}

/// Percentiles in microseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Latency {
    /// The median.
    pub p50: u64,
    /// The 99th percentile.
    pub p99: u64,
    /// The longest.
    pub max: u64,
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
        process.wait_for("its first connection", DEADLINE, |transcript| {
            transcript.stdout().any(|line| line == "holding").then_some(())
        })?;
        Ok(Load { process })
    }

    /// Makes all other connections, which may take `limit` together.
    pub fn finish(mut self, limit: Duration) -> Result<LoadReport> {
        self.process.close_input();
        report(&mut self.process, limit)
    }
}

/// Keeps the other tests of this program that call it waiting: traffic of one would be noise, or
/// delay, to another.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Traffic until [`stop`](Traffic::stop): several clients at the same time, each returning with its
/// newest session. They start anew, with full handshakes, every second.
#[derive(Debug)]
pub struct Traffic {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<LoadReport>>>,
}

/// What traffic is like.
#[derive(Debug, Clone)]
pub struct TrafficSettings {
    addresses: Vec<SocketAddr>,
    mode: Mode,
    threads: u32,
    sni: Option<String>,
    insist: Option<Duration>,
    returns: Option<u32>,
}

impl Traffic {
    /// Settings for clients that go round `addresses`, two at the same time.
    pub fn to(addresses: impl IntoIterator<Item = SocketAddr>, mode: Mode) -> TrafficSettings {
        let addresses = addresses.into_iter().collect();
        TrafficSettings { addresses, mode, threads: 2, sni: None, insist: None, returns: None }
    }

    /// Ends it, after at most a second, and returns all that happened.
    pub fn stop(mut self) -> Result<LoadReport> {
        self.over.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("it is taken here alone, and in drop");
        thread.join().expect("the thread does not panic")
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // What it reports matters to nobody any more.
            let _ = thread.join();
        }
    }
}

impl TrafficSettings {
    /// How many clients there are at the same time.
    #[must_use]
    pub fn threads(mut self, threads: u32) -> TrafficSettings {
        self.threads = threads;
        self
    }

    /// The server name that they ask for.
    #[must_use]
    pub fn sni(mut self, name: impl Into<String>) -> TrafficSettings {
        self.sni = Some(name.into());
        self
    }

    /// A session that is not resumed is offered again, to the same address, until it is so old.
    #[must_use]
    pub fn insist(mut self, limit: Duration) -> TrafficSettings {
        self.insist = Some(limit);
        self
    }

    /// Clients begin anew, with a full handshake, after so many returns.
    #[must_use]
    pub fn returns(mut self, count: u32) -> TrafficSettings {
        self.returns = Some(count);
        self
    }

    /// Starts it.
    pub fn start(self) -> Result<Traffic> {
        let over = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&over);
        let thread = thread::Builder::new()
            .name("traffic".into())
            .spawn(move || {
                let mut total = LoadReport::default();
                while !stop.load(Ordering::Relaxed) {
                    total.add(&self.run("--seconds", 1, DEADLINE)?);
                }
                Ok(total)
            })
            .doing("starting a thread")?;
        Ok(Traffic { over, thread: Some(thread) })
    }

    /// Goes on for so many seconds, with one set of clients.
    pub fn seconds(&self, count: u32) -> Result<LoadReport> {
        self.run("--seconds", count, DEADLINE + Duration::from_secs(count.into()))
    }

    /// Makes so many connections, all clients together, and waits for their end.
    pub fn connections(&self, count: u32, limit: Duration) -> Result<LoadReport> {
        self.run("--connections", count, limit)
    }

    fn run(&self, until: &str, count: u32, limit: Duration) -> Result<LoadReport> {
        let mut command = Command::new(example("load_client")?);
        command.args([until, &count.to_string(), "--threads", &self.threads.to_string()]);
        command.args(mode_options(self.mode));
        for address in &self.addresses {
            command.args(["--connect", &address.to_string()]);
        }
        if let Some(name) = &self.sni {
            command.args(["--sni", name]);
        }
        if let Some(limit) = self.insist {
            command.args(["--insist", &limit.as_millis().to_string()]);
        }
        if let Some(count) = self.returns {
            command.args(["--returns", &count.to_string()]);
        }
        report(&mut Process::start(command, OURS)?, limit)
    }
}

impl LoadReport {
    /// Counts another report in; of latencies the worse ones stay.
    pub fn add(&mut self, other: &LoadReport) {
        self.handshakes += other.handshakes;
        self.resumed += other.resumed;
        self.failed += other.failed;
        self.hung += other.hung;
        self.reset += other.reset;
        self.not_resumed_after_first += other.not_resumed_after_first;
        self.offered_again += other.offered_again;
        self.server_cpu_us += other.server_cpu_us;
        self.longest_us = self.longest_us.max(other.longest_us);
        self.latency_us.worsen(&other.latency_us);
        self.full_us.worsen(&other.full_us);
        self.delay_us.worsen(&other.delay_us);
        if self.first_error.is_empty() {
            self.first_error.clone_from(&other.first_error);
        }
    }
}

impl Latency {
    fn worsen(&mut self, other: &Latency) {
        self.p50 = self.p50.max(other.p50);
        self.p99 = self.p99.max(other.p99);
        self.max = self.max.max(other.max);
    }
}

fn report(process: &mut Process, limit: Duration) -> Result<LoadReport> {
    process.wait_end(limit)?;
    let transcript = process.transcript();
    transcript
        .stdout()
        .find_map(|line| serde_json::from_str(line).ok())
        .ok_or_else(|| process.unexpected("ended without a report"))
}

fn mode_options(mode: Mode) -> &'static [&'static str] {
    match mode {
        Mode::Tls12Id => &["--tls1.2", "--no-ticket"],
        Mode::Tls12Ticket => &["--tls1.2"],
        Mode::Tls13 => &["--tls1.3"],
    }
}
