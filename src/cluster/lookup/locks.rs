//! Locks, waits and work of this module's threads, where a panic ends neither the process nor the use of a lock.
//!
//! Owns: nothing. Called by: whatever of look-ups has a lock or a thread. Threads: any. Forks: who was forked leaves the
//! locks of its parent alone. Failure: a panic is caught and told.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What a panic left behind is still in order: nothing here is half done when something can panic.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The lock again, after a wait that may end early without a reason.
pub(super) fn waited<'a, T>(
    condition: &Condvar,
    guard: MutexGuard<'a, T>,
    longest: Duration,
) -> MutexGuard<'a, T> {
    condition.wait_timeout(guard, longest).unwrap_or_else(PoisonError::into_inner).0
}

/// Whether a thread's work ended without a panic.
pub(super) fn contained(work: impl FnOnce()) -> bool {
    let is_sound = catch_unwind(AssertUnwindSafe(work)).is_ok();
    if !is_sound {
        log::error!("a panic was caught in a look-up (please report it); handshakes go on without");
    }
    is_sound
}
