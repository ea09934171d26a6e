//! What the preload puts in place of libssl's functions: contexts are attached when the application has configured them,
//! and what it asks of an attached context for the same purpose is remembered and read back, but not carried out.
//!
//! A context that is not attached, or left alone because its application says no, behaves as without the library.

use std::ffi::{c_char, c_int, c_long, c_uchar, c_uint, c_void};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use once_cell::sync::OnceCell;
use openssl_sys::{SSL, SSL_CTX, SSL_METHOD};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use super::application::set_cache_mode;
use super::attach::{Attachment, attach};
use super::functions::{AnyCallback, Functions};
use super::guard::guarded;
use super::notes::Notes;
use super::real::{self, libssl};
use super::sys::{
    self, AllowEarlyDataCallback, GenerateIdCallback, GetSessionCallback, NewSessionCallback,
    RemoveSessionCallback, SSL_CTRL_GET_SESS_CACHE_MODE, SSL_CTRL_SET_SESS_CACHE_MODE,
    SSL_CTRL_SET_TLSEXT_TICKET_KEY_CB, TicketKeyCallback,
};
use super::{client, policy};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::log::Once;
use crate::sys::object_of;

/// The instance that contexts are attached to.
static ENGINE: OnceCell<Arc<Engine>> = OnceCell::new();

/// The functions to call in place of libssl's, from now on; later calls change nothing.
pub(crate) fn interpose(engine: Arc<Engine>, behind: &'static Functions) -> &'static Functions {
    static IN_PLACE: OnceCell<Functions> = OnceCell::new();
    let _ = ENGINE.set(engine);
    real::interposed(behind);
    IN_PLACE.get_or_init(|| Functions {
        ctx_new: new_context,
        ctx_new_ex: behind.ctx_new_ex.map(|_| new_context_ex as _),
        new: new_connection,
        set_ssl_ctx: switch_context,
        set_connect_state,
        connect,
        ctx_ctrl,
        ctx_callback_ctrl,
        ctx_sess_set_new_cb: set_new_session,
        ctx_sess_get_new_cb: get_new_session,
        ctx_sess_set_get_cb: set_get_session,
        ctx_sess_get_get_cb: get_get_session,
        ctx_sess_set_remove_cb: set_remove_session,
        ctx_sess_get_remove_cb: get_remove_session,
        ctx_set_ticket_key_evp_cb: behind.ctx_set_ticket_key_evp_cb.map(|_| set_ticket_key as _),
        ctx_set_num_tickets: set_num_tickets,
        ctx_get_num_tickets: get_num_tickets,
        ctx_set_timeout: set_timeout,
        ctx_get_timeout: get_timeout,
        ctx_set_options: set_options,
        ctx_clear_options: clear_options,
        ctx_set_generate_session_id: set_generate_id,
        ctx_set_session_id_context: set_id_context,
        ctx_set_allow_early_data_cb: set_early_data_of_context,
        set_allow_early_data_cb: set_early_data,
        ctx_set_verify: set_verify,
    })
}

/// Checks that a libssl is the one that this library calls itself: a process may have several.
///
/// # Errors
/// It is another one.
pub(crate) fn check_is_linked(libssl: &Functions) -> Result<()> {
    // The preload has no definition of this function: the address is libssl's.
    let linked = openssl_sys::SSL_free as *const c_void;
    let same = object_of(linked) == object_of(libssl.new as *const c_void);
    if same {
        Ok(())
    } else {
        Err(Error::Argument("the program has another libssl than the library"))
    }
}

/// The attachment of a context that has the library's settings.
fn configured(ctx: *const SSL_CTX) -> Option<&'static Attachment> {
    if ctx.is_null() {
        return None;
    }
    // SAFETY: the context is an argument of the application's to a function of OpenSSL, and valid while that runs.
    let attachment = guarded(|| unsafe { Attachment::of(ctx.cast_mut()) });
    attachment.flatten().filter(|attachment| attachment.is_configured())
}

// In all that follows, OpenSSL's functions get the application's own arguments, which it vouches for as without us.

/// Notes are made while nobody else has the context: later, another thread could be reading its ex_data.
unsafe extern "C" fn new_context(method: *const SSL_METHOD) -> *mut SSL_CTX {
    // SAFETY: see above.
    with_notes(unsafe { (libssl().ctx_new)(method) })
}

