//! The answers to OpenSSL's questions, but for those about tickets ([`super::ticket_callback`]). Each is guarded (see
//! [`super::guard`]) and has a soft answer, so that no fault of ours costs more than a full handshake.
//!
//! Owns: nothing; what a handshake remembers is in [`Handshake`]. Called by: OpenSSL, through [`super::trampolines`].
//! Threads: callbacks run concurrently, those of one connection never do. Forks: everything is inherited. Failure: the
//! soft answers below; a session that must not come into force ends its handshake ([`super::confirm`]).

use std::ffi::{c_int, c_uchar, c_uint, c_void};
use std::ptr;
use std::time::Duration;

use openssl_sys::{SSL, SSL_CTX, SSL_SESSION};

use super::attachment::{Attachment, Slot};
use super::binding::{family, session_binding};
use super::connection::{has_begun_to_answer, is_stateless, is_tls13};
use super::guard::guarded;
use super::handshake::Handshake;
use super::search::{self, Search};
use super::session::{self, Session};
use super::{client, client_session};
use super::{confirm, notes, pause, removal};
use crate::clock;
use crate::config::OnRemove;
use crate::engine::NewSession;
use crate::log::Once;
use crate::ring::session_id::SESSION_ID_LEN;
use crate::stats::Counter;

/// [`SESSION_ID_LEN`] as OpenSSL counts.
const SESSION_ID_LEN_C: c_uint = 32;
const _: () = assert!(SESSION_ID_LEN == 32);

/// Longest wait for locks in one handshake, all its sessions together: a millisecond, less what the last sleep may take
/// too long.
const LOCK_BUDGET: Duration = Duration::from_micros(800);

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
/// OpenSSL on the context but for its ex_data and its references, which that lock does not guard.
pub(super) unsafe extern "C" fn remove_session(ctx: *mut SSL_CTX, session: *mut SSL_SESSION) {
    // SAFETY: OpenSSL gives a context and a session that are valid while the callback runs.
    unsafe {
        let attachment = Attachment::of(ctx);
        let is_of_client = client_session::knows(session);
        guarded(|| {
            if let (Some(attachment), Some(session)) = (attachment, Session::borrow(session)) {
                let is_of_openssl = removal::is_of_openssl(session);
                if !is_of_client {
                    forget_session(attachment, session, is_of_openssl);
                }
            }
        });
        // Of a context in both roles, OpenSSL does not tell about all of the client's sessions.
        if is_of_client || notes::connects(ctx) {
            client::remove_session(attachment, ctx, session);
        }
    }
}

