//! A Redis Cluster: which of its nodes is asked for what.
//!
//! Every command goes to the master of its key's slot, over a connection that is made when it is first needed. A
//! command is sent again only when a node answered that it did not execute it but knows who would. Whatever is done
//! with a cluster, connecting on the way included, ends within one limit; only names of hosts are looked up outside of
//! it.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use redis::{Cmd, Value};

use super::connection::{Connection, Login, left};
use super::dial::{Address, Dialer};
use super::{Failure, refused};
use crate::clock;

const SLOTS: u16 = 16_384;

/// How often a command may be sent on to another node before that counts as a failure.
const REDIRECTS: usize = 4;

/// Most nodes that are connected to: as many as a cluster should have.
const NODES: usize = 1024;

/// By their first slot: the last one, and who has them.
type Slots = BTreeMap<u16, (u16, Address)>;

/// The nodes that are configured, and how to get in.
pub(super) struct Seeds {
    seeds: Vec<Address>,
    login: Login,
    /// Which one is asked first: the one that answered last.
    first: AtomicUsize,
}

/// Connections to the nodes of a cluster.
pub(super) struct Cluster {
    seeds: Arc<Seeds>,
    dialer: Arc<Dialer>,
    slots: Slots,
    connections: BTreeMap<Address, Connection>,
}

/// A command on its way.
struct Task {
    /// Which one.
    at: usize,
    node: Address,
    /// The node does not have the slot yet.
    asking: bool,
}

impl Seeds {
    pub(super) fn new(seeds: Vec<Address>, login: Login) -> Self {
        Seeds { seeds, login, first: AtomicUsize::new(0) }
    }

    pub(super) fn addresses(&self) -> &[Address] {
        &self.seeds
    }

    /// The next connection begins with another node.
    fn turn(&self) {
        self.first.fetch_add(1, Ordering::Relaxed);
    }
}

impl Cluster {
    /// Asks one node after the other who has which slots, until one answers; each gets half of the time that is left.
    pub(super) fn connect(
        seeds: &Arc<Seeds>,
        dialer: &Arc<Dialer>,
        mut deadline: Duration,
    ) -> Result<Self, Failure> {
        let mut cluster = Cluster {
            seeds: Arc::clone(seeds),
            dialer: Arc::clone(dialer),
            slots: Slots::new(),
            connections: BTreeMap::new(),
        };
        let mut last = Failure::Lost("no node is configured".into());
        let count = seeds.seeds.len();
        let begin = seeds.first.load(Ordering::Relaxed);
        for nth in 0..count {
            let at = begin.wrapping_add(nth) % count;
            let parts = if nth + 1 < count { 2 } else { 1 };
            match cluster.enter(&seeds.seeds[at], parts, &mut deadline) {
                Ok(()) => {
                    seeds.first.store(at, Ordering::Relaxed);
                    return Ok(cluster);
                }
                Err(trouble) => last = trouble,
            }
        }
        seeds.turn();
        Err(last)
    }

    /// Asks one of the configured nodes, which gets one part of the time that is left.
    fn enter(
        &mut self,
        seed: &Address,
        parts: u32,
        deadline: &mut Duration,
    ) -> Result<(), Failure> {
        let route = self.dialer.find(seed, deadline)?;
        let share = clock::since_boot() + left(*deadline)? / parts;
        let mut connection = route.connect(Some(&self.seeds.login), share)?;
        self.slots = ask_for_slots(&mut connection, seed, share)?;
        self.connections.insert(seed.clone(), connection);
        Ok(())
    }

    /// Has all commands executed, and returns their answers, errors among them, in their order. Those for one node are
    /// executed in their order.
    pub(super) fn all(
        &mut self,
        commands: &[Cmd],
        deadline: Duration,
    ) -> Result<Vec<Value>, Failure> {
        let answers = self.carry_out(commands, deadline);
        if answers.is_err() {
            // What this node said of the others may be why.
            self.seeds.turn();
        }
        answers
    }

    fn carry_out(
        &mut self,
        commands: &[Cmd],
        mut deadline: Duration,
    ) -> Result<Vec<Value>, Failure> {
        let mut answers = vec![Value::Nil; commands.len()];
        let task = |(at, command): (usize, &Cmd)| {
            Ok(Task { at, node: self.node_for(command)?, asking: false })
        };
        let mut open =
            commands.iter().enumerate().map(task).collect::<Result<Vec<_>, Failure>>()?;
        for _ in 0..=REDIRECTS {
            let mut sent_on = Vec::new();
            for (node, tasks) in by_node(open) {
                let said = self.ask(&node, commands, &tasks, &mut deadline)?;
                for (task, answer) in tasks.into_iter().zip(said) {
                    match sent_on_to(&answer, &node) {
                        Some((node, asking)) => sent_on.push(Task { node, asking, ..task }),
                        None => answers[task.at] = answer,
                    }
                }
            }
            if sent_on.is_empty() {
                return Ok(answers);
            }
            self.learn(&sent_on, &mut deadline)?;
            open = sent_on;
        }
        Err(Failure::Lost("the cluster's nodes send each other's commands on".into()))
    }

