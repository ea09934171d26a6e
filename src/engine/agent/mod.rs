//! The agent: the one background thread of a node, which speaks to Redis for all its processes.
//!
//! Owns: the node's connection to Redis and what is due on it. Called by: `start` (in one of the server's processes) and
//! `tlsresumectl agent` (a process of its own). Threads: one per node, by a lease in shared memory; whoever finds it
//! taken over ends. It uses no libcrypto, takes no signal and has descriptors of its own. Forks: a child has no agent
//! until it starts one. Failure: Redis is tried again for ever, at most once a second; nothing waits for it but the
//! first handshake of a node ([`start`]).

mod nodes;
mod ring;
mod sessions;
pub(super) mod start;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use zeroize::Zeroizing;

use super::Engine;
use super::cluster::Cluster;
use crate::clock;
use crate::cluster::message::NodeId;
use crate::cluster::redis::{Link, Trouble};
use crate::cluster::seal::{Label, Refused};
use crate::stats::{Counter, Gauge};
use crate::store::AgentLease;
use crate::sys;

use nodes::Nodes;

/// How long the lease lasts that a dead agent leaves behind.
const HOLD: Duration = Duration::from_secs(2);

/// How long one answer of Redis is waited for: less than the lease, which is renewed before each question.
const ANSWER: Duration = Duration::from_secs(1);

/// Waits between two looks into the stream: while sessions come and go, and at most, when nothing happens.
const BUSY_WAIT: Duration = Duration::from_millis(4);
const IDLE_WAIT: Duration = Duration::from_millis(50);

/// Where Redis tells that there is news, an idle node looks after its own sessions so often, and into the stream, lest a
/// notice got lost, so often.
const TOLD_WAIT: Duration = Duration::from_millis(8);
const TOLD_LOOK: Duration = Duration::from_millis(500);

/// How long a node counts as busy after something happened.
const BUSY: Duration = Duration::from_secs(2);

/// What is sent is gathered for so long, so that many sessions are one exchange.
const GATHER: Duration = Duration::from_millis(1);

/// Pauses between attempts to connect.
const FIRST_RETRY: Duration = Duration::from_millis(50);
const LAST_RETRY: Duration = Duration::from_secs(1);

/// Pause after Redis had no room for what was to be sent.
const FULL_RETRY: Duration = Duration::from_millis(500);

/// Why a pass of the agent was left.
enum Left {
    /// It is to stop, or another agent has taken over.
    Over,
    /// Redis failed.
    Trouble(Trouble),
}

impl From<Trouble> for Left {
    fn from(trouble: Trouble) -> Self {
        Left::Trouble(trouble)
    }
}

type Pass<T> = Result<T, Left>;

/// What was last said about Redis.
#[derive(Clone, Copy)]
enum Reach {
    Unknown,
    Up,
    /// Not reached, since then.
    Down(Duration),
}

/// A serving agent.
struct Agent<'a> {
    engine: &'a Engine,
    cluster: &'a Cluster,
    stop: &'a AtomicBool,
    lease: AgentLease<'a>,
    node: NodeId,
    link: Option<Link>,
    /// When the next attempt to connect is due, and how long after it the one after that.
    retry: (Duration, Duration),
    reach: Reach,
    ring: ring::Progress,
    nodes: Nodes,
    busy_until: Duration,
    /// Redis told that there is news.
    was_told: bool,
    look_due: Duration,
    /// Redis was full; nothing is sent before.
    full_until: Duration,
    is_full: bool,
}

impl Engine {
    /// Serves as this node's agent until `stop` is set. While another process is the agent, it waits for that one's end.
    /// Without a transport it keeps the ring, for nodes that see no client for longer than keys are made ahead.
    pub fn serve_agent(&self, stop: &AtomicBool) {
        while !stop.load(Ordering::Acquire) {
            self.serve_if_free(stop);
            sys::pause(IDLE_WAIT);
        }
    }

    /// Serves as this node's agent until `stop` is set or another process has taken over; not at all if there is one.
    fn serve_if_free(&self, stop: &AtomicBool) {
        let Some(lease) = self.store.hold_agent(HOLD) else { return };
        match &self.cluster {
            Some(cluster) => {
                sys::separate_descriptors();
                Agent::new(self, cluster, stop, lease).serve();
            }
            None => self.keep_ring_alone(stop, lease),
        }
    }

    fn keep_ring_alone(&self, stop: &AtomicBool, mut lease: AgentLease<'_>) {
        while !stop.load(Ordering::Acquire) && lease.renew(HOLD) {
            self.view(clock::now());
            sys::pause(IDLE_WAIT);
        }
    }
}

impl Engine {
    /// Whether nobody has this instance any more but its agent.
    fn is_abandoned(&self) -> bool {
        self.shared.get().is_some_and(|shared| shared.strong_count() <= 1)
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
        cluster: &'a Cluster,
        stop: &'a AtomicBool,
        lease: AgentLease<'a>,
    ) -> Self {
        let now = clock::since_boot();
        Agent {
            engine,
            cluster,
            stop,
            lease,
            node: NodeId(engine.store.node_id()),
            link: None,
            retry: (now, FIRST_RETRY),
            reach: Reach::Unknown,
            ring: ring::Progress::default(),
            nodes: Nodes::default(),
            busy_until: now,
            was_told: false,
            look_due: now,
            full_until: now,
            is_full: false,
        }
    }

    fn serve(mut self) {
        loop {
            let rings = self.engine.store.rings();
            match self.pass() {
                Ok(()) => {}
                Err(Left::Over) => break,
                Err(Left::Trouble(trouble)) => self.note_trouble(&trouble),
            }
            self.wait(rings);
        }
        self.engine.store.set_gauge(Gauge::TransportUp, 0);
        self.take_leave();
    }

