//! What the ticket-key callback asks: which key issues a ticket, which one opens it.
//!
//! A ticket begins with 16 bytes that name its key. A ticket of a public server has the key's whole name there; one
//! that was made under rules has the key's short name and, masked, the policy. So a process that knows nothing yet can
//! open the ticket under the policy that it was made under; `tls::confirm` checks later whether that policy serves. The
//! server name goes into the derivation of the key; the initialisation vector names the family.
//!
//! Owns: nothing. Called by: `tls`, from the ticket-key callback. Threads and forks: any. Failure: no key, counted by
//! reason: a full handshake, or a ticket that nobody can open.

use std::sync::Arc;

use super::binding::BoundKey;
use super::{Engine, Policy, Visit};
use crate::clock::UnixMillis;
use crate::config::Bind;
use crate::ring::family::VECTOR_LEN;
use crate::ring::schedule::ticket_key;
use crate::ring::{Age, Family, KeyName, Record, TicketKey, Verdict};
use crate::stats::Counter;

/// A key that may open a ticket.
#[derive(Clone, Debug)]
pub struct Opening {
    /// The keys to decrypt and verify with.
    pub key: Arc<BoundKey>,
    /// Whether that ring key issues tickets now, or did before.
    pub age: Age,
    /// The policy that the ticket was made under.
    pub policy: Policy,
    /// The full handshake that it goes back to, if its key's tickets tell.
    pub family: Option<Family>,
}

/// What a ticket is made with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issuing {
    /// What it begins with.
    pub name: KeyName,
    /// The keys to encrypt and authenticate with.
    pub key: Arc<BoundKey>,
}

impl Engine {
    /// The key to issue a ticket with, tied to server name and policy, on a connection that began then. `None` when
    /// there is no usable key, or all keys were revoked since, or all sessions forgotten: the caller then takes
    /// [`Engine::throw_away_key`], never no key (OpenSSL's TLS 1.3 clients break on a refusal).
    pub fn issuing_key(
        &self,
        name: &[u8],
        policy: Policy,
        began: UnixMillis,
        now: UnixMillis,
    ) -> Option<Issuing> {
        // A ticket that carries its session can be used again and again.
        if self.config.resumption.single_use {
            return None;
        }
        let view = self.view(now);
        if view.has_ended_all_since(began) {
            return None;
        }
        let (record, key) = view.ring.encrypting(now)?;
        self.counters().count(Counter::TicketsIssued);
        let is_whole = self.bears_whole_name(record, policy);
        Some(Issuing {
            name: if is_whole { key.name() } else { self.bindings.name_for(key, policy) },
            key: self.bound_key(record, key, is_whole, name, policy),
        })
    }

    /// The key that opens a ticket which begins with `name` and `vector`; `None`, counted by reason, when it cannot be
    /// accepted. Whether the ticket is whole and of this server name, its MAC says.
    pub fn opening_key(
        &self,
        name: &KeyName,
        vector: &[u8; VECTOR_LEN],
        visit: &Visit<'_>,
        now: UnixMillis,
    ) -> Option<Opening> {
        self.open(name, vector, visit, now).map_err(|reason| self.counters().count(reason)).ok()
    }

    /// A key that nobody has: a ticket made with it is valid to look at and never opens. `None` without randomness.
    pub fn throw_away_key(random: impl FnOnce(&mut [u8]) -> bool) -> Option<Issuing> {
        let mut bytes = zeroize::Zeroizing::new([0; 80]);
        random(&mut bytes[..]).then(|| {
            let key = ticket_key(&bytes);
            Issuing { name: key.name(), key: Arc::new(BoundKey::plain(key)) }
        })
    }

    fn open(
        &self,
        name: &KeyName,
        vector: &[u8; VECTOR_LEN],
        visit: &Visit<'_>,
        now: UnixMillis,
    ) -> Result<Opening, Counter> {
        if self.config.resumption.single_use {
            return Err(Counter::TicketsUnknownKey);
        }
        let view = self.view(now);
        let (is_whole, verdict) = match view.ring.verdict(name, now) {
            Verdict::Unknown => {
                let [short, _] = name.halves();
                let whole = view.ring.by_short_name(short).ok_or(Counter::TicketsUnknownKey)?;
                (false, view.ring.verdict(&whole, now))
            }
            verdict => (true, verdict),
        };
        let (record, key, age) = match verdict {
            Verdict::Accepted(record, key, age) => (record, key, age),
            Verdict::Unknown => return Err(Counter::TicketsUnknownKey),
            Verdict::Expired => return Err(Counter::TicketsExpired),
            Verdict::Revoked => return Err(Counter::TicketsRevoked),
        };
        let policy = if is_whole {
            Policy::PUBLIC
        } else {
            let [_, masked] = name.halves();
            self.bindings.policy_of(key, masked)
        };
        if is_whole != self.bears_whole_name(record, policy) {
            return Err(Counter::TicketsUnknownKey);
        }
        if !self.may_resume(visit, policy, now) {
            return Err(Counter::TicketsMac);
        }
        let key = self.bound_key(record, key, is_whole, visit.name, policy);
        let family = key.family(vector);
        family.map_or(Ok(()), |family| self.admit_family(family, now))?;
        Ok(Opening { key, age, policy, family })
    }

    /// Whether a family may still resume. The vector is not authenticated yet; if a client has changed it, the ticket's
    /// MAC fails later.
    fn admit_family(&self, family: Family, now: UnixMillis) -> Result<(), Counter> {
        if now.secs() > family.ends().secs() {
            return Err(Counter::TicketsExpired);
        }
        if self.is_removed(family, now) { Err(Counter::TicketsRevoked) } else { Ok(()) }
    }

    /// Whether tickets of this key and policy bear the key's whole name: those of a public server do. Tickets of an
    /// imported key, which the servers that it comes from tie to nothing, are not accepted once this node knows rules.
    fn bears_whole_name(&self, record: &Record, policy: Policy) -> bool {
        policy.is_public() && !(self.is_shared_as_it_is(record) && self.has_rules())
    }

    fn is_shared_as_it_is(&self, record: &Record) -> bool {
        record.imported && self.config.resumption.bind != Bind::Off
    }

    fn bound_key(
        &self,
        record: &Record,
        key: &TicketKey,
        is_whole: bool,
        name: &[u8],
        policy: Policy,
    ) -> Arc<BoundKey> {
        if is_whole && record.imported {
            return Arc::new(BoundKey::plain(key.clone()));
        }
        match self.config.resumption.bind {
            Bind::Off => self.bindings.bound_key(key, &[], Policy::PUBLIC),
            Bind::On | Bind::Certificate => self.bindings.bound_key(key, name, policy),
        }
    }
}
