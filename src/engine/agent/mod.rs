//! The agent: the one background thread of a node, which speaks to the others for all its processes.
//!
//! Owns: the node's connection to its transport and what is due on it. Called by: `start` (in one of the server's processes)
//! and `tlsresumectl agent` (a process of its own). Threads: one per node, by a lease in shared memory; whoever finds
//! it taken over ends. It uses no libcrypto, takes no signal and has descriptors of its own. Forks: a child has no
//! agent until it starts one. Failure: The transport is tried again for ever, at most once a second; nothing waits for it but
//! the first handshake of a node ([`start`]).

mod feed;
mod health;
mod heartbeats;
pub(super) mod nodes;
mod pace;
mod progress;
mod reading;
mod ring;
mod sessions;
pub(super) mod start;
mod state;
mod tables;
mod unread;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use zeroize::Zeroizing;

use super::Engine;
use super::cluster::Cluster;
use crate::clock;
use crate::cluster::message::NodeId;
use crate::cluster::seal::{Label, Refused};
use crate::cluster::transport::{Channel, Cursor, Failure, Outgoing, Table};
use crate::stats::{Counter, Gauge};
use crate::store::{AgentLease, Store};
use crate::sys;

use nodes::Nodes;
use progress::Progress;
use state::State;

/// How long the lease lasts that a dead agent leaves behind.
const HOLD: Duration = Duration::from_millis(2500);

/// How long one answer is waited for. The lease is renewed before each question, of which the longest has
/// three answers.
const ANSWER: Duration = Duration::from_millis(750);
const _: () = assert!(3 * ANSWER.as_millis() < HOLD.as_millis());

/// Waits between two looks into the feed: while sessions come and go, and at most, when nothing happens.
const BUSY_WAIT: Duration = Duration::from_millis(4);
const IDLE_WAIT: Duration = Duration::from_millis(50);

/// Where it is told that there is news, an idle node looks after its own sessions so often, and into the feed, lest a
/// notice got lost, so often.
const TOLD_WAIT: Duration = Duration::from_millis(8);
const TOLD_LOOK: Duration = Duration::from_millis(500);

/// How long a node counts as busy after something happened.
const BUSY: Duration = Duration::from_secs(2);

/// What is sent is gathered for so long, so that many sessions are one exchange.
const GATHER: Duration = Duration::from_millis(1);

/// The first pause between attempts to connect.
const FIRST_RETRY: Duration = Duration::from_millis(50);

/// Why a pass of the agent was left.
enum Left {
    /// It is to stop, or another agent has taken over.
    Over,
    /// The transport failed.
    Failed(Failure),
}

impl From<Failure> for Left {
    fn from(failure: Failure) -> Self {
        Left::Failed(failure)
    }
}

type Pass<T> = Result<T, Left>;

/// A serving agent.
struct Agent<'a> {
    engine: &'a Engine,
    /// The engine's, when this agent began: it ends with another one.
    store: &'a Store,
    cluster: &'a Cluster,
    stop: &'a AtomicBool,
    /// How many have this instance for the agent's own sake.
    keepers: usize,
    lease: AgentLease<'a>,
    node: NodeId,
    channel: Option<Box<dyn Channel>>,
    /// When the next attempt to connect is due, and how long after it the one after that.
    retry: (Duration, Duration),
    state: State,
    /// Remembers what was told when this is over.
    process: Arc<start::Process>,
    /// Since when there is this connection.
    linked: Duration,
    ring: Progress,
    nodes: Nodes,
    busy_until: Duration,
    /// The transport told that there is news.
    was_told: bool,
    look_due: Duration,
    /// Something was refused: until then nothing is asked but for news.
    refused_until: Duration,
    /// From then on the transport counts as well, if it refuses nothing more.
    well_from: Duration,
    /// What others may look up is due to be written again; and when that was done last.
    resend: (bool, Option<Duration>),
    /// What was noted as sent, and was not: removals, with single use.
    unsent: Vec<Outgoing>,
    /// How far the feed was read when entries after that were found missing; and when that was told last.
    gap: Cursor,
    gap_told: Option<Duration>,
    /// The shard whose turn it is to be first.
    first_shard: usize,
    /// It is over, but for what is still to be said.
    is_leaving: bool,
}

impl Engine {
    /// Serves as this node's agent until `stop` is set. While another process is the agent, it waits for that one's
    /// end. Without a transport it keeps the ring, for nodes that see no client for longer than keys are made ahead.
    pub fn serve_agent(&self, stop: &AtomicBool) {
        while !stop.load(Ordering::Acquire) {
            self.serve_if_free(0, stop);
            sys::pause(IDLE_WAIT);
        }
    }

