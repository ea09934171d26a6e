//! The decision whether a session may be in force, after the application has chosen the virtual host.
//!
//! A client asks to resume before the servername callback runs; until then the policy that will serve is a guess. So
//! whoever hands OpenSSL a session, or the key of one, also asks for this judgement: an info callback of the connection's
//! own, which OpenSSL calls at each step of the handshake (SSL_set_info_callback(3)), first when it is about to make the
//! ServerHello. By then the ClientHello is done with: every callback that could choose a context or set how the client is
//! verified has run. If the session was made under another policy than the one that serves now, it must not come into
//! force: the handshake is ended ([`super::cut`]), and the node remembers that the name is served by several.
//!
//! The policy may still change later, or the application may put an info callback in the place of ours. So the callbacks
//! that make the next ticket, id or session judge again. Where there are rules, each further step is judged too, and a TLS
//! 1.2 session that is found by its id does not have its secret until it was judged. A TLS 1.2 ticket is renewed until it
//! is known that the application leaves our callback in place ([`is_reliable`]): not always, for OpenSSL's clients forget
//! the session when a new ticket comes, and do not give the next one to their new-session callback.
//!
//! Owns: nothing; what is remembered of a handshake is in [`Handshake`]. Called by: the ticket and session callbacks, and
//! OpenSSL. Threads and forks: as for every callback. Failure: what cannot be judged does not come into force.

use std::ffi::c_int;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};

use openssl_sys::{SSL, SSL_SESSION};
use zeroize::Zeroizing;

use super::attach::Attachment;
use super::connection::{
    has_begun_to_answer, is_finished, is_quic, is_renegotiated, is_tls, is_tls13,
};
use super::cut::Cut;
use super::guard::{contained, guarded};
use super::handshake::{Handshake, NOWHERE, Resuming};
use super::policy;
use super::session::{MASTER_KEY_LEN, Session};
use super::sys::{self, InfoCallback, SSL_CB_ACCEPT_LOOP, SSL_CB_HANDSHAKE_DONE};
use crate::clock;
use crate::engine::{Engine, Policy, Visit};
use crate::log::Once;

/// From now on this handshake is judged, first when the ServerHello is due.
pub(super) fn ask(ssl: *mut SSL, handshake: &mut Handshake) {
    // SAFETY: `ssl` is the connection whose callback is running; the function has the signature that OpenSSL documents.
    unsafe {
        let current = sys::SSL_get_info_callback(ssl);
        if !is_judge(current) {
            handshake.info_callback = current;
            sys::SSL_set_info_callback(ssl, Some(JUDGE));
        }
    }
}

/// Whether the info callback of a connection that this context accepted will be called, as far as this process has seen.
pub(super) fn is_reliable(accepting: &Attachment) -> bool {
    accepting.leaves_info_callback() && !is_replaced()
}

/// Whether this process has seen the application put an info callback in the place of ours.
pub(super) fn is_replaced() -> bool {
    IS_REPLACED.load(Ordering::Relaxed)
}

/// A ClientHello has come. No callback of the application's that could set an info callback has run since.
pub(super) fn arrives(ssl: *mut SSL, handshake: &mut Handshake) {
    if !has_begun_to_answer(ssl) {
        // SAFETY: `ssl` is the connection whose callback is running.
        let current = unsafe { sys::SSL_get_info_callback(ssl) };
        handshake.arrived_with.get_or_insert(current);
    }
}

/// Once the ServerHello is made, a handshake has shown whether the application leaves info callbacks in place.
pub(super) fn learn(ssl: *mut SSL, handshake: &Handshake) {
    if handshake.is_watched || !has_begun_to_answer(ssl) {
        return;
    }
    // SAFETY: the connection is valid in every callback, and its fields still are in the one that frees it.
    let current = unsafe { sys::SSL_get_info_callback(ssl) };
    let is_left = match handshake.arrived_with {
        _ if handshake.resumed(ssl).is_some() => false,
        Some(before) => is_same(before, current),
        None if current.is_none() => true,
        None => return,
    };
    if !is_left {
        IS_REPLACED.store(true, Ordering::Relaxed);
    } else if let Some(accepting) = handshake.slot().attachment() {
        accepting.note_left_info_callback();
    }
}

