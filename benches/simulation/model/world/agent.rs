//! What nodes and Redis say to each other.

use std::rc::Rc;

use tlsresume::ring::sharing::Exchange;

use super::{ANSWER, Event, LOST, LOST_NOTIFICATIONS, POLL, RETRY, TIMEOUT, Who, World};
use crate::model::Millis;
use crate::model::place::{COMMAND, Contents};

impl World {
    pub(super) fn poll(&mut self, who: Who) {
        if self.lives(who) {
            let delay = self.chance.between(POLL * 9 / 10, POLL * 11 / 10);
            self.after(delay, Event::Poll(who));
            self.wake(who);
        }
    }

    /// Asks whether something changed, now or when the agent has done what it is at.
    pub(super) fn wake(&mut self, who: Who) {
        if !self.lives(who) {
            return;
        }
        let node = &mut self.nodes[who.node];
        if node.busy {
            node.again = true;
            return;
        }
        (node.busy, node.again) = (true, false);
        self.checks.sent += COMMAND;
        // Somebody waits for the first copy.
        let message = match node.has_first_copy {
            true => Event::Asks(who, self.now),
            false => Event::Reads(who, self.now),
        };
        self.carry(who, message);
    }

    pub(super) fn notified(&mut self, who: Who, token: u64) {
        if !self.lives(who) || self.nodes[who.node].cut_off {
            return;
        }
        self.checks.received += ANSWER;
        if self.nodes[who.node].seen != Some(token) {
            self.wake(who);
        }
    }

    pub(super) fn asks(&mut self, who: Who, sent: Millis) {
        let leads = self.place.lease(who.node, self.now);
        let answer = Event::Told(who, sent, self.place.contents.token, leads);
        self.carry(who, answer);
    }

    pub(super) fn told(&mut self, who: Who, sent: Millis, token: u64, leads: bool) {
        if !self.lives(who) {
            return;
        }
        self.checks.received += ANSWER;
        let node = &mut self.nodes[who.node];
        // The first copy is read before a key is made.
        if leads && node.has_first_copy {
            node.lead(sent);
            self.keep_up(who.node);
        }
        let node = &mut self.nodes[who.node];
        if node.seen == Some(token) && !node.unpublished {
            node.contact = Some(sent);
            return self.done(who);
        }
        self.checks.sent += COMMAND;
        self.carry(who, Event::Reads(who, self.now));
    }

    pub(super) fn reads(&mut self, who: Who, sent: Millis) {
        let contents = self.place.contents.clone();
        self.carry(who, Event::Copied(who, sent, contents));
    }

    pub(super) fn copied(&mut self, who: Who, sent: Millis, contents: &Contents) {
        if !self.lives(who) {
            return;
        }
        self.checks.received += contents.bytes + ANSWER;
        self.checks.report.exchanges += 1;
        let node = &mut self.nodes[who.node];
        let before = node.ring.clone();
        let (exchange, learned) = node.exchange(contents, self.now);
        if node.ring != before {
            self.last_change = self.now;
        }
        self.checks.learned(&learned, node.connected, self.now);
        if exchange.publish.is_empty() && exchange.superfluous.is_empty() {
            node.contact = Some(sent);
            return self.done(who);
        }
        let extends = exchange.makes_keys_for_all(node.clock(self.now));
        let only_at = extends.then_some(contents.token);
        self.carry(who, Event::Writes(who, sent, Rc::new(exchange), only_at));
    }

    pub(super) fn writes(
        &mut self,
        who: Who,
        sent: Millis,
        exchange: &Exchange,
        only_at: Option<u64>,
    ) {
        if only_at.is_some_and(|token| token != self.place.contents.token) {
            return self.carry(who, Event::Refused(who));
        }
        let token = self.chance.next();
        self.checks.report.writes += 1;
        exchange.publish.iter().for_each(|(field, _)| self.checks.published(*field));
        self.checks.sent +=
            self.place.write(&exchange.publish, &exchange.superfluous, token, self.now);
        self.carry(who, Event::Written(who, sent));
        if exchange.publish.is_empty() {
            return;
        }
        for node in 0..self.nodes.len() {
            let who = Who { node, life: self.nodes[node].life };
            let delay = self.chance.between(1, 300);
            if self.nodes[node].up && !self.chance.happens(LOST_NOTIFICATIONS) {
                self.after(delay, Event::Notified(who, token));
            }
        }
    }

    pub(super) fn written(&mut self, who: Who, sent: Millis) {
        if self.lives(who) {
            self.checks.received += ANSWER;
            self.nodes[who.node].contact = Some(sent);
            self.done(who);
        }
    }

    /// Once more, with what is there now.
    pub(super) fn refused(&mut self, who: Who) {
        if self.lives(who) {
            self.nodes[who.node].again = true;
            self.done(who);
        }
    }

    pub(super) fn failed(&mut self, who: Who) {
        if self.lives(who) {
            self.nodes[who.node].lose_connection();
            self.after(RETRY, Event::Wake(who));
        }
    }

    pub(super) fn done(&mut self, who: Who) {
        self.nodes[who.node].busy = false;
        if self.nodes[who.node].again {
            self.wake(who);
        }
    }

    /// A message on its way to Redis or back.
    pub(super) fn carry(&mut self, who: Who, message: Event) {
        let delay = self.chance.between(1, 300);
        if self.nodes[who.node].cut_off || self.chance.happens(LOST) {
            self.after(TIMEOUT, Event::Failed(who));
        } else {
            self.after(delay, message);
        }
    }

    pub(super) fn lives(&self, who: Who) -> bool {
        self.nodes[who.node].up && self.nodes[who.node].life == who.life
    }
}