    /// Serves as this node's agent until `stop` is set, another process has taken over, or nobody has this instance any
    /// more but so many keepers. Not at all if there is an agent.
    fn serve_if_free(&self, keepers: usize, stop: &AtomicBool) {
        let store: &Store = &self.store;
        let Some(lease) = store.hold_agent(HOLD) else { return };
        match &self.cluster {
            Some(cluster) => {
                if keepers > 0 {
                    sys::separate_descriptors();
                }
                Agent::new(self, store, cluster, stop, keepers, lease).serve();
            }
            None => self.keep_ring_alone(stop, lease),
        }
    }

    fn keep_ring_alone(&self, stop: &AtomicBool, mut lease: AgentLease<'_>) {
        while !stop.load(Ordering::Acquire) && lease.renew(HOLD) {
            self.current(clock::now());
            sys::pause(IDLE_WAIT);
        }
    }

    /// Whether nobody has this instance any more but so many.
    fn is_abandoned(&self, keepers: usize) -> bool {
        self.shared.get().is_some_and(|shared| shared.strong_count() <= keepers)
    }

    /// What was sealed by a node of this realm; else `None`, counted by reason.
    pub(super) fn open_sealed(
        &self,
        cluster: &Cluster,
        label: Label,
        id: &[u8],
        sealed: &[u8],
    ) -> Option<Zeroizing<Vec<u8>>> {
        let counter = match cluster.sealer.open(label, id, sealed) {
            Ok(plain) => return Some(plain),
            Err(Refused::Format) => Counter::TransportRejectedFormat,
            Err(Refused::Secret) => Counter::TransportRejectedSecret,
            Err(Refused::Forged) => Counter::TransportRejectedForged,
        };
        self.counters().count(counter);
        None
    }
}

impl<'a> Agent<'a> {
    fn new(
        engine: &'a Engine,
        store: &'a Store,
        cluster: &'a Cluster,
        stop: &'a AtomicBool,
        keepers: usize,
        lease: AgentLease<'a>,
    ) -> Self {
        let now = clock::since_boot();
        let process = engine.upkeep.this_process();
        process.teller.lock().begin_anew();
        Agent {
            engine,
            store,
            cluster,
            stop,
            keepers,
            lease,
            node: NodeId(store.node_id()),
            channel: None,
            retry: (now, FIRST_RETRY),
            state: State::Unknown,
            process,
            linked: now,
            ring: Progress::default(),
            nodes: Nodes::default(),
            busy_until: now,
            was_told: false,
            look_due: now,
            refused_until: now,
            well_from: now,
            resend: (false, None),
            unsent: Vec::new(),
            gap: (0, 0),
            gap_told: None,
            first_shard: 0,
            is_leaving: false,
        }
    }

    fn serve(mut self) {
        loop {
            let rings = self.store.rings();
            match self.pass() {
                Ok(()) => {}
                Err(Left::Over) => break,
                // Who was overtaken meanwhile has nothing to say of it.
                Err(Left::Failed(_)) if !self.lease.renew(HOLD) => break,
                Err(Left::Failed(failure)) => self.note_failure(&failure),
            }
            self.wait(rings);
        }
        if self.lease.renew(HOLD) {
            self.store.set_gauge(Gauge::TransportUp, 0);
            self.take_leave();
        }
    }

    /// Everything that is due, once. What is refused is tried again later and keeps nothing else from being done.
    fn pass(&mut self) -> Pass<()> {
        self.go_on()?;
        if self.channel.is_none() && !self.connect()? {
            return Ok(());
        }
        if clock::since_boot() < self.refused_until {
            // A refusal of this too is no news now.
            return self.receive().map(drop).or_else(pardon);
        }
        let ring = self.keep_ring();
        self.or_refused(ring)?;
        if !self.store.has_first_copy() {
            // Whatever else looks at the ring would wait for that.
            return Ok(());
        }
        self.send_again_if_due();
        let sent = self.send_sessions();
        let sent = self.or_refused(sent)?;
        let received = if self.is_news_likely() { self.receive() } else { Ok(0) };
        let received = self.or_refused(received)?;
        if sent + received > 0 {
            self.busy_until = clock::since_boot() + BUSY;
        }
        let has_beaten = self.keep_nodes();
        if self.or_refused(has_beaten)? && clock::since_boot() >= self.refused_until {
            // The heartbeat proves that writing works.
            self.note_well();
        }
        Ok(())
    }

