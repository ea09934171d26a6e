//! One node: the real ring, a clock that is a little wrong, and what an agent knows of the shared copy.

use tlsresume::clock::UnixMillis;
use tlsresume::ring::sharing::Exchange;
use tlsresume::ring::{KeyName, Material, Ring, Schedule};

use super::place::{Contents, LEASE};
use super::random::Chance;
use super::world::Revoked;
use super::{Millis, SETTLES};

/// The simulation's zero.
const START: u64 = 1_700_000_000_000;

/// A node waits this long for its first copy of the ring.
pub(crate) const FIRST_COPY: Millis = 500;

/// Keys that encrypt so soon after their making were not made ahead: [`SETTLES`], and what clocks differ by.
const UNPLANNED: Millis = SETTLES + 10_000;

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) ring: Ring,
    schedule: Schedule,
    /// How much the clock is ahead, in milliseconds.
    skew: i64,
    /// When [`Ring::maintain`] is due, by its own clock.
    due: UnixMillis,
    /// Moves with each start; what belongs to an earlier life is dropped.
    pub(crate) life: u32,
    pub(crate) up: bool,
    pub(crate) cut_off: bool,
    pub(crate) cut_since: Millis,
    /// Since when it has been up and not cut off.
    pub(crate) connected: Millis,
    pub(crate) started: Millis,
    /// When it sent the last question whose answer was that the copy has everything that it has.
    pub(crate) contact: Option<Millis>,
    /// When it last took in a copy that had everything. The agent knows this one only.
    exchanged: Option<Millis>,
    /// It has not done so since it started, or since an answer failed to come.
    is_alone: bool,
    /// When it revoked something last: that, and the keys that followed, are news to everybody.
    revoked: Option<Millis>,
    /// When it heard last that all keys are revoked.
    keys_revoked: Option<Millis>,
    pub(crate) has_first_copy: bool,
    /// The token that it read before the copy that it took in last; none after it wrote, so that it reads once more.
    pub(crate) seen: Option<u64>,
    /// Its ring has what it has not published yet.
    pub(crate) unpublished: bool,
    /// An exchange is going on; and news came meanwhile.
    pub(crate) busy: bool,
    pub(crate) again: bool,
    leads_until: Millis,
}

impl Node {
    pub(crate) fn new(schedule: Schedule, chance: &mut Chance) -> Self {
        let most = u64::try_from(schedule.activation_delay.as_millis() / 2).expect("minutes");
        let skew = chance.between(0, 2 * most).cast_signed() - most.cast_signed();
        Node {
            ring: Ring::default(),
            schedule,
            skew,
            due: UnixMillis(0),
            life: 0,
            up: false,
            cut_off: false,
            cut_since: 0,
            connected: 0,
            started: 0,
            contact: None,
            exchanged: None,
            is_alone: true,
            revoked: None,
            keys_revoked: None,
            has_first_copy: false,
            seen: None,
            unpublished: false,
            busy: false,
            again: false,
            leads_until: 0,
        }
    }

    /// A new life with nothing.
    pub(crate) fn start(&mut self, now: Millis) {
        let Node { schedule, skew, cut_off, cut_since, .. } = *self;
        let new = Node::new(schedule, &mut Chance::new(0));
        *self = Node { skew, life: self.life + 1, cut_off, cut_since, ..new };
        (self.up, self.started, self.connected) = (true, now, now);
    }

    pub(crate) fn true_clock(now: Millis) -> UnixMillis {
        UnixMillis(START + now)
    }

    pub(crate) fn clock(&self, now: Millis) -> UnixMillis {
        UnixMillis((START + now).saturating_add_signed(self.skew))
    }

    /// Whether a handshake need not wait for the first copy any more.
    pub(crate) fn serves(&self, now: Millis) -> bool {
        self.up && (self.has_first_copy || now >= self.started + FIRST_COPY)
    }

    /// The model's documentation says what it means.
    pub(crate) fn is_reachable(&self, now: Millis) -> bool {
        let for_long = self.connected == self.started || now >= self.connected + SETTLES;
        self.up && !self.cut_off && self.has_first_copy && for_long
    }

    pub(crate) fn is_in_touch(&self, now: Millis) -> bool {
        let ahead = self.schedule.rotate * self.schedule.ahead;
        let told = self.contact.filter(|at| self.revoked.is_none_or(|revoked| *at >= revoked));
        told.is_some_and(|at| u128::from(now - at) <= ahead.as_millis())
    }

