//! What is remembered of one handshake between its callbacks, in the connection's ex_data.
//!
//! Owns: [`Handshake`], one for a connection, which is freed with it. Called by: the callbacks. Threads and forks: the
//! callbacks of one connection never run at the same time, so there is no lock. Failure: without memory, or a place in
//! the ex_data, there is no state, and the callback gives its soft answer.

use std::ffi::{c_int, c_long, c_void};
use std::ptr;
use std::sync::Arc;

use openssl_sys::{CRYPTO_EX_DATA, SSL};
use zeroize::Zeroizing;

use super::accepting::Accepting;
use super::attachment::{Attachment, Slot};
use super::connection::{
    FINISHED_LEN, has_begun_to_answer, has_bios_when_freed, has_server_random, is_finished,
    is_quic, is_renegotiated, is_resumed, last_finished,
};
use super::cut::Cut;
use super::ex_data::{Place, give, unmarked};
use super::guard::contained;
use super::name::ServerName;
use super::removal::{self, Held};
use super::session::Session;
use super::sys::{self, InfoCallback};
use super::withheld::Withheld;
use crate::clock::{self, UnixMillis};
use crate::engine::{Engine, Policy, Waited};
use crate::ring::{Age, Family};
use crate::stats::Counter;

/// Most tickets that one handshake may have opened, and sessions looked up: a ClientHello of 64 KiB names 1,700.
const MAX_TICKETS: u8 = 8;
const MAX_LOOKUPS: u8 = 4;

/// Bytes of a ClientHello's random.
const RANDOM_LEN: usize = 32;

/// One handshake.
pub(super) struct Handshake {
    /// That of the client, who chooses it: so it alone does not tell one handshake of an SSL object from the next.
    random: [u8; RANDOM_LEN],
    /// The Finished message of the handshake before, on the same connection. `None` once that may be this one's.
    finished: Option<[u8; FINISHED_LEN]>,
    /// The server's random was there at the last look.
    has_server_random: bool,
    tickets: u8,
    lookups: u8,
    /// For the cluster's answers.
    pub(super) waited: Waited,
    /// The ticket whose keys were handed out last and whose fate is not known yet.
    pending: Option<Pending>,
    /// The context that accepted the connection.
    slot: Slot,
    /// As it was before the application could switch contexts, where it had to be known.
    accepting: Option<Accepting>,
    /// The server name that the client asks to resume under.
    pub(super) name: ServerName,
    /// The session that the client asks to resume, of which the key or the session itself was handed out last.
    pub(super) resuming: Option<Resuming>,
    /// What all tickets and ids of this connection have in common.
    pub(super) family: Option<Family>,
    /// Nothing is left of the lifetime of the session that this handshake resumes.
    pub(super) over: bool,
    /// The session must not come into force: the handshake is being ended.
    pub(super) refused: bool,
    /// A session that was consumed: after a HelloRetryRequest it is asked for again.
    pub(super) consumed: Option<Box<Consumed>>,
    /// The secret of the session that the client asks to resume, which the session gets back when it is found to fit.
    pub(super) secret: Option<Withheld>,
    /// What ends the connection where the session must not come into force.
    pub(super) cut: Option<Cut>,
    /// The application's own info callback, while ours stands in its place.
    pub(super) info_callback: Option<InfoCallback>,
    /// This handshake got our info callback.
    pub(super) is_asked: bool,
    /// Our info callback was called in this handshake.
    pub(super) is_watched: bool,
    /// No later step can change the judgement, and our info callback was taken off.
    pub(super) is_judged: bool,
    /// Our info callback is calling the application's.
    pub(super) is_in_callback: bool,
    /// The client has finished, and what it resumed was found to fit then.
    pub(super) has_passed: bool,
    pub(super) connection: Connection,
    /// The session that the connection has.
    pub(super) held: Held,
    /// Its inner connection may be gone before it.
    is_quic: bool,
}

/// What a client asks to resume.
pub(super) struct Resuming {
    /// The policy that the session was made under.
    pub(super) policy: Policy,
    pub(super) family: Option<Family>,
    /// When its full handshake took place, where that is known.
    pub(super) authenticated: Option<UnixMillis>,
    /// Whose session it is.
    pub(super) engine: Arc<Engine>,
}

impl Resuming {
    /// As [`Engine::knows_rules`].
    pub(super) fn knows_rules(&self) -> bool {
        self.engine.knows_rules(self.policy)
    }
}

/// What all handshakes of a connection have in common.
#[derive(Clone, Copy)]
pub(super) struct Connection {
    /// When the first of our callbacks ran.
    pub(super) began: UnixMillis,
    /// The policy under which the first session was made or resumed.
    pub(super) policy: Option<Policy>,
}

