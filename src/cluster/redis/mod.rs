//! Redis: one place that all nodes of a realm read and write.
//!
//! Owns: addresses and credentials ([`Remote`]), connections ([`Link`]), which node of a cluster is asked, and the names
//! of what is kept there (drawn in docs/redis-layout.md). Called by: the agent's thread and the look-up thread; by a
//! handshake only where the configuration says so, and then no name of a host is looked up. Threads: a link belongs to one.
//! Forks: a link made before a fork is of no use after it. Failure: a [`Trouble`]; every call ends within the time limit
//! that its connection was made with, per answer (with a cluster: per call), apart from what looking up names takes.
//!
//! What comes from Redis counts as hostile: it is bounded where it is read and opened by who asked for it.

mod authorities;
mod cluster;
mod dial;
mod link;
mod names;
mod news;
mod remote;

pub use link::{Copy, Link, Outgoing};
pub use names::Names;
pub use news::{News, Pace};
pub use remote::{Credentials, Remote};

/// Why Redis did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// The connection is of no use any more, or there never was one.
    #[error("{0}")]
    Lost(String),
    /// Redis answered with an error; the connection goes on.
    #[error("{0}")]
    Refused(String),
    /// Redis has no memory left for what was to be written (maxmemory with noeviction).
    #[error("out of memory: {0}")]
    Full(String),
}

impl From<redis::RedisError> for Trouble {
    fn from(error: redis::RedisError) -> Self {
        let text = error.to_string();
        match error.kind() {
            redis::ErrorKind::Server(_) | redis::ErrorKind::Extension => {
                Trouble::of_server(error.code().unwrap_or_default(), text)
            }
            _ => Trouble::Lost(text),
        }
    }
}

impl Trouble {
    fn of_server(code: &str, text: String) -> Self {
        match code {
            "OOM" => Trouble::Full(text),
            // Nothing else will be answered either, or not by this server.
            "NOAUTH" | "WRONGPASS" | "LOADING" | "MASTERDOWN" | "READONLY" | "CLUSTERDOWN" => {
                Trouble::Lost(text)
            }
            _ => Trouble::Refused(text),
        }
    }

    /// An answer that is not what the command is documented to answer.
    fn garbage(command: &str) -> Self {
        Trouble::Lost(format!("answers {command} with something else"))
    }
}
