//! The answer to OpenSSL's question for the keys of a ticket: to open one that a client sent, or to make one.
//!
//! Owns: nothing. Called by: OpenSSL, through [`super::trampolines`]. Threads and forks: as for every callback. Failure: a ticket
//! that is not opened, or one that nobody can open; a session that must not come into force ends its handshake
//! ([`super::confirm`]).

use std::ffi::{c_int, c_uchar};
use std::ptr;
use std::sync::Arc;

use openssl_sys::{EVP_CIPHER_CTX, SSL};

use super::attachment::{Attachment, Slot};
use super::binding::{family, session_binding};
use super::connection::{is_resumed, is_tls13};
use super::guard::guarded;
use super::handshake::{Handshake, Resuming};
use super::name::ServerName;
use super::random::random;
use super::session::{self, Session};
use super::sys::MacCtx;
use super::ticket::{self, Ciphers, Direction, IV_LEN};
use super::{confirm, policy};
use crate::clock;
use crate::engine::{Engine, Issuing};
use crate::log::Once;
use crate::ring::{Age, Family, KeyName, TicketKey};
use crate::stats::Counter;
use crate::sys::memory;

/// The ticket-key callback's answers (SSL_CTX_set_tlsext_ticket_key_cb(3)).
const END_HANDSHAKE: c_int = -1;
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
/// The arguments are those of OpenSSL's ticket-key callback, for a ticket in a ClientHello.
unsafe fn open_ticket(
    slot: Slot,
    ssl: *mut SSL,
    name: KeyName,
    vector: &[u8; IV_LEN],
    cipher: *mut EVP_CIPHER_CTX,
    mac: *mut MacCtx,
) -> c_int {
    let Some(attachment) = slot.attachment_for(ssl).filter(|_| memory::is_at_hand()) else {
        return NO_TICKET;
    };
    let (engine, now) = (&attachment.engine, clock::now());
    // SAFETY: the callback of this connection is running, and this is the only reference in it.
    let Some(handshake) = (unsafe { Handshake::of(ssl, now) }) else {
        return NO_TICKET;
    };
    if !handshake.may_open_ticket() {
        engine.counters().count(Counter::TicketsOverLimit);
        return NO_TICKET;
    }
    handshake.secret = None;
    let server_name = ServerName::in_client_hello(ssl);
    let accepting = handshake.arrives(slot, ssl, attachment);
    let visit = accepting.visit(server_name.as_bytes());
    let opening = engine.opening_key(&name, vector, &visit, now);
    if engine.has_rules() {
        confirm::ask(ssl, handshake);
    }
    let Some(opening) = opening else { return NO_TICKET };
    let tls13 = is_tls13(ssl);
    if opening.policy.is_public() && ends_without_id_context(attachment, ssl)
        || !tls13 && names_another(engine, opening.family, ssl)
    {
        engine.counters().count(Counter::TicketsMac);
        return NO_TICKET;
    }
    // SAFETY: both contexts are those of the running callback.
    if !unsafe {
        set_keys(Some(attachment), opening.key.key(), vector, (cipher, mac), Direction::Decrypt)
    } {
        return NO_TICKET;
    }
    handshake.opening(opening.age, engine, tls13);
    let (policy, family) = (opening.policy, opening.family);
    // In TLS 1.3 a client uses a ticket once: without a new one it could resume every second time only. Where there
    // are rules, a new ticket is one more time to judge, which no info callback of the application's can prevent. Not each
    // time: an OpenSSL client that takes sessions from its new-session callback alone gets none by a renewal of TLS 1.2.
    let is_renewed = tls13
        || opening.age == Age::Older
        || engine.knows_rules(policy) && !engine.is_seen_judged(&visit, policy);
    handshake.name = server_name;
    handshake.resuming =
        Some(Resuming { policy, family, authenticated: None, engine: Arc::clone(engine) });
    confirm::ask(ssl, handshake);
    if is_renewed { TICKET_AND_RENEW } else { TICKET }
}

/// Whether a client sends the id of a session of others of ours beside its TLS 1.2 ticket. OpenSSL gives the ticket's session
/// that id: the application's logout would end the others.
fn names_another(engine: &Engine, family: Option<Family>, ssl: *mut SSL) -> bool {
    let mut id = ptr::null();
    // SAFETY: a ClientHello of this connection is being processed, which the id lies in.
    let named = unsafe {
        let len = openssl_sys::SSL_client_hello_get0_session_id(ssl, &raw mut id);
        session::id_slice(id, c_int::try_from(len).unwrap_or(0))
    };
    let named = named.try_into().ok().and_then(|id| engine.family_of(id, clock::now()));
    named.is_some() && named != family
}

