//! Whether look-ups are allowed, and what is said of that.
//!
//! Owns: the breaker, and what was told. Called by: who looks up. Threads: the owner locks, but not while it
//! announces. Forks: a child begins anew. Failure: none.

use std::time::Duration;

use crate::cluster::breaker::Breaker;
use crate::trouble::{Say, Teller, before_that};

#[derive(Default)]
pub(super) struct Circuit {
    breaker: Breaker,
    teller: Teller<()>,
}

impl Circuit {
    pub(super) fn breaker(&self) -> &Breaker {
        &self.breaker
    }

    /// Tells the breaker what became of a look-up or a probe; what is to be announced.
    pub(super) fn note(&mut self, now: Duration, outcome: impl FnOnce(&mut Breaker)) -> Say<()> {
        outcome(&mut self.breaker);
        if self.breaker.allows() {
            self.teller.note_well(now)
        } else {
            self.teller.note_trouble((), now)
        }
    }
}

/// Called without locks: the line may go to the application.
pub(super) fn announce(transport: &str, say: Say<()>) {
    match say {
        Say::Nothing => {}
        Say::Trouble(untold) => {
            let before = before_that(untold);
            log::warn!(
                "{transport}: look-ups go unanswered; handshakes do not wait for them until it answers again{before}"
            );
        }
        Say::Over((), after) => {
            log::warn!("{transport}: answers look-ups again after {} s", after.as_secs());
        }
    }
}
