//! A lock that knows which process has it, so that a child does not wait for a thread that is not there.
//!
//! Owns: [`OwnedLock`]. Called by: `tls`, for tables that every process has of its own. Threads: any; it is held for a few
//! instructions. Forks: a child that finds it held by its parent takes it, and begins with an empty value: what the
//! parent's thread was changing is left alone. Failure: `None` when it is held for too long.

use std::cell::UnsafeCell;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::lock::retry_within;
use super::process_mark;

/// A value behind a lock.
pub(crate) struct OwnedLock<T> {
    /// The mark of the process whose thread has the lock; [`FREE`]: none has.
    holder: AtomicU64,
    value: UnsafeCell<T>,
}

const FREE: u64 = 0;

/// The right to use the value.
pub(crate) struct OwnedGuard<'a, T>(&'a OwnedLock<T>);

// SAFETY: one thread at a time has the value.
unsafe impl<T: Send> Sync for OwnedLock<T> {}

impl<T> OwnedLock<T> {
    pub(crate) const fn new(value: T) -> Self {
        OwnedLock { holder: AtomicU64::new(FREE), value: UnsafeCell::new(value) }
    }

    /// Takes the lock, after a wait of so long at most; `empty` is the value that a child begins with.
    pub(crate) fn lock_within(
        &self,
        patience: Duration,
        empty: impl Fn() -> T,
    ) -> Option<OwnedGuard<'_, T>> {
        self.attempt(&empty).or_else(|| retry_within(patience, || self.attempt(&empty)))
    }

    fn attempt(&self, empty: &impl Fn() -> T) -> Option<OwnedGuard<'_, T>> {
        let own = process_mark();
        let take =
            |from| self.holder.compare_exchange(from, own, Ordering::SeqCst, Ordering::SeqCst);
        match take(FREE) {
            Ok(_) => Some(OwnedGuard(self)),
            Err(holder) if holder != own && take(holder).is_ok() => {
                let guard = OwnedGuard(self);
                // SAFETY: the lock is this thread's: the one that had it is not in this process, and of those that are one
                // replaced its mark. What it may have left half changed is overwritten, not dropped.
                unsafe { self.value.get().write(empty()) };
                Some(guard)
            }
            Err(_) => None,
        }
    }

    /// Whether a thread of this process has the lock.
    pub(crate) fn is_held_here(&self) -> bool {
        self.holder.load(Ordering::SeqCst) == process_mark()
    }
}

impl<T> Deref for OwnedGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: this thread has the lock.
        unsafe { &*self.0.value.get() }
    }
}

impl<T> DerefMut for OwnedGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: this thread has the lock.
        unsafe { &mut *self.0.value.get() }
    }
}

impl<T> Drop for OwnedGuard<'_, T> {
    fn drop(&mut self) {
        self.0.holder.store(FREE, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::forked::holds_in_a_child;

    const SHORT: Duration = Duration::from_millis(3);
    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn threads_have_the_value_one_after_the_other() {
        let lock = OwnedLock::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        *lock.lock_within(LONG, || 0).expect("is free soon") += 1;
                    }
                });
            }
        });
        assert_eq!(*lock.lock_within(SHORT, || 0).expect("free"), 4000);
    }

    #[test]
    fn what_is_held_here_is_waited_for_and_no_longer_than_that() {
        let lock = OwnedLock::new(0);
        let held = lock.lock_within(SHORT, || 0).expect("free");
        assert!(lock.is_held_here() && lock.lock_within(SHORT, || 0).is_none());
        drop(held);
        assert!(!lock.is_held_here() && lock.lock_within(SHORT, || 0).is_some());
    }

    #[test]
    fn what_was_held_at_a_fork_is_the_childs_at_once_and_empty() {
        let lock = OwnedLock::new(7);
        let held = lock.lock_within(SHORT, || 0).expect("free");
        assert!(holds_in_a_child(|| {
            let value = lock.lock_within(Duration::ZERO, || 0).map(|value| *value);
            !lock.is_held_here() && value == Some(0)
        }));
        assert_eq!(*held, 7);
    }
}