/// # Safety
/// The arguments are those of OpenSSL's ticket-key callback, for a new ticket.
unsafe fn issue_ticket(
    slot: Slot,
    ssl: *mut SSL,
    name: &mut [u8; KeyName::LEN],
    vector: &mut [u8; IV_LEN],
    cipher: *mut EVP_CIPHER_CTX,
    mac: *mut MacCtx,
) -> c_int {
    // SAFETY: the callback of this connection is running, and this is the only reference in it.
    let mut handshake = unsafe { Handshake::of(ssl, clock::now()) };
    if let Some(handshake) = &mut handshake {
        handshake.settle(ssl);
        confirm::conclude(ssl, handshake);
        if handshake.refused {
            return END_HANDSHAKE;
        }
        // The ticket of a TLS 1.2 resumption comes before the client's Finished.
        handshake.has_passed = is_tls13(ssl) || !is_resumed(ssl);
        // SAFETY: the connection's callback is running, and so is its session valid.
        if let Some(session) = unsafe { Session::borrow(openssl_sys::SSL_get_session(ssl)) } {
            match handshake.has_passed {
                true => handshake.held.establish(ssl, session),
                false => handshake.held.change(ssl, session),
            }
        }
    }
    if handshake.is_none() && confirm::is_beyond_judgement(ssl) {
        return END_HANDSHAKE;
    }
    let attachment = slot.attachment_for(ssl);
    let issuing = attachment
        .zip(handshake)
        .and_then(|(attachment, handshake)| issuing_key(attachment, slot, ssl, handshake));
    let (issuing, family) = issuing.map_or((None, None), |(key, family)| (Some(key), Some(family)));
    // Without a key of ours the ticket is made with one that nobody has: a refusal here is fatal to TLS 1.3 clients of
    // OpenSSL 1.1.1.
    let Some(issuing) = issuing.or_else(|| Engine::throw_away_key(random)) else {
        return NO_TICKET;
    };
    *name = issuing.name.0;
    if !random(vector) {
        return NO_TICKET;
    }
    *vector = issuing.key.vector(family, vector);
    // SAFETY: both contexts are those of the running callback.
    let ready = unsafe {
        set_keys(attachment, issuing.key.key(), vector, (cipher, mac), Direction::Encrypt)
    };
    if ready { TICKET } else { NO_TICKET }
}

/// The key for a ticket that is to be good for something, and its family.
fn issuing_key(
    attachment: &Attachment,
    slot: Slot,
    ssl: *mut SSL,
    handshake: &mut Handshake,
) -> Option<(Issuing, Family)> {
    if lacks_id_context(attachment, ssl) || handshake.over {
        return None;
    }
    let (name, policy) = session_binding(attachment, slot, ssl, handshake)?;
    let engine = &attachment.engine;
    let family = family(engine, ssl, handshake);
    let began = handshake.connection.began;
    let issuing = engine.issuing_key(name.as_bytes(), policy, began, clock::now())?;
    Some((issuing, family))
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

/// Whether OpenSSL would end a handshake that resumes a session without an id context: it does where the client is
/// verified and the application named none.
fn ends_without_id_context(attachment: &Attachment, ssl: *mut SSL) -> bool {
    policy::verifies_client(ssl) && !attachment.names_id_context()
}

/// As [`ticket::set_keys`], for a connection that the attachment's context accepted; `None` where that is not known.
///
/// # Safety
/// `contexts` are those of the running callback.
unsafe fn set_keys(
    attachment: Option<&Attachment>,
    key: &TicketKey,
    vector: &[u8; IV_LEN],
    contexts: (*mut EVP_CIPHER_CTX, *mut MacCtx),
    direction: Direction,
) -> bool {
    static OF_NOBODY: Ciphers = Ciphers::new();
    let (ciphers, ctx) = match attachment {
        Some(attachment) => (&attachment.ticket_ciphers, attachment.ctx()),
        None => (&OF_NOBODY, ptr::null_mut()),
    };
    // SAFETY: as the caller promises; the context lives in callbacks of its connections.
    unsafe { ticket::set_keys(ciphers, ctx, key, vector, contexts, direction) }
}
