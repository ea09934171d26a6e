//! Look-ups of single sessions in a vault, for handshakes that cannot go on without (pull, single use).
//!
//! Owns: this process's requests, connection and circuit breaker. Called by: `engine`, from handshakes. Threads: one of
//! ours asks ([`desk`]); a handshake only ever waits for an answer, and never longer than the budget. Handshakes
//! that can be paused are woken by another one ([`waker`]). With `agent = "external"` there are no threads, and the
//! handshake asks ([`direct`]), if its stack is large enough ([`Asking`]). Forks: a child begins anew at its first
//! look-up, and leaves alone what its parent had. Failure: [`Answer::Unavailable`], and [`Answer::Refused`] at once
//! while the breaker is open.

mod absent;
pub mod allowance;
mod answer;
mod circuit;
mod desk;
mod direct;
mod inquiry;
mod line;
mod locks;
mod requests;
mod state;
#[cfg(test)]
mod tests;
mod thread;
mod wait;
mod waker;

use std::sync::Arc;
use std::time::Duration;

use super::transport::Transport;
use crate::log::Once;
use crate::sys::shared::Shared;
use desk::Desk;

pub use answer::{Answer, Key};
pub use inquiry::{Asked, Inquiry};

/// Who asks the vault for a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asking {
    /// Whoever has to, be it the handshake.
    Anyone,
    /// Only a thread of ours: the handshake runs on a stack that is too small for a transport's client, let alone for
    /// what a server that lies has it parse.
    OnlyThreads,
    /// The same, and the handshake is paused while it waits: its thread serves others meanwhile.
    OnlyThreadsMeanwhile,
}

/// A process's access to the sessions in the vault.
pub struct Lookups {
    transport: Arc<dyn Transport>,
    /// Longest wait of a handshake.
    budget: Duration,
    /// Whether this library may start threads.
    threads: bool,
    desk: Shared<Desk>,
}

impl Lookups {
    /// `threads`: whether threads may be started; else handshakes do the asking.
    pub fn new(transport: Arc<dyn Transport>, budget: Duration, threads: bool) -> Self {
        let desk = Shared::of(Desk::new(Arc::clone(&transport), budget));
        Lookups { transport, budget, threads, desk }
    }

    /// The session of that key, waited for at most the budget. A session that is taken is there for nobody else; who
    /// asks for one that is being taken here is told that it is absent.
    pub fn fetch(&self, key: &Key, take: bool) -> Answer {
        match self.ask(key, take, self.budget) {
            Asked::Answered(answer) => answer,
            Asked::Waits(inquiry) => inquiry.answer(self.budget),
        }
    }

    /// Whether a handshake may ask at all. If not, one line says what to do about it.
    pub fn may_ask(&self, asking: Asking) -> bool {
        static SAID: Once = Once::new();
        let may = self.threads || asking == Asking::Anyone;
        if !may && SAID.first() {
            log::warn!(
                "handshakes that OpenSSL runs as jobs do not look sessions up themselves; set cluster.agent = \"thread\""
            );
        }
        may
    }

    /// Asks, and leaves the waiting to the caller, who may wait for `longest`. Without threads there is nothing to leave.
    pub fn ask(&self, key: &Key, take: bool, longest: Duration) -> Asked {
        let (desk, longest) = (self.desk(), longest.min(self.budget));
        if self.threads {
            let id = (*key, take);
            match desk.ask(id, longest) {
                Ok(wait) => Asked::Waits(Inquiry::new(desk, id, wait)),
                Err(answer) => Asked::Answered(answer),
            }
        } else {
            Asked::Answered(desk.direct().ask(&*self.transport, self.budget, longest, key, take))
        }
    }

    /// How long the last answer took.
    pub fn round_trip(&self) -> Duration {
        let desk = self.known_desk();
        if self.threads { desk.round_trip() } else { desk.direct().round_trip() }
    }

    /// Has the connection made before it is needed.
    pub fn warm_up(&self) {
        if self.threads {
            self.desk().ensure_thread();
        }
    }

    /// This process's desk.
    fn desk(&self) -> Arc<Desk> {
        let desk = self.known_desk();
        if desk.is_of_this_process() {
            return desk;
        }
        // Whoever comes second finds the first one's.
        self.desk.replace(&desk, self.new_desk());
        leave_alone(desk);
        self.known_desk()
    }

    fn new_desk(&self) -> Arc<Desk> {
        Desk::new(Arc::clone(&self.transport), self.budget)
    }

    fn known_desk(&self) -> Arc<Desk> {
        self.desk.load().unwrap_or_else(|| self.new_desk())
    }
}

impl Drop for Lookups {
    /// Ends the threads.
    fn drop(&mut self) {
        let desk = self.known_desk();
        if desk.is_of_this_process() {
            desk.stop();
        } else {
            leave_alone(desk);
        }
    }
}

/// Keeps the desk of the process that this one was forked from for ever. It may own a connection, which would be closed
/// by its number; and a child that closed all descriptors may have something else under that number.
fn leave_alone(inherited: Arc<Desk>) {
    std::mem::forget(inherited);
}
