//! What the ticket-key callback asks: which key issues a ticket, which one opens it.

use std::sync::Arc;

use super::{Binding, Engine};
use crate::clock::UnixMillis;
use crate::ring::schedule::ticket_key;
use crate::ring::{Age, KeyName, Record, TicketKey, Verdict};
use crate::stats::Counter;

/// A key that may open a ticket.
#[derive(Clone, Debug)]
pub struct Opening {
    /// The keys to decrypt and verify with.
    pub key: Arc<TicketKey>,
    /// Whether the same key issues tickets now.
    pub age: Age,
}

impl Engine {
    /// The key to issue a ticket with, tied to `binding`. `None` when there is no usable key: the caller then takes
    /// [`Engine::throw_away_key`], never no key (OpenSSL's TLS 1.3 clients break on a refusal).
    ///
    /// `verifies`: some context of this process verifies clients. Imported keys are known to servers that bind nothing,
    /// so they are not used then.
    pub fn issuing_key(
        &self,
        binding: &Binding,
        verifies: bool,
        now: UnixMillis,
    ) -> Option<Arc<TicketKey>> {
        let view = self.view(now);
        let (record, key) = view.ring.encrypting(now)?;
        let key = self.usable(record, key, binding, verifies)?;
        self.counters().count(Counter::TicketsIssued);
        Some(key)
    }

    /// The key that opens a ticket of that key name and binding; `None`, counted by reason, when it cannot be accepted.
    pub fn opening_key(
        &self,
        name: &KeyName,
        binding: &Binding,
        verifies: bool,
        now: UnixMillis,
    ) -> Option<Opening> {
        let view = self.view(now);
        let refused = match view.ring.verdict(name, now) {
            Verdict::Accepted(record, key, age) => {
                match self.usable(record, key, binding, verifies) {
                    Some(key) => return Some(Opening { key, age }),
                    None => Counter::TicketsUnknownKey,
                }
            }
            Verdict::Unknown => Counter::TicketsUnknownKey,
            Verdict::Expired => Counter::TicketsExpired,
            Verdict::Revoked => Counter::TicketsRevoked,
        };
        self.counters().count(refused);
        None
    }

    /// A key that nobody has: a ticket made with it is valid to look at and never opens. `None` without randomness.
    pub fn throw_away_key(random: impl FnOnce(&mut [u8]) -> bool) -> Option<Arc<TicketKey>> {
        let mut bytes = zeroize::Zeroizing::new([0; 80]);
        random(&mut bytes[..]).then(|| Arc::new(ticket_key(&bytes)))
    }

    fn usable(
        &self,
        record: &Record,
        key: &TicketKey,
        binding: &Binding,
        verifies: bool,
    ) -> Option<Arc<TicketKey>> {
        // A ticket that carries its session can be used again and again.
        if self.config.resumption.single_use {
            return None;
        }
        match (record.imported, self.config.resumption.bind) {
            (true, true) if verifies => None,
            (true, _) | (_, false) => Some(Arc::new(key.clone())),
            (false, true) => Some(self.bindings.bound_key(key, binding)),
        }
    }
}
