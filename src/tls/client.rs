//! The other role: connections of an attached context that connect to servers. They behave as without the library, so
//! the application gets its callbacks.

use std::ffi::{c_int, c_void};
use std::ptr;

use once_cell::sync::OnceCell;
use openssl_sys::{SSL, SSL_CTX, SSL_SESSION};

use super::attach::Attachment;
use super::guard::contained;
use super::notes::Notes;
use super::real::libssl;
use super::sys;

/// The application's answer to a session that a server gave.
///
/// # Safety
/// The arguments are those of OpenSSL's new-session callback.
pub(super) unsafe fn new_session(
    attachment: Option<&Attachment>,
    ssl: *mut SSL,
    session: *mut SSL_SESSION,
) -> c_int {
    let wishes = attachment.map(|attachment| &attachment.wishes);
    let Some((wishes, callback)) = wishes.and_then(|it| Some((it, it.new_session.get()?))) else {
        return 0;
    };
    // SAFETY: the arguments are those that OpenSSL gave, for the function that the application gave OpenSSL.
    unsafe {
        mark(session);
        // It has the context's timeout unless the server said how long its ticket lives.
        if openssl_sys::SSL_SESSION_get_timeout(session)
            == (libssl().ctx_get_timeout)(openssl_sys::SSL_get_SSL_CTX(ssl))
        {
            sys::SSL_SESSION_set_timeout(session, wishes.timeout());
        }
        callback(ssl, session)
    }
}

/// Whether the application was told of this session as a client.
///
/// # Safety
/// `session` is a valid session.
pub(super) unsafe fn knows(session: *mut SSL_SESSION) -> bool {
    // SAFETY: as the caller promises; only whether there is something is looked at.
    index().is_some_and(|index| !unsafe { sys::SSL_SESSION_get_ex_data(session, index) }.is_null())
}

/// A connection was told to connect to a server: it gets back the options that were the application's.
///
/// # Safety
/// `ssl` is NULL or a valid connection.
pub(super) unsafe fn connecting(ssl: *mut SSL) {
    if ssl.is_null() {
        return;
    }
    // SAFETY: the connection is valid (caller), and keeps its context alive.
    let notes = unsafe { Notes::find(openssl_sys::SSL_get_SSL_CTX(ssl)) };
    notes.into_iter().for_each(Notes::set_connects);
    let attached = Attachment::serving(ssl).filter(|attachment| attachment.is_configured());
    if let Some(attachment) = attached {
        let (forced, wanted) = (attachment.forced_options(), attachment.wishes.options());
        // SAFETY: the connection is valid (caller). Replay protection means nothing to a client.
        unsafe {
            sys::SSL_clear_options(ssl, forced.set & !wanted & sys::SSL_OP_NO_TICKET);
            sys::SSL_set_options(ssl, forced.cleared & wanted);
        }
    }
}

/// # Safety
/// `session` is a valid session.
unsafe fn mark(session: *mut SSL_SESSION) {
    let known = ptr::dangling_mut::<c_void>();
    if let Some(index) = index() {
        // SAFETY: as the caller promises. Nobody follows the pointer. A failure costs the application the callback of
        // a removal, of which OpenSSL promises nothing.
        unsafe { sys::SSL_SESSION_set_ex_data(session, index, known) };
    }
}

/// Our place in the ex_data of sessions; taken once in a process.
fn index() -> Option<c_int> {
    static INDEX: OnceCell<c_int> = OnceCell::new();
    let new_index = || {
        let class = sys::CRYPTO_EX_INDEX_SSL_SESSION;
        let nothing = ptr::null_mut();
        // SAFETY: without functions there is no signature to keep.
        unsafe { sys::CRYPTO_get_ex_new_index(class, 0, nothing, ptr::null(), None, None) }
    };
    let index = contained(|| *INDEX.get_or_init(new_index))?;
    (index >= 0).then_some(index)
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
