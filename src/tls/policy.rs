//! Who gets in at a connection or a context, as a [`Policy`].
//!
//! A server that anybody enters by a full handshake, without showing anything and knowing whom it speaks to, is public.
//! All public servers are alike: a session of one opens no door at another that was closed. Of every other server the
//! rules are digested ([`super::rules`]), also of one that takes shared keys or passwords beside.
//!
//! Owns: nothing. Called by: the callbacks, [`super::confirm`] and
//! [`super::handshake`]. Threads and forks: as for every callback; what is remembered is one atomic word. Failure:
//! none; where it cannot be told that a server is public, it has rules.

use std::ffi::{c_int, c_long, c_void};
use std::ptr;
use std::sync::atomic::Ordering;

use openssl_sys::{SSL, SSL_CIPHER};

use super::attachment::{Attachment, Ciphers};
use super::connection::{is_resumed, is_tls13};
use super::hidden::Hidden;
use super::rules::{self, Place};
use super::sys::{
    self, SSL_VERIFY_FAIL_IF_NO_PEER_CERT, SSL_VERIFY_PEER, SSL_VERIFY_POST_HANDSHAKE,
    TLS1_3_VERSION, X509_V_OK,
};
use crate::config::Bind;
use crate::engine::{Engine, Policy};

/// The policy of a connection with the context and settings that it has now.
pub(super) fn serving(engine: &Engine, ssl: *mut SSL) -> Policy {
    // SAFETY: `ssl` is the connection whose callback is running, which keeps its current context alive.
    unsafe { policy_of(engine, &Place::of_connection(ssl), Attachment::serving(ssl)) }
}

/// Whether everybody gets in at a connection, with the context and settings that it has now. Costs a few loads, the
/// fewest where `accepting`, the attachment of the context that accepted it, serves it too.
pub(super) fn is_public(engine: &Engine, accepting: Option<&Attachment>, ssl: *mut SSL) -> bool {
    match engine.config().resumption.bind {
        Bind::Off => true,
        Bind::Certificate => false,
        // SAFETY: as in `serving`.
        Bind::On => unsafe {
            let place = Place::of_connection(ssl);
            let serving = accepting.filter(|accepting| accepting.ctx() == place.ctx);
            lets_anybody_in(&place, serving.or_else(|| Attachment::serving(ssl)))
        },
    }
}

/// The policy of an attached context itself, which connections of it begin with.
pub(super) fn accepting(attachment: &Attachment) -> Policy {
    // SAFETY: in a callback of one of its connections, the context lives.
    unsafe { policy_of(&attachment.engine, &Place::of_context(attachment.ctx()), Some(attachment)) }
}

/// Whether an attached context itself asks its clients for a certificate.
pub(super) fn verifies_clients(attachment: &Attachment) -> bool {
    // SAFETY: as in `accepting`; while it is attached the context lives too.
    let mode = unsafe { openssl_sys::SSL_CTX_get_verify_mode(attachment.ctx()) };
    mode & SSL_VERIFY_PEER != 0
}

/// Whether this connection asks its client for a certificate.
pub(super) fn verifies_client(ssl: *mut SSL) -> bool {
    // SAFETY: `ssl` is the connection whose callback is running.
    let mode = unsafe { openssl_sys::SSL_get_verify_mode(ssl) };
    mode & SSL_VERIFY_PEER != 0
}

/// Whether a connection's session may be made resumable: not where a certificate was accepted in spite of an error, for
/// another server may not overlook it; and not where a shared key, a password (SRP) or nothing authenticated the two,
/// since the session does not say which. `by_session`: the connection resumed a session of ours, for which the second
/// question was answered when it was made.
pub(super) fn admits_resumption(ssl: *mut SSL, by_session: bool) -> bool {
    // SAFETY: `ssl` is the connection whose callback is running.
    let result = unsafe { openssl_sys::SSL_get_verify_result(ssl) };
    if verifies_client(ssl) && result != X509_V_OK || !by_session && lacks_required_certificate(ssl)
    {
        return false;
    }
    // What resumed and was no session of ours was a shared key of the application's (TLS 1.3).
    by_session || !is_resumed(ssl) && has_certificate_cipher(ssl)
}

/// Whether the session holds a client's certificate where nobody is asked for one: it was verified under rules that the
/// application has lifted since, so the session would show it to servers with other rules.
pub(super) fn has_outlived_rules(engine: &Engine, ssl: *mut SSL) -> bool {
    !verifies_client(ssl)
        && engine.config().resumption.bind != Bind::Off
        && !lacks_client_certificate(ssl)
}

/// Whether the client of a full handshake has no certificate where one is required now: that came to be required after the
/// client was asked.
fn lacks_required_certificate(ssl: *mut SSL) -> bool {
    // SAFETY: `ssl` is the connection whose callback is running.
    let mode = unsafe { openssl_sys::SSL_get_verify_mode(ssl) };
    // In TLS 1.3 it may be asked for later.
    let later = if is_tls13(ssl) { SSL_VERIFY_POST_HANDSHAKE } else { 0 };
    let required = SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT;
    mode & (required | later) == required && lacks_client_certificate(ssl)
}

fn lacks_client_certificate(ssl: *mut SSL) -> bool {
    // SAFETY: `ssl` is the connection whose callback is running, and so is its session valid.
    unsafe {
        let session = openssl_sys::SSL_get_session(ssl);
        session.is_null() || sys::SSL_SESSION_get0_peer(session).is_null()
    }
}

