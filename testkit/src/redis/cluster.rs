//! Three masters that share the slots of a Redis Cluster.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use super::{RedisServer, RedisSettings, Reply};
use crate::installed::certs::Mutual;
use crate::net::ReservedPort;
use crate::{DEADLINE, Result, wait_until};

const MASTERS: usize = 3;
const SLOTS: usize = 16_384;

/// Three masters without replicas.
#[derive(Debug)]
pub struct RedisCluster {
    nodes: Vec<Node>,
}

#[derive(Debug)]
struct Node {
    server: RedisServer,
    id: String,
    bus: ReservedPort,
}

/// A slot on its way from one master to another. Between the steps both have to be asked: the
/// source answers for keys that it still has and says ASK for others, the target answers to those
/// who say ASKING.
#[derive(Debug)]
#[must_use = "the slot moves as far as the steps say"]
pub struct Migration<'a> {
    cluster: &'a RedisCluster,
    slot: String,
    source: &'a Node,
    target: &'a Node,
}

impl RedisCluster {
    /// Starts them, and waits until each knows who has which slot.
    pub fn start() -> Result<RedisCluster> {
        RedisCluster::with(&RedisServer::settings())
    }

    /// The same with TLS, between the masters too.
    pub fn start_with_tls(certificates: &Mutual) -> Result<RedisCluster> {
        RedisCluster::with(&RedisServer::settings().tls(certificates))
    }

    fn with(settings: &RedisSettings) -> Result<RedisCluster> {
        let nodes = (0..MASTERS).map(|_| Node::start(settings)).collect::<Result<_>>()?;
        let cluster = RedisCluster { nodes };
        cluster.deal_out_slots()?;
        cluster.introduce()?;
        wait_until("a cluster", DEADLINE, || cluster.nodes.iter().all(Node::knows_all))
            .map_err(|_| cluster.nodes[0].server.unexpected("does not find the others"))?;
        Ok(cluster)
    }

    /// Where clients find it: all masters.
    pub fn url(&self) -> String {
        let urls: Vec<_> = self.nodes.iter().map(|node| node.server.url()).collect();
        urls.join(",")
    }

    /// The masters.
    pub fn masters(&self) -> impl Iterator<Item = &RedisServer> {
        self.nodes.iter().map(|node| &node.server)
    }

    /// The same, to be stopped and killed.
    pub fn masters_mut(&mut self) -> impl Iterator<Item = &mut RedisServer> {
        self.nodes.iter_mut().map(|node| &mut node.server)
    }

    /// The master that has the slot of `key`.
    pub fn master_of(&self, key: &str) -> Result<&RedisServer> {
        self.owner(key_slot(key.as_bytes())).map(|node| &node.server)
    }

    /// Begins to move the slot of `key` to the next master: both know of it, and no key has moved.
    pub fn migrate_slot_of(&self, key: &str) -> Result<Migration<'_>> {
        let number = key_slot(key.as_bytes());
        let (source, slot) = (self.owner(number)?, number.to_string());
        let at = self.nodes.iter().position(|node| node.id == source.id).unwrap_or_default();
        let target = &self.nodes[(at + 1) % MASTERS];
        target.server.command(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &source.id])?;
        source.server.command(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &target.id])?;
        Ok(Migration { cluster: self, slot, source, target })
    }

    /// Each master takes its part before they meet, so that none of them ever disagrees.
    fn deal_out_slots(&self) -> Result<()> {
        for (nth, node) in self.nodes.iter().enumerate() {
            let first = SLOTS * nth / MASTERS;
            let last = SLOTS * (nth + 1) / MASTERS - 1;
            let (first, last) = (first.to_string(), last.to_string());
            node.server.command(&["CLUSTER", "ADDSLOTSRANGE", &first, &last])?;
            node.server.command(&["CLUSTER", "SET-CONFIG-EPOCH", &(nth + 1).to_string()])?;
        }
        Ok(())
    }

    fn introduce(&self) -> Result<()> {
        let [first, others @ ..] = &self.nodes[..] else { return Ok(()) };
        for other in others {
            let port = other.server.address().port().to_string();
            let bus = other.bus.number().to_string();
            first.server.command(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus])?;
        }
        Ok(())
    }

    /// Whether all masters know the same epoch and the same slots of each.
    fn agrees(&self) -> bool {
        let views: Vec<_> = self.nodes.iter().map(Node::view).collect();
        views.windows(2).all(|two| two[0] == two[1])
    }

    fn owner(&self, slot: u16) -> Result<&Node> {
        let [first, ..] = &self.nodes[..] else { unreachable!("a cluster has masters") };
        let left = self.nodes.iter().find(|node| !node.server.process.has_ended()).unwrap_or(first);
        let slots = left.server.ask(&["CLUSTER", "SLOTS"])?;
        let id = owner_in(&slots, i64::from(slot));
        let found = self.nodes.iter().find(|node| id.as_ref() == Some(&node.id));
        found.ok_or_else(|| left.server.unexpected(&format!("knows no owner of slot {slot}")))
    }
}

