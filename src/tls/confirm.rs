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
//! that make the next ticket, id or session judge again; where there are rules, each further step is judged too, and a TLS
//! 1.2 session that is found by its id does not have its secret until it was judged. Where there are rules, a session is
//! only looked at under a name that was served with our info callback in place ([`leaves_callback`]).
//!
//! Owns: nothing; what is remembered of a handshake is in [`Handshake`]. Called by: the ticket and session callbacks, and
//! OpenSSL. Threads and forks: as for every callback. Failure: what cannot be judged does not come into force.

use std::ffi::c_int;

use openssl_sys::{SSL, SSL_CTX};

use super::accepting::{Accepting, keeps_info_callback};
use super::attachment::Attachment;
use super::connection::{has_begun_to_answer, is_finished, is_quic, is_resumed, is_tls13};
use super::cut::Cut;
use super::guard::{contained, guarded};
use super::handshake::{Handshake, Resuming};
use super::name::ServerName;
use super::policy;
use super::real::libssl;
use super::session::Session;
use super::sys::{
    self, InfoCallback, SSL_CB_ACCEPT_LOOP, SSL_CB_HANDSHAKE_DONE, SSL_CB_HANDSHAKE_START,
};
use super::withheld::random_secret;
use crate::clock;
use crate::engine::{Engine, Policy};
use crate::log::Once;
use crate::sys::thread_word::ThreadWord;

/// From now on this handshake is judged, first when the ServerHello is due.
pub(super) fn ask(ssl: *mut SSL, handshake: &mut Handshake) {
    handshake.is_asked = true;
    handshake.is_judged = false;
    // SAFETY: `ssl` is the connection whose callback is running; the function has the signature that OpenSSL documents.
    unsafe {
        let current = (libssl().get_info_callback)(ssl);
        if !is_judge(current) {
            handshake.info_callback = current;
            (libssl().set_info_callback)(ssl, Some(JUDGE));
        }
    }
}

/// Whether the application left our info callback in place when it chose the virtual host, or would have. `None` where that
/// is not known: the connection got none of ours, and has one that is not its context's either.
pub(super) fn leaves_callback(
    ssl: *mut SSL,
    handshake: &Handshake,
    accepting: Option<&Attachment>,
) -> Option<bool> {
    if handshake.is_asked {
        return Some(handshake.is_watched);
    }
    if keeps_info_callback(ssl) {
        return Some(true);
    }
    // SAFETY: `ssl` is the connection whose callback is running, which keeps both contexts alive.
    let (current, inherited) = unsafe {
        let ctx = accepting.map_or_else(|| openssl_sys::SSL_get_SSL_CTX(ssl), Attachment::ctx);
        ((libssl().get_info_callback)(ssl), callback_of_context(ctx))
    };
    (current.is_none() || is_same(current, inherited)).then_some(true)
}

/// The application sets an info callback on a connection: whether ours keeps the place and calls that one.
pub(super) fn takes_over(ssl: *mut SSL, callback: Option<InfoCallback>) -> bool {
    let Some(handshake) = handshake_of_judge(ssl) else { return false };
    handshake.info_callback = callback.filter(|callback| !is_judge(Some(*callback)));
    true
}

/// The application asks for a connection's info callback: its own, where ours has the place.
pub(super) fn taken_over(ssl: *mut SSL) -> Option<Option<InfoCallback>> {
    handshake_of_judge(ssl).map(|handshake| handshake.info_callback)
}

/// The handshake of a connection that the application calls a function of, while our info callback is in place.
fn handshake_of_judge<'a>(ssl: *mut SSL) -> Option<&'a mut Handshake> {
    // SAFETY: the application vouches for the connection, and calls nothing else on it meanwhile: this is the only
    // reference to its handshake.
    unsafe {
        let is_in_place =
            !ssl.is_null() && !is_quic(ssl) && is_judge((libssl().get_info_callback)(ssl));
        if is_in_place { Handshake::current(ssl) } else { None }
    }
}

fn is_same(one: Option<InfoCallback>, other: Option<InfoCallback>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => std::ptr::fn_addr_eq(one, other),
        (one, other) => one.is_none() && other.is_none(),
    }
}

/// One address for the function, to know it again by.
static JUDGE: InfoCallback = judge;

fn is_judge(callback: Option<InfoCallback>) -> bool {
    callback.is_some_and(|callback| std::ptr::fn_addr_eq(callback, JUDGE))
}

