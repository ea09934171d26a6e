//! Heartbeats: this node says that it lives, and listens to the others.
//!
//! Owns: nothing; what was heard is in [`super::nodes`]. Called by: the agent's pass. Threads and forks: the agent's.
//! Failure: what does not open is counted, and told if it is sealed with another secret.

use std::collections::BTreeSet;
use std::time::Duration;

use super::nodes::{SILENT, listens_every};
use super::unread::in_words;
use super::{Agent, Pass};
use crate::clock::{self, UnixMillis};
use crate::cluster::message::Heartbeat;
use crate::cluster::seal::{Label, SecretId};
use crate::cluster::transport::Table;
use crate::engine::Secrets;
use crate::log::Once;
use crate::stats::{Counter, Gauge};
use crate::sys;
use crate::trouble::{Say, before_that};

/// How often a node says that it lives.
const BEAT: Duration = Duration::from_secs(2);

/// Clocks may differ by so much. Only those ahead are told: a heartbeat that is behind may be an old one.
const CLOCKS_DIFFER: Duration = Duration::from_secs(5);

/// The list is dropped when no node is left.
const KEEP: Duration = Duration::from_secs(3600);

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
            self.channel()?.beat(&name, &sealed, KEEP)?;
        }
        Ok(())
    }

    /// Whether all were heard; if not, the next pass goes on.
    fn listen(&mut self, now: Duration) -> Pass<bool> {
        let mut reading = std::mem::take(&mut self.nodes.reading);
        let Some(beats) = self.read(Table::Nodes, &mut reading)? else {
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
            self.channel()?.take_out(Table::Nodes, &gone)?;
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
                "cluster.secret_file: {nodes} of the nodes of this realm seal with a secret that {file} has not \
                 ({}; this node's is {own}): they and this node share neither keys nor sessions; write the same \
                 secret into that file on every host, and restart the servers there{}",
                in_words(others),
                before_that(untold)
            ),
            Say::Over((), _) => log::warn!(
                "cluster.secret_file: every node of this realm seals with a secret that {file} has (this node's \
                 is {own})"
            ),
            Say::Nothing => {}
        }
    }
}
