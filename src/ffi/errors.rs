//! Our errors on OpenSSL's error queue: library "tlsresume", one reason number for each kind, the text as data.

use std::cell::UnsafeCell;
use std::ffi::{CStr, CString, c_char, c_int, c_ulong};
use std::ptr;

use once_cell::sync::OnceCell;
use openssl_sys::ERR_STRING_DATA;

use crate::error::Error;

/// Reason numbers. Never renumbered, never reused. Last: 108.
fn reason(error: &Error) -> c_int {
    match error {
        Error::Argument(_) => 100,
        Error::Config(_) => 101,
        Error::KeyFile { .. } => 102,
        Error::Io { .. } => 103,
        Error::Ring(_) => 104,
        Error::OpensslVersion { .. } => 105,
        Error::Attachment(_) => 106,
        Error::BufferTooSmall(_) => 107,
        Error::OnThisNodeOnly(_) => 108,
    }
}

/// What ERR_reason_error_string(3) says for each of them.
const REASONS: [(c_ulong, &CStr); 9] = [
    (100, c"bad argument"),
    (101, c"bad configuration"),
    (102, c"bad key file"),
    (103, c"system error"),
    (104, c"key ring not changed"),
    (105, c"wrong OpenSSL version"),
    (106, c"context not attached or detached"),
    (107, c"buffer too small"),
    (108, c"done on this node only"),
];

/// Registers our texts, and sends panics through our log; once in a process.
pub(super) fn set_up() {
    library();
}

/// Puts an error on this thread's queue.
pub(super) fn raise(error: &Error) {
    let text = CString::new(error.to_string().replace('\0', " ")).unwrap_or_default();
    raise_text(library(), reason(error), &text);
}

#[cfg(ossl300)]
fn raise_text(library: c_int, reason: c_int, text: &CString) {
    // SAFETY: works on this thread's queue; the strings are C strings, copied before the call returns, and the format
    // takes exactly one of them.
    unsafe {
        openssl_sys::ERR_new();
        openssl_sys::ERR_set_debug(c"tlsresume".as_ptr(), 0, c"tlsresume".as_ptr());
        openssl_sys::ERR_set_error(library, reason, c"%s".as_ptr(), text.as_ptr());
    }
}

#[cfg(not(ossl300))]
fn raise_text(library: c_int, reason: c_int, text: &CString) {
    unsafe extern "C" {
        fn ERR_add_error_data(count: c_int, ...);
    }
    // SAFETY: works on this thread's queue; the strings are C strings, copied before the call returns.
    unsafe {
        openssl_sys::ERR_put_error(library, 0, reason, c"tlsresume".as_ptr(), 0);
        ERR_add_error_data(1, text.as_ptr());
    }
}

/// Our number as a library of OpenSSL's error queue.
fn library() -> c_int {
    static LIBRARY: OnceCell<c_int> = OnceCell::new();
    *LIBRARY.get_or_init(|| {
        std::panic::set_hook(Box::new(|info| log::error!("{info}")));
        // SAFETY: nobody else has the table yet; it lives for ever and ends with an entry of zeros.
        unsafe {
            let library = openssl_sys::ERR_get_next_error_library();
            // OpenSSL adds the library's number to the reasons; to a zero it does not.
            (*TABLE.0.get())[0].error = openssl_sys::ERR_PACK(library, 0, 0);
            openssl_sys::ERR_load_strings(library, TABLE.0.get().cast());
            library
        }
    })
}

/// The name of the library, the reasons, and the end. OpenSSL keeps it and writes our number into it. Not on the heap:
/// leak checkers run when OpenSSL has forgotten it.
struct Table(UnsafeCell<[ERR_STRING_DATA; REASONS.len() + 2]>);

// SAFETY: nobody but OpenSSL looks at it, under a lock of its own.
unsafe impl Sync for Table {}

static TABLE: Table = {
    let mut table = [const { entry(0, ptr::null()) }; REASONS.len() + 2];
    table[0] = entry(0, c"tlsresume".as_ptr());
    let mut at = 0;
    while at < REASONS.len() {
        let (reason, text) = REASONS[at];
        at += 1;
        table[at] = entry(reason, text.as_ptr());
    }
    Table(UnsafeCell::new(table))
};

const fn entry(error: c_ulong, string: *const c_char) -> ERR_STRING_DATA {
    ERR_STRING_DATA { error, string }
}
