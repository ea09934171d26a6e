//! A value that is replaced while others read it.
//!
//! Owns: [`Shared`]. Called by: `cluster`, `engine`, `store`, `log`, for what a process knows. Threads: readers wait for
//! nobody and keep what they have read. Nothing is remembered of a thread: glibc ends a process that cannot remember a
//! destructor of a thread's for want of memory. Forks: readers of the parent's do not count in a child. Failure: a value is
//! kept for ever where others read without a pause while it is replaced, or where a process was forked off behind the back
//! of pthread_atfork(3), in the midst of reading.

use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};
use std::thread;

use super::fork_generation;

/// A value, or none.
pub(crate) struct Shared<T> {
    /// Of an `Arc`, or NULL.
    current: AtomicPtr<T>,
    /// How many are between looking at the address and having a reference of their own, which are a few instructions. The
    /// upper half is the generation of the process that they are of.
    readers: AtomicU64,
}

const NUMBER: u64 = u32::MAX as u64;
const PROCESS: u64 = !NUMBER;

/// How often who replaces a value lets readers go on.
const TURNS: usize = 1000;

// SAFETY: it owns a reference to a value that threads share.
unsafe impl<T: Send + Sync> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Sync for Shared<T> {}

impl<T> Shared<T> {
    pub(crate) const fn empty() -> Self {
        Self::at(ptr::null_mut())
    }

    const fn at(current: *mut T) -> Self {
        Shared { current: AtomicPtr::new(current), readers: AtomicU64::new(0) }
    }

    pub(crate) fn new(value: T) -> Self {
        Self::of(Arc::new(value))
    }

    pub(crate) fn of(value: Arc<T>) -> Self {
        Self::at(Arc::into_raw(value).cast_mut())
    }

    pub(crate) fn load(&self) -> Option<Arc<T>> {
        self.enter();
        let current = self.current.load(Ordering::SeqCst);
        // SAFETY: the address is that of an Arc whose reference `give_up` gives up only after it saw no reader, later than
        // it was replaced. This one was counted before it looked.
        let value = (!current.is_null()).then(|| unsafe {
            Arc::increment_strong_count(current);
            Arc::from_raw(current)
        });
        self.readers.fetch_sub(1, Ordering::SeqCst);
        value
    }

    pub(crate) fn store(&self, value: Option<Arc<T>>) {
        let new = value.map_or(ptr::null_mut(), |value| Arc::into_raw(value).cast_mut());
        self.give_up(self.current.swap(new, Ordering::SeqCst));
    }

    /// Puts a value in the place of the one that was seen there; false, and nothing, when there is another one by now.
    pub(crate) fn replace(&self, seen: &Arc<T>, value: Arc<T>) -> bool {
        let (seen, new) = (Arc::as_ptr(seen).cast_mut(), Arc::into_raw(value).cast_mut());
        let swapped = self.current.compare_exchange(seen, new, Ordering::SeqCst, Ordering::SeqCst);
        match swapped {
            Ok(old) => self.give_up(old),
            // SAFETY: made above of an Arc, and nobody else's.
            Err(_) => drop(unsafe { Arc::from_raw(new) }),
        }
        swapped.is_ok()
    }

    fn enter(&self) {
        let process = this_process();
        if self.readers.fetch_add(1, Ordering::SeqCst) & PROCESS != process {
            self.enter_as_of(process);
        }
    }

    /// For a reader that was counted among its parent's. The first one begins a count without them, and without those that
    /// come here as well: they count themselves again.
    #[cold]
    fn enter_as_of(&self, process: u64) {
        let counted = |word: u64| if word & PROCESS == process { word + 1 } else { process | 1 };
        // The closure has an answer for every word.
        let _ = self
            .readers
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |word| Some(counted(word)));
    }

    /// Gives up the reference to a value that was just replaced.
    fn give_up(&self, old: *mut T) {
        if !old.is_null() && self.is_without_readers() {
            // SAFETY: the reference that was `current`'s; who reads from now on finds another one.
            drop(unsafe { Arc::from_raw(old) });
        }
    }

    fn is_without_readers(&self) -> bool {
        let process = this_process();
        (0..TURNS).any(|turn| {
            if turn > 0 {
                thread::yield_now();
            }
            let word = self.readers.load(Ordering::SeqCst);
            word & NUMBER == 0 || word & PROCESS != process
        })
    }
}

