//! The search for the session that a client asks to resume.
//!
//! Owns: nothing. Called by: the get-session callback. Threads and forks: as for every callback. Failure: no session,
//! which means a full handshake.
//!
//! A search that has to wait for the cluster has two parts, between which the handshake may be paused. Neither keeps
//! anything for the other but what [`pause`] keeps: what the first found out, the second finds out again.

use std::ptr::NonNull;

use openssl_sys::{SSL, SSL_SESSION};

use super::callbacks::is_tls13;
use super::handshake::{Consumed, Handshake};
use super::name::ServerName;
use super::slots::Slot;
use super::{pause, policy, session};
use crate::clock;
use crate::engine::{self, Binding, Engine, Lookup, Policy, StoredSession};
use crate::stats::Counter;

/// How far a search has come.
#[derive(Clone, Copy)]
pub(super) enum Search {
    /// To its end.
    Over(Option<NonNull<SSL_SESSION>>),
    /// The cluster was asked, and the handshake is to be paused.
    Asked,
}

/// Begins the search for the session of that id.
pub(super) fn begin(slot: Slot, ssl: *mut SSL, id: &[u8]) -> Search {
    // SAFETY: the callback of this connection is running, and this is the only reference in it.
    let Some(handshake) = (unsafe { Handshake::of(ssl) }) else { return Search::Over(None) };
    let Some(wanted) = Wanted::now(slot, ssl, handshake) else { return Search::Over(None) };
    if let Some(again) = handshake.consumed.as_ref()
        && again.id == *id
        && again.binding == wanted.binding
    {
        return Search::Over(session::decode(&again.value, again.note, id));
    }
    let (engine, binding, lookup) = (wanted.engine, &wanted.binding, wanted.lookup);
    let (waited, now) = (&mut handshake.waited, clock::now());
    let stored = match engine.begin_search(id, binding, lookup, pause::asking(), waited, now) {
        engine::Search::Over(stored) => stored,
        engine::Search::Asked(question) => match pause::prepare(ssl, question) {
            None => return Search::Asked,
            Some(question) => {
                engine.end_search(question, id, binding, lookup, waited, clock::now())
            }
        },
    };
    Search::Over(stored.and_then(|stored| wanted.take_in(stored, id, handshake)))
}

/// Ends it after a pause, with the answer or without.
pub(super) fn end(slot: Slot, ssl: *mut SSL, id: &[u8]) -> Search {
    let found = pause::conclude(ssl, |question| {
        // SAFETY: the callback of this connection is running, and this is the only reference in it.
        let handshake = unsafe { Handshake::of(ssl) }?;
        let wanted = Wanted::of(slot, ssl)?;
        let (engine, binding, lookup) = (wanted.engine, &wanted.binding, wanted.lookup);
        let waited = &mut handshake.waited;
        let stored = engine.end_search(question, id, binding, lookup, waited, clock::now())?;
        wanted.take_in(stored, id, handshake)
    });
    Search::Over(found.flatten())
}

/// What a session must be tied to, and how it is looked for.
struct Wanted {
    engine: &'static Engine,
    binding: Binding,
    policy: Policy,
    lookup: Lookup,
}

impl Wanted {
    /// Counts one more search of this handshake, if it may have one.
    fn now(slot: Slot, ssl: *mut SSL, handshake: &mut Handshake) -> Option<Self> {
        let attachment = slot.attachment_for(ssl)?;
        if !handshake.may_look_up() {
            attachment.engine.counters().count(Counter::SessionsOverLimit);
            return None;
        }
        handshake.accepting = Some(attachment.accepting());
        let wanted = Self::of(slot, ssl);
        if wanted.is_none() {
            attachment.engine.counters().count(Counter::SessionsBinding);
        }
        wanted
    }

    fn of(slot: Slot, ssl: *mut SSL) -> Option<Self> {
        let attachment = slot.attachment_for(ssl)?;
        let engine = &*attachment.engine;
        let server_name = ServerName::in_client_hello(ssl);
        let (binding, policy) = policy::expected_binding(attachment, ssl, server_name.as_bytes())?;
        // TLS 1.2 ids are visible on the wire and reused by design.
        let single_use = engine.config().resumption.single_use && is_tls13(ssl);
        let lookup = if single_use { Lookup::Consume } else { Lookup::Keep };
        Some(Wanted { engine, binding, policy, lookup })
    }

    /// OpenSSL's form of a session that was found, and what the handshake is to remember of it.
    fn take_in(
        self,
        stored: StoredSession,
        id: &[u8],
        handshake: &mut Handshake,
    ) -> Option<NonNull<SSL_SESSION>> {
        let session = session::decode(&stored.value, stored.note, id);
        self.engine.counters().count(match session {
            Some(_) => Counter::SessionsHit,
            None => Counter::SessionsParse,
        });
        handshake.authenticated = Some(stored.authenticated);
        (handshake.binding, handshake.policy) = (Some(self.binding), Some(self.policy));
        if self.lookup == Lookup::Consume
            && let Ok(id) = id.try_into()
        {
            let StoredSession { value, note, .. } = stored;
            let consumed = Consumed { id, binding: self.binding, value, note };
            handshake.consumed = Some(Box::new(consumed));
        }
        session
    }
}
