//! Whose wish it is that a session is removed: the application's (a logout), or OpenSSL's own.
//!
//! OpenSSL calls the remove-session callback for both, and does not say for which connection. So it is remembered which
//! connection has which session. By itself OpenSSL removes
//!
//! - the session of a connection that is freed before it sent a close_notify alert, as browsers and servers under load do
//!   all the time;
//! - the session of a handshake that fails, which anybody causes who saw a ClientHello and sends it with nonsense behind;
//! - since version 3, the session of a client that closes the connection without a close_notify alert.
//!
//! Such a session is as good as before. Every other removal counts as the application's, also that of a fatal alert on an
//! established connection, after which a session must not be resumed (RFC 5246, section 7.2.2).
//!
//! SSL_free(3) first frees a connection's ex_data and then removes its session, on the same thread; since version 3.2 it
//! is the other way round.
//!
//! Owns: the table of sessions and connections. Called by: the callbacks. Threads: the table has locks that are held for
//! a few instructions. Forks: a child that finds one locked for ever does without. Failure: what is not remembered, and
//! what it costs to look, is decided by OpenSSL's last error alone.

use std::cell::Cell;
use std::collections::HashMap;
use std::ffi::c_ulong;
use std::hash::{BuildHasherDefault, Hasher};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use openssl_sys::SSL;
use parking_lot::{Mutex, MutexGuard};

use super::connection::is_quic;
use super::session::Session;
use super::sys;

/// The connection that has a session. It is removed before the connection's memory is given back, under the lock.
type Holders = HashMap<usize, NonNull<SSL>, BuildHasherDefault<Addresses>>;

struct Shard {
    holders: Mutex<Holders>,
    /// An entry could not be removed, and its connection may be gone.
    is_spoiled: AtomicBool,
}

// SAFETY: the connections are looked at under the lock alone, and only in ways that OpenSSL makes safe between threads.
unsafe impl Sync for Shard {}

const SHARDS: usize = 64;

static HOLDERS: [Shard; SHARDS] = [const {
    let holders = Mutex::new(HashMap::with_hasher(BuildHasherDefault::new()));
    Shard { holders, is_spoiled: AtomicBool::new(false) }
}; SHARDS];

/// Longer than anybody who lives holds a lock: a process that waits for so long has it from a fork.
const PATIENCE: Duration = Duration::from_secs(1);

/// OpenSSL 3.2.0, by OpenSSL_version_num(3).
const FREES_SESSIONS_FIRST: c_ulong = 0x3020_0000;

thread_local! {
    /// The session of the connection that this thread frees.
    static FREED: Cell<usize> = const { Cell::new(0) };
}

/// A connection's entry in the table.
#[derive(Default)]
pub(super) struct Held(Option<(usize, NonNull<SSL>)>);

impl Held {
    /// From now on the connection has this session.
    pub(super) fn change(&mut self, ssl: *mut SSL, session: Session) {
        let address = session.as_non_null().addr().get();
        if self.0.is_some_and(|(held, _)| held == address) || is_quic(ssl) {
            return;
        }
        self.release();
        let (Some(ssl), Some(mut holders)) = (NonNull::new(ssl), shard(address).lock()) else {
            return;
        };
        if holders.try_reserve(1).is_ok() {
            holders.insert(address, ssl);
            self.0 = Some((address, ssl));
        }
    }

    fn release(&mut self) {
        let Some((address, ssl)) = self.0.take() else { return };
        let shard = shard(address);
        match shard.lock() {
            // Another connection's session may have the same address by now.
            Some(mut holders) if holders.get(&address) == Some(&ssl) => {
                _ = holders.remove(&address)
            }
            Some(_) => {}
            None => shard.is_spoiled.store(true, Ordering::Release),
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.release();
    }
}

fn shard(address: usize) -> &'static Shard {
    &HOLDERS[(address.wrapping_mul(Addresses::ODD) >> 40) % SHARDS]
}

impl Shard {
    fn lock(&self) -> Option<MutexGuard<'_, Holders>> {
        let holders = self.holders.try_lock_for(PATIENCE)?;
        (!self.is_spoiled.load(Ordering::Acquire)).then_some(holders)
    }
}

/// A hash for addresses.
#[derive(Default)]
struct Addresses(u64);

impl Addresses {
    const ODD: usize = 0x9E37_79B9_7F4A_7C15;
}

impl Hasher for Addresses {
    fn write(&mut self, _: &[u8]) {}

    fn write_usize(&mut self, address: usize) {
        self.0 = address.wrapping_mul(Addresses::ODD) as u64;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// A connection is being freed: what is left of it is its session, unless OpenSSL has freed that first.
///
/// # Safety
/// `ssl` is a connection whose ex_data is being freed, not of QUIC.
pub(super) unsafe fn connection_is_freed(ssl: *mut SSL) {
    // SAFETY: no precondition; and as the caller promises.
    unsafe {
        if openssl_sys::OpenSSL_version_num() >= FREES_SESSIONS_FIRST {
            return;
        }
        let is_unclean = openssl_sys::SSL_get_shutdown(ssl) & sys::SSL_SENT_SHUTDOWN == 0;
        // OpenSSL leaves the session of an unfinished handshake alone.
        if is_unclean && sys::SSL_in_init(ssl) == 0 {
            FREED.set(openssl_sys::SSL_get_session(ssl).addr());
        }
    }
}

/// Whether OpenSSL removes this session by itself. To be called before anything changes the error queue.
pub(super) fn is_of_openssl(session: Session) -> bool {
    let address = session.as_non_null().addr().get();
    if FREED.replace(0) == address {
        return true;
    }
    // SAFETY: reads this thread's queue.
    let error = unsafe { openssl_sys::ERR_peek_last_error() };
    let is_of_ssl = openssl_sys::ERR_GET_LIB(error) == sys::ERR_LIB_SSL;
    let is_eof = openssl_sys::ERR_GET_REASON(error) == sys::SSL_R_UNEXPECTED_EOF_WHILE_READING;
    match holder(address) {
        Holder::Unknown => is_of_ssl,
        Holder::Handshake | Holder::Freed => true,
        Holder::Failed => is_of_ssl && is_eof,
        Holder::Established => false,
    }
}

/// What the connection does that has a session.
enum Holder {
    Unknown,
    Handshake,
    Established,
    /// It was established, and an error has ended it.
    Failed,
    Freed,
}

fn holder(address: usize) -> Holder {
    let Some(holders) = shard(address).lock() else { return Holder::Unknown };
    let Some(ssl) = holders.get(&address).map(|ssl| ssl.as_ptr()) else { return Holder::Unknown };
    // SAFETY: the connection's memory is there, for its entry is removed, under this lock, before that is given back.
    // SSL_up_ref(3) says whether there was a reference before; without one it is being freed, and one more means nothing.
    // Without a buffer, SSL_get_peer_finished(3) only tells the length.
    let (is_alive, is_in_init, has_finished) = unsafe {
        (
            sys::SSL_up_ref(ssl) == 1,
            // Also after a fatal error.
            sys::SSL_in_init(ssl) == 1,
            openssl_sys::SSL_get_peer_finished(ssl, ptr::null_mut(), 0) > 0,
        )
    };
    // Without the lock: it may be the last reference by now.
    drop(holders);
    if !is_alive {
        return Holder::Freed;
    }
    // SAFETY: the reference that was added.
    unsafe { openssl_sys::SSL_free(ssl) };
    match (is_in_init, has_finished) {
        (true, false) => Holder::Handshake,
        (true, true) => Holder::Failed,
        (false, _) => Holder::Established,
    }
}
