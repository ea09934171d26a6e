//! What is known of all nodes: which live, and what their rings are.
//!
//! Owns: that. Called by: the agent, and [`super::heartbeats`], with the time as an argument. Threads and forks: the
//! agent's. Failure: none.

use std::collections::HashMap;
use std::time::Duration;

use super::reading::{FIELDS, Fields, Reading};
use super::unread::Unread;
use crate::cluster::message::Heartbeat;
use crate::trouble::Teller;

/// How often a node listens to the others; with many of them less often, for the sake of the bytes.
const LISTEN: Duration = Duration::from_secs(2);
const LISTEN_PER_NODE: Duration = Duration::from_millis(100);

/// A node that has said nothing new for so long is not counted, and after longer taken off the list.
pub(super) const SILENT: Duration = Duration::from_secs(15);
pub(super) const GONE: Duration = Duration::from_secs(120);

/// What is known of all nodes.
#[derive(Default)]
pub(super) struct Nodes {
    /// By the name that it has in the table: the last sequence number, when that was news, and the ring's digest then. Of a
    /// node that is gone too, or an old heartbeat that is put back would be news.
    pub(super) heard: HashMap<Vec<u8>, Heard>,
    /// What does not open. A node whose secret this one has not writes anew with every beat, and is left alone; what
    /// stays the same is nobody's.
    pub(super) unread: Unread,
    /// What was told of other nodes' secrets.
    pub(super) secrets: Teller<()>,
    pub(super) reading: Reading,
    pub(super) beat_due: Duration,
    pub(super) listen_due: Duration,
}

pub(super) struct Heard {
    sequence: u64,
    at: Duration,
    pub(super) digest: [u8; 16],
}

/// How long lies between two reports on that many nodes.
pub(in crate::engine) fn listens_every(nodes: u64) -> Duration {
    let nodes = u32::try_from(nodes).unwrap_or(u32::MAX);
    LISTEN.max(LISTEN_PER_NODE.saturating_mul(nodes))
}

impl Nodes {
    /// A new connection: what was read on the last one may be another board.
    pub(super) fn begin_anew(&mut self) {
        self.reading = Reading::default();
        self.beat_at_once();
    }

    /// Whether some of the heartbeats are read and others are not.
    pub(super) fn is_reading(&self) -> bool {
        !self.reading.is_new()
    }

    /// Nothing proves better that what is written is taken.
    pub(super) fn beat_at_once(&mut self) {
        self.beat_due = Duration::ZERO;
    }

    /// A heartbeat that was heard before, or is older, is no news: somebody may have put it back.
    pub(super) fn hear(&mut self, name: &[u8], heartbeat: &Heartbeat, at: Duration) {
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
    pub(super) fn alive(&self, now: Duration) -> impl Iterator<Item = &Heard> {
        let is_alive = move |(name, heard): &(&Vec<u8>, &Heard)| {
            now.saturating_sub(heard.at) < SILENT && !self.unread.lives(name, now, SILENT)
        };
        self.heard.iter().filter(is_alive).map(|(_, heard)| heard)
    }

    /// Of more nodes than any cluster has, those go that were heard least lately.
    pub(super) fn forget_oldest(&mut self) {
        if self.heard.len() > FIELDS {
            let mut times: Vec<_> = self.heard.values().map(|heard| heard.at).collect();
            times.sort_unstable();
            let oldest = times[times.len() / 2];
            self.heard.retain(|_, heard| heard.at > oldest);
        }
    }

    /// The fields that nobody has written anew for long.
    pub(super) fn gone(&self, beats: &Fields, now: Duration) -> Vec<Vec<u8>> {
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
