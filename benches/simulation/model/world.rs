//! What happens, in the order of time.

mod agent;
mod revoked;
mod trouble;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::rc::Rc;

use tlsresume::clock::UnixMillis;
use tlsresume::ring::sharing::Exchange;
use tlsresume::ring::{KeyName, Record, Ring, Verdict, wire};

use super::checks::{Checks, Report, Ticket};
use super::node::Node;
use super::place::{Contents, Place};
use super::random::Chance;
use super::{Millis, Parameters};

pub(crate) use revoked::Revoked;
use revoked::{AUDIT, Revocation};

/// A node asks for the token of change this often, a little more or less.
const POLL: Millis = 5_000;

/// How long a node waits for an answer.
const TIMEOUT: Millis = 1_000;

/// The longest pause of an agent before it connects again.
const RETRY: Millis = 1_000;

/// Of a thousand messages and notifications, so many are lost.
const LOST: u64 = 10;
const LOST_NOTIFICATIONS: u64 = 50;

/// After the last fault, all agree within this.
const CONVERGES: Millis = 60_000;

/// So many nodes make keys of their own at one time; the model's documentation says why.
const MOST_ALONE: usize = 10;

/// A short answer, and a notification.
const ANSWER: u64 = 100;

/// One life of one node.
#[derive(Clone, Copy, Debug)]
struct Who {
    node: usize,
    life: u32,
}

#[derive(Debug)]
enum Event {
    Handshake(Who),
    Poll(Who),
    /// The server's own processes told the agent that there is something to publish.
    Wake(Who),
    Notified(Who, u64),
    /// Messages to Redis, each with the time when the question was sent.
    Asks(Who, Millis),
    Reads(Who, Millis),
    Writes(Who, Millis, Rc<Exchange>, Option<u64>),
    /// Its answers: the token, and whether this node makes the keys; contents; done; somebody else was first; nothing
    /// in time.
    Told(Who, Millis, u64, bool),
    Copied(Who, Millis, Contents),
    Written(Who, Millis),
    Refused(Who),
    Failed(Who),
    Presented(Ticket),
    Fault,
    Healed(Rc<Vec<usize>>),
    Up(usize),
    Dump,
    Truce,
    Check(Millis),
    Audit,
}

#[derive(Debug)]
pub(crate) struct World {
    parameters: Parameters,
    now: Millis,
    chance: Chance,
    nodes: Vec<Node>,
    place: Place,
    queue: BinaryHeap<Reverse<(Millis, u64)>>,
    events: BTreeMap<u64, Event>,
    count: u64,
    checks: Checks,
    revocations: Vec<Revocation>,
    /// When the last fault ended or was put right, and when somebody learned something after that.
    quiet_since: Millis,
    last_change: Millis,
    truce: bool,
}

impl World {
    pub(crate) fn new(parameters: Parameters) -> Self {
        let mut chance = Chance::new(parameters.seed);
        let nodes = (0..parameters.nodes).map(|_| Node::new(parameters.schedule, &mut chance));
        World {
            nodes: nodes.collect(),
            chance,
            parameters,
            now: 0,
            place: Place::default(),
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            count: 0,
            checks: Checks::default(),
            revocations: Vec::new(),
            quiet_since: 0,
            last_change: 0,
            truce: false,
        }
    }

    pub(crate) fn run(mut self) -> Result<Report, String> {
        let length = self.parameters.length;
        for node in 0..self.nodes.len() {
            let most = 2_000 + 20 * self.nodes.len() as u64;
            let delay = self.chance.between(0, most);
            self.after(delay, Event::Up(node));
        }
        self.after(600_000, Event::Dump);
        self.after(AUDIT, Event::Audit);
        if self.parameters.faults > 0 {
            let first = 60_000 + self.chance.around(self.parameters.faults);
            self.after(first, Event::Fault);
        }
        self.after(length.saturating_sub(2 * CONVERGES), Event::Truce);
        while let Some(Reverse((time, number))) = self.queue.pop() {
            if time > length && self.truce {
                break;
            }
            self.now = time;
            let event = self.events.remove(&number).expect("queued with its number");
            self.happen(event)
                .map_err(|claim| format!("{claim} (at {} s of the simulation)", self.now / 1000))?;
        }
        self.checks.none_refused()?;
        self.agree()?;
        Ok(self.finish())
    }

    fn after(&mut self, delay: Millis, event: Event) {
        self.count += 1;
        self.queue.push(Reverse((self.now + delay, self.count)));
        self.events.insert(self.count, event);
    }

    fn happen(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Handshake(who) => self.handshake(who),
            Event::Poll(who) => self.poll(who),
            Event::Wake(who) => self.wake(who),
            Event::Notified(who, token) => self.notified(who, token),
            Event::Asks(who, sent) => self.asks(who, sent),
            Event::Reads(who, sent) => self.reads(who, sent),
            Event::Writes(who, sent, exchange, only_at) => {
                self.writes(who, sent, &exchange, only_at);
            }
            Event::Told(who, sent, token, leads) => self.told(who, sent, token, leads),
            Event::Copied(who, sent, contents) => self.copied(who, sent, &contents),
            Event::Written(who, sent) => self.written(who, sent),
            Event::Refused(who) => self.refused(who),
            Event::Failed(who) => self.failed(who),
            Event::Presented(ticket) => return self.presented(ticket),
            Event::Fault => self.fault(),
            Event::Healed(nodes) => self.heal(&nodes),
            Event::Up(node) => self.start(node),
            Event::Dump => {
                self.place.take_dump();
                self.after(600_000, Event::Dump);
            }
            Event::Truce => self.make_truce(),
            Event::Audit => return self.audit(),
            Event::Check(quiet_since) => return self.check(quiet_since),
        }
        Ok(())
    }
}

