//! Whose wish it is that a session is removed: the application's (a logout), or OpenSSL's own.
//!
//! OpenSSL calls the remove-session callback for both. By itself it removes the session of each connection that is
//! freed before it sent a close_notify alert, as browsers and servers under load do all the time; such a session is as
//! good as before. SSL_free(3) frees a connection's ex_data first and removes its session then, on the same thread: so
//! the removal that follows is known by its session id.
//!
//! It also removes the session that a failed handshake was about to resume. Ids of TLS 1.2 are readable on the way, and
//! whoever reads one can send nonsense with it: such a removal is known by the id that this thread looked up last and
//! by the error that OpenSSL has just raised. Every other removal counts as the application's, also that of a fatal
//! alert on an established connection, after which a session must not be resumed (RFC 5246, section 7.2.2).
//!
//! Owns: two session ids for each thread. Called by: the callbacks, and when a connection is freed. Threads: what is
//! known is the thread's own. Forks: inherited by the child's one thread. Failure: a removal that is not known to be
//! OpenSSL's counts as the application's.

use std::cell::Cell;

use openssl_sys::SSL;

use super::session::Session;
use super::sys;
use crate::ring::session_id::SESSION_ID_LEN;

thread_local! {
    /// The session that this thread gave OpenSSL last.
    static GIVEN: Cell<Option<[u8; SESSION_ID_LEN]>> = const { Cell::new(None) };
    /// The session of the connection that this thread frees.
    static FREED: Cell<Option<[u8; SESSION_ID_LEN]>> = const { Cell::new(None) };
}

/// A connection is being freed: what is left of it is its session.
///
/// # Safety
/// `ssl` is a connection whose ex_data is being freed, not of QUIC.
pub(super) unsafe fn connection_is_freed(ssl: *mut SSL) {
    // SAFETY: as the caller promises; OpenSSL frees the session after the ex_data.
    unsafe {
        let is_unclean = openssl_sys::SSL_get_shutdown(ssl) & sys::SSL_SENT_SHUTDOWN == 0;
        // OpenSSL leaves the session of an unfinished handshake alone.
        if is_unclean && sys::SSL_in_init(ssl) == 0 {
            let session = Session::borrow(openssl_sys::SSL_get_session(ssl));
            FREED.set(session.and_then(|session| session.id().try_into().ok()));
        }
    }
}

/// A handshake is to resume the session of that id.
pub(super) fn session_is_given(id: &[u8]) {
    GIVEN.set(id.try_into().ok());
}

/// Whether OpenSSL removes this session by itself. To be called before anything changes the error queue.
pub(super) fn is_of_openssl(session: Session) -> bool {
    let is = |id: &[u8; SESSION_ID_LEN]| id == session.id();
    if FREED.get().as_ref().is_some_and(is) {
        FREED.set(None);
        return true;
    }
    // SAFETY: reads this thread's queue.
    let library = openssl_sys::ERR_GET_LIB(unsafe { openssl_sys::ERR_peek_last_error() });
    library == sys::ERR_LIB_SSL && GIVEN.get().as_ref().is_some_and(is)
}
