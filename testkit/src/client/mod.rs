//! Real clients, all with one operation: a first visit, and a return with the session it gave.

mod gnutls;
mod openssl;
mod python;

use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::Result;
use crate::process::Transcript;

pub use gnutls::GnuTls;
pub use openssl::{OpenSsl, OpenSslVisitor};
pub use python::Python;

/// How a client resumes. With [`Mode::Tls13`] the server decides whether its tickets carry the
/// session or are handles into its store (`TLSRESUME_RESUMPTION_MODE`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub enum Mode {
    /// TLS 1.2 by session id: the client refuses tickets.
    Tls12Id,
    /// TLS 1.2 by ticket.
    Tls12Ticket,
    /// TLS 1.3.
    Tls13,
}

/// What one connection was like.
#[derive(Debug, Clone)]
pub struct Connection {
    /// Whether the session was resumed, as the client sees it.
    pub reused: bool,
    /// What the server says; [`GnuTls`] asks nothing on its first visit.
    pub answer: Option<Answer>,
}

/// The answer of `prefork_server` to any request but `GET /stats`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Answer {
    /// The server's `--name`.
    pub server: String,
    /// Number of the worker process.
    pub worker: u32,
    /// Number of the thread in it.
    pub thread: u32,
    /// Its process id.
    pub pid: u32,
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: String,
    /// Whether the session was resumed, as the server sees it.
    pub resumed: bool,
    /// The server name that OpenSSL reports; empty for none.
    pub name: String,
    /// Whether the server has a certificate of the client.
    pub client_cert: bool,
    /// `not sent`, `accepted` or `rejected`.
    pub early_data: String,
    /// CPU time of the server's handshake in microseconds.
    pub cpu_us: u64,
}

/// A TLS client.
pub trait Client {
    /// Its name, for messages.
    fn name(&self) -> &'static str;

    /// Connects for the first time and keeps the session.
    fn visit(&self, at: SocketAddr, mode: Mode) -> Result<Box<dyn Visitor>>;
}

/// A client that holds a session. Between the visits a test may do to the servers what it likes.
pub trait Visitor {
    /// The first connection.
    fn first(&self) -> &Connection;

    /// Connects again, to any server, and offers the session.
    fn come_back(self: Box<Self>, to: SocketAddr) -> Result<Connection>;
}

/// One of each.
pub fn all() -> [Box<dyn Client>; 3] {
    [Box::new(OpenSsl::new()), Box::new(GnuTls::new()), Box::new(Python)]
}

impl Connection {
    /// Client and server agree that the session was resumed.
    pub fn resumed(&self) -> bool {
        self.reused && self.answer.as_ref().is_some_and(|answer| answer.resumed)
    }

    /// Client and server agree that it was not.
    pub fn refused(&self) -> bool {
        !self.reused && self.answer.as_ref().is_some_and(|answer| !answer.resumed)
    }
}

impl Mode {
    /// All of them.
    pub const ALL: [Mode; 3] = [Mode::Tls12Id, Mode::Tls12Ticket, Mode::Tls13];
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mode::Tls12Id => "TLS 1.2 session id",
            Mode::Tls12Ticket => "TLS 1.2 ticket",
            Mode::Tls13 => "TLS 1.3",
        })
    }
}

impl Answer {
    /// The last answer among what a client printed.
    fn find_in(transcript: &Transcript) -> Option<Answer> {
        transcript.stdout().filter_map(|line| serde_json::from_str(line).ok()).last()
    }
}
