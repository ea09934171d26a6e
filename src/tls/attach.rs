//! Attaching to a context: what is changed on it, what is remembered, how it is put back.

use std::ffi::{c_int, c_long, c_void};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use once_cell::race::OnceBox;
use once_cell::sync::OnceCell;
use openssl_sys::{CRYPTO_EX_DATA, SSL, SSL_CTX};
use parking_lot::Mutex;

use super::guard::guarded;
use super::slots::Slot;
use super::sys::{
    self, GetSessionCallback, NewSessionCallback, RemoveSessionCallback,
    SSL_CTRL_GET_SESS_CACHE_MODE, SSL_CTRL_SET_SESS_CACHE_MODE, SSL_OP_NO_ANTI_REPLAY,
    SSL_OP_NO_TICKET, SSL_SESS_CACHE_CLIENT, SSL_SESS_CACHE_NO_AUTO_CLEAR,
    SSL_SESS_CACHE_NO_INTERNAL, SSL_SESS_CACHE_OFF, SSL_SESS_CACHE_SERVER,
};
use super::{callbacks, handshake, policy};
use crate::config::{Mode, OnRemove};
use crate::engine::{Accepting, Engine};
use crate::error::{Error, Result};

/// What a context that was attached carries in its ex_data, until it is freed or detached.
pub(crate) struct Attachment {
    pub(super) engine: Arc<Engine>,
    /// Digest of whom the context trusts, taken when a client was first verified.
    pub(super) trust: OnceBox<[u8; 32]>,
    /// Never followed after the context is gone: the attachment goes with it.
    ctx: *mut SSL_CTX,
    slot: Slot,
    /// A number that no other attachment of this process ever has.
    serial: u64,
    /// Whether the application named a session id context, as far as sessions have shown.
    id_context: AtomicU8,
    before: Settings,
}

// SAFETY: the context behind the pointer is shared between threads by OpenSSL's own rules.
unsafe impl Send for Attachment {}
// SAFETY: as above.
unsafe impl Sync for Attachment {}

/// What a context had before, as far as OpenSSL tells.
struct Settings {
    options: u64,
    cache_mode: c_long,
    timeout: c_long,
    tickets: usize,
    new_session: Option<NewSessionCallback>,
    get_session: Option<GetSessionCallback>,
    remove_session: Option<RemoveSessionCallback>,
}

static SERIAL: AtomicU64 = AtomicU64::new(0);

/// Guards the set of attached contexts, in the order in which they come and go.
static REGISTRY: Mutex<()> = Mutex::new(());

/// Longest wait for the registry where there is no way to fail: another thread has it for microseconds, unless this
/// process was forked off in between.
const REGISTRY_PATIENCE: Duration = Duration::from_millis(100);

/// Attaches a context to a realm.
///
/// # Errors
/// The context is attached already, or OpenSSL has no room for our mark.
///
/// # Safety
/// `ctx` is a valid context that no other thread uses meanwhile.
pub(crate) unsafe fn attach(engine: Arc<Engine>, ctx: *mut SSL_CTX) -> Result<()> {
    // SAFETY: the context is valid (caller).
    if unsafe { Attachment::of(ctx) }.is_some() {
        return Err(Error::Attachment("the context is attached already; detach it first"));
    }
    let (Some(index), Some(_)) = (index(), handshake::index()) else {
        return Err(NO_ROOM);
    };
    let _registry = REGISTRY.try_lock_for(REGISTRY_PATIENCE);
    // SAFETY: the context is valid and ours alone (caller). The attachment is owned by the context's ex_data from here
    // on, and freed by `free` or `detach`, once.
    unsafe {
        let before = Settings::of(ctx);
        let attachment = Box::into_raw(Box::new(Attachment {
            engine,
            trust: OnceBox::new(),
            ctx,
            slot: Slot::SHARED,
            serial: SERIAL.fetch_add(1, Ordering::Relaxed),
            id_context: AtomicU8::new(NOT_SEEN),
            before,
        }));
        if openssl_sys::SSL_CTX_set_ex_data(ctx, index, attachment.cast()) != 1 {
            drop(Box::from_raw(attachment));
            return Err(NO_ROOM);
        }
        let slot = Slot::take(attachment);
        (*attachment).slot = slot;
        policy::context_attached(slot);
        (*attachment).configure();
    }
    Ok(())
}

const NO_ROOM: Error =
    Error::Attachment("OpenSSL has no room for the attachment; is memory exhausted?");

