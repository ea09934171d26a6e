//! What the application asked of a context for the purposes that the library now serves: read when the context is
//! attached, kept up to date by the preload, put back when it is detached.

use std::ffi::{c_int, c_long, c_void};
use std::marker::PhantomData;
use std::ptr;
use std::sync::atomic::{AtomicI64, AtomicPtr, AtomicU64, AtomicUsize, Ordering};

use openssl_sys::SSL_CTX;

use super::real::libssl;
use super::sys::{
    GetSessionCallback, NewSessionCallback, RemoveSessionCallback, SSL_CTRL_GET_SESS_CACHE_MODE,
    SSL_CTRL_SET_SESS_CACHE_MODE, SSL_CTX_get_options, SSL_OP_NO_ANTI_REPLAY, SSL_OP_NO_TICKET,
    SSL_SESS_CACHE_SERVER, TicketKeyCallback,
};

/// The options that the library has a say in.
pub(super) const OUR_OPTIONS: u64 = SSL_OP_NO_TICKET | SSL_OP_NO_ANTI_REPLAY;

/// The application's wishes, as far as OpenSSL tells them or the preload saw them.
pub(super) struct Wishes {
    /// Of all options the ones in [`OUR_OPTIONS`].
    options: AtomicU64,
    cache_mode: AtomicI64,
    timeout: AtomicI64,
    tickets: AtomicUsize,
    pub(super) new_session: Callback<NewSessionCallback>,
    pub(super) get_session: Callback<GetSessionCallback>,
    pub(super) remove_session: Callback<RemoveSessionCallback>,
}

impl Wishes {
    /// What a context has.
    ///
    /// # Safety
    /// `ctx` is a valid context.
    pub(super) unsafe fn of(ctx: *mut SSL_CTX) -> Self {
        let libssl = libssl();
        // SAFETY: as the caller promises.
        unsafe {
            let mode = (libssl.ctx_ctrl)(ctx, SSL_CTRL_GET_SESS_CACHE_MODE, 0, ptr::null_mut());
            Wishes {
                options: AtomicU64::new(SSL_CTX_get_options(ctx) & OUR_OPTIONS),
                cache_mode: AtomicI64::new(wide(mode)),
                timeout: AtomicI64::new(wide((libssl.ctx_get_timeout)(ctx))),
                tickets: AtomicUsize::new((libssl.ctx_get_num_tickets)(ctx)),
                new_session: Callback::new((libssl.ctx_sess_get_new_cb)(ctx)),
                get_session: Callback::new((libssl.ctx_sess_get_get_cb)(ctx)),
                remove_session: Callback::new((libssl.ctx_sess_get_remove_cb)(ctx)),
            }
        }
    }

    /// Whether the application disabled resumption: neither tickets nor a server cache, which is how OpenSSL's
    /// maintainers have it, whatever the number of TLS 1.3 tickets. One of them alone is no opt-out: an application
    /// that prefers tickets turns the cache off, and the other way round.
    pub(super) fn disables_resumption(&self) -> bool {
        self.options() & SSL_OP_NO_TICKET != 0 && self.cache_mode() & SSL_SESS_CACHE_SERVER == 0
    }

    pub(super) fn options(&self) -> u64 {
        self.options.load(Ordering::Relaxed)
    }

    pub(super) fn add_options(&self, options: u64) {
        self.options.fetch_or(options & OUR_OPTIONS, Ordering::Relaxed);
    }

    pub(super) fn remove_options(&self, options: u64) {
        self.options.fetch_and(!options, Ordering::Relaxed);
    }

    pub(super) fn cache_mode(&self) -> c_long {
        as_long(self.cache_mode.load(Ordering::Relaxed))
    }

    pub(super) fn set_cache_mode(&self, mode: c_long) -> c_long {
        as_long(self.cache_mode.swap(wide(mode), Ordering::Relaxed))
    }

    pub(super) fn timeout(&self) -> c_long {
        as_long(self.timeout.load(Ordering::Relaxed))
    }

    pub(super) fn set_timeout(&self, seconds: c_long) -> c_long {
        as_long(self.timeout.swap(wide(seconds), Ordering::Relaxed))
    }