/// Removes a session with its family if the application removed it. What OpenSSL removes by itself, as after a failed
/// handshake, which anybody can cause, goes only with `on_remove = "forget"`.
fn forget_session(attachment: &Attachment, session: Session, is_of_openssl: bool) {
    static SAID: Once = Once::new();
    let engine = &attachment.engine;
    let is_of_application = !is_of_openssl
        && !attachment.has_cache_of_its_own()
        // SAFETY: the remove-session callback of the context is running.
        && !unsafe { attachment.context_is_being_freed() };
    let forgotten = if is_of_application {
        engine.forget_session(session.id(), clock::now())
    } else if engine.config().resumption.on_remove == OnRemove::Forget {
        engine.forget_stored_session(session.id(), clock::now())
    } else {
        return;
    };
    if let Err(error) = forgotten
        && SAID.first()
    {
        log::warn!("a removal was not carried out (said once): {error}");
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
    let made = guarded(|| make_id(slot, ssl)).unwrap_or(NewId::None);
    // SAFETY: OpenSSL gives room for 32 bytes; other lengths never resume in TLS 1.3, and 0 ends the handshake.
    unsafe {
        *len = SESSION_ID_LEN_C;
        match made {
            NewId::Ours(made) => {
                ptr::copy_nonoverlapping(made.as_ptr(), id, SESSION_ID_LEN);
                1
            }
            NewId::None => {
                c_int::from(openssl_sys::RAND_bytes(id, SESSION_ID_LEN_C.cast_signed()) == 1)
            }
            NewId::EndHandshake => 0,
        }
    }
}

/// What becomes of a request for a session id.
enum NewId {
    Ours([u8; SESSION_ID_LEN]),
    /// For want of a key of ours: an id that nobody will find.
    None,
    EndHandshake,
}

fn make_id(slot: Slot, ssl: *mut SSL) -> NewId {
    let now = clock::now();
    // SAFETY: the callback of this connection is running, and this is the only reference in it.
    let handshake = unsafe { Handshake::of(ssl, now) };
    let Some(handshake) = handshake else {
        let is_to_end = confirm::is_beyond_judgement(ssl);
        return if is_to_end { NewId::EndHandshake } else { NewId::None };
    };
    let Some(attachment) = slot.attachment_for(ssl) else { return NewId::None };
    confirm::conclude(ssl, handshake);
    if handshake.refused {
        return NewId::EndHandshake;
    }
    if attachment.engine.has_rules() && !has_begun_to_answer(ssl) {
        confirm::ask(ssl, handshake);
    }
    keep_remaining_lifetime(ssl, handshake);
    let family = family(&attachment.engine, ssl, handshake);
    attachment.engine.new_session_id(family, now).map_or(NewId::None, NewId::Ours)
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

/// Whether early data of a connection may be accepted: the session fits what serves it, and the strike register allows
/// it.
pub(super) fn early_data(attachment: &Attachment, ssl: *mut SSL) -> bool {
    let engine = &attachment.engine;
    // SAFETY: the connection is valid in the callback (or the application's call), and so is its session; this is the
    // only reference to its handshake in it.
    let (session, handshake) =
        unsafe { (Session::borrow(openssl_sys::SSL_get_session(ssl)), Handshake::current(ssl)) };
    let resuming = handshake.as_ref().and_then(|handshake| handshake.resuming.as_ref());
    let fits = resuming.is_none_or(|resuming| confirm::fits(engine, ssl, resuming));
    session.is_some_and(|session| engine.early_data_allowed(session.id(), fits, clock::now()))
}

fn keep_session(attachment: &Attachment, slot: Slot, ssl: *mut SSL, session: Session) {
    if is_stateless(ssl) {
        return;
    }
    let engine = &attachment.engine;
    attachment.note_id_context(session.has_id_context());
    // SAFETY: the callback of this connection is running, and this is the only reference in it.
    let Some(handshake) = (unsafe { Handshake::of(ssl, clock::now()) }) else {
        // It is not kept, and its policy is known.
        let _ = confirm::is_beyond_judgement(ssl);
        return engine.counters().count(Counter::SessionsDropped);
    };
    // What was consumed is replaced now: a handshake that begins anew must not find it.
    handshake.consumed = None;
    confirm::conclude(ssl, handshake);
    if handshake.over || handshake.refused {
        return;
    }
    handshake.has_passed = true;
    handshake.held.establish(ssl, session);
    let binding = session_binding(attachment, slot, ssl, handshake);
    let Some((name, policy)) = binding.filter(|_| !bears_no_copy(session)) else {
        return engine.counters().count(Counter::SessionsDropped);
    };
    let Some((value, note)) = session.encode() else {
        return engine.counters().count(Counter::SessionsDropped);
    };
    let family = family(engine, ssl, handshake);
    let began = handshake.connection.began;
    // OpenSSL gives every TLS 1.3 ticket a fresh time; the full handshake is older.
    let authenticated = handshake
        .resumed(ssl)
        .map(|resumed| resumed.authenticated.unwrap_or_else(|| began.min(session.time())));
    let kept = NewSession {
        id: session.id(),
        name: name.as_bytes(),
        policy,
        began,
        authenticated,
        expires: session.expires().min(family.ends()),
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

/// Shortens the session's timeout to what is left of its lifetime. OpenSSL gives every TLS 1.3 ticket a fresh time with
/// the whole timeout, on renewal and on a connection that is old already. The callback that calls this runs before the
/// renewed session is encoded, in every version of OpenSSL.
fn keep_remaining_lifetime(ssl: *mut SSL, handshake: &mut Handshake) {
    if !is_tls13(ssl) {
        return;
    }
    // SAFETY: the connection is valid in its callback, and so is its session, which is its own.
    if let Some(session) = unsafe { Session::borrow(openssl_sys::SSL_get_session(ssl)) } {
        let remaining = session.expires().secs().saturating_sub(clock::openssl_seconds());
        // OpenSSL takes zero for its own default. A second each time is a life without end for who comes every second,
        // so this ticket gets a key that nobody has.
        session.set_timeout(remaining.max(1));
        handshake.over |= remaining == 0;
    }
}
