//! Engines on a memory of their own, or on a common one.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;

use crate::clock::{self, UnixMillis};
use crate::config::{Config, Memory};
use crate::engine::{Binding, Engine, Opening, Policy};
use crate::ring::TicketKey;

/// Much longer than a healthy machine needs.
pub(super) const PATIENT: Duration = Duration::from_secs(20);

pub(super) const HOUR: Duration = Duration::from_secs(3600);

pub(super) const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A directory in memory, gone at the end of the test.
pub(super) struct Place(TempDir);

impl Place {
    pub(super) fn new() -> Self {
        Place(TempDir::new_in("/dev/shm").unwrap())
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(super) fn file(&self, name: &str, contents: &[u8]) -> PathBuf {
        std::fs::write(self.path(name), contents).unwrap();
        self.path(name)
    }

    /// A configuration whose memory all engines of this place share.
    pub(super) fn config(&self) -> Config {
        Config { memory: small(Some(&self.path("memory"))), ..Config::default() }
    }

    pub(super) fn engine(&self) -> Engine {
        Engine::new(self.config()).unwrap()
    }
}

pub(super) fn small(path: Option<&Path>) -> Memory {
    Memory { path: path.map(Path::to_path_buf), size: 512 * 1024, lock: false }
}

/// A configuration whose engine is alone.
pub(super) fn alone() -> Config {
    Config { memory: small(None), ..Config::default() }
}

/// When the test starts; what administrators do takes place now, handshakes when the test says.
pub(super) fn now() -> UnixMillis {
    clock::now()
}

pub(super) fn shop(engine: &Engine) -> Binding {
    engine.binding(b"shop.example", Policy::NoVerification)
}

/// A ticket as far as keys go: what it was made with.
pub(super) type Ticket = Arc<TicketKey>;

pub(super) fn issue(engine: &Engine, now: UnixMillis) -> Ticket {
    engine.issuing_key(&shop(engine), false, now).expect("an engine has keys")
}

pub(super) fn opening(engine: &Engine, ticket: &Ticket, now: UnixMillis) -> Option<Opening> {
    engine.opening_key(&ticket.name(), &shop(engine), false, now)
}

/// Whether the engine opens the ticket: it knows the name and has the same keys.
pub(super) fn opens(engine: &Engine, ticket: &Ticket, now: UnixMillis) -> bool {
    opening(engine, ticket, now).is_some_and(|opening| opening.key == *ticket)
}
