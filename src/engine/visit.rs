//! Where a client asks to resume, and which policy is known to serve it there.
//!
//! The client asks before the application has chosen the virtual host. What this module knows is a guess that saves
//! handshakes which would have to be ended; what decides is looked at after the choice (`tls::confirm`). What served a
//! name lives in shared memory, so that forked children, other servers and restarted ones know it too. Nothing is
//! remembered as long as everybody gets in everywhere.
//!
//! Owns: nothing; the table of names is the store's. Called by: `engine` for each session that is looked at, `tls` once
//! it knows what serves. Threads and forks: any; the table has no lock. Failure: what is not known, or finds no room,
//! costs a full handshake.

use super::{Engine, Policy};
use crate::clock::UnixMillis;
use crate::config::Bind;
use crate::store::Served;

/// A client at an accepting context.
#[derive(Clone, Copy, Debug)]
pub struct Visit<'a> {
    /// The server name that it asks for, as it sent it; empty when it asks for none.
    pub name: &'a [u8],
    /// The accepting context's own policy, which tells listeners with the same names apart. Looked at only where
    /// [`Engine::has_rules`].
    pub accepting: Policy,
    /// The address that the client connected to, which does so too: see [`Listener`]. Looked at in the same cases.
    pub listener: Listener,
}

/// A local address as bytes: port, and address of IPv4 or IPv6; zeros where it is not known.
pub type Listener = [u8; 18];

impl Engine {
    /// Whether this node knows rules: since its memory was made, a connection was served under rules, or a context that
    /// verifies clients was attached ([`Engine::note_rules`]). Until then no name needs to be known.
    pub fn has_rules(&self) -> bool {
        self.store.has_restricted()
    }

    /// Whether rules matter to a resumption of a session of `policy`: the session was made under rules, or the node
    /// knows some.
    pub fn knows_rules(&self, policy: Policy) -> bool {
        !policy.is_public() || self.has_rules()
    }

    /// Whether a session of `policy` may be resumed on this visit, as far as the node knows: always while it knows no
    /// rules; else where the same policy was the last to serve the name at this place, and the place is not marked as
    /// mixed. A place that is not known costs a full handshake, and is known from then on. At a port where the name was
    /// not served yet, other ports of the same address count: FTP servers have a new port for each transfer, and some
    /// refuse one that does not resume.
    pub fn may_resume(&self, visit: &Visit<'_>, policy: Policy, now: UnixMillis) -> bool {
        if !self.has_rules() || self.config.resumption.bind == Bind::Off {
            return true;
        }
        let served = match self.store.served(self.place(visit), now) {
            Served::Nothing | Served::NoRoom => self.store.served(self.address(visit), now),
            known => known,
        };
        matches!(served, Served::By(print) if print == policy.print())
    }

    /// Remembers which policy served. As long as it is the same one at all ports of an address, the port does not count.
    pub fn note_served(&self, visit: &Visit<'_>, policy: Policy, now: UnixMillis) {
        if !policy.is_public() {
            self.note_rules();
        }
        if !self.has_rules() {
            return;
        }
        let (keep, print) = (self.config.resumption.lifetime, policy.print());
        let (place, address) = (self.place(visit), self.address(visit));
        let is_unknown = |served| matches!(served, Served::Nothing | Served::NoRoom);
        let elsewhere = self.store.served(address, now);
        let is_alike = is_unknown(elsewhere) || elsewhere == Served::By(print);
        if is_alike && is_unknown(self.store.served(place, now)) {
            return self.store.note_served(address, print, now, keep);
        }
        if !is_alike {
            self.store.note_mixed(address, now, keep);
        }
        self.store.note_served(place, print, now, keep);
    }

    /// A server with rules is there, although it has served nobody yet.
    pub fn note_rules(&self) {
        if !self.has_rules() {
            self.store.note_restricted();
        }
    }

    /// Remembers that several policies serve a name: a handshake had to be ended.
    pub fn note_mixed(&self, visit: &Visit<'_>, now: UnixMillis) {
        self.store.note_restricted();
        for hash in [self.place(visit), self.address(visit)] {
            self.store.note_mixed(hash, now, self.config.resumption.lifetime);
        }
    }

    fn place(&self, visit: &Visit<'_>) -> u64 {
        self.store.name_hash(&[&visit.accepting.to_bytes(), &visit.listener, visit.name])
    }

    /// The place without its port.
    fn address(&self, visit: &Visit<'_>) -> u64 {
        let [_, _, address @ ..] = &visit.listener;
        self.store.name_hash(&[&visit.accepting.to_bytes(), address, visit.name])
    }
}
