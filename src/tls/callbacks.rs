//! The answers to OpenSSL's questions. Each is guarded (see [`super::guard`]) and has a soft answer, so that no fault of
//! ours costs more than a full handshake.

use std::ffi::{c_int, c_uchar, c_uint, c_void};
use std::ptr;
use std::time::Duration;

use openssl_sys::{EVP_CIPHER_CTX, SSL, SSL_CTX, SSL_SESSION};

use super::attach::Attachment;
use super::client;
use super::guard::guarded;
use super::handshake::Handshake;
use super::name::ServerName;
use super::search::{self, Search};
use super::session::{self, Session};
use super::slots::Slot;
use super::sys::{self, MacCtx};
use super::ticket::{self, Direction, IV_LEN};
use super::{pause, policy};
use crate::clock;
use crate::config::OnRemove;
use crate::engine::{Binding, Engine, NewSession};
use crate::log::Once;
use crate::ring::session_id::SESSION_ID_LEN;
use crate::ring::{Age, KeyName};
use crate::stats::Counter;

/// [`SESSION_ID_LEN`] as OpenSSL counts.
const SESSION_ID_LEN_C: c_uint = 32;
const _: () = assert!(SESSION_ID_LEN == 32);

const TLS1_3_VERSION: c_int = 0x0304;

/// What SSL_version(3) says of QUIC, whose handshake is that of TLS 1.3.
pub(super) const QUIC1_VERSION: c_int = 0x0000_0001;

/// Longest wait for locks in one handshake, all its sessions together: a millisecond, less what the last sleep may take
/// too long.
const LOCK_BUDGET: Duration = Duration::from_micros(800);

/// The ticket-key callback's answers (SSL_CTX_set_tlsext_ticket_key_cb(3)).
const NO_TICKET: c_int = 0;
const TICKET: c_int = 1;
const TICKET_AND_RENEW: c_int = 2;

/// # Safety
/// The arguments are those of OpenSSL's ticket-key callback.
pub(super) unsafe fn ticket_key(
    slot: Slot,
    ssl: *mut SSL,
    name: *mut c_uchar,
    iv: *mut c_uchar,
    cipher: *mut EVP_CIPHER_CTX,
    mac: *mut MacCtx,
    encrypt: c_int,
) -> c_int {
    // SAFETY: OpenSSL gives 16 bytes of name and of vector; when encrypting both are to be written, when decrypting
    // both lie in the received ClientHello and are only read.
    let answer = guarded(|| unsafe {
        if encrypt == 0 {
            let (name, iv) = (KeyName(*name.cast()), &*iv.cast());
            open_ticket(slot, ssl, name, iv, cipher, mac)
        } else {
            issue_ticket(slot, ssl, &mut *name.cast(), &mut *iv.cast(), cipher, mac)
        }
    });
    answer.unwrap_or(NO_TICKET)
}

/// # Safety
/// The arguments are those of OpenSSL's new-session callback.
pub(super) unsafe fn new_session(slot: Slot, ssl: *mut SSL, session: *mut SSL_SESSION) -> c_int {
    // SAFETY: the connection is valid in its callback.
    if unsafe { openssl_sys::SSL_is_server(ssl) } == 0 {
        // SAFETY: the arguments are those that OpenSSL gave.
        return unsafe { client::new_session(slot.attachment_for(ssl), ssl, session) };
    }
    guarded(|| {
        // SAFETY: OpenSSL gives a session that is valid while the callback runs.
        let session = unsafe { Session::borrow(session) };
        if let (Some(attachment), Some(session)) = (slot.attachment_for(ssl), session) {
            keep_session(attachment, slot, ssl, session);
        }
    });
    // We keep a copy, never OpenSSL's reference.
    0
}

/// # Safety
/// The arguments are those of OpenSSL's get-session callback.
pub(super) unsafe fn get_session(
    slot: Slot,
    ssl: *mut SSL,
    id: *const c_uchar,
    len: c_int,
    copy: *mut c_int,
) -> *mut SSL_SESSION {
    // SAFETY: OpenSSL gives `len` bytes of id, and an integer to write: the session returned is a new object that
    // OpenSSL owns, the only way that is safe between threads.
    let id = unsafe {
        *copy = 0;
        session::id_slice(id, len)
    };
    let mut search = guarded(|| search::begin(slot, ssl, id)).unwrap_or(Search::Over(None));
    if let Search::Asked = search {
        // A connection that is freed while it is paused never comes back here: nothing is held across the pause.
        while guarded(|| pause::is_to_wait(ssl)).unwrap_or(false) && pause::pause() {}
        search = guarded(|| search::end(slot, ssl, id)).unwrap_or(Search::Over(None));
    }
    match search {
        Search::Over(Some(found)) => found.as_ptr(),
        Search::Over(None) | Search::Asked => ptr::null_mut(),
    }
}

