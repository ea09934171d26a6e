//! Faults happen, and end.

use std::rc::Rc;

use super::{CONVERGES, Event, MOST_ALONE, Who, World, millis};
use crate::model::faults::Fault;
use crate::model::node::Node;
use crate::model::{Millis, SETTLES};

impl World {
    pub(super) fn fault(&mut self) {
        if self.truce {
            return;
        }
        let pause = self.chance.around(self.parameters.faults);
        self.after(pause, Event::Fault);
        let fault = Fault::any(&mut self.chance, millis(self.parameters.schedule.rotate));
        if fault.loses_contents() && !self.may_lose_contents() {
            return;
        }
        self.checks.report.faults += 1;
        match fault {
            Fault::Partition { share, lasts } => self.partition(share, lasts),
            Fault::Emptied | Fault::Restored => {
                self.place.lose(fault == Fault::Restored, self.now);
                self.is_quiet();
            }
            Fault::Restart { share, away } => {
                for node in self.some(share).into_iter().take(MOST_ALONE) {
                    self.stop(node, away);
                }
            }
            Fault::Revocation { all } => self.revoke(all),
            Fault::MakerDies { away } => {
                if let Some(node) = self.place.holder() {
                    self.stop(node, away);
                }
            }
        }
    }

    /// All are up; most can write again what is lost, and know what those had to say who cannot.
    fn may_lose_contents(&self) -> bool {
        let is_settled = |node: &Node| match node.cut_off {
            true => node.cut_since + SETTLES <= self.now,
            false => node.has_first_copy,
        };
        let reached = self.nodes.iter().filter(|node| node.is_reachable(self.now)).count();
        self.nodes.iter().all(|node| node.up && is_settled(node)) && 2 * reached > self.nodes.len()
    }

    pub(super) fn partition(&mut self, share: u64, lasts: Millis) {
        let mut cut = self.some(share);
        cut.retain(|node| !self.nodes[*node].cut_off);
        let schedule = &self.parameters.schedule;
        if lasts > millis(schedule.rotate * schedule.ahead) {
            cut.truncate(MOST_ALONE);
        }
        for node in &cut {
            (self.nodes[*node].cut_off, self.nodes[*node].cut_since) = (true, self.now);
        }
        self.after(lasts, Event::Healed(Rc::new(cut)));
    }

    pub(super) fn heal(&mut self, nodes: &[usize]) {
        for node in nodes {
            let node = &mut self.nodes[*node];
            if node.cut_off {
                (node.cut_off, node.connected) = (false, self.now);
            }
        }
        self.is_quiet();
    }

    pub(super) fn stop(&mut self, node: usize, away: Millis) {
        if self.nodes[node].up {
            self.nodes[node].up = false;
            self.checks.report.restarts += 1;
            self.after(away, Event::Up(node));
        }
    }

    pub(super) fn start(&mut self, node: usize) {
        if self.nodes[node].up {
            return;
        }
        self.nodes[node].start(self.now);
        let who = Who { node, life: self.nodes[node].life };
        self.poll(who);
        let first = self.chance.around(self.parameters.handshakes / 10);
        self.after(first, Event::Handshake(who));
        self.is_quiet();
    }

    /// From now until the end nothing goes wrong any more.
    pub(super) fn make_truce(&mut self) {
        self.truce = true;
        let all: Vec<_> = (0..self.nodes.len()).collect();
        self.heal(&all);
        all.into_iter().for_each(|node| self.start(node));
    }

    /// If everything is as it should be, the nodes have to agree soon.
    pub(super) fn is_quiet(&mut self) {
        if self.nodes.iter().all(|node| node.up && !node.cut_off) {
            (self.quiet_since, self.last_change) = (self.now, self.now);
            self.after(CONVERGES, Event::Check(self.now));
        }
    }

    pub(super) fn some(&mut self, per_mille: u64) -> Vec<usize> {
        (0..self.nodes.len()).filter(|_| self.chance.happens(per_mille)).collect()
    }
}
