//! The table of all settings: key, variable, what is allowed, and how it is read.

#![forbid(unsafe_code)]

use std::fmt;
use std::time::Duration;

use super::Config;
use super::input::{Input, Reading};
use super::words::{Agent, Bind, KeyFormat, KeySource, Level, Mode, OnRemove, Replication};

/// One setting and the variable that sets it.
pub struct Setting {
    /// The variable: "TLSRESUME_RESUMPTION_LIFETIME".
    pub name: &'static str,
    /// The key in the TOML file, in dotted form: "resumption.lifetime".
    pub key: &'static str,
    /// The values that are allowed, in words: "1s to 7d".
    pub allowed: &'static str,
    /// Puts a value into a configuration, or says what is wrong with it.
    pub(super) set: fn(&mut Config, &Input<'_>) -> Reading<()>,
}

impl Setting {
    /// Section and name of the key; the top level is the empty section.
    pub(super) fn path(&self) -> (&'static str, &'static str) {
        self.key.split_once('.').unwrap_or(("", self.key))
    }

    /// Whether `name` is a section.
    pub(super) fn is_section(name: &str) -> bool {
        !name.is_empty() && ENVIRONMENT.iter().any(|setting| setting.path().0 == name)
    }
}

impl fmt::Debug for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}", self.key, self.name, self.allowed)
    }
}

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

const BOOLEAN: &str = "true, false (in a variable also 1, 0, yes, no, on, off)";
const PATH: &str = "the path of a file";
const PATHS: &str = "a list of paths";
const ENDPOINTS: &str = "a list of host:port";
const REDIS: &str = "redis://HOST or rediss://HOST (several with commas: the nodes of a Redis Cluster), \
                     redis+unix://PATH, redis+sentinel://HOST,HOST/MASTER or rediss+sentinel://HOST,HOST/MASTER";

