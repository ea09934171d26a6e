//! What is where in the mapping. Drawn and explained in docs/shm-format.md; any change here moves [`VERSION`].

#![forbid(unsafe_code)]

use crate::stats::{Counter, Gauge};

/// First word of every mapping: "TLSRESUM" in memory.
pub(super) const MAGIC: u64 = u64::from_le_bytes(*b"TLSRESUM");

/// Moves with every change of the layout, of the counters and of the ring's encoding.
pub(super) const VERSION: u64 = 4;

/// Moves with every change of the root: of the fixed words of the header page, of the ring slots, of how the ring is
/// written and encoded. It should never move: processes of different layouts share the ring by it.
pub(super) const ROOT_VERSION: u64 = 1;

/// What [`word::SUPERSEDED`] holds once another file takes the place: "REPLACED" in memory.
pub(super) const REPLACED: u64 = u64::from_le_bytes(*b"REPLACED");

/// Layouts before this one have no root.
pub(super) const FIRST_WITH_ROOT: u64 = 3;

/// Words of the header page, each 8 bytes.
pub(super) mod word {
    pub(crate) const MAGIC: usize = 0;
    pub(crate) const VERSION: usize = 1;
    pub(crate) const SIZE: usize = 2;
    pub(crate) const ROOT_VERSION: usize = 3;
    pub(crate) const SEED: usize = 5;
    pub(crate) const CREATED: usize = 7;
    pub(crate) const CHECK: usize = 8;
    /// From here on words change while others look.
    pub(crate) const RING: usize = 16;
    pub(crate) const RING_LEASE: usize = 17;
    pub(crate) const SUPERSEDED: usize = 18;
    pub(crate) const REALM: usize = 19;
    /// The root ends here: the words above are the same in every layout.
    pub(crate) const RESTRICTED: usize = 20;
    /// What ends then or earlier counts as removed, in seconds since 1970.
    pub(crate) const REMOVED_UNTIL: usize = 21;
    /// Until when any removal for all counts, in milliseconds since 1970.
    pub(crate) const REMOVALS_UNTIL: usize = 23;
    /// A cache line of its own, since every new session writes it. Used as 4-byte entries only.
    pub(crate) const BELL: usize = 24;
    pub(crate) const BELL_WAITER: usize = 25;
    pub(crate) const NODE_ID: usize = 32;
    pub(crate) const AGENT_LEASE: usize = 33;
    pub(crate) const FIRST_COPY: usize = 34;
    pub(crate) const STREAM_CURSOR: usize = 40;
    pub(crate) const GAUGES: usize = 42;
    pub(crate) const COUNTERS: usize = 64;
}

pub(super) const PAGE: usize = 4096;
pub(super) const WORD: usize = 8;

const _: () = assert!((word::COUNTERS + Counter::COUNT) * WORD <= PAGE);
const _: () = assert!(word::GAUGES + Gauge::COUNT <= word::COUNTERS);

/// Bytes of one of the two ring slots: length, stamp, check, and the ring's encoding in whole words.
pub(super) const SLOT_BYTES: usize = 45_056;
const _: () = assert!(SLOT_BYTES.is_multiple_of(PAGE));

/// Header page and ring slots.
pub(super) const ROOT_BYTES: usize = PAGE + 2 * SLOT_BYTES;

/// Bytes of the largest table, and of the smallest.
const LARGEST_TABLE: usize = 2 * 1024 * 1024;
const SMALLEST_TABLE: usize = 4096;

/// The smallest mapping: one shard that takes the largest session several times.
pub(super) const SMALLEST: usize = 512 * 1024;

/// Words of the strike register that are searched together: two cache lines.
pub(super) const STRIKE_BUCKET: usize = 16;
const _: () = assert!(SMALLEST_TABLE.is_multiple_of(STRIKE_BUCKET * WORD));

/// Bytes of the largest table of removals.
const LARGEST_REMOVALS: usize = 1024 * 1024;

/// Words of the table of removals that are searched together: one cache line.
pub(super) const REMOVAL_BUCKET: usize = 8;

/// A shard's log is addressed by 19 bits of 8-byte units, half of what an index entry can tell apart. Large shards fill
/// evenly: the more keys share one, the less chance has it.
const LARGEST_SHARD: usize = 4 * 1024 * 1024;

/// Bytes at the start of a shard: its lease, where its log begins and ends, and how far the agent has come in it.
pub(super) const SHARD_HEADER: usize = 64;

/// Index entries that are searched together: one cache line.
pub(super) const BUCKET: usize = 16;
const BUCKET_BYTES: usize = BUCKET * 4;

/// Bytes of the log per index bucket: 16 entries, filled to 14/16, of the records of 168-byte sessions. Fuller ones
/// overflow, with two to choose from, before the log is full.
const LOG_PER_BUCKET: usize = 14 * 184;

