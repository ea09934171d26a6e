//! What a new ticket or session is bound to: a server name, a policy, a family.
//!
//! Owns: nothing. Called by: the callbacks that make tickets, ids and sessions. Threads and forks: as for every callback.
//! Failure: what cannot be bound must not be resumable.

use openssl_sys::SSL;

use super::accepting::judged;
use super::attachment::{Attachment, Slot};
use super::handshake::Handshake;
use super::name::ServerName;
use super::{confirm, policy};
use crate::clock;
use crate::engine::{Engine, Policy};
use crate::ring::Family;

/// What a new ticket or session is tied to: for a renewal, what the resumed session was tied to; else the server name
/// and the policy that serves now. `None`: it must not be resumable.
pub(super) fn session_binding(
    attachment: &Attachment,
    slot: Slot,
    ssl: *mut SSL,
    handshake: &mut Handshake,
) -> Option<(ServerName, Policy)> {
    let engine = &attachment.engine;
    let serving = policy::serving(engine, ssl);
    let resumed = handshake.resumed(ssl);
    let bound = resumed.map(|resumed| (handshake.name, resumed.policy));
    let keeps_to = handshake.connection.keeps_to(serving);
    if !keeps_to
        || !policy::admits_resumption(ssl, bound.is_some())
        || policy::has_outlived_rules(engine, ssl)
    {
        return None;
    }
    if bound.is_some() {
        return bound;
    }
    let name = ServerName::negotiated(ssl);
    if serving.is_public() && !engine.has_rules() {
        note_seen(slot, ssl, handshake, &name);
        return Some((name, serving));
    }
    handshake.accepted_by(slot);
    note_served(engine, ssl, handshake, name.as_bytes(), serving);
    Some((name, serving))
}

/// Remembers that a public name was served, for when the node learns of rules.
fn note_seen(slot: Slot, ssl: *mut SSL, handshake: &Handshake, name: &ServerName) {
    if let Some(attachment) = slot.attachment()
        && confirm::leaves_callback(ssl, handshake, Some(attachment)) == Some(true)
    {
        attachment.engine.note_seen(judged(attachment, ssl), name.as_bytes(), Policy::PUBLIC);
    }
}

/// Remembers which policy serves a name, where that will be looked at: a name under which the application puts an info
/// callback in the place of ours does not resume.
fn note_served(
    engine: &Engine,
    ssl: *mut SSL,
    handshake: &Handshake,
    name: &[u8],
    serving: Policy,
) {
    let now = clock::now();
    let attachment = handshake.slot().attachment();
    let is_left = confirm::leaves_callback(ssl, handshake, attachment);
    match (handshake.accepting(ssl), is_left) {
        (Some(accepting), Some(true)) => engine.note_served(&accepting.visit(name), serving, now),
        (Some(accepting), Some(false)) => engine.note_mixed(&accepting.visit(name), serving, now),
        _ if !serving.is_public() => engine.note_rules(),
        _ => {}
    }
}

/// The family of a connection: that of the session which it resumed, or one of its own.
pub(super) fn family(engine: &Engine, ssl: *mut SSL, handshake: &mut Handshake) -> Family {
    let resumed = handshake.resumed(ssl).and_then(|resumed| resumed.family);
    let family = resumed.or(handshake.family).unwrap_or_else(|| {
        handshake.connection.began_with(ssl);
        engine.new_family(handshake.connection.began)
    });
    *handshake.family.insert(family)
}
