//! What is remembered of a context that was attached.
//!
//! Owns: [`Attachment`], one for a context, in its ex_data; the registry of those that come and go; the table of their
//! numbers. Called by: everybody in `tls`. Threads: what changes is atomic; numbers are taken and given back by one atomic
//! operation each. Forks: children inherit it. Failure: without a free number, the shared one.

use std::ffi::{c_int, c_long, c_void};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;

use openssl_sys::{CRYPTO_EX_DATA, SSL, SSL_CTX};
use parking_lot::{Mutex, MutexGuard};

use super::application::Wishes;
use super::ex_data::{Place, unmarked};
use super::guard::guarded;
use super::random::random;
use super::sys::{
    self, SSL_OP_NO_ANTI_REPLAY, SSL_OP_NO_TICKET, SSL_SESS_CACHE_CLIENT,
    SSL_SESS_CACHE_NO_AUTO_CLEAR, SSL_SESS_CACHE_NO_INTERNAL, SSL_SESS_CACHE_NO_INTERNAL_LOOKUP,
    SSL_SESS_CACHE_SERVER,
};
use super::trust::Trust;
use super::{real, ticket};
use crate::config::{Mode, Resumption};
use crate::engine::Engine;
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
    pub(super) slot: Slot,
    /// Whether the application named a session id context, as far as sessions have shown.
    id_context: AtomicU8,
    pub(super) configured: AtomicBool,
    pub(super) ready: AtomicBool,
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

/// For as long as the set of attached contexts changes.
pub(super) fn registry() -> Option<MutexGuard<'static, ()>> {
    lock_within(&REGISTRY, REGISTRY_PATIENCE)
}

/// What was found out of a list of ciphers: a print of the list, and 1 where it lets anybody in.
#[derive(Default)]
pub(super) struct Ciphers(pub(super) AtomicUsize);

/// States of [`Attachment::id_context`].
const NOT_SEEN: u8 = 0;
const NAMED: u8 = 1;
const MISSING: u8 = 2;

impl Attachment {
    /// Of a context that is being attached, which has this number.
    ///
    /// # Safety
    /// `ctx` is a valid context that no other thread uses meanwhile.
    pub(super) unsafe fn new(engine: Arc<Engine>, ctx: *mut SSL_CTX, number: u64) -> Self {
        let mut private_number = [0; 16];
        let _ = random(&mut private_number);
        Attachment {
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
            number,
            is_being_freed: AtomicBool::new(false),
            // SAFETY: as the caller promises.
            wishes: unsafe { Wishes::of(ctx) },
        }
    }

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
    pub(super) fn is_left_alone(&self) -> bool {
        self.wishes.disables_resumption() && !self.engine.config().resumption.force
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
}

/// How many contexts of a process have a number.
pub(super) const NUMBERED: usize = Slot::SHARED_NUMBER as usize;

/// The number of an attached context, or the one that all further contexts share. OpenSSL calls functions that know the
/// number of the accepting context ([`super::trampolines`]). There are 512 in a process (nginx has the contexts of two
/// configurations while it reloads); further contexts are told apart by the connection's current context only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot(u16);

static ATTACHED: [AtomicPtr<Attachment>; NUMBERED] =
    [const { AtomicPtr::new(ptr::null_mut()) }; NUMBERED];

impl Slot {
    /// The slot that contexts beyond the numbered ones share.
    pub(super) const SHARED: Slot = Slot(Self::SHARED_NUMBER);

    /// Its number.
    pub(super) const SHARED_NUMBER: u16 = 512;

    /// Gives a number to an attachment, if one is left.
    pub(super) fn take(attachment: *mut Attachment) -> Slot {
        let free = ATTACHED.iter().position(|slot| {
            slot.compare_exchange(ptr::null_mut(), attachment, Ordering::Release, Ordering::Relaxed)
                .is_ok()
        });
        free.and_then(|number| u16::try_from(number).ok()).map_or(Slot::SHARED, Slot)
    }

    /// Gives the number back. The attachment is not looked at any more.
    pub(super) fn release(self) {
        if let Some(slot) = ATTACHED.get(usize::from(self.0)) {
            slot.store(ptr::null_mut(), Ordering::Release);
        }
    }

    /// The attachment that has this number.
    pub(super) fn attachment(self) -> Option<&'static Attachment> {
        let attachment = ATTACHED.get(usize::from(self.0))?.load(Ordering::Acquire);
        // SAFETY: a pointer in the table is an attachment that lives until its context is freed or detached. A
        // connection keeps its context alive, and tlsresume_detach must not run during handshakes; so whoever is called
        // back for this slot may use the attachment until the callback returns, and nobody keeps it longer.
        unsafe { attachment.as_ref() }
    }

    /// The attachment for a connection that was accepted by a context of this slot.
    pub(super) fn attachment_for(self, ssl: *mut SSL) -> Option<&'static Attachment> {
        if self == Slot::SHARED { Attachment::serving(ssl) } else { self.attachment() }
    }

    /// The slot of a number.
    pub(super) const fn of(number: u16) -> Slot {
        Slot(number)
    }

    /// The number.
    pub(super) fn number(self) -> usize {
        self.0.into()
    }

    /// The slot's number as a callback argument, and back.
    pub(super) fn to_arg(self) -> *mut c_void {
        ptr::without_provenance_mut(usize::from(self.0))
    }

    /// The slot whose [`Slot::to_arg`] this is.
    pub(super) fn from_arg(arg: *mut c_void) -> Slot {
        u16::try_from(arg.addr()).map_or(Slot::SHARED, |number| Slot(number.min(Slot::SHARED.0)))
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
pub(super) unsafe fn discard(attachment: *mut Attachment) {
    // SAFETY: made by `attach` with Box::into_raw, and the context gave it up.
    let attachment = unsafe { Box::from_raw(attachment) };
    let _registry = registry();
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
