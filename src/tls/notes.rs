//! What the preload saw the application ask of a context before it is attached, and OpenSSL has no getter for; and which
//! contexts there are at all, so that one that verifies clients is known before it has served.

use std::ffi::{c_int, c_long, c_void};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use openssl_sys::{CRYPTO_EX_DATA, SSL_CTX};
use parking_lot::RwLock;

use super::application::Callback;
use super::ex_data::Place;
use super::guard::contained;
use super::sys::ServerNameCallback;
use super::{attach, policy, real, sys};
use crate::clock;

/// The notes on one context, in its ex_data until it is freed.
#[derive(Default)]
pub(super) struct Notes {
    /// It was given a session id context.
    pub(super) id_context: AtomicBool,
    /// The application decides itself which early data it allows.
    pub(super) early_data: AtomicBool,
    /// The application's servername callback.
    pub(super) server_name: Callback<ServerNameCallback>,
    /// It connects to servers.
    connects: AtomicBool,
    /// It is one of [`SERVERS`].
    listed: AtomicBool,
}

/// The contexts that may serve.
static SERVERS: RwLock<Vec<Context>> = RwLock::new(Vec::new());

/// The list's lock could not be had: a fork took it along. The list is not read any more, and may be wrong.
static LOST: AtomicBool = AtomicBool::new(false);

/// Longest wait of a handshake for the list; who changes it has it for microseconds.
const READER_PATIENCE: Duration = Duration::from_micros(200);

/// Longest wait of who changes the list, once in the life of a process.
const PATIENCE: Duration = Duration::from_secs(1);

/// Up to so many contexts are looked at in every handshake; more of them, once in a while: the servername callback's
/// wrapper sees what is missed meanwhile.
const LOOKED_AT_EACH_TIME: usize = 256;
const GLANCE: Duration = Duration::from_millis(100);

/// Time since boot until which a list is believed in which nobody verified; a new context ends it.
static NONE_VERIFIED_UNTIL: Instant = Instant(AtomicU64::new(0));

struct Instant(AtomicU64);

impl Instant {
    fn is_after(&self, now: Duration) -> bool {
        u128::from(self.0.load(Ordering::Relaxed)) > now.as_millis()
    }

    fn set(&self, time: Duration) {
        self.0.store(u64::try_from(time.as_millis()).unwrap_or(0), Ordering::Relaxed);
    }
}

#[derive(Clone, Copy, PartialEq)]
struct Context(*mut SSL_CTX);

// SAFETY: contexts are shared between threads by OpenSSL's own rules.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

/// Whether any context of this process verifies its clients, attached or not; true when in doubt, and `None` without the
/// preload, which alone sees all contexts. The modes are read each time: SSL_CONF_cmd(3) sets them past the preload.
pub(super) fn any_verifies() -> Option<bool> {
    if !real::is_interposed() {
        return None;
    }
    if LOST.load(Ordering::Relaxed) {
        return Some(true);
    }
    let Some(servers) = SERVERS.try_read_for(READER_PATIENCE) else {
        return Some(true);
    };
    // SAFETY: a context takes itself off the list before it goes, for which it waits until nobody reads; where it could
    // not, the list is lost.
    let look = || servers.iter().any(|context| unsafe { policy::context_verifies(context.0) });
    if servers.len() <= LOOKED_AT_EACH_TIME {
        return Some(look());
    }
    let now = clock::since_boot();
    if NONE_VERIFIED_UNTIL.is_after(now) {
        return Some(false);
    }
    let verifies = look();
    if !verifies {
        NONE_VERIFIED_UNTIL.set(now + GLANCE);
    }
    Some(verifies)
}

/// Changes the list, or gives it up.
fn change_servers(change: impl FnOnce(&mut Vec<Context>)) {
    if LOST.load(Ordering::Relaxed) {
        return;
    }
    match SERVERS.try_write_for(PATIENCE) {
        Some(mut servers) => change(&mut servers),
        None => LOST.store(true, Ordering::Relaxed),
    }
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

    /// Makes notes on a new context.
    ///
    /// # Safety
    /// `ctx` is a valid context that nobody else has.
    pub(super) unsafe fn begin(ctx: *mut SSL_CTX) {
        // SAFETY: as the caller promises.
        unsafe { Self::put(ctx, Notes::default()) };
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
                let told = || AtomicBool::new(true);
                Self::put(
                    ctx,
                    Notes { id_context: told(), early_data: told(), ..Notes::default() },
                );
            }
        }
    }

    /// # Safety
    /// As for `begin`.
    unsafe fn put(ctx: *mut SSL_CTX, notes: Notes) {
        let Some(index) = index() else { return };
        let notes = Box::into_raw(Box::new(notes));
        // SAFETY: the context is valid (caller). The notes belong to its ex_data from here on, and `free` frees them.
        unsafe {
            if openssl_sys::SSL_CTX_set_ex_data(ctx, index, notes.cast()) != 1 {
                drop(Box::from_raw(notes));
                return;
            }
            if sys::SSL_CTX_get_ssl_method(ctx) == openssl_sys::TLS_client_method() {
                return;
            }
        }
        // SAFETY: just put there.
        unsafe { (*notes).listed.store(true, Ordering::Relaxed) };
        change_servers(|servers| {
            servers.push(Context(ctx));
            NONE_VERIFIED_UNTIL.set(Duration::ZERO);
        });
    }

    fn take_off_list(&self, ctx: *mut SSL_CTX) {
        if self.listed.swap(false, Ordering::Relaxed) {
            change_servers(|servers| servers.retain(|server| *server != Context(ctx)));
        }
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
    attach::index()?;
    PLACE.index()
}

unsafe extern "C" fn free(
    ctx: *mut c_void,
    notes: *mut c_void,
    _data: *mut CRYPTO_EX_DATA,
    _index: c_int,
    _argl: c_long,
    _argp: *mut c_void,
) {
    if notes.is_null() {
        return;
    }
    // SAFETY: made by `put` with Box::into_raw; OpenSSL frees the context, so nobody uses them any more.
    contained(|| unsafe { Box::from_raw(notes.cast::<Notes>()) }.take_off_list(ctx.cast()));
}
