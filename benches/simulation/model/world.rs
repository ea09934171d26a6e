//! What happens, in the order of time.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::rc::Rc;

use tlsresume::clock::UnixMillis;
use tlsresume::ring::sharing::Exchange;
use tlsresume::ring::{KeyName, Record, Ring, Verdict, wire};

use super::checks::{Checks, Report, Ticket};
use super::faults::Fault;
use super::node::Node;
use super::place::{COMMAND, Contents, Place};
use super::random::Chance;
use super::{Millis, Parameters};

/// A node asks for the token of change this often, a little more or less.
const POLL: Millis = 5_000;

/// How long a node waits for an answer.
const TIMEOUT: Millis = 1_000;

/// Of a thousand messages and notifications, so many are lost.
const LOST: u64 = 10;
const LOST_NOTIFICATIONS: u64 = 50;

/// After the last fault, all agree within this.
const CONVERGES: Millis = 60_000;

/// So many nodes make keys of their own at one time; the model's documentation says why.
const MOST_ALONE: usize = 20;

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
    /// Its answers: the token, and whether this node makes the keys; contents; done; somebody else was first; nothing in time.
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
        let mean = self.parameters.handshakes * if who.node % 7 == 0 { 10 } else { 1 };
        let pause = self.chance.around(mean);
        self.after(pause, Event::Handshake(who));
        let now = self.now;
        if !self.nodes[who.node].serves(now) {
            return;
        }
        self.keep_up(who.node);
        let node = &self.nodes[who.node];
        let Some((key, is_planned)) = node.encrypting(now) else { return };
        let ends = (node.clock(now) + self.parameters.schedule.lifetime).0;
        let in_touch = is_planned && node.is_in_touch(now);
        self.checks.report.tickets_issued += 1;
        // Clients come back at once (a browser's next connection), soon, or some day.
        let lifetime = millis(self.parameters.schedule.lifetime);
        let most = [1_000, 30_000, lifetime][self.chance.below(3)];
        let delay = self.chance.between(1, most);
        let ticket = Ticket { key, issuer: who.node, issued: now, ends, in_touch };
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
        let verdict = node.ring.verdict(&ticket.key, node.clock(now));
        let is_accepted = matches!(verdict, Verdict::Accepted(..));
        let has_settled = self.place.has_settled(&ticket.key, now);
        if !is_accepted && (ticket.in_touch || has_settled) {
            let claim = if ticket.in_touch { 1 } else { 2 };
            return Err(format!(
                "claim {claim}: node {receiver} with {} keys refuses ({verdict:?}) {ticket:?}, settled: {has_settled}",
                node.ring.records().count()
            ));
        }
        let report = &mut self.checks.report;
        match ticket.in_touch {
            true => report.tickets_tried += 1,
            false => report.tickets_excluded += 1,
        }
        report.excluded_refused += u64::from(!is_accepted);
        Ok(())
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

/// A node's agent and Redis.
impl World {
    fn poll(&mut self, who: Who) {
        if self.lives(who) {
            let delay = self.chance.between(POLL * 9 / 10, POLL * 11 / 10);
            self.after(delay, Event::Poll(who));
            self.wake(who);
        }
    }

    /// Asks whether something changed, now or when the agent has done what it is at.
    fn wake(&mut self, who: Who) {
        if !self.lives(who) {
            return;
        }
        let node = &mut self.nodes[who.node];
        if node.busy {
            node.again = true;
            return;
        }
        (node.busy, node.again) = (true, false);
        self.checks.sent += COMMAND;
        // Somebody waits for the first copy.
        let message = match node.has_first_copy {
            true => Event::Asks(who, self.now),
            false => Event::Reads(who, self.now),
        };
        self.carry(who, message);
    }

    fn notified(&mut self, who: Who, token: u64) {
        if !self.lives(who) || self.nodes[who.node].cut_off {
            return;
        }
        self.checks.received += ANSWER;
        if self.nodes[who.node].seen != Some(token) {
            self.wake(who);
        }
    }

    fn asks(&mut self, who: Who, sent: Millis) {
        let leads = self.place.lease(who.node, self.now);
        let answer = Event::Told(who, sent, self.place.contents.token, leads);
        self.carry(who, answer);
    }

    fn told(&mut self, who: Who, sent: Millis, token: u64, leads: bool) {
        if !self.lives(who) {
            return;
        }
        self.checks.received += ANSWER;
        let node = &mut self.nodes[who.node];
        // The first copy is read before a key is made.
        if leads && node.has_first_copy {
            node.lead(sent);
            self.keep_up(who.node);
        }
        let node = &mut self.nodes[who.node];
        if node.seen == Some(token) && !node.unpublished {
            node.contact = Some(sent);
            return self.done(who);
        }
        self.checks.sent += COMMAND;
        self.carry(who, Event::Reads(who, self.now));
    }

    fn reads(&mut self, who: Who, sent: Millis) {
        let contents = self.place.contents.clone();
        self.carry(who, Event::Copied(who, sent, contents));
    }

    fn copied(&mut self, who: Who, sent: Millis, contents: &Contents) {
        if !self.lives(who) {
            return;
        }
        self.checks.received += contents.bytes + ANSWER;
        self.checks.report.exchanges += 1;
        let node = &mut self.nodes[who.node];
        let before = node.ring.clone();
        let (exchange, learned) = node.exchange(contents, self.now);
        if node.ring != before {
            self.last_change = self.now;
        }
        self.checks.learned(&learned, node.connected, self.now);
        if exchange.publish.is_empty() && exchange.superfluous.is_empty() {
            node.contact = Some(sent);
            return self.done(who);
        }
        let extends = exchange.makes_keys_for_all(node.clock(self.now));
        let only_at = extends.then_some(contents.token);
        self.carry(who, Event::Writes(who, sent, Rc::new(exchange), only_at));
    }

