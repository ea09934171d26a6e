//! The context that accepted a connection, and where the client reached it.
//!
//! Owns: [`Accepting`]. Called by: what looks sessions up and what notes what served. Threads and forks: a value. Failure:
//! what the connection does not tell any more is [`Accepting::UNKNOWN`].

use openssl_sys::SSL;

use super::attach::Attachment;
use super::connection::listener;
use super::policy;
use crate::engine::{Listener, Policy, Visit};

/// What tells places with the same server names apart.
#[derive(Clone, Copy)]
pub(super) struct Accepting {
    /// The context's own policy.
    policy: Policy,
    listener: Listener,
    /// [`Attachment::number`]
    context: u64,
}

impl Accepting {
    pub(super) const UNKNOWN: Accepting =
        Accepting { policy: Policy::PUBLIC, listener: [0; 18], context: 0 };

    /// Of a connection that was accepted by this context.
    pub(super) fn of(attachment: &Attachment, ssl: *mut SSL) -> Self {
        let policy = policy::accepting(attachment);
        Accepting { policy, listener: listener(ssl), context: attachment.number }
    }

    /// A client that asks for this name here.
    pub(super) fn visit<'a>(&self, name: &'a [u8]) -> Visit<'a> {
        let Accepting { policy, listener, context } = *self;
        Visit { name, accepting: policy, listener, context }
    }
}