    /// A slot that is on its way does not change the map; one that has moved does.
    fn learn(&mut self, sent_on: &[Task], deadline: &mut Duration) -> Result<(), Failure> {
        let Some(moved) = sent_on.iter().find(|task| !task.asking) else { return Ok(()) };
        let connection = self.connection(&moved.node, deadline)?;
        let slots = ask_for_slots(connection, &moved.node, *deadline)?;
        self.connections.retain(|node, _| slots.values().any(|(_, owner)| owner == node));
        self.slots = slots;
        Ok(())
    }

    fn ask(
        &mut self,
        node: &Address,
        commands: &[Cmd],
        tasks: &[Task],
        deadline: &mut Duration,
    ) -> Result<Vec<Value>, Failure> {
        let connection = self.connection(node, deadline)?;
        let asking = redis::cmd("ASKING");
        let sent = tasks.iter().flat_map(|task| {
            task.asking.then_some(&asking).into_iter().chain([&commands[task.at]])
        });
        let mut said = connection.exchange(sent, *deadline)?.into_iter();
        let answer = |task: &Task| {
            // The answer to ASKING itself says nothing.
            let skipped = usize::from(task.asking);
            said.nth(skipped).ok_or_else(|| Failure::garbage("a pipeline"))
        };
        tasks.iter().map(answer).collect()
    }

    fn connection(
        &mut self,
        node: &Address,
        deadline: &mut Duration,
    ) -> Result<&mut Connection, Failure> {
        if self.connections.len() >= NODES {
            return Err(Failure::Lost("the cluster has too many nodes".into()));
        }
        match self.connections.entry(node.clone()) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(free) => {
                let route = self.dialer.find(node, deadline)?;
                Ok(free.insert(route.connect(Some(&self.seeds.login), *deadline)?))
            }
        }
    }

    fn node_for(&self, command: &Cmd) -> Result<Address, Failure> {
        let Some(key) = key_of(command) else { return self.any_node() };
        let slot = slot_of(&key);
        let owner = self.slots.range(..=slot).next_back();
        match owner {
            Some((_, (last, node))) if slot <= *last => Ok(node.clone()),
            _ => Err(Failure::Lost(format!("no node of the cluster has slot {slot}"))),
        }
    }

    /// Whom we talk to anyway.
    fn any_node(&self) -> Result<Address, Failure> {
        let known = self.connections.keys().chain(self.slots.values().map(|(_, node)| node)).next();
        known.cloned().ok_or_else(|| Failure::Lost("the cluster has no nodes".into()))
    }
}

fn by_node(tasks: Vec<Task>) -> BTreeMap<Address, Vec<Task>> {
    let mut nodes = BTreeMap::<_, Vec<_>>::new();
    for task in tasks {
        nodes.entry(task.node.clone()).or_default().push(task);
    }
    nodes
}

fn ask_for_slots(
    connection: &mut Connection,
    asked: &Address,
    deadline: Duration,
) -> Result<Slots, Failure> {
    let mut question = redis::cmd("CLUSTER");
    question.arg("SLOTS");
    let answer = connection.exchange([&question], deadline)?.pop().unwrap_or(Value::Nil);
    if let Value::ServerError(error) = &answer {
        return Err(Failure::Lost(format!("CLUSTER SLOTS: {}", refused(error))));
    }
    slots_in(answer, asked).ok_or_else(|| Failure::garbage("CLUSTER SLOTS"))
}

/// Lists of first and last slot, then of what has them: host and port. The masters come first.
fn slots_in(answer: Value, asked: &Address) -> Option<Slots> {
    let Value::Array(ranges) = answer else { return None };
    if ranges.len() > usize::from(SLOTS) {
        return None;
    }
    ranges.into_iter().map(|range| range_in(range, asked)).collect()
}

fn range_in(range: Value, asked: &Address) -> Option<(u16, (u16, Address))> {
    let Value::Array(range) = range else { return None };
    let [Value::Int(first), Value::Int(last), Value::Array(master), ..] = &range[..] else {
        return None;
    };
    let [host, Value::Int(port), ..] = &master[..] else { return None };
    let host = match host {
        Value::Nil => "",
        Value::BulkString(host) => std::str::from_utf8(host).ok()?,
        Value::SimpleString(host) => host,
        _ => return None,
    };
    let (first, last) = (u16::try_from(*first).ok()?, u16::try_from(*last).ok()?);
    Some((first, (last, at(host, u16::try_from(*port).ok()?, asked))))
}

/// A node that does not know what it, or another one, is called means where it was asked.
fn at(host: &str, port: u16, asked: &Address) -> Address {
    match asked {
        Address::Host(asked, _) if ["", "?"].contains(&host) => Address::Host(asked.clone(), port),
        _ => Address::Host(host.to_owned(), port),
    }
}

