//! The decision whether a session may be in force, after the application has chosen the virtual host.
//!
//! A client asks to resume before the servername callback runs; until then the policy that will serve is a guess. So
//! whoever hands OpenSSL a session, or the key of one, also asks for this judgement: an info callback of the connection's
//! own, which OpenSSL calls when it is about to make the ServerHello (SSL_set_info_callback(3): at each step of the
//! handshake). By then the ClientHello is done with: every callback that could choose a context or set how the client is
//! verified has run. If the session was made under another policy than the one that serves now, it must not come into
//! force: the handshake is ended, and the node remembers that the name is served by several.
//!
//! - TLS 1.2 and older: the session's master secret is replaced by a random one, so that neither side can finish. Where
//!   there are rules, a session that is found by its id does not have its secret until it was judged, so that it comes
//!   into force only if it was: the application may put an info callback of its own in the place of ours.
//! - TLS 1.3: making the ticket that follows fails, before the application is told that the handshake is over. A ticket
//!   follows, for the connection is given a number of them and a session id generator that refuses.
//!
//! Owns: nothing; what is remembered of a handshake is in [`Handshake`]. Called by: the ticket and session callbacks, and
//! OpenSSL. Threads and forks: as for every callback. Failure: without a judgement a session stays in force only if no
//! info callback can be set, which OpenSSL does not refuse.

use std::ffi::{c_int, c_uchar, c_uint};
use std::ptr::NonNull;

use openssl_sys::{SSL, SSL_SESSION};
use zeroize::Zeroizing;

use super::connection::{is_resumed, is_tls13};
use super::guard::{contained, guarded};
use super::handshake::{Handshake, Resuming};
use super::policy;
use super::session::{MASTER_KEY_LEN, Session};
use super::sys::{self, InfoCallback};
use crate::clock;
use crate::engine::{Engine, Policy, Visit};
use crate::log::Once;

/// From now on this handshake is judged when the ServerHello is due.
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

/// The application's own callback comes first, for it may change what is judged. OpenSSL goes on calling ours until it
/// returns to the application, so what is called each time is kept small.
unsafe extern "C" fn judge(ssl: *const SSL, position: c_int, value: c_int) {
    let ssl = ssl.cast_mut();
    // SAFETY: `ssl` is the connection whose callback is running; the getters touch nothing else. The application's
    // callback gets the arguments that OpenSSL gave.
    unsafe {
        let mut callback = sys::SSL_get_info_callback(ssl);
        let is_due = is_judge(callback);
        if is_due {
            callback = contained(|| restore(ssl)).flatten();
        }
        let callback =
            callback.or_else(|| sys::SSL_CTX_get_info_callback(openssl_sys::SSL_get_SSL_CTX(ssl)));
        if let Some(callback) = callback.filter(|_| !is_judge(callback)) {
            callback(ssl, position, value);
        }
        if is_due {
            // This is the only reference in the callback.
            contained(|| Handshake::current(ssl).map(|handshake| conclude(ssl, handshake)));
        }
    }
}

/// Gives the connection back the application's info callback, which is the result.
fn restore(ssl: *mut SSL) -> Option<InfoCallback> {
    // SAFETY: `ssl` is the connection whose callback is running, and this is the only reference in it.
    unsafe {
        let before = Handshake::current(ssl).and_then(|it| it.info_callback.take());
        sys::SSL_set_info_callback(ssl, before);
        before
    }
}

/// Judges the session that a handshake resumes, unless that is done. Whether the handshake must not go on is in
/// [`Handshake::refused`].
pub(super) fn conclude(ssl: *mut SSL, handshake: &mut Handshake) {
    let slot = handshake.slot();
    let Some(resuming) = handshake.resuming.as_mut().filter(|it| !it.judged) else { return };
    let Some(attachment) = slot.attachment_for(ssl).filter(|_| is_resumed(ssl)) else { return };
    resuming.judged = true;
    let is_free = resuming.policy.is_public() && !attachment.engine.has_rules();
    // Where nobody knows rules, what serves is read without touching the error queue.
    if is_free && policy::is_public(attachment, ssl) {
        handshake.connection.keeps_to(Policy::PUBLIC);
        return give_secret_back(ssl, handshake);
    }
    guarded(|| compare(&attachment.engine, ssl, handshake));
}

fn compare(engine: &Engine, ssl: *mut SSL, handshake: &mut Handshake) {
    let (accepting, now) = (handshake.accepting().unwrap_or(Policy::PUBLIC), clock::now());
    let Some(resuming) = &handshake.resuming else { return };
    let visit = Visit { name: handshake.name.as_bytes(), accepting };
    let policy = resuming.policy;
    if fits(engine, ssl, resuming) {
        engine.note_served(&visit, policy, now);
        handshake.connection.keeps_to(policy);
        return give_secret_back(ssl, handshake);
    }
    engine.note_mixed(&visit, now);
    handshake.refused = true;
    end(ssl);
    note_ended();
}

/// Makes sure that this handshake fails.
fn end(ssl: *mut SSL) {
    if is_tls13(ssl) {
        // SAFETY: `ssl` is the connection whose callback is running; the function has the signature that OpenSSL documents.
        unsafe {
            if openssl_sys::SSL_get_num_tickets(ssl) == 0 {
                openssl_sys::SSL_set_num_tickets(ssl, 1);
            }
            sys::SSL_set_generate_session_id(ssl, Some(refuse_id));
        }
        return;
    }
    // SAFETY: the session is the connection's own: `open_ticket` and `find_session` hand out new objects only.
    if let Some(session) = unsafe { Session::borrow(openssl_sys::SSL_get_session(ssl)) } {
        session.replace_master_key(&random_secret());
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

/// # Safety
/// Nothing is asked of the arguments.
unsafe extern "C" fn refuse_id(_ssl: *mut SSL, _id: *mut c_uchar, _len: *mut c_uint) -> c_int {
    0
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