    /// What came of a part of the pass; a refusal is noted, and no reason to leave.
    fn or_refused<T: Default>(&mut self, outcome: Pass<T>) -> Pass<T> {
        if let Err(Left::Failed(failure)) = &outcome
            && failure.is_refusal()
        {
            self.note_refused(failure);
            self.mend(failure)?;
        }
        outcome.or_else(pardon)
    }

    /// What stands in the way under a name of ours goes; without permission it stays, and everything waits.
    fn mend(&mut self, failure: &Failure) -> Pass<()> {
        if !matches!(failure, Failure::Strange(_)) {
            return Ok(());
        }
        let taken = self.channel()?.take_away_strange().map_err(Left::from).or_else(pardon)?;
        self.engine.counters().add(Counter::TransportRejectedFormat, taken);
        if taken > 0 { self.look_at_feed().or_else(pardon) } else { Ok(()) }
    }

    /// Whether it is time to look into the feed: an idle node waits to be told.
    fn is_news_likely(&mut self) -> bool {
        let now = clock::since_boot();
        let feed = self.channel.as_mut().and_then(|channel| channel.feed());
        let (is_told, has_notice) =
            feed.map_or((false, false), |it| (it.is_told(), it.has_notice()));
        self.was_told |= has_notice;
        let waits_to_be_told = is_told
            && now >= self.busy_until
            && now < self.look_due
            && !std::mem::take(&mut self.was_told);
        if !waits_to_be_told {
            self.look_due = now + TOLD_LOOK;
        }
        !waits_to_be_told
    }

    /// Before each question: whether this is still the agent's business.
    fn go_on(&mut self) -> Pass<()> {
        let store: &Store = &self.engine.store;
        let is_over = self.stop.load(Ordering::Acquire)
            || self.engine.is_abandoned(self.keepers)
            || !std::ptr::eq(self.store, store);
        if (is_over && !self.is_leaving) || !self.lease.renew(HOLD) {
            return Err(Left::Over);
        }
        Ok(())
    }

    /// The connection, after one more look at whether to go on.
    fn channel(&mut self) -> Pass<&mut dyn Channel> {
        self.go_on()?;
        match &mut self.channel {
            Some(channel) => Ok(&mut **channel),
            None => Err(Left::Failed(Failure::Lost("not connected".into()))),
        }
    }

    /// Whether there is a connection now.
    fn connect(&mut self) -> Pass<bool> {
        let now = clock::since_boot();
        if now < self.retry.0 {
            return Ok(false);
        }
        let mut channel = self.cluster.transport.connect(ANSWER)?;
        if let Some(feed) = channel.feed() {
            feed.listen()?;
        }
        self.channel = Some(channel);
        self.linked = now;
        self.ring.begin_anew();
        self.nodes.begin_anew();
        (self.refused_until, self.well_from) = (now, now);
        if self.state != State::Unknown || self.cluster.has_older_secrets {
            // What we wrote may be lost, or sealed with a secret that is about to go.
            self.resend.0 = true;
        }
        let looked = self.look_at_feed();
        self.or_refused(looked)?;
        Ok(true)
    }

    /// Until a session is made, or it is time to look what others did.
    fn wait(&mut self, rings: u32) {
        let now = clock::since_boot();
        let Some(channel) = &mut self.channel else {
            // New sessions change nothing now.
            return sys::pause(self.retry.0.saturating_sub(now).clamp(GATHER, IDLE_WAIT));
        };
        if self.ring.is_reading() || self.nodes.is_reading() {
            return sys::pause(GATHER);
        }
        let feed = channel.feed().filter(|feed| feed.is_told() && now >= self.busy_until);
        if let Some(feed) = feed {
            match feed.wait_for_notice(TOLD_WAIT) {
                Ok(told) => self.was_told |= told,
                Err(failure) => self.note_failure(&failure),
            }
            return;
        }
        let wait = if now < self.busy_until { BUSY_WAIT } else { IDLE_WAIT };
        self.store.wait_bell(rings, wait);
        if self.store.rings() != rings {
            sys::pause(GATHER);
        }
    }

    /// What was made last is sent, if that is quick; the next agent need not wait for this one's terms.
    fn take_leave(&mut self) {
        self.is_leaving = true;
        let name = self.node.to_string();
        // The process ends: what fails now fails.
        let _ = self.send_sessions();
        if let Some(channel) = &mut self.channel {
            let _ = channel.leave_maker(&name);
            let _ = channel.take_out(Table::Nodes, &[name.into_bytes()]);
        }
    }
}

/// Nothing, in the place of a refusal.
fn pardon<T: Default>(left: Left) -> Pass<T> {
    match left {
        Left::Failed(failure) if failure.is_refusal() => Ok(T::default()),
        left => Err(left),
    }
}