struct Pending {
    age: Age,
    engine: Arc<Engine>,
    /// TLS 1.3 tells at the next ticket whether it resumed; before, only the end of the connection does.
    tls13: bool,
}

/// A single-use session, which exists here alone.
pub(super) struct Consumed {
    pub(super) id: [u8; 32],
    pub(super) value: Zeroizing<Vec<u8>>,
    pub(super) note: u8,
}

/// What lies at our index of a connection.
enum Stored<'a> {
    Ours(&'a mut Handshake),
    /// At this index.
    Nothing(c_int),
    /// Data of others, or there is no index.
    Others,
}

impl Handshake {
    /// The state of the handshake that `ssl` is in, made if need be. `None` when memory or OpenSSL fails.
    ///
    /// # Safety
    /// `ssl` is the connection whose callback is running, and no other reference from this function is in use.
    pub(super) unsafe fn of<'a>(ssl: *mut SSL, now: UnixMillis) -> Option<&'a mut Handshake> {
        // SAFETY: as the caller promises.
        let state = match unsafe { Handshake::stored(ssl) } {
            Stored::Ours(state) => state,
            // SAFETY: as above; nothing is stored yet.
            Stored::Nothing(index) => unsafe { Handshake::store(ssl, index, now)? },
            Stored::Others => return None,
        };
        if !state.is_that_of(ssl) {
            state.begin_anew(ssl, now);
        }
        state.look_at_server_random(ssl);
        if !state.is_quic {
            state.held.begin(ssl);
        }
        Some(state)
    }

    /// # Safety
    /// As for [`Handshake::of`].
    unsafe fn stored<'a>(ssl: *mut SSL) -> Stored<'a> {
        let Some(index) = index() else { return Stored::Others };
        // SAFETY: the connection is valid (caller). What bears our mark is a Handshake that `store` put there and only the
        // connection's end frees. Callbacks of one connection never run at the same time (SSL objects are not thread
        // safe), so the reference is unique.
        unsafe {
            let stored = openssl_sys::SSL_get_ex_data(ssl, index);
            match unmarked::<Handshake>(stored) {
                Some(state) => Stored::Ours(&mut *state.as_ptr()),
                None if stored.is_null() => Stored::Nothing(index),
                None => Stored::Others,
            }
        }
    }

    /// Whether `ssl` is still in this handshake. A second ClientHello after a HelloRetryRequest has the same random, and
    /// the server's is known by then; an object that is used again (SSL_clear(3)) has forgotten that.
    fn is_that_of(&self, ssl: *mut SSL) -> bool {
        let random = client_random(ssl);
        self.random == random
            && (has_begun_to_answer(ssl)
                || self.finished == Some(last_finished(ssl))
                    && (!self.has_server_random || has_server_random(ssl)))
    }

    fn begin_anew(&mut self, ssl: *mut SSL, now: UnixMillis) {
        self.settle(ssl);
        // SAFETY: the connection is valid in its callback.
        self.cut.take().into_iter().for_each(|cut| unsafe { cut.lift(ssl) });
        let connection = if is_renegotiated(ssl) { self.connection } else { Connection::new(now) };
        let (info_callback, is_quic) = (self.info_callback.take(), self.is_quic);
        *self = Handshake { info_callback, is_quic, ..Handshake::new(ssl, connection) };
    }

    fn look_at_server_random(&mut self, ssl: *mut SSL) {
        self.has_server_random = self.has_server_random || has_server_random(ssl);
    }

    /// # Safety
    /// As for [`Handshake::of`]; nothing is stored under our index yet.
    unsafe fn store<'a>(ssl: *mut SSL, index: c_int, now: UnixMillis) -> Option<&'a mut Handshake> {
        let handshake = Handshake::new(ssl, Connection::new(now));
        let handshake = Handshake { is_quic: is_quic(ssl), ..handshake };
        // SAFETY: the connection is valid (caller), and the state its own from here on.
        unsafe {
            let set = |stored| openssl_sys::SSL_set_ex_data(ssl, index, stored) == 1;
            Some(&mut *give(handshake, set)?.as_ptr())
        }
    }

    /// What was remembered last of the handshake that `ssl` is in, by a callback before this one.
    ///
    /// # Safety
    /// As for [`Handshake::of`].
    pub(super) unsafe fn current<'a>(ssl: *mut SSL) -> Option<&'a mut Handshake> {
        // SAFETY: as the caller promises.
        let Stored::Ours(state) = (unsafe { Handshake::stored(ssl) }) else { return None };
        Some(state)
    }

    /// The connection begins a handshake, or goes on with one that began before our callback was set.
    pub(super) fn begins(&mut self, ssl: *mut SSL) {
        if !self.is_that_of(ssl) {
            self.begin_anew(ssl, clock::now());
        }
    }

