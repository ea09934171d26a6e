//! Instances of programs that are no servers: they work on the servers' memory or not at all.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use super::agent::nodes::listens_every;
use super::cluster::Cluster;
use super::memory::Memory;
use super::{Engine, admin, lock_if_asked, open_shared, realm_digest, transports, unusable};
use crate::cluster::seal::SecretId;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::stats::Gauge;
use crate::store::Store;

/// For [`Engine::retry_after`]: no boot-clock time comes after it.
const NEVER: u64 = u64::MAX;

/// The nodes of the cluster, as this node's agent heard of them.
#[derive(Clone, Copy, Debug)]
pub struct Nodes {
    /// How many were heard of lately, this one included.
    pub heard: u64,
    /// Those of them that have another ring, or whose heartbeat this node cannot read.
    pub out_of_sync: u64,
    /// Those of them that seal with a secret which this node has not.
    pub other_secret: u64,
    /// Whether there is an agent, and the transport works.
    pub is_connected: bool,
    /// Within this time after a change of the ring, the numbers are of the changed one.
    pub told_within: Duration,
}

/// The secrets of the cluster, each by its id.
#[derive(Clone, Debug)]
pub struct Secrets {
    /// Where this node's is from.
    pub file: PathBuf,
    /// The one that seals by that file.
    pub own: SecretId,
    /// The one that the agent seals with: another one if the file has changed since it was read.
    pub in_use: Option<SecretId>,
    /// One that other nodes seal with and the agent has not.
    pub other: Option<SecretId>,
}

impl Secrets {
    const IS_KNOWN: u64 = 1 << 32;

    pub(super) fn to_gauge(id: Option<SecretId>) -> u64 {
        id.map_or(0, |id| Self::IS_KNOWN | u64::from(u32::from_be_bytes(id.0)))
    }

    fn of_gauge(value: u64) -> Option<SecretId> {
        let [0, 0, 0, 1, id @ ..] = value.to_be_bytes() else { return None };
        Some(SecretId(id))
    }
}

/// A pass of the agent takes longer where the transport or the machine is slow.
const PASS: Duration = Duration::from_millis(500);

impl Engine {
    /// The nodes of the cluster; `None` without one.
    pub fn nodes(&self) -> Option<Nodes> {
        self.cluster.as_ref()?;
        let heard = self.store.gauge(Gauge::Nodes);
        Some(Nodes {
            heard,
            out_of_sync: self.store.gauge(Gauge::NodesOutOfSync),
            other_secret: self.store.gauge(Gauge::NodesOtherSecret),
            is_connected: self.has_agent() && self.store.gauge(Gauge::TransportUp) == 1,
            told_within: listens_every(heard) + PASS,
        })
    }

    /// The secrets of the cluster; `None` without one.
    pub fn secrets(&self) -> Option<Secrets> {
        let cluster = self.cluster.as_ref()?;
        let id = |gauge| Secrets::of_gauge(self.store.gauge(gauge));
        Some(Secrets {
            file: self.secret_file().to_path_buf(),
            own: cluster.sealer.seals_with(),
            in_use: id(Gauge::OwnSecret),
            other: id(Gauge::OtherSecret),
        })
    }

    /// Where the secrets of a cluster are from.
    pub(super) fn secret_file(&self) -> &Path {
        self.config.cluster.secret_file.as_deref().unwrap_or(Path::new(""))
    }

    /// What [`Engine::new`] would say of the configuration and of the files that it names. Touches no memory.
    ///
    /// # Errors
    /// As [`Engine::new`].
    pub fn check(config: &Config) -> Result<()> {
        transports::refuse_missing(config)?;
        admin::secret_of(config)?;
        admin::read_key_files(config)?;
        Cluster::of(config)?;
        Ok(())
    }

    /// The realm as its servers have it: their memory at `memory.path`, of whatever size, or an error.
    ///
    /// To look at it changes nothing. The keys that are due are left for the servers to make, since whoever looks may
    /// have another configuration than they. What an administrator asks for is done as by any other instance.
    ///
    /// # Errors
    /// As [`Engine::new`]; and when `memory.path` is not set, or the memory there is not a realm's of this name, user
    /// and release. The text says what to do.
    pub fn existing(config: Config) -> Result<Self> {
        let engine = Engine::with_memory(config, open_existing)?;
        Ok(Engine { retry_after: AtomicU64::new(NEVER), ..engine })
    }

    /// As [`Engine::new`], but on the memory at `memory.path` or not at all.
    ///
    /// # Errors
    /// As [`Engine::new`]; and when `memory.path` is not set, or the memory cannot be had there.
    pub fn at_path(config: Config) -> Result<Self> {
        Engine::with_memory(config, open_or_make)?.with_keys()
    }
}

fn open_existing(config: &Config) -> Result<Memory> {
    let path = path_of(config)?;
    let store = Store::open_existing(path)?;
    if store.is_of(realm_digest(&config.realm)) {
        return Ok(store.into());
    }
    Err(unusable(path, "belongs to another realm; set realm to the one of the servers"))
}

fn open_or_make(config: &Config) -> Result<Memory> {
    let size = usize::try_from(config.memory.size).unwrap_or(usize::MAX);
    let store = open_shared(path_of(config)?, size, &config.realm)?;
    lock_if_asked(config, &store);
    Ok(store.into())
}

fn path_of(config: &Config) -> Result<&Path> {
    config.memory.path.as_deref().ok_or_else(|| Error::Config(NO_PATH.into()))
}

const NO_PATH: &str = "memory.path is not set, and memory without a path belongs to one server alone; name the \
                       servers' configuration (TLSRESUME_CONFIG), or set memory.path (TLSRESUME_MEMORY_PATH) to theirs";
