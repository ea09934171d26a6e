//! The other role: connections of an attached context that connect to servers. They behave as without the library, so
//! the application gets its callbacks.

use std::ffi::c_int;
use std::ptr;
use std::sync::atomic::Ordering;

use openssl_sys::{SSL, SSL_CTX, SSL_SESSION};

use super::attachment::Attachment;
use super::ex_data::{Place, a_mark};
use super::notes::Notes;
use super::real::libssl;
use super::{client_session, handshake, sys};

/// On connections whose application refused tickets.
static REFUSES: Place = Place::new(sys::CRYPTO_EX_INDEX_SSL);

/// On connections whose application gave them a session id context of their own.
static NAMES: Place = Place::new(sys::CRYPTO_EX_INDEX_SSL);

/// The application's answer to a session that a server gave.
///
/// # Safety
/// The arguments are those of OpenSSL's new-session callback.
pub(super) unsafe fn new_session(
    attachment: Option<&Attachment>,
    ssl: *mut SSL,
    session: *mut SSL_SESSION,
) -> c_int {
    // SAFETY: the arguments are those that OpenSSL gave, for the function that the application gave OpenSSL.
    unsafe {
        client_session::mark(session);
        let Some(attachment) = attachment.filter(|attachment| attachment.has_callbacks()) else {
            return 0;
        };
        // It has the context's timeout unless the server said how long its ticket lives.
        let ours = (libssl().ctx_get_timeout)(openssl_sys::SSL_get_SSL_CTX(ssl));
        if openssl_sys::SSL_SESSION_get_timeout(session) == ours {
            sys::SSL_SESSION_set_timeout(session, attachment.wishes.timeout());
        }
        let Some(callback) = attachment.wishes.new_session.get() else { return 0 };
        callback(ssl, session)
    }
}

/// A connection was told to connect to a server: it gets back what was the application's.
///
/// # Safety
/// `ssl` is NULL or a valid connection.
pub(super) unsafe fn connecting(ssl: *mut SSL) {
    if ssl.is_null() {
        return;
    }
    // SAFETY: the connection is valid (caller), and keeps its context alive.
    unsafe {
        let ctx = openssl_sys::SSL_get_SSL_CTX(ssl);
        let notes = Notes::find(ctx);
        if let Some(notes) = notes {
            notes.set_connects();
        }
        let Some(attachment) = Attachment::of(ctx).filter(|it| it.is_configured()) else {
            return;
        };
        handshake::connects(ssl);
        give_back_options(ssl, attachment);
        if attachment.has_callbacks()
            && notes.is_some_and(|notes| !notes.id_context.load(Ordering::Relaxed))
            && !is_marked(&NAMES, ssl)
        {
            // The one that was made for want of another: its sessions are of no use to a context without.
            (libssl().set_session_id_context)(ssl, [].as_ptr(), 0);
        }
    }
}

/// Replay protection means nothing to a client; whether it takes tickets does.
///
/// # Safety
/// `ssl` is a valid connection.
unsafe fn give_back_options(ssl: *mut SSL, attachment: &Attachment) {
    let (forced, wanted) = (attachment.forced_options(), attachment.wishes.options());
    // SAFETY: as the caller promises.
    let own = if unsafe { is_marked(&REFUSES, ssl) } { sys::SSL_OP_NO_TICKET } else { 0 };
    // SAFETY: as the caller promises.
    unsafe {
        (libssl().clear_options)(ssl, forced.set & !wanted & !own & sys::SSL_OP_NO_TICKET);
        (libssl().set_options)(ssl, forced.cleared & wanted);
    }
}

/// The application set or cleared options of a connection: whether it refuses tickets is remembered, for the same
/// option may be the library's.
///
/// # Safety
/// `ssl` is NULL or a valid connection.
pub(super) unsafe fn note_options(ssl: *mut SSL, options: u64, set: bool) {
    if options & sys::SSL_OP_NO_TICKET != 0 {
        // SAFETY: as the caller promises.
        unsafe { mark_connection(&REFUSES, ssl, set) };
    }
}

/// The application named a connection's session id context.
///
/// # Safety
/// `ssl` is NULL or a valid connection.
pub(super) unsafe fn note_id_context(ssl: *mut SSL) {
    // SAFETY: as the caller promises.
    unsafe { mark_connection(&NAMES, ssl, true) };
}

/// # Safety
/// `ssl` is NULL or a valid connection.
unsafe fn mark_connection(place: &Place, ssl: *mut SSL, set: bool) {
    if let Some(index) = place.index().filter(|_| !ssl.is_null()) {
        let mark = if set { a_mark() } else { ptr::null_mut() };
        // SAFETY: as the caller promises. Nobody follows the pointer.
        unsafe { openssl_sys::SSL_set_ex_data(ssl, index, mark) };
    }
}

/// # Safety
/// `ssl` is a valid connection.
unsafe fn is_marked(place: &Place, ssl: *mut SSL) -> bool {
    let index = place.used();
    // SAFETY: as the caller promises; nobody follows the pointer.
    index.is_some_and(|index| unsafe { openssl_sys::SSL_get_ex_data(ssl, index) } == a_mark())
}

/// The application's word on a session that is gone.
///
/// # Safety
/// The arguments are those of OpenSSL's remove-session callback.
pub(super) unsafe fn remove_session(
    attachment: Option<&Attachment>,
    ctx: *mut SSL_CTX,
    session: *mut SSL_SESSION,
) {
    if let Some(callback) = attachment.and_then(|attachment| attachment.wishes.remove_session.get())
    {
        // SAFETY: the arguments are those that OpenSSL gave, for the function that the application gave OpenSSL.
        unsafe { callback(ctx, session) };
    }
}
