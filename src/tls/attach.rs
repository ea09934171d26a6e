//! Attaching to a context: what is changed on it, what is remembered, how it is put back.

use std::ffi::{c_int, c_long, c_void};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;

use openssl_sys::{CRYPTO_EX_DATA, SSL, SSL_CTX};
use parking_lot::Mutex;

use super::application::{self, Wishes};
use super::ex_data::{Place, give, unmarked};
use super::guard::guarded;
use super::notes::Notes;
use super::policy::Ciphers;
use super::real::libssl;
use super::slots::Slot;
use super::sys::{
    self, AllowEarlyDataCallback, RemoveSessionCallback, SSL_OP_NO_ANTI_REPLAY, SSL_OP_NO_TICKET,
    SSL_SESS_CACHE_CLIENT, SSL_SESS_CACHE_NO_AUTO_CLEAR, SSL_SESS_CACHE_NO_INTERNAL,
    SSL_SESS_CACHE_NO_INTERNAL_LOOKUP, SSL_SESS_CACHE_SERVER,
};
use super::trust::Trust;
use super::{callbacks, handshake, hidden, policy, real, rules, ticket};
use crate::config::{Mode, OnRemove, Resumption};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::sys::lock_within;

/// What a context that was attached carries in its ex_data, until it is freed or detached.
pub(crate) struct Attachment {
    pub(super) engine: Arc<Engine>,
    /// Whom the context trusts.
    pub(super) trust: Trust,
    /// Whether its ciphers let anybody in.
    pub(super) ciphers: Ciphers,
    pub(super) ticket_ciphers: ticket::Ciphers,
    /// Stands for rules that cannot be known.
    pub(super) private_number: [u8; 16],
    /// Never followed after the context is gone: the attachment goes with it.
    ctx: *mut SSL_CTX,
    slot: Slot,
    /// Whether the application named a session id context, as far as sessions have shown.
    id_context: AtomicU8,
    configured: AtomicBool,
    ready: AtomicBool,
    /// No other context has it; 0 where it is not known.
    pub(super) number: u64,
    /// SSL_CTX_free(3) was seen to free the context.
    is_being_freed: AtomicBool,
    /// What the application asked for, which the library's settings cover.
    pub(super) wishes: Wishes,
}

// SAFETY: the context behind the pointer is shared between threads by OpenSSL's own rules.
unsafe impl Send for Attachment {}
// SAFETY: as above.
unsafe impl Sync for Attachment {}

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
    // SAFETY: as the caller promises.
    unsafe { attach_then(engine, ctx, |_| {}) }
}

/// As [`attach`]; does one thing more before anybody is told that the context is attached.
///
/// # Safety
/// As for [`attach`].
pub(super) unsafe fn attach_then(
    engine: Arc<Engine>,
    ctx: *mut SSL_CTX,
    finish: impl FnOnce(&Attachment),
) -> Result<()> {
    // SAFETY: the context is valid (caller).
    if unsafe { Attachment::of(ctx) }.is_some() {
        return Err(Error::Attachment("the context is attached already; detach it first"));
    }
    let (Some(index), Some(_)) = (index(), handshake::index()) else {
        return Err(NO_ROOM);
    };
    // SAFETY: the context is valid (caller).
    if !unsafe { openssl_sys::SSL_CTX_get_ex_data(ctx, index) }.is_null() {
        return Err(INDEX_IN_USE);
    }
    // SAFETY: the context is valid and ours alone (caller). The attachment is owned by the context's ex_data from here
    // on, and freed by `free` or `detach`, once.
    unsafe {
        if real::is_interposed() {
            Notes::begin_late(ctx);
        }
        hidden::find_out();
        let mut private_number = [0; 16];
        // Without randomness there are no keys either.
        let _ = crate::sys::random(&mut private_number);
        let attachment = Attachment {
            engine,
            trust: Trust::default(),
            ciphers: Ciphers::default(),
            ticket_ciphers: ticket::Ciphers::new(),
            private_number,
            ctx,
            slot: Slot::SHARED,
            id_context: AtomicU8::new(NOT_SEEN),
            configured: AtomicBool::new(false),
            ready: AtomicBool::new(false),
            number: Notes::number_of(ctx),
            is_being_freed: AtomicBool::new(false),
            wishes: Wishes::of(ctx),
        };
        let registry = lock_within(&REGISTRY, REGISTRY_PATIENCE);
        let set = |stored| openssl_sys::SSL_CTX_set_ex_data(ctx, index, stored) == 1;
        let attachment = give(attachment, set).ok_or(NO_ROOM)?.as_ptr();
        let slot = Slot::take(attachment);
        (*attachment).slot = slot;
        rules::note_trust(ctx, &(*attachment).trust);
        (*attachment).configure();
        drop(registry);
        (*attachment).note_rules();
        finish(&*attachment);
        (*attachment).ready.store(true, Ordering::Release);
        (*attachment).announce();
    }
    Ok(())
}

