//! What the host of this machine gives to other machines, where this one is a virtual machine: times
//! measured meanwhile say nothing of what was measured.

use std::fs;
use std::time::{Duration, Instant};

use crate::error::Doing;
use crate::{Error, Result};

/// Watches from its making on. Resolution: 10 ms of one processor.
#[derive(Debug)]
pub struct Steal {
    since: Instant,
    before: Ticks,
}

/// Of all processors, since the machine started; proc_stat(5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ticks {
    stolen: u64,
    all: u64,
}

impl Steal {
    /// Begins now.
    pub fn watch() -> Result<Steal> {
        Ok(Steal { since: Instant::now(), before: Ticks::now()? })
    }

    /// The share of the processors that others had since then, 0 to 1.
    pub fn share(&self) -> Result<f64> {
        Ok(Ticks::now()?.share_since(self.before))
    }

    /// The same share of the time that has passed.
    pub fn time(&self) -> Result<Duration> {
        Ok(self.since.elapsed().mul_f64(self.share()?))
    }
}

impl Ticks {
    fn now() -> Result<Ticks> {
        let text = fs::read_to_string("/proc/stat").doing("reading /proc/stat")?;
        Ticks::parse(&text).ok_or_else(|| Error::Unexpected {
            program: "/proc/stat".into(),
            reason: "does not begin with the times of all processors".into(),
            log: text,
        })
    }

    /// user, nice, system, idle, iowait, irq, softirq and steal; what follows is counted in those.
    fn parse(text: &str) -> Option<Ticks> {
        let words = text.lines().next()?.strip_prefix("cpu ")?.split_whitespace();
        let times = words.take(8).map(|it| it.parse().ok()).collect::<Option<Vec<u64>>>()?;
        let [.., stolen] = times[..] else { return None };
        (times.len() == 8).then(|| Ticks { stolen, all: times.iter().sum() })
    }

    fn share_since(self, before: Ticks) -> f64 {
        // A machine that is moved to another host may count anew.
        let since =
            |now: u64, then: u64| u32::try_from(now.saturating_sub(then)).unwrap_or(u32::MAX);
        let all = since(self.all, before.all).max(1);
        (f64::from(since(self.stolen, before.stolen)) / f64::from(all)).min(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "cpu  100 10 50 800 5 0 5 30 7 0\ncpu0 50 5 25 400 2 0 3 15 3 0\n";
    const AFTER: &str = "cpu  130 10 60 840 5 0 5 50 9 0\n";

    #[test]
    fn what_was_stolen_is_a_share_of_all_times() {
        let before = Ticks::parse(BEFORE).unwrap();
        assert_eq!(before, Ticks { stolen: 30, all: 1000 });
        let after = Ticks::parse(AFTER).unwrap();
        assert!((after.share_since(before) - 0.2).abs() < 1e-9);
        assert!(before.share_since(after) < 1e-9);
    }

    #[test]
    fn a_kernel_that_does_not_tell_is_an_error() {
        assert_eq!(Ticks::parse("cpu  100 10 50 800 5 0 5\n"), None);
        assert_eq!(Ticks::parse("cpu0 100 10 50 800 5 0 5 30\n"), None);
        assert_eq!(Ticks::parse(""), None);
    }

    #[test]
    fn this_machine_tells() {
        let share = Steal::watch().unwrap().share().unwrap();
        assert!((0.0..=1.0).contains(&share));
    }
}
