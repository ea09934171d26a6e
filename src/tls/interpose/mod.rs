//! What the preload puts in place of libssl's functions: contexts are attached when the application has configured
//! them, and what it asks of an attached context for the same purpose is remembered and read back, but not carried out.
//!
//! A context that is not attached, or whose application disabled resumption, behaves as without the library.

mod dry_run;
mod executed;
mod settings;

use std::ffi::{c_char, c_int, c_uchar, c_uint, c_void};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use once_cell::sync::OnceCell;
use openssl_sys::{SSL, SSL_CTX, SSL_METHOD};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use super::attach::attach_then;
use super::attachment::Attachment;
use super::client;
use super::confirm;
use super::connection::is_quic;
use super::functions::Functions;
use super::guard::guarded;
use super::hidden;
use super::notes::Notes;
use super::real::{self, libssl};
use super::sys::InfoCallback;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::log::Once;
use crate::sys::{lock_within, object_of};

pub(crate) use dry_run::is_dry_run;
pub(crate) use executed::{Worker, executed_worker};

/// The instance that contexts are attached to.
static ENGINE: OnceCell<Arc<Engine>> = OnceCell::new();

/// The functions to call in place of libssl's, from now on; later calls change nothing.
pub(crate) fn interpose(engine: Arc<Engine>, behind: &'static Functions) -> &'static Functions {
    static IN_PLACE: OnceCell<Functions> = OnceCell::new();
    let _ = ENGINE.set(engine);
    real::interposed(behind);
    guarded(hidden::find_out);
    IN_PLACE.get_or_init(|| Functions {
        ctx_new: new_context,
        ctx_new_ex: behind.ctx_new_ex.map(|_| new_context_ex as _),
        new: new_connection,
        new_listener: behind.new_listener.map(|_| new_listener as _),
        new_listener_from: behind.new_listener_from.map(|_| new_listener_from as _),
        set_ssl_ctx: switch_context,
        set_connect_state,
        connect,
        ctx_ctrl: settings::ctx_ctrl,
        ctx_callback_ctrl: settings::ctx_callback_ctrl,
        ctx_sess_set_new_cb: settings::set_new_session,
        ctx_sess_get_new_cb: settings::get_new_session,
        ctx_sess_set_get_cb: settings::set_get_session,
        ctx_sess_get_get_cb: settings::get_get_session,
        ctx_sess_set_remove_cb: settings::set_remove_session,
        ctx_sess_get_remove_cb: settings::get_remove_session,
        ctx_set_ticket_key_evp_cb: behind
            .ctx_set_ticket_key_evp_cb
            .map(|_| settings::set_ticket_key as _),
        ctx_set_num_tickets: settings::set_num_tickets,
        ctx_get_num_tickets: settings::get_num_tickets,
        ctx_set_timeout: settings::set_timeout,
        ctx_get_timeout: settings::get_timeout,
        ctx_set_options: settings::set_options,
        ctx_clear_options: settings::clear_options,
        ctx_set_generate_session_id: settings::set_generate_id,
        ctx_set_session_id_context: set_id_context,
        ctx_set_allow_early_data_cb: settings::set_early_data_of_context,
        set_allow_early_data_cb: settings::set_early_data,
        set_session_id_context: set_id_context_of_connection,
        get_info_callback,
        set_info_callback,
        set_options: settings::set_connection_options,
        clear_options: settings::clear_connection_options,
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
        // SAFETY: a new context, or one that libssl made by calling SSL_CTX_new_ex(3) and that has notes already.
        guarded(|| unsafe {
            if Notes::find(ctx).is_none() {
                Notes::begin(ctx);
            }
        });
    }
    ctx
}

/// The application has configured the context by now, and the connection has not copied its settings yet.
unsafe extern "C" fn new_connection(ctx: *mut SSL_CTX) -> *mut SSL {
    // SAFETY: see above; the first connection is nobody else's, and is freed before its context is attached.
    unsafe {
        if !ctx.is_null() && !is_attached(ctx) {
            let first = (libssl().new)(ctx);
            // One that is no server from the start has a method for clients only; so has one of QUIC, whatever it says:
            // servers of QUIC come from listeners.
            if first.is_null() || openssl_sys::SSL_is_server(first) == 0 || is_quic(first) {
                return first;
            }
            openssl_sys::SSL_free(first);
            attach_once(ctx);
        }
        (libssl().new)(ctx)
    }
}

/// A listener of QUIC: its context is attached before it accepts anything.
unsafe extern "C" fn new_listener(ctx: *mut SSL_CTX, flags: u64) -> *mut SSL {
    let Some(new) = libssl().new_listener else { return ptr::null_mut() };
    // SAFETY: see above.
    unsafe {
        if !ctx.is_null() {
            attach_once(ctx);
        }
        new(ctx, flags)
    }
}

unsafe extern "C" fn new_listener_from(domain: *mut SSL, flags: u64) -> *mut SSL {
    let Some(new) = libssl().new_listener_from.filter(|_| !domain.is_null()) else {
        return ptr::null_mut();
    };
    // SAFETY: see above.
    unsafe {
        let ctx = openssl_sys::SSL_get_SSL_CTX(domain);
        if !ctx.is_null() {
            attach_once(ctx);
        }
        new(domain, flags)
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

/// Longest wait for another thread that attaches a context, which takes microseconds if it is let run.
const PATIENCE: Duration = Duration::from_secs(1);

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
            if is_attached(ctx) {
                return;
            }
            // Who has it may be a thread of the process that this one was forked off: nobody waits for it twice.
            let patience =
                if WAITED_IN_VAIN.load(Ordering::Relaxed) { Duration::ZERO } else { PATIENCE };
            let Some(_alone) = lock_within(&ATTACHING, patience) else {
                return WAITED_IN_VAIN.store(true, Ordering::Relaxed);
            };
            WAITED_IN_VAIN.store(false, Ordering::Relaxed);
            let Some(engine) = ENGINE.get().filter(|_| Attachment::of(ctx).is_none()) else {
                return;
            };
            let name = |attachment: &Attachment| {
                if attachment.has_callbacks() {
                    name_id_context(ctx, engine);
                }
            };
            if let Err(error) = attach_then(Arc::clone(engine), ctx, name)
                && FAILED.first()
            {
                log::error!("preload: {error}; connections go on without the library");
            }
        }
    });
}