    /// Everything that is due, once.
    fn pass(&mut self) -> Pass<()> {
        self.go_on()?;
        if self.link.is_none() && !self.connect()? {
            return Ok(());
        }
        if clock::since_boot() >= self.full_until {
            let written = self.write();
            self.tolerate(written)?;
        }
        if self.engine.store.has_first_copy() && self.is_news_likely() && self.receive()? > 0 {
            self.busy_until = clock::since_boot() + BUSY;
        }
        Ok(())
    }

    /// What this node has to say.
    fn write(&mut self) -> Pass<()> {
        self.keep_ring()?;
        if !self.engine.store.has_first_copy() {
            return Ok(());
        }
        if self.send_sessions()? > 0 {
            self.busy_until = clock::since_boot() + BUSY;
        }
        self.keep_nodes()?;
        if std::mem::take(&mut self.is_full) {
            log::warn!("redis: takes what is written again");
        }
        Ok(())
    }

    /// Whether it is time to look into the stream: an idle node waits to be told.
    fn is_news_likely(&mut self) -> bool {
        let now = clock::since_boot();
        let waits_to_be_told = self.link.as_ref().is_some_and(Link::is_told)
            && now >= self.busy_until
            && now < self.look_due
            && !std::mem::take(&mut self.was_told);
        if !waits_to_be_told {
            self.look_due = now + TOLD_LOOK;
        }
        !waits_to_be_told
    }

    /// Before each question to Redis: whether this is still the agent's business.
    fn go_on(&mut self) -> Pass<()> {
        let is_over = self.stop.load(Ordering::Acquire) || self.engine.is_abandoned();
        if is_over || !self.lease.renew(HOLD) {
            return Err(Left::Over);
        }
        Ok(())
    }

    /// The connection, after one more look at whether to go on.
    fn link(&mut self) -> Pass<&mut Link> {
        self.go_on()?;
        let lost = || Left::Trouble(Trouble::Lost("not connected".into()));
        self.link.as_mut().ok_or_else(lost)
    }

    /// Whether there is a connection now.
    fn connect(&mut self) -> Pass<bool> {
        let now = clock::since_boot();
        if now < self.retry.0 {
            return Ok(false);
        }
        let mut link = self.cluster.remote.connect(ANSWER)?;
        link.listen()?;
        self.link = Some(link);
        self.ring.begin_anew();
        self.look_at_stream()?;
        self.announce_up();
        Ok(true)
    }

    fn announce_up(&mut self) {
        self.retry.1 = FIRST_RETRY;
        self.engine.store.set_gauge(Gauge::TransportUp, 1);
        match std::mem::replace(&mut self.reach, Reach::Up) {
            Reach::Up => {}
            Reach::Unknown => log::info!("redis: reached; this process is the node's agent"),
            Reach::Down(since) => {
                let seconds = clock::since_boot().saturating_sub(since).as_secs();
                log::warn!("redis: reached again after {seconds} s");
            }
        }
    }

    /// A refusal leaves the connection sound: what does not write goes on, what cannot be sent waits.
    fn tolerate(&mut self, done: Pass<()>) -> Pass<()> {
        let Err(Left::Trouble(trouble @ (Trouble::Full(_) | Trouble::Refused(_)))) = done else {
            return done;
        };
        self.full_until = clock::since_boot() + FULL_RETRY;
        if !std::mem::replace(&mut self.is_full, true) {
            log::warn!("redis: refuses what is written: {trouble}; what cannot be sent waits");
        }
        Ok(())
    }

    /// One line when the state changes; no more than one attempt a second after.
    fn note_trouble(&mut self, trouble: &Trouble) {
        let now = clock::since_boot();
        self.link = None;
        self.retry = (now + self.retry.1, (self.retry.1 * 2).min(LAST_RETRY));
        self.engine.store.set_gauge(Gauge::TransportUp, 0);
        // Whoever waits for the ring of the others waits in vain.
        self.engine.store.note_first_copy();
        if !matches!(self.reach, Reach::Down(_)) {
            self.reach = Reach::Down(now);
            log::warn!(
                "redis: not reached: {trouble}; keys and sessions of this node are not shared until it is"
            );
        }
    }

    /// Until a session is made, or it is time to look what others did.
    fn wait(&mut self, rings: u32) {
        let now = clock::since_boot();
        let Some(link) = &mut self.link else {
            // New sessions change nothing now.
            return sys::pause(self.retry.0.saturating_sub(now).clamp(GATHER, IDLE_WAIT));
        };
        if link.is_told() && now >= self.busy_until {
            match link.wait_for_notice(TOLD_WAIT) {
                Ok(told) => self.was_told |= told,
                Err(trouble) => self.note_trouble(&trouble),
            }
            return;
        }
        let wait = if now < self.busy_until { BUSY_WAIT } else { IDLE_WAIT };
        self.engine.store.wait_bell(rings, wait);
        if self.engine.store.rings() != rings {
            sys::pause(GATHER);
        }
    }

    /// What was made last is sent, if that is quick; the next agent need not wait for this one's terms.
    fn take_leave(&mut self) {
        if !self.lease.renew(HOLD) {
            return;
        }
        self.stop = &NEVER;
        let name = self.node.to_string();
        // The process ends: what fails now fails.
        let _ = self.send_sessions();
        if let Some(link) = &mut self.link {
            let _ = link.leave_maker(&name);
        }
    }
}

static NEVER: AtomicBool = AtomicBool::new(false);
