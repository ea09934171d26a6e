//! Look-ups without a thread, for `agent = "external"`: the handshake that wants a session asks the vault itself.
//!
//! Owns: the process's connection, and whose turn it is. Called by: handshakes. Threads: one asks at a time, the others
//! wait for their turn no longer than for an answer. Forks: a child connects anew, and never drops what it inherited.
//! Failure: as for [`super`]; connecting and asking end with the budget, and a connection that leaves too little of it
//! for an answer is for the next handshake. All of it runs on the handshake's stack: 34 KiB, and with an answer that is
//! nested as deep as the parser allows 188 KiB, so never in a job of OpenSSL's (`tls::pause`).

use std::sync::{Condvar, Mutex};
use std::time::Duration;

use super::absent::Absent;
use super::answer::{Answer, Key};
use super::circuit::{Circuit, announce};
use super::locks::{locked, waited};
use crate::clock;
use crate::cluster::transport::{Failure, Transport, Vault};

#[derive(Default)]
pub(super) struct Direct {
    state: Mutex<State>,
    freed: Condvar,
}

#[derive(Default)]
struct State {
    /// None also while somebody has it.
    vault: Option<Box<dyn Vault>>,
    in_use: bool,
    circuit: Circuit,
    absent: Absent,
    /// How long the last answer took.
    took: Duration,
}

/// The right to use the connection.
struct Turn<'a> {
    direct: &'a Direct,
    vault: Option<Box<dyn Vault>>,
    /// The breaker is open: this is its probe.
    is_probe: bool,
    /// So little of the budget was left that a failure says little of the vault.
    is_late: bool,
}

/// What a handshake wants to know.
struct Question<'a> {
    transport: &'a dyn Transport,
    key: &'a Key,
    take: bool,
    deadline: Duration,
    /// With less time left a new connection is kept for the next handshake.
    enough: Duration,
}

impl Direct {
    /// Of the budget `longest` is left.
    pub(super) fn ask(
        &self,
        transport: &dyn Transport,
        budget: Duration,
        longest: Duration,
        key: &Key,
        take: bool,
    ) -> Answer {
        let now = clock::since_boot();
        if locked(&self.state).absent.has(key, now) {
            return Answer::Absent;
        }
        let (deadline, enough) = (now + longest, longest / 2);
        let mut turn = match self.turn(deadline, enough, budget / 2) {
            Ok(turn) => turn,
            Err(answer) => return answer,
        };
        let asked = turn.ask(&Question { transport, key, take, deadline, enough });
        turn.conclude(transport.name(), &asked, key);
        asked.unwrap_or_else(|failure| {
            log::debug!("{}: look-up: {failure}", transport.name());
            Answer::Unavailable
        })
    }

    /// How long the last answer took. A child of the process whose this is has not asked yet.
    pub(super) fn round_trip(&self) -> Duration {
        self.state.try_lock().map_or(Duration::ZERO, |state| state.took)
    }

    /// Waits for the connection, as long as `enough` time is left, and as much as the last answer took, if that is less
    /// than `fair`: an answer that did not come would cost the connection. With less than `fair`, the vault is not to blame
    /// for that.
    fn turn(
        &self,
        deadline: Duration,
        enough: Duration,
        fair: Duration,
    ) -> Result<Turn<'_>, Answer> {
        let mut state = locked(&self.state);
        loop {
            let now = clock::since_boot();
            let enough = enough.max(state.took.min(fair));
            let is_probe = !state.circuit.breaker().allows();
            let refusal = if is_probe && (state.in_use || !state.circuit.breaker().probe_due(now)) {
                Some(Answer::Refused)
            } else {
                (now + enough > deadline).then_some(Answer::Unavailable)
            };
            if let Some(answer) = refusal {
                drop(state);
                // Whoever was told that it is free, and does not take it, tells the next one.
                self.freed.notify_one();
                return Err(answer);
            }
            if !state.in_use {
                state.in_use = true;
                let vault = state.vault.take();
                let is_late = now + fair > deadline;
                return Ok(Turn { direct: self, vault, is_probe, is_late });
            }
            state = waited(&self.freed, state, deadline.saturating_sub(now + enough));
        }
    }
}

