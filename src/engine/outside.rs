//! Instances of programs that are no servers: they work on the servers' memory or not at all.

use std::path::Path;
use std::sync::atomic::AtomicU64;

use super::cluster::Cluster;
use super::{Engine, admin, lock_if_asked, open_shared, realm_digest, refuse_transports, unusable};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::store::Store;

/// For [`Engine::retry_after`]: no boot-clock time comes after it.
const NEVER: u64 = u64::MAX;

impl Engine {
    /// What [`Engine::new`] would say of the configuration and of the files that it names. Touches no memory.
    ///
    /// # Errors
    /// As [`Engine::new`].
    pub fn check(config: &Config) -> Result<()> {
        refuse_transports(config)?;
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

fn open_existing(config: &Config) -> Result<Store> {
    let path = path_of(config)?;
    let store = Store::open_existing(path)?;
    if store.is_of(realm_digest(&config.realm)) {
        return Ok(store);
    }
    Err(unusable(path, "belongs to another realm; set realm to the one of the servers"))
}

fn open_or_make(config: &Config) -> Result<Store> {
    let size = usize::try_from(config.memory.size).unwrap_or(usize::MAX);
    let store = open_shared(path_of(config)?, size, &config.realm)?;
    lock_if_asked(config, &store);
    Ok(store)
}

fn path_of(config: &Config) -> Result<&Path> {
    config.memory.path.as_deref().ok_or_else(|| Error::Config(NO_PATH.into()))
}

const NO_PATH: &str = "memory.path is not set, and memory without a path belongs to one server alone; name the \
                       servers' configuration (TLSRESUME_CONFIG), or set memory.path (TLSRESUME_MEMORY_PATH) to theirs";