/// Detaches a context: puts back what it had, as far as OpenSSL tells, and clears the rest.
///
/// # Errors
/// The context is not attached.
///
/// # Safety
/// `ctx` is a valid context; no handshake of its connections is going on.
pub(crate) unsafe fn detach(ctx: *mut SSL_CTX) -> Result<()> {
    let index = index().ok_or(NO_ROOM)?;
    // SAFETY: the context is valid (caller); no callback is running or will run, so nobody uses the attachment when it
    // is freed.
    unsafe {
        let attachment = openssl_sys::SSL_CTX_get_ex_data(ctx, index).cast::<Attachment>();
        if attachment.is_null() {
            return Err(Error::Attachment("the context is not attached"));
        }
        openssl_sys::SSL_CTX_set_ex_data(ctx, index, ptr::null_mut());
        (*attachment).before.put_back(ctx);
        discard(attachment);
    }
    Ok(())
}

/// Tells `note` whether any numbered context asks its clients for certificates, while no context comes or goes; `None`
/// while one does.
pub(super) fn note_whether_any_verifies(note: impl FnOnce(bool)) -> Option<bool> {
    let _registry = REGISTRY.try_lock()?;
    let verifies = Slot::all_attached().any(Attachment::verifies_clients);
    note(verifies);
    Some(verifies)
}

/// States of [`Attachment::id_context`].
const NOT_SEEN: u8 = 0;
const NAMED: u8 = 1;
const MISSING: u8 = 2;

impl Attachment {
    /// The attachment of a context.
    ///
    /// # Safety
    /// `ctx` is a valid context, and the result is not used longer than a callback of it runs.
    pub(super) unsafe fn of(ctx: *mut SSL_CTX) -> Option<&'static Attachment> {
        let index = index()?;
        // SAFETY: the context is valid (caller); what is stored under our index is NULL or an attachment.
        unsafe { openssl_sys::SSL_CTX_get_ex_data(ctx, index).cast::<Attachment>().as_ref() }
    }

    /// The attachment of the context that a connection has now, after any switch.
    pub(super) fn serving(ssl: *mut SSL) -> Option<&'static Attachment> {
        // SAFETY: `ssl` is the connection whose callback is running; it keeps its context alive.
        unsafe {
            let ctx = openssl_sys::SSL_get_SSL_CTX(ssl);
            if ctx.is_null() { None } else { Self::of(ctx) }
        }
    }

    /// What `engine` knows the context by.
    pub(super) fn accepting(&self) -> Accepting {
        Accepting { context: self.serial, verify_mode: self.verify_mode() }
    }

    /// A session of a connection that this context accepted has, or has not, a session id context.
    pub(super) fn note_id_context(&self, named: bool) {
        self.id_context.store(if named { NAMED } else { MISSING }, Ordering::Relaxed);
    }

    /// Whether sessions are known to have a session id context here: without one OpenSSL ends the handshake of a client
    /// that it verifies and that resumes.
    pub(super) fn names_id_context(&self) -> bool {
        self.id_context.load(Ordering::Relaxed) == NAMED
    }

    /// The new-session callback that the application had, which is still called for its connections as a client.
    pub(super) fn application_new_session(&self) -> Option<NewSessionCallback> {
        self.before.new_session
    }

    /// The verify mode of the context itself.
    pub(super) fn verify_mode(&self) -> c_int {
        // SAFETY: in a callback of one of its connections, the context lives.
        unsafe { openssl_sys::SSL_CTX_get_verify_mode(self.ctx) }
    }

    /// Whether the context asks its clients for certificates. Called under the registry's lock.
    fn verifies_clients(&self) -> bool {
        // SAFETY: the context takes the registry's lock before it goes.
        unsafe { policy::context_verifies(self.ctx) }
    }

    /// Installs what the configuration says.
    ///
    /// # Safety
    /// The context is valid and used by nobody else.
    unsafe fn configure(&self) {
        let resumption = &self.engine.config().resumption;
        // SAFETY: as the caller promises.
        unsafe {
            match resumption.mode {
                Mode::Off => self.switch_off(),
                _ if self.before.says_no() && !resumption.force => {
                    log::info!(
                        "a context says no to tickets and sessions; it is left alone (resumption.force overrules)"
                    );
                }
                Mode::Stateless | Mode::Stateful => {
                    self.set_options(resumption.mode, resumption.force);
                    self.install_callbacks();
                    log::info!(
                        "attached a context ({}, realm {})",
                        resumption.mode,
                        self.engine.config().realm
                    );
                }
            }
        }
    }

    /// # Safety
    /// As for `configure`.
    unsafe fn switch_off(&self) {
        // SAFETY: as the caller promises.
        unsafe {
            let client = self.before.cache_mode & SSL_SESS_CACHE_CLIENT;
            set_cache_mode(self.ctx, SSL_SESS_CACHE_OFF | client);
            set_options(self.ctx, SSL_OP_NO_TICKET);
            openssl_sys::SSL_CTX_set_num_tickets(self.ctx, 0);
        }
        log::info!("attached a context (off: no tickets, no sessions)");
    }

    /// # Safety
    /// As for `configure`.
    unsafe fn set_options(&self, mode: Mode, force: bool) {
        let resumption = &self.engine.config().resumption;
        let lifetime =
            c_long::try_from(resumption.lifetime.as_secs().max(1)).unwrap_or(c_long::MAX);
        // SAFETY: as the caller promises.
        unsafe {
            if mode == Mode::Stateful {
                set_options(self.ctx, SSL_OP_NO_TICKET);
            } else if force {
                clear_options(self.ctx, SSL_OP_NO_TICKET);
            }
            // OpenSSL's own replay protection needs its internal cache, and ends all other resumption.
            set_options(self.ctx, SSL_OP_NO_ANTI_REPLAY);
            if self.before.tickets > 0 || force {
                openssl_sys::SSL_CTX_set_num_tickets(self.ctx, resumption.tickets.into());
            }
            let client = self.before.cache_mode & SSL_SESS_CACHE_CLIENT;
            let server =
                SSL_SESS_CACHE_SERVER | SSL_SESS_CACHE_NO_INTERNAL | SSL_SESS_CACHE_NO_AUTO_CLEAR;
            set_cache_mode(self.ctx, server | client);
            sys::SSL_CTX_set_timeout(self.ctx, lifetime);
        }
    }

    /// # Safety
    /// As for `configure`.
    unsafe fn install_callbacks(&self) {
        let own = self.slot.callbacks();
        let remove: Option<RemoveSessionCallback> = match self.engine.config().resumption.on_remove
        {
            OnRemove::Keep => None,
            OnRemove::Forget => Some(callbacks::remove_session),
        };
        // SAFETY: as the caller promises; the functions have the signatures that OpenSSL documents.
        unsafe {
            set_ticket_callback(self.ctx, Some(own.ticket_key));
            openssl_sys::SSL_CTX_sess_set_new_cb(self.ctx, Some(own.new_session));
            openssl_sys::SSL_CTX_sess_set_get_cb(self.ctx, Some(own.get_session));
            openssl_sys::SSL_CTX_sess_set_remove_cb(self.ctx, remove);
            sys::SSL_CTX_set_generate_session_id(self.ctx, Some(own.generate_id));
            let slot = self.slot.to_arg();
            sys::SSL_CTX_set_allow_early_data_cb(self.ctx, Some(callbacks::allow_early_data), slot);
        }
    }
}