unsafe extern "C" fn new_context_ex(
    libctx: *mut c_void,
    properties: *const c_char,
    method: *const SSL_METHOD,
) -> *mut SSL_CTX {
    let new = libssl().ctx_new_ex;
    // SAFETY: see above.
    with_notes(new.map_or(ptr::null_mut(), |new| unsafe { new(libctx, properties, method) }))
}

fn with_notes(ctx: *mut SSL_CTX) -> *mut SSL_CTX {
    if !ctx.is_null() {
        // SAFETY: a new context. Without notes it is served like one that the application says nothing about.
        guarded(|| unsafe { Notes::of(ctx) }.is_some());
    }
    ctx
}

/// The application has configured the context by now, and the connection has not copied its settings yet.
unsafe extern "C" fn new_connection(ctx: *mut SSL_CTX) -> *mut SSL {
    // SAFETY: see above; the first connection is nobody else's, and is freed before its context is attached.
    unsafe {
        if !ctx.is_null() && Attachment::of(ctx).is_none() {
            let first = (libssl().new)(ctx);
            // One that is no server from the start has a method for clients only.
            if first.is_null() || openssl_sys::SSL_is_server(first) == 0 {
                return first;
            }
            openssl_sys::SSL_free(first);
            attach_once(ctx);
        }
        (libssl().new)(ctx)
    }
}

/// A virtual host's context, which may never have a connection of its own.
unsafe extern "C" fn switch_context(ssl: *mut SSL, ctx: *mut SSL_CTX) -> *mut SSL_CTX {
    if !ctx.is_null() {
        // SAFETY: see above.
        unsafe { attach_once(ctx) };
    }
    // SAFETY: see above.
    unsafe { (libssl().set_ssl_ctx)(ssl, ctx) }
}

/// Longest wait for another thread that attaches the same context.
const PATIENCE: Duration = Duration::from_millis(100);

/// Attaches a context, unless it is attached.
///
/// # Safety
/// `ctx` is a valid context.
unsafe fn attach_once(ctx: *mut SSL_CTX) {
    static ATTACHING: Mutex<()> = Mutex::new(());
    static WAITED_IN_VAIN: AtomicBool = AtomicBool::new(false);
    static FAILED: Once = Once::new();
    guarded(|| {
        // SAFETY: the context is valid (caller). Threads that use it come through here first, so that it is ours alone
        // until the lock is free again; without the lock in time, this connection goes without.
        unsafe {
            if Attachment::of(ctx).is_some() {
                return;
            }
            // Who has it may be a thread of the process that this one was forked off: nobody waits for it twice.
            let patience =
                if WAITED_IN_VAIN.load(Ordering::Relaxed) { Duration::ZERO } else { PATIENCE };
            let Some(_alone) = ATTACHING.try_lock_for(patience) else {
                return WAITED_IN_VAIN.store(true, Ordering::Relaxed);
            };
            let Some(engine) = ENGINE.get().filter(|_| Attachment::of(ctx).is_none()) else {
                return;
            };
            match attach(Arc::clone(engine), ctx) {
                Ok(()) if configured(ctx).is_some() => name_id_context(ctx, engine),
                Err(error) if FAILED.first() => {
                    log::error!("preload: {error}; connections go on without the library");
                }
                Ok(()) | Err(_) => {}
            }
        }
    });
}

/// Sessions of a context without a session id context end the handshakes of clients that it verifies: such a context
/// gets one, the same on every node of the realm.
///
/// # Safety
/// `ctx` is a valid context.
unsafe fn name_id_context(ctx: *mut SSL_CTX, engine: &Engine) {
    // SAFETY: as the caller promises; the id is as long as OpenSSL allows, 32 bytes.
    unsafe {
        if Notes::find(ctx).is_some_and(|notes| notes.id_context.load(Ordering::Relaxed)) {
            return;
        }
        let id = Sha256::new_with_prefix(b"tlsresume session id context 1\0")
            .chain_update(&engine.config().realm)
            .finalize();
        (libssl().ctx_set_session_id_context)(ctx, id.as_ptr(), 32);
    }
}

