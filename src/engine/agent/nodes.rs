//! Heartbeats: which nodes live, and whether their rings are ours.

use std::collections::HashMap;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::reading::{Fields, Reading};
use super::{Agent, Pass};
use crate::clock::{self, UnixMillis};
use crate::cluster::message::Heartbeat;
use crate::cluster::redis::Hash;
use crate::cluster::seal::Label;
use crate::log::Once;
use crate::stats::{Counter, Gauge};
use crate::sys;

/// How often a node says that it lives.
const BEAT: Duration = Duration::from_secs(2);

/// How often a node listens to the others; with many of them less often, for the sake of the bytes.
const LISTEN: Duration = Duration::from_secs(2);
const LISTEN_PER_NODE: Duration = Duration::from_millis(100);

/// A node that has said nothing new for so long is not counted, and after longer taken off the list.
const SILENT: Duration = Duration::from_secs(15);
const GONE: Duration = Duration::from_secs(120);

/// Clocks may differ by so much. Only those ahead are told: a heartbeat that is behind may be an old one.
const CLOCKS_DIFFER: Duration = Duration::from_secs(5);

/// The list is dropped when no node is left.
const KEEP: Duration = Duration::from_secs(3600);

/// What is known of all nodes.
#[derive(Default)]
pub(super) struct Nodes {
    /// By the name that it has in Redis: the last sequence number, when that was news, and the ring's digest then.
    heard: HashMap<Vec<u8>, Heard>,
    /// What does not open, by name: a digest of it, and since when it is there. A node whose secret this one has not
    /// writes anew with every beat, and is left alone; what stays the same is nobody's.
    strange: HashMap<Vec<u8>, (Fingerprint, Duration)>,
    reading: Reading,
    beat_due: Duration,
    listen_due: Duration,
}

/// Tells one value of a field from the next; who makes two alike has his field deleted.
type Fingerprint = [u8; 8];

struct Heard {
    sequence: u64,
    at: Duration,
    digest: [u8; 16],
}

