//! The context that accepted a connection, and where the client reached it.
//!
//! Owns: [`Accepting`]. Called by: what looks sessions up and what notes what served. Threads and forks: a value. Failure:
//! what the connection does not tell any more is [`Accepting::UNKNOWN`].

use openssl_sys::SSL;

use super::attachment::Attachment;
use super::connection::{is_quic, listener};
use super::{policy, real};
use crate::engine::{Judged, Listener, Policy, Visit};

/// What tells places with the same server names apart.
#[derive(Clone, Copy)]
pub(super) struct Accepting {
    /// The context's own policy.
    policy: Policy,
    listener: Listener,
    judged: Judged,
}

impl Accepting {
    pub(super) const UNKNOWN: Accepting =
        Accepting { policy: Policy::PUBLIC, listener: [0; 18], judged: Judged::Unknown };

    /// Of a connection that was accepted by this context.
    pub(super) fn of(attachment: &Attachment, ssl: *mut SSL) -> Self {
        let policy = policy::accepting(attachment);
        Accepting { policy, listener: listener(ssl), judged: judged(attachment, ssl) }
    }

    /// A client that asks for this name here.
    pub(super) fn visit<'a>(&self, name: &'a [u8]) -> Visit<'a> {
        let Accepting { policy, listener, judged } = *self;
        Visit { name, accepting: policy, listener, judged }
    }
}

/// Whether nothing that the application does puts another info callback in the place of ours: the preload sees to that
/// (`confirm::takes_over`).
pub(super) fn keeps_info_callback(ssl: *mut SSL) -> bool {
    real::is_interposed() && !is_quic(ssl)
}

pub(super) fn judged(attachment: &Attachment, ssl: *mut SSL) -> Judged {
    if keeps_info_callback(ssl) {
        Judged::Always { context: attachment.number }
    } else {
        Judged::WhereSeen { context: attachment.number }
    }
}
