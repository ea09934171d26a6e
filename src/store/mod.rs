//! The store: what the processes of a node share.
//!
//! Owns: one mapping with the session cache, the ring's bytes, the tables of names and of removals, the strike
//! register, the counters. Called by: `engine`. Threads: any number, in any number of processes. Forks: children
//! inherit the mapping. Failure: what cannot be found, read or written in time is a miss; nothing here waits longer
//! than it was told. Every byte in the mapping counts as hostile: lengths are checked, records carry a keyed check, and
//! no content can make a process hang or stop.
//!
//! The layout is drawn in docs/shm-format.md.

mod agent;
mod bell;
mod holds;
mod home;
mod layout;
mod lease;
mod mapping;
mod names;
mod place;
mod private;
mod record;
mod region;
mod removals;
mod ring;
mod served;
mod shard;
mod slots;
mod strikes;
mod sync;
mod tail;
mod wipe;

#[cfg(all(test, loom))]
mod loom_tests;
#[cfg(all(test, not(loom)))]
mod tests;

use std::path::Path;
use std::time::Duration;

use zeroize::Zeroizing;

use self::holds::{BootClock, SHARD_HOLD};
use self::home::Home;
use self::layout::{BUCKET, SHARD_HEADER, WORD, word};
use self::lease::Lease;
use self::place::Opened;
use self::region::Region;
use self::shard::Shard;
use self::sync::Ordering;
use crate::clock::UnixMillis;
use crate::error::Result;
use crate::stats::{Counter, Counters};

pub use holds::AgentLease;
pub use record::{Key, Kind, MAX_VALUE, Meta, Origin};
pub use served::Served;
pub use shard::Evicted;
pub use tail::{Record, Tail};

/// Shared memory with everything in it.
pub struct Store {
    region: Region,
    /// Where the ring is once the file was replaced; memory without a file is not.
    home: Option<Home>,
}

/// Why a record was not inserted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotInserted {
    /// Others kept the shard for as long as the caller would wait, or the memory is superseded and keeps no
    /// session.
    Busy,
    /// The value is longer than [`MAX_VALUE`], or than half a shard's log.
    TooLong,
    /// A record of that key is there already ([`Store::accept`]).
    Present,
}

/// How much of the memory is in use, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of the logs that hold records.
    pub used: u64,
    /// Bytes of the logs that do not.
    pub free: u64,
    /// Everything else: header, ring, tables, indexes.
    pub overhead: u64,
}

impl Store {
    /// Memory of `size` bytes that this process shares with its future children alone.
    ///
    /// # Errors
    /// When the system has no memory to give.
    pub fn anonymous(size: usize) -> Result<Self> {
        Ok(Store { region: Region::anonymous(size)?, home: None })
    }

    /// Memory that every process of this user shares that opens the same path. A file that is there is used as it is,
    /// also when it has another size.
    ///
    /// # Errors
    /// When the file cannot be opened, made or mapped, or is not private to this user; the text says what to do.
    pub fn open(path: &Path, size: usize) -> Result<Self> {
        let (region, home, how) = place::open(path, size)?;
        let (name, has) = (path.display(), region.geometry().size);
        match how {
            Opened::Created => log::info!("{name}: made, {size} bytes"),
            Opened::Found if has == size => log::info!("{name}: found, {size} bytes"),
            Opened::Found => log::info!(
                "{name}: has {has} bytes, memory.size asks for {size}; used as it is; to change the size stop all \
                 servers of this path and remove the file"
            ),
            Opened::Replaced(problem) => log::warn!(
                "{name}: {problem}; a new file takes its place, without the stored sessions; restart the servers that \
                 have the old one"
            ),
        }
        Ok(Store { region, home: Some(home) })
    }

    /// The memory at `path`, if it is there and whole and nobody makes or replaces it now. Waits for nobody, makes nothing
    /// and says nothing.
    pub fn open_now(path: &Path) -> Option<Self> {
        let (region, home) = place::open_now(path)?;
        Some(Store { region, home: Some(home) })
    }

    /// The memory at `path` as it is: nothing is made, nothing is replaced.
    ///
    /// # Errors
    /// As [`Store::open`]; and when there is no file of this layout; the text says what to do.
    pub fn open_existing(path: &Path) -> Result<Self> {
        let (region, home) = place::open_existing(path)?;
        Ok(Store { region, home: Some(home) })
    }

    /// Whether this memory is the realm's of that digest already. Claims nothing.
    pub fn is_of(&self, realm: u64) -> bool {
        self.region.word(word::REALM).load(Ordering::Relaxed) == realm
    }

    /// Whether this memory is the realm's of that (non-zero) digest: the first who asks makes it so.
    pub fn belongs_to(&self, realm: u64) -> bool {
        let word = self.region.word(word::REALM);
        let claimed = word.compare_exchange(0, realm, Ordering::Relaxed, Ordering::Relaxed);
        claimed.is_ok() || claimed == Err(realm)
    }

    /// Bytes of the memory.
    pub fn size(&self) -> u64 {
        self.region.geometry().size as u64
    }

    /// Keeps the memory out of swap.
    ///
    /// # Errors
    /// The system's refusal (RLIMIT_MEMLOCK).
    pub fn lock_in_memory(&self) -> std::io::Result<()> {
        self.region.lock()
    }