    /// The server is about to answer.
    pub(super) fn is_answered(&mut self) {
        self.has_server_random = true;
    }

    fn new(ssl: *mut SSL, connection: Connection) -> Self {
        Handshake {
            random: client_random(ssl),
            finished: (!has_begun_to_answer(ssl)).then(|| last_finished(ssl)),
            ..Handshake::before_the_first(connection)
        }
    }

    /// What is known before a ClientHello was read.
    fn before_the_first(connection: Connection) -> Self {
        Handshake {
            random: [0; RANDOM_LEN],
            finished: None,
            has_server_random: false,
            tickets: 0,
            lookups: 0,
            waited: Waited::default(),
            pending: None,
            slot: Slot::SHARED,
            accepting: None,
            name: ServerName::of(&[]),
            resuming: None,
            family: None,
            over: false,
            refused: false,
            consumed: None,
            secret: None,
            cut: None,
            info_callback: None,
            is_asked: false,
            is_watched: false,
            is_judged: false,
            is_in_callback: false,
            has_passed: false,
            connection,
            held: Held::default(),
            is_quic: false,
        }
    }

    /// Notes that the context of this slot accepted the connection.
    pub(super) fn accepted_by(&mut self, slot: Slot) {
        self.slot = slot;
    }

    /// Notes that the client asks to resume at a context of this slot, before the application could switch contexts.
    /// Returns where that is, as far as it is known.
    pub(super) fn arrives(
        &mut self,
        slot: Slot,
        ssl: *mut SSL,
        attachment: &Attachment,
    ) -> Accepting {
        self.slot = slot;
        if attachment.engine.has_rules() {
            self.accepting = Some(Accepting::of(attachment, ssl));
        }
        self.accepting.unwrap_or(Accepting::UNKNOWN)
    }

    /// The accepting context, also after a switch; `None` where the connection does not tell any more which one that was.
    pub(super) fn accepting(&self, ssl: *mut SSL) -> Option<Accepting> {
        self.accepting.or_else(|| Some(Accepting::of(self.slot.attachment()?, ssl)))
    }

    /// The slot of the accepting context, once the client has asked to resume.
    pub(super) fn slot(&self) -> Slot {
        self.slot
    }

    /// What was resumed, if it is a session of ours.
    pub(super) fn resumed(&self, ssl: *mut SSL) -> Option<&Resuming> {
        self.resuming.as_ref().filter(|_| is_resumed(ssl))
    }

    /// Whether one more ticket may be tried.
    pub(super) fn may_open_ticket(&mut self) -> bool {
        self.tickets += u8::from(self.tickets <= MAX_TICKETS);
        self.tickets <= MAX_TICKETS
    }

    /// Whether one more session may be looked up.
    pub(super) fn may_look_up(&mut self) -> bool {
        self.lookups += u8::from(self.lookups <= MAX_LOOKUPS);
        self.lookups <= MAX_LOOKUPS
    }

    /// Keys for a ticket were handed out: whether they opened it, `settle` will know.
    pub(super) fn opening(&mut self, age: Age, engine: &Arc<Engine>, tls13: bool) {
        let pending = Pending { age, engine: Arc::clone(engine), tls13 };
        if let Some(before) = self.pending.replace(pending) {
            before.engine.counters().count(Counter::TicketsMac);
        }
    }

    /// Counts the ticket that was tried last, now that `ssl` knows whether it resumed.
    pub(super) fn settle(&mut self, ssl: *mut SSL) {
        let Some(Pending { age, engine, .. }) = self.pending.take() else {
            return;
        };
        // The connection's fields are still valid in the callback that frees it.
        engine.counters().count(match (is_resumed(ssl), age) {
            (false, _) => Counter::TicketsMac,
            (true, Age::Current) => Counter::TicketsAcceptedCurrent,
            (true, Age::Older) => Counter::TicketsAcceptedOlder,
        });
    }
}

fn client_random(ssl: *mut SSL) -> [u8; RANDOM_LEN] {
    let mut random = [0; RANDOM_LEN];
    // SAFETY: the connection is valid in its callback, and the buffer as long as said.
    unsafe { openssl_sys::SSL_get_client_random(ssl, random.as_mut_ptr(), RANDOM_LEN) };
    random
}

impl Connection {
    fn new(now: UnixMillis) -> Self {
        Connection { began: now, policy: None }
    }