/// # Safety
/// The arguments are those of OpenSSL's remove-session callback. It may hold the context's lock: nothing here calls
/// OpenSSL on the context but for its ex_data, which that lock does not guard.
pub(super) unsafe extern "C" fn remove_session(ctx: *mut SSL_CTX, session: *mut SSL_SESSION) {
    // SAFETY: OpenSSL gives a context and a session that are valid while the callback runs.
    unsafe {
        let attachment = Attachment::of(ctx);
        if client::owns(ctx, session) {
            return client::remove_session(attachment, ctx, session);
        }
        guarded(|| {
            if let (Some(attachment), Some(session)) = (attachment, Session::borrow(session)) {
                forget_session(&attachment.engine, session);
            }
        });
    }
}

fn forget_session(engine: &Engine, session: Session) {
    if engine.config().resumption.on_remove == OnRemove::Forget {
        engine.forget_session(session.id(), clock::now());
    }
}

/// # Safety
/// The arguments are those of OpenSSL's generate-session-id callback.
pub(super) unsafe fn generate_id(
    slot: Slot,
    ssl: *mut SSL,
    id: *mut c_uchar,
    len: *mut c_uint,
) -> c_int {
    let made = guarded(|| {
        keep_remaining_lifetime(ssl);
        slot.attachment_for(ssl)?.engine.new_session_id(clock::now())
    });
    // SAFETY: OpenSSL gives room for 32 bytes; other lengths never resume in TLS 1.3, and 0 ends the handshake.
    unsafe {
        *len = SESSION_ID_LEN_C;
        match made.flatten() {
            Some(made) => {
                ptr::copy_nonoverlapping(made.as_ptr(), id, SESSION_ID_LEN);
                1
            }
            // An id that nobody will find, for want of a key of ours.
            None => c_int::from(openssl_sys::RAND_bytes(id, SESSION_ID_LEN_C.cast_signed()) == 1),
        }
    }
}

/// # Safety
/// The arguments are those of OpenSSL's allow-early-data callback, and `arg` what [`Slot::to_arg`] made.
pub(super) unsafe extern "C" fn allow_early_data(ssl: *mut SSL, arg: *mut c_void) -> c_int {
    let slot = Slot::from_arg(arg);
    let allowed =
        guarded(|| slot.attachment_for(ssl).is_some_and(|attachment| early_data(attachment, ssl)));
    c_int::from(allowed.unwrap_or(false))
}

/// The answer where nobody can be asked.
///
/// # Safety
/// Nothing is asked of the arguments.
pub(super) unsafe extern "C" fn refuse_early_data(_ssl: *mut SSL, _arg: *mut c_void) -> c_int {
    0
}

/// The strike register's word on a connection's early data.
pub(super) fn early_data(attachment: &Attachment, ssl: *mut SSL) -> bool {
    // SAFETY: the connection is valid in the callback (or the application's call), and so is its session.
    let session = unsafe { Session::borrow(openssl_sys::SSL_get_session(ssl)) };
    session.is_some_and(|session| attachment.engine.early_data_allowed(session.id(), clock::now()))
}

