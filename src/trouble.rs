//! What is said of trouble: a line when it begins and one when that is over, as long as that is not too many.
//!
//! Pure: time is an argument. What comes and goes all the time is told of once a minute, with how often it did: a log
//! that is full tells nobody anything. Owns: what was told. Called by: who watches something that may fail. Threads and
//! forks: the owner's. Failure: none.

#![forbid(unsafe_code)]

use std::time::Duration;

/// Trouble of one kind is told no more often. What lasts is told at the end of that time at the latest.
const AGAIN: Duration = Duration::from_secs(60);

/// What is to be said now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Say<K> {
    /// Nothing.
    Nothing,
    /// There is trouble; and how many times there was before, went away, and nothing was said.
    Trouble(u32),
    /// The trouble that was told last is over, all of it after so long.
    Over(K, Duration),
}

/// Decides what is told of trouble of several kinds, of which there is one at a time.
pub(crate) struct Teller<K> {
    trouble: Option<Trouble<K>>,
    known: Vec<Known<K>>,
}

/// What goes on now.
struct Trouble<K> {
    kind: K,
    since: Duration,
    told: Option<K>,
}

/// A kind that there was.
struct Known<K> {
    kind: K,
    told_at: Option<Duration>,
    untold: u32,
}

impl<K> Default for Teller<K> {
    fn default() -> Self {
        Teller { trouble: None, known: Vec::new() }
    }
}

impl<K: Copy + PartialEq> Teller<K> {
    /// What went on is somebody else's to tell now; what was told, and when, is not forgotten.
    pub(crate) fn begin_anew(&mut self) {
        self.trouble = None;
    }

    /// All is well.
    pub(crate) fn note_well(&mut self, now: Duration) -> Say<K> {
        let Some(trouble) = self.trouble.take() else { return Say::Nothing };
        if let Some(told) = trouble.told {
            return Say::Over(told, now.saturating_sub(trouble.since));
        }
        let known = known(&mut self.known, trouble.kind);
        known.untold = known.untold.saturating_add(1);
        Say::Nothing
    }

    /// There is trouble, still perhaps.
    pub(crate) fn note_trouble(&mut self, kind: K, now: Duration) -> Say<K> {
        let trouble = self.trouble.get_or_insert(Trouble { kind, since: now, told: None });
        trouble.kind = kind;
        let known = known(&mut self.known, kind);
        let is_soon = known.told_at.is_some_and(|told_at| now < told_at + AGAIN);
        if trouble.told == Some(kind) || is_soon {
            return Say::Nothing;
        }
        (trouble.told, known.told_at) = (Some(kind), Some(now));
        Say::Trouble(std::mem::take(&mut known.untold))
    }
}

fn known<K: PartialEq>(all: &mut Vec<Known<K>>, kind: K) -> &mut Known<K> {
    let place = all.iter().position(|known| known.kind == kind).unwrap_or_else(|| {
        all.push(Known { kind, told_at: None, untold: 0 });
        all.len() - 1
    });
    &mut all[place]
}

/// What the line about trouble ends with.
pub(crate) fn before_that(untold: u32) -> String {
    match untold {
        0 => String::new(),
        _ => format!(" (it came and went {untold} times since it was last told of)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Kind {
        Refusing,
        Down,
    }

    use Kind::{Down, Refusing};

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(1000 + seconds)
    }

    fn over(kind: Kind, seconds: u64) -> Say<Kind> {
        Say::Over(kind, Duration::from_secs(seconds))
    }

    #[test]
    fn trouble_is_told_when_it_begins_and_when_it_is_over() {
        let mut teller = Teller::default();
        assert_eq!(teller.note_well(at(0)), Say::Nothing);
        assert_eq!(teller.note_trouble(Down, at(2)), Say::Trouble(0));
        assert_eq!(teller.note_trouble(Down, at(3)), Say::Nothing);
        assert_eq!(teller.note_trouble(Down, at(300)), Say::Nothing, "it was told");
        assert_eq!(teller.note_well(at(301)), over(Down, 299));
        assert_eq!(teller.note_well(at(302)), Say::Nothing);
    }

    #[test]
    fn what_comes_and_goes_is_told_once_a_minute_with_how_often_it_did() {
        let mut teller = Teller::default();
        let mut lines = Vec::new();
        for second in (0..360).step_by(2) {
            lines.push(teller.note_trouble(Down, at(second)));
            lines.push(teller.note_well(at(second + 1)));
        }
        lines.retain(|say| *say != Say::Nothing);
        let pair = |untold| [Say::Trouble(untold), over(Down, 1)];
        assert_eq!(lines, [pair(0), pair(29), pair(29), pair(29), pair(29), pair(29)].concat());
    }

    #[test]
    fn trouble_that_comes_back_soon_and_stays_is_told_within_a_minute() {
        let mut teller = Teller::default();
        assert_eq!(teller.note_trouble(Down, at(0)), Say::Trouble(0));
        assert_eq!(teller.note_well(at(1)), over(Down, 1));
        for second in 2..60 {
            assert_eq!(teller.note_trouble(Down, at(second)), Say::Nothing);
        }
        assert_eq!(teller.note_trouble(Down, at(60)), Say::Trouble(0));
        assert_eq!(teller.note_well(at(61)), over(Down, 59));
    }

    #[test]
    fn who_begins_anew_tells_of_no_end_but_of_no_more_than_before() {
        let mut teller = Teller::default();
        assert_eq!(teller.note_trouble(Down, at(0)), Say::Trouble(0));
        teller.begin_anew();
        assert_eq!(teller.note_well(at(1)), Say::Nothing);
        assert_eq!(teller.note_trouble(Down, at(2)), Say::Nothing);
        teller.begin_anew();
        assert_eq!(teller.note_trouble(Down, at(1000)), Say::Trouble(0));
    }

    #[test]
    fn trouble_of_another_kind_is_told_however_soon_and_its_end_is_that_of_both() {
        let mut teller = Teller::default();
        assert_eq!(teller.note_trouble(Refusing, at(0)), Say::Trouble(0));
        assert_eq!(teller.note_trouble(Down, at(10)), Say::Trouble(0));
        assert_eq!(teller.note_well(at(30)), over(Down, 30));
        assert_eq!(teller.note_trouble(Refusing, at(40)), Say::Nothing);
        assert_eq!(teller.note_well(at(50)), Say::Nothing);
        assert_eq!(teller.note_trouble(Down, at(69)), Say::Nothing);
        assert_eq!(teller.note_trouble(Refusing, at(69)), Say::Trouble(1));
        assert_eq!(teller.note_trouble(Down, at(70)), Say::Trouble(0), "a minute after it was");
    }

    #[test]
    fn trouble_that_changes_its_kind_all_the_time_is_told_once_a_minute_of_each() {
        let mut teller = Teller::default();
        let mut lines = Vec::new();
        for second in 0..120 {
            let kind = if second % 2 == 0 { Refusing } else { Down };
            lines.push((second, teller.note_trouble(kind, at(second))));
        }
        lines.retain(|(_, say)| *say != Say::Nothing);
        assert_eq!(lines, [0, 1, 60, 61].map(|second| (second, Say::Trouble(0))));
    }
}
