//! `gnutls-cli --resume`, one process that disconnects and comes back by itself.

use std::net::SocketAddr;
use std::process::Command;

use super::{Answer, Client, Connection, Mode, Visitor};
use crate::{DEADLINE, Forwarder, Process, Result, wait_until};

/// The client. It waits for a ticket in TLS 1.3, so the server must send one.
#[derive(Debug, Clone, Copy)]
pub struct GnuTls {
    waits_for_tickets: bool,
}

/// The program has left the first server and is waiting at the forwarder.
struct GnuTlsVisitor {
    process: Process,
    forwarder: Forwarder,
    first: Connection,
}

impl GnuTls {
    /// One for servers that send tickets.
    pub fn new() -> GnuTls {
        GnuTls { waits_for_tickets: true }
    }

    /// One for servers that send none: it leaves as soon as it can, with what it has.
    pub fn without_waiting() -> GnuTls {
        GnuTls { waits_for_tickets: false }
    }

    fn command(self, at: SocketAddr, mode: Mode) -> Command {
        let mut command = Command::new("gnutls-cli");
        command.args(["--resume", "--no-ca-verification", "--priority", priority(mode)]);
        if mode == Mode::Tls13 && self.waits_for_tickets {
            command.arg("--waitresumption");
        }
        command.args(["--port", &at.port().to_string(), &at.ip().to_string()]);
        command
    }
}

impl Default for GnuTls {
    fn default() -> GnuTls {
        GnuTls::new()
    }
}

impl Client for GnuTls {
    fn name(&self) -> &'static str {
        "gnutls"
    }

    fn visit(&self, at: SocketAddr, mode: Mode) -> Result<Box<dyn Visitor>> {
        let forwarder = Forwarder::start()?;
        forwarder.send_next_to(at);
        let process = Process::start(self.command(forwarder.address(), mode), "gnutls-bin")?;
        // Its return tells that both sides are done with the first connection: its output, which
        // it buffers, does not.
        let has_returned = || forwarder.arrivals() == 2;
        wait_until("gnutls-cli's return", DEADLINE, || has_returned() || process.has_ended())?;
        if !has_returned() {
            return Err(process.unexpected(format!("cannot talk to {at}")));
        }
        let first = Connection { reused: false, answer: None };
        Ok(Box::new(GnuTlsVisitor { process, forwarder, first }))
    }
}

impl Visitor for GnuTlsVisitor {
    fn first(&self) -> &Connection {
        &self.first
    }

    fn come_back(mut self: Box<Self>, to: SocketAddr) -> Result<Connection> {
        self.forwarder.send_next_to(to);
        self.process.write("GET /\n")?;
        // Its input stays open: at its end the program would leave without the answer.
        if !self.process.wait_end(DEADLINE)?.success() {
            return Err(self.process.unexpected(format!("cannot talk to {to}")));
        }
        let transcript = self.process.transcript();
        Ok(Connection {
            reused: transcript.stdout().any(|line| line == "*** This is a resumed session"),
            answer: Answer::find_in(&transcript),
        })
    }
}

fn priority(mode: Mode) -> &'static str {
    match mode {
        Mode::Tls12Id => "NORMAL:-VERS-ALL:+VERS-TLS1.2:%NO_TICKETS",
        Mode::Tls12Ticket => "NORMAL:-VERS-ALL:+VERS-TLS1.2",
        Mode::Tls13 => "NORMAL:-VERS-ALL:+VERS-TLS1.3",
    }
}
