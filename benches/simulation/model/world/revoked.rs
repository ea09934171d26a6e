//! Revocations, and whether they hold.

use std::collections::HashMap;

use tlsresume::clock::UnixMillis;
use tlsresume::ring::{KeyName, Ring, Verdict};

use super::{Event, Who, World};
use crate::model::checks::Ticket;
use crate::model::{Millis, SETTLES};

/// How often it is looked whether they hold.
pub(super) const AUDIT: Millis = 10_000;

/// What was revoked.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Revoked {
    One(KeyName),
    /// Every key that was made before.
    All(UnixMillis),
}

/// A revocation, and since when each node is known to know it, in which of its lives.
#[derive(Debug)]
pub(crate) struct Revocation {
    what: Revoked,
    known: HashMap<usize, (u32, Millis)>,
}

impl Revoked {
    fn covers(self, ticket: &Ticket) -> bool {
        match self {
            Revoked::One(name) => name == ticket.key,
            Revoked::All(since) => ticket.made < since,
        }
    }

    fn is_known_to(self, ring: &Ring) -> bool {
        match self {
            Revoked::One(name) => {
                !ring.knows(&name) && matches!(ring.verdict(&name, UnixMillis(0)), Verdict::Revoked)
            }
            Revoked::All(since) => ring.making(UnixMillis(0)) >= since,
        }
    }
}

impl World {
    /// An administrator revokes a key, or all, on any node, be it one that can tell nobody now.
    pub(super) fn revoke(&mut self, all: bool) {
        let node = self.chance.below(self.nodes.len());
        if !self.nodes[node].serves(self.now) {
            return;
        }
        self.keep_up(node);
        let Some((what, made)) = self.nodes[node].revoke(all, self.now, &mut self.chance) else {
            return;
        };
        self.checks.report.revocations += 1;
        self.checks.made(&made, !self.nodes[node].cut_off, self.now);
        self.revocations.push(Revocation { what, known: HashMap::new() });
        let who = Who { node, life: self.nodes[node].life };
        let delay = self.chance.between(1, 1_000);
        self.after(delay, Event::Wake(who));
        self.is_quiet();
    }

    /// Claim 4.
    pub(super) fn audit(&mut self) -> Result<(), String> {
        self.after(AUDIT, Event::Audit);
        let now = self.now;
        for Revocation { what, known } in &mut self.revocations {
            for (number, node) in self.nodes.iter().enumerate().filter(|(_, node)| node.up) {
                let knows = what.is_known_to(&node.ring);
                let knew = known.get(&number).is_some_and(|(life, _)| *life == node.life);
                match (knew, knows) {
                    (true, false) => {
                        return Err(format!("claim 4: node {number} has forgotten {what:?}"));
                    }
                    (false, true) => drop(known.insert(number, (node.life, now))),
                    _ => {}
                }
            }
            let reached = |number: usize| {
                let node = &self.nodes[number];
                node.is_reachable(now) && node.connected + SETTLES <= now
            };
            let is_told = known.iter().find(|(number, (life, since))| {
                reached(**number) && self.nodes[**number].life == *life && since + SETTLES <= now
            });
            let Some((teller, _)) = is_told else { continue };
            let others = self.nodes.iter().enumerate().filter(|(number, _)| number != teller);
            if others.clone().any(|(number, _)| reached(number)) {
                self.checks.try_claim(4);
            }
            let mut all = self.nodes.iter().enumerate();
            if let Some((deaf, _)) =
                all.find(|(number, node)| reached(*number) && !what.is_known_to(&node.ring))
            {
                return Err(format!("claim 4: node {deaf} never heard {what:?} of node {teller}"));
            }
        }
        Ok(())
    }

    /// Whether the ticket's key was revoked by anybody; then claims 1 and 2 are not about it.
    pub(super) fn is_revoked(&self, ticket: &Ticket, receiver: usize) -> Result<bool, String> {
        let ring = &self.nodes[receiver].ring;
        let mut covering = self.revocations.iter().filter(|it| it.what.covers(ticket)).peekable();
        let is_revoked = covering.peek().is_some();
        let is_known = covering.any(|revocation| revocation.what.is_known_to(ring));
        if is_known && ring.knows(&ticket.key) {
            return Err(format!("claim 4: node {receiver} accepts revoked {ticket:?}"));
        }
        Ok(is_revoked)
    }
}