    /// The first session of a full handshake is made, which is long after it where the application asked for no tickets
    /// at first. OpenSSL has the time of the handshake, to the second, until it gives the session that of the ticket.
    pub(super) fn began_with(&mut self, ssl: *mut SSL) {
        // SAFETY: `ssl` is the connection whose callback is running, and so is its session valid.
        let (session, tickets) = unsafe {
            (
                Session::borrow(openssl_sys::SSL_get_session(ssl)),
                openssl_sys::SSL_get_num_tickets(ssl),
            )
        };
        let is_late = |session: &Session| {
            tickets == 0 || self.began.secs().saturating_sub(session.time().secs()) > 1
        };
        if let Some(session) = session.filter(is_late) {
            self.began = self.began.min(session.time());
        }
    }

    /// Whether a session may be made under `policy`: all sessions of a connection are made under one. Later ones, as
    /// after a certificate that was asked for in the midst (renegotiation, post-handshake authentication), belong to
    /// this connection alone.
    pub(super) fn keeps_to(&mut self, policy: Policy) -> bool {
        *self.policy.get_or_insert(policy) == policy
    }
}

/// A connection of an attached context connects to a server.
pub(super) fn connects(ssl: *mut SSL) {
    // With the index goes the function that is called when the connection is freed.
    if index().is_some() && !is_quic(ssl) {
        removal::connection_begins(ssl);
    }
}

/// Our place in the ex_data of connections.
pub(super) fn index() -> Option<c_int> {
    static PLACE: Place =
        Place::freed_by(sys::CRYPTO_EX_INDEX_SSL, free).copied_by(copied_for_callback);
    PLACE.index()
}

/// A copy (SSL_dup(3)) has the info callback that the original has, which may be ours: so it gets what that needs to know,
/// and nothing of the handshake.
unsafe extern "C" fn copied_for_callback(
    _to: *mut CRYPTO_EX_DATA,
    _from: *const CRYPTO_EX_DATA,
    value: *mut *mut c_void,
    _index: c_int,
    _argl: c_long,
    _argp: *mut c_void,
) -> c_int {
    // SAFETY: OpenSSL passes the address of the copied pointer; what bears our mark is the original's Handshake.
    unsafe {
        if let Some(original) = unmarked::<Handshake>(*value) {
            let info_callback = original.as_ref().info_callback;
            let connection = Connection::new(clock::now());
            let copy = Handshake { info_callback, ..Handshake::before_the_first(connection) };
            *value = ptr::null_mut();
            give(copy, |stored| {
                *value = stored;
                true
            });
        }
    }
    1
}

/// OpenSSL calls this for each connection, whatever lies at our index.
unsafe extern "C" fn free(
    ssl: *mut c_void,
    state: *mut c_void,
    _data: *mut CRYPTO_EX_DATA,
    _index: c_int,
    _argl: c_long,
    _argp: *mut c_void,
) {
    contained(|| {
        let state = unmarked::<Handshake>(state);
        // SAFETY: the connection's ex_data is being freed; what bears our mark is a Handshake, and its context is alive.
        unsafe {
            let accepted_by = state.and_then(|state| state.as_ref().slot().attachment());
            let is_told = accepted_by.is_none_or(|it| removal::is_asked_from(it.ctx()));
            let is_known = state.is_some_and(|state| !state.as_ref().is_quic);
            removal::connection_is_freed(ssl.cast(), is_told, is_known);
        }
        let Some(state) = state else { return };
        // SAFETY: what bears our mark is a Handshake of `of`, and nobody uses it after its connection.
        let mut state = unsafe { Box::from_raw(state.as_ptr()) };
        if !state.is_quic {
            note_unjudged(ssl.cast(), &state);
            if let Some(cut) = state.cut.take().filter(|_| has_bios_when_freed()) {
                // SAFETY: as above, and before its BIOs.
                unsafe { cut.lift(ssl.cast()) };
            }
        }
        // In TLS 1.3 (and QUIC, whose inner connection may be gone by now) the next ticket has told already.
        if state.pending.as_ref().is_some_and(|pending| !pending.tls13) {
            state.settle(ssl.cast());
        }
    });
}

/// A session was resumed and never judged, for the application put an info callback in the place of ours: that shall not
/// happen again, nor that a handshake fails since its session did not get its secret back.
fn note_unjudged(ssl: *mut SSL, handshake: &Handshake) {
    if !handshake.is_asked || handshake.is_watched || handshake.has_passed {
        return;
    }
    let is_missed = handshake.secret.is_some() && has_begun_to_answer(ssl);
    if !is_missed && !is_finished(ssl) {
        return;
    }
    let Some(resuming) = handshake.resumed(ssl).filter(|it| it.knows_rules()) else { return };
    if let Some(accepting) = handshake.accepting(ssl) {
        let visit = accepting.visit(handshake.name.as_bytes());
        resuming.engine.note_mixed(&visit, resuming.policy, clock::now());
    }
}