/// # Safety
/// The arguments are those of OpenSSL's ticket-key callback, for a ticket in a ClientHello.
unsafe fn open_ticket(
    slot: Slot,
    ssl: *mut SSL,
    name: KeyName,
    iv: &[u8; IV_LEN],
    cipher: *mut EVP_CIPHER_CTX,
    mac: *mut MacCtx,
) -> c_int {
    let Some(attachment) = slot.attachment_for(ssl) else {
        return NO_TICKET;
    };
    let engine = &attachment.engine;
    // SAFETY: the callback of this connection is running, and this is the only reference in it.
    let Some(handshake) = (unsafe { Handshake::of(ssl) }) else {
        return NO_TICKET;
    };
    if !handshake.may_open_ticket() {
        engine.counters().count(Counter::TicketsOverLimit);
        return NO_TICKET;
    }
    handshake.accepting = Some(attachment.accepting());
    let server_name = ServerName::in_client_hello(ssl);
    let Some((binding, policy)) = policy::expected_binding(attachment, ssl, server_name.as_bytes())
    else {
        engine.counters().count(Counter::TicketsMac);
        return NO_TICKET;
    };
    let verifies = policy::any_context_verifies();
    let Some(opening) = engine.opening_key(&name, &binding, verifies, clock::now()) else {
        return NO_TICKET;
    };
    // SAFETY: both contexts are those of the running callback.
    if !unsafe { ticket::set_keys(&opening.key, iv, cipher, mac, Direction::Decrypt) } {
        return NO_TICKET;
    }
    let tls13 = is_tls13(ssl);
    handshake.opening(opening.age, engine, tls13);
    (handshake.binding, handshake.policy) = (Some(binding), Some(policy));
    // In TLS 1.3 a client uses a ticket once: without a new one it could resume every second time only.
    if tls13 || opening.age == Age::Older { TICKET_AND_RENEW } else { TICKET }
}

/// # Safety
/// The arguments are those of OpenSSL's ticket-key callback, for a new ticket.
unsafe fn issue_ticket(
    slot: Slot,
    ssl: *mut SSL,
    name: &mut [u8; KeyName::LEN],
    iv: &mut [u8; IV_LEN],
    cipher: *mut EVP_CIPHER_CTX,
    mac: *mut MacCtx,
) -> c_int {
    let issuing = slot.attachment_for(ssl).and_then(|attachment| {
        // SAFETY: the callback of this connection is running, and this is the only reference in it.
        let handshake = unsafe { Handshake::existing(ssl) };
        if lacks_id_context(attachment, ssl) {
            return None;
        }
        let over = handshake.as_ref().is_some_and(|handshake| handshake.over);
        let binding = issue_binding(attachment, slot, ssl, handshake);
        if over {
            return None;
        }
        attachment.engine.issuing_key(&binding, policy::any_context_verifies(), clock::now())
    });
    // Without a key of ours the ticket is made with one that nobody has: a refusal here is fatal to TLS 1.3 clients of
    // OpenSSL 1.1.1.
    let Some(key) = issuing.or_else(|| Engine::throw_away_key(random)) else {
        return NO_TICKET;
    };
    *name = key.name().0;
    if !random(iv) {
        return NO_TICKET;
    }
    // SAFETY: both contexts are those of the running callback.
    let ready = unsafe { ticket::set_keys(&key, iv, cipher, mac, Direction::Encrypt) };
    if ready { TICKET } else { NO_TICKET }
}

/// What a new ticket is tied to. When TLS 1.2 renews a ticket the server name cannot be read, so the binding that
/// opened the old one goes on.
fn issue_binding(
    attachment: &Attachment,
    slot: Slot,
    ssl: *mut SSL,
    handshake: Option<&mut Handshake>,
) -> Binding {
    let (accepting, opened) = handshake.map_or((None, None), |handshake| {
        handshake.settle(ssl);
        (handshake.accepting, handshake.binding)
    });
    match opened {
        Some(binding) if is_resumed(ssl) && !is_tls13(ssl) => binding,
        _ => {
            let server_name = ServerName::negotiated(ssl);
            let accepted = slot.accepted(accepting);
            policy::serving_binding(attachment, accepted, ssl, server_name.as_bytes())
        }
    }
}

/// Whether this connection verifies its client while the application named no session id context: OpenSSL ends the
/// handshake that resumes such a session, so none must be resumable.
fn lacks_id_context(attachment: &Attachment, ssl: *mut SSL) -> bool {
    static WARNED: Once = Once::new();
    // SAFETY: the connection is valid in its callback, and so is its session.
    let session = unsafe { Session::borrow(openssl_sys::SSL_get_session(ssl)) };
    let named = session.is_none_or(Session::has_id_context);
    attachment.note_id_context(named);
    let lacks = policy::verifies_client(ssl) && !named;
    if lacks && WARNED.first() {
        log::warn!(
            "a context verifies clients and has no session id context, so its sessions are not resumed; call \
             SSL_CTX_set_session_id_context(ctx, id, length) with a name of the application's choice"
        );
    }
    lacks
}