/// A context's own callback. An application that finds ours on a connection may give it to a context: that is none.
///
/// # Safety
/// `ctx` is a valid context.
unsafe fn callback_of_context(ctx: *mut SSL_CTX) -> Option<InfoCallback> {
    // SAFETY: as the caller promises.
    unsafe { sys::SSL_CTX_get_info_callback(ctx) }.filter(|callback| !is_judge(Some(*callback)))
}

/// Whether a session fits what serves the connection now.
pub(super) fn fits(engine: &Engine, ssl: *mut SSL, resuming: &Resuming) -> bool {
    policy::serving(engine, ssl) == resuming.policy
}

/// The application's own callback comes first, for it may change what is judged. One that passes on to ours what it is
/// told itself gets no second word.
unsafe extern "C" fn judge(ssl: *const SSL, position: c_int, value: c_int) {
    let ssl = ssl.cast_mut();
    // SAFETY: `ssl` is the connection whose callback is running, and each reference to its handshake is the only one while
    // it is used. The application's callback gets the arguments that OpenSSL gave.
    unsafe {
        let (mut saved, mut was_ours) = (None, false);
        if let Some(handshake) = Handshake::current(ssl) {
            if handshake.is_in_callback {
                // Or it was left without returning, by longjmp(3) or an exception.
                if is_step(position) {
                    contained(|| {
                        handshake.is_watched |= is_judge((libssl().get_info_callback)(ssl));
                        conclude(ssl, handshake);
                    });
                }
                return;
            }
            if position == SSL_CB_HANDSHAKE_START {
                contained(|| handshake.begins(ssl));
            }
            (saved, was_ours) = (handshake.info_callback, handshake.is_asked);
            handshake.is_in_callback = true;
        }
        if let Some(callback) = application_callback(ssl, saved, was_ours) {
            pass_on(callback, ssl, position, value);
        }
        if let Some(handshake) = Handshake::current(ssl) {
            handshake.is_in_callback = false;
            // OpenSSL calls a function that was taken off until it returns to the application.
            if is_step(position) && !handshake.is_judged {
                contained(|| look(ssl, handshake, position));
            }
        } else {
            contained(|| give_up(ssl));
        }
    }
}

fn is_step(position: c_int) -> bool {
    matches!(position, SSL_CB_ACCEPT_LOOP | SSL_CB_HANDSHAKE_DONE)
}

/// The application has written over what was remembered of this handshake: nothing can be judged. Where there are rules,
/// nothing that was resumed comes into force.
fn give_up(ssl: *mut SSL) {
    // SAFETY: `ssl` is the connection whose callback is running, which keeps its context alive.
    unsafe {
        // An application that found ours on another connection may call it for this one, which has none.
        if !is_judge((libssl().get_info_callback)(ssl)) {
            return;
        }
        let ctx = openssl_sys::SSL_get_SSL_CTX(ssl);
        (libssl().set_info_callback)(ssl, callback_of_context(ctx));
    }
    if is_beyond_judgement(ssl) {
        // SAFETY: as above.
        unsafe { Cut::end(ssl) }.stay();
    }
}

/// Whether a session was resumed where there are rules, in a handshake of which nothing is remembered. Then it is to end.
/// Rules that serve here are known to the node from now on.
pub(super) fn is_beyond_judgement(ssl: *mut SSL) -> bool {
    let Some(attachment) = Attachment::serving(ssl) else { return false };
    let engine = &attachment.engine;
    if !policy::is_public(engine, Some(attachment), ssl) {
        engine.note_rules();
    }
    let is_to_end = engine.has_rules() && is_resumed(ssl) && !is_quic(ssl) && !is_finished(ssl);
    if is_to_end {
        guarded(|| note_unjudged(attachment, ssl));
        note_ended();
    }
    is_to_end
}

/// The context that accepted the connection is not known.
fn note_unjudged(attachment: &Attachment, ssl: *mut SSL) {
    let (engine, name) = (&attachment.engine, ServerName::negotiated(ssl));
    let visit = Accepting::UNKNOWN.visit(name.as_bytes());
    engine.note_mixed(&visit, policy::serving(engine, ssl), clock::now());
}

