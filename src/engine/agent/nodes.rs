//! Heartbeats: which nodes live, and whether their rings are ours.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use super::reading::{FIELDS, Fields, Reading};
use super::unread::{Unread, in_words};
use super::{Agent, Pass};
use crate::clock::{self, UnixMillis};
use crate::cluster::message::Heartbeat;
use crate::cluster::redis::Hash;
use crate::cluster::seal::{Label, SecretId};
use crate::engine::Secrets;
use crate::log::Once;
use crate::stats::{Counter, Gauge};
use crate::sys;
use crate::trouble::{Say, Teller, before_that};

/// How often a node says that it lives.
const BEAT: Duration = Duration::from_secs(2);

/// How often a node listens to the others; with many of them less often, for the sake of the bytes.
const LISTEN: Duration = Duration::from_secs(2);
const LISTEN_PER_NODE: Duration = Duration::from_millis(100);

/// A node that has said nothing new for so long is not counted, and after longer taken off the list.
pub(super) const SILENT: Duration = Duration::from_secs(15);
pub(super) const GONE: Duration = Duration::from_secs(120);

/// Clocks may differ by so much. Only those ahead are told: a heartbeat that is behind may be an old one.
const CLOCKS_DIFFER: Duration = Duration::from_secs(5);

/// The list is dropped when no node is left.
const KEEP: Duration = Duration::from_secs(3600);

/// What is known of all nodes.
#[derive(Default)]
pub(super) struct Nodes {
    /// By the name that it has in Redis: the last sequence number, when that was news, and the ring's digest then. Of a
    /// node that is gone too, or an old heartbeat that is put back would be news.
    heard: HashMap<Vec<u8>, Heard>,
    /// What does not open. A node whose secret this one has not writes anew with every beat, and is left alone; what
    /// stays the same is nobody's.
    pub(super) unread: Unread,
    /// What was told of other nodes' secrets.
    secrets: Teller<()>,
    reading: Reading,
    beat_due: Duration,
    listen_due: Duration,
}

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
            sequence: clock::millis(clock::since_boot()),
            ring_digest: self.ring_digest(now),
            started_ms: self.store.created().0,
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
                    self.nodes.unread.see(name, sealed, now);
                }
            }
        }
        self.nodes.unread.keep_only(&beats);
        self.nodes.forget_oldest();
        self.report(now);
        let gone = self.nodes.gone(&beats, now);
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

    fn report(&mut self, now: Duration) {
        let own = self.ring_digest(clock::now());
        let (nodes, sealer) = (&self.nodes, &self.cluster.sealer);
        let alive = || nodes.alive(now).map(|heard| &heard.digest);
        let unread = nodes.unread.living(now, SILENT).count();
        let strangers = nodes.unread.living(now, SILENT).flatten().filter(|id| !sealer.has(*id));
        let strangers: Vec<_> = strangers.collect();
        let others: BTreeSet<_> = strangers.iter().copied().collect();
        let differ = alive().filter(|digest| **digest != own).count();
        let gauges = [
            (Gauge::Nodes, (alive().count() + unread) as u64),
            (Gauge::NodesOutOfSync, (differ + unread) as u64),
            (Gauge::NodesOtherSecret, strangers.len() as u64),
            (Gauge::OwnSecret, Secrets::to_gauge(Some(sealer.seals_with()))),
            (Gauge::OtherSecret, Secrets::to_gauge(others.first().copied())),
        ];
        gauges.iter().for_each(|(gauge, value)| self.store.set_gauge(*gauge, *value));
        self.tell_of_secrets(strangers.len(), &others, now);
    }

    /// Nodes whose secret files differ share nothing, and nobody else would say so.
    fn tell_of_secrets(&mut self, nodes: usize, others: &BTreeSet<SecretId>, now: Duration) {
        let say = match nodes {
            0 => self.nodes.secrets.note_well(now),
            _ => self.nodes.secrets.note_trouble((), now),
        };
        let file = self.engine.secret_file().display();
        let own = self.cluster.sealer.seals_with();
        match say {
            Say::Trouble(untold) => log::warn!(
                "cluster.secret_file: {nodes} of the nodes that write to Redis seal with a secret that {file} has not \
                 ({}; this node's is {own}): they and this node share neither keys nor sessions; write the same \
                 secret into that file on every host, and restart the servers there{}",
                in_words(others),
                before_that(untold)
            ),
            Say::Over((), _) => log::warn!(
                "cluster.secret_file: every node that writes to Redis seals with a secret that {file} has (this node's \
                 is {own})"
            ),
            Say::Nothing => {}
        }
    }
}

/// How long lies between two reports on that many nodes.
pub(in crate::engine) fn listens_every(nodes: u64) -> Duration {
    let nodes = u32::try_from(nodes).unwrap_or(u32::MAX);
    LISTEN.max(LISTEN_PER_NODE.saturating_mul(nodes))
}

impl Nodes {
    /// A new connection: what was read on the last one may be of another Redis.
    pub(super) fn begin_anew(&mut self) {
        self.reading = Reading::default();
        self.beat_at_once();
    }

