//! Whose wish it is that a session is removed: the application's (a logout), or OpenSSL's own.
//!
//! OpenSSL calls the remove-session callback for both, and does not say for which connection. So the connection that has
//! the session is looked for. By itself OpenSSL removes
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
//! Of a connection that fails OpenSSL removes the session once, right after it has put the connection into its state of
//! error. What is removed in another state, or after that, the application removes.
//!
//! What lies in ex_data may be written over by the application; that OpenSSL calls our function there when it frees a
//! connection, and says which, may not. So only what is in [`ALIVE`], which that function maintains, is followed; the rest are
//! addresses to compare.
//!
//! Owns: the tables of connections and sessions. Called by: the callbacks. Threads and forks: as [`super::addresses`] says.
//! Failure: a session of which no connection is known was removed by the application. Without memory, and with ten indexes
//! or more in use on connections, OpenSSL 3 does not call that function.

use std::ffi::c_ulong;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};

use openssl_sys::{SSL, SSL_CTX};

use super::addresses::Table;
use super::connection::{FINISHED_LEN, clients_finished, has_failed};
use super::hidden;
use super::real::libssl;
use super::session::Session;
use super::sys::{self, RemoveSessionCallback};

/// The connections that called us, until they are freed.
static ALIVE: Table<Alive> = Table::new();

/// Where to look first: which connection got a session. That may be over.
static HOLDERS: Table<Holder> = Table::new();

/// OpenSSL 3.2.0, by OpenSSL_version_num(3).
const FREES_SESSIONS_FIRST: c_ulong = 0x3020_0000;

/// The sessions of connections that are being freed, which OpenSSL removes next. Of two connections with one session each
/// counts.
static FREED: Table<Freed> = Table::new();

/// The address of our remove-session callback, once a context had it.
static ASKED_FROM: AtomicUsize = AtomicUsize::new(0);

struct Freed {
    /// A session that has the address later is another one.
    word: usize,
    /// The connection that was freed last: OpenSSL may tell of it for several indexes.
    ssl: usize,
    times: usize,
}

struct Alive {
    ssl: NonNull<SSL>,
    /// The session that OpenSSL has removed, as the connection failed or was freed: it does so once.
    removed: usize,
}

// SAFETY: the connection is looked at while it is not taken out alone, and only in ways that OpenSSL makes safe between
// threads.
unsafe impl Send for Alive {}

#[derive(Clone, Copy)]
struct Holder {
    ssl: usize,
    /// The client's Finished message of the handshake before: while that is its last one, the session is not in force.
    /// `None`: it is.
    before: Option<[u8; FINISHED_LEN]>,
}

/// What the tables have of a connection. Its entry in [`HOLDERS`] goes with this.
#[derive(Default)]
pub(super) struct Held {
    is_listed: bool,
    ssl: usize,
    /// The session's address; 0: none.
    session: usize,
    /// As in [`Holder`].
    before: Option<[u8; FINISHED_LEN]>,
}

impl Held {
    /// A callback of the connection runs, which is not of QUIC.
    pub(super) fn begin(&mut self, ssl: *mut SSL) {
        self.is_listed = self.is_listed || connection_begins(ssl);
    }

    /// From now on the connection has this session, which is in force once the client's Finished message came.
    pub(super) fn change(&mut self, ssl: *mut SSL, session: Session) {
        if self.session != address(session) {
            self.set(ssl, session, Some(clients_finished(ssl)));
        }
    }

    /// The connection's session is in force.
    pub(super) fn establish(&mut self, ssl: *mut SSL, session: Session) {
        if self.before.is_some() || self.session != address(session) {
            self.set(ssl, session, None);
        }
    }

    fn set(&mut self, ssl: *mut SSL, session: Session, before: Option<[u8; FINISHED_LEN]>) {
        self.release();
        let holder = Holder { ssl: ssl.addr(), before };
        if self.is_listed && HOLDERS.put(address(session), holder) {
            self.ssl = ssl.addr();
            (self.session, self.before) = (address(session), before);
        }
    }

