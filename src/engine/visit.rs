//! Where a client asks to resume, and which policy is known to serve it there.
//!
//! The client asks before the application has chosen the virtual host. What this module knows is a guess that saves
//! handshakes which would have to be ended; what decides is looked at after the choice (`tls::confirm`). What served a
//! name lives in shared memory, so that forked children, other servers and restarted ones know it too; what this program
//! has served it with, in memory of the program's own ([`super::seen`]). The node's table stays empty as long as everybody
//! gets in everywhere.
//!
//! Owns: nothing; the table of names is the store's. Called by: `engine` for each session that is looked at, `tls` once
//! it knows what serves. Threads and forks: any; the table has no lock. Failure: what is not known, or finds no room,
//! costs a full handshake.

use super::{Engine, Policy, seen};
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
    /// Whether what resumes there is judged. Looked at in the same cases.
    pub judged: Judged,
}

/// Whether what resumes at an accepting context is judged once the application has chosen the virtual host. A context has a
/// number that no other one has.
#[derive(Clone, Copy, Debug)]
pub enum Judged {
    /// The application cannot prevent it.
    Always {
        /// The context's number.
        context: u64,
    },
    /// It can; so under a name that it did not do so under before.
    WhereSeen {
        /// The context's number.
        context: u64,
    },
    /// The context is not known.
    Unknown,
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
    /// knows some. Never where sessions are bound to nothing.
    pub fn knows_rules(&self, policy: Policy) -> bool {
        self.config.resumption.bind != Bind::Off && (!policy.is_public() || self.has_rules())
    }

    /// Whether a session of `policy` may be resumed on this visit: always where no rules matter; else where the same policy
    /// was the last to serve the name at this place, and what resumes there is judged. A place that the node does not know
    /// counts where this program has served the name under that policy. What is not known costs a full handshake, and is
    /// known from then on.
    pub fn may_resume(&self, visit: &Visit<'_>, policy: Policy, now: UnixMillis) -> bool {
        if !self.knows_rules(policy) {
            return true;
        }
        if self.is_marked(Judged::Unknown, visit.name) {
            return false;
        }
        match (self.store.served(self.place(visit), now), visit.judged) {
            (Served::By(print), Judged::Always { .. }) => print == policy.print(),
            (Served::By(print), _) => print == policy.print() && self.has_seen(visit, policy),
            (Served::Nothing, _) => self.has_seen(visit, policy),
            (Served::NoRoom, judged) => {
                self.has_seen(visit, policy) && !self.is_marked(judged, visit.name)
            }
            (Served::Mixed, _) => false,
        }
    }

    /// Remembers that a policy served, and was judged.
    pub fn note_served(&self, visit: &Visit<'_>, policy: Policy, now: UnixMillis) {
        if !policy.is_public() {
            self.note_rules();
        }
        if self.has_rules() {
            let keep = self.config.resumption.lifetime;
            self.store.note_served(self.place(visit), policy.print(), now, keep);
        }
        self.note_seen(visit.judged, visit.name, policy);
    }

    /// Remembers that this program has served a name under a policy. Also before the node knows rules: it may learn of some
    /// later.
    pub fn note_seen(&self, judged: Judged, name: &[u8], policy: Policy) {
        if let Some(hash) = self.seen_hash(judged, name, policy) {
            seen::insert(hash);
        }
    }

    /// Remembers that this program was seen to have what resumes under a name judged.
    pub fn note_judged(&self, visit: &Visit<'_>, policy: Policy) {
        if let Some(hash) = self.judged_hash(visit, policy) {
            seen::insert(hash);
        }
    }

    /// Whether that was seen. Where it was not, a session is to be judged once more.
    pub fn is_seen_judged(&self, visit: &Visit<'_>, policy: Policy) -> bool {
        self.judged_hash(visit, policy).is_some_and(seen::contains)
    }

    /// A server with rules is there, although it has served nobody yet.
    pub fn note_rules(&self) {
        if !self.has_rules() {
            self.store.note_restricted();
        }
    }

    /// Remembers that several policies serve a name (a handshake had to be ended), or that this one is not judged there.
    pub fn note_mixed(&self, visit: &Visit<'_>, policy: Policy, now: UnixMillis) {
        self.store.note_restricted();
        self.store.note_mixed(self.place(visit), now, self.config.resumption.lifetime);
        let noted =
            [self.seen_hash(visit.judged, visit.name, policy), self.judged_hash(visit, policy)];
        noted.into_iter().flatten().for_each(seen::remove);
        // For which the node's table may have no room.
        seen::insert(self.mark(visit.judged, visit.name));
    }

    fn place(&self, visit: &Visit<'_>) -> u64 {
        self.store.name_hash(&[&visit.accepting.to_bytes(), &visit.listener, visit.name])
    }

    fn has_seen(&self, visit: &Visit<'_>, policy: Policy) -> bool {
        self.seen_hash(visit.judged, visit.name, policy).is_some_and(seen::contains)
    }

    /// Whether this program itself noted [`Engine::note_mixed`] for a name at a context.
    fn is_marked(&self, judged: Judged, name: &[u8]) -> bool {
        seen::contains(self.mark(judged, name))
    }

    fn mark(&self, judged: Judged, name: &[u8]) -> u64 {
        let context = context_of(judged).map(u64::to_le_bytes);
        self.store.name_hash(&[context.as_ref().map_or(&[], |it| it), b"mixed", name])
    }

    fn judged_hash(&self, visit: &Visit<'_>, policy: Policy) -> Option<u64> {
        let hash = self.seen_hash(visit.judged, visit.name, policy)?;
        Some(self.store.name_hash(&[&hash.to_le_bytes()]))
    }

    fn seen_hash(&self, judged: Judged, name: &[u8], policy: Policy) -> Option<u64> {
        let (context, print) = (context_of(judged)?.to_le_bytes(), policy.print().to_le_bytes());
        Some(self.store.name_hash(&[&context, &print, name]))
    }
}

fn context_of(judged: Judged) -> Option<u64> {
    match judged {
        Judged::Always { context } | Judged::WhereSeen { context } => Some(context),
        Judged::Unknown => None,
    }
}