/// Handshakes.
impl World {
    fn handshake(&mut self, who: Who) {
        if !self.lives(who) {
            return;
        }
        // Some nodes are nearly idle.
        let mean = self.parameters.handshakes * if who.node.is_multiple_of(7) { 10 } else { 1 };
        let pause = self.chance.around(mean);
        self.after(pause, Event::Handshake(who));
        let now = self.now;
        if !self.nodes[who.node].serves(now) {
            return;
        }
        self.keep_up(who.node);
        let node = &self.nodes[who.node];
        let Some((key, made, is_planned)) = node.encrypting(now) else { return };
        let ends = (node.clock(now) + self.parameters.schedule.lifetime).0;
        let in_touch = is_planned && node.is_in_touch(now);
        self.checks.report.tickets_issued += 1;
        // Clients come back at once (a browser's next connection), soon, or some day.
        let lifetime = millis(self.parameters.schedule.lifetime);
        let most = [1_000, 30_000, lifetime][self.chance.below(3)];
        let delay = self.chance.between(1, most);
        let ticket = Ticket { key, made, issuer: who.node, issued: now, ends, in_touch };
        self.after(delay, Event::Presented(ticket));
    }

    fn presented(&mut self, ticket: Ticket) -> Result<(), String> {
        let receiver = self.chance.below(self.nodes.len());
        let now = self.now;
        if !self.nodes[receiver].is_reachable(now) {
            return Ok(());
        }
        self.keep_up(receiver);
        let node = &self.nodes[receiver];
        if node.clock(now).0 >= ticket.ends {
            return Ok(());
        }
        if self.is_revoked(&ticket, receiver)? {
            return Ok(());
        }
        self.judge(&ticket, receiver);
        Ok(())
    }

    /// Claims 1 and 2.
    fn judge(&mut self, ticket: &Ticket, receiver: usize) {
        let node = &self.nodes[receiver];
        let verdict = node.ring.verdict(&ticket.key, node.clock(self.now));
        let is_accepted = matches!(verdict, Verdict::Accepted(..));
        let has_settled = self.place.has_settled(&ticket.key, self.now);
        let claims = [(1, ticket.in_touch), (2, has_settled)];
        let about_it = || claims.iter().filter(|(_, is)| *is).map(|(claim, _)| *claim);
        about_it().for_each(|claim| self.checks.try_claim(claim));
        let Some(claim) = about_it().next() else {
            self.checks.report.tickets_excluded += 1;
            self.checks.report.excluded_refused += u64::from(!is_accepted);
            return;
        };
        self.checks.report.tickets_tried += 1;
        if !is_accepted {
            let (keys, at) = (node.ring.records().count(), self.now / 1000);
            self.checks.refused(|| {
                format!(
                    "claim {claim}: node {receiver} with {keys} keys refuses ({verdict:?}) {ticket:?}, settled: {has_settled} (at {at} s of the simulation)"
                )
            });
        }
    }

    /// What every callback does first; tells the agent.
    fn keep_up(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        let made = node.keep_up(self.now, &mut self.chance);
        if made.is_empty() {
            return;
        }
        let who = Who { node: index, life: node.life };
        self.checks.made(&made, !node.cut_off, self.now);
        let delay = self.chance.between(1, 1_000);
        self.after(delay, Event::Wake(who));
    }
}

/// What is claimed of all together.
impl World {
    fn check(&mut self, quiet_since: Millis) -> Result<(), String> {
        let has_peace = self.nodes.iter().all(|node| node.up && !node.cut_off);
        if self.quiet_since != quiet_since || !has_peace {
            return Ok(());
        }
        if self.checks.last_birth <= quiet_since + TIMEOUT {
            self.checks.converged(self.last_change - quiet_since);
        }
        self.agree()
    }

    /// Claim 3; not while a new key is on its way.
    fn agree(&mut self) -> Result<(), String> {
        if self.now < self.checks.last_birth + super::SETTLES {
            return Ok(());
        }
        self.checks.try_claim(3);
        let now = Node::true_clock(self.now);
        let copy = self.place.contents.copy.values().fold(Ring::default(), |a, b| a.merge(b));
        // What is over by the fastest clock may be forgotten.
        let fastest = now + self.parameters.schedule.activation_delay / 2;
        let (expected, key) = (copy.living(fastest).digest(), encrypting(&copy, now));
        for (number, node) in self.nodes.iter().enumerate() {
            if node.ring.living(fastest).digest() != expected || encrypting(&node.ring, now) != key
            {
                let (has, copied) = (node.ring.records().count(), copy.records().count());
                return Err(format!(
                    "claim 3: node {number} and the copy differ: {has} and {copied} keys, {:?} and {key:?} encrypt",
                    encrypting(&node.ring, now),
                ));
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Report {
        let ring = &self.nodes[0].ring;
        let report = &mut self.checks.report;
        (report.nodes, report.seed) = (self.nodes.len(), self.parameters.seed);
        report.ring_bytes = wire::encode(ring).len();
        // Of each record: itself, two counts, a pointer, and its secrets.
        report.ring_heap_bytes = ring.records().count() * (size_of::<Record>() + 3 * 8 + 64);
        let rotate = millis(self.parameters.schedule.rotate);
        self.checks.finish(self.nodes.len(), self.parameters.length, rotate)
    }
}

fn encrypting(ring: &Ring, now: UnixMillis) -> Option<KeyName> {
    ring.encrypting(now).map(|(record, _)| record.name())
}

fn millis(duration: std::time::Duration) -> Millis {
    Millis::try_from(duration.as_millis()).unwrap_or(Millis::MAX)
}
