//! Which process this is, however it came to be.
//!
//! Owns: a page that the kernel empties in each child (madvise(2), MADV_WIPEONFORK), also in one that clone(2) made behind
//! the back of pthread_atfork(3), or that has its parent's number in another namespace of process ids. Called by: who marks
//! what a thread of this process holds. Threads: any. Forks: a child has another mark. Failure: without such a page it is
//! the process id.

use std::process;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use super::random;

/// A number that no parent or child of this process has; never zero.
pub(crate) fn process_mark() -> u64 {
    static PAGE: AtomicPtr<AtomicU64> = AtomicPtr::new(std::ptr::null_mut());
    let page = PAGE.load(Ordering::Acquire);
    // SAFETY: NULL, or a page of this file's that is never given back.
    let word = match unsafe { page.as_ref() } {
        Some(word) => word,
        None => match new_page().map(|page| keep_one(&PAGE, page)) {
            Some(word) => word,
            None => return u64::from(process::id()),
        },
    };
    match word.load(Ordering::Relaxed) {
        0 => mark(word),
        known => known,
    }
}

/// Of two threads that come together one gives its page back.
fn keep_one(kept: &'static AtomicPtr<AtomicU64>, page: NonNull<AtomicU64>) -> &'static AtomicU64 {
    let (order, none) = (Ordering::AcqRel, std::ptr::null_mut());
    match kept.compare_exchange(none, page.as_ptr(), order, Ordering::Acquire) {
        // SAFETY: a page of `new_page`, which nobody gives back any more.
        Ok(_) => unsafe { page.as_ref() },
        // SAFETY: the other thread's page, likewise; and one that nobody else knows.
        Err(other) => unsafe {
            libc::munmap(page.as_ptr().cast(), LEN);
            &*other
        },
    }
}

const LEN: usize = 4096;

#[cold]
fn new_page() -> Option<NonNull<AtomicU64>> {
    // SAFETY: a new mapping of that length, private to this process, zeros, which nobody ends once it is given out.
    unsafe {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let page = libc::mmap(std::ptr::null_mut(), LEN, access, kind, -1, 0);
        if page == libc::MAP_FAILED {
            return None;
        }
        if libc::madvise(page, LEN, libc::MADV_WIPEONFORK) != 0 {
            libc::munmap(page, LEN);
            return None;
        }
        NonNull::new(page.cast::<AtomicU64>())
    }
}

#[cold]
fn mark(word: &AtomicU64) -> u64 {
    let mut bytes = [0; 8];
    let new = if random(&mut bytes) { u64::from_ne_bytes(bytes) } else { u64::from(process::id()) };
    match word.compare_exchange(0, new.max(1), Ordering::Relaxed, Ordering::Relaxed) {
        Ok(_) => new.max(1),
        Err(known) => known,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::forked::holds_in_a_child;

    #[test]
    fn a_process_keeps_its_mark_and_its_child_has_another() {
        let own = process_mark();
        assert!(own != 0 && process_mark() == own);
        assert!(holds_in_a_child(|| {
            let of_child = process_mark();
            of_child != 0 && of_child != own && process_mark() == of_child
        }));
        assert_eq!(process_mark(), own);
    }
}
