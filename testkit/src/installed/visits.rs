//! Clients of installed servers: many visits by one process on Python's `ssl`, see
//! `clients/visits.py`.

use std::net::{IpAddr, SocketAddr};
use std::process::Command;

use serde::Deserialize;
use serde_json::json;

use super::certs::Files;
use super::{Installed, Speaks};
use crate::{DEADLINE, Mode, Process, Result};

const SCRIPT: &str = include_str!("../../clients/visits.py");

/// Clients that keep their sessions; one connection is open at a time.
#[derive(Debug)]
pub struct Visits {
    process: Process,
    replies: usize,
}

/// A session that a visit brought home. It can be offered as often as one likes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Session(usize);

/// One connection, to any address.
#[derive(Debug, Clone)]
pub struct Call<'a> {
    to: SocketAddr,
    mode: Mode,
    speaks: Speaks,
    session: Option<Session>,
    name: &'a str,
    certificate: Option<&'a Files>,
}

/// What a connection was like.
#[derive(Debug, Clone)]
pub struct Visit {
    /// Whether the session was resumed, as the client sees it.
    pub reused: bool,
    /// Whether one was offered.
    pub offered: bool,
    /// The newest session, to come back with; `None`: the server gave none.
    pub session: Option<Session>,
    /// Whether that session is a ticket.
    pub ticket: bool,
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: String,
    /// The client's end of the connection.
    pub from: SocketAddr,
    /// Status line and body; from PostgreSQL, the type of its first message.
    pub answer: String,
    /// The process that served it; 0 where nobody asked.
    pub worker: u32,
}

/// What the script answers.
#[derive(Debug, Deserialize)]
struct Reply {
    reused: bool,
    offered: bool,
    session: Option<usize>,
    ticket: bool,
    version: String,
    from: (IpAddr, u16),
    answer: String,
}

impl<'a> Call<'a> {
    /// One to `to`, for HTTP, that asks for `localhost` and offers nothing.
    pub fn to(to: SocketAddr, mode: Mode) -> Call<'a> {
        let (speaks, session, name) = (Speaks::Http, None, "localhost");
        Call { to, mode, speaks, session, name, certificate: None }
    }

    /// Offers this session.
    #[must_use]
    pub fn with(mut self, session: impl Into<Option<Session>>) -> Call<'a> {
        self.session = session.into();
        self
    }

    /// Asks for this server name.
    #[must_use]
    pub fn name(mut self, name: &'a str) -> Call<'a> {
        self.name = name;
        self
    }

    /// Has this certificate. Sessions of clients with another one cannot be offered.
    #[must_use]
    pub fn certificate(mut self, files: &'a Files) -> Call<'a> {
        self.certificate = Some(files);
        self
    }

    /// What to speak inside TLS.
    #[must_use]
    pub fn speaks(mut self, speaks: Speaks) -> Call<'a> {
        self.speaks = speaks;
        self
    }
}

impl Visits {
    /// Starts the clients' process.
    pub fn start() -> Result<Visits> {
        let mut command = Command::new("python3");
        // -I: nothing but the standard library, whatever the user's environment says.
        command.args(["-I", "-c", SCRIPT]);
        Ok(Visits { process: Process::start(command, "python3")?, replies: 0 })
    }

    /// Connects, offers the session and has a request answered; the connection stays open until
    /// [`close`](Visits::close).
    pub fn connect(&mut self, call: &Call<'_>) -> Result<Visit> {
        let speaks = match call.speaks {
            Speaks::Http => "http",
            Speaks::Postgres => "postgres",
        };
        let mode = match call.mode {
            Mode::Tls12Id => "tls12-id",
            Mode::Tls12Ticket => "tls12-ticket",
            Mode::Tls13 => "tls13",
        };
        let certificate = call.certificate.map(|it| [&it.certificate, &it.key]);
        let reply = self.ask(&json!({
            "host": call.to.ip(), "port": call.to.port(), "mode": mode, "speaks": speaks,
            "session": call.session.map(|it| it.0), "name": call.name, "certificate": certificate,
        }))?;
        let reply: Reply = serde_json::from_str(&reply).map_err(|_| {
            self.process.unexpected(format!("{} with {}: {reply}", call.to, call.mode))
        })?;
        Ok(Visit {
            reused: reply.reused,
            offered: reply.offered,
            session: reply.session.map(Session),
            ticket: reply.ticket,
            version: reply.version,
            from: reply.from.into(),
            answer: reply.answer,
            worker: 0,
        })
    }

    /// Ends the open connection, with close_notify.
    pub fn close(&mut self) -> Result<()> {
        self.ask(&json!({ "close": true })).map(drop)
    }

    /// A whole visit to a server: connects, finds the worker, closes.
    pub fn visit(
        &mut self,
        server: &Installed,
        mode: Mode,
        session: impl Into<Option<Session>>,
    ) -> Result<Visit> {
        let speaks = server.program().speaks();
        let call = Call::to(server.address(), mode).speaks(speaks).with(session);
        let mut visit =
            self.connect(&call).map_err(|error| server.unexpected(error.to_string()))?;
        visit.worker = server.worker_of(visit.from)?;
        self.close()?;
        Ok(visit)
    }

    fn ask(&mut self, request: &serde_json::Value) -> Result<String> {
        self.process.write(&format!("{request}\n"))?;
        let nth = self.replies;
        self.replies += 1;
        self.process.wait_for("an answer", DEADLINE, |transcript| {
            transcript.stdout().nth(nth).map(str::to_owned)
        })
    }
}