fn this_process() -> u64 {
    u64::from(fork_generation()) << 32
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        let current = *self.current.get_mut();
        if !current.is_null() {
            // SAFETY: the reference that is `current`'s; nobody else has `self`.
            drop(unsafe { Arc::from_raw(current) });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize};

    use super::super::forked::holds_in_a_child;
    use super::*;

    #[test]
    fn readers_keep_what_they_read_and_what_nobody_reads_is_freed() {
        let shared = Shared::new(1);
        let one = shared.load().expect("a value");
        shared.store(Some(Arc::new(2)));
        assert_eq!((*one, shared.load().as_deref()), (1, Some(&2)));
        assert_eq!(Arc::strong_count(&one), 1);
        let two = shared.load().expect("a value");
        assert!(!shared.replace(&one, Arc::new(3)), "one is not there any more");
        assert_eq!(shared.load().as_deref(), Some(&2));
        assert!(shared.replace(&two, Arc::new(4)));
        assert_eq!((Arc::strong_count(&two), shared.load().as_deref()), (1, Some(&4)));
        shared.store(None);
        assert_eq!((Arc::strong_count(&two), shared.load()), (1, None));
    }

    /// Says when it is freed, and is not whole any more.
    struct Counted<'a>([usize; 8], &'a AtomicUsize);

    impl Drop for Counted<'_> {
        fn drop(&mut self) {
            self.0 = [0, 1, 2, 3, 4, 5, 6, 7];
            self.1.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_value_is_whole_as_long_as_it_is_read_and_freed_once() {
        const TIMES: usize = 20_000;
        let freed = AtomicUsize::new(0);
        let value = |number| Arc::new(Counted([number; 8], &freed));
        let shared = Shared::of(value(0));
        let is_whole = |value: &Counted<'_>| value.0.iter().all(|part| *part == value.0[0]);
        let replaced = AtomicUsize::new(0);
        thread::scope(|scope| {
            scope.spawn(|| (1..=TIMES).for_each(|time| shared.store(Some(value(time)))));
            scope.spawn(|| {
                for time in 1..=TIMES {
                    let seen = shared.load().expect("a value");
                    if shared.replace(&seen, value(time)) {
                        replaced.fetch_add(1, Ordering::Relaxed);
                    }
                    assert!(is_whole(&seen));
                }
            });
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..TIMES {
                        let first = shared.load().expect("a value");
                        let second = shared.load().expect("a value");
                        assert!(is_whole(&first) && is_whole(&second));
                    }
                });
            }
        });
        drop(shared);
        let kept = 2 * TIMES + 1 - freed.load(Ordering::SeqCst);
        assert!(replaced.load(Ordering::Relaxed) > 0);
        assert!(
            kept * 100 < TIMES,
            "{kept} values were kept although nobody reads without a pause"
        );
    }

    #[test]
    fn a_reader_that_never_ends_costs_the_old_value_and_no_more() {
        let shared = Shared::new(1);
        let one = shared.load().expect("a value");
        shared.enter();
        shared.store(Some(Arc::new(2)));
        assert_eq!((Arc::strong_count(&one), shared.load().as_deref()), (2, Some(&2)));
        // SAFETY: the reference that was left, as of a reader that has ended by now.
        unsafe { Arc::decrement_strong_count(Arc::as_ptr(&one)) };
    }

    #[test]
    fn children_of_a_process_that_reads_free_what_they_replace() {
        let shared = Shared::new(0);
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !is_over.load(Ordering::Relaxed) {
                        let _ = shared.load();
                    }
                });
            }
            let holds = (1..=100).all(|child| {
                holds_in_a_child(|| {
                    let old = shared.load().expect("a value");
                    // A reader of the parent's may have one, too.
                    let before = Arc::strong_count(&old);
                    shared.store(Some(Arc::new(child)));
                    Arc::strong_count(&old) == before - 1
                        && shared.load().as_deref() == Some(&child)
                })
            });
            is_over.store(true, Ordering::Relaxed);
            assert!(holds);
        });
    }

    #[test]
    fn readers_that_a_fork_has_left_behind_cost_nothing() {
        let shared = Shared::new(1);
        let one = shared.load().expect("a value");
        // Three were reading in another process.
        shared.readers.store((this_process() ^ PROCESS) | 3, Ordering::SeqCst);
        shared.store(Some(Arc::new(2)));
        assert_eq!(Arc::strong_count(&one), 1);
        let two = shared.load().expect("a value");
        assert_eq!(shared.readers.load(Ordering::SeqCst), this_process());
        shared.store(None);
        assert_eq!(Arc::strong_count(&two), 1);
    }
}
