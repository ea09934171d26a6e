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
//! is the other way round, and the connection has no reference left by then.
//!
//! A handshake begins with an empty error queue, so an error of libssl's in it is its own. Later the queue may hold
//! anything.
//!
//! Owns: the table of sessions and connections. Called by: the callbacks. Threads: the table has locks that are held for
//! a few instructions, and no connection is freed while a thread looks at it, however long that is not let run. Forks: a
//! child that finds a lock locked for ever does without. Failure: a session of which no connection is known was removed by the application, unless a handshake of this thread has just failed.

use std::collections::HashMap;
use std::ffi::c_ulong;
use std::hash::{BuildHasherDefault, Hasher};
use std::process;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use openssl_sys::SSL;
use parking_lot::{Mutex, MutexGuard};

use super::connection::is_quic;
use super::hidden;
use super::session::Session;
use super::sys;
use crate::sys::thread_word::ThreadWord;
use crate::sys::{lock_within, memory};

/// Which connection has the session at an address.
type Holders = HashMap<usize, Holder, BuildHasherDefault<Addresses>>;

/// The connection that has a session. It is removed before the connection's memory is given back, under the lock.
struct Holder {
    ssl: NonNull<SSL>,
    /// OpenSSL has removed the session, as it frees the connection.
    is_removed: bool,
}

struct Shard {
    holders: Mutex<Holders>,
    /// An entry could not be removed, and its connection may be gone.
    is_spoiled: AtomicBool,
    /// The process of the thread that has the lock to look at a connection; 0: none has.
    looks: AtomicU32,
}

// SAFETY: the connections are looked at under the lock alone, and only in ways that OpenSSL makes safe between threads.
unsafe impl Sync for Shard {}

const SHARDS: usize = 64;

static HOLDERS: [Shard; SHARDS] = [const {
    let holders = Mutex::new(HashMap::with_hasher(BuildHasherDefault::new()));
    Shard { holders, is_spoiled: AtomicBool::new(false), looks: AtomicU32::new(0) }
}; SHARDS];

/// Longer than anybody who is let run holds a lock: a process that waits for so long may have it from a fork.
const PATIENCE: Duration = Duration::from_millis(100);

/// OpenSSL 3.2.0, by OpenSSL_version_num(3).
const FREES_SESSIONS_FIRST: c_ulong = 0x3020_0000;

/// The session of the connection that this thread frees.
static FREED: ThreadWord = ThreadWord::new();
/// The connection whose handshake called us last on this thread, until its session is in the table.
static UNDER_WAY: ThreadWord = ThreadWord::new();

/// A callback of this connection's handshake runs.
pub(super) fn handshake_calls(ssl: *mut SSL) {
    UNDER_WAY.set(ssl.addr());
}

/// A connection's entry in the table.
#[derive(Default)]
pub(super) struct Held(Option<(usize, NonNull<SSL>)>);

impl Held {
    /// From now on the connection has this session.
    pub(super) fn change(&mut self, ssl: *mut SSL, session: Session) {
        let address = session.as_non_null().addr().get();
        UNDER_WAY.set(0);
        if self.0.is_some_and(|(held, _)| held == address) || is_quic(ssl) {
            return;
        }
        self.release();
        let (Some(ssl), Some(mut holders)) = (NonNull::new(ssl), shard(address).lock()) else {
            return;
        };
        if has_place(&mut holders) {
            holders.insert(address, Holder { ssl, is_removed: false });
            self.0 = Some((address, ssl));
        }
    }

