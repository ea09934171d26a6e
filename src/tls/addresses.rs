//! Tables of OpenSSL's objects, by their addresses.
//!
//! Owns: [`Table`]. Called by: [`super::removal`]. Threads: a table has locks that are held for a few instructions. An
//! entry that is taken out by [`Table::take`] is not looked at any more when that returns, however long a thread that
//! looks at it is not let run: so what it points to may be freed then. Forks: where a child finds a lock that was held at
//! the fork, it begins that part of the table anew. Failure: without memory there is no entry.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::sys::{OwnedGuard, OwnedLock, memory};

/// Values by address.
pub(super) struct Table<V>([Shard<V>; SHARDS]);

const SHARDS: usize = 64;

/// Longer than anybody who is let run holds a lock: a process that waits for so long may have it from a fork.
const PATIENCE: Duration = Duration::from_millis(100);

type Entries<V> = HashMap<usize, V, BuildHasherDefault<Hash>>;

struct Shard<V> {
    entries: OwnedLock<Entries<V>>,
    /// An entry could not be taken out, and what it points to may be gone.
    is_spoiled: AtomicBool,
}

impl<V> Table<V> {
    pub(super) const fn new() -> Self {
        Table([const { Shard::new() }; SHARDS])
    }

    /// Sets the value for an address. Whether there was memory.
    pub(super) fn put(&self, address: usize, value: V) -> bool {
        let Some(mut entries) = self.shard(address).lock() else { return false };
        let is_kept = has_place(&mut entries);
        if is_kept {
            entries.insert(address, value);
        }
        is_kept
    }

    /// Takes an entry out. Afterwards nobody looks at it.
    pub(super) fn take(&self, address: usize) -> Option<V> {
        let shard = self.shard(address);
        let Some(mut entries) = shard.lock() else {
            shard.spoil();
            return None;
        };
        entries.remove(&address)
    }

    /// Calls `look` with the entry of an address, which is not taken out until that is over.
    pub(super) fn look_at<R>(&self, address: usize, look: impl FnOnce(&mut V) -> R) -> Option<R> {
        self.shard(address).look(|entries| entries.get_mut(&address).map(look))
    }

    /// The first answer that `look` has for any entry; none is taken out while it is looked at.
    pub(super) fn find<R>(&self, mut look: impl FnMut(&mut V) -> Option<R>) -> Option<R> {
        self.0
            .iter()
            .find_map(|shard| shard.look(|entries| entries.values_mut().find_map(&mut look)))
    }

    fn shard(&self, address: usize) -> &Shard<V> {
        &self.0[(address.wrapping_mul(Hash::ODD) >> 40) % SHARDS]
    }
}

impl<V> Shard<V> {
    const fn new() -> Self {
        Shard { entries: OwnedLock::new(empty()), is_spoiled: AtomicBool::new(false) }
    }

    /// `None` from the first time on that the lock was waited for in vain.
    fn lock(&self) -> Option<OwnedGuard<'_, Entries<V>>> {
        if self.is_spoiled.load(Ordering::SeqCst) {
            return None;
        }
        let entries = self.entries.lock_within(PATIENCE, empty);
        if entries.is_none() {
            self.is_spoiled.store(true, Ordering::SeqCst);
        }
        // Either this is seen now, or the lock by who spoils the shard.
        entries.filter(|_| !self.is_spoiled.load(Ordering::SeqCst))
    }

    fn look<R>(&self, look: impl FnOnce(&mut Entries<V>) -> Option<R>) -> Option<R> {
        look(&mut *self.lock()?)
    }

    /// The lock cannot be had to take an entry out: from now on no entry is followed. Who looks at one just now holds the
    /// lock, and is waited for.
    fn spoil(&self) {
        self.is_spoiled.store(true, Ordering::SeqCst);
        while self.entries.is_held_here() {
            thread::yield_now();
        }
    }
}

const fn empty<V>() -> Entries<V> {
    HashMap::with_hasher(BuildHasherDefault::new())
}

/// Whether there is a place for one more, made if need be and memory is there.
fn has_place<V>(entries: &mut Entries<V>) -> bool {
    /// What a table that doubles takes for each of its entries, and more.
    const ENTRY: usize = 128;
    entries.len() < entries.capacity()
        || memory::has_room((entries.len() + 4) * ENTRY) && entries.try_reserve(1).is_ok()
}

/// A hash for addresses.
#[derive(Default)]
struct Hash(u64);

impl Hash {
    const ODD: usize = 0x9E37_79B9_7F4A_7C15;
}

impl Hasher for Hash {
    fn write(&mut self, _: &[u8]) {}

    fn write_usize(&mut self, address: usize) {
        self.0 = address.wrapping_mul(Hash::ODD) as u64;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::forked::holds_in_a_child;

    const ADDRESS: usize = 4096;

    fn table_with_an_entry() -> Table<()> {
        let table = Table::new();
        assert!(table.put(ADDRESS, ()));
        table
    }

    /// Long beyond the patience of who takes it out.
    #[test]
    fn nothing_is_taken_out_while_somebody_looks_at_it() {
        let table = table_with_an_entry();
        let shard = table.shard(ADDRESS);
        let is_over = AtomicBool::new(false);
        let take = || {
            assert!(table.take(ADDRESS).is_none());
            assert!(is_over.load(Ordering::SeqCst), "freed under the eyes of another thread");
        };
        thread::scope(|scope| {
            let looked = table.look_at(ADDRESS, |()| {
                let taking = scope.spawn(take);
                while !shard.is_spoiled.load(Ordering::SeqCst) {
                    thread::yield_now();
                }
                for _ in 0..10_000 {
                    thread::yield_now();
                }
                is_over.store(true, Ordering::SeqCst);
                taking
            });
            assert!(looked.expect("an entry").join().is_ok());
        });
        assert_eq!(table.look_at(ADDRESS, |()| ()), None, "it is followed no more");
        assert_eq!(table.find(|()| Some(())), None);
    }

    #[test]
    fn a_lock_that_was_held_at_a_fork_is_the_childs_at_once_and_its_entries_are_gone() {
        let table = table_with_an_entry();
        let held = table.shard(ADDRESS).lock();
        assert!(holds_in_a_child(|| {
            table.look_at(ADDRESS, |()| ()).is_none()
                && table.put(ADDRESS, ())
                && table.take(ADDRESS) == Some(())
        }));
        drop(held);
        assert_eq!(table.take(ADDRESS), Some(()));
    }

    #[test]
    fn an_entry_is_found_until_it_is_taken_out() {
        let table = table_with_an_entry();
        assert_eq!(table.find(|()| Some(())), Some(()));
        assert_eq!(table.take(ADDRESS), Some(()));
        assert_eq!(table.look_at(ADDRESS, |()| ()), None);
    }
}
