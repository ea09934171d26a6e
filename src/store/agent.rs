//! What the node's agent keeps in shared memory, so that the next one goes on where it was: who it is, how far it has
//! sent and taken in, what it reports. Everything here costs other processes one atomic access, and no lock.

#![forbid(unsafe_code)]

use std::time::Duration;

use super::Store;
use super::bell::Bell;
use super::holds::{AgentLease, BootClock};
use super::layout::word;
use super::lease::{Lease, Waiter};
use super::sync::{Ordering, futex_wait, futex_wake};
use super::tail::Tail;
use crate::stats::Gauge;

impl Store {
    /// Takes the agent's place if it is free, without waiting. Held for ten seconds at the longest, unless renewed.
    pub fn hold_agent(&self, hold: Duration) -> Option<AgentLease<'_>> {
        let word = self.region.word(word::AGENT_LEASE);
        Lease::acquire(word, hold, Duration::ZERO, &BootClock::default()).map(AgentLease)
    }

    /// Whether the node has an agent.
    pub fn agent_lives(&self) -> bool {
        Lease::is_held(self.region.word(word::AGENT_LEASE), BootClock::default().now())
    }

    /// How many shards there are.
    pub fn shards(&self) -> usize {
        self.region.geometry().shards
    }

    /// The sessions and removals that this node made since a position of that shard's log, up to `most` of them. Goes
    /// on at [`Tail::next`]; there is no more for now when that is `from`.
    pub fn tail(&self, shard: usize, from: u64, most: usize) -> Tail {
        self.shard(shard).1.read_from(from, most)
    }

    /// Up to which position of that shard's log everything was sent.
    pub fn sent(&self, shard: usize) -> u64 {
        self.shard(shard).1.sent.load(Ordering::Relaxed)
    }

    /// Remembers [`Self::sent`] for this agent and the next one, if it still is `from`: of two agents, of which one
    /// woke up late, one goes on.
    pub fn advance_sent(&self, shard: usize, from: u64, to: u64) -> bool {
        let sent = self.shard(shard).1.sent;
        sent.compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Makes everything that is still there count as not sent.
    pub fn send_again(&self) {
        for index in 0..self.shards() {
            let (_, shard) = self.shard(index);
            let oldest = shard.oldest(shard.head.load(Ordering::Acquire));
            shard.sent.store(oldest, Ordering::Relaxed);
        }
    }

    /// How often the bell was rung: by each new session or removal of this node, and each new ring. Wraps around.
    pub fn rings(&self) -> u32 {
        self.bell().rings()
    }

    /// Sleeps until the bell is rung, if it was not since it stood at `seen`; at the longest for `timeout`. May return
    /// early without a reason.
    pub fn wait_bell(&self, seen: u32, timeout: Duration) {
        let bell = self.bell();
        bell.wait(seen, || futex_wait(bell.sequence, seen, timeout));
    }

    /// Tells the agent that there is something to send. Call it after the thing is there.
    pub(super) fn ring_bell(&self) {
        let bell = self.bell();
        bell.ring(|| futex_wake(bell.sequence));
    }

    /// The last entry of the cluster's stream that was taken in.
    pub fn stream_cursor(&self) -> (u64, u64) {
        let [first, second] = self.cursor_words().map(|word| word.load(Ordering::Acquire));
        (first, second)
    }

    /// Remembers [`Self::stream_cursor`]. The agent alone does.
    pub fn set_stream_cursor(&self, (first, second): (u64, u64)) {
        let [first_word, second_word] = self.cursor_words();
        // Killed in between, it leaves an earlier place: entries are taken in twice rather than never.
        second_word.store(0, Ordering::Release);
        first_word.store(first, Ordering::Release);
        second_word.store(second, Ordering::Release);
    }

    /// Whether the cluster's ring has ever come into this memory.
    pub fn has_first_copy(&self) -> bool {
        self.region.word(word::FIRST_COPY).load(Ordering::Acquire) != 0
    }

    /// Remembers that it has. Call it after the ring is there.
    pub fn note_first_copy(&self) {
        self.region.word(word::FIRST_COPY).store(1, Ordering::Release);
    }

    /// What tells this node from others: random, and as old as the memory.
    pub fn node_id(&self) -> [u8; 8] {
        self.region.word(word::NODE_ID).load(Ordering::Relaxed).to_le_bytes()
    }

    /// What the agent last said.
    pub fn gauge(&self, gauge: Gauge) -> u64 {
        self.region.word(word::GAUGES + gauge as usize).load(Ordering::Relaxed)
    }

    /// What the agent says.
    pub fn set_gauge(&self, gauge: Gauge, value: u64) {
        self.region.word(word::GAUGES + gauge as usize).store(value, Ordering::Relaxed);
    }

    pub(super) fn bell(&self) -> Bell<'_> {
        Bell { sequence: self.region.bell(), waiter: self.region.word(word::BELL_WAITER) }
    }

    fn cursor_words(&self) -> [&super::sync::AtomicU64; 2] {
        [word::STREAM_CURSOR, word::STREAM_CURSOR + 1].map(|index| self.region.word(index))
    }
}