impl Agent<'_> {
    /// Says that this node lives, and listens, when either is due. Whether it was time to say so.
    pub(super) fn keep_nodes(&mut self) -> Pass<bool> {
        let now = clock::since_boot();
        let is_due = now >= self.nodes.beat_due;
        if is_due {
            self.nodes.beat_due = now + BEAT;
            self.beat()?;
        }
        if now >= self.nodes.listen_due && self.listen(now)? {
            self.nodes.listen_due = now + listens_every(self.nodes.heard.len() as u64);
        }
        Ok(is_due)
    }

    fn beat(&mut self) -> Pass<()> {
        let now = clock::now();
        let heartbeat = Heartbeat {
            time_ms: now.0,
            // Goes on over steps of the wall clock; a node of another boot is another node.
            sequence: millis(clock::since_boot()),
            ring_digest: self.ring_digest(now),
            started_ms: self.engine.store.created().0,
            host: sys::host_name(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let name = self.node.to_string();
        let sealed =
            heartbeat.encode().and_then(|plain| self.seal(Label::Control, name.as_bytes(), &plain));
        if let Some(sealed) = sealed {
            self.link()?.beat(&name, &sealed, KEEP)?;
        }
        Ok(())
    }

    /// Whether all were heard; if not, the next pass goes on.
    fn listen(&mut self, now: Duration) -> Pass<bool> {
        let mut reading = std::mem::take(&mut self.nodes.reading);
        let Some(beats) = self.read(Hash::Nodes, &mut reading)? else {
            self.nodes.reading = reading;
            return Ok(false);
        };
        for (name, sealed) in &beats {
            let plain = self.open_sealed(Label::Control, name, sealed);
            match plain.map(|plain| Heartbeat::decode(&plain)) {
                Some(Some(heartbeat)) => {
                    self.compare_clocks(&heartbeat);
                    self.nodes.hear(name, &heartbeat, now);
                }
                unknown => {
                    if unknown.is_some() {
                        self.engine.counters().count(Counter::TransportRejectedFormat);
                    }
                    self.nodes.see(name, sealed, now);
                }
            }
        }
        self.nodes.keep_only(&beats);
        self.report(now);
        let gone = self.nodes.gone(now);
        self.nodes.forget(&gone);
        if !gone.is_empty() {
            self.link()?.take_out(Hash::Nodes, &gone)?;
        }
        Ok(true)
    }

    /// Keys and sessions live by the clock: those of the nodes must agree.
    fn compare_clocks(&self, heartbeat: &Heartbeat) {
        static SAID: Once = Once::new();
        let (own, other) = (clock::now(), UnixMillis(heartbeat.time_ms));
        let ahead = other.since(own);
        if ahead > CLOCKS_DIFFER && SAID.first() {
            log::warn!(
                "the clock of {} is {} s ahead of this one's; keys and sessions need clocks that agree (NTP)",
                heartbeat.host.escape_debug(),
                ahead.as_secs()
            );
        }
    }

    /// Of what is not over: when a ring forgets what is, differs from node to node.
    fn ring_digest(&self, now: UnixMillis) -> [u8; 16] {
        self.engine.current(now).ring.living(now).digest()
    }

    fn report(&self, now: Duration) {
        let own = self.ring_digest(clock::now());
        let alive = || self.nodes.heard.values().filter(|heard| now - heard.at < SILENT);
        let store = &self.engine.store;
        store.set_gauge(Gauge::Nodes, alive().count() as u64);
        let differ = alive().filter(|heard| heard.digest != own).count();
        store.set_gauge(Gauge::NodesOutOfSync, differ as u64);
    }
}

/// How long lies between two reports on that many nodes.
pub(in crate::engine) fn listens_every(nodes: u64) -> Duration {
    let nodes = u32::try_from(nodes).unwrap_or(u32::MAX);
    LISTEN.max(LISTEN_PER_NODE.saturating_mul(nodes))
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl Nodes {
    /// A new connection: what was read on the last one may be of another Redis.
    pub(super) fn begin_anew(&mut self) {
        self.reading = Reading::default();
        self.beat_at_once();
    }

    /// Nothing proves better that Redis takes what is written.
    pub(super) fn beat_at_once(&mut self) {
        self.beat_due = Duration::ZERO;
    }

    /// A heartbeat that was heard before, or is older, is no news: somebody may have put it back.
    fn hear(&mut self, name: &[u8], heartbeat: &Heartbeat, at: Duration) {
        let news = Heard { sequence: heartbeat.sequence, at, digest: heartbeat.ring_digest };
        match self.heard.get_mut(name) {
            Some(heard) if news.sequence <= heard.sequence => {}
            Some(heard) => *heard = news,
            None => {
                self.heard.insert(name.to_vec(), news);
            }
        }
    }

    /// A heartbeat that this node cannot read. What was heard of that node before still counts: its number tells an old
    /// heartbeat that is put back.
    fn see(&mut self, name: &[u8], sealed: &[u8], at: Duration) {
        let fingerprint = *Sha256::digest(sealed).first_chunk().expect("8 of 32 bytes");
        let (known, since) = self.strange.entry(name.to_vec()).or_insert((fingerprint, at));
        if *known != fingerprint {
            (*known, *since) = (fingerprint, at);
        }
    }

    /// What is not there any more needs no watching.
    fn keep_only(&mut self, beats: &Fields) {
        self.heard.retain(|name, _| beats.contains_key(name));
        self.strange.retain(|name, _| beats.contains_key(name) && !self.heard.contains_key(name));
    }

    fn forget(&mut self, gone: &[Vec<u8>]) {
        for name in gone {
            self.heard.remove(name);
            self.strange.remove(name);
        }
    }

    fn gone(&self, now: Duration) -> Vec<Vec<u8>> {
        let heard = self.heard.iter().map(|(name, heard)| (name, heard.at));
        let strange = self.strange.iter().map(|(name, (_, since))| (name, *since));
        let gone = heard.chain(strange).filter(|(_, at)| now.saturating_sub(*at) > GONE);
        gone.map(|(name, _)| name.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(1000 + seconds)
    }

    #[test]
    fn what_nobody_can_read_goes_when_it_stays_the_same_for_longer_than_a_node_may_be_silent() {
        let mut nodes = Nodes::default();
        for second in (0..=120).step_by(2) {
            nodes.see(b"dead", b"garbage", at(second));
            // Of a node that has a secret which is not here yet.
            nodes.see(b"alive", format!("beat {second}").as_bytes(), at(second));
            assert!(nodes.gone(at(second)).is_empty());
        }
        nodes.see(b"alive", b"beat 121", at(121));
        let gone = nodes.gone(at(121));
        assert_eq!(gone, [b"dead".to_vec()]);
        nodes.forget(&gone);
        nodes.keep_only(&Fields::from([(b"alive".to_vec(), Vec::new())]));
        assert!(nodes.gone(at(122)).is_empty());
        assert_eq!(nodes.gone(at(242)), [b"alive".to_vec()], "dead since");
    }
}
