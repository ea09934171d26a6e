//! A master, a replica, and the sentinels that make the replica the master.

use std::net::SocketAddr;

use super::{RedisServer, RedisSettings};
use crate::installed::certs::Mutual;
use crate::{DEADLINE, Result, wait_until};

const NAME: &str = "mymaster";
const SENTINELS: usize = 3;

/// One master, one replica and three sentinels that know each other.
#[derive(Debug)]
pub struct SentinelGroup {
    sentinels: Vec<RedisServer>,
    servers: [RedisServer; 2],
    scheme: &'static str,
}

impl SentinelGroup {
    /// Starts all of them, and waits until a failover could begin.
    pub fn start() -> Result<SentinelGroup> {
        SentinelGroup::with(&RedisServer::settings(), "redis")
    }

    /// The same with TLS, also among them.
    pub fn start_with_tls(certificates: &Mutual) -> Result<SentinelGroup> {
        SentinelGroup::with(&RedisServer::settings().tls(certificates), "rediss")
    }

    fn with(settings: &RedisSettings, scheme: &'static str) -> Result<SentinelGroup> {
        let master = settings.clone().start()?;
        let port = master.address().port();
        let replica = settings.clone().config(format!("replicaof 127.0.0.1 {port}")).start()?;
        // A sentinel asks for replicas once in ten seconds only: let there be one when it comes.
        wait_until("the replica", DEADLINE, || {
            let online = |state: String| state.contains("state=online");
            master.info("replication", "slave0").is_ok_and(|it| it.is_some_and(online))
        })?;
        let sentinels = (0..SENTINELS).map(|_| sentinel(settings, port)).collect::<Result<_>>()?;
        let group = SentinelGroup { sentinels, servers: [master, replica], scheme };
        wait_until("the sentinels to know all", DEADLINE, || {
            group.sentinels.iter().all(knows_all)
        })?;
        Ok(group)
    }

    /// Where clients find it.
    pub fn url(&self) -> String {
        let addresses: Vec<_> = self.sentinels.iter().map(|it| it.address().to_string()).collect();
        format!("{}+sentinel://{}/{NAME}", self.scheme, addresses.join(","))
    }

    /// The sentinels.
    pub fn sentinels(&mut self) -> &mut [RedisServer] {
        &mut self.sentinels
    }

    /// The server that the sentinels take for the master.
    pub fn master(&self) -> Result<&RedisServer> {
        Ok(&self.servers[self.master_index()?])
    }

    /// The same, to be stopped and continued.
    pub fn master_mut(&mut self) -> Result<&mut RedisServer> {
        Ok(&mut self.servers[self.master_index()?])
    }

    /// Whichever of master and replica is at `address`.
    pub fn server_at(&mut self, address: SocketAddr) -> Result<&mut RedisServer> {
        let sentinel = &self.sentinels[0];
        let found = self.servers.iter_mut().find(|it| it.address() == address);
        found.ok_or_else(|| sentinel.unexpected("has no server there"))
    }

    /// Kills the master, and returns where it was.
    pub fn kill_master(&mut self) -> Result<SocketAddr> {
        let master = self.master_mut()?;
        master.kill()?;
        Ok(master.address())
    }

    /// Waits until the server at `old` is the master no more: all sentinels that are left name the
    /// other one, and it is what they say.
    pub fn wait_for_failover(&self, old: SocketAddr) -> Result<()> {
        let follows = |sentinel: &RedisServer| {
            sentinel.process.has_ended() || { named_by(sentinel).is_ok_and(|master| master != old) }
        };
        wait_until("a failover", DEADLINE, || {
            self.sentinels.iter().all(follows) && self.master().is_ok_and(is_master)
        })
        .map_err(|_| self.sentinels[0].unexpected("no failover"))
    }

    fn master_index(&self) -> Result<usize> {
        let left = self.sentinels.iter().find(|it| !it.process.has_ended());
        let sentinel = left.unwrap_or(&self.sentinels[0]);
        let address = named_by(sentinel)?;
        let found = self.servers.iter().position(|it| it.address() == address);
        found.ok_or_else(|| sentinel.unexpected("names a master that is none of ours"))
    }
}

/// A sentinel that notices and acts as soon as it can.
fn sentinel(settings: &RedisSettings, master: u16) -> Result<RedisServer> {
    settings
        .clone()
        .sentinel()
        .config(format!("sentinel monitor {NAME} 127.0.0.1 {master} 2"))
        .config(format!("sentinel down-after-milliseconds {NAME} 500"))
        .config(format!("sentinel failover-timeout {NAME} 3000"))
        .start()
}

/// Whether it knows a replica that could be the master, and the other sentinels.
fn knows_all(sentinel: &RedisServer) -> bool {
    let says = |question: &str, wanted: &[&str]| {
        let answer = sentinel.command(&["SENTINEL", question, NAME]).unwrap_or_default();
        let lines: Vec<_> = answer.lines().collect();
        lines.windows(2).any(|pair| pair == wanted)
    };
    let others = (SENTINELS - 1).to_string();
    says("MASTER", &["num-other-sentinels", &others])
        && says("REPLICAS", &["master-link-status", "ok"])
}

fn named_by(sentinel: &RedisServer) -> Result<SocketAddr> {
    let answer = sentinel.command(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME])?;
    let address = answer.replace('\n', ":").parse();
    address.map_err(|_| sentinel.unexpected("knows no master"))
}

fn is_master(server: &RedisServer) -> bool {
    server.command(&["ROLE"]).is_ok_and(|role| role.starts_with("master\n"))
}
