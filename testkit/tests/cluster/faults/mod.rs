//! The table of faults: whatever happens to Redis, no handshake fails, none waits, tickets resume on
//! every node throughout, and everything does again soon after. Those that may resume once are full
//! handshakes meanwhile: nobody says which time is the first.
//!
//! `make test` runs each fault once, with every way of sharing and every kind of session, and checks
//! all of this but the times of handshakes, which it only reports: other tests keep the machine busy.
//! `make test-cluster` (`TLSRESUME_DEEP=1`) runs each twice and measures enough handshakes for a 99th
//! percentile: in turns with nodes to which nothing happens and with the others. Each such pair has
//! a ratio, of full handshakes and of all; what is checked is the median of all pairs and, with more
//! room, the worst one. Pairs do not count while the host of this machine gives its processors to
//! others. A fault that is over its bounds, or of which too few pairs count, is run up to four times
//! more, and all its pairs count: two slow handshakes of 200 are a 99th percentile.

mod scenario;
mod sites;
mod table;

use std::env;
use std::time::Duration;

use tlsresume_testkit::Result;

use scenario::survives;

/// Something that happens to a Redis, and how it ends.
pub(crate) trait Fault: Sized {
    const NAME: &'static str;

    /// How long it lasts at the least; else as long as everything takes that is tried meanwhile.
    const LASTS: Duration = Duration::ZERO;

    /// Whether Redis goes on answering some or all look-ups: then some of those for what it could not be
    /// told wait for what might be about to come.
    const ANSWERS: bool = false;

    /// Whether what nodes keep gets to others all the same: on some of them, or after a while.
    const SHARES: bool = false;

    /// What it is seen by.
    const SIGN: Sign = Sign::Down;

    /// How often keys change, if while it lasts.
    const ROTATES: Option<Duration> = None;

    /// A Redis that is well.
    fn start() -> Result<Self>;

    /// Where nodes find it.
    fn url(&self) -> String;

    /// Where the first node finds it.
    fn url_of_the_first(&self) -> String {
        self.url()
    }

    fn begin(&mut self) -> Result<()>;

    fn end(&mut self) -> Result<()>;

    /// How often somebody else than the nodes has seen it: [`Sign::Counted`].
    fn count(&self) -> Result<u64> {
        Ok(0)
    }
}

/// What shows that a fault is one: else nothing would have been survived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sign {
    /// Every node's metrics say that Redis does not do what it is asked, as long as it lasts.
    Down,
    /// The first node's do; the others' say that it does.
    FirstDown,
    /// Every node has told its log that Redis was lost, and may have found it again.
    Lost,
    /// Redis does what it is asked, with more trouble than usual, which is counted.
    Counted,
}

/// Whether there is time to measure.
pub(crate) fn is_deep() -> bool {
    env::var_os("TLSRESUME_DEEP").is_some()
}

#[test]
fn a_stopped_redis_costs_nobody_more_than_the_sessions_of_others() -> Result<()> {
    if is_deep() { survives::<sites::Stopped<20>>() } else { survives::<sites::Stopped<8>>() }
}

#[test]
fn a_killed_redis_that_comes_back_empty_costs_nobody_more_than_the_sessions_of_others() -> Result<()>
{
    survives::<sites::Killed>()
}

#[test]
fn a_wrong_password_costs_nobody_more_than_the_sessions_of_others() -> Result<()> {
    survives::<sites::WrongPassword>()
}

#[test]
fn a_slow_redis_costs_nobody_more_than_the_sessions_of_others() -> Result<()> {
    survives::<sites::Slow>()
}

#[test]
fn a_redis_that_answers_garbage_costs_nobody_more_than_the_sessions_of_others() -> Result<()> {
    survives::<sites::Garbage>()
}

#[test]
fn a_redis_that_resets_connections_costs_nobody_more_than_the_sessions_of_others() -> Result<()> {
    survives::<sites::Resets>()
}

#[test]
fn a_node_that_is_cut_off_for_three_rotations_still_has_the_keys_of_all() -> Result<()> {
    survives::<sites::CutOff>()
}

#[test]
fn a_failover_of_sentinel_costs_nobody_more_than_the_sessions_of_others() -> Result<()> {
    survives::<sites::Failover>()
}

#[test]
fn slots_that_move_in_a_redis_cluster_cost_nobody_more_than_the_sessions_of_others() -> Result<()> {
    survives::<sites::Migration>()
}

#[test]
fn a_full_redis_costs_nobody_more_than_the_sessions_of_others() -> Result<()> {
    survives::<sites::Full>()
}
