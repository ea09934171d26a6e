//! One key with its times: the unit that rings exchange.

use std::cmp::Ordering;

use super::key::{KeyName, TicketKey};
use super::session_id::IdKey;
use crate::clock::UnixMillis;

/// What a record's key is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Material {
    /// Encrypts and authenticates tickets.
    Ticket(TicketKey),
    /// Authenticates session ids.
    SessionId(IdKey),
}

/// A key and its life: pending until `activates`, then active, then accepting from `retires` to `accept_until`.
///
/// Everything but `accept_until` is immutable: a node with a longer session lifetime may extend how long a key is
/// accepted, and extensions merge by maximum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The key itself.
    pub material: Material,
    /// It came from elsewhere (a key file), so tickets made with it stay readable for other servers and unbound.
    pub imported: bool,
    /// When it was generated.
    pub made: UnixMillis,
    /// From when on it encrypts.
    pub activates: UnixMillis,
    /// When its successor is due; it goes on encrypting if there is none.
    pub retires: UnixMillis,
    /// Until when tickets made with it are accepted.
    pub accept_until: UnixMillis,
}

impl Record {
    /// The key's public name.
    pub fn name(&self) -> KeyName {
        match &self.material {
            Material::Ticket(key) => key.name(),
            Material::SessionId(key) => key.name(),
        }
    }

    /// The order in which keys take over: "which key encrypts" compares by it.
    pub(super) fn succession(&self) -> (UnixMillis, KeyName) {
        (self.activates, self.name())
    }

    /// Which of two records of one name survives a merge: a total order, so merging is a maximum, hence commutative,
    /// associative and idempotent. The making comes first, so that what a revocation of everything made before T lets
    /// through does not depend on the order of merging.
    pub(super) fn precedence(&self, other: &Record) -> Ordering {
        (self.made, self.activates, self.retires, self.imported)
            .cmp(&(other.made, other.activates, other.retires, other.imported))
            .then_with(|| self.material.order(&other.material))
            .then_with(|| self.accept_until.cmp(&other.accept_until))
    }
}

impl Material {
    /// An arbitrary total order that every node computes alike. Both records are ours: nobody measures its timing.
    fn order(&self, other: &Material) -> Ordering {
        match (self, other) {
            (Material::Ticket(a), Material::Ticket(b)) => (a.aes().expose(), a.mac().expose())
                .cmp(&(b.aes().expose(), b.mac().expose()))
                .then_with(|| (a.digest() as u8).cmp(&(b.digest() as u8))),
            (Material::SessionId(a), Material::SessionId(b)) => a.secret().cmp(b.secret()),
            (Material::Ticket(_), Material::SessionId(_)) => Ordering::Less,
            (Material::SessionId(_), Material::Ticket(_)) => Ordering::Greater,
        }
    }
}