    pub(crate) fn leads(&self, now: Millis) -> bool {
        now < self.leads_until
    }

    /// The answer to its wish to make the keys.
    pub(crate) fn lead(&mut self, asked: Millis) {
        self.leads_until = asked + LEASE;
        self.due = UnixMillis(0);
    }

    /// What any callback does when it finds keys due. Gives the names of those that it made.
    pub(crate) fn keep_up(&mut self, now: Millis, chance: &mut Chance) -> Vec<KeyName> {
        let clock = self.clock(now);
        if clock < self.due {
            return Vec::new();
        }
        let mut made = Vec::new();
        let schedule = self.schedule_at(now);
        if let Some(ring) = self.ring.maintain(&schedule, clock, &mut |bytes| chance.fill(bytes)) {
            made = new_tickets(&self.ring, &ring);
            self.unpublished = true;
            self.ring = ring;
        }
        self.due = self.ring.maintenance_due(&schedule, clock);
        made
    }

    /// Refuses the key that encrypts, or all; with the names of the keys that were made in their place.
    pub(crate) fn revoke(
        &mut self,
        all: bool,
        now: Millis,
        chance: &mut Chance,
    ) -> Option<(Revoked, Vec<KeyName>)> {
        let clock = self.clock(now);
        let (ring, what) = if all {
            let ring = self.ring.revoke_all(clock, false);
            let since = ring.making(UnixMillis(0));
            (ring, Revoked::All(since))
        } else {
            let (name, ..) = self.encrypting(now)?;
            (self.ring.revoke(name, clock).ok()?, Revoked::One(name))
        };
        (self.ring, self.due) = (ring, UnixMillis(0));
        let made = self.keep_up(now, chance);
        (self.unpublished, self.revoked) = (true, Some(now));
        if all {
            self.keys_revoked = Some(now);
        }
        Some((what, made))
    }

    /// Its connection is of no use any more: what the copy holds after that is anybody's guess.
    pub(crate) fn lose_connection(&mut self) {
        (self.seen, self.is_alone, self.busy) = (None, true, false);
    }

    /// Takes in what was read, and says what to write.
    pub(crate) fn exchange(&mut self, read: &Contents, now: Millis) -> (Exchange, Vec<KeyName>) {
        let (clock, schedule) = (self.clock(now), self.schedule_at(now));
        let contact = self.exchanged.map(|at| self.clock(at));
        let own = match self.is_alone {
            true => self.ring.rejoin(&read.copy, contact, &schedule, clock),
            false => self.ring.clone(),
        };
        let exchange = own.exchange(&read.copy, &schedule, clock);
        let learned = new_tickets(&self.ring, &exchange.ring);
        if exchange.ring.keys_since() > self.ring.keys_since() {
            self.keys_revoked = Some(now);
        }
        self.ring = exchange.ring.clone();
        self.due = self.ring.maintenance_due(&schedule, clock);
        self.has_first_copy = true;
        self.seen = exchange.publish.is_empty().then_some(read.token);
        if self.seen.is_some() {
            (self.exchanged, self.is_alone) = (Some(now), false);
        }
        self.unpublished = false;
        (exchange, learned)
    }

    /// The key that encrypts, and whether the others had the time to hear of it before it did.
    pub(crate) fn encrypting(&self, now: Millis) -> Option<(KeyName, UnixMillis, bool)> {
        let clock = self.clock(now);
        let (record, _) = self.ring.encrypting(clock)?;
        let is_settled = self.keys_revoked.is_none_or(|at| now >= at + SETTLES);
        let is_planned = is_settled && record.made.0 + UNPLANNED <= clock.0;
        Some((record.name(), record.made, is_planned))
    }

    fn schedule_at(&self, now: Millis) -> Schedule {
        let early = if self.leads(now) { self.schedule.early_lead() } else { self.schedule.early };
        Schedule { early, ..self.schedule }
    }
}

fn new_tickets(before: &Ring, after: &Ring) -> Vec<KeyName> {
    let tickets = after.records().filter(|record| matches!(record.material, Material::Ticket(_)));
    tickets.map(|record| record.name()).filter(|name| !before.knows(name)).collect()
}
