//! Who may have which lease for how long, and the clock that says so.
//!
//! Owns: nothing. Called by: whatever of the store takes a lease. Threads: any; who waits lets others run. Forks: see
//! [`AgentLease`]. Failure: see [`super::lease`].

#![forbid(unsafe_code)]

use std::cell::Cell;
use std::time::Duration;

use super::lease::{Lease, Waiter};
use crate::{clock, sys};

/// How long a writer may have a shard: inserting takes a few microseconds, so whoever has it longer was stopped.
pub(super) const SHARD_HOLD: Duration = Duration::from_millis(10);

/// In the place of a lease, for who writes where nobody else can.
pub(super) const NOBODY: u64 = 0;

/// How long a writer may have the ring.
pub(super) const RING_HOLD: Duration = Duration::from_secs(1);

/// Waits by the clock that goes on over suspends and steps. At first it only spins: who has a lease mostly gives it
/// back within a microsecond, and the shortest sleep takes fifty.
#[derive(Default)]
pub(super) struct BootClock {
    waited: Cell<u32>,
}

const SPINS: u32 = 1000;

impl Waiter for BootClock {
    fn now(&self) -> Duration {
        clock::since_boot()
    }

    fn pause(&self) {
        if self.waited.replace(self.waited.get().saturating_add(1)) < SPINS {
            std::hint::spin_loop();
        } else {
            sys::pause(Duration::from_micros(20));
        }
    }
}

/// The right to be the node's agent: given back when dropped, unless it was taken over.
///
/// A child process that was forked while it was held has a copy: it must forget that, not drop it.
pub struct AgentLease<'a>(pub(super) Lease<'a>);

impl AgentLease<'_> {
    /// Keeps it for `hold` from now on; `false` when another process has taken it over.
    pub fn renew(&mut self, hold: Duration) -> bool {
        self.0.renew(BootClock::default().now(), hold)
    }
}
