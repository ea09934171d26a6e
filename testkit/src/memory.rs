//! Where things lie in the file at `memory.path`: what docs/shm-format.md says, so that tests need not ask the library.

use std::fs;
use std::path::Path;

/// Bytes of the root: header page and two ring slots.
pub const ROOT_BYTES: u64 = 4096 + 2 * 45_056;

/// Where the ring's lease is.
pub const RING_LEASE_AT: u64 = 17 * 8;

/// Where the lease of the first shard is: behind the root and the tables of names, strikes and removals.
pub fn shard_lease_at(memory: &Path) -> u64 {
    let size = fs::metadata(memory).expect("the server made it").len();
    let table = |part: u64, most: u64| (1 << (size / part).ilog2()).min(most);
    let (names, strikes, removals) = (table(16, 2 << 20), table(32, 2 << 20), table(64, 1 << 20));
    ROOT_BYTES + names + strikes + removals
}
