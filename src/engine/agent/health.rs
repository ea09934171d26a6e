//! How the transport does: what is told of it, and when it is tried again.
//!
//! Owns: nothing; the times are the agent's. Called by: the agent's pass. Threads and forks: the agent's. Failure: none.

use std::time::Duration;

use super::state::State;
use super::{Agent, FIRST_RETRY};
use crate::clock;
use crate::cluster::transport::Failure;
use crate::stats::Gauge;
use crate::trouble::{Say, before_that};

/// The longest pause between attempts to connect.
const LAST_RETRY: Duration = Duration::from_secs(1);

/// How long a connection must be well before the next pause is a short one again: a server may take connections and close
/// each soon after.
const SETTLED: Duration = Duration::from_secs(5);

/// Pause after something was refused, and how long it must refuse nothing to count as well again: near the limit of
/// its memory it takes some writes and refuses others.
const REFUSED_RETRY: Duration = Duration::from_millis(500);
const STEADY: Duration = Duration::from_secs(1);

impl Agent<'_> {
    pub(super) fn note_well(&mut self) {
        let now = clock::since_boot();
        if now < self.well_from {
            self.nodes.beat_at_once();
            self.refused_until = now + REFUSED_RETRY / 5;
            return;
        }
        if now >= self.linked + SETTLED {
            self.retry.1 = FIRST_RETRY;
        }
        let before = std::mem::replace(&mut self.state, State::Up);
        self.show_state();
        let say = self.process.teller.lock().note_well(now);
        let transport = self.cluster.transport.name();
        match say {
            Say::Over(State::Refusing, _) => log::warn!("{transport}: accepting commands again"),
            Say::Over(_, after) => {
                log::warn!("{transport}: reached again after {} s", after.as_secs());
            }
            _ if before == State::Unknown => {
                log::info!("{transport}: reached; this process is the node's agent");
            }
            Say::Nothing | Say::Trouble(_) => {}
        }
    }

    /// The connection is sound: what does not depend on this goes on.
    pub(super) fn note_refused(&mut self, failure: &Failure) {
        let now = clock::since_boot();
        self.refused_until = now + REFUSED_RETRY;
        self.well_from = now + STEADY;
        self.nodes.beat_at_once();
        if let Some(before) = self.enter_trouble(State::Refusing, now) {
            let transport = self.cluster.transport.name();
            log::warn!(
                "{transport}: refuses what this node asks: {failure}; what cannot be sent waits{before}"
            );
        }
    }

    /// The connection is of no use any more: no more than one attempt a second after.
    pub(super) fn note_failure(&mut self, failure: &Failure) {
        let now = clock::since_boot();
        self.channel = None;
        self.retry = (now + self.retry.1, (self.retry.1 * 2).min(LAST_RETRY));
        // Whoever waits for the ring of the others waits in vain.
        self.store.note_first_copy();
        if let Some(before) = self.enter_trouble(State::Down, now) {
            let transport = self.cluster.transport.name();
            log::warn!(
                "{transport}: not reached: {failure}; keys and sessions of this node are not shared until it is{before}"
            );
        }
    }

    /// What a line about it ends with, if one is due.
    fn enter_trouble(&mut self, state: State, now: Duration) -> Option<String> {
        self.state = state;
        self.show_state();
        let say = self.process.teller.lock().note_trouble(state, now);
        match say {
            Say::Trouble(untold) => Some(before_that(untold)),
            _ => None,
        }
    }

    fn show_state(&self) {
        let is_up = self.state == State::Up;
        self.store.set_gauge(Gauge::TransportUp, u64::from(is_up));
    }
}
