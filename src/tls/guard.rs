//! What surrounds every answer to OpenSSL: nothing of ours is left behind, whatever happened inside.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::sys::{ERR_pop_to_mark, ERR_set_mark};
use crate::log::Once;
use crate::sys::ErrnoGuard;

/// Runs `answer`. OpenSSL's error queue and errno are afterwards as they were; a panic becomes `None`.
pub(super) fn guarded<T>(answer: impl FnOnce() -> T) -> Option<T> {
    let _errno = ErrnoGuard::new();
    let _errors = ErrorMark::new();
    contained(answer)
}

/// Runs `answer`, which touches neither errno nor the error queue; a panic becomes `None`.
pub(super) fn contained<T>(answer: impl FnOnce() -> T) -> Option<T> {
    static PANICKED: Once = Once::new();
    // What a panic leaves half done are caches and counters, each valid in every state.
    let answer = catch_unwind(AssertUnwindSafe(answer)).ok();
    if answer.is_none() && PANICKED.first() {
        log::error!(
            "a panic was caught in a callback (said once; please report it); the handshake goes on without us"
        );
    }
    answer
}

/// A mark on this thread's OpenSSL error queue, to which the queue goes back. An error that stayed would turn the next
/// SSL_get_error into SSL_ERROR_SSL.
struct ErrorMark;

impl ErrorMark {
    fn new() -> Self {
        // SAFETY: works on this thread's queue. Fails on an empty queue, which then counts as the mark.
        unsafe { ERR_set_mark() };
        ErrorMark
    }
}

impl Drop for ErrorMark {
    fn drop(&mut self) {
        // SAFETY: works on this thread's queue.
        unsafe { ERR_pop_to_mark() };
    }
}
