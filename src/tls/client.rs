//! The other role: connections of an attached context that connect to servers. They behave as without the library, so
//! the application gets its callbacks.

use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::atomic::Ordering;

use openssl_sys::{SSL, SSL_CTX, SSL_SESSION};

use super::attach::Attachment;
use super::ex_data::Place;
use super::notes::Notes;
use super::real::libssl;
use super::{handshake, sys};

/// On the sessions of connections as a client.
static KNOWN: Place = Place::new(sys::CRYPTO_EX_INDEX_SSL_SESSION);

/// On connections whose application refused tickets.
static REFUSES: Place = Place::new(sys::CRYPTO_EX_INDEX_SSL);

/// On connections whose application gave them a session id context of their own.
static NAMES: Place = Place::new(sys::CRYPTO_EX_INDEX_SSL);

/// What a marked object has at an index: an address that nobody else knows.
fn a_mark() -> *mut c_void {
    static MARK: u8 = 0;
    (&raw const MARK).cast_mut().cast()
}

/// Whether this index of a session's ex_data is ours.
pub(super) fn is_mark(index: c_int) -> bool {
    KNOWN.used() == Some(index)
}

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
        mark(session);
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

/// Whether a session is known to be one of a connection as a client. One that OpenSSL told nobody about is not.
///
/// # Safety
/// `session` is a valid session.
pub(super) unsafe fn knows(session: *mut SSL_SESSION) -> bool {
    // SAFETY: as the caller promises; nobody follows the pointer.
    KNOWN.used().is_some_and(|it| unsafe { sys::SSL_SESSION_get_ex_data(session, it) } == a_mark())
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

/// # Safety
/// `session` is a valid session.
unsafe fn mark(session: *mut SSL_SESSION) {
    if let Some(index) = KNOWN.index() {
        // SAFETY: as the caller promises. Nobody follows the pointer. A failure costs the application the callback of
        // a removal, of which OpenSSL promises nothing.
        unsafe { sys::SSL_SESSION_set_ex_data(session, index, a_mark()) };
    }
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
