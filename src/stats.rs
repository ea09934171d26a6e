//! Counters that all processes of a node add to.
//!
//! Owns: the lists of counters and gauges and their order in shared memory. Called by: `store` (which gives them room),
//! `engine` and `tls` (which count), `ffi` (which reports). Threads and forks: atomic additions. Failure: none.

#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What is counted. The order is the order in shared memory: new ones go at the end, and the layout version moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Counter {
    /// Tickets that were encrypted.
    TicketsIssued,
    /// Tickets under the encrypting key whose handshake resumed.
    TicketsAcceptedCurrent,
    /// Tickets under an older key whose handshake resumed.
    TicketsAcceptedOlder,
    /// Tickets whose key the ring does not know.
    TicketsUnknownKey,
    /// Tickets whose key's time was over.
    TicketsExpired,
    /// Tickets whose key was revoked.
    TicketsRevoked,
    /// Tickets whose key was known and whose handshake yet did not resume: forged, or bound to another name or policy.
    TicketsMac,
    /// Tickets not looked at: more than a handshake may bring.
    TicketsOverLimit,
    /// Sessions put into the store.
    SessionsStored,
    /// Sessions that could not be put into the store.
    SessionsDropped,
    /// Look-ups that found a session.
    SessionsHit,
    /// Look-ups of a session that the store does not hold.
    SessionsAbsent,
    /// Look-ups of a session whose time was over, or that a flush covers.
    SessionsExpired,
    /// Session ids that this realm did not make: no look-up took place.
    SessionsForgedId,
    /// Sessions of another server name or client-verification policy.
    SessionsBinding,
    /// Sessions that OpenSSL could not parse.
    SessionsParse,
    /// Look-ups refused: more than a handshake may ask for.
    SessionsOverLimit,
    /// Live sessions overwritten for want of room.
    SessionsEvicted,
    /// Keys that were made by schedule or by hand.
    Rotations,
    /// Early data allowed.
    EarlyDataAllowed,
    /// Early data refused.
    EarlyDataRefused,
    /// Records that were sent to other nodes.
    TransportSent,
    /// Records of other nodes that arrived.
    TransportReceived,
    /// Records that were lost on the way: not sent, or gone before they were read.
    TransportDropped,
    /// What arrived and is no message of ours.
    TransportRejectedFormat,
    /// What arrived and no secret of ours opens.
    TransportRejectedSecret,
    /// What arrived and is not what it says it is.
    TransportRejectedForged,
    /// What arrived from a node whose clock is too far away.
    TransportRejectedClock,
    /// What arrived after its time.
    TransportRejectedExpired,
    /// Look-ups in the cluster that took at most 1 ms: see [`Counters::count_lookup`].
    LookupsUnder1ms,
    /// Longer ones, of at most 2 ms: each look-up counts once.
    LookupsUnder2ms,
    /// Longer ones, of at most 5 ms.
    LookupsUnder5ms,
    /// Longer ones, of at most 10 ms.
    LookupsUnder10ms,
    /// Longer ones, of at most 50 ms.
    LookupsUnder50ms,
    /// Longer ones, of at most 1 s.
    LookupsUnder1s,
    /// Longer ones.
    LookupsOver1s,
    /// Microseconds that all look-ups took together.
    LookupMicros,
    /// Look-ups that were not tried, since the last ones had failed.
    LookupsRefused,
    /// Look-ups that found what they looked for.
    LookupsFound,
    /// Look-ups that were not made, since their thread had waited for others for as long as it may.
    LookupsSkipped,
}

impl Counter {
    /// How many counters there are.
    pub const COUNT: usize = Counter::LookupsSkipped as usize + 1;
}

/// The buckets of the look-ups' histogram but the last, with the most microseconds that each holds.
pub const LOOKUP_BUCKETS: [(Counter, u64); 6] = [
    (Counter::LookupsUnder1ms, 1_000),
    (Counter::LookupsUnder2ms, 2_000),
    (Counter::LookupsUnder5ms, 5_000),
    (Counter::LookupsUnder10ms, 10_000),
    (Counter::LookupsUnder50ms, 50_000),
    (Counter::LookupsUnder1s, 1_000_000),
];

/// What the agent says of the node's place in the cluster. The order is the order in shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Gauge {
    /// 1 while the transport works.
    TransportUp,
    /// Nodes that were heard of lately, this one included.
    Nodes,
    /// Those of them that have another ring, or whose heartbeat this node cannot read.
    NodesOutOfSync,
    /// Those of them that seal with a secret which this node has not.
    NodesOtherSecret,
    /// The secret that the agent seals with ([`crate::engine::Secrets`]); 0: not known.
    OwnSecret,
    /// The least secret that others seal with and this node has not; 0: none.
    OtherSecret,
}

impl Gauge {
    /// How many gauges there are.
    pub const COUNT: usize = Gauge::OtherSecret as usize + 1;

    /// All of them, in their order.
    pub const ALL: [Gauge; Gauge::COUNT] = [
        Gauge::TransportUp,
        Gauge::Nodes,
        Gauge::NodesOutOfSync,
        Gauge::NodesOtherSecret,
        Gauge::OwnSecret,
        Gauge::OtherSecret,
    ];
}

/// The counters of one node.
#[derive(Clone, Copy)]
pub struct Counters<'a>(pub &'a [AtomicU64; Counter::COUNT]);

impl Counters<'_> {
    /// Adds one.
    pub fn count(self, counter: Counter) {
        self.add(counter, 1);
    }

    /// Adds `amount`.
    pub fn add(self, counter: Counter, amount: u64) {
        self.0[counter as usize].fetch_add(amount, Ordering::Relaxed);
    }

    /// Enters a look-up in the cluster into the histogram, whatever it brought.
    pub fn count_lookup(self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = LOOKUP_BUCKETS.iter().find(|(_, most)| micros <= *most);
        self.count(bucket.map_or(Counter::LookupsOver1s, |(counter, _)| *counter));
        self.add(Counter::LookupMicros, micros);
    }

    /// How often it was counted since the memory was made.
    pub fn value(self, counter: Counter) -> u64 {
        self.0[counter as usize].load(Ordering::Relaxed)
    }
}