/// Every setting, in the order of the documentation. In a variable the elements of a list are separated by commas, and
/// an empty variable counts as not set.
pub const ENVIRONMENT: &[Setting] = &[
    Setting {
        name: "TLSRESUME_REALM",
        key: "realm",
        allowed: "1 to 64 of A-Z a-z 0-9 . _ -",
        set: |c, v| v.realm().map(|it| c.realm = it),
    },
    Setting {
        name: "TLSRESUME_RESUMPTION_MODE",
        key: "resumption.mode",
        allowed: Mode::ALLOWED,
        set: |c, v| v.word().map(|it| c.resumption.mode = it),
    },
    Setting {
        name: "TLSRESUME_RESUMPTION_TICKETS",
        key: "resumption.tickets",
        allowed: "0 to 16",
        set: |c, v| v.whole(0..=16).map(|it| c.resumption.tickets = it),
    },
    Setting {
        name: "TLSRESUME_RESUMPTION_LIFETIME",
        key: "resumption.lifetime",
        allowed: "1s to 7d",
        set: |c, v| v.duration(SECOND..=7 * DAY).map(|it| c.resumption.lifetime = it),
    },
    Setting {
        name: "TLSRESUME_RESUMPTION_SINGLE_USE",
        key: "resumption.single_use",
        allowed: BOOLEAN,
        set: |c, v| v.boolean().map(|it| c.resumption.single_use = it),
    },
    Setting {
        name: "TLSRESUME_RESUMPTION_ON_REMOVE",
        key: "resumption.on_remove",
        allowed: OnRemove::ALLOWED,
        set: |c, v| v.word().map(|it| c.resumption.on_remove = it),
    },
    Setting {
        name: "TLSRESUME_RESUMPTION_BIND",
        key: "resumption.bind",
        allowed: "true, false (in a variable also 1, 0, yes, no, on, off), \"certificate\"",
        set: |c, v| {
            let word = |yes| if yes { Bind::On } else { Bind::Off };
            v.boolean_or("certificate", Bind::Certificate, word).map(|it| c.resumption.bind = it)
        },
    },
    Setting {
        name: "TLSRESUME_RESUMPTION_FORCE",
        key: "resumption.force",
        allowed: BOOLEAN,
        set: |c, v| v.boolean().map(|it| c.resumption.force = it),
    },
    Setting {
        name: "TLSRESUME_KEYS_SOURCE",
        key: "keys.source",
        allowed: KeySource::ALLOWED,
        set: |c, v| v.word().map(|it| c.keys.source = it),
    },
    Setting {
        name: "TLSRESUME_KEYS_ROTATE",
        key: "keys.rotate",
        allowed: "1s to 30d",
        set: |c, v| v.duration(SECOND..=30 * DAY).map(|it| c.keys.rotate = it),
    },
    Setting {
        name: "TLSRESUME_KEYS_AHEAD",
        key: "keys.ahead",
        allowed: "1 to 16",
        set: |c, v| v.whole(1..=16).map(|it| c.keys.ahead = it),
    },
    Setting {
        name: "TLSRESUME_KEYS_ACTIVATION_DELAY",
        key: "keys.activation_delay",
        allowed: "0s to 10m",
        set: |c, v| v.duration(Duration::ZERO..=10 * MINUTE).map(|it| c.keys.activation_delay = it),
    },
    Setting {
        name: "TLSRESUME_KEYS_FILES",
        key: "keys.files",
        allowed: PATHS,
        set: |c, v| v.list(Input::path).map(|it| c.keys.files = it),
    },
    Setting {
        name: "TLSRESUME_KEYS_FORMAT",
        key: "keys.format",
        allowed: KeyFormat::ALLOWED,
        set: |c, v| v.word().map(|it| c.keys.format = it),
    },
    Setting {
        name: "TLSRESUME_MEMORY_PATH",
        key: "memory.path",
        allowed: "an absolute path",
        set: |c, v| v.absolute_path().map(|it| c.memory.path = Some(it)),
    },
    Setting {
        name: "TLSRESUME_MEMORY_SIZE",
        key: "memory.size",
        allowed: "512KiB to 64GiB",
        set: |c, v| v.size(512 << 10..=64 << 30).map(|it| c.memory.size = it),
    },
    Setting {
        name: "TLSRESUME_MEMORY_LOCK",
        key: "memory.lock",
        allowed: BOOLEAN,
        set: |c, v| v.boolean().map(|it| c.memory.lock = it),
    },
    Setting {
        name: "TLSRESUME_CLUSTER_SECRET_FILE",
        key: "cluster.secret_file",
        allowed: PATH,
        set: |c, v| v.path().map(|it| c.cluster.secret_file = Some(it)),
    },
    Setting {
        name: "TLSRESUME_CLUSTER_AGENT",
        key: "cluster.agent",
        allowed: Agent::ALLOWED,
        set: |c, v| v.word().map(|it| c.cluster.agent = it),
    },
    Setting {
        name: "TLSRESUME_CLUSTER_SESSIONS",
        key: "cluster.sessions",
        allowed: Replication::ALLOWED,
        set: |c, v| v.word().map(|it| c.cluster.sessions = it),
    },
    Setting {
        name: "TLSRESUME_CLUSTER_LOOKUP_BUDGET",
        key: "cluster.lookup_budget",
        allowed: "1ms to 1s",
        set: |c, v| v.duration(MILLISECOND..=SECOND).map(|it| c.cluster.lookup_budget = it),
    },
    Setting {
        name: "TLSRESUME_REDIS_URL",
        key: "redis.url",
        allowed: REDIS,
        set: |c, v| v.redis_urls().map(|it| c.redis.url = it),
    },
    Setting {
        name: "TLSRESUME_REDIS_PASSWORD_FILE",
        key: "redis.password_file",
        allowed: PATH,
        set: |c, v| v.path().map(|it| c.redis.password_file = Some(it)),
    },
    Setting {
        name: "TLSRESUME_REDIS_CA_FILE",
        key: "redis.ca_file",
        allowed: PATH,
        set: |c, v| v.path().map(|it| c.redis.ca_file = Some(it)),
    },
    Setting {
        name: "TLSRESUME_REDIS_CERT_FILE",
        key: "redis.cert_file",
        allowed: PATH,
        set: |c, v| v.path().map(|it| c.redis.cert_file = Some(it)),
    },
    Setting {
        name: "TLSRESUME_REDIS_KEY_FILE",
        key: "redis.key_file",
        allowed: PATH,
        set: |c, v| v.path().map(|it| c.redis.key_file = Some(it)),
    },
    Setting {
        name: "TLSRESUME_MEMCACHED_SERVERS",
        key: "memcached.servers",
        allowed: ENDPOINTS,
        set: |c, v| v.list(Input::endpoint).map(|it| c.memcached.servers = it),
    },
    Setting {
        name: "TLSRESUME_PEERS_LISTEN",
        key: "peers.listen",
        allowed: "an IP address and port, such as 0.0.0.0:7557",
        set: |c, v| v.socket_address().map(|it| c.peers.listen = Some(it)),
    },
    Setting {
        name: "TLSRESUME_PEERS_MEMBERS",
        key: "peers.members",
        allowed: ENDPOINTS,
        set: |c, v| v.list(Input::endpoint).map(|it| c.peers.members = it),
    },
    Setting {
        name: "TLSRESUME_PEERS_MULTICAST",
        key: "peers.multicast",
        allowed: "a multicast address and port, such as 239.255.75.57:7557",
        set: |c, v| v.multicast_group().map(|it| c.peers.multicast = Some(it)),
    },
    Setting {
        name: "TLSRESUME_PEERS_INTERFACE",
        key: "peers.interface",
        allowed: "name or address of a network interface",
        set: |c, v| v.interface().map(|it| c.peers.interface = Some(it)),
    },
    Setting {
        name: "TLSRESUME_PEERS_TTL",
        key: "peers.ttl",
        allowed: "1 to 255",
        set: |c, v| v.whole(1..=255).map(|it| c.peers.ttl = it),
    },
    Setting {
        name: "TLSRESUME_EARLY_DATA_REPLAY_WINDOW",
        key: "early_data.replay_window",
        allowed: "10s to 1h",
        set: |c, v| v.duration(10 * SECOND..=60 * MINUTE).map(|it| c.early_data.replay_window = it),
    },
    Setting {
        name: "TLSRESUME_LOG_LEVEL",
        key: "log.level",
        allowed: Level::ALLOWED,
        set: |c, v| v.word().map(|it| c.log.level = it),
    },
    Setting {
        name: "TLSRESUME_LOG_TARGET",
        key: "log.target",
        allowed: "stderr, syslog, or the absolute path of a file",
        set: |c, v| v.log_target().map(|it| c.log.target = it),
    },
];
