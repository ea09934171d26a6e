//! Engines on a memory of their own, or on a common one.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use crate::clock::{self, UnixMillis};
use crate::config::{Config, Memory};
use crate::engine::{Engine, Issuing, Judged, NewSession, Opening, Policy, Visit};
use crate::ring::family::VECTOR_LEN;
use crate::ring::{KeyName, TicketKey};

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

/// Everybody's visit to the shop.
pub(super) const SHOP: Visit<'static> = Visit {
    name: b"shop.example",
    accepting: Policy::PUBLIC,
    listener: [0; 18],
    judged: Judged::WhereSeen { context: 1 },
};

/// A session of everybody's, an hour long, from a connection of now.
pub(super) fn session<'a>(id: &'a [u8], value: &'a [u8], now: UnixMillis) -> NewSession<'a> {
    NewSession {
        id,
        name: SHOP.name,
        policy: SHOP.accepting,
        began: now,
        authenticated: None,
        expires: now + HOUR,
        value,
        note: 0,
    }
}

/// Rules of a kind.
pub(super) fn rules(kind: u8) -> Policy {
    Policy::of_rules(&[kind; 32])
}

/// A ticket as far as keys go: what it was made with.
#[derive(Debug)]
pub(super) struct Ticket {
    pub(super) issuing: Issuing,
    pub(super) vector: [u8; VECTOR_LEN],
}

impl PartialEq for Ticket {
    fn eq(&self, other: &Self) -> bool {
        self.issuing == other.issuing
    }
}

impl Ticket {
    pub(super) fn name(&self) -> KeyName {
        self.issuing.name
    }
}

pub(super) fn issue(engine: &Engine, now: UnixMillis) -> Ticket {
    issue_under(engine, SHOP.name, Policy::PUBLIC, now).expect("an engine has keys")
}

pub(super) fn issue_under(
    engine: &Engine,
    name: &[u8],
    policy: Policy,
    now: UnixMillis,
) -> Option<Ticket> {
    // On a connection that is younger than whatever an administrator did.
    let issuing = engine.issuing_key(name, policy, now.max(clock::now()), now)?;
    let vector = issuing.key.vector(Some(engine.new_family(now)), &[7; VECTOR_LEN]);
    Some(Ticket { issuing, vector })
}

pub(super) fn opening(engine: &Engine, ticket: &Ticket, now: UnixMillis) -> Option<Opening> {
    opening_at(engine, ticket, &SHOP, now)
}

pub(super) fn opening_at(
    engine: &Engine,
    ticket: &Ticket,
    visit: &Visit<'_>,
    now: UnixMillis,
) -> Option<Opening> {
    engine.opening_key(&ticket.issuing.name, &ticket.vector, visit, now)
}

/// Whether the engine opens the ticket: it knows the name and has the same keys.
pub(super) fn opens(engine: &Engine, ticket: &Ticket, now: UnixMillis) -> bool {
    opening(engine, ticket, now).is_some_and(|opening| opening.key == ticket.issuing.key)
}

/// Whether the engine opens what another server makes with a key that it has from elsewhere.
pub(super) fn opens_plain(engine: &Engine, key: &TicketKey, now: UnixMillis) -> bool {
    let opening = engine.opening_key(&key.name(), &[0; VECTOR_LEN], &SHOP, now);
    opening.is_some_and(|opening| opening.key.key() == key)
}