impl Migration<'_> {
    /// The master that the slot leaves.
    pub fn source(&self) -> SocketAddr {
        self.source.server.address()
    }

    /// The master that the slot goes to.
    pub fn target(&self) -> SocketAddr {
        self.target.server.address()
    }

    /// Moves the keys of the slot, and returns how many there were.
    pub fn move_keys(&self) -> Result<usize> {
        const AT_ONCE: &str = "100";
        let mut moved = 0;
        loop {
            let question = ["CLUSTER", "GETKEYSINSLOT", &self.slot, AT_ONCE];
            let Reply::List(keys) = self.source.server.ask(&question)? else { return Ok(moved) };
            let keys: Vec<&[u8]> = keys.iter().filter_map(Reply::bytes).collect();
            if keys.is_empty() {
                return Ok(moved);
            }
            moved += keys.len();
            let port = self.target().port().to_string();
            let words = ["MIGRATE", "127.0.0.1", &port, "", "0", "10000", "KEYS"];
            let command: Vec<&[u8]> = words.iter().map(|it| it.as_bytes()).chain(keys).collect();
            self.source.server.ask(&command)?;
        }
    }

    /// Tells all masters who has the slot now, the new one first, and waits until they agree.
    ///
    /// A master that takes a slot makes its epoch the highest it knows of. If it does not know the highest one yet, a
    /// message of the old owner takes the slot back, for good.
    pub fn finish(self) -> Result<()> {
        let others = self.cluster.nodes.iter().filter(|node| node.id != self.target.id);
        for node in std::iter::once(self.target).chain(others) {
            let command = ["CLUSTER", "SETSLOT", &self.slot, "NODE", &self.target.id];
            node.server.command(&command)?;
        }
        wait_until("masters that agree", DEADLINE, || self.cluster.agrees())
            .map_err(|_| self.target.server.unexpected("knows other owners or epochs than others"))
    }
}

impl Node {
    fn start(settings: &RedisSettings) -> Result<Node> {
        let bus = ReservedPort::new()?;
        let server = settings
            .clone()
            .config("cluster-enabled yes")
            .config("cluster-config-file nodes.conf")
            .config("cluster-node-timeout 2000")
            .config("cluster-announce-ip 127.0.0.1")
            .config(format!("cluster-port {}", bus.number()))
            .start()?;
        let id = server.command(&["CLUSTER", "MYID"])?;
        Ok(Node { server, id, bus })
    }

    /// What it knows of the masters: id, epoch and slots of each.
    fn view(&self) -> BTreeSet<Vec<String>> {
        let nodes = self.server.command(&["CLUSTER", "NODES"]).unwrap_or_default();
        let known = |line: &str| {
            let fields: Vec<_> = line.split(' ').collect();
            let [id, _, _, _, _, _, epoch, _, slots @ ..] = &fields[..] else { return vec![] };
            // A slot on its way is in brackets, and its two masters alone know of it.
            let settled = slots.iter().filter(|slot| !slot.starts_with('['));
            [id, epoch].into_iter().chain(settled).map(|&word| word.to_owned()).collect()
        };
        nodes.lines().map(known).collect()
    }

    fn knows_all(&self) -> bool {
        let info = self.server.command(&["CLUSTER", "INFO"]).unwrap_or_default();
        let lines: Vec<_> = info.lines().collect();
        lines.contains(&"cluster_state:ok")
            && lines.contains(&format!("cluster_size:{MASTERS}").as_str())
    }
}

/// The slot of a key: of the part in braces alone, if there is one.
pub fn key_slot(key: &[u8]) -> u16 {
    let tag = |key: &'_ [u8]| {
        let open = key.iter().position(|byte| *byte == b'{')? + 1;
        let len = key[open..].iter().position(|byte| *byte == b'}')?;
        (len > 0).then_some(open..open + len)
    };
    let hashed = tag(key).map_or(key, |range| &key[range]);
    crc16(hashed) % 16_384
}

/// CRC-16/XMODEM.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
        })
    })
}

/// In `CLUSTER SLOTS`: lists of first and last slot, and of what has them: address, port, id.
fn owner_in(slots: &Reply, slot: i64) -> Option<String> {
    slots.list().iter().find_map(|range| match range.list() {
        [Reply::Number(first), Reply::Number(last), master, ..]
            if (*first..=*last).contains(&slot) =>
        {
            Some(master.list().get(2)?.to_string())
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_that_of_the_part_in_braces() {
        // The examples of the specification of Redis Cluster.
        assert_eq!(crc16(b"123456789"), 0x31c3);
        assert_eq!(key_slot(b"{user1000}.following"), key_slot(b"user1000"));
        assert_eq!(key_slot(b"foo{bar}{zap}"), key_slot(b"bar"));
        assert_eq!(key_slot(b"foo{{bar}}zap"), key_slot(b"{bar"));
        assert_ne!(key_slot(b"foo{}{bar}"), key_slot(b"bar"));
    }
}
