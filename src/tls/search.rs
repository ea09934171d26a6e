//! The search for the session that a client asks to resume.
//!
//! Owns: nothing. Called by: the get-session callback. Threads and forks: as for every callback. Failure: no session,
//! which means a full handshake.
//!
//! A search that has to wait for the cluster has two parts, between which the handshake may be paused. Neither keeps
//! anything for the other but what [`pause`] keeps: what the first found out, the second finds out again.

use std::ptr::NonNull;
use std::sync::Arc;

use openssl_sys::{SSL, SSL_SESSION};

use super::accepting::Accepting;
use super::attachment::{Attachment, Slot};
use super::connection::is_tls13;
use super::handshake::{Consumed, Handshake, Resuming};
use super::name::ServerName;
use super::session::Session;
use super::withheld::Withheld;
use super::{confirm, pause, policy, session, template};
use crate::clock;
use crate::engine::{self, Lookup, StoredSession, Visit};
use crate::stats::Counter;
use crate::sys::memory;

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
    let now = clock::now();
    // SAFETY: the callback of this connection is running, and this is the only reference in it.
    let Some(handshake) = (unsafe { Handshake::of(ssl, now) }) else { return Search::Over(None) };
    let Some(wanted) = Wanted::now(slot, ssl, handshake) else { return Search::Over(None) };
    if let Some(again) = wanted.again(id, ssl, handshake) {
        return Search::Over(Some(again));
    }
    let (engine, visit, lookup) = (&wanted.attachment.engine, wanted.visit(), wanted.lookup);
    let waited = &mut handshake.waited;
    let stored = match engine.begin_search(id, &visit, lookup, pause::asking(ssl), waited, now) {
        engine::Search::Over(stored) => stored,
        engine::Search::Asked(question) => match pause::prepare(ssl, question) {
            None => return Search::Asked,
            Some(question) => engine.end_search(question, id, &visit, lookup, waited, clock::now()),
        },
    };
    Search::Over(stored.and_then(|stored| wanted.take_in(stored, id, ssl, handshake)))
}

/// Ends it after a pause, with the answer or without.
pub(super) fn end(slot: Slot, ssl: *mut SSL, id: &[u8]) -> Search {
    let found = pause::conclude(ssl, |question| {
        // SAFETY: the callback of this connection is running, and this is the only reference in it.
        let handshake = unsafe { Handshake::of(ssl, clock::now()) }?;
        let wanted = Wanted::of(slot, ssl, handshake)?;
        let (engine, lookup) = (&wanted.attachment.engine, wanted.lookup);
        let (waited, now) = (&mut handshake.waited, clock::now());
        let stored = engine.end_search(question, id, &wanted.visit(), lookup, waited, now)?;
        wanted.take_in(stored, id, ssl, handshake)
    });
    Search::Over(found.flatten())
}

/// What is looked for, and how.
struct Wanted {
    attachment: &'static Attachment,
    name: ServerName,
    accepting: Accepting,
    lookup: Lookup,
}

impl Wanted {
    /// Counts one more search of this handshake, if it may have one.
    fn now(slot: Slot, ssl: *mut SSL, handshake: &mut Handshake) -> Option<Self> {
        let attachment = slot.attachment_for(ssl).filter(|_| memory::is_at_hand())?;
        if !handshake.may_look_up() {
            attachment.engine.counters().count(Counter::SessionsOverLimit);
            return None;
        }
        Self::of(slot, ssl, handshake)
    }

    fn of(slot: Slot, ssl: *mut SSL, handshake: &mut Handshake) -> Option<Self> {
        let attachment = slot.attachment_for(ssl)?;
        let name = ServerName::in_client_hello(ssl);
        let accepting = handshake.arrives(slot, ssl, attachment);
        if attachment.engine.has_rules() {
            confirm::ask(ssl, handshake);
        }
        // TLS 1.2 ids are visible on the wire and reused by design.
        let single_use = attachment.engine.config().resumption.single_use && is_tls13(ssl);
        let lookup = if single_use { Lookup::Consume } else { Lookup::Keep };
        Some(Wanted { attachment, name, accepting, lookup })
    }

    fn visit(&self) -> Visit<'_> {
        self.accepting.visit(self.name.as_bytes())
    }

    /// The session of a handshake that begins anew, if it asks for the same name with it.
    fn again(
        &self,
        id: &[u8],
        ssl: *mut SSL,
        handshake: &mut Handshake,
    ) -> Option<NonNull<SSL_SESSION>> {
        let consumed = handshake.consumed.as_ref().filter(|consumed| consumed.id == *id)?;
        if handshake.name.as_bytes() != self.name.as_bytes() {
            return None;
        }
        let session = template::decode(&consumed.value, consumed.note, id)?;
        confirm::ask(ssl, handshake);
        Some(session)
    }

    /// OpenSSL's form of a session that was found, and what the handshake is to remember of it.
    fn take_in(
        self,
        stored: StoredSession,
        id: &[u8],
        ssl: *mut SSL,
        handshake: &mut Handshake,
    ) -> Option<NonNull<SSL_SESSION>> {
        let counters = self.attachment.engine.counters();
        let Some(session) = template::decode(&stored.value, stored.note, id) else {
            counters.count(Counter::SessionsParse);
            return None;
        };
        let knows_rules = self.attachment.engine.knows_rules(stored.policy);
        if self.ends_the_handshake(session, ssl) {
            session::free(session);
            counters.count(Counter::SessionsBinding);
            return None;
        }
        counters.count(Counter::SessionsHit);
        handshake.secret = None;
        // SAFETY: the session was just decoded and is ours.
        if let Some(session) = unsafe { Session::borrow(session.as_ptr()) } {
            handshake.held.change(ssl, session);
        }
        let StoredSession { value, note, policy, family, authenticated } = stored;
        handshake.name = self.name;
        handshake.resuming = Some(Resuming {
            policy,
            family: Some(family),
            authenticated: Some(authenticated),
            engine: Arc::clone(&self.attachment.engine),
        });
        confirm::ask(ssl, handshake);
        if !is_tls13(ssl) && knows_rules {
            handshake.secret = Withheld::of(session);
        }
        if self.lookup == Lookup::Consume
            && let Ok(id) = id.try_into()
        {
            handshake.consumed = memory::try_box(Consumed { id, value, note });
        }
        Some(session)
    }

    /// Whether OpenSSL would end the handshake instead of ignoring the session: it does where the client is verified
    /// and neither has a session id context.
    fn ends_the_handshake(&self, session: NonNull<SSL_SESSION>, ssl: *mut SSL) -> bool {
        // SAFETY: the session was just decoded and is ours.
        let has_context =
            unsafe { Session::borrow(session.as_ptr()) }.is_some_and(Session::has_id_context);
        policy::verifies_client(ssl) && !has_context && !self.attachment.names_id_context()
    }
}