unsafe extern "C" fn set_id_context(ctx: *mut SSL_CTX, id: *const c_uchar, len: c_uint) -> c_int {
    note(ctx, |notes| notes.id_context.store(len > 0, Ordering::Relaxed));
    // SAFETY: see above.
    unsafe { (libssl().ctx_set_session_id_context)(ctx, id, len) }
}

unsafe extern "C" fn set_verify(ctx: *mut SSL_CTX, mode: c_int, callback: Option<AnyCallback>) {
    // SAFETY: see above.
    let is_client =
        || unsafe { sys::SSL_CTX_get_ssl_method(ctx) == openssl_sys::TLS_client_method() };
    note(ctx, |notes| notes.set_verifies(mode & policy::SSL_VERIFY_PEER != 0 && !is_client()));
    // SAFETY: see above.
    unsafe { (libssl().ctx_set_verify)(ctx, mode, callback) };
}

fn note(ctx: *mut SSL_CTX, what: impl FnOnce(&Notes)) {
    if !ctx.is_null() {
        // SAFETY: see above.
        guarded(|| unsafe { Notes::find(ctx) }.map(what));
    }
}

unsafe extern "C" fn set_connect_state(ssl: *mut SSL) {
    // SAFETY: see above.
    unsafe {
        guarded(|| client::connecting(ssl));
        (libssl().set_connect_state)(ssl);
    }
}

unsafe extern "C" fn connect(ssl: *mut SSL) -> c_int {
    // SAFETY: see above.
    unsafe {
        guarded(|| client::connecting(ssl));
        (libssl().connect)(ssl)
    }
}

