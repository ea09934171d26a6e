//! Redis: one place that all nodes of a realm read and write.
//!
//! Owns: addresses and credentials ([`Remote`]), connections ([`Link`]), which node of a cluster is asked, and the
//! names of what is kept there (drawn in docs/redis-layout.md). Called by: the agent's thread and the look-up thread;
//! by a handshake only where the configuration says so, and then no name of a host is looked up. Threads: a link
//! belongs to one. Forks: a link made before a fork is of no use after it. Failure: a [`Failure`]; every call ends
//! within the limit that its connection was made with, whatever Redis sends, apart from looking up names.
//!
//! What comes from Redis counts as hostile: time and memory are bounded where it is read (`connection.rs`), and it is
//! opened by who asked for it.

mod board;
mod caution;
mod cluster;
mod connection;
mod dial;
mod feed;
mod gap;
mod link;
mod names;
mod news;
mod remote;
#[cfg(test)]
mod tests;
mod tls;
mod vault;

pub use link::Link;
pub use names::Names;
pub use remote::{Credentials, NAME, Remote};

use super::transport::Failure;

/// Most entries that the stream keeps, roughly: what a node may miss while it is cut off, and take in when it joins.
const STREAM_LENGTH: u32 = 65_536;

impl From<redis::RedisError> for Failure {
    fn from(error: redis::RedisError) -> Self {
        Failure::Lost(fit_for_log(&error.to_string()))
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Failure::Lost(fit_for_log(&error.to_string()))
    }
}

/// An error that Redis answered with.
fn refused(error: &redis::ServerError) -> Failure {
    let text = format!("{} {}", error.code(), error.details().unwrap_or_default());
    Failure::of_server(error.code(), &text)
}

/// What another process says, as far as it may stand in a line of ours: not its control characters, not at any length,
/// and not our own command, which an unknown one is answered with, password and all.
fn fit_for_log(text: &str) -> String {
    let text = text.split("with args beginning with").next().unwrap_or_default();
    text.chars().take(MOST_TEXT).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// How Redis says that a key has another type than the command is for, and that a stream takes no more entries.
const USELESS: [&str; 2] = ["WRONGTYPE", "exhausted the last possible ID"];

/// Most characters of another's text in a line of ours.
const MOST_TEXT: usize = 200;

impl Failure {
    fn of_server(code: &str, text: &str) -> Self {
        let text = fit_for_log(text);
        match code {
            // Redis 6 has it within the text, where a script met it.
            _ if USELESS.iter().any(|said| text.contains(said)) => Failure::Strange(text),
            "OOM" => Failure::Full(text),
            // Nothing else will be answered either, or not by this server.
            "NOAUTH" | "WRONGPASS" | "LOADING" | "MASTERDOWN" | "READONLY" | "CLUSTERDOWN" => {
                Failure::Lost(text)
            }
            _ => Failure::Refused(text),
        }
    }

    /// An answer that is not what the command is documented to answer.
    fn garbage(command: &str) -> Self {
        Failure::Lost(format!("answers {command} with something else"))
    }
}
