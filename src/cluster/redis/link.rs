//! A connection: commands and their answers. What it is used for is in `board.rs`, `feed.rs` and `vault.rs`.

use std::collections::VecDeque;
use std::time::Duration;

use redis::{Cmd, FromRedisValue, Value};

use super::caution::Caution;
use super::cluster::Cluster;
use super::connection::Connection;
use super::names::{ENTRY, Names};
use super::{STREAM_LENGTH, refused};
use crate::clock;
use crate::cluster::transport::{Channel, Failure, Feed, Outgoing};

/// A connection to a server, or to all servers of a cluster.
pub(super) enum Wire {
    Server(Box<Connection>),
    Cluster(Box<Cluster>),
}

/// A connection of one thread. After [`Failure::Lost`] it is of no more use.
pub struct Link {
    pub(super) wire: Wire,
    pub(super) names: Names,
    /// How long a call may take.
    pub(super) limit: Duration,
    /// Redis tells on this connection when there is news.
    pub(super) is_told: bool,
    /// How the stream is read.
    pub(super) caution: Caution,
    /// Questions whose answers were not fetched yet, in their order.
    pub(super) asked: VecDeque<Asked>,
}

/// A question that was sent.
pub(super) struct Asked {
    pub(super) count: usize,
    /// There already.
    pub(super) answers: Option<Vec<Value>>,
}

impl Channel for Link {
    fn send(&mut self, batch: &[Outgoing], keep: Duration) -> Result<(), Failure> {
        let mut commands: Vec<_> = batch.iter().map(|item| self.outgoing(item)).collect();
        if batch.iter().any(|item| matches!(item, Outgoing::Entry(_))) {
            commands.push(expire(&self.names.stream, keep));
        }
        if commands.is_empty() {
            return Ok(());
        }
        let until = self.until();
        self.all(commands, until)?;
        self.tell(until)
    }

    fn feed(&mut self) -> Option<&mut dyn Feed> {
        Some(self)
    }
}

impl Link {
    pub(super) fn new(wire: Wire, names: Names, caution: Caution, limit: Duration) -> Self {
        Link { wire, names, limit, is_told: false, caution, asked: VecDeque::new() }
    }

    /// When a call that begins now has to be over.
    pub(super) fn until(&self) -> Duration {
        clock::since_boot() + self.limit
    }

    /// Tells whoever listens that there is news: they read it themselves, a notice has no authority. Without permission
    /// to tell, the others find it when they look.
    fn tell(&mut self, until: Duration) -> Result<(), Failure> {
        if !self.is_told {
            return Ok(());
        }
        let mut publish = redis::cmd("PUBLISH");
        publish.arg(&self.names.notices).arg("");
        match self.ask(&publish, until) {
            // Its answer may still come, and would be taken for another one's.
            Err(lost @ Failure::Lost(_)) => Err(lost),
            _ => Ok(()),
        }
    }

    fn outgoing(&self, item: &Outgoing) -> Cmd {
        match item {
            Outgoing::Entry(entry) => {
                let mut add = redis::cmd("XADD");
                add.arg(&self.names.stream).arg("MAXLEN").arg("~").arg(STREAM_LENGTH);
                add.arg("*").arg(ENTRY).arg(entry);
                add
            }
            Outgoing::Session(key, sealed, keep) => {
                let mut set = redis::cmd("SET");
                set.arg(self.names.session(key)).arg(sealed).arg("PX").arg(millis(*keep));
                set
            }
            Outgoing::Forget(key) => {
                let mut delete = redis::cmd("UNLINK");
                delete.arg(self.names.session(key));
                delete
            }
        }
    }

    pub(super) fn ask_for<T: FromRedisValue>(
        &mut self,
        command: &Cmd,
        name: &str,
        until: Duration,
    ) -> Result<T, Failure> {
        T::from_redis_value(self.ask(command, until)?).map_err(|_| Failure::garbage(name))
    }

    pub(super) fn ask(&mut self, command: &Cmd, until: Duration) -> Result<Value, Failure> {
        let answers = self.all(vec![command.clone()], until)?;
        answers.into_iter().next().ok_or_else(|| Failure::garbage("a command"))
    }

    /// Sends all commands, then reads all answers. The first error is the result.
    pub(super) fn all(
        &mut self,
        commands: Vec<Cmd>,
        until: Duration,
    ) -> Result<Vec<Value>, Failure> {
        self.exchange(&commands, until)?.into_iter().map(sound).collect()
    }

    /// Sends all commands, then reads all answers, errors among them.
    pub(super) fn exchange(
        &mut self,
        commands: &[Cmd],
        until: Duration,
    ) -> Result<Vec<Value>, Failure> {
        match &mut self.wire {
            Wire::Server(connection) => connection.exchange(commands, until),
            Wire::Cluster(cluster) => cluster.all(commands, until),
        }
    }
}

/// The answer, unless it is an error.
pub(super) fn sound(answer: Value) -> Result<Value, Failure> {
    match answer {
        Value::ServerError(error) => Err(refused(&error)),
        answer => Ok(answer),
    }
}

pub(super) fn expire(key: &str, keep: Duration) -> Cmd {
    let mut expire = redis::cmd("PEXPIRE");
    expire.arg(key).arg(millis(keep));
    expire
}

/// For Redis, which takes no time of zero.
pub(super) fn millis(duration: Duration) -> u64 {
    clock::millis(duration).max(1)
}