impl Settings {
    /// # Safety
    /// `ctx` is a valid context.
    unsafe fn of(ctx: *mut SSL_CTX) -> Self {
        // SAFETY: as the caller promises.
        unsafe {
            Settings {
                options: options(ctx),
                cache_mode: openssl_sys::SSL_CTX_ctrl(
                    ctx,
                    SSL_CTRL_GET_SESS_CACHE_MODE,
                    0,
                    ptr::null_mut(),
                ),
                timeout: sys::SSL_CTX_get_timeout(ctx),
                tickets: openssl_sys::SSL_CTX_get_num_tickets(ctx),
                new_session: sys::SSL_CTX_sess_get_new_cb(ctx),
                get_session: sys::SSL_CTX_sess_get_get_cb(ctx),
                remove_session: sys::SSL_CTX_sess_get_remove_cb(ctx),
            }
        }
    }

    /// Whether the application turned every kind of resumption off. A cache mode alone is no opt-out: whoever brings
    /// tickets or sessions of another kind turns OpenSSL's cache off.
    fn says_no(&self) -> bool {
        self.options & SSL_OP_NO_TICKET != 0
            && self.tickets == 0
            && self.cache_mode & SSL_SESS_CACHE_SERVER == 0
    }

    /// # Safety
    /// `ctx` is a valid context that nobody else uses.
    unsafe fn put_back(&self, ctx: *mut SSL_CTX) {
        let ours = SSL_OP_NO_TICKET | SSL_OP_NO_ANTI_REPLAY;
        // SAFETY: as the caller promises.
        unsafe {
            set_options(ctx, self.options & ours);
            clear_options(ctx, !self.options & ours);
            set_cache_mode(ctx, self.cache_mode);
            sys::SSL_CTX_set_timeout(ctx, self.timeout);
            openssl_sys::SSL_CTX_set_num_tickets(ctx, self.tickets);
            openssl_sys::SSL_CTX_sess_set_new_cb(ctx, self.new_session);
            openssl_sys::SSL_CTX_sess_set_get_cb(ctx, self.get_session);
            openssl_sys::SSL_CTX_sess_set_remove_cb(ctx, self.remove_session);
            set_ticket_callback(ctx, None);
            sys::SSL_CTX_set_generate_session_id(ctx, None);
            sys::SSL_CTX_set_allow_early_data_cb(ctx, None, ptr::null_mut());
        }
    }
}