impl Turn<'_> {
    /// On a connection that has become useless since it was last used, once more on a new one. If that comes late, the
    /// loss counts: else a vault that ends each connection before it serves would have every handshake wait.
    fn ask(&mut self, question: &Question<'_>) -> Result<Answer, Failure> {
        let is_new = self.vault.is_none();
        match self.ask_once(question) {
            Err(lost @ Failure::Lost(_)) if !is_new => match self.ask_once(question)? {
                Answer::Unavailable => Err(lost),
                answer => Ok(answer),
            },
            asked => asked,
        }
    }

    /// A new connection that leaves too little time is kept as it is: with a question whose answer may still come it
    /// would be of no use to the next handshake.
    fn ask_once(&mut self, question: &Question<'_>) -> Result<Answer, Failure> {
        let mut vault = match self.vault.take() {
            Some(vault) => vault,
            None => {
                let vault = question.transport.connect_vault(left(question.deadline)?)?;
                if clock::since_boot() + question.enough > question.deadline {
                    self.vault = Some(vault);
                    return Ok(Answer::Unavailable);
                }
                vault
            }
        };
        vault.limit(left(question.deadline)?);
        let begin = clock::since_boot();
        let asked = vault.sessions(&[(*question.key, question.take)]);
        if asked.is_ok() {
            locked(&self.direct.state).took = clock::since_boot().saturating_sub(begin);
        }
        if !matches!(asked, Err(Failure::Lost(_))) {
            self.vault = Some(vault);
        }
        asked.map(|mut answers| answers.pop().flatten().map_or(Answer::Absent, Answer::Found))
    }

    fn conclude(&self, transport: &str, asked: &Result<Answer, Failure>, key: &Key) {
        let now = clock::since_boot();
        let mut state = locked(&self.direct.state);
        match asked {
            // It lets us in, which says nothing of look-ups.
            Ok(Answer::Unavailable) => return,
            Ok(Answer::Absent) => state.absent.note(key, now),
            _ => {}
        }
        let say =
            state.circuit.note(now, |breaker| match (asked.is_ok(), self.is_probe, self.is_late) {
                (true, ..) => breaker.success(),
                (false, true, _) => breaker.probe_failed(now),
                (false, false, true) => {}
                (false, false, false) => breaker.failure(now),
            });
        drop(state);
        announce(transport, say);
    }
}

fn left(deadline: Duration) -> Result<Duration, Failure> {
    clock::until(deadline).ok_or_else(|| Failure::Lost("no answer in time".into()))
}

impl Drop for Turn<'_> {
    /// Also when the handshake that had it panicked.
    fn drop(&mut self) {
        let mut state = locked(&self.direct.state);
        (state.vault, state.in_use) = (self.vault.take(), false);
        drop(state);
        self.direct.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUDGET: Duration = Duration::from_secs(60);

    /// Whether somebody asks who has so much of the budget left, after an answer that took so long.
    fn asks(left: Duration, took: Duration) -> bool {
        let direct = Direct::default();
        locked(&direct.state).took = took;
        let turn = direct.turn(clock::since_boot() + left, left / 2, BUDGET / 2);
        assert!(matches!(turn, Ok(_) | Err(Answer::Unavailable)));
        turn.is_ok()
    }

    #[test]
    fn who_has_less_time_than_the_last_answer_took_leaves_the_connection_to_the_next_one() {
        assert!(asks(BUDGET / 60, Duration::ZERO));
        assert!(!asks(BUDGET / 60, BUDGET / 30));
        assert!(asks(BUDGET / 20, BUDGET / 30));
    }

    #[test]
    fn however_long_the_last_answer_took_half_of_the_budget_is_enough_to_ask() {
        assert!(asks(BUDGET, BUDGET));
        assert!(asks(BUDGET * 2 / 3, BUDGET));
        assert!(!asks(BUDGET / 3, BUDGET));
    }
}