/// Where the parts of a mapping of a given size are: a function of the size alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Geometry {
    /// Bytes of the mapping.
    pub(super) size: usize,
    /// Words in the table of names, a power of two.
    pub(super) names: usize,
    /// Words in the strike register, a power of two.
    pub(super) strikes: usize,
    /// Words in the table of removals, a power of two.
    pub(super) removals: usize,
    /// How many shards there are.
    pub(super) shards: usize,
    /// Bytes from one shard to the next.
    pub(super) shard_bytes: usize,
    /// Index buckets in a shard.
    pub(super) buckets: usize,
    /// 8-byte units in a shard's log.
    pub(super) log_units: usize,
}

impl Geometry {
    /// The parts of a mapping of `size` bytes; `None` when that is too small.
    pub(super) fn of(size: usize) -> Option<Self> {
        if size < SMALLEST {
            return None;
        }
        let names = table_bytes(size / 16) / WORD;
        let strikes = table_bytes(size / 32) / WORD;
        let removals = table_bytes((size / 64).min(LARGEST_REMOVALS)) / WORD;
        let room = size - ROOT_BYTES - (names + strikes + removals) * WORD;
        let shards = room.div_ceil(LARGEST_SHARD);
        let shard_bytes = room / shards / SHARD_HEADER * SHARD_HEADER;
        let buckets = (shard_bytes - SHARD_HEADER) / (BUCKET_BYTES + LOG_PER_BUCKET);
        let log_units = (shard_bytes - SHARD_HEADER - buckets * BUCKET_BYTES) / WORD;
        Some(Geometry { size, names, strikes, removals, shards, shard_bytes, buckets, log_units })
    }

    /// Where a ring slot starts.
    pub(super) fn slot_at(slot: usize) -> usize {
        PAGE + slot * SLOT_BYTES
    }

    /// Where the table of names starts.
    pub(super) fn names_at(&self) -> usize {
        ROOT_BYTES
    }

    /// Where the strike register starts.
    pub(super) fn strikes_at(&self) -> usize {
        self.names_at() + self.names * WORD
    }

    /// Where the table of removals starts.
    pub(super) fn removals_at(&self) -> usize {
        self.strikes_at() + self.strikes * WORD
    }

    /// Where a shard's header starts.
    pub(super) fn shard_at(&self, shard: usize) -> usize {
        self.removals_at() + self.removals * WORD + shard * self.shard_bytes
    }

    /// Where a shard's index starts.
    pub(super) fn index_at(&self, shard: usize) -> usize {
        self.shard_at(shard) + SHARD_HEADER
    }

    /// Where a shard's log starts.
    pub(super) fn log_at(&self, shard: usize) -> usize {
        self.index_at(shard) + self.buckets * BUCKET_BYTES
    }
}

/// The largest power of two of bytes that is no more than `most`, within the limits of tables.
fn table_bytes(most: usize) -> usize {
    1 << most.clamp(SMALLEST_TABLE, LARGEST_TABLE).ilog2()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_every_size_lie_inside_it_aligned_and_apart() {
        for size in (SMALLEST..64 << 20).step_by(123_457) {
            let geometry = Geometry::of(size).expect("large enough");
            assert!(geometry.shards > 0 && geometry.buckets > 0, "{geometry:?}");
            assert!(geometry.log_units <= 1 << 19, "{geometry:?}");
            assert!(geometry.log_units * WORD > 4 * 65_536, "{geometry:?}");
            assert!(geometry.names.is_power_of_two() && geometry.names * WORD <= size / 16);
            assert!(geometry.names_at().is_multiple_of(SHARD_HEADER), "on a cache line");
            assert!(geometry.strikes.is_power_of_two() && geometry.strikes * WORD <= size / 32);
            assert_eq!(geometry.strikes_at(), geometry.names_at() + geometry.names * WORD);
            assert!(geometry.removals.is_power_of_two() && geometry.removals * WORD <= size / 64);
            assert_eq!(geometry.removals_at(), geometry.strikes_at() + geometry.strikes * WORD);
            assert!(geometry.removals_at().is_multiple_of(REMOVAL_BUCKET * WORD));
            assert_eq!(geometry.shard_at(0), geometry.removals_at() + geometry.removals * WORD);
            assert_eq!(geometry.log_at(0) % WORD, 0);
            let end = geometry.log_at(geometry.shards - 1) + geometry.log_units * WORD;
            assert!(end <= size, "{geometry:?}");
            assert!(geometry.log_at(0) + geometry.log_units * WORD <= geometry.shard_at(1));
        }
        assert_eq!(Geometry::of(SMALLEST - 1), None);
    }
}