/// # Safety
/// `ctx` is a valid context.
unsafe fn set_ticket_callback(ctx: *mut SSL_CTX, callback: Option<sys::TicketKeyCallback>) {
    #[cfg(ossl300)]
    // SAFETY: as the caller promises.
    unsafe {
        sys::SSL_CTX_set_tlsext_ticket_key_evp_cb(ctx, callback);
    }
    #[cfg(not(ossl300))]
    // SAFETY: as the caller promises; OpenSSL knows by the command which type the function has.
    unsafe {
        sys::SSL_CTX_callback_ctrl(ctx, sys::SSL_CTRL_SET_TLSEXT_TICKET_KEY_CB, callback);
    }
}

/// # Safety
/// `ctx` is a valid context.
unsafe fn set_cache_mode(ctx: *mut SSL_CTX, mode: c_long) {
    // SAFETY: as the caller promises.
    unsafe { openssl_sys::SSL_CTX_ctrl(ctx, SSL_CTRL_SET_SESS_CACHE_MODE, mode, ptr::null_mut()) };
}

/// # Safety
/// `ctx` is a valid context.
#[allow(
    clippy::useless_conversion,
    reason = "OpenSSL 1.1.1 has unsigned long here, which is 32 bits on some systems"
)]
unsafe fn options(ctx: *mut SSL_CTX) -> u64 {
    // SAFETY: as the caller promises.
    unsafe { openssl_sys::SSL_CTX_get_options(ctx).into() }
}

/// # Safety
/// `ctx` is a valid context.
unsafe fn set_options(ctx: *mut SSL_CTX, options: u64) {
    // SAFETY: as the caller promises. The options in question are the same bits in every version.
    unsafe { openssl_sys::SSL_CTX_set_options(ctx, options) };
}

/// # Safety
/// `ctx` is a valid context.
unsafe fn clear_options(ctx: *mut SSL_CTX, options: u64) {
    // SAFETY: as the caller promises.
    unsafe { openssl_sys::SSL_CTX_clear_options(ctx, options) };
}

/// Frees an attachment that its context does not carry any more.
///
/// # Safety
/// Nobody uses the attachment any more.
unsafe fn discard(attachment: *mut Attachment) {
    // SAFETY: made by `attach` with Box::into_raw, and the context gave it up.
    let attachment = unsafe { Box::from_raw(attachment) };
    let _registry = REGISTRY.try_lock_for(REGISTRY_PATIENCE);
    attachment.slot.release();
    attachment.engine.forget_policies(attachment.serial);
}

/// Our place in the ex_data of contexts; taken once in a process.
fn index() -> Option<c_int> {
    static INDEX: OnceCell<c_int> = OnceCell::new();
    let index = INDEX.get_or_init(|| {
        // SAFETY: the function has the signature that OpenSSL documents for CRYPTO_get_ex_new_index.
        unsafe {
            let class = sys::CRYPTO_EX_INDEX_SSL_CTX;
            sys::CRYPTO_get_ex_new_index(class, 0, ptr::null_mut(), ptr::null(), None, Some(free))
        }
    });
    (*index >= 0).then_some(*index)
}

unsafe extern "C" fn free(
    _ctx: *mut c_void,
    attachment: *mut c_void,
    _data: *mut CRYPTO_EX_DATA,
    _index: c_int,
    _argl: c_long,
    _argp: *mut c_void,
) {
    if !attachment.is_null() {
        // SAFETY: OpenSSL frees the context, so no connection of it is left, and no callback runs.
        guarded(|| unsafe { discard(attachment.cast()) });
    }
}

/// The attachment of the context that accepted or serves `ssl`, for the application's own early-data callback.
pub(crate) fn early_data_allowed(ssl: *mut SSL) -> bool {
    guarded(|| {
        Attachment::serving(ssl).is_some_and(|attachment| callbacks::early_data(attachment, ssl))
    })
    .unwrap_or(false)
}