/// What OpenSSL would call without us. It goes on calling ours until it returns to the application, also when the
/// connection has the application's back; and an application that puts a callback of its own in the place of ours, or
/// gives its context one, may call ours from there.
fn application_callback(
    ssl: *mut SSL,
    saved: Option<InfoCallback>,
    was_ours: bool,
) -> Option<InfoCallback> {
    saved.or_else(|| {
        // SAFETY: `ssl` is the connection whose callback is running; the getters touch nothing else.
        unsafe {
            let current = (libssl().get_info_callback)(ssl);
            let is_ours = is_judge(current) || was_ours && current.is_none();
            is_ours.then(|| callback_of_context(openssl_sys::SSL_get_SSL_CTX(ssl)))?
        }
    })
}

/// Calls the application's callback, unless that is what called ours for this connection, of which nothing is remembered
/// that would tell.
///
/// # Safety
/// `ssl` is the connection whose callback is running.
unsafe fn pass_on(callback: InfoCallback, ssl: *mut SSL, position: c_int, value: c_int) {
    static CALLED_FOR: ThreadWord = ThreadWord::new();
    let before = CALLED_FOR.get();
    // SAFETY: as the caller promises; no reference to its handshake is in use.
    unsafe {
        if Handshake::current(ssl).is_some() {
            return callback(ssl, position, value);
        }
        if before != ssl.addr() && CALLED_FOR.set(ssl.addr()) {
            callback(ssl, position, value);
            CALLED_FOR.set(before);
        }
    }
}

/// Judges, and takes our callback off when no later step can change the result.
fn look(ssl: *mut SSL, handshake: &mut Handshake, position: c_int) {
    // SAFETY: `ssl` is the connection whose callback is running.
    let is_in_place = is_judge(unsafe { (libssl().get_info_callback)(ssl) });
    // An application's callback in the place of ours may call ours.
    handshake.is_watched |= is_in_place;
    handshake.is_answered();
    if !has_begun_to_answer(ssl) && resumes_a_shared_key(ssl) {
        handshake.resuming = None;
    }
    conclude(ssl, handshake);
    let has_rules = handshake.resuming.as_ref().is_some_and(Resuming::knows_rules);
    let goes_on = has_rules || handshake.refused;
    if is_in_place && (position == SSL_CB_HANDSHAKE_DONE || !goes_on) {
        handshake.is_judged = true;
        // SAFETY: as above.
        unsafe { (libssl().set_info_callback)(ssl, handshake.info_callback) };
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
    if handshake.refused {
        // SAFETY: the connection's callback is running, and it is the one whose handshake was ended.
        return handshake.cut.iter_mut().for_each(|cut| unsafe { cut.again(ssl) });
    }
    let accepting = handshake.slot().attachment();
    let Some(resuming) = handshake.resumed(ssl) else { return };
    // Where nobody knows rules, what serves is read without touching the error queue.
    if !resuming.knows_rules() && policy::is_public(&resuming.engine, accepting, ssl) {
        handshake.connection.keeps_to(Policy::PUBLIC);
        return admit(ssl, handshake);
    }
    guarded(|| compare(ssl, handshake));
}

fn compare(ssl: *mut SSL, handshake: &mut Handshake) {
    let accepting = handshake.accepting(ssl).unwrap_or(Accepting::UNKNOWN);
    let Some(resuming) = handshake.resumed(ssl) else { return };
    let (engine, policy, now) = (&resuming.engine, resuming.policy, clock::now());
    let visit = accepting.visit(handshake.name.as_bytes());
    if fits(engine, ssl, resuming) {
        if handshake.connection.policy.is_none() {
            if handshake.is_watched {
                engine.note_served(&visit, policy, now);
                engine.note_judged(&visit, policy);
            } else {
                engine.note_mixed(&visit, policy, now);
            }
        }
        handshake.connection.keeps_to(policy);
        return admit(ssl, handshake);
    }
    // After the handshake the connection is what it is, also where the client's certificate is asked for then (TLS 1.3);
    // nothing more is made of it.
    if handshake.has_passed || is_finished(ssl) {
        return;
    }
    engine.note_mixed(&visit, policy, now);
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
        handshake.cut = Some(Cut::end(ssl));
    }
}

/// The session may be in force.
fn admit(ssl: *mut SSL, handshake: &mut Handshake) {
    // SAFETY: the connection's callback is running, and so is its session valid.
    let Some(session) = (unsafe { Session::borrow(openssl_sys::SSL_get_session(ssl)) }) else {
        return;
    };
    if let Some(withheld) = handshake.secret.take() {
        withheld.give_back(session);
    }
    if !has_begun_to_answer(ssl) {
        handshake.held.change(ssl, session);
    }
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
