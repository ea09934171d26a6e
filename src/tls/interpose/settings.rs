//! What the application asks of an attached context for the purposes of the library: remembered, read back, not carried
//! out. docs/preload.md has it as a table.

use std::ffi::{c_int, c_long, c_void};
use std::ptr;
use std::sync::atomic::Ordering;

use openssl_sys::{SSL, SSL_CTX};

use super::note;
use crate::tls::application::set_cache_mode;
use crate::tls::attachment::Attachment;
use crate::tls::guard::guarded;
use crate::tls::real::libssl;
use crate::tls::sys::AnyCallback;
use crate::tls::sys::{
    AllowEarlyDataCallback, GenerateIdCallback, GetSessionCallback, NewSessionCallback,
    RemoveSessionCallback, SSL_CTRL_GET_SESS_CACHE_MODE, SSL_CTRL_SET_SESS_CACHE_MODE,
    SSL_CTRL_SET_TLSEXT_TICKET_KEY_CB, TicketKeyCallback,
};
use crate::tls::{callbacks, client};

/// The attachment of a context that has the library's settings.
fn configured(ctx: *const SSL_CTX) -> Option<&'static Attachment> {
    if ctx.is_null() {
        return None;
    }
    // SAFETY: the context is an argument of the application's to a function of OpenSSL, and valid while that runs.
    let attachment = guarded(|| unsafe { Attachment::of(ctx.cast_mut()) });
    attachment.flatten().filter(|attachment| attachment.is_configured())
}

/// The attachment of a context that has the library's callbacks.
fn with_callbacks(ctx: *const SSL_CTX) -> Option<&'static Attachment> {
    configured(ctx).filter(|attachment| attachment.has_callbacks())
}

// In all that follows, OpenSSL's functions get the application's own arguments, which it vouches for as without us.

pub(super) unsafe extern "C" fn ctx_ctrl(
    ctx: *mut SSL_CTX,
    command: c_int,
    value: c_long,
    data: *mut c_void,
) -> c_long {
    let ours = matches!(command, SSL_CTRL_SET_SESS_CACHE_MODE | SSL_CTRL_GET_SESS_CACHE_MODE);
    match configured(ctx).filter(|_| ours) {
        Some(attachment) if command == SSL_CTRL_SET_SESS_CACHE_MODE => {
            let before = attachment.wishes.set_cache_mode(value);
            // SAFETY: see above.
            unsafe { set_cache_mode(ctx, attachment.cache_mode()) };
            before
        }
        Some(attachment) => attachment.wishes.cache_mode(),
        // SAFETY: see above.
        None => unsafe { (libssl().ctx_ctrl)(ctx, command, value, data) },
    }
}

pub(super) unsafe extern "C" fn ctx_callback_ctrl(
    ctx: *mut SSL_CTX,
    command: c_int,
    callback: Option<AnyCallback>,
) -> c_long {
    if command == SSL_CTRL_SET_TLSEXT_TICKET_KEY_CB && with_callbacks(ctx).is_some() {
        return 1;
    }
    // SAFETY: see above.
    unsafe { (libssl().ctx_callback_ctrl)(ctx, command, callback) }
}

pub(super) unsafe extern "C" fn set_ticket_key(
    ctx: *mut SSL_CTX,
    callback: Option<TicketKeyCallback>,
) -> c_int {
    match libssl().ctx_set_ticket_key_evp_cb.filter(|_| with_callbacks(ctx).is_none()) {
        // SAFETY: see above.
        Some(set) => unsafe { set(ctx, callback) },
        None => 1,
    }
}

pub(super) unsafe extern "C" fn set_generate_id(
    ctx: *mut SSL_CTX,
    callback: Option<GenerateIdCallback>,
) -> c_int {
    match with_callbacks(ctx) {
        Some(_) => 1,
        // SAFETY: see above.
        None => unsafe { (libssl().ctx_set_generate_session_id)(ctx, callback) },
    }
}

pub(super) unsafe extern "C" fn set_new_session(
    ctx: *mut SSL_CTX,
    callback: Option<NewSessionCallback>,
) {
    match with_callbacks(ctx) {
        Some(attachment) => attachment.wishes.new_session.set(callback),
        // SAFETY: see above.
        None => unsafe { (libssl().ctx_sess_set_new_cb)(ctx, callback) },
    }
}

pub(super) unsafe extern "C" fn get_new_session(ctx: *mut SSL_CTX) -> Option<NewSessionCallback> {
    match with_callbacks(ctx) {
        Some(attachment) => attachment.wishes.new_session.get(),
        // SAFETY: see above.
        None => unsafe { (libssl().ctx_sess_get_new_cb)(ctx) },
    }
}

pub(super) unsafe extern "C" fn set_get_session(
    ctx: *mut SSL_CTX,
    callback: Option<GetSessionCallback>,
) {
    match with_callbacks(ctx) {
        Some(attachment) => attachment.wishes.get_session.set(callback),
        // SAFETY: see above.
        None => unsafe { (libssl().ctx_sess_set_get_cb)(ctx, callback) },
    }
}

pub(super) unsafe extern "C" fn get_get_session(ctx: *mut SSL_CTX) -> Option<GetSessionCallback> {
    match with_callbacks(ctx) {
        Some(attachment) => attachment.wishes.get_session.get(),
        // SAFETY: see above.
        None => unsafe { (libssl().ctx_sess_get_get_cb)(ctx) },
    }
}

