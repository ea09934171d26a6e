//! Tables of OpenSSL's objects, by their addresses.
//!
//! Owns: [`Table`]. Called by: [`super::removal`]. Threads: a table has locks that are held for a few instructions. An
//! entry that is taken out by [`Table::take`] is not looked at any more when that returns, however long a thread that
//! looks at it is not let run: so what it points to may be freed then. Forks: where a child finds a lock that was held at
//! the fork, it begins that part of the table anew. Failure: without memory there is no entry.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};

use crate::sys::{lock_within, memory, process_mark};

/// Values by address.
pub(super) struct Table<V>([Shard<V>; SHARDS]);

const SHARDS: usize = 64;

/// Longer than anybody who is let run holds a lock: a process that waits for so long may have it from a fork.
const PATIENCE: Duration = Duration::from_millis(100);

type Entries<V> = HashMap<usize, V, BuildHasherDefault<Hash>>;

struct Shard<V> {
    entries: Mutex<Entries<V>>,
    /// An entry could not be taken out, and what it points to may be gone.
    is_spoiled: AtomicBool,
    /// The process ([`process_mark`]) of the thread that has the lock; 0: none has.
    holder: AtomicU64,
}

/// The entries of a shard, locked.
struct Held<'a, V> {
    holder: &'a AtomicU64,
    entries: MutexGuard<'a, Entries<V>>,
}

impl<V> Table<V> {
    pub(super) const fn new() -> Self {
        Table([const { Shard::new() }; SHARDS])
    }

    /// Sets the value for an address. Whether there was memory.
    pub(super) fn put(&self, address: usize, value: V) -> bool {
        let Some(mut held) = self.shard(address).lock() else { return false };
        let is_kept = has_place(&mut held.entries);
        if is_kept {
            held.entries.insert(address, value);
        }
        is_kept
    }

    /// Takes an entry out. Afterwards nobody looks at it.
    pub(super) fn take(&self, address: usize) -> Option<V> {
        let shard = self.shard(address);
        let Some(mut held) = shard.lock() else {
            shard.spoil();
            return None;
        };
        held.entries.remove(&address)
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
        Shard {
            entries: Mutex::new(HashMap::with_hasher(BuildHasherDefault::new())),
            is_spoiled: AtomicBool::new(false),
            holder: AtomicU64::new(0),
        }
    }

    /// `None` from the first time on that the lock was waited for in vain.
    fn lock(&self) -> Option<Held<'_, V>> {
        if self.is_spoiled.load(Ordering::SeqCst) {
            return None;
        }
        let entries = self
            .entries
            .try_lock()
            .or_else(|| self.inherit())
            .or_else(|| lock_within(&self.entries, PATIENCE));
        let Some(entries) = entries else {
            self.is_spoiled.store(true, Ordering::SeqCst);
            return None;
        };
        self.holder.store(process_mark(), Ordering::SeqCst);
        let held = Held { holder: &self.holder, entries };
        // Either this is seen now, or the above by who spoils the shard.
        (!self.is_spoiled.load(Ordering::SeqCst)).then_some(held)
    }

    /// The lock, where a thread of the process that this one was forked off had it then: that thread is not here, and what
    /// it was changing is left alone.
    #[cold]
    fn inherit(&self) -> Option<MutexGuard<'_, Entries<V>>> {
        let (own, holder) = (process_mark(), self.holder.load(Ordering::SeqCst));
        let is_left = holder != 0 && holder != own;
        if !is_left
            || self
                .holder
                .compare_exchange(holder, own, Ordering::SeqCst, Ordering::SeqCst)
                .is_err()
        {
            return None;
        }
        // SAFETY: the lock is held, and by no thread of this process: whoever took it here would have marked it so. One
        // thread replaces the mark, and this is it.
        let mut entries = unsafe { self.entries.make_guard_unchecked() };
        std::mem::forget(std::mem::take(&mut *entries));
        Some(entries)
    }

    fn look<R>(&self, look: impl FnOnce(&mut Entries<V>) -> Option<R>) -> Option<R> {
        look(&mut self.lock()?.entries)
    }

    /// The lock cannot be had to take an entry out: from now on no entry is followed. Who looks at one just now holds the
    /// lock, and is waited for, but not a thread of the process that this one was forked off.
    fn spoil(&self) {
        self.is_spoiled.store(true, Ordering::SeqCst);
        while self.holder.load(Ordering::SeqCst) == process_mark() {
            thread::yield_now();
        }
    }
}

impl<V> Drop for Held<'_, V> {
    /// The lock itself is given back after this.
    fn drop(&mut self) {
        self.holder.store(0, Ordering::SeqCst);
    }
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
    fn who_looked_at_an_entry_when_the_process_was_forked_is_not_waited_for() {
        let table = table_with_an_entry();
        let shard = table.shard(ADDRESS);
        shard.holder.store(process_mark() + 1, Ordering::SeqCst);
        shard.spoil();
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
