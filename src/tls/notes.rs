//! What the preload saw the application ask of a context before it is attached, and OpenSSL has no getter for.

use std::ffi::{c_int, c_long, c_void};
use std::sync::atomic::{AtomicBool, Ordering};

use openssl_sys::{CRYPTO_EX_DATA, SSL_CTX};

use super::ex_data::{Place, give, unmarked};
use super::guard::contained;
use super::random::random;
use super::{attachment, sys};
use crate::engine::seen;

/// The notes on one context, in its ex_data until it is freed.
pub(super) struct Notes {
    /// No other context has it. Made with the context: servers fork before it is attached.
    number: u64,
    /// It was given a session id context.
    pub(super) id_context: AtomicBool,
    /// The application decides itself which early data it allows.
    pub(super) early_data: AtomicBool,
    /// It connects to servers.
    connects: AtomicBool,
}

fn new_number() -> u64 {
    // What is seen of this context is to be shared with children.
    seen::prepare();
    let mut bytes = [0; 8];
    let _ = random(&mut bytes);
    u64::from_le_bytes(bytes)
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
        // SAFETY: the context is valid (caller); what bears our mark under our index is notes.
        unsafe { Some(&*unmarked(openssl_sys::SSL_CTX_get_ex_data(ctx, index))?.as_ptr()) }
    }

    /// A number that no other context has.
    ///
    /// # Safety
    /// As for [`Notes::find`].
    pub(super) unsafe fn number_of(ctx: *mut SSL_CTX) -> u64 {
        // SAFETY: as the caller promises.
        unsafe { Notes::find(ctx) }.map_or_else(new_number, |notes| notes.number)
    }

    fn new(is_late: bool) -> Self {
        let told = || AtomicBool::new(is_late);
        Notes {
            number: new_number(),
            id_context: told(),
            early_data: told(),
            connects: AtomicBool::new(false),
        }
    }

    /// Makes notes on a new context.
    ///
    /// # Safety
    /// `ctx` is a valid context that nobody else has.
    pub(super) unsafe fn begin(ctx: *mut SSL_CTX) {
        // SAFETY: as the caller promises.
        unsafe { Self::put(ctx, Notes::new(false)) };
    }

    /// Makes notes on a context that has none, because it was made while another thread loaded the library. What was
    /// asked of it nobody knows: the application's word is believed to be there.
    ///
    /// # Safety
    /// `ctx` is a valid context that nobody else uses meanwhile.
    pub(super) unsafe fn begin_late(ctx: *mut SSL_CTX) {
        // SAFETY: as the caller promises.
        unsafe {
            if Self::find(ctx).is_none() {
                Self::put(ctx, Notes::new(true));
            }
        }
    }

    /// # Safety
    /// As for `begin`.
    unsafe fn put(ctx: *mut SSL_CTX, notes: Notes) {
        let Some(index) = index() else { return };
        // SAFETY: the context is valid (caller). The notes belong to its ex_data from here on, and `free` frees them.
        give(notes, |stored| unsafe { openssl_sys::SSL_CTX_set_ex_data(ctx, index, stored) == 1 });
    }

    /// The context connects to servers. It may serve all the same.
    pub(super) fn set_connects(&self) {
        self.connects.store(true, Ordering::Relaxed);
    }
}

fn index() -> Option<c_int> {
    static PLACE: Place = Place::freed_by(sys::CRYPTO_EX_INDEX_SSL_CTX, free);
    // Notes are made when their context is, and then there is room for every index below theirs: putting an attachment
    // there later moves nothing that another thread may be reading.
    attachment::index()?;
    PLACE.index()
}

unsafe extern "C" fn free(
    _ctx: *mut c_void,
    notes: *mut c_void,
    _data: *mut CRYPTO_EX_DATA,
    _index: c_int,
    _argl: c_long,
    _argp: *mut c_void,
) {
    let Some(notes) = unmarked::<Notes>(notes) else { return };
    // SAFETY: made by `put` with Box::into_raw; OpenSSL frees the context, so nobody uses them any more.
    contained(|| drop(unsafe { Box::from_raw(notes.as_ptr()) }));
}
