//! Whose wish it is that a session is removed: the application's (a logout), or OpenSSL's own.
//!
//! OpenSSL calls the remove-session callback for both. By itself it removes the session of each connection that is
//! freed before it sent a close_notify alert, as browsers and servers under load do all the time; such a session is as
//! good as before. SSL_free(3) frees a connection's ex_data first and removes its session then, on the same thread: so
//! the removal that follows is known by its session id.
//!
//! It also removes the session that a failed handshake was about to resume, and that of a connection whose client went
//! away without a close_notify alert. Who saw a ClientHello can send it with nonsense behind it: such a removal is known
//! by the id, which is among those that handshakes are resuming, and by the error that OpenSSL has just raised. Every
//! other removal counts as the application's, also that of a fatal alert on an established connection, after which a
//! session must not be resumed (RFC 5246, section 7.2.2).
//!
//! Owns: what is remembered of sessions that are given or freed. Called by: the callbacks. Threads and forks: any; the
//! table of given sessions has no lock. Failure: a session that pushed another out of the table lets that one's removal
//! count as the application's.

use std::cell::Cell;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};

use once_cell::race::OnceBox;
use openssl_sys::SSL;

use super::session::Session;
use super::sys;
use crate::ring::session_id::SESSION_ID_LEN;

/// How many sessions are remembered that handshakes resume.
const MOST_GIVEN: usize = 4096;

/// Hashes of their ids, each at its place.
static GIVEN: [AtomicU64; MOST_GIVEN] = [const { AtomicU64::new(0) }; MOST_GIVEN];

thread_local! {
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
    let (place, hash) = given(id);
    place.store(hash, Ordering::Relaxed);
}

/// Whether OpenSSL removes this session by itself. To be called before anything changes the error queue.
pub(super) fn is_of_openssl(session: Session) -> bool {
    let is = |id: &[u8; SESSION_ID_LEN]| id == session.id();
    if FREED.get().as_ref().is_some_and(is) {
        FREED.set(None);
        return true;
    }
    // SAFETY: reads this thread's queue.
    let error = unsafe { openssl_sys::ERR_peek_last_error() };
    if openssl_sys::ERR_GET_LIB(error) != sys::ERR_LIB_SSL {
        return false;
    }
    let (place, hash) = given(session.id());
    openssl_sys::ERR_GET_REASON(error) == sys::SSL_R_UNEXPECTED_EOF_WHILE_READING
        || place.load(Ordering::Relaxed) == hash
}

/// The place of an id, and what is there if it was given last. Clients choose ids, and know neither.
fn given(id: &[u8]) -> (&'static AtomicU64, u64) {
    static SEED: OnceBox<std::hash::RandomState> = OnceBox::new();
    let hash = SEED.get_or_init(Box::default).hash_one(id);
    let at = usize::try_from(hash).unwrap_or(0) % MOST_GIVEN;
    (&GIVEN[at], hash)
}
