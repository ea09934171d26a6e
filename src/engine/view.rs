//! A process's copy of the ring, and how it keeps up: one atomic load per handshake unless something changed.
//!
//! Owns: [`View`], one for an engine. Called by: `engine`. Threads: readers take no lock; of those who find the copy
//! old, each makes a new one, and none takes the place of one that was read later. Forks: children inherit the copy.
//! Failure: the copy that is there stays, and the next try is [`RETRY_MILLIS`] later; where the ring cannot be known (a
//! replaced file), and in handshakes where there is no memory for a new copy, there is no key.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use zeroize::Zeroizing;

use super::{Engine, random_into};
use crate::clock::{self, UnixMillis};
use crate::config::{KeySource, Mode};
use crate::error::{Error, Result};
use crate::log::Once;
use crate::ring::{Ring, Schedule, derive, wire};
use crate::stats::Counter;
use crate::store::Store;
use crate::sys::memory;

/// After maintenance of the ring failed (another process is at it, or stopped in the midst), the next try.
const RETRY_MILLIS: u64 = 1000;

/// How long a server that starts waits for another that makes the first keys: a little longer than the ring's lease
/// lasts.
const FIRST_KEYS: Duration = Duration::from_millis(1500);

/// About the memory that is needed to read the largest ring and to make another one.
const RING_WORK: usize = 512 << 10;

/// The ring as this process knows it.
#[derive(Default)]
pub(super) struct View {
    /// Generation in shared memory; 0 before the first ring.
    generation: u64,
    pub(super) ring: Ring,
    /// When keys must be made or forgotten.
    due: UnixMillis,
    /// When this process saw that all keys were revoked or all sessions forgotten, the last time.
    all_ended: UnixMillis,
}

impl View {
    /// Whether all keys were revoked or all sessions forgotten since a connection of this process began. Both clocks
    /// have a say: that of whoever asked for it may be ahead of this host's.
    pub(super) fn has_ended_all_since(&self, began: UnixMillis) -> bool {
        let since = self.ring.keys_since().max(self.ring.sessions_since());
        began < since && began < self.all_ended
    }
}

impl Engine {
    /// The ring as it is at `now`, kept up to date on the way.
    pub(super) fn view(&self, now: UnixMillis) -> Arc<View> {
        if self.cluster.is_some() {
            self.attend_agent(now);
        }
        crate::log::deliver();
        // A copy that could not be kept up has keys that may be revoked by now: better none.
        self.keep_up(now).unwrap_or_default()
    }

    /// As [`Engine::view`], for callers outside a handshake (an agent, a report) and callbacks under OpenSSL's locks:
    /// waits for nobody, starts no agent.
    pub(super) fn current(&self, now: UnixMillis) -> Arc<View> {
        self.keep_up(now).unwrap_or_else(|| self.known())
    }

    /// The copy that is in force; `None` where there is no memory to make it.
    fn keep_up(&self, now: UnixMillis) -> Option<Arc<View>> {
        self.attend_memory(now);
        self.store.attend_path(now);
        let mut view = self.known();
        if view.generation != self.store.ring_generation() {
            if !self.refresh(now) {
                return None;
            }
            view = self.known();
        }
        if now >= view.due && !self.awaits_first_copy() {
            self.maintain(now, Duration::ZERO);
            view = self.known();
        }
        Some(view)
    }

    /// The copy as it is.
    pub(super) fn known(&self) -> Arc<View> {
        self.view.load().unwrap_or_default()
    }

    /// For a server that starts: another that starts at the same time may be making the first keys. Without them
    /// nothing would be shared by those who serve already.
    pub(super) fn await_first_keys(&self, now: UnixMillis) {
        self.refresh(now);
        if now >= self.known().due {
            self.maintain(now, FIRST_KEYS);
        }
    }

    /// Changes the ring for every process of the node, or nothing.
    ///
    /// # Errors
    /// What `change` returns, or [`Error::Ring`] when others kept the ring's lease for all of `patience`, or without memory.
    pub(super) fn change_ring(
        &self,
        patience: Duration,
        change: impl FnOnce(&Ring) -> Result<Ring>,
    ) -> Result<()> {
        if !memory::has_room(RING_WORK) {
            return Err(NO_MEMORY);
        }
        let mut outcome = Ok(());
        let done = self.store.update_ring(patience, |bytes| {
            // Memory that holds no ring, or a damaged one, gets what this process knows.
            let shared = bytes.and_then(wire::decode);
            let base = shared.clone().unwrap_or_else(|| self.known().ring.clone());
            match change(&base) {
                Ok(changed) if shared.as_ref() == Some(&changed) => None,
                Ok(changed) => {
                    self.count_new_keys(&base, &changed);
                    Some(wire::encode(&changed))
                }
                Err(error) => {
                    outcome = Err(error);
                    None
                }
            }
        });
        self.refresh(clock::now());
        match done {
            true => outcome,
            false if self.store.ring_generation() == Store::NO_RING => Err(REPLACED),
            false => Err(Error::Ring("another process is changing the ring; try again")),
        }
    }

    /// Takes over the ring that is in force in shared memory, if there is a readable one. False without memory.
    pub(super) fn refresh(&self, now: UnixMillis) -> bool {
        if !memory::has_room(RING_WORK) {
            return false;
        }
        loop {
            let before = self.known();
            let read = self.read_view(&before, now);
            // Another thread that was faster may have read the ring earlier, or later: nobody can tell.
            if self.view.replace(&before, Arc::new(read)) {
                return true;
            }
        }
    }