    /// Whether some of the heartbeats are read and others are not.
    pub(super) fn is_reading(&self) -> bool {
        !self.reading.is_new()
    }

    /// Nothing proves better that Redis takes what is written.
    pub(super) fn beat_at_once(&mut self) {
        self.beat_due = Duration::ZERO;
    }

    /// A heartbeat that was heard before, or is older, is no news: somebody may have put it back.
    fn hear(&mut self, name: &[u8], heartbeat: &Heartbeat, at: Duration) {
        self.unread.forget(name);
        let news = Heard { sequence: heartbeat.sequence, at, digest: heartbeat.ring_digest };
        match self.heard.get_mut(name) {
            Some(heard) if news.sequence <= heard.sequence => {}
            Some(heard) => *heard = news,
            None => {
                self.heard.insert(name.to_vec(), news);
            }
        }
    }

    /// Those that said something new lately that this node could read, and nothing since that it could not.
    fn alive(&self, now: Duration) -> impl Iterator<Item = &Heard> {
        let is_alive = move |(name, heard): &(&Vec<u8>, &Heard)| {
            now.saturating_sub(heard.at) < SILENT && !self.unread.lives(name, now, SILENT)
        };
        self.heard.iter().filter(is_alive).map(|(_, heard)| heard)
    }

    /// Of more nodes than any cluster has, those go that were heard least lately.
    fn forget_oldest(&mut self) {
        if self.heard.len() > FIELDS {
            let mut times: Vec<_> = self.heard.values().map(|heard| heard.at).collect();
            times.sort_unstable();
            let oldest = times[times.len() / 2];
            self.heard.retain(|_, heard| heard.at > oldest);
        }
    }

    /// The fields that nobody has written anew for long.
    fn gone(&self, beats: &Fields, now: Duration) -> Vec<Vec<u8>> {
        let last = |name: &Vec<u8>| {
            self.unread.since(name).max(self.heard.get(name).map(|heard| heard.at))
        };
        let is_gone = |name: &&Vec<u8>| last(name).is_some_and(|at| now.saturating_sub(at) > GONE);
        beats.keys().filter(is_gone).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(1000 + seconds)
    }

    fn fields(names: &[&[u8]]) -> Fields {
        names.iter().map(|name| (name.to_vec(), Vec::new())).collect()
    }

    fn beat(sequence: u64) -> Heartbeat {
        Heartbeat {
            time_ms: 0,
            sequence,
            ring_digest: [0; 16],
            started_ms: 0,
            host: String::new(),
            version: String::new(),
        }
    }

    #[test]
    fn what_nobody_can_read_goes_when_it_stays_the_same_for_longer_than_a_node_may_be_silent() {
        let mut nodes = Nodes::default();
        let both = fields(&[b"dead", b"alive"]);
        for second in (0..=120).step_by(2) {
            nodes.unread.see(b"dead", b"garbage", at(second));
            // Of a node that has a secret which is not here yet.
            nodes.unread.see(b"alive", format!("beat {second}").as_bytes(), at(second));
            assert!(nodes.gone(&both, at(second)).is_empty());
        }
        nodes.unread.see(b"alive", b"beat 121", at(121));
        assert_eq!(nodes.gone(&both, at(121)), [b"dead".to_vec()]);
        let rest = fields(&[b"alive"]);
        nodes.unread.keep_only(&rest);
        assert!(nodes.gone(&rest, at(122)).is_empty());
        assert_eq!(nodes.gone(&rest, at(242)), [b"alive".to_vec()], "dead since");
    }

    #[test]
    fn a_dead_nodes_heartbeat_that_is_deleted_and_put_back_is_no_news_and_goes() {
        let (mut nodes, there) = (Nodes::default(), fields(&[b"node"]));
        nodes.hear(b"node", &beat(7), at(0));
        assert_eq!(nodes.alive(at(1)).count(), 1);
        // Deleted, for as long as anybody likes.
        nodes.unread.keep_only(&Fields::new());
        nodes.forget_oldest();
        assert!(nodes.gone(&Fields::new(), at(1000)).is_empty(), "there is nothing to take out");
        nodes.hear(b"node", &beat(7), at(1000));
        assert_eq!(nodes.alive(at(1000)).count(), 0);
        assert_eq!(nodes.gone(&there, at(1000)), [b"node".to_vec()]);
        nodes.hear(b"node", &beat(8), at(1001));
        assert_eq!(nodes.alive(at(1001)).count(), 1, "it lives");
    }

    #[test]
    fn a_node_that_comes_back_with_another_secret_counts_once() {
        let mut nodes = Nodes::default();
        nodes.hear(b"node", &beat(7), at(0));
        for second in 1..3 {
            nodes.unread.see(b"node", &[second; 60], at(second.into()));
        }
        assert_eq!(
            (nodes.alive(at(2)).count(), nodes.unread.living(at(2), SILENT).count()),
            (0, 1)
        );
        assert!(nodes.gone(&fields(&[b"node"]), at(121)).is_empty());
        nodes.hear(b"node", &beat(8), at(3));
        assert_eq!(
            (nodes.alive(at(3)).count(), nodes.unread.living(at(3), SILENT).count()),
            (1, 0)
        );
    }
}
