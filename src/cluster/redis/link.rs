//! A connection, and the few things that are done with it.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use redis::{Cmd, FromRedisValue, Value};

use super::cluster::Cluster;
use super::connection::Connection;
use super::hash::{LONGEST_TOKEN, TOKEN};
use super::news::ENTRY;
use super::{Names, STREAM_LENGTH, Trouble, refused};
use crate::clock::{self, UnixMillis};

/// Compares the token of the ring's copy, then writes fields; no token is an empty argument, and none is one that is
/// too long to be one.
const WRITE_AFTER: &str = "\
    local token = redis.call('HGET', KEYS[1], ARGV[4]) or '' \
    if #token > tonumber(ARGV[3]) then token = '' end \
    if token ~= ARGV[1] then return 0 end \
    for at = 4, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[at], ARGV[at + 1]) end \
    redis.call('PEXPIRE', KEYS[1], ARGV[2]) \
    return 1";

/// Something that is written for the others.
#[derive(Clone, Debug)]
pub enum Outgoing {
    /// An entry of the stream.
    Entry(Vec<u8>),
    /// A session that is looked up by its key, for as long.
    Session([u8; 24], Vec<u8>, Duration),
    /// A session that must not be found any more.
    Forget([u8; 24]),
}

/// A session that is looked up, and whether it is taken.
pub type Wanted = ([u8; 24], bool);

/// The shared copy of the ring: its token and its sealed parts.
#[derive(Debug, Default)]
pub struct Copy {
    /// Moves with each change; none while there is no copy.
    pub token: Option<Vec<u8>>,
    /// Sealed, by field.
    pub parts: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// A connection to a server, or to all servers of a cluster.
pub(super) enum Wire {
    Server(Box<Connection>),
    Cluster(Box<Cluster>),
}

/// A connection of one thread. After [`Trouble::Lost`] it is of no more use.
pub struct Link {
    wire: Wire,
    pub(super) names: Names,
    /// How long a call may take.
    limit: Duration,
    /// Redis tells on this connection when there is news.
    is_told: bool,
    /// Questions whose answers were not fetched yet, in their order.
    asked: VecDeque<Asked>,
}

/// A question that was sent.
struct Asked {
    count: usize,
    /// There already.
    answers: Option<Vec<Value>>,
}

impl Link {
    pub(super) fn new(wire: Wire, names: Names, limit: Duration) -> Self {
        Link { wire, names, limit, is_told: false, asked: VecDeque::new() }
    }

    /// Asks to be told when there is news. A cluster does not tell, and permissions may lack: then it is polled.
    ///
    /// # Errors
    /// [`Trouble`].
    pub fn listen(&mut self) -> Result<(), Trouble> {
        let until = self.until();
        if let Wire::Server(connection) = &mut self.wire {
            self.is_told = connection.subscribe(&self.names.notices, until)?;
        }
        Ok(())
    }

    /// Whether Redis tells on this connection when there is news.
    pub fn is_told(&self) -> bool {
        self.is_told
    }

    /// Waits until Redis tells that there is news; `false` when it does not for so long.
    ///
    /// # Errors
    /// [`Trouble`].
    pub fn wait_for_notice(&mut self, longest: Duration) -> Result<bool, Trouble> {
        match &mut self.wire {
            Wire::Server(connection) => connection.wait(longest),
            Wire::Cluster(_) => Ok(false),
        }
    }

    /// Whether there were notices since this was asked last.
    pub fn has_notice(&mut self) -> bool {
        match &mut self.wire {
            Wire::Server(connection) => connection.was_told(),
            Wire::Cluster(_) => false,
        }
    }

    /// A call takes no longer than this from now on.
    pub fn limit(&mut self, limit: Duration) {
        self.limit = limit;
    }

    /// When a call that begins now has to be over.
    pub(super) fn until(&self) -> Duration {
        clock::since_boot() + self.limit
    }

    /// Writes parts of the ring under a new token, all at once.
    ///
    /// # Errors
    /// [`Trouble`].
    pub fn write_ring(
        &mut self,
        write: &[(Vec<u8>, Vec<u8>)],
        token: &[u8],
        keep: Duration,
    ) -> Result<(), Trouble> {
        let mut set = redis::cmd("HSET");
        set.arg(&self.names.ring).arg(TOKEN).arg(token);
        write.iter().for_each(|(field, value)| {
            set.arg(field).arg(value);
        });
        self.all(vec![set, expire(&self.names.ring, keep)], self.until()).map(drop)
    }

    /// The same, unless the copy has changed since it had the token `known`; whether it was written.
    ///
    /// # Errors
    /// [`Trouble`].
    pub fn write_ring_after(
        &mut self,
        known: Option<&[u8]>,
        write: &[(Vec<u8>, Vec<u8>)],
        token: &[u8],
        keep: Duration,
    ) -> Result<bool, Trouble> {
        let mut eval = redis::cmd("EVAL");
        eval.arg(WRITE_AFTER).arg(1).arg(&self.names.ring);
        eval.arg(known.unwrap_or_default())
            .arg(millis(keep))
            .arg(LONGEST_TOKEN)
            .arg(TOKEN)
            .arg(token);
        write.iter().for_each(|(field, value)| {
            eval.arg(field).arg(value);
        });
        self.ask_for(&eval, "EVAL", self.until())
    }

    /// What time it is for Redis.
    ///
    /// # Errors
    /// [`Trouble`].
    pub fn time(&mut self) -> Result<UnixMillis, Trouble> {
        let (seconds, _): (u64, u64) = self.ask_for(&redis::cmd("TIME"), "TIME", self.until())?;
        Ok(UnixMillis::from_secs(seconds))
    }

