//! From C's arguments to ours, and back: every entry point converts, calls, and translates through here.

use std::ffi::{CStr, c_char, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::errors;
use crate::error::{Error, Result};

/// Runs the body of an entry point that returns 1 or 0. A failure, or a panic, is 0 with the reason on OpenSSL's error
/// queue.
pub(super) fn status(body: impl FnOnce() -> Result<()>) -> c_int {
    value(body).map_or(0, |()| 1)
}

/// Runs the body of an entry point that returns something else; `None` when it failed.
pub(super) fn value<T>(body: impl FnOnce() -> Result<T>) -> Option<T> {
    errors::set_up();
    // What a panic leaves half done is the engine's, which is valid in every state.
    let outcome = catch_unwind(AssertUnwindSafe(body)).unwrap_or(Err(PANIC));
    outcome.map_err(|error| errors::raise(&error)).ok()
}

const PANIC: Error = Error::Argument("internal error: a panic was caught; please report it");

/// A reference that a caller must not leave out.
///
/// # Safety
/// `pointer` is NULL or valid for the time of the call.
pub(super) unsafe fn required<'a, T>(pointer: *const T, what: &'static str) -> Result<&'a T> {
    // SAFETY: as the caller promises.
    unsafe { pointer.as_ref() }.ok_or(Error::Argument(what))
}

/// `len` bytes from C; NULL with length 0 is an empty slice.
///
/// # Safety
/// `data` is NULL or points to `len` bytes that nobody changes during the call.
pub(super) unsafe fn bytes<'a>(
    data: *const u8,
    len: usize,
    what: &'static str,
) -> Result<&'a [u8]> {
    if data.is_null() {
        return if len == 0 { Ok(&[]) } else { Err(Error::Argument(what)) };
    }
    if isize::try_from(len).is_err() {
        return Err(Error::Argument("a length is negative or beyond all memory"));
    }
    #[allow(clippy::disallowed_methods, reason = "this is the function that others are to use")]
    // SAFETY: not null, and as long as the caller promises.
    Ok(unsafe { std::slice::from_raw_parts(data, len) })
}

/// A C string; NULL is `None`.
///
/// # Safety
/// `text` is NULL or a C string that nobody changes during the call.
pub(super) unsafe fn string<'a>(
    text: *const c_char,
    what: &'static str,
) -> Result<Option<&'a str>> {
    if text.is_null() {
        return Ok(None);
    }
    #[allow(clippy::disallowed_methods, reason = "this is the function that others are to use")]
    // SAFETY: not null, and terminated as the caller promises.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str().map(Some).map_err(|_| Error::Argument(what))
}