/// # Safety
/// `ctx` is a valid context.
unsafe fn is_attached(ctx: *mut SSL_CTX) -> bool {
    // SAFETY: as the caller promises.
    unsafe { Attachment::of(ctx) }.is_some_and(Attachment::is_ready)
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
    // SAFETY: see above.
    let done = unsafe { (libssl().ctx_set_session_id_context)(ctx, id, len) };
    if done == 1 {
        note(ctx, |notes| notes.id_context.store(len > 0, Ordering::Relaxed));
    }
    done
}

unsafe extern "C" fn set_id_context_of_connection(
    ssl: *mut SSL,
    id: *const c_uchar,
    len: c_uint,
) -> c_int {
    // SAFETY: see above.
    unsafe {
        guarded(|| client::note_id_context(ssl));
        (libssl().set_session_id_context)(ssl, id, len)
    }
}

/// While ours judges a handshake, the application finds its own.
unsafe extern "C" fn get_info_callback(ssl: *const SSL) -> Option<InfoCallback> {
    guarded(|| confirm::taken_over(ssl.cast_mut()))
        .flatten()
        // SAFETY: see above.
        .unwrap_or_else(|| unsafe { (libssl().get_info_callback)(ssl) })
}

/// While ours judges a handshake, the application's is called by it.
unsafe extern "C" fn set_info_callback(ssl: *mut SSL, callback: Option<InfoCallback>) {
    if guarded(|| confirm::takes_over(ssl, callback)) != Some(true) {
        // SAFETY: see above.
        unsafe { (libssl().set_info_callback)(ssl, callback) };
    }
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