    /// Says that this node lives, and what it says.
    ///
    /// # Errors
    /// [`Trouble`].
    pub fn beat(&mut self, node: &str, sealed: &[u8], keep: Duration) -> Result<(), Trouble> {
        let mut set = redis::cmd("HSET");
        set.arg(&self.names.nodes).arg(node).arg(sealed);
        self.all(vec![set, expire(&self.names.nodes, keep)], self.until()).map(drop)
    }

    /// Writes a batch. On an error none or some of it was written; writing it again does no harm, except where a
    /// session may be used once only.
    ///
    /// # Errors
    /// [`Trouble`].
    pub fn send(&mut self, batch: &[Outgoing], keep: Duration) -> Result<(), Trouble> {
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

    /// Tells whoever listens that there is news: they read it themselves, a notice has no authority. Without permission
    /// to tell, the others find it when they look.
    fn tell(&mut self, until: Duration) -> Result<(), Trouble> {
        if !self.is_told {
            return Ok(());
        }
        let mut publish = redis::cmd("PUBLISH");
        publish.arg(&self.names.notices).arg("");
        match self.ask(&publish, until) {
            // Its answer may still come, and would be taken for another one's.
            Err(lost @ Trouble::Lost(_)) => Err(lost),
            _ => Ok(()),
        }
    }

    /// The sealed sessions of these keys, in their order. One that is taken is there for nobody else. What is of
    /// another type is no session.
    ///
    /// # Errors
    /// [`Trouble`].
    pub fn sessions(&mut self, wanted: &[Wanted]) -> Result<Vec<Option<Vec<u8>>>, Trouble> {
        let commands = self.questions(wanted);
        sealed(self.exchange(&commands, self.until())?)
    }

    /// Asks for the same, and leaves it to [`Link::fetch_sessions`] to wait for the answer; there may be several
    /// questions under way. Not in a Redis Cluster, whose nodes may send a question on: there the answer is waited for
    /// here.
    ///
    /// # Errors
    /// [`Trouble`].
    pub fn ask_sessions(&mut self, wanted: &[Wanted]) -> Result<(), Trouble> {
        let (commands, until) = (self.questions(wanted), self.until());
        let answers = match &mut self.wire {
            Wire::Server(connection) => {
                connection.begin(&commands, until)?;
                None
            }
            Wire::Cluster(cluster) => Some(cluster.all(&commands, until)?),
        };
        self.asked.push_back(Asked { count: commands.len(), answers });
        Ok(())
    }

    /// The answer to the first question that was not answered yet, waited for until then; `None` when it has not come.
    /// However late this is called, an answer that is there counts as one.
    ///
    /// # Errors
    /// [`Trouble`].
    pub fn fetch_sessions(
        &mut self,
        until: Duration,
    ) -> Result<Option<Vec<Option<Vec<u8>>>>, Trouble> {
        let Some(Asked { count, answers }) = self.asked.front_mut() else { return Ok(None) };
        let fetched = match (answers.take(), &mut self.wire) {
            (None, Wire::Server(connection)) => connection.fetch(*count, until)?,
            (answers, _) => answers,
        };
        let Some(answers) = fetched else { return Ok(None) };
        self.asked.pop_front();
        sealed(answers).map(Some)
    }

    /// Whether the server alone decides how long an answer takes once the question was sent.
    pub fn is_answered_alone(&self) -> bool {
        matches!(self.wire, Wire::Server(_))
    }

    fn questions(&self, wanted: &[Wanted]) -> Vec<Cmd> {
        let question = |(key, take): &Wanted| {
            let mut get = redis::cmd(if *take { "GETDEL" } else { "GET" });
            get.arg(self.names.session(key));
            get
        };
        wanted.iter().map(question).collect()
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
    ) -> Result<T, Trouble> {
        T::from_redis_value(self.ask(command, until)?).map_err(|_| Trouble::garbage(name))
    }

    pub(super) fn ask(&mut self, command: &Cmd, until: Duration) -> Result<Value, Trouble> {
        let answers = self.all(vec![command.clone()], until)?;
        answers.into_iter().next().ok_or_else(|| Trouble::garbage("a command"))
    }

    /// Sends all commands, then reads all answers. The first error is the result.
    fn all(&mut self, commands: Vec<Cmd>, until: Duration) -> Result<Vec<Value>, Trouble> {
        self.exchange(&commands, until)?.into_iter().map(sound).collect()
    }

    /// Sends all commands, then reads all answers, errors among them.
    fn exchange(&mut self, commands: &[Cmd], until: Duration) -> Result<Vec<Value>, Trouble> {
        match &mut self.wire {
            Wire::Server(connection) => connection.exchange(commands, until),
            Wire::Cluster(cluster) => cluster.all(commands, until),
        }
    }
}

/// What sessions are in these answers.
fn sealed(answers: Vec<Value>) -> Result<Vec<Option<Vec<u8>>>, Trouble> {
    let sealed = |answer| match sound(answer) {
        Err(Trouble::Strange(_)) => Ok(None),
        answer => Option::from_redis_value(answer?).map_err(|_| Trouble::garbage("GET")),
    };
    answers.into_iter().map(sealed).collect()
}

/// The answer, unless it is an error.
fn sound(answer: Value) -> Result<Value, Trouble> {
    match answer {
        Value::ServerError(error) => Err(refused(&error)),
        answer => Ok(answer),
    }
}

fn expire(key: &str, keep: Duration) -> Cmd {
    let mut expire = redis::cmd("PEXPIRE");
    expire.arg(key).arg(millis(keep));
    expire
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).max(1)
}
