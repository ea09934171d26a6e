//! The resumption matrix: every kind of session, at every other place, by every client.

use std::fmt;

use crate::{Client, Connection, Folder, Mode, Result, Server, Visitor};

/// How sessions are kept: what a client asks for, and what the server is set to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// TLS 1.2, by session id.
    Tls12Id,
    /// TLS 1.2, by ticket.
    Tls12Ticket,
    /// TLS 1.3, tickets that carry the session.
    Tls13Stateless,
    /// TLS 1.3, tickets that are handles into the store.
    Tls13Stateful,
}

/// Where a client comes back to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Another thread of the process that it was at.
    OtherThread,
    /// Another process of the same server.
    OtherWorker,
    /// Another server on the same memory path.
    OtherServer,
    /// The server that it was at, after all servers on that memory path were restarted.
    AfterRestart,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 4] =
        [Kind::Tls12Id, Kind::Tls12Ticket, Kind::Tls13Stateless, Kind::Tls13Stateful];

    /// What the client does.
    pub fn client_mode(self) -> Mode {
        match self {
            Kind::Tls12Id => Mode::Tls12Id,
            Kind::Tls12Ticket => Mode::Tls12Ticket,
            Kind::Tls13Stateless | Kind::Tls13Stateful => Mode::Tls13,
        }
    }

    /// The server's `TLSRESUME_RESUMPTION_MODE`.
    pub fn server_mode(self) -> &'static str {
        match self {
            Kind::Tls12Id | Kind::Tls12Ticket | Kind::Tls13Stateless => "stateless",
            Kind::Tls13Stateful => "stateful",
        }
    }

    /// Whether sessions are in the store, rather than in the ticket.
    pub fn is_stored(self) -> bool {
        matches!(self, Kind::Tls12Id | Kind::Tls13Stateful)
    }
}

impl Place {
    /// All of them.
    pub const ALL: [Place; 4] =
        [Place::OtherThread, Place::OtherWorker, Place::OtherServer, Place::AfterRestart];
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Tls12Id => "TLS 1.2 id",
            Kind::Tls12Ticket => "TLS 1.2 ticket",
            Kind::Tls13Stateless => "TLS 1.3 stateless",
            Kind::Tls13Stateful => "TLS 1.3 stateful",
        })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Place::OtherThread => "other thread",
            Place::OtherWorker => "other worker",
            Place::OtherServer => "other server",
            Place::AfterRestart => "after restart of everything",
        })
    }
}

/// Has `client` visit and come back `visits` times, with servers of this cell's own, and returns
/// how it was on its returns.
///
/// # Panics
/// When a return was to another place than this cell is about: then the result means nothing.
pub fn run(
    client: &dyn Client,
    kind: Kind,
    place: Place,
    visits: usize,
) -> Result<Vec<Connection>> {
    let memory = Folder::in_memory()?;
    let start = |name: &str| {
        Server::example()?
            .args(["--direct", "--workers", "2", "--threads", "2", "--name", name])
            .env("TLSRESUME_MEMORY_PATH", memory.file("sessions"))
            .env("TLSRESUME_RESUMPTION_MODE", kind.server_mode())
            .start()
    };
    let (mut one, mut other) = (start("one")?, None);
    if matches!(place, Place::OtherServer | Place::AfterRestart) {
        other = Some(start("other")?);
    }

    let first = one.direct(0, 0)?;
    let first_pids: Vec<u32> = one.loops().iter().map(|it| it.pid).collect();
    let mut visitors = Vec::new();
    for _ in 0..visits {
        let visitor = client.visit(first, kind.client_mode())?;
        assert!(!visitor.first().reused, "a first visit cannot be a return");
        visitors.push(visitor);
    }

    if let (Place::AfterRestart, Some(other)) = (place, &mut other) {
        // Both are gone before the first of them starts again: nothing lives on in a process.
        one.stop()?;
        other.stop()?;
        one.restart()?;
        other.restart()?;
    }
    let (server, (worker, thread), target) = match (place, &other) {
        (Place::OtherServer, Some(other)) => ("other", (0, 0), other.direct(0, 0)?),
        (Place::OtherThread, _) => ("one", (0, 1), one.direct(0, 1)?),
        (Place::OtherWorker, _) => ("one", (1, 0), one.direct(1, 0)?),
        (Place::OtherServer | Place::AfterRestart, _) => ("one", (0, 0), one.direct(0, 0)?),
    };
    let come_back = |visitor: Box<dyn Visitor>| {
        let back = visitor.come_back(target)?;
        let answer = back.answer.as_ref().expect("every server answers");
        assert_eq!((&*answer.server, answer.worker, answer.thread), (server, worker, thread));
        let same_process = answer.pid == first_pids[0];
        assert_eq!(same_process, place == Place::OtherThread, "{back:?}");
        Ok(back)
    };
    visitors.into_iter().map(come_back).collect()
}
