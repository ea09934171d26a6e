//! How Redis does, and what is said of it: a line when it begins to fail and one when that is over.
//!
//! Pure: time is an argument. A Redis that comes and goes all the time is told of once a minute, with how often it did:
//! a log that is full tells nobody anything.

use std::time::Duration;

/// Trouble is told no more often. What lasts is told at the end of that time at the latest.
const AGAIN: Duration = Duration::from_secs(60);

/// As the metrics have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It was not asked yet.
    Unknown,
    /// It does what it is asked.
    Up,
    /// It answers, and refuses: no memory, no permission, no disk.
    Refusing,
    /// It does not answer.
    Down,
}

/// What is to be said now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Say {
    /// Nothing.
    Nothing,
    /// It was reached for the first time.
    Reached,
    /// It does so now; and how many times it did before, came back, and nothing was said.
    Trouble(u32),
    /// The trouble that was told is over, after so long.
    Over(State, Duration),
}

pub(super) struct Health {
    state: State,
    /// The trouble that was told and is not over.
    told: Option<State>,
    last_told: Option<Duration>,
    /// When the trouble began.
    since: Duration,
    untold: u32,
}

impl Health {
    pub(super) fn new() -> Self {
        let (state, since) = (State::Unknown, Duration::ZERO);
        Health { state, told: None, last_told: None, since, untold: 0 }
    }

    pub(super) fn state(&self) -> State {
        self.state
    }

    /// It did what it was asked.
    pub(super) fn note_well(&mut self, now: Duration) -> Say {
        let before = std::mem::replace(&mut self.state, State::Up);
        if let Some(told) = self.told.take() {
            return Say::Over(told, now.saturating_sub(self.since));
        }
        match before {
            State::Unknown => return Say::Reached,
            State::Up => {}
            State::Refusing | State::Down => self.untold = self.untold.saturating_add(1),
        }
        Say::Nothing
    }

    /// It did not, again perhaps.
    pub(super) fn note_trouble(&mut self, state: State, now: Duration) -> Say {
        let before = std::mem::replace(&mut self.state, state);
        if matches!(before, State::Unknown | State::Up) {
            self.since = now;
        }
        let is_soon = self.last_told.is_some_and(|last| now < last + AGAIN);
        if self.told == Some(state) || is_soon {
            return Say::Nothing;
        }
        (self.told, self.last_told) = (Some(state), Some(now));
        Say::Trouble(std::mem::take(&mut self.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Duration {
        Duration::from_millis(1_000_000 + millis)
    }

    #[test]
    fn each_change_is_one_line() {
        let mut health = Health::new();
        assert_eq!(health.note_well(at(0)), Say::Reached);
        assert_eq!(health.note_well(at(1)), Say::Nothing);
        assert_eq!(health.note_trouble(State::Down, at(2000)), Say::Trouble(0));
        assert_eq!(health.note_trouble(State::Down, at(3000)), Say::Nothing);
        assert_eq!(health.note_well(at(5000)), Say::Over(State::Down, Duration::from_secs(3)));
        let mut health = Health::new();
        assert_eq!(health.note_trouble(State::Refusing, at(0)), Say::Trouble(0), "from the start");
        assert_eq!(health.note_trouble(State::Down, at(1000)), Say::Nothing, "so soon");
        assert_eq!(health.note_trouble(State::Down, at(61_000)), Say::Trouble(0), "it lasts");
        let over = Say::Over(State::Down, Duration::from_secs(62));
        assert_eq!(health.note_well(at(62_000)), over);
    }

    #[test]
    fn what_comes_and_goes_is_told_once_a_minute_with_how_often_it_did() {
        let mut health = Health::new();
        health.note_well(at(0));
        let mut lines = Vec::new();
        for second in 0..180 {
            lines.push(health.note_trouble(State::Down, at(second * 1000)));
            lines.push(health.note_well(at(second * 1000 + 500)));
        }
        lines.retain(|say| *say != Say::Nothing);
        let over = Say::Over(State::Down, Duration::from_millis(500));
        let expected = [Say::Trouble(0), over, Say::Trouble(59), over, Say::Trouble(59), over];
        assert_eq!(lines, expected);
    }

    #[test]
    fn trouble_that_comes_back_soon_and_stays_is_told_within_a_minute() {
        let mut health = Health::new();
        health.note_trouble(State::Down, at(0));
        health.note_well(at(1000));
        for second in 2..60 {
            assert_eq!(health.note_trouble(State::Down, at(second * 1000)), Say::Nothing);
        }
        assert_eq!(health.note_trouble(State::Down, at(60_000)), Say::Trouble(0));
    }
}
