//! The ring as an administrator may see it: names and times, no key.

use super::Engine;
use crate::clock::UnixMillis;
use crate::ring::{KeyName, Material, Record};

/// One key of the ring, without its secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyEntry {
    /// Its public name.
    pub name: KeyName,
    /// What it is for.
    pub kind: KeyKind,
    /// What it is used for at the time that was asked about.
    pub state: KeyState,
    /// It came from a key file.
    pub imported: bool,
    /// When it was generated.
    pub made: UnixMillis,
    /// From when on it encrypts.
    pub activates: UnixMillis,
    /// When its successor is due.
    pub retires: UnixMillis,
    /// Until when tickets and ids made with it are accepted.
    pub accept_until: UnixMillis,
}

/// What a key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// Encrypts tickets.
    Ticket,
    /// Tags session ids.
    SessionId,
}

/// What a key is used for at some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// Known, and not yet in use.
    Pending,
    /// New tickets or ids are made with it.
    Active,
    /// Only what was made with it is accepted.
    Accepting,
    /// Nothing is accepted any more; it is kept for clocks that are put back.
    Expired,
}

impl Engine {
    /// Every key of the ring in the order in which they take over, ticket keys first.
    pub fn keys(&self, now: UnixMillis) -> Vec<KeyEntry> {
        let view = self.current(now);
        let ticket = view.ring.encrypting(now).map(|(record, _)| record.name());
        let id = view.ring.id_key(now).map(|key| key.name());
        let is_active = |record: &Record| [ticket, id].contains(&Some(record.name()));
        view.ring.records().map(|record| entry(record, is_active(record), now)).collect()
    }
}

fn entry(record: &Record, is_active: bool, now: UnixMillis) -> KeyEntry {
    KeyEntry {
        name: record.name(),
        kind: match record.material {
            Material::Ticket(_) => KeyKind::Ticket,
            Material::SessionId(_) => KeyKind::SessionId,
        },
        state: match () {
            () if now >= record.accept_until => KeyState::Expired,
            () if is_active => KeyState::Active,
            () if now < record.activates => KeyState::Pending,
            () => KeyState::Accepting,
        },
        imported: record.imported,
        made: record.made,
        activates: record.activates,
        retires: record.retires,
        accept_until: record.accept_until,
    }
}