const NO_ROOM: Error =
    Error::Attachment("OpenSSL has no room for the attachment; is memory exhausted?");

const INDEX_IN_USE: Error = Error::Attachment(
    "the application stores data of its own at an index of ex_data that is the library's; it must take one with \
     SSL_CTX_get_ex_new_index()",
);

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
        let stored = openssl_sys::SSL_CTX_get_ex_data(ctx, index);
        let attachment = unmarked::<Attachment>(stored)
            .ok_or(Error::Attachment("the context is not attached"))?
            .as_ptr();
        openssl_sys::SSL_CTX_set_ex_data(ctx, index, ptr::null_mut());
        (*attachment).wishes.put_back(ctx);
        discard(attachment);
    }
    Ok(())
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
        // SAFETY: the context is valid (caller); what bears our mark under our index is an attachment.
        unsafe { Some(&*unmarked(openssl_sys::SSL_CTX_get_ex_data(ctx, index))?.as_ptr()) }
    }

    /// The attachment of the context that a connection has now, after any switch.
    pub(super) fn serving(ssl: *mut SSL) -> Option<&'static Attachment> {
        // SAFETY: `ssl` is the connection whose callback is running; it keeps its context alive.
        unsafe {
            let ctx = openssl_sys::SSL_get_SSL_CTX(ssl);
            if ctx.is_null() { None } else { Self::of(ctx) }
        }
    }

    /// The context. It lives in callbacks of its connections.
    pub(super) fn ctx(&self) -> *mut SSL_CTX {
        self.ctx
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

    /// Whether attaching is over: until then, connections would copy settings that are half ours.
    pub(super) fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    /// Whether the library's settings are on the context: not where the application disabled resumption.
    pub(super) fn is_configured(&self) -> bool {
        self.configured.load(Ordering::Relaxed)
    }

    /// Whether the library's callbacks are on the context: neither where the application disabled resumption, nor with
    /// mode off.
    pub(super) fn has_callbacks(&self) -> bool {
        self.is_configured() && self.engine.config().resumption.mode != Mode::Off
    }

    /// Whether the application disabled resumption, and may.
    fn is_left_alone(&self) -> bool {
        self.wishes.disables_resumption() && !self.engine.config().resumption.force
    }

    /// Installs what the configuration says.
    ///
    /// # Safety
    /// The context is valid and used by nobody else.
    unsafe fn configure(&self) {
        if self.engine.config().resumption.mode != Mode::Off && self.is_left_alone() {
            return;
        }
        self.configured.store(true, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe {
            self.install_settings();
            if self.has_callbacks() {
                self.install_callbacks();
            }
        }
    }

    /// A context that the application attaches is a server's. The preload attaches clients' contexts too, which verify
    /// servers: there only who was served tells.
    fn note_rules(&self) {
        if self.has_callbacks() && !real::is_interposed() && policy::verifies_clients(self) {
            self.engine.note_rules();
        }
    }

    /// The proof of life.
    fn announce(&self) {
        let config = self.engine.config();
        match config.resumption.mode {
            _ if !self.is_configured() => log::info!(
                "context has resumption disabled; left unchanged (resumption.force overrides)"
            ),
            Mode::Off => log::info!("attached a context (off: no tickets, no sessions)"),
            mode => log::info!("attached a context ({mode}, realm {})", config.realm),
        }
    }

    /// Sets options, number of tickets, cache mode and timeout, as configuration and application want it.
    ///
    /// # Safety
    /// The context is valid.
    unsafe fn install_settings(&self) {
        let libssl = libssl();
        let Resumption { mode, lifetime, .. } = self.engine.config().resumption;
        let forced = self.forced_options();
        // SAFETY: as the caller promises.
        unsafe {
            (libssl.ctx_set_options)(self.ctx, forced.set);
            (libssl.ctx_clear_options)(self.ctx, forced.cleared);
            (libssl.ctx_set_num_tickets)(self.ctx, self.tickets());
            application::set_cache_mode(self.ctx, self.cache_mode());
            if mode != Mode::Off {
                let seconds = c_long::try_from(lifetime.as_secs().max(1)).unwrap_or(c_long::MAX);
                (libssl.ctx_set_timeout)(self.ctx, seconds);
            }
        }
    }

    /// The options that the application cannot change.
    pub(super) fn forced_options(&self) -> Forced {
        let Resumption { mode, force, .. } = self.engine.config().resumption;
        match mode {
            Mode::Off => Forced { set: SSL_OP_NO_TICKET, cleared: 0 },
            // OpenSSL's own replay protection needs its internal cache, and ends all other resumption.
            Mode::Stateful => Forced { set: SSL_OP_NO_TICKET | SSL_OP_NO_ANTI_REPLAY, cleared: 0 },
            Mode::Stateless => Forced {
                set: SSL_OP_NO_ANTI_REPLAY,
                cleared: if force { SSL_OP_NO_TICKET } else { 0 },
            },
        }
    }

    /// TLS 1.3 tickets of a full handshake; none where the application wants none.
    pub(super) fn tickets(&self) -> usize {
        let Resumption { mode, force, tickets, .. } = self.engine.config().resumption;
        let wanted = mode != Mode::Off && (force || self.wishes.tickets() > 0);
        if wanted { tickets.into() } else { 0 }
    }

    /// The cache mode, with the application's word on its connections as a client.
    pub(super) fn cache_mode(&self) -> c_long {
        let wanted = self.wishes.cache_mode();
        match self.engine.config().resumption.mode {
            Mode::Off => wanted & !SSL_SESS_CACHE_SERVER,
            _ if self.is_left_alone() => wanted,
            // Under the preload, a context of clients keeps what its application wants; the store alone is looked at.
            _ if real::is_interposed() && wanted & SSL_SESS_CACHE_CLIENT != 0 => {
                wanted | SSL_SESS_CACHE_SERVER | SSL_SESS_CACHE_NO_INTERNAL_LOOKUP
            }
            Mode::Stateless | Mode::Stateful => {
                SSL_SESS_CACHE_SERVER
                    | SSL_SESS_CACHE_NO_INTERNAL
                    | SSL_SESS_CACHE_NO_AUTO_CLEAR
                    | (wanted & SSL_SESS_CACHE_CLIENT)
            }
        }
    }

    /// # Safety
    /// As for `configure`.
    unsafe fn install_callbacks(&self) {
        let (libssl, own) = (libssl(), self.slot.callbacks());
        // SAFETY: as the caller promises; the functions have the signatures that OpenSSL documents.
        unsafe {
            application::set_ticket_callback(self.ctx, Some(own.ticket_key));
            (libssl.ctx_sess_set_new_cb)(self.ctx, Some(own.new_session));
            (libssl.ctx_sess_set_get_cb)(self.ctx, Some(own.get_session));
            self.install_remove_callback();
            (libssl.ctx_set_generate_session_id)(self.ctx, Some(own.generate_id));
            self.install_early_data_callback();
        }
    }

    /// The strike register and an application's own callback would both have to allow early data, and cannot be asked
    /// both: where the preload saw one, early data is refused, which costs the client a round trip.
    ///
    /// # Safety
    /// The context is valid.
    pub(super) unsafe fn install_early_data_callback(&self) {
        // SAFETY: the context is valid (caller).
        let notes = unsafe { Notes::find(self.ctx) };
        let decides_itself = notes.is_some_and(|notes| notes.early_data.load(Ordering::Relaxed));
        let ask: AllowEarlyDataCallback = match decides_itself {
            true => callbacks::refuse_early_data,
            false => callbacks::allow_early_data,
        };
        // SAFETY: the context is valid (caller); the functions have the signature that OpenSSL documents.
        unsafe { (libssl().ctx_set_allow_early_data_cb)(self.ctx, Some(ask), self.slot.to_arg()) };
    }

    /// Has a connection's early data decided by the strike register, as that of others is.
    ///
    /// # Safety
    /// `ssl` is a valid connection that this context accepts.
    pub(super) unsafe fn ask_register(&self, ssl: *mut SSL) {
        let (ask, slot) = (callbacks::allow_early_data, self.slot.to_arg());
        // SAFETY: as the caller promises; the function has the signature that OpenSSL documents.
        unsafe { (libssl().set_allow_early_data_cb)(ssl, Some(ask), slot) };
    }

    /// Whether OpenSSL's own cache keeps sessions of this context, as it must for its connections as a client. It then
    /// removes them in bulk (SSL_CTX_flush_sessions(3), SSL_CTX_free(3)), which says nothing of the shared ones.
    pub(super) fn has_cache_of_its_own(&self) -> bool {
        self.cache_mode() & SSL_SESS_CACHE_NO_INTERNAL != SSL_SESS_CACHE_NO_INTERNAL
    }

    /// Whether SSL_CTX_free(3) is freeing the context: it removes the sessions that the application put into the
    /// context's cache by SSL_CTX_add_session(3).
    ///
    /// # Safety
    /// The remove-session callback of the context is running.
    pub(super) unsafe fn context_is_being_freed(&self) -> bool {
        // SAFETY: the context is valid (caller). SSL_CTX_up_ref(3) says whether there was a reference before; the one
        // it adds is given back, or means nothing to a context that is being freed already. The caller's reference
        // keeps this from being the last.
        unsafe {
            if self.is_being_freed.load(Ordering::Relaxed) {
                return true;
            }
            let is_alive = openssl_sys::SSL_CTX_up_ref(self.ctx) == 1;
            if is_alive {
                openssl_sys::SSL_CTX_free(self.ctx);
            }
            // From now on the context seems to have the reference that was added.
            self.is_being_freed.store(!is_alive, Ordering::Relaxed);
            !is_alive
        }
    }

    /// Sets the remove-session callback, for what the application removes is removed for all. A context with a cache of
    /// its own gets it only where the application has such a callback, or with `on_remove = "forget"`.
    ///
    /// # Safety
    /// The context is valid.
    pub(super) unsafe fn install_remove_callback(&self) {
        let forget = self.engine.config().resumption.on_remove == OnRemove::Forget;
        let listens =
            forget || !self.has_cache_of_its_own() || self.wishes.remove_session.get().is_some();
        let callback: RemoveSessionCallback = callbacks::remove_session;
        // SAFETY: as the caller promises; the function has the signature that OpenSSL documents.
        unsafe { (libssl().ctx_sess_set_remove_cb)(self.ctx, listens.then_some(callback)) };
    }
}

/// Options that a configuration sets and clears whatever the application wants.
#[derive(Clone, Copy)]
pub(super) struct Forced {
    pub(super) set: u64,
    pub(super) cleared: u64,
}

/// Frees an attachment that its context does not carry any more.
///
/// # Safety
/// Nobody uses the attachment any more.
unsafe fn discard(attachment: *mut Attachment) {
    // SAFETY: made by `attach` with Box::into_raw, and the context gave it up.
    let attachment = unsafe { Box::from_raw(attachment) };
    let _registry = lock_within(&REGISTRY, REGISTRY_PATIENCE);
    attachment.slot.release();
}

/// Our place in the ex_data of contexts.
pub(super) fn index() -> Option<c_int> {
    static PLACE: Place = Place::freed_by(sys::CRYPTO_EX_INDEX_SSL_CTX, free);
    PLACE.index()
}

unsafe extern "C" fn free(
    _ctx: *mut c_void,
    attachment: *mut c_void,
    _data: *mut CRYPTO_EX_DATA,
    _index: c_int,
    _argl: c_long,
    _argp: *mut c_void,
) {
    if let Some(attachment) = unmarked(attachment) {
        // SAFETY: OpenSSL frees the context, so no connection of it is left, and no callback runs.
        guarded(|| unsafe { discard(attachment.as_ptr()) });
    }
}

/// Whether early data of `ssl` may be accepted, for the application's own early-data callback. `false` where the
/// context that serves the connection is not attached.
pub(crate) fn early_data_allowed(ssl: *mut SSL) -> bool {
    guarded(|| {
        Attachment::serving(ssl).is_some_and(|attachment| callbacks::early_data(attachment, ssl))
    })
    .unwrap_or(false)
}