    pub(super) fn tickets(&self) -> usize {
        self.tickets.load(Ordering::Relaxed)
    }

    pub(super) fn set_tickets(&self, count: usize) {
        self.tickets.store(count, Ordering::Relaxed);
    }

    /// Gives the context what the application wants, and clears the callbacks that cannot be known.
    ///
    /// # Safety
    /// `ctx` is a valid context that nobody else uses.
    pub(super) unsafe fn put_back(&self, ctx: *mut SSL_CTX) {
        let libssl = libssl();
        // SAFETY: as the caller promises.
        unsafe {
            (libssl.ctx_set_options)(ctx, self.options());
            (libssl.ctx_clear_options)(ctx, !self.options() & OUR_OPTIONS);
            set_cache_mode(ctx, self.cache_mode());
            (libssl.ctx_set_timeout)(ctx, self.timeout());
            (libssl.ctx_set_num_tickets)(ctx, self.tickets());
            (libssl.ctx_sess_set_new_cb)(ctx, self.new_session.get());
            (libssl.ctx_sess_set_get_cb)(ctx, self.get_session.get());
            (libssl.ctx_sess_set_remove_cb)(ctx, self.remove_session.get());
            set_ticket_callback(ctx, None);
            (libssl.ctx_set_generate_session_id)(ctx, None);
            (libssl.ctx_set_allow_early_data_cb)(ctx, None, ptr::null_mut());
        }
    }
}

/// A callback that may be replaced while another thread calls it.
pub(super) struct Callback<F>(AtomicPtr<c_void>, PhantomData<F>);

impl<F: Copy> Default for Callback<F> {
    fn default() -> Self {
        Callback::new(None)
    }
}

impl<F: Copy> Callback<F> {
    fn new(callback: Option<F>) -> Self {
        Callback(AtomicPtr::new(Self::address(callback)), PhantomData)
    }

    pub(super) fn get(&self) -> Option<F> {
        let address = self.0.load(Ordering::Relaxed);
        // SAFETY: `address` made it of an Option<F>, which has the same representation.
        unsafe { std::mem::transmute_copy(&address) }
    }

    pub(super) fn set(&self, callback: Option<F>) {
        self.0.store(Self::address(callback), Ordering::Relaxed);
    }

    fn address(callback: Option<F>) -> *mut c_void {
        const { assert!(size_of::<Option<F>>() == size_of::<*mut c_void>()) };
        // SAFETY: F is a function pointer of C (the only instances are those above), so that Option<F> is an address,
        // NULL for None.
        unsafe { std::mem::transmute_copy(&callback) }
    }
}

/// # Safety
/// `ctx` is a valid context.
pub(super) unsafe fn set_cache_mode(ctx: *mut SSL_CTX, mode: c_long) {
    let set: c_int = SSL_CTRL_SET_SESS_CACHE_MODE;
    // SAFETY: as the caller promises.
    unsafe { (libssl().ctx_ctrl)(ctx, set, mode, ptr::null_mut()) };
}

/// # Safety
/// `ctx` is a valid context.
pub(super) unsafe fn set_ticket_callback(ctx: *mut SSL_CTX, callback: Option<TicketKeyCallback>) {
    // SAFETY: as the caller promises. Without the newer function the command says which type the callback has.
    unsafe {
        match libssl().ctx_set_ticket_key_evp_cb {
            Some(set) => {
                set(ctx, callback);
            }
            None => {
                let callback = std::mem::transmute::<
                    Option<TicketKeyCallback>,
                    Option<super::sys::AnyCallback>,
                >(callback);
                let command = super::sys::SSL_CTRL_SET_TLSEXT_TICKET_KEY_CB;
                (libssl().ctx_callback_ctrl)(ctx, command, callback);
            }
        }
    }
}

#[allow(clippy::useless_conversion, reason = "a long has 32 bits on some systems")]
fn wide(value: c_long) -> i64 {
    value.into()
}

fn as_long(value: i64) -> c_long {
    c_long::try_from(value).unwrap_or(c_long::MAX)
}
