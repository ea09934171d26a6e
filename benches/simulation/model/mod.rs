//! A fleet of nodes that share one ring, simulated: real rings and real bytes, invented clocks, network and Redis.
//!
//! Called by: the program `make simulation` and `tests/simulation.rs`. Everything that happens follows from
//! [`Parameters`], so a seed that fails fails again. One thread, no clock, no I/O.
//!
//! # The claims
//!
//! A node is *reachable* when it is up, has got its first copy of the ring, and has not been cut off from Redis for the
//! last 20 seconds ([`SETTLES`]: four polls) or, if it is younger, since its start. A node is *in touch* when it has
//! exchanged with the shared copy since its start, so that the copy had everything that it knew, and when that was at
//! most `ahead` periods ago, whether or not it is cut off since.
//!
//! 1. **No ticket is refused inside its lifetime by a reachable node, if its issuer was in touch when it issued it.**
//!    Two kinds of tickets do not count. Those whose key was made less than 30 seconds before: such a key was not made
//!    ahead. A fleet, or a node, that starts with nothing uses one at once, and nobody else can have been told. And
//!    those that were issued less than 20 seconds after their issuer heard that all keys are revoked: what takes their
//!    place is used at once too, perhaps brought by a node that made it while it was cut off.
//! 2. **No ticket is refused by a reachable node once its key has been in the shared copy for 20 seconds**, whoever
//!    issued it: also one that was made alone, in a partition or in a first start, as soon as that is over.
//! 3. **A minute after the last fault, all reachable nodes have one ring** (without what is over) **and encrypt with
//!    the same key**, and the copy has what they have.
//!
//! 4. **A revocation holds.** A node that knows of one, of a key or of all keys, never forgets it and never accepts
//!    what it covers; and once a node has known it for 20 seconds that was reachable all the while, every node knows it
//!    that was reachable all the while too. Claims 1 and 2 are not about tickets that any revocation covers; and a node
//!    that revoked something is in touch again when it has told so.
//!
//! Without faults, one key is made in each period, by one node.
//!
//! How often each claim was put to the test is part of the report: a run in which one never was shows nothing of it.
//! Nodes do what agents do: whoever got no answer begins anew, and only who begins anew calls
//! `Ring::rejoin`.
//!
//! Not simulated: clocks that are off by more than half the activation delay; a Redis that loses its contents while
//! nodes are down, or less than half can be reached, or some were just cut off (what only they know is lost to the
//! others until they are back, and a node that starts meanwhile believes what is there); more than ten nodes at a time
//! that make keys alone, because they start with nothing while cut off or before they got their first copy, or are cut
//! off for more than `ahead` periods: each brings the keys that it used, and a ring holds 256.

#![allow(dead_code, reason = "the program and the test use different parts of it")]
#![allow(clippy::redundant_pub_crate, reason = "the module is part of two programs")]

mod checks;
mod faults;
mod node;
mod place;
mod random;
mod world;

use std::time::Duration;

use tlsresume::ring::Schedule;

pub(crate) use checks::{CLAIMS, Report};

/// Milliseconds of the simulation's own clock, which is right.
pub(crate) type Millis = u64;

/// How long it takes, lost messages included, until what is in the copy is known to whoever can be reached.
pub(crate) const SETTLES: Millis = 20_000;

/// What a run is made from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parameters {
    pub(crate) nodes: usize,
    pub(crate) seed: u64,
    /// Simulated time.
    pub(crate) length: Millis,
    pub(crate) schedule: Schedule,
    /// Mean time between two full handshakes of one node.
    pub(crate) handshakes: Millis,
    /// Mean time from one fault to the next; none at zero.
    pub(crate) faults: Millis,
}

impl Parameters {
    /// The default configuration of the library.
    pub(crate) fn hourly(nodes: usize, seed: u64, hours: u64) -> Self {
        let schedule = Schedule {
            makes_tickets: true,
            rotate: Duration::from_secs(3600),
            ahead: 4,
            activation_delay: Duration::from_secs(10),
            lifetime: Duration::from_secs(12 * 3600),
            early: Duration::ZERO,
        };
        let length = hours * 3_600_000;
        Parameters { nodes, seed, length, schedule, handshakes: 20_000, faults: 900_000 }
    }

    /// Messages are lost, and nothing else goes wrong.
    pub(crate) fn calm(self) -> Self {
        Parameters { faults: 0, ..self }
    }

    /// Keys that change often, so that a short time has many periods.
    pub(crate) fn brisk(nodes: usize, seed: u64, hours: u64) -> Self {
        let hourly = Parameters::hourly(nodes, seed, hours);
        let schedule = Schedule {
            rotate: Duration::from_secs(300),
            ahead: 2,
            lifetime: Duration::from_secs(3600),
            ..hourly.schedule
        };
        Parameters { schedule, faults: 400_000, ..hourly }
    }
}

/// Lets the fleet live, and says how it went.
///
/// # Errors
/// The claim that did not hold, and when.
pub(crate) fn run(parameters: &Parameters) -> Result<Report, String> {
    world::World::new(*parameters).run()
}