unsafe extern "C" fn ctx_ctrl(
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

unsafe extern "C" fn ctx_callback_ctrl(
    ctx: *mut SSL_CTX,
    command: c_int,
    callback: Option<AnyCallback>,
) -> c_long {
    if command == SSL_CTRL_SET_TLSEXT_TICKET_KEY_CB && configured(ctx).is_some() {
        return 1;
    }
    // SAFETY: see above.
    unsafe { (libssl().ctx_callback_ctrl)(ctx, command, callback) }
}

unsafe extern "C" fn set_ticket_key(
    ctx: *mut SSL_CTX,
    callback: Option<TicketKeyCallback>,
) -> c_int {
    match libssl().ctx_set_ticket_key_evp_cb.filter(|_| configured(ctx).is_none()) {
        // SAFETY: see above.
        Some(set) => unsafe { set(ctx, callback) },
        None => 1,
    }
}

unsafe extern "C" fn set_generate_id(
    ctx: *mut SSL_CTX,
    callback: Option<GenerateIdCallback>,
) -> c_int {
    match configured(ctx) {
        Some(_) => 1,
        // SAFETY: see above.
        None => unsafe { (libssl().ctx_set_generate_session_id)(ctx, callback) },
    }
}

unsafe extern "C" fn set_new_session(ctx: *mut SSL_CTX, callback: Option<NewSessionCallback>) {
    match configured(ctx) {
        Some(attachment) => attachment.wishes.new_session.set(callback),
        // SAFETY: see above.
        None => unsafe { (libssl().ctx_sess_set_new_cb)(ctx, callback) },
    }
}

unsafe extern "C" fn get_new_session(ctx: *mut SSL_CTX) -> Option<NewSessionCallback> {
    match configured(ctx) {
        Some(attachment) => attachment.wishes.new_session.get(),
        // SAFETY: see above.
        None => unsafe { (libssl().ctx_sess_get_new_cb)(ctx) },
    }
}

unsafe extern "C" fn set_get_session(ctx: *mut SSL_CTX, callback: Option<GetSessionCallback>) {
    match configured(ctx) {
        Some(attachment) => attachment.wishes.get_session.set(callback),
        // SAFETY: see above.
        None => unsafe { (libssl().ctx_sess_set_get_cb)(ctx, callback) },
    }
}

unsafe extern "C" fn get_get_session(ctx: *mut SSL_CTX) -> Option<GetSessionCallback> {
    match configured(ctx) {
        Some(attachment) => attachment.wishes.get_session.get(),
        // SAFETY: see above.
        None => unsafe { (libssl().ctx_sess_get_get_cb)(ctx) },
    }
}

unsafe extern "C" fn set_remove_session(
    ctx: *mut SSL_CTX,
    callback: Option<RemoveSessionCallback>,
) {
    match configured(ctx) {
        Some(attachment) => {
            attachment.wishes.remove_session.set(callback);
            // SAFETY: see above.
            unsafe { attachment.install_remove_callback() };
        }
        // SAFETY: see above.
        None => unsafe { (libssl().ctx_sess_set_remove_cb)(ctx, callback) },
    }
}

unsafe extern "C" fn get_remove_session(ctx: *mut SSL_CTX) -> Option<RemoveSessionCallback> {
    match configured(ctx) {
        Some(attachment) => attachment.wishes.remove_session.get(),
        // SAFETY: see above.
        None => unsafe { (libssl().ctx_sess_get_remove_cb)(ctx) },
    }
}

unsafe extern "C" fn set_num_tickets(ctx: *mut SSL_CTX, count: usize) -> c_int {
    let count = configured(ctx).map_or(count, |attachment| {
        attachment.wishes.set_tickets(count);
        attachment.tickets()
    });
    // SAFETY: see above.
    unsafe { (libssl().ctx_set_num_tickets)(ctx, count) }
}

unsafe extern "C" fn get_num_tickets(ctx: *const SSL_CTX) -> usize {
    match configured(ctx) {
        Some(attachment) => attachment.wishes.tickets(),
        // SAFETY: see above.
        None => unsafe { (libssl().ctx_get_num_tickets)(ctx) },
    }
}

unsafe extern "C" fn set_timeout(ctx: *mut SSL_CTX, seconds: c_long) -> c_long {
    match configured(ctx) {
        Some(attachment) => attachment.wishes.set_timeout(seconds),
        // SAFETY: see above.
        None => unsafe { (libssl().ctx_set_timeout)(ctx, seconds) },
    }
}

unsafe extern "C" fn get_timeout(ctx: *const SSL_CTX) -> c_long {
    match configured(ctx) {
        Some(attachment) => attachment.wishes.timeout(),
        // SAFETY: see above.
        None => unsafe { (libssl().ctx_get_timeout)(ctx) },
    }
}

/// SSL_CTX_get_options is not interposed: who copies a context's options to a connection, as nginx does, must copy
/// those of the library too.
unsafe extern "C" fn set_options(ctx: *mut SSL_CTX, options: u64) -> u64 {
    let kept = configured(ctx).map_or(0, |attachment| {
        attachment.wishes.add_options(options);
        attachment.forced_options().cleared
    });
    // SAFETY: see above.
    unsafe { (libssl().ctx_set_options)(ctx, options & !kept) }
}

unsafe extern "C" fn clear_options(ctx: *mut SSL_CTX, options: u64) -> u64 {
    let kept = configured(ctx).map_or(0, |attachment| {
        attachment.wishes.remove_options(options);
        attachment.forced_options().set
    });
    // SAFETY: see above.
    unsafe { (libssl().ctx_clear_options)(ctx, options & !kept) }
}

/// The strike register and the application would both have to allow early data. It is refused instead, which costs the
/// client a round trip.
unsafe extern "C" fn set_early_data_of_context(
    ctx: *mut SSL_CTX,
    callback: Option<AllowEarlyDataCallback>,
    arg: *mut c_void,
) {
    note(ctx, |notes| notes.early_data.store(callback.is_some(), Ordering::Relaxed));
    if configured(ctx).is_none() {
        // SAFETY: see above.
        unsafe { (libssl().ctx_set_allow_early_data_cb)(ctx, callback, arg) };
    }
}

/// As for contexts.
unsafe extern "C" fn set_early_data(
    ssl: *mut SSL,
    callback: Option<AllowEarlyDataCallback>,
    arg: *mut c_void,
) {
    let attached = guarded(|| Attachment::serving(ssl).is_some_and(Attachment::is_configured));
    // SAFETY: see above; the function has the signature that OpenSSL documents.
    unsafe {
        match callback {
            Some(_) if attached == Some(true) => {
                (libssl().set_allow_early_data_cb)(ssl, Some(refuse), ptr::null_mut());
            }
            _ => (libssl().set_allow_early_data_cb)(ssl, callback, arg),
        }
    }
}

unsafe extern "C" fn refuse(_ssl: *mut SSL, _arg: *mut c_void) -> c_int {
    0
}