    fn release(&mut self) {
        if self.session != 0 {
            // Another connection's session may have the same address by now.
            if let Some(others) = HOLDERS.take(self.session).filter(|it| it.ssl != self.ssl) {
                HOLDERS.put(self.session, others);
            }
            self.session = 0;
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.release();
    }
}

fn address(session: Session) -> usize {
    session.as_non_null().addr().get()
}

/// A connection of an attached context begins, not of QUIC. [`connection_is_freed`] has to be called for it. Whether there
/// was memory.
pub(super) fn connection_begins(ssl: *mut SSL) -> bool {
    NonNull::new(ssl).is_some_and(|alive| ALIVE.put(ssl.addr(), Alive { ssl: alive, removed: 0 }))
}

/// From now on contexts may have this remove-session callback, which asks [`is_of_openssl`].
pub(super) fn ask_from(callback: RemoveSessionCallback) {
    ASKED_FROM.store(callback as usize, Ordering::Relaxed);
}

/// Whether a context has that callback.
///
/// # Safety
/// `ctx` is a valid context.
pub(super) unsafe fn is_asked_from(ctx: *mut SSL_CTX) -> bool {
    // SAFETY: as the caller promises.
    let callback = unsafe { (libssl().ctx_sess_get_remove_cb)(ctx) };
    callback.is_some_and(|callback| callback as usize == ASKED_FROM.load(Ordering::Relaxed))
}

/// A connection is being freed: what is left of it is its session, unless OpenSSL has freed that first. `is_told`: our
/// remove-session callback will be called for that. `is_known`: it called us and is not of QUIC, which the table may not
/// tell in a child.
///
/// # Safety
/// `ssl` is a connection whose ex_data is being freed.
pub(super) unsafe fn connection_is_freed(ssl: *mut SSL, is_told: bool, is_known: bool) {
    if ALIVE.take(ssl.addr()).is_none() && !is_known {
        return;
    }
    // SAFETY: no precondition; and as the caller promises. Those of QUIC are not in the table.
    let session = unsafe {
        if openssl_sys::OpenSSL_version_num() >= FREES_SESSIONS_FIRST {
            return;
        }
        Session::borrow(openssl_sys::SSL_get_session(ssl)).filter(|_| is_unclean(ssl))
    };
    // OpenSSL removes none without an id.
    if let Some(session) = session.filter(|session| is_told && !session.id().is_empty()) {
        let (address, word) = (address(session), word_of(session));
        let known = FREED.take(address).filter(|it| it.word == word);
        let (last, times) = known.map_or((0, 0), |it| (it.ssl, it.times));
        let times = if last == ssl.addr() { times } else { times + 1 };
        FREED.put(address, Freed { word, ssl: ssl.addr(), times });
    }
}

/// Whether OpenSSL removes the session of a connection that is being freed; each time once.
fn is_freed(session: Session) -> bool {
    let (address, word) = (address(session), word_of(session));
    let Some(freed) = FREED.take(address).filter(|it| it.word == word) else { return false };
    if freed.times > 1 {
        FREED.put(address, Freed { times: freed.times - 1, ..freed });
    }
    true
}

/// Tells one session from the next, also from one that has its address later; never zero.
fn word_of(session: Session) -> usize {
    let mut word = [0; size_of::<usize>()];
    word.iter_mut().zip(session.id()).for_each(|(byte, of_id)| *byte = *of_id);
    usize::from_ne_bytes(word).max(1)
}

/// Whether OpenSSL removes the session of a connection that it frees. It leaves that of an unfinished handshake alone.
///
/// # Safety
/// `ssl` is valid.
unsafe fn is_unclean(ssl: *mut SSL) -> bool {
    // SAFETY: as the caller promises.
    unsafe { !has_sent_close_notify(ssl) && sys::SSL_in_init(ssl) == 0 }
}

/// # Safety
/// `ssl` is valid.
unsafe fn has_sent_close_notify(ssl: *mut SSL) -> bool {
    // SAFETY: as the caller promises.
    unsafe { openssl_sys::SSL_get_shutdown(ssl) & sys::SSL_SENT_SHUTDOWN != 0 }
}

/// Whether OpenSSL removes this session by itself, or it was never more than one that is being made, or a connection in the
/// other role has it. To be called for each removal, before anything changes the error queue.
pub(super) fn is_of_openssl(session: Session) -> bool {
    if is_freed(session) || !session.has_master_key() {
        return true;
    }
    match state_of_holder(address(session)) {
        Some(State::NotInForce | State::Freed | State::Connects) => true,
        Some(State::Failed) => is_end_of_stream(),
        Some(State::Other) | None => false,
    }
}

/// Whether the last error is that the peer closed the connection without a close_notify alert.
fn is_end_of_stream() -> bool {
    // SAFETY: reads this thread's queue.
    let error = unsafe { openssl_sys::ERR_peek_last_error() };
    openssl_sys::ERR_GET_LIB(error) == sys::ERR_LIB_SSL
        && openssl_sys::ERR_GET_REASON(error) == sys::SSL_R_UNEXPECTED_EOF_WHILE_READING
}

/// What becomes of a connection that has the session in question.
enum State {
    /// It failed before the client proved that the session is its own.
    NotInForce,
    /// It was established, and OpenSSL removes its session for the error that has ended it.
    Failed,
    /// It is being freed, and OpenSSL removes its session for that.
    Freed,
    /// It is a client's.
    Connects,
    /// OpenSSL has no reason to remove its session, or has removed it.
    Other,
}

fn state_of_holder(session: usize) -> Option<State> {
    let first = HOLDERS.look_at(session, |holder| *holder).and_then(|holder| {
        ALIVE.look_at(holder.ssl, |alive| alive.state(session, Some(holder))).flatten()
    });
    // OpenSSL makes a session of a ticket, and does not say so before the ServerHello.
    first.or_else(|| ALIVE.find(|alive| alive.state(session, None)))
}

impl Alive {
    /// To be called while the connection is looked at. Another thread than its own may be here, which only reads. `None`:
    /// it has not that session. What nobody told us of is not known to be in force.
    fn state(&mut self, session: usize, holder: Option<Holder>) -> Option<State> {
        let ssl = self.ssl.as_ptr();
        // SAFETY: the connection's memory is there as long as it is looked at.
        unsafe {
            if openssl_sys::SSL_get_session(ssl).addr() != session {
                return None;
            }
            if openssl_sys::SSL_is_server(ssl) == 0 {
                return Some(State::Connects);
            }
            let has_failed = has_failed(ssl);
            let is_in_force = holder.is_some_and(|holder| {
                holder.before.is_none_or(|before| clients_finished(ssl) != before)
            });
            if has_failed && !is_in_force {
                return Some(State::NotInForce);
            }
            let is_freed = hidden::references(ssl) == Some(0) && is_unclean(ssl);
            // No alert is sent after a close_notify, nor is the session removed with it.
            let is_alerted = has_failed && !has_sent_close_notify(ssl);
            let is_its_own = (is_alerted || is_freed)
                && std::mem::replace(&mut self.removed, session) != session;
            Some(match is_its_own {
                true if is_freed => State::Freed,
                true => State::Failed,
                false => State::Other,
            })
        }
    }
}