pub(super) unsafe extern "C" fn set_remove_session(
    ctx: *mut SSL_CTX,
    callback: Option<RemoveSessionCallback>,
) {
    match with_callbacks(ctx) {
        Some(attachment) => {
            attachment.wishes.remove_session.set(callback);
            // SAFETY: see above.
            unsafe { attachment.install_remove_callback() };
        }
        // SAFETY: see above.
        None => unsafe { (libssl().ctx_sess_set_remove_cb)(ctx, callback) },
    }
}

pub(super) unsafe extern "C" fn get_remove_session(
    ctx: *mut SSL_CTX,
) -> Option<RemoveSessionCallback> {
    match with_callbacks(ctx) {
        Some(attachment) => attachment.wishes.remove_session.get(),
        // SAFETY: see above.
        None => unsafe { (libssl().ctx_sess_get_remove_cb)(ctx) },
    }
}

pub(super) unsafe extern "C" fn set_num_tickets(ctx: *mut SSL_CTX, count: usize) -> c_int {
    let count = configured(ctx).map_or(count, |attachment| {
        attachment.wishes.set_tickets(count);
        // SAFETY: see above.
        unsafe { set_cache_mode(ctx, attachment.cache_mode()) };
        attachment.tickets()
    });
    // SAFETY: see above.
    unsafe { (libssl().ctx_set_num_tickets)(ctx, count) }
}

pub(super) unsafe extern "C" fn get_num_tickets(ctx: *const SSL_CTX) -> usize {
    match configured(ctx) {
        Some(attachment) => attachment.wishes.tickets(),
        // SAFETY: see above.
        None => unsafe { (libssl().ctx_get_num_tickets)(ctx) },
    }
}

pub(super) unsafe extern "C" fn set_timeout(ctx: *mut SSL_CTX, seconds: c_long) -> c_long {
    match with_callbacks(ctx) {
        Some(attachment) => attachment.wishes.set_timeout(seconds),
        // SAFETY: see above.
        None => unsafe { (libssl().ctx_set_timeout)(ctx, seconds) },
    }
}

pub(super) unsafe extern "C" fn get_timeout(ctx: *const SSL_CTX) -> c_long {
    match with_callbacks(ctx) {
        Some(attachment) => attachment.wishes.timeout(),
        // SAFETY: see above.
        None => unsafe { (libssl().ctx_get_timeout)(ctx) },
    }
}

/// SSL_CTX_get_options is not interposed: who copies a context's options to a connection, as nginx does, must copy
/// those of the library too.
pub(super) unsafe extern "C" fn set_options(ctx: *mut SSL_CTX, options: u64) -> u64 {
    let kept = configured(ctx).map_or(0, |attachment| {
        attachment.wishes.add_options(options);
        // SAFETY: see above.
        unsafe { set_cache_mode(ctx, attachment.cache_mode()) };
        attachment.forced_options().cleared
    });
    // SAFETY: see above.
    unsafe { (libssl().ctx_set_options)(ctx, options & !kept) }
}

pub(super) unsafe extern "C" fn clear_options(ctx: *mut SSL_CTX, options: u64) -> u64 {
    let kept = configured(ctx).map_or(0, |attachment| {
        attachment.wishes.remove_options(options);
        // SAFETY: see above.
        unsafe { set_cache_mode(ctx, attachment.cache_mode()) };
        attachment.forced_options().set
    });
    // SAFETY: see above.
    unsafe { (libssl().ctx_clear_options)(ctx, options & !kept) }
}

/// Remembered for the case that the connection becomes a client.
pub(super) unsafe extern "C" fn set_connection_options(ssl: *mut SSL, options: u64) -> u64 {
    // SAFETY: see above.
    unsafe {
        guarded(|| client::note_options(ssl, options, true));
        (libssl().set_options)(ssl, options)
    }
}

pub(super) unsafe extern "C" fn clear_connection_options(ssl: *mut SSL, options: u64) -> u64 {
    // SAFETY: see above.
    unsafe {
        guarded(|| client::note_options(ssl, options, false));
        (libssl().clear_options)(ssl, options)
    }
}

pub(super) unsafe extern "C" fn set_early_data_of_context(
    ctx: *mut SSL_CTX,
    callback: Option<AllowEarlyDataCallback>,
    arg: *mut c_void,
) {
    note(ctx, |notes| notes.early_data.store(callback.is_some(), Ordering::Relaxed));
    // SAFETY: see above.
    unsafe {
        match with_callbacks(ctx) {
            Some(attachment) => attachment.install_early_data_callback(),
            None => (libssl().ctx_set_allow_early_data_cb)(ctx, callback, arg),
        }
    }
}

/// As for contexts. Without a callback, the register is asked again.
pub(super) unsafe extern "C" fn set_early_data(
    ssl: *mut SSL,
    callback: Option<AllowEarlyDataCallback>,
    arg: *mut c_void,
) {
    let attached = guarded(|| Attachment::serving(ssl)).flatten();
    // SAFETY: see above; the functions have the signature that OpenSSL documents.
    unsafe {
        let set = libssl().set_allow_early_data_cb;
        match attached.filter(|attachment| attachment.has_callbacks()) {
            Some(_) if callback.is_some() => {
                set(ssl, Some(callbacks::refuse_early_data), ptr::null_mut());
            }
            Some(attachment) => attachment.ask_register(ssl),
            None => set(ssl, callback, arg),
        }
    }
}
