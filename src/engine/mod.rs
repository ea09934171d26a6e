//! Policy: what each of OpenSSL's callbacks is answered, without knowing OpenSSL.
//!
//! Owns: one realm on this node: configuration, ring, store, and this process's copy of the ring. Called by: `tls` (the
//! handshake's questions) and `ffi` (an administrator's requests). Threads: every method may run on any number of
//! threads at once, and none waits for another longer than its documentation says. Forks: children inherit everything;
//! a lock that another thread held at the fork is passed by. Failure: soft answers, as ARCHITECTURE.md lists them.

#![forbid(unsafe_code)]

mod admin;
mod agent;
mod binding;
mod cluster;
mod early_data;
mod keys;
mod memory;
mod metrics;
mod outside;
pub mod seen;
mod sessions;
mod small_file;
mod tickets;
mod transports;
mod view;
mod visit;

#[cfg(test)]
mod tests;

use std::io;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::clock;
use crate::config::{Bind, Config, KeySource, Mode};
use crate::error::{Error, Result};
use crate::ring::Schedule;
use crate::secret::Secret;
use crate::stats::{Counter, Counters};
use crate::store::{Evicted, Store};
use crate::sys;
use crate::sys::shared::Shared;

pub use binding::{Binding, BoundKey, Policy};
pub use keys::{KeyEntry, KeyKind, KeyState};
pub use metrics::Report;
pub use outside::{Nodes, Secrets};
pub use sessions::{Lookup, NewSession, Question, Search, StoredSession, Waited};
pub use tickets::{Issuing, Opening};
pub use visit::{Judged, Listener, Visit};

pub use crate::cluster::lookup::Asking;

use agent::start::Upkeep;
use binding::Bindings;
use cluster::Cluster;
use memory::Memory;
use view::View;

/// One realm on this node.
pub struct Engine {
    config: Config,
    schedule: Schedule,
    store: Memory,
    /// What keys are derived from, with `keys.source = "derived"`.
    secret: Option<Secret>,
    /// This process's copy of the ring.
    view: Shared<View>,
    /// Boot-clock time in milliseconds before which a failed maintenance of the ring is not tried again.
    retry_after: AtomicU64,
    bindings: Bindings,
    /// What joins this node to others, if anything does.
    cluster: Option<Cluster>,
    upkeep: Upkeep,
    /// This instance, where it may outlive a call: in a server.
    shared: OnceLock<Weak<Engine>>,
}

impl Engine {
    /// [`Engine::new`] for a server, whose callbacks may start the agent's thread.
    ///
    /// # Errors
    /// As [`Engine::new`].
    pub fn shared(config: Config) -> Result<Arc<Self>> {
        let engine = Arc::new(Engine::new(config)?);
        // The first and only one who sets it.
        let _ = engine.shared.set(Arc::downgrade(&engine));
        Ok(engine)
    }

    /// Sets up the realm: shared memory, then a ring with keys in it.
    ///
    /// # Errors
    /// A transport is configured, or a key or secret file is not usable. Memory that cannot be had at `memory.path` is
    /// no error: the instance works in anonymous memory, and one line says so.
    pub fn new(config: Config) -> Result<Self> {
        Engine::with_memory(config, Memory::open)?.with_keys()
    }

    /// The instance on the memory that `open` gives, with the ring that is in it.
    fn with_memory(config: Config, open: impl FnOnce(&Config) -> Result<Memory>) -> Result<Self> {
        transports::refuse_missing(&config)?;
        crate::log::enable(config.log.level.filter(), &config.log.target);
        // Counts forks from its first call on; a fork by another thread during that call would leave the child waiting
        // for its end, so the call is not left to the first handshakes.
        if config.has_transport() {
            sys::fork_generation();
        }
        let (store, cluster) = (open(&config)?, Cluster::of(&config)?);
        Engine::assembled(config, store, cluster)
    }

    fn assembled(config: Config, store: Memory, cluster: Option<Cluster>) -> Result<Self> {
        Ok(Engine {
            schedule: schedule(&config),
            secret: admin::secret_of(&config)?,
            store,
            view: Shared::new(View::default()),
            retry_after: AtomicU64::new(0),
            bindings: Bindings::new(),
            cluster,
            upkeep: Upkeep::default(),
            shared: OnceLock::new(),
            config,
        })
    }

    /// Sees to it that there are keys in the ring; in a cluster, once it is known which ones the others have.
    fn with_keys(self) -> Result<Self> {
        self.load_key_files()?;
        if self.cluster.is_none() {
            self.await_first_keys(clock::now());
            self.view(clock::now());
        }
        Ok(self)
    }

    /// The configuration that this instance runs by.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The node's counters.
    pub fn counters(&self) -> Counters<'_> {
        self.store.counters()
    }

    /// Counts what had to make room.
    fn note_evicted(&self, evicted: Evicted) {
        self.counters().add(Counter::SessionsEvicted, evicted.sessions);
    }

    /// The binding of a server name (as the client sent it; empty: none) and the policy that serves it.
    pub fn binding(&self, name: &[u8], policy: Policy) -> Binding {
        if self.config.resumption.bind != Bind::Off {
            self.bindings.binding(name, policy)
        } else {
            Binding::NONE
        }
    }
}

fn schedule(config: &Config) -> Schedule {
    Schedule {
        makes_tickets: config.keys.source != KeySource::Files
            && config.resumption.mode != Mode::Off,
        rotate: config.keys.rotate,
        ahead: config.keys.ahead,
        activation_delay: config.keys.activation_delay,
        lifetime: config.resumption.lifetime,
        early: Duration::ZERO,
    }
}

fn lock_if_asked(config: &Config, store: &Store) {
    if config.memory.lock
        && let Err(error) = store.lock_in_memory()
    {
        log::warn!(
            "memory.lock: {error}; sessions and keys may be swapped to disk (raise RLIMIT_MEMLOCK)"
        );
    }
}

/// The memory at `path`, unless it is another realm's: keys and sessions are never shared across realms.
fn open_shared(path: &Path, size: usize, realm: &str) -> Result<Store> {
    let store = Store::open(path, size)?;
    if store.belongs_to(realm_digest(realm)) {
        return Ok(store);
    }
    Err(unusable(path, "belongs to another realm; choose another memory.path, or remove it"))
}

fn unusable(path: &Path, problem: &'static str) -> Error {
    let source = io::Error::new(io::ErrorKind::PermissionDenied, problem);
    Error::Io { path: path.into(), action: "use", source }
}

/// What tells realms apart in shared memory; never zero.
fn realm_digest(realm: &str) -> u64 {
    let digest = Sha256::new_with_prefix(b"tlsresume realm 1\0").chain_update(realm).finalize();
    let head = digest.first_chunk().copied().unwrap_or_default();
    u64::from_le_bytes(head).max(1)
}

/// Fills a buffer with random bytes; remembers in `sound` when that failed, for then nothing made of it may be used.
fn random_into<'a>(sound: &'a mut bool) -> impl FnMut(&mut [u8]) + 'a {
    |buffer| *sound &= sys::random(buffer)
}