fn keep_session(attachment: &Attachment, slot: Slot, ssl: *mut SSL, session: Session) {
    if is_stateless(ssl) {
        return;
    }
    let engine = &attachment.engine;
    let resumed = is_resumed(ssl);
    // SAFETY: the callback of this connection is running, and this is the only reference in it.
    let handshake = unsafe { Handshake::existing(ssl) };
    // A TLS 1.3 renewal has the time of the renewal; the full handshake is older.
    let authenticated =
        handshake.as_ref().and_then(|handshake| handshake.authenticated).filter(|_| resumed);
    let accepted = slot.accepted(handshake.as_ref().and_then(|handshake| handshake.accepting));
    attachment.note_id_context(session.has_id_context());
    if let Some(handshake) = handshake {
        // What was consumed is replaced now: a handshake that begins anew must not find it.
        handshake.consumed = None;
        if handshake.over {
            return;
        }
    }
    let server_name = ServerName::negotiated(ssl);
    let binding = policy::serving_binding(attachment, accepted, ssl, server_name.as_bytes());
    if bears_no_copy(session) {
        return engine.counters().count(Counter::SessionsDropped);
    }
    let Some((value, note)) = session.encode() else {
        return engine.counters().count(Counter::SessionsDropped);
    };
    let kept = NewSession {
        id: session.id(),
        binding: &binding,
        authenticated: authenticated.unwrap_or(session.time()),
        expires: session.expires(),
        value: &value,
        note,
    };
    // SAFETY: the connection is valid in its callback.
    let tickets =
        u32::try_from(unsafe { openssl_sys::SSL_get_num_tickets(ssl) }).unwrap_or(u32::MAX);
    engine.keep_session(&kept, clock::now(), LOCK_BUDGET / tickets.max(1));
}

/// Whether a session is more than what is encoded of it.
fn bears_no_copy(session: Session) -> bool {
    static SAID: Once = Once::new();
    let has_data = session.has_application_data();
    if has_data && SAID.first() {
        log::info!(
            "sessions that carry data of the application's own (SSL_SESSION_set_ex_data) are not kept: a copy would be \
             without"
        );
    }
    has_data
}

/// OpenSSL gives every TLS 1.3 ticket a fresh time with the whole timeout, on renewal and on a connection that is old
/// already; what is left of the lifetime is all it may have. This callback comes before the renewed session is encoded, in every version of OpenSSL.
fn keep_remaining_lifetime(ssl: *mut SSL) {
    if !is_tls13(ssl) {
        return;
    }
    // SAFETY: the connection is valid in its callback, and so is its session, which is its own.
    if let Some(session) = unsafe { Session::borrow(openssl_sys::SSL_get_session(ssl)) } {
        let remaining = session.expires().secs().saturating_sub(clock::openssl_seconds());
        // OpenSSL takes zero for its own default. A second each time is a life without end for who comes every second,
        // so this ticket gets a key that nobody has.
        session.set_timeout(remaining.max(1));
        if remaining == 0 {
            // SAFETY: the callback of this connection is running, and this is the only reference in it.
            let handshake = unsafe { Handshake::of(ssl) };
            handshake.into_iter().for_each(|handshake| handshake.over = true);
        }
    }
}

/// Whether the tickets of this connection carry the session themselves, so that there is nothing to keep: what its own
/// options say, which the application may have changed.
fn is_stateless(ssl: *mut SSL) -> bool {
    // SAFETY: the connection is valid in its callback.
    let (options, early_data) =
        unsafe { (sys::SSL_get_options(ssl), openssl_sys::SSL_get_max_early_data(ssl)) };
    let replay_protected = early_data > 0 && options & sys::SSL_OP_NO_ANTI_REPLAY == 0;
    is_tls13(ssl) && options & sys::SSL_OP_NO_TICKET == 0 && !replay_protected
}

/// Random bytes from the kernel, or from OpenSSL where a filter refuses that.
fn random(buffer: &mut [u8]) -> bool {
    let Ok(len) = c_int::try_from(buffer.len()) else { return false };
    // SAFETY: the buffer is writable for its length.
    crate::sys::random(buffer) || unsafe { openssl_sys::RAND_bytes(buffer.as_mut_ptr(), len) == 1 }
}

pub(super) fn is_tls13(ssl: *mut SSL) -> bool {
    // SAFETY: the connection is valid in its callback.
    let version = unsafe { openssl_sys::SSL_version(ssl) };
    version == TLS1_3_VERSION || version == QUIC1_VERSION
}

fn is_resumed(ssl: *mut SSL) -> bool {
    // SAFETY: the connection is valid in its callback.
    unsafe { openssl_sys::SSL_session_reused(ssl) == 1 }
}