    /// The node's counters.
    #[cfg(not(loom))]
    pub fn counters(&self) -> Counters<'_> {
        let words = self.region.units(word::COUNTERS * WORD, Counter::COUNT);
        Counters(words.first_chunk().expect("as many words as counters"))
    }

    /// The model checker's atomics are not memory: its models count nothing.
    #[cfg(loom)]
    pub fn counters(&self) -> Counters<'_> {
        use std::sync::atomic::AtomicU64;
        static NOTHING: [AtomicU64; Counter::COUNT] = [const { AtomicU64::new(0) }; Counter::COUNT];
        Counters(&NOTHING)
    }

    /// When the memory was made.
    pub fn created(&self) -> UnixMillis {
        UnixMillis(self.region.word(word::CREATED).load(Ordering::Relaxed))
    }

    /// Keeps a record, in the place of one of the same key. Old records make room.
    ///
    /// # Errors
    /// [`NotInserted`], except `Present`.
    pub fn insert(
        &self,
        meta: &Meta,
        value: &[u8],
        now: UnixMillis,
        patience: Duration,
    ) -> std::result::Result<Evicted, NotInserted> {
        let (evicted, is_held) = self.insert_if(meta, value, now, patience, |_| true)?;
        if !is_held && meta.kind == Kind::Session {
            // The agent may have passed its place by: here alone it would be found, elsewhere never.
            self.remove(&meta.key);
            return Err(NotInserted::Busy);
        }
        if meta.origin == Origin::Here {
            self.ring_bell();
        }
        Ok(evicted)
    }

    /// Keeps a session or a removal that another node sent. One that is known already, or was removed here, is refused:
    /// the log keeps what it has.
    ///
    /// # Errors
    /// [`NotInserted`].
    pub fn accept(
        &self,
        meta: &Meta,
        value: &[u8],
        now: UnixMillis,
        patience: Duration,
    ) -> std::result::Result<Evicted, NotInserted> {
        let is_news = |shard: &Shard<'_>| match shard.lookup(&meta.key) {
            Some((found, _)) if found.expires > seconds(now) => {
                found.kind == Kind::Session && meta.kind == Kind::Removal
            }
            _ => true,
        };
        self.insert_if(meta, value, now, patience, is_news).map(|(evicted, _)| evicted)
    }

    /// A copy of the record of that key, whatever its times and its kind say. Nothing in memory that is superseded:
    /// what was removed since is not known there.
    pub fn lookup(&self, key: &Key) -> Option<(Meta, Zeroizing<Vec<u8>>)> {
        if self.is_superseded() { None } else { self.shard_of(key).1.lookup(key) }
    }

    /// Removes the session of that key: true for exactly one of all who try.
    pub fn remove(&self, key: &Key) -> bool {
        self.shard_of(key).1.remove(key)
    }

    /// Forgets and wipes every record. Strikes, removals of families, and what is known of names, stay. Takes as long as
    /// what was written since the last time, and touches no more memory.
    pub fn clear(&self) {
        (0..self.region.geometry().shards).for_each(|index| self.shard(index).1.clear());
    }

    /// How many sessions could be resumed. Looks at all index entries that are in use, and their neighbours: for reports.
    pub fn live(&self, now: UnixMillis) -> u64 {
        (0..self.region.geometry().shards).map(|index| self.shard(index).1.live(seconds(now))).sum()
    }

    /// How much of the memory is in use.
    pub fn usage(&self) -> Usage {
        let geometry = self.region.geometry();
        let units: usize = (0..geometry.shards).map(|index| self.shard(index).1.used_units()).sum();
        let (used, log) = (units * WORD, geometry.shards * geometry.log_units * WORD);
        let bytes = |count: usize| count as u64;
        Usage { used: bytes(used), free: bytes(log - used), overhead: bytes(geometry.size - log) }
    }

    /// The second value tells whether nobody has taken the shard over meanwhile.
    fn insert_if(
        &self,
        meta: &Meta,
        value: &[u8],
        now: UnixMillis,
        patience: Duration,
        wanted: impl FnOnce(&Shard<'_>) -> bool,
    ) -> std::result::Result<(Evicted, bool), NotInserted> {
        if value.len() > MAX_VALUE {
            return Err(NotInserted::TooLong);
        }
        // Removals are still sent to other nodes.
        if meta.kind == Kind::Session && self.is_superseded() {
            return Err(NotInserted::Busy);
        }
        let (lease_word, shard) = self.shard_of(&meta.key);
        let lease = Lease::acquire(lease_word, SHARD_HOLD, patience, &BootClock::default())
            .ok_or(NotInserted::Busy)?;
        if !wanted(&shard) {
            return Err(NotInserted::Present);
        }
        let evicted = shard.insert(meta, value, seconds(now)).ok_or(NotInserted::Busy)?;
        Ok((evicted, lease.still_held()))
    }

    fn shard_of(&self, key: &Key) -> (&sync::AtomicU64, Shard<'_>) {
        let [choice, _, _] = record::key_words(key);
        let shards = self.region.geometry().shards as u64;
        self.shard(usize::try_from(choice % shards).unwrap_or(0))
    }

    fn shard(&self, index: usize) -> (&sync::AtomicU64, Shard<'_>) {
        let geometry = self.region.geometry();
        let header = self.region.units(geometry.shard_at(index), SHARD_HEADER / WORD);
        let shard = Shard {
            head: &header[1],
            tail: &header[2],
            entered: &header[3],
            sent: &header[4],
            written: &header[5],
            wiped: &header[6],
            touched: &header[7],
            index: self.region.entries(geometry.index_at(index), geometry.buckets * BUCKET),
            log: self.region.units(geometry.log_at(index), geometry.log_units),
            seed: self.region.seed(),
        };
        (&header[0], shard)
    }
}

/// Seconds since 1970 as records hold them: good until 2106.
fn seconds(now: UnixMillis) -> u32 {
    u32::try_from(now.secs()).unwrap_or(u32::MAX)
}