fn is_same(one: Option<InfoCallback>, other: Option<InfoCallback>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => std::ptr::fn_addr_eq(one, other),
        (one, other) => one.is_none() && other.is_none(),
    }
}

/// The application has put an info callback in the place of ours, once at least.
static IS_REPLACED: AtomicBool = AtomicBool::new(false);

/// One address for the function, to know it again by.
static JUDGE: InfoCallback = judge;

fn is_judge(callback: Option<InfoCallback>) -> bool {
    callback.is_some_and(|callback| std::ptr::fn_addr_eq(callback, JUDGE))
}

/// Keeps the secret of a session, of TLS 1.2 or older, until it was judged.
pub(super) fn withhold_secret(session: NonNull<SSL_SESSION>, handshake: &mut Handshake) {
    // SAFETY: the session is new, and nobody else has it yet.
    if let Some(session) = unsafe { Session::borrow(session.as_ptr()) } {
        handshake.secret = Some(Box::new(session.master_key()));
        session.replace_master_key(&random_secret());
    }
}

/// Whether a session fits what serves the connection now.
pub(super) fn fits(engine: &Engine, ssl: *mut SSL, resuming: &Resuming) -> bool {
    policy::serving(engine, ssl) == resuming.policy
}

/// The application's own callback comes first, for it may change what is judged.
unsafe extern "C" fn judge(ssl: *const SSL, position: c_int, value: c_int) {
    let ssl = ssl.cast_mut();
    // SAFETY: `ssl` is the connection whose callback is running, and each reference to its handshake is the only one while
    // it is used. The application's callback gets the arguments that OpenSSL gave.
    unsafe {
        if let Some(callback) = application_callback(ssl) {
            callback(ssl, position, value);
        }
        if matches!(position, SSL_CB_ACCEPT_LOOP | SSL_CB_HANDSHAKE_DONE) {
            contained(|| {
                if let Some(handshake) = Handshake::current(ssl) {
                    look(ssl, handshake, position);
                }
            });
        }
    }
}

/// What OpenSSL would call without us. It goes on calling ours until it returns to the application, also when the
/// connection has the application's back; and an application that puts a callback of its own in the place of ours may
/// call ours from there.
fn application_callback(ssl: *mut SSL) -> Option<InfoCallback> {
    // SAFETY: `ssl` is the connection whose callback is running; the getters touch nothing else.
    unsafe {
        let saved = Handshake::current(ssl).and_then(|handshake| handshake.info_callback);
        let current = sys::SSL_get_info_callback(ssl);
        let is_replaced = current.is_some() && !is_judge(current) && saved.is_none();
        saved.or_else(|| {
            let ctx = openssl_sys::SSL_get_SSL_CTX(ssl);
            if is_replaced { None } else { sys::SSL_CTX_get_info_callback(ctx) }
        })
    }
}

/// Judges, and looks no more once it can make no difference.
fn look(ssl: *mut SSL, handshake: &mut Handshake, position: c_int) {
    note_watched(ssl, handshake);
    if !has_begun_to_answer(ssl) && resumes_a_shared_key(ssl) {
        handshake.resuming = None;
    }
    conclude(ssl, handshake);
    let has_rules = handshake.resuming.as_ref().is_some_and(Resuming::knows_rules);
    if has_rules && position != SSL_CB_HANDSHAKE_DONE && !handshake.refused {
        return;
    }
    // SAFETY: `ssl` is the connection whose callback is running.
    unsafe {
        if is_judge(sys::SSL_get_info_callback(ssl)) {
            sys::SSL_set_info_callback(ssl, handshake.info_callback);
        }
    }
}

