//! Waiting for a lock.
//!
//! Owns: nothing. Called by: `tls`, where threads of the application wait. Threads: any. Forks: a lock that a fork left
//! locked costs the wait. Failure: `None`.

use std::thread;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};

use super::time::pause;

/// How often a waiting thread lets others go on, before it pauses: nobody holds a lock for long.
const TURNS: usize = 10;
const FIRST_PAUSE: Duration = Duration::from_micros(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(1);

/// Takes a lock, after a wait of so long at most. The lock's own way to wait needs memory, without which glibc ends the
/// process, and a table that a fork may leave locked.
pub(crate) fn lock_within<T>(mutex: &Mutex<T>, patience: Duration) -> Option<MutexGuard<'_, T>> {
    mutex.try_lock().or_else(|| retry_within(patience, || mutex.try_lock()))
}

/// Tries again until it works, for so long at most.
#[cold]
pub(super) fn retry_within<T>(
    patience: Duration,
    mut attempt: impl FnMut() -> Option<T>,
) -> Option<T> {
    for _ in 0..TURNS {
        thread::yield_now();
        if let Some(done) = attempt() {
            return Some(done);
        }
    }
    let (mut waited, mut step) = (Duration::ZERO, FIRST_PAUSE);
    while waited < patience {
        pause(step);
        if let Some(done) = attempt() {
            return Some(done);
        }
        waited += step;
        step = LONGEST_PAUSE.min(step * 2);
    }
    None
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_lock_is_waited_for_and_no_longer_than_that() {
        let mutex = Mutex::new(0);
        let held = mutex.lock();
        assert!(lock_within(&mutex, Duration::from_millis(3)).is_none());
        let (says, hears) = mpsc::channel();
        thread::scope(|scope| {
            scope.spawn(|| {
                assert!(says.send(()).is_ok());
                *lock_within(&mutex, Duration::from_secs(60)).expect("is free soon") = 1;
            });
            assert!(hears.recv().is_ok());
            drop(held);
        });
        assert_eq!(*mutex.lock(), 1);
    }
}
