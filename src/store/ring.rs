//! The ring's bytes, wherever the ring is that counts.

#![forbid(unsafe_code)]

use std::time::Duration;

use zeroize::Zeroizing;

use super::Store;
use super::holds::{BootClock, RING_HOLD};
use super::home::Ring;
use super::layout::word;
use super::lease::{Lease, Waiter};
use super::mapping::Mapping;
use super::sync::Ordering;
use crate::clock::UnixMillis;

/// How often a change starts over because the memory was replaced meanwhile.
const ATTEMPTS: usize = 3;

impl Store {
    /// In the place of a generation, when nobody can say which ring is in force.
    pub const NO_RING: u64 = u64::MAX;

    /// Moves whenever another ring is in force, and when a writer was stopped in the midst. [`Store::NO_RING`] when the
    /// memory was replaced and the ring of the new file cannot be had. One load, unless the memory was replaced.
    pub fn ring_generation(&self) -> u64 {
        self.with_ring(|at| at.word(word::RING).load(Ordering::Acquire)).unwrap_or(Store::NO_RING)
    }

    /// The ring in force, with its generation.
    pub fn read_ring(&self) -> (u64, Option<Zeroizing<Vec<u8>>>) {
        self.with_ring(|at| at.slots().read()).unwrap_or((Store::NO_RING, None))
    }

    /// Replaces the ring by what `change` makes of it, unless that is `None`. `false` when others kept the ring for all
    /// of `patience`, or when it cannot be had ([`Store::NO_RING`]): nothing was changed.
    pub fn update_ring(
        &self,
        patience: Duration,
        change: impl FnOnce(Option<&[u8]>) -> Option<Zeroizing<Vec<u8>>>,
    ) -> bool {
        let give_up = BootClock::default().now() + patience;
        let mut change = Some(change);
        for _ in 0..ATTEMPTS {
            let patience = give_up.saturating_sub(BootClock::default().now());
            let done = self.with_ring(|at| {
                let word = at.word(word::RING_LEASE);
                let Some(lease) = Lease::acquire(word, RING_HOLD, patience, &BootClock::default())
                else {
                    return Some(false);
                };
                // Who replaces a file has this lease while it marks it.
                if !self.counts(at) {
                    return None;
                }
                change.take().map(|change| self.change_under(&lease, at, change))
            });
            match done {
                // The memory was replaced while the lease was waited for.
                Some(None) => {}
                Some(Some(done)) => return done,
                None => return false,
            }
        }
        false
    }

    fn change_under(
        &self,
        lease: &Lease<'_>,
        at: &Mapping,
        change: impl FnOnce(Option<&[u8]>) -> Option<Zeroizing<Vec<u8>>>,
    ) -> bool {
        let slots = at.slots();
        if lease.was_taken_over() {
            slots.shut_out_others();
        }
        let (seen, bytes) = slots.read();
        match change(bytes.as_ref().map(|bytes| bytes.as_slice())) {
            Some(changed) if lease.still_held() => {
                let published = slots.publish(seen, lease.holder(), &changed);
                if published {
                    self.ring_bell();
                }
                published
            }
            Some(_) => false,
            None => true,
        }
    }

    /// Whether another file has taken the place of this memory: its sessions and strikes count for nothing then.
    pub fn is_superseded(&self) -> bool {
        let home = self.home.as_ref();
        home.is_some_and(|home| self.region.is_superseded() || home.is_elsewhere())
    }

    /// Once a second at most, looks whether another file is at the path of this memory, which then is superseded: its
    /// file was removed, and a server has made a new one. For who is about to look at the ring; one comparison of
    /// times.
    pub fn attend_path(&self, now: UnixMillis) {
        if let Some(home) = &self.home {
            home.attend(now);
        }
    }

    /// Does something with the ring that counts, if there is one.
    fn with_ring<T>(&self, work: impl FnOnce(&Mapping) -> T) -> Option<T> {
        match self.ring() {
            Ring::Own => Some(work(&self.region)),
            Ring::Successor(successor) => Some(work(&successor.root)),
            Ring::None => None,
        }
    }

    fn ring(&self) -> Ring {
        match &self.home {
            Some(home) if self.is_superseded() => home.ring(&self.region),
            _ => Ring::Own,
        }
    }

    /// Whether the ring there is still the one that counts.
    fn counts(&self, at: &Mapping) -> bool {
        !at.is_superseded() || matches!(self.ring(), Ring::Own)
    }
}