fn note_watched(ssl: *mut SSL, handshake: &mut Handshake) {
    if handshake.is_watched {
        return;
    }
    handshake.is_watched = true;
    // An application's callback in the place of ours may call ours.
    // SAFETY: `ssl` is the connection whose callback is running.
    if is_judge(unsafe { sys::SSL_get_info_callback(ssl) })
        && let Some(accepting) = handshake.slot().attachment()
    {
        accepting.note_left_info_callback();
    }
}

/// Whether what was resumed is a shared key of the application's (TLS 1.3), and no session of ours that the client offered
/// before it. Such a key has no session id yet.
fn resumes_a_shared_key(ssl: *mut SSL) -> bool {
    // SAFETY: `ssl` is the connection whose callback is running, and so is its session valid.
    let session = unsafe { Session::borrow(openssl_sys::SSL_get_session(ssl)) };
    is_tls13(ssl) && session.is_some_and(|session| session.id().is_empty())
}

/// Judges the session that a handshake resumes, by what serves it now. Whether the handshake must not go on is in
/// [`Handshake::refused`].
pub(super) fn conclude(ssl: *mut SSL, handshake: &mut Handshake) {
    let accepting = handshake.slot().attachment();
    let Some(resuming) = handshake.resumed(ssl) else { return };
    // Where nobody knows rules, what serves is read without touching the error queue.
    if !resuming.knows_rules() && policy::is_public(&resuming.engine, accepting, ssl) {
        handshake.connection.keeps_to(Policy::PUBLIC);
        return give_secret_back(ssl, handshake);
    }
    guarded(|| compare(ssl, handshake));
}

fn compare(ssl: *mut SSL, handshake: &mut Handshake) {
    let (accepting, listener) = handshake.accepting(ssl).unwrap_or(NOWHERE);
    let Some(resuming) = handshake.resumed(ssl) else { return };
    let (engine, policy, now) = (&resuming.engine, resuming.policy, clock::now());
    let visit = Visit { name: handshake.name.as_bytes(), accepting, listener };
    if fits(engine, ssl, resuming) {
        if handshake.connection.policy.is_none() {
            engine.note_served(&visit, policy, now);
        }
        handshake.connection.keeps_to(policy);
        return give_secret_back(ssl, handshake);
    }
    // After the handshake the connection is what it is; nothing more is made of it.
    if handshake.refused || is_finished(ssl) {
        return;
    }
    engine.note_mixed(&visit, now);
    end(ssl, handshake);
    note_ended();
}

/// Makes sure that this handshake fails.
fn end(ssl: *mut SSL, handshake: &mut Handshake) {
    handshake.refused = true;
    handshake.secret = None;
    if is_quic(ssl) {
        // Its BIOs are not the connection's own; the ticket that must follow fails.
        return;
    }
    // SAFETY: the session is the connection's own: `open_ticket` and `find_session` hand out new objects only. The
    // connection's callback is running, and it is not of QUIC.
    unsafe {
        if let Some(session) = Session::borrow(openssl_sys::SSL_get_session(ssl)) {
            session.replace_master_key(&random_secret());
        }
        let with_alert = is_tls(ssl) && !is_renegotiated(ssl) && !has_begun_to_answer(ssl);
        handshake.cut = Some(Cut::end(ssl, with_alert));
    }
}

fn give_secret_back(ssl: *mut SSL, handshake: &mut Handshake) {
    let Some(secret) = handshake.secret.take() else { return };
    // SAFETY: as in `end`.
    if let Some(session) = unsafe { Session::borrow(openssl_sys::SSL_get_session(ssl)) } {
        session.replace_master_key(&secret);
    }
}

fn random_secret() -> Zeroizing<[u8; MASTER_KEY_LEN]> {
    let mut secret = Zeroizing::new([0; MASTER_KEY_LEN]);
    // Even without randomness the secret is not the client's.
    let _ = crate::sys::random(&mut secret[..]);
    secret
}

fn note_ended() {
    static SAID: Once = Once::new();
    if SAID.first() {
        log::warn!(
            "a handshake was ended: the session that the client resumed was made under other rules for clients than those \
             of the virtual host that serves it; clients of this server name make full handshakes for now (said once)"
        );
    }
}
