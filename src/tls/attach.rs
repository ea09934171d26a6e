//! Attaching to a context: what is changed on it, what is remembered, how it is put back.

use std::ffi::c_long;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use openssl_sys::{SSL, SSL_CTX};

use super::attachment::{Attachment, Slot, discard, index, registry};
use super::ex_data::{give, unmarked};
use super::guard::guarded;
use super::notes::Notes;
use super::real::libssl;
use super::sys::{AllowEarlyDataCallback, RemoveSessionCallback};
use super::{application, callbacks, handshake, hidden, policy, real, removal, rules, trampolines};
use crate::config::{Mode, OnRemove, Resumption};
use crate::engine::Engine;
use crate::error::{Error, Result};

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
        let attachment = Attachment::new(engine, ctx, Notes::number_of(ctx));
        let registry = registry();
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

impl Attachment {
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
            (libssl.ctx_set_options)(self.ctx(), forced.set);
            (libssl.ctx_clear_options)(self.ctx(), forced.cleared);
            (libssl.ctx_set_num_tickets)(self.ctx(), self.tickets());
            application::set_cache_mode(self.ctx(), self.cache_mode());
            if mode != Mode::Off {
                let seconds = c_long::try_from(lifetime.as_secs().max(1)).unwrap_or(c_long::MAX);
                (libssl.ctx_set_timeout)(self.ctx(), seconds);
            }
        }
    }

    /// # Safety
    /// As for `configure`.
    unsafe fn install_callbacks(&self) {
        let (libssl, own) = (libssl(), trampolines::of(self.slot));
        // SAFETY: as the caller promises; the functions have the signatures that OpenSSL documents.
        unsafe {
            application::set_ticket_callback(self.ctx(), Some(own.ticket_key));
            (libssl.ctx_sess_set_new_cb)(self.ctx(), Some(own.new_session));
            (libssl.ctx_sess_set_get_cb)(self.ctx(), Some(own.get_session));
            self.install_remove_callback();
            (libssl.ctx_set_generate_session_id)(self.ctx(), Some(own.generate_id));
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
        let notes = unsafe { Notes::find(self.ctx()) };
        let decides_itself = notes.is_some_and(|notes| notes.early_data.load(Ordering::Relaxed));
        let ask: AllowEarlyDataCallback = match decides_itself {
            true => callbacks::refuse_early_data,
            false => callbacks::allow_early_data,
        };
        // SAFETY: the context is valid (caller); the functions have the signature that OpenSSL documents.
        unsafe {
            (libssl().ctx_set_allow_early_data_cb)(self.ctx(), Some(ask), self.slot.to_arg())
        };
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
        removal::ask_from(callback);
        // SAFETY: as the caller promises; the function has the signature that OpenSSL documents.
        unsafe { (libssl().ctx_sess_set_remove_cb)(self.ctx(), listens.then_some(callback)) };
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