    fn writes(&mut self, who: Who, sent: Millis, exchange: &Exchange, only_at: Option<u64>) {
        if only_at.is_some_and(|token| token != self.place.contents.token) {
            return self.carry(who, Event::Refused(who));
        }
        let token = self.chance.next();
        self.checks.report.writes += 1;
        exchange.publish.iter().for_each(|(field, _)| self.checks.published(*field));
        self.checks.sent +=
            self.place.write(&exchange.publish, &exchange.superfluous, token, self.now);
        self.carry(who, Event::Written(who, sent));
        if exchange.publish.is_empty() {
            return;
        }
        for node in 0..self.nodes.len() {
            let who = Who { node, life: self.nodes[node].life };
            let delay = self.chance.between(1, 300);
            if self.nodes[node].up && !self.chance.happens(LOST_NOTIFICATIONS) {
                self.after(delay, Event::Notified(who, token));
            }
        }
    }

    fn written(&mut self, who: Who, sent: Millis) {
        if self.lives(who) {
            self.checks.received += ANSWER;
            self.nodes[who.node].contact = Some(sent);
            self.done(who);
        }
    }

    /// Once more, with what is there now.
    fn refused(&mut self, who: Who) {
        if self.lives(who) {
            self.nodes[who.node].again = true;
            self.done(who);
        }
    }

    fn failed(&mut self, who: Who) {
        if self.lives(who) {
            self.nodes[who.node].busy = false;
        }
    }

    fn done(&mut self, who: Who) {
        self.nodes[who.node].busy = false;
        if self.nodes[who.node].again {
            self.wake(who);
        }
    }

    /// A message on its way to Redis or back.
    fn carry(&mut self, who: Who, message: Event) {
        let delay = self.chance.between(1, 300);
        if self.nodes[who.node].cut_off || self.chance.happens(LOST) {
            self.after(TIMEOUT, Event::Failed(who));
        } else {
            self.after(delay, message);
        }
    }

    fn lives(&self, who: Who) -> bool {
        self.nodes[who.node].up && self.nodes[who.node].life == who.life
    }
}

/// Faults.
impl World {
    fn fault(&mut self) {
        if self.truce {
            return;
        }
        let pause = self.chance.around(self.parameters.faults);
        self.after(pause, Event::Fault);
        let fault = Fault::any(&mut self.chance, millis(self.parameters.schedule.rotate));
        if fault.loses_contents() && self.nodes.iter().any(|node| node.cut_off || !node.up) {
            return;
        }
        self.checks.report.faults += 1;
        match fault {
            Fault::Partition { share, lasts } => self.partition(share, lasts),
            Fault::Emptied | Fault::Restored => {
                self.place.lose(fault == Fault::Restored, self.now);
                self.is_quiet();
            }
            Fault::Restart { share, away } => {
                for node in self.some(share).into_iter().take(MOST_ALONE) {
                    self.stop(node, away);
                }
            }
            Fault::MakerDies { away } => {
                if let Some(node) = self.place.holder() {
                    self.stop(node, away);
                }
            }
        }
    }

    fn partition(&mut self, share: u64, lasts: Millis) {
        let mut cut = self.some(share);
        cut.retain(|node| !self.nodes[*node].cut_off);
        let schedule = &self.parameters.schedule;
        if lasts > millis(schedule.rotate * schedule.ahead) {
            cut.truncate(MOST_ALONE);
        }
        cut.iter().for_each(|node| self.nodes[*node].cut_off = true);
        self.after(lasts, Event::Healed(Rc::new(cut)));
    }

    fn heal(&mut self, nodes: &[usize]) {
        for node in nodes {
            let node = &mut self.nodes[*node];
            if node.cut_off {
                (node.cut_off, node.connected) = (false, self.now);
            }
        }
        self.is_quiet();
    }

    fn stop(&mut self, node: usize, away: Millis) {
        if self.nodes[node].up {
            self.nodes[node].up = false;
            self.checks.report.restarts += 1;
            self.after(away, Event::Up(node));
        }
    }

    fn start(&mut self, node: usize) {
        if self.nodes[node].up {
            return;
        }
        self.nodes[node].start(self.now);
        let who = Who { node, life: self.nodes[node].life };
        self.poll(who);
        let first = self.chance.around(self.parameters.handshakes / 10);
        self.after(first, Event::Handshake(who));
        self.is_quiet();
    }

    /// From now until the end nothing goes wrong any more.
    fn make_truce(&mut self) {
        self.truce = true;
        let all: Vec<_> = (0..self.nodes.len()).collect();
        self.heal(&all);
        all.into_iter().for_each(|node| self.start(node));
    }

    /// If everything is as it should be, the nodes have to agree soon.
    fn is_quiet(&mut self) {
        if self.nodes.iter().all(|node| node.up && !node.cut_off) {
            (self.quiet_since, self.last_change) = (self.now, self.now);
            self.after(CONVERGES, Event::Check(self.now));
        }
    }

    fn some(&mut self, per_mille: u64) -> Vec<usize> {
        (0..self.nodes.len()).filter(|_| self.chance.happens(per_mille)).collect()
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
    fn agree(&self) -> Result<(), String> {
        if self.now < self.checks.last_birth + super::SETTLES {
            return Ok(());
        }
        let now = Node::true_clock(self.now);
        let copy = self.place.contents.copy.values().fold(Ring::default(), |a, b| a.merge(b));
        let (expected, key) = (copy.living(now).digest(), encrypting(&copy, now));
        for (number, node) in self.nodes.iter().enumerate() {
            if node.ring.living(now).digest() != expected || encrypting(&node.ring, now) != key {
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
