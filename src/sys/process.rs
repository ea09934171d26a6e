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
    // SAFETY: NULL, or a word that is never given back.
    let known = unsafe { PAGE.load(Ordering::Acquire).as_ref() };
    let word = known.unwrap_or_else(first_word);
    if std::ptr::eq(word, &raw const NO_PAGE) {
        return u64::from(process::id());
    }
    match word.load(Ordering::Relaxed) {
        0 => mark(word),
        known => known,
    }
}

/// The word at the beginning of the page, or [`NO_PAGE`] for good; NULL before it is looked for.
static PAGE: AtomicPtr<AtomicU64> = AtomicPtr::new(std::ptr::null_mut());

/// Stands for the page where there is none.
static NO_PAGE: AtomicU64 = AtomicU64::new(0);

/// Of two threads that come together one gives its page back.
#[cold]
fn first_word() -> &'static AtomicU64 {
    let page = new_page();
    let new = page.map_or((&raw const NO_PAGE).cast_mut(), NonNull::as_ptr);
    let (order, none) = (Ordering::AcqRel, std::ptr::null_mut());
    let kept = PAGE.compare_exchange(none, new, order, Ordering::Acquire);
    // SAFETY: what is kept is NO_PAGE or a page of `new_page`, and never given back; the other one nobody else knows.
    unsafe {
        if let (Err(_), Some(page)) = (kept, page) {
            libc::munmap(page.as_ptr().cast(), LEN);
        }
        &*kept.map_or_else(|other| other, |_| new)
    }
}

const LEN: usize = 4096;

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
