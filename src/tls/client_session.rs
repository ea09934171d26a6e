//! Which sessions are those of connections to servers: they bear a mark.
//!
//! Owns: an index of sessions' ex_data. Called by: what serves such connections, and what looks at a session's data.
//! Threads and forks: as for every callback. Failure: a session that could not be marked counts as none of a client's.

use std::ffi::c_int;

use openssl_sys::SSL_SESSION;

use super::ex_data::{Place, a_mark};
use super::sys;

/// On the sessions of connections as a client.
static KNOWN: Place = Place::new(sys::CRYPTO_EX_INDEX_SSL_SESSION);

/// Whether this index of a session's ex_data is ours.
pub(super) fn is_mark(index: c_int) -> bool {
    KNOWN.used() == Some(index)
}

/// Whether a session is known to be one of a connection as a client. One that OpenSSL told nobody about is not.
///
/// # Safety
/// `session` is a valid session.
pub(super) unsafe fn knows(session: *mut SSL_SESSION) -> bool {
    // SAFETY: as the caller promises; nobody follows the pointer.
    KNOWN.used().is_some_and(|it| unsafe { sys::SSL_SESSION_get_ex_data(session, it) } == a_mark())
}

/// # Safety
/// `session` is a valid session.
pub(super) unsafe fn mark(session: *mut SSL_SESSION) {
    if let Some(index) = KNOWN.index() {
        // SAFETY: as the caller promises. Nobody follows the pointer. A failure costs the application the callback of
        // a removal, of which OpenSSL promises nothing.
        unsafe { sys::SSL_SESSION_set_ex_data(session, index, a_mark()) };
    }
}
