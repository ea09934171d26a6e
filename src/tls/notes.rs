//! What the preload saw the application ask of a context before it is attached, and OpenSSL has no getter for.

use std::ffi::{c_int, c_long, c_void};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use once_cell::sync::OnceCell;
use openssl_sys::{CRYPTO_EX_DATA, SSL_CTX};

use super::guard::contained;
use super::{attach, sys};

/// The notes on one context, in its ex_data until it is freed.
#[derive(Default)]
pub(super) struct Notes {
    /// It was given a session id context.
    pub(super) id_context: AtomicBool,
    /// The application decides itself which early data it allows.
    pub(super) early_data: AtomicBool,
    /// It connects to servers.
    connects: AtomicBool,
    /// It is counted in [`VERIFYING`].
    verifies: AtomicBool,
}

/// Contexts that verify their peers and, as far as is known, are no clients.
static VERIFYING: AtomicUsize = AtomicUsize::new(0);

/// Whether any context is known to verify its clients, attached or not.
pub(super) fn any_verifies() -> bool {
    VERIFYING.load(Ordering::Relaxed) > 0
}

/// Whether this context was seen to connect to servers.
///
/// # Safety
/// `ctx` is a valid context.
pub(super) unsafe fn connects(ctx: *mut SSL_CTX) -> bool {
    // SAFETY: as the caller promises.
    unsafe { Notes::find(ctx) }.is_some_and(|notes| notes.connects.load(Ordering::Relaxed))
}

impl Notes {
    /// The notes on a context, if there are any.
    ///
    /// # Safety
    /// `ctx` is a valid context, and the result is not used longer than it.
    pub(super) unsafe fn find(ctx: *mut SSL_CTX) -> Option<&'static Notes> {
        let index = index()?;
        // SAFETY: the context is valid (caller); what is stored under our index is NULL or notes.
        unsafe { openssl_sys::SSL_CTX_get_ex_data(ctx, index).cast::<Notes>().as_ref() }
    }

    /// The notes on a context, made if need be; `None` when memory or OpenSSL fails.
    ///
    /// # Safety
    /// As for [`Notes::find`]; and no other thread uses the context meanwhile.
    pub(super) unsafe fn of(ctx: *mut SSL_CTX) -> Option<&'static Notes> {
        // SAFETY: the context is valid (caller). The notes belong to its ex_data from here on, and `free` frees them.
        unsafe {
            if let Some(notes) = Self::find(ctx) {
                return Some(notes);
            }
            let notes = Box::into_raw(Box::<Notes>::default());
            if openssl_sys::SSL_CTX_set_ex_data(ctx, index()?, notes.cast()) != 1 {
                drop(Box::from_raw(notes));
                return None;
            }
            Some(&*notes)
        }
    }

    /// The context was told to verify its peers, or not to.
    pub(super) fn set_verifies(&self, verifies: bool) {
        let verifies = verifies && !self.connects.load(Ordering::Relaxed);
        match (self.verifies.swap(verifies, Ordering::Relaxed), verifies) {
            (false, true) => VERIFYING.fetch_add(1, Ordering::Relaxed),
            (true, false) => VERIFYING.fetch_sub(1, Ordering::Relaxed),
            _ => 0,
        };
    }

    /// The context connects to servers: those are the peers that it verifies.
    pub(super) fn set_connects(&self) {
        self.connects.store(true, Ordering::Relaxed);
        self.set_verifies(false);
    }
}

/// Our place in the ex_data of contexts; taken once in a process.
fn index() -> Option<c_int> {
    static INDEX: OnceCell<c_int> = OnceCell::new();
    let index = INDEX.get_or_init(|| {
        // Notes are made when their context is, and then there is room for every index below theirs: putting an
        // attachment there later moves nothing that another thread may be reading.
        attach::index();
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
    notes: *mut c_void,
    _data: *mut CRYPTO_EX_DATA,
    _index: c_int,
    _argl: c_long,
    _argp: *mut c_void,
) {
    if !notes.is_null() {
        // SAFETY: made by `Notes::of` with Box::into_raw; OpenSSL frees the context, so nobody uses them any more.
        contained(|| unsafe { Box::from_raw(notes.cast::<Notes>()) }.set_verifies(false));
    }
}