fn has_certificate_cipher(ssl: *mut SSL) -> bool {
    // SAFETY: `ssl` is the connection whose callback is running; a cipher is a constant of OpenSSL's, or NULL.
    unsafe { is_by_certificate(openssl_sys::SSL_get_current_cipher(ssl)) }
}

/// # Safety
/// What `place` points to is valid, and so is the attachment, which is that of the context in it.
unsafe fn policy_of(engine: &Engine, place: &Place, attachment: Option<&Attachment>) -> Policy {
    let with_certificate = match engine.config().resumption.bind {
        Bind::Off => return Policy::PUBLIC,
        Bind::On => false,
        Bind::Certificate => true,
    };
    // SAFETY: as the caller promises.
    unsafe {
        if with_certificate {
            return Policy::of_rules(&rules::digest_with_certificate(place, attachment));
        }
        if lets_anybody_in(place, attachment) {
            return Policy::PUBLIC;
        }
        Policy::of_rules(&rules::digest(place, attachment))
    }
}

/// # Safety
/// As for [`policy_of`].
unsafe fn lets_anybody_in(place: &Place, attachment: Option<&Attachment>) -> bool {
    // SAFETY: as the caller promises.
    unsafe {
        if place.verify_mode & SSL_VERIFY_PEER != 0
            || !rules::has_certificate(place.ctx)
            || Hidden::of(place.ctx).is_none_or(|it| it.accepts_secrets())
        {
            return false;
        }
        let Some(attachment) = attachment else { return offers_certificates_only(place) };
        let print = print_of(place.ciphers);
        let Ciphers(known) = &attachment.ciphers;
        let seen = known.load(Ordering::Relaxed);
        if seen & !1 == print {
            return seen & 1 == 1;
        }
        let answer = offers_certificates_only(place);
        known.store(print | usize::from(answer), Ordering::Relaxed);
        answer
    }
}

/// Tells lists of ciphers apart: the application may replace one, and another may have its address later.
///
/// # Safety
/// `list` is NULL or a list of ciphers.
unsafe fn print_of(list: *mut c_void) -> usize {
    const ODD: usize = 0x9E37_79B9_7F4A_7C15;
    // SAFETY: as the caller promises; an entry that is not there is NULL.
    let parts = unsafe {
        let (stack, count) = (list.cast(), openssl_sys::OPENSSL_sk_num(list.cast()));
        let entry = |at| openssl_sys::OPENSSL_sk_value(stack, at).addr();
        [list.addr(), count.unsigned_abs() as usize, entry(0), entry(count / 2), entry(count - 1)]
    };
    let mix = |sum: usize, part: usize| (sum ^ part).wrapping_mul(ODD).rotate_left(29);
    parts.into_iter().fold(0, mix) & !1
}

/// Whether a client without any secret gets in by one of the ciphers, and by none of them without knowing the server.
///
/// # Safety
/// As for [`policy_of`].
unsafe fn offers_certificates_only(place: &Place) -> bool {
    // SAFETY: as the caller promises; the ciphers in a list are constants of OpenSSL's.
    unsafe {
        let most = place.max_version();
        let speaks_tls13 = most == 0 || most >= c_long::from(TLS1_3_VERSION);
        let (mut by_certificate, mut anonymous) = (false, false);
        for cipher in rules::ciphers(place.ciphers) {
            let of_tls13 = sys::SSL_CIPHER_get_kx_nid(cipher) == sys::NID_KX_ANY;
            by_certificate |= is_by_certificate(cipher) && (speaks_tls13 || !of_tls13);
            anonymous |= sys::SSL_CIPHER_get_auth_nid(cipher) == sys::NID_AUTH_NULL;
        }
        by_certificate && !anonymous
    }
}

/// Whether the server alone proves who it is, by its certificate.
///
/// # Safety
/// `cipher` is NULL or a cipher.
unsafe fn is_by_certificate(cipher: *const SSL_CIPHER) -> bool {
    if cipher.is_null() {
        return false;
    }
    // SAFETY: as the caller promises.
    let (key, authentication): (c_int, c_int) =
        unsafe { (sys::SSL_CIPHER_get_kx_nid(cipher), sys::SSL_CIPHER_get_auth_nid(cipher)) };
    let by_secret = [
        sys::NID_KX_PSK,
        sys::NID_KX_ECDHE_PSK,
        sys::NID_KX_DHE_PSK,
        sys::NID_KX_RSA_PSK,
        sys::NID_KX_SRP,
    ];
    authentication != sys::NID_AUTH_NULL && !by_secret.contains(&key)
}

impl Place {
    /// The highest version that may be spoken; 0 where there is no limit.
    ///
    /// # Safety
    /// What this points to is valid.
    unsafe fn max_version(&self) -> c_long {
        let command = sys::SSL_CTRL_GET_MAX_PROTO_VERSION;
        let nothing: *mut c_void = ptr::null_mut();
        // SAFETY: as the caller promises.
        unsafe {
            match self.ssl {
                Some(ssl) => openssl_sys::SSL_ctrl(ssl, command, 0, nothing),
                None => (super::real::libssl().ctx_ctrl)(self.ctx, command, 0, nothing),
            }
        }
    }
}
