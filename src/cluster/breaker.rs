//! A circuit breaker: a transport that does not answer is not asked in handshakes until it answers again.
//!
//! Owns: when look-ups are allowed, and when a probe is due. Called by: whoever looks up in a transport; look-ups ask
//! [`Breaker::allows`], and while it refuses, a thread that serves no handshake probes. Threads: the owner locks.
//! Forks: a child goes on from its parent's state. Failure: none; the worst is a look-up too few.

#![forbid(unsafe_code)]

use std::time::Duration;

/// So many failures in a row open it.
pub const FAILURES: u32 = 3;

/// How long after opening the first probe is due; the pause doubles with each probe that fails.
pub const FIRST_PROBE: Duration = Duration::from_millis(250);

/// Longest pause between probes.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Refuses look-ups after [`FAILURES`] failures in a row, until a success. `now` is a monotonic time.
#[derive(Clone, Debug)]
pub struct Breaker(State);

#[derive(Clone, Debug)]
enum State {
    /// Look-ups are allowed; so many failed since the last success.
    Closed { failures: u32 },
    /// Look-ups are refused.
    Open { probe_at: Duration, pause: Duration },
}

const CLOSED: State = State::Closed { failures: 0 };

impl Default for Breaker {
    fn default() -> Self {
        Self::new()
    }
}

impl Breaker {
    /// One that allows look-ups.
    pub const fn new() -> Self {
        Breaker(CLOSED)
    }

    /// Whether a look-up may be tried.
    pub fn allows(&self) -> bool {
        matches!(self.0, State::Closed { .. })
    }

    /// A look-up or a probe was answered ("not there" is an answer).
    pub fn success(&mut self) {
        self.0 = CLOSED;
    }

    /// A look-up was not answered. One that was under way when the breaker opened changes nothing.
    pub fn failure(&mut self, now: Duration) {
        let State::Closed { failures } = &mut self.0 else { return };
        *failures += 1;
        if *failures >= FAILURES {
            self.0 = State::Open { probe_at: now.saturating_add(FIRST_PROBE), pause: FIRST_PROBE };
        }
    }

    /// Whether it is time for a probe. It stays so until the outcome is told: the caller probes one at a time.
    pub fn probe_due(&self, now: Duration) -> bool {
        matches!(self.0, State::Open { probe_at, .. } if probe_at <= now)
    }

    /// When the next probe is due; none while look-ups are allowed.
    pub fn next_probe(&self) -> Option<Duration> {
        match self.0 {
            State::Open { probe_at, .. } => Some(probe_at),
            State::Closed { .. } => None,
        }
    }

    /// A probe was not answered.
    pub fn probe_failed(&mut self, now: Duration) {
        let State::Open { probe_at, pause } = &mut self.0 else { return };
        *pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
        *probe_at = now.saturating_add(*pause);
    }
}
