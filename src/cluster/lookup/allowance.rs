//! How long a thread may wait for the vault: a share of its time, whoever it waits for.
//!
//! A budget bounds one handshake's wait. A thread that serves many connections makes them wait for each other: a hundred
//! clients of which each waits for a budget would hold all others up for a hundred budgets. So what is waited comes out
//! of an allowance of the thread's: a budget, which fills up again with [`SHARE`] of the time that is not waited. A
//! thread of one connection begins with all of it, and holds nobody up. Where too little is left, the vault is not asked.
//!
//! Owns: what this thread has waited. Called by: `engine`, for handshakes that are not paused while they wait. Threads:
//! each has its own.
//! Forks: a child's thread goes on as its parent's. Failure: where a thread cannot have a word of its own, nothing bounds
//! what it waits but the budget of each handshake.

#![forbid(unsafe_code)]

use std::time::Duration;

use crate::clock;
use crate::sys::thread_word::ThreadWord;

/// For so much time without waiting, a thread may wait for one part of it.
const SHARE: u32 = 5;

/// Less than this part of a budget is nothing.
const LEAST: u32 = 16;

/// What one thread may wait. `now` is a monotonic time.
#[derive(Clone, Copy, Debug, Default)]
struct Allowance {
    /// When nothing will be spent any more, if nobody waits until then.
    full_at: Duration,
}

impl Allowance {
    /// What is left of `budget`.
    fn left(self, now: Duration, budget: Duration) -> Duration {
        budget.saturating_sub(self.spent_at(now))
    }

    /// It was waited from `begun` on. Never more than `budget` is owed for that, however late the thread woke up.
    fn spend(&mut self, begun: Duration, now: Duration, budget: Duration) {
        let before = self.spent_at(begun);
        let waited = now.saturating_sub(begun);
        let spent = (before + waited).min(budget.max(before));
        self.full_at = now + spent.saturating_mul(SHARE);
    }

    fn spent_at(self, now: Duration) -> Duration {
        self.full_at.saturating_sub(now) / SHARE
    }

    /// In a word of a thread's: nanoseconds, of which a word holds 584 years.
    fn to_word(self) -> usize {
        self.full_at.as_nanos().try_into().unwrap_or(usize::MAX)
    }

    fn of_word(word: usize) -> Self {
        Allowance { full_at: Duration::from_nanos(word as u64) }
    }
}

static OWN: ThreadWord = ThreadWord::new();

fn own() -> Allowance {
    Allowance::of_word(OWN.get())
}

/// How long this thread may wait now.
pub fn left(budget: Duration) -> Duration {
    own().left(clock::since_boot(), budget)
}

/// How long it may wait now for what usually takes so long; `None` when that would probably be in vain.
pub fn enough_for(usual: Duration, budget: Duration) -> Option<Duration> {
    let (left, enough) = (left(budget), usual.saturating_mul(2).max(budget / LEAST));
    (left >= enough.min(budget)).then_some(left)
}

/// It has waited from `begun`, a time since boot, until now.
pub fn spend(begun: Duration, budget: Duration) {
    let mut own = own();
    own.spend(begun, clock::since_boot(), budget);
    OWN.set(own.to_word());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BUDGET: Duration = Duration::from_millis(100);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(1_000_000 + ms)
    }

    #[test]
    fn a_new_thread_may_wait_for_a_whole_budget_whatever_that_is() {
        for budget in [Duration::from_millis(1), BUDGET, Duration::from_secs(1)] {
            assert_eq!(Allowance::default().left(ms(0), budget), budget);
        }
    }

    #[test]
    fn what_was_waited_comes_back_five_times_as_slowly_and_not_while_it_is_waited() {
        let mut allowance = Allowance::default();
        allowance.spend(ms(0), ms(80), BUDGET);
        assert_eq!(allowance.left(ms(80), BUDGET), Duration::from_millis(20));
        assert_eq!(allowance.left(ms(130), BUDGET), Duration::from_millis(30));
        allowance.spend(ms(130), ms(160), BUDGET);
        assert_eq!(allowance.left(ms(160), BUDGET), Duration::ZERO);
        assert_eq!(allowance.left(ms(660), BUDGET), BUDGET);
        assert_eq!(allowance.left(ms(100_000), BUDGET), BUDGET, "and not more");
    }

    #[test]
    fn a_thread_that_woke_up_an_hour_late_owes_a_budget() {
        let mut allowance = Allowance::default();
        allowance.spend(ms(0), ms(3_600_000), BUDGET);
        assert_eq!(allowance.left(ms(3_600_500), BUDGET), BUDGET);
    }

    #[test]
    fn a_short_budget_forgives_nothing_that_was_spent_of_a_long_one() {
        let mut allowance = Allowance::default();
        allowance.spend(ms(0), ms(80), BUDGET);
        allowance.spend(ms(80), ms(81), Duration::from_millis(1));
        assert_eq!(allowance.left(ms(81), BUDGET), Duration::from_millis(20));
    }

    #[test]
    fn nobody_waits_who_could_not_wait_long_enough() {
        std::thread::scope(|scope| {
            let own = scope.spawn(|| {
                let hour = Duration::from_secs(3600);
                assert_eq!(enough_for(hour, hour), Some(hour), "a whole budget is always enough");
                let begun = clock::since_boot();
                spend(begun.saturating_sub(hour / 2), hour);
                assert!(enough_for(hour / 5, hour).is_some());
                assert_eq!(enough_for(hour / 3, hour), None);
                spend(begun.saturating_sub(hour), hour);
                assert_eq!(enough_for(Duration::ZERO, hour), None);
            });
            own.join().expect("no panic");
            assert_eq!(left(BUDGET), BUDGET, "another thread has its own");
        });
    }

    proptest! {
        /// Whatever is asked for when: of any stretch of time no more is waited than a budget and the share of the rest.
        #[test]
        fn what_is_waited_is_a_budget_and_a_share_of_the_time(
            visits in prop::collection::vec((0..50_000u64, 0..200_000u64), 1..200)
        ) {
            let micros = Duration::from_micros;
            let (mut allowance, mut now) = (Allowance::default(), ms(0));
            let mut waits: Vec<(Duration, Duration)> = Vec::new();
            for (pause, wants) in visits {
                now += micros(pause);
                let waited = micros(wants).min(allowance.left(now, BUDGET));
                allowance.spend(now, now + waited, BUDGET);
                waits.push((now, waited));
                now += waited;
            }
            for first in 0..waits.len() {
                let (mut total, begin) = (Duration::ZERO, waits[first].0);
                for (begun, waited) in &waits[first..] {
                    let others = *begun - begin - total;
                    total += *waited;
                    prop_assert!(total <= BUDGET + others / SHARE + micros(1), "{total:?} {others:?}");
                }
            }
        }
    }
}
