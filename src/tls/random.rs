//! Random bytes for what must not be guessed or be the same twice.
//!
//! Owns: nothing. Called by: whoever needs them in a callback or an attachment. Threads and forks: any. Failure: `false`,
//! and the buffer is of no use; OpenSSL makes no handshake then either.

use std::ffi::c_int;

/// Random bytes from the kernel, or from OpenSSL where a filter refuses that (seccomp(2)).
pub(super) fn random(buffer: &mut [u8]) -> bool {
    let Ok(len) = c_int::try_from(buffer.len()) else { return false };
    // SAFETY: the buffer is writable for its length.
    crate::sys::random(buffer) || unsafe { openssl_sys::RAND_bytes(buffer.as_mut_ptr(), len) == 1 }
}