    /// A copy of the ring in force, or the one that was there `before` where that cannot be read.
    fn read_view(&self, before: &View, now: UnixMillis) -> View {
        let (generation, bytes) = self.store.read_ring();
        if generation == Store::NO_RING {
            // What was revoked is not known, so nothing is accepted. Keys are for who has the ring to make.
            let (ring, due) = (Ring::default(), UnixMillis::MAX);
            return View { generation, ring, due, all_ended: now };
        }
        let decoded = bytes.as_ref().and_then(|bytes: &Zeroizing<Vec<u8>>| wire::decode(bytes));
        let readable = decoded.is_some();
        let ring = decoded.unwrap_or_else(|| before.ring.clone());
        // What cannot be read is repaired at the next maintenance, which is due at once.
        let due = if readable { ring.maintenance_due(&self.schedule, now) } else { UnixMillis(0) };
        self.bindings.forget_keys(|name| ring.knows(name));
        let ends = |ring: &Ring| (ring.keys_since(), ring.sessions_since());
        // Before it had a ring, this process handed nothing out.
        let is_first = before.generation == 0;
        let is_same = is_first || ends(&ring) == ends(&before.ring);
        let all_ended = if is_same { before.all_ended } else { now };
        View { generation, ring, due, all_ended }
    }

    /// Makes the keys that are due, unless a try just failed. Waits for another process that changes the ring, for
    /// `patience` at most.
    #[cold]
    fn maintain(&self, now: UnixMillis, patience: Duration) {
        static STUCK: Once = Once::new();
        let boot = u64::try_from(clock::since_boot().as_millis()).unwrap_or(u64::MAX);
        if boot < self.retry_after.load(Ordering::Relaxed) {
            return;
        }
        let maintained = self.change_ring(patience, |ring| self.maintained(ring, now));
        if let Err(error) = &maintained {
            log::debug!("the ring is not maintained now: {error}");
        }
        let still_due = now >= self.known().due;
        if still_due
            && maintained.is_ok()
            && self.config.resumption.mode != Mode::Off
            && STUCK.first()
        {
            log::warn!(
                "the ring is full (256 keys are still accepted): no new keys until some end; where servers with \
                 different settings share one memory, lower resumption.lifetime or raise keys.rotate"
            );
        }
        if maintained.is_err() || still_due {
            let retry = boot.saturating_add(RETRY_MILLIS);
            self.retry_after.store(retry, Ordering::Relaxed);
        }
    }

    /// The ring with everything that it should have at `now`.
    pub(super) fn maintained(&self, ring: &Ring, now: UnixMillis) -> Result<Ring> {
        self.maintained_by(&self.schedule, ring, now)
    }

    /// The same by another schedule: that of the node which makes keys for all.
    pub(super) fn maintained_by(
        &self,
        schedule: &Schedule,
        ring: &Ring,
        now: UnixMillis,
    ) -> Result<Ring> {
        if let (KeySource::Derived, Some(secret)) = (self.config.keys.source, &self.secret) {
            return derive::derived(ring, secret, &self.config.realm, schedule, now);
        }
        let mut sound = true;
        let made = ring.maintain(schedule, now, &mut random_into(&mut sound));
        if sound { Ok(made.unwrap_or_else(|| ring.clone())) } else { Err(NO_RANDOMNESS) }
    }

    fn count_new_keys(&self, before: &Ring, after: &Ring) {
        let new = after.records().filter(|record| !before.knows(&record.name())).count();
        self.counters().add(Counter::Rotations, new as u64);
    }
}

const REPLACED: Error = Error::Ring(
    "the file at memory.path was replaced, and the new one cannot be used here; restart this server",
);

const NO_MEMORY: Error = Error::Ring("there is no memory for the ring; try again");

pub(super) const NO_RANDOMNESS: Error =
    Error::Ring("the system gives no random bytes (getrandom is refused); no key was made");

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use super::*;
    use crate::config::{Config, Memory};

    #[test]
    fn a_copy_that_was_read_earlier_takes_the_place_of_none_that_was_read_later() {
        let memory = Memory { path: None, size: 512 * 1024, lock: false };
        let engine = Engine::new(Config { memory, ..Config::default() }).unwrap();
        let now = clock::now();
        let before = engine.known();
        let slow = engine.read_view(&before, now);
        // Meanwhile another thread revokes all keys.
        engine.revoke_keys(None).unwrap();
        let later = engine.known().generation;
        assert!(!engine.view.replace(&before, Arc::new(slow)));
        assert_eq!(engine.known().generation, later);
        engine.refresh(now);
        assert_eq!(engine.known().generation, later);
    }

    #[test]
    fn a_flush_by_a_clock_that_is_ahead_concerns_the_connections_that_were_there_and_no_new_process()
     {
        let memory = Memory { path: None, size: 512 * 1024, lock: false };
        let engine = Engine::new(Config { memory, ..Config::default() }).unwrap();
        let began = clock::now();
        let ahead = began + Duration::from_secs(1800);
        engine.change_ring(Duration::ZERO, |ring| Ok(ring.flush_sessions(ahead))).unwrap();
        let later = began + Duration::from_secs(60);
        assert!(engine.known().has_ended_all_since(UnixMillis(began.0 - 1)));
        assert!(!engine.known().has_ended_all_since(later));
        let first = engine.read_view(&View::default(), later);
        assert!(!first.has_ended_all_since(began), "it had handed nothing out");
    }
}
