//! Look-ups without a thread, for `agent = "external"`: the handshake that wants a session asks Redis itself.
//!
//! Owns: the process's connection, and whose turn it is. Called by: handshakes. Threads: one asks at a time, the others
//! wait for their turn no longer than for an answer. Forks: a child connects anew, and never drops what it inherited.
//! Failure: as for [`super`]; connecting and asking end with the budget. All of it runs on the handshake's stack: 34 KiB,
//! and with an answer that is nested as deep as the parser allows 188 KiB, so never in a job of OpenSSL's (`tls::pause`).

use std::sync::{Condvar, Mutex};
use std::time::Duration;

use super::{Answer, Key, announce, locked, waited};
use crate::clock;
use crate::cluster::breaker::Breaker;
use crate::cluster::redis::{Link, Remote, Trouble, left};

#[derive(Default)]
pub(super) struct Direct {
    state: Mutex<State>,
    freed: Condvar,
}

#[derive(Default)]
struct State {
    /// None also while somebody has it.
    link: Option<Link>,
    in_use: bool,
    breaker: Breaker,
}

/// The right to use the connection.
struct Turn<'a> {
    direct: &'a Direct,
    link: Option<Link>,
    /// The breaker is open: this is its probe.
    is_probe: bool,
    /// Waiting for it took so long that a failure would say little of Redis.
    is_late: bool,
}

impl Direct {
    /// Of the budget `longest` is left.
    pub(super) fn ask(
        &self,
        remote: &Remote,
        budget: Duration,
        longest: Duration,
        key: &Key,
        take: bool,
    ) -> Answer {
        let deadline = clock::since_boot() + longest;
        let mut turn = match self.turn(deadline, budget / 2) {
            Ok(turn) => turn,
            Err(answer) => return answer,
        };
        let asked = turn.ask(remote, deadline, key, take);
        turn.conclude(asked.is_ok() && clock::since_boot() <= deadline);
        match asked {
            Ok(found) => found.map_or(Answer::Absent, Answer::Found),
            Err(trouble) => {
                log::debug!("redis: look-up: {trouble}");
                Answer::Unavailable
            }
        }
    }

    /// Waits for the connection. With less than `enough` time left, Redis is not to blame for what goes wrong.
    fn turn(&self, deadline: Duration, enough: Duration) -> Result<Turn<'_>, Answer> {
        let mut state = locked(&self.state);
        loop {
            let now = clock::since_boot();
            let is_probe = !state.breaker.allows();
            if is_probe && (state.in_use || !state.breaker.probe_due(now)) {
                return Err(Answer::Refused);
            }
            let left = deadline.saturating_sub(now);
            if !state.in_use {
                state.in_use = true;
                let link = state.link.take();
                return Ok(Turn { direct: self, link, is_probe, is_late: left < enough });
            }
            if left.is_zero() {
                return Err(Answer::Unavailable);
            }
            state = waited(&self.freed, state, left);
        }
    }
}

impl Turn<'_> {
    /// On a connection that has become useless since it was last used, once more on a new one.
    fn ask(
        &mut self,
        remote: &Remote,
        deadline: Duration,
        key: &Key,
        take: bool,
    ) -> Result<Option<Vec<u8>>, Trouble> {
        let is_new = self.link.is_none();
        match self.ask_once(remote, deadline, key, take) {
            Err(Trouble::Lost(_)) if !is_new => self.ask_once(remote, deadline, key, take),
            asked => asked,
        }
    }

    fn ask_once(
        &mut self,
        remote: &Remote,
        deadline: Duration,
        key: &Key,
        take: bool,
    ) -> Result<Option<Vec<u8>>, Trouble> {
        let mut link = match self.link.take() {
            Some(link) => link,
            None => remote.connect(left(deadline)?)?,
        };
        link.limit(left(deadline)?);
        let asked = link.sessions(&[(*key, take)]);
        if !matches!(asked, Err(Trouble::Lost(_))) {
            self.link = Some(link);
        }
        asked.map(|mut answers| answers.pop().flatten())
    }

    fn conclude(&self, in_time: bool) {
        let mut state = locked(&self.direct.state);
        let change = match (in_time, self.is_probe) {
            (true, _) => state.breaker.success(),
            (false, true) => return state.breaker.probe_failed(clock::since_boot()),
            (false, false) if self.is_late => return,
            (false, false) => state.breaker.failure(clock::since_boot()),
        };
        drop(state);
        announce(change);
    }
}

impl Drop for Turn<'_> {
    /// Also when the handshake that had it panicked.
    fn drop(&mut self) {
        let mut state = locked(&self.direct.state);
        (state.link, state.in_use) = (self.link.take(), false);
        drop(state);
        self.direct.freed.notify_one();
    }
}
