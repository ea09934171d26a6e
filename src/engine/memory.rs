//! The memory that an instance works on: the one at `memory.path`, or private memory for as long as that cannot be had.
//!
//! Whoever starts waits for others that make the file, and then goes on with private memory: the file was locked for too
//! long, its directory was missing, its permissions were wrong. From then on a callback looks for the file every five
//! seconds, in one try that waits for nobody: it opens, examines and maps a file that is whole, which takes some tens of
//! microseconds, as looking for a successor does. It makes none, since that takes the longer the larger a file is; the
//! next server that starts does, or `tlsresumectl agent`. There is no thread for it: most servers have none of ours.
//!
//! What private memory held stays behind. Its keys and sessions are nobody's then, so its clients make full handshakes
//! once. What was refused in it is refused still: revocations go into the shared ring before it is used, removals are
//! looked for in both.
//!
//! Owns: [`Memory`]. Called by: `engine`, for which it is a [`Store`]. Threads: one at a time looks; nobody waits.
//! Forks: a child goes on with what its parent had, and looks for itself. Failure: private memory, and the next look.

use std::ops::Deref;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use once_cell::race::OnceBox;

use super::{Engine, lock_if_asked, open_shared, realm_digest};
use crate::clock::{self, UnixMillis};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::ring::{Ring, wire};
use crate::store::Store;

/// How often private memory looks for the file.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Where an instance's sessions, keys and counters are.
pub(super) struct Memory {
    first: Store,
    /// What took the place of private memory.
    found: OnceBox<Store>,
    /// What private memory stands in for.
    sought: Option<Sought>,
}

struct Sought {
    path: PathBuf,
    realm: u64,
    /// Time since boot, in milliseconds, of the next look.
    next: AtomicU64,
}

impl From<Store> for Memory {
    fn from(first: Store) -> Self {
        Memory { first, found: OnceBox::new(), sought: None }
    }
}

impl Deref for Memory {
    type Target = Store;

    fn deref(&self) -> &Store {
        self.found.get().unwrap_or(&self.first)
    }
}

impl Memory {
    /// The memory that the configuration names, or private memory in its place.
    pub(super) fn open(config: &Config) -> Result<Self> {
        let memory = &config.memory;
        let size = usize::try_from(memory.size).unwrap_or(usize::MAX);
        let shared = memory.path.as_ref().map(|path| open_shared(path, size, &config.realm));
        let memory = match shared {
            Some(Ok(store)) => store.into(),
            Some(Err(problem)) => Memory::in_place_of_the_file(config, size, &problem)?,
            None => Store::anonymous(size)?.into(),
        };
        lock_if_asked(config, &memory);
        Ok(memory)
    }

    /// Private memory, and one line that says why.
    fn in_place_of_the_file(config: &Config, size: usize, problem: &Error) -> Result<Self> {
        // Locking a file in memory reads all of it: not in a handshake.
        let path = config.memory.path.as_ref().filter(|_| !config.memory.lock);
        let sought = path.map(|path| Sought {
            path: path.clone(),
            realm: realm_digest(&config.realm),
            next: AtomicU64::new(later()),
        });
        let again = match &sought {
            Some(_) => format!("; the file is looked for every {} s", LOOK_AGAIN.as_secs()),
            None => String::new(),
        };
        log::warn!("{problem}; using memory that only this server's own processes share{again}");
        Ok(Memory { first: Store::anonymous(size)?, found: OnceBox::new(), sought })
    }

    /// The private memory whose place the file has taken.
    pub(super) fn before(&self) -> Option<&Store> {
        self.found.get().map(|_| &self.first)
    }

    #[cfg(test)]
    pub(super) fn look_at_once(&self) {
        let sought = self.sought.as_ref().expect("private memory in place of a file");
        sought.next.store(0, Ordering::Relaxed);
    }

    /// The file, if it is due to be looked for and there: with a ring, and of this realm.
    fn look(&self) -> Option<(&Sought, Store)> {
        let sought = self.sought.as_ref().filter(|_| self.found.get().is_none())?;
        let next = sought.next.load(Ordering::Relaxed);
        let is_due = clock::millis(clock::since_boot()) >= next;
        let mine =
            || sought.next.compare_exchange(next, later(), Ordering::Relaxed, Ordering::Relaxed);
        if !is_due || mine().is_err() {
            return None;
        }
        let store = Store::open_now(&sought.path)?;
        store.is_of(sought.realm).then_some((sought, store))
    }
}

impl Engine {
    /// Goes on with the shared memory, if this instance has private memory in its place and it can be had now.
    pub(super) fn attend_memory(&self, now: UnixMillis) {
        let Some((Sought { path, .. }, store)) = self.store.look() else { return };
        if !takes_refusals(&store, &self.known().ring) {
            return;
        }
        if self.store.has_restricted() {
            store.note_restricted();
        }
        if self.store.found.set(Box::new(store)).is_ok() {
            self.refresh(now);
            log::warn!(
                "{}: can be used now, and is; clients of the memory before it make full handshakes once",
                path.display()
            );
        }
    }
}

/// Whether there is a ring, and it refuses from now on what `ring` does.
fn takes_refusals(store: &Store, ring: &Ring) -> bool {
    let mut is_there = false;
    let done = store.update_ring(Duration::ZERO, |bytes| {
        let shared = bytes.and_then(wire::decode)?;
        is_there = true;
        let merged = shared.merge(&ring.refusals());
        (merged != shared).then(|| wire::encode(&merged))
    });
    done && is_there
}

fn later() -> u64 {
    clock::millis(clock::since_boot() + LOOK_AGAIN)
}