/// Where the command was not executed but would be, and whether that node does not have the slot yet.
fn sent_on_to(answer: &Value, asked: &Address) -> Option<(Address, bool)> {
    let Value::ServerError(error) = answer else { return None };
    let asking = match error.code() {
        "ASK" => true,
        "MOVED" => false,
        _ => return None,
    };
    let (_, place) = error.details()?.split_once(' ')?;
    let (host, port) = place.rsplit_once(':')?;
    Some((at(host, port.parse().ok()?, asked), asking))
}

/// What decides who executes it.
fn key_of(command: &Cmd) -> Option<Vec<u8>> {
    let mut words = command.args_iter().filter_map(|word| match word {
        redis::Arg::Simple(word) => Some(word),
        _ => None,
    });
    let key = match words.next()? {
        b"TIME" => None,
        b"EVAL" => words.nth(2),
        b"XREAD" => words.find(|word| *word == b"STREAMS").and_then(|_| words.next()),
        _ => words.next(),
    };
    key.map(<[u8]>::to_vec)
}

/// The slot of a key: of the part in braces alone, if there is one.
fn slot_of(key: &[u8]) -> u16 {
    let tag = || {
        let (_, rest) = key.split_at_checked(key.iter().position(|byte| *byte == b'{')? + 1)?;
        let tag = rest.split(|byte| *byte == b'}').next()?;
        (!tag.is_empty() && tag.len() < rest.len()).then_some(tag)
    };
    crc16(tag().unwrap_or(key)) % SLOTS
}

/// CRC-16/XMODEM.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str, port: u16) -> Address {
        Address::Host(name.into(), port)
    }

    fn command(words: &[&str]) -> Cmd {
        let mut command = redis::cmd(words[0]);
        words[1..].iter().for_each(|word| {
            command.arg(*word);
        });
        command
    }

    #[test]
    fn a_slot_is_that_of_the_part_in_braces() {
        // The examples of the specification of Redis Cluster.
        assert_eq!(crc16(b"123456789"), 0x31c3);
        assert_eq!(slot_of(b"{user1000}.following"), slot_of(b"user1000"));
        assert_eq!(slot_of(b"foo{bar}{zap}"), slot_of(b"bar"));
        assert_eq!(slot_of(b"foo{{bar}}zap"), slot_of(b"{bar"));
        assert_eq!(slot_of(b"foo{}{bar}"), crc16(b"foo{}{bar}") % SLOTS);
        assert_eq!(slot_of(b"foo{bar"), crc16(b"foo{bar") % SLOTS);
    }

    #[test]
    fn every_kind_of_command_goes_where_its_key_is() {
        for words in [
            &["GETDEL", "key"][..],
            &["EVAL", "script", "1", "key", "word"],
            &["XREAD", "COUNT", "5", "STREAMS", "key", "0-0"],
            &["HSET", "key", "field", "value"],
        ] {
            assert_eq!(key_of(&command(words)).as_deref(), Some(&b"key"[..]), "{words:?}");
        }
        assert_eq!(key_of(&command(&["TIME"])), None);
    }

    #[test]
    fn a_map_of_slots_that_makes_no_sense_is_none() {
        let range = |first, last, port| {
            let master = Value::Array(vec![Value::BulkString(b"a".to_vec()), Value::Int(port)]);
            Value::Array(vec![Value::Int(first), Value::Int(last), master])
        };
        let map = |range| slots_in(Value::Array(vec![range]), &host("asked", 6379));
        assert_eq!(map(range(1, 9, 70)), Some(Slots::from([(1, (9, host("a", 70)))])));
        for bad in [range(-1, 9, 70), range(1, 70_000, 70), range(1, 9, 70_000), Value::Nil] {
            assert_eq!(map(bad), None);
        }
        assert_eq!(slots_in(Value::Nil, &host("asked", 6379)), None);
    }

    #[test]
    fn only_the_answers_that_name_another_node_send_a_command_on() {
        let said = |line: &str| {
            let answer = redis::parse_redis_value(format!("-{line}\r\n").as_bytes());
            sent_on_to(&answer.expect("an answer"), &host("asked", 6379))
        };
        assert_eq!(said("MOVED 7 a:70"), Some((host("a", 70), false)));
        assert_eq!(said("ASK 7 ::1:70"), Some((host("::1", 70), true)));
        assert_eq!(said("MOVED 7 :70"), Some((host("asked", 70), false)));
        assert_eq!(said("MOVED 7 ?:70"), Some((host("asked", 70), false)));
        for line in ["MOVED 7", "MOVED 7 a:b", "TRYAGAIN later", "CLUSTERDOWN none", "ERR MOVED"] {
            assert_eq!(said(line), None, "{line}");
        }
    }
}