    fn release(&mut self) {
        let Some((address, ssl)) = self.0.take() else { return };
        let shard = shard(address);
        match shard.lock() {
            // Another connection's session may have the same address by now.
            Some(mut holders) if holders.get(&address).is_some_and(|it| it.ssl == ssl) => {
                _ = holders.remove(&address)
            }
            Some(_) => {}
            None => shard.spoil(),
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
    /// `None` from the first time on that the lock was waited for in vain.
    fn lock(&self) -> Option<MutexGuard<'_, Holders>> {
        if self.is_spoiled.load(Ordering::SeqCst) {
            return None;
        }
        let holders = lock_within(&self.holders, PATIENCE);
        if holders.is_none() {
            self.is_spoiled.store(true, Ordering::SeqCst);
        }
        holders.filter(|_| !self.is_spoiled.load(Ordering::SeqCst))
    }

    /// Calls `look` with the holder of a session. Until that is over, no connection of this shard is freed.
    fn look_at<R>(&self, address: usize, look: impl FnOnce(&mut Holder) -> R) -> Option<R> {
        let mut holders = self.lock()?;
        self.looks.store(process::id(), Ordering::SeqCst);
        // Either this is seen now, or the above by who spoils the shard.
        let is_sound = !self.is_spoiled.load(Ordering::SeqCst);
        let result = holders.get_mut(&address).filter(|_| is_sound).map(look);
        self.looks.store(0, Ordering::SeqCst);
        result
    }

    /// The lock cannot be had to remove an entry: from now on no entry is followed. Who looks at one just now holds the
    /// lock, and is waited for, but not a thread of the process that this one was forked off.
    fn spoil(&self) {
        self.is_spoiled.store(true, Ordering::SeqCst);
        while self.looks.load(Ordering::SeqCst) == process::id() {
            thread::yield_now();
        }
    }
}

/// Whether there is a place for one more, made if need be and memory is there.
fn has_place(holders: &mut Holders) -> bool {
    /// What a table that doubles takes for each of its entries, and more.
    const ENTRY: usize = 80;
    holders.len() < holders.capacity()
        || memory::has_room((holders.len() + 4) * ENTRY) && holders.try_reserve(1).is_ok()
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
    if UNDER_WAY.get() == ssl.addr() {
        UNDER_WAY.set(0);
    }
    // SAFETY: no precondition; and as the caller promises.
    let session = unsafe {
        if openssl_sys::OpenSSL_version_num() >= FREES_SESSIONS_FIRST {
            return;
        }
        Session::borrow(openssl_sys::SSL_get_session(ssl)).filter(|_| is_unclean(ssl))
    };
    // OpenSSL removes none without an id.
    let removed = session.filter(|session| !session.id().is_empty());
    FREED.set(removed.map_or(0, |session| session.as_non_null().addr().get()));
}

/// Whether OpenSSL removes the session of a connection that it frees. It leaves that of an unfinished handshake alone.
///
/// # Safety
/// `ssl` is valid.
unsafe fn is_unclean(ssl: *mut SSL) -> bool {
    // SAFETY: as the caller promises.
    unsafe {
        openssl_sys::SSL_get_shutdown(ssl) & sys::SSL_SENT_SHUTDOWN == 0
            && sys::SSL_in_init(ssl) == 0
    }
}

/// Whether OpenSSL removes this session by itself. To be called before anything changes the error queue.
pub(super) fn is_of_openssl(session: Session) -> bool {
    let address = session.as_non_null().addr().get();
    let freed = FREED.get();
    if freed != 0 {
        FREED.set(0);
    }
    if freed == address {
        return true;
    }
    // SAFETY: reads this thread's queue.
    let error = unsafe { openssl_sys::ERR_peek_last_error() };
    let is_of_ssl = openssl_sys::ERR_GET_LIB(error) == sys::ERR_LIB_SSL;
    let is_eof = openssl_sys::ERR_GET_REASON(error) == sys::SSL_R_UNEXPECTED_EOF_WHILE_READING;
    match shard(address).look_at(address, Holder::state) {
        None => is_of_ssl && UNDER_WAY.get() != 0,
        Some(State::Handshake) => is_of_ssl,
        Some(State::Freed) => true,
        Some(State::Failed) => is_of_ssl && is_eof,
        Some(State::Established) => false,
    }
}

/// What a connection does.
enum State {
    Handshake,
    Established,
    /// It was established, and an error has ended it.
    Failed,
    /// It is being freed, and OpenSSL removes its session for that.
    Freed,
}

impl Holder {
    /// To be called while the connection is looked at. Another thread than its own may be here, which only reads.
    fn state(&mut self) -> State {
        let ssl = self.ssl.as_ptr();
        // SAFETY: the connection's memory is there as long as it is looked at.
        // Without a buffer, SSL_get_peer_finished(3) only tells the length.
        let (is_freed, is_in_init, has_finished) = unsafe {
            (
                hidden::references(ssl) == Some(0) && is_unclean(ssl),
                // Also after a fatal error.
                sys::SSL_in_init(ssl) == 1,
                openssl_sys::SSL_get_peer_finished(ssl, ptr::null_mut(), 0) > 0,
            )
        };
        // OpenSSL does so once: what comes beside that is the application's.
        if is_freed && !std::mem::replace(&mut self.is_removed, true) {
            return State::Freed;
        }
        match (is_in_init, has_finished) {
            (true, false) => State::Handshake,
            (true, true) => State::Failed,
            (false, _) => State::Established,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shard_with(address: usize, ssl: NonNull<SSL>) -> Shard {
        let mut holders = HashMap::with_hasher(BuildHasherDefault::new());
        holders.insert(address, Holder { ssl, is_removed: false });
        Shard {
            holders: Mutex::new(holders),
            is_spoiled: AtomicBool::new(false),
            looks: AtomicU32::new(0),
        }
    }

    const ADDRESS: usize = 4096;

    /// Long beyond the patience of who frees it.
    #[test]
    fn no_connection_is_freed_while_somebody_looks_at_it() {
        let shard = shard_with(ADDRESS, NonNull::dangling());
        let is_over = AtomicBool::new(false);
        let free = || {
            assert!(shard.lock().is_none());
            shard.spoil();
            assert!(is_over.load(Ordering::SeqCst), "freed under the eyes of another thread");
        };
        thread::scope(|scope| {
            let looked = shard.look_at(ADDRESS, |_| {
                let freeing = scope.spawn(free);
                while !shard.is_spoiled.load(Ordering::SeqCst) {
                    thread::yield_now();
                }
                for _ in 0..10_000 {
                    thread::yield_now();
                }
                is_over.store(true, Ordering::SeqCst);
                freeing
            });
            assert!(looked.expect("an entry").join().is_ok());
        });
        assert_eq!(shard.look_at(ADDRESS, |_| ()), None, "it is followed no more");
    }

    #[test]
    fn who_looked_at_a_connection_when_the_process_was_forked_is_not_waited_for() {
        let shard = shard_with(ADDRESS, NonNull::dangling());
        shard.looks.store(process::id() + 1, Ordering::SeqCst);
        shard.spoil();
    }
}
