//! The sections of the configuration: what each setting means, its range and its default.
//!
//! An optional setting that is not set is `None` or an empty list.

#![forbid(unsafe_code)]

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::words::{Agent, Bind, KeyFormat, KeySource, Level, Mode, OnRemove, Replication};
use crate::log::Target;

/// How sessions are resumed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resumption {
    /// What a client is given to come back with. Default: stateless.
    pub mode: Mode,
    /// TLS 1.3 tickets per full handshake, 0 to 16. Default: 2.
    pub tickets: u8,
    /// How long after its full handshake a session can be resumed, 1 s to 7 d. Default: 12 h.
    pub lifetime: Duration,
    /// Whether a ticket is consumed by its first use, on all nodes; only with mode stateful. Default: false.
    pub single_use: bool,
    /// What OpenSSL's remove callback does to the shared session. Default: keep.
    pub on_remove: OnRemove,
    /// What sessions are tied to: server name and client-verification policy (`true`), these and the server's
    /// certificate (`certificate`), or nothing (`false`). Default: true.
    pub bind: Bind,
    /// Whether sessions resume also where the application itself disabled that. Default: false.
    pub force: bool,
}

impl Default for Resumption {
    fn default() -> Self {
        Resumption {
            mode: Mode::default(),
            tickets: 2,
            lifetime: Duration::from_secs(12 * 3600),
            single_use: false,
            on_remove: OnRemove::default(),
            bind: Bind::On,
            force: false,
        }
    }
}

/// Where ticket keys come from and how long they live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    /// Where ticket keys come from. Default: random.
    pub source: KeySource,
    /// How long a key encrypts, 1 s to 30 d. Default: 1 h.
    pub rotate: Duration,
    /// Periods for which keys are made and published in advance, 1 to 16. Default: 4.
    pub ahead: u32,
    /// How long a new key is known before it encrypts, 0 s to 10 min. Default: 10 s.
    pub activation_delay: Duration,
    /// The key files, in the order that `format` wants; set exactly when the source is files. Read when an instance is made.
    pub files: Vec<PathBuf>,
    /// Whose layout the key files have. Default: nginx.
    pub format: KeyFormat,
}

impl Default for Keys {
    fn default() -> Self {
        Keys {
            source: KeySource::default(),
            rotate: Duration::from_secs(3600),
            ahead: 4,
            activation_delay: Duration::from_secs(10),
            files: Vec::new(),
            format: KeyFormat::default(),
        }
    }
}

/// The memory that the processes of one host share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Absolute path of the file to map; none: anonymous memory, shared with forked children only.
    pub path: Option<PathBuf>,
    /// Size in bytes, 512 KiB to 64 GiB. Default: 16 MiB.
    pub size: u64,
    /// Whether the memory is locked against swapping. Default: false.
    pub lock: bool,
}

impl Default for Memory {
    fn default() -> Self {
        Memory { path: None, size: 16 << 20, lock: false }
    }
}

/// What all transports have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// The file with the cluster's secrets; set whenever a transport is.
    pub secret_file: Option<PathBuf>,
    /// Who talks to the transports. Default: thread.
    pub agent: Agent,
    /// How sessions reach the other nodes. Default: push.
    pub sessions: Replication,
    /// The longest that a handshake waits for the cluster, 1 ms to 1 s. Default: 5 ms.
    pub lookup_budget: Duration,
}

impl Default for Cluster {
    fn default() -> Self {
        Cluster {
            secret_file: None,
            agent: Agent::default(),
            sessions: Replication::default(),
            lookup_budget: Duration::from_millis(5),
        }
    }
}

/// The Redis transport; off while there is no address.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Redis {
    /// One address, or the seed nodes of a Redis Cluster. They may hold a password: never print them.
    pub url: Vec<String>,
    /// The file whose first line is the password.
    pub password_file: Option<PathBuf>,
    /// The certificates that the server's one is checked against; none: the system's.
    pub ca_file: Option<PathBuf>,
    /// The client certificate; set exactly when `key_file` is.
    pub cert_file: Option<PathBuf>,
    /// The client certificate's key; set exactly when `cert_file` is.
    pub key_file: Option<PathBuf>,
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redis")
            .field("url", &format_args!("[{} hidden]", self.url.len()))
            .field("password_file", &self.password_file)
            .field("ca_file", &self.ca_file)
            .field("cert_file", &self.cert_file)
            .field("key_file", &self.key_file)
            .finish()
    }
}

/// The memcached transport; off while there is no server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memcached {
    /// The servers, each `host:port`.
    pub servers: Vec<String>,
}

/// The transport from host to host; off while there is nothing to listen on or to send to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peers {
    /// The address and UDP port that datagrams arrive at.
    pub listen: Option<SocketAddr>,
    /// The other nodes, each `host:port`; the agent resolves the names.
    pub members: Vec<String>,
    /// The multicast group and port that reach all nodes.
    pub multicast: Option<SocketAddr>,
    /// Name or address of the network interface for multicast; none: the system's choice.
    pub interface: Option<String>,
    /// How many routers a multicast datagram may pass, 1 (none) to 255. Default: 1.
    pub ttl: u8,
}

impl Default for Peers {
    fn default() -> Self {
        Peers { listen: None, members: Vec::new(), multicast: None, interface: None, ttl: 1 }
    }
}

/// TLS 1.3 early data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EarlyData {
    /// How long a ticket's first use is remembered, 10 s to 1 h. Default: 20 s.
    ///
    /// Never shorter than the 10 s for which OpenSSL takes one and the same first flight: a replay would outlive its
    /// record. What is above 10 s is room for clocks that differ (half of it in each direction).
    pub replay_window: Duration,
}

impl Default for EarlyData {
    fn default() -> Self {
        EarlyData { replay_window: Duration::from_secs(20) }
    }
}

/// Diagnostics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Log {
    /// The least important message that is logged. Default: warn.
    pub level: Level,
    /// Where messages go unless the application has a log callback. Default: standard error.
    pub target: Target,
}
