//! When keys are made: `ahead` periods in advance, each activating when its predecessor retires.

use std::sync::Arc;
use std::time::Duration;

use super::key::{Digest, KeyName, TicketKey};
use super::record::{Material, Record};
use super::session_id::IdKey;
use super::{MAX_RECORDS, Ring};
use crate::clock::UnixMillis;
use crate::secret::Secret;

/// A source of random bytes: fills the whole buffer.
pub type Random<'a> = &'a mut dyn FnMut(&mut [u8]);

/// The times that a node makes keys by; nodes with different schedules still agree on every key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Whether ticket keys are made here at all; they are not where they come from files.
    pub makes_tickets: bool,
    /// How long a key encrypts.
    pub rotate: Duration,
    /// Periods for which keys are known in advance.
    pub ahead: u32,
    /// Least time from the making of a key to its activation.
    pub activation_delay: Duration,
    /// How long a session lives from its full handshake.
    pub lifetime: Duration,
    /// How much sooner than others this node makes keys: [`Schedule::early_lead`] on the one that makes them for all,
    /// zero on the others. More than `rotate` counts as `rotate`.
    pub early: Duration,
}

/// How long the news of a key may travel: several polls of a transport.
const NEWS_TRAVEL: Duration = Duration::from_secs(60);

impl Schedule {
    /// The schedule of the session-id keys, which only keep invented ids out: they rotate weekly.
    pub(super) fn for_ids(&self) -> Schedule {
        Schedule { rotate: Duration::from_secs(7 * 24 * 3600), ahead: 1, ..*self }
    }

    /// The `early` of the one node that makes keys for all, so that the others never find the schedule short: clocks
    /// that differ by the activation delay, and the time that the news travels.
    pub fn early_lead(&self) -> Duration {
        (self.activation_delay + NEWS_TRAVEL).min(self.rotate)
    }

    /// How far ahead of now keys reach.
    fn reach(&self) -> Duration {
        self.rotate * self.ahead + self.early.min(self.rotate)
    }

    /// Later than any key activates that a node with this schedule made, whether or not it makes keys early. Keys made
    /// now activate within `ahead + 1` periods ([`Schedule::reach`]), or after the activation delay; adding that delay
    /// leaves it to the clocks to differ by.
    pub(super) fn horizon(&self, now: UnixMillis) -> UnixMillis {
        now + self.rotate * (self.ahead + 1) + self.activation_delay
    }
}

impl Ring {
    /// The ring that the schedule wants at `now`, or `None` when this one is it already: keys forgotten, keys made,
    /// and those that will still encrypt accepted for a whole lifetime afterwards.
    pub fn maintain(
        &self,
        schedule: &Schedule,
        now: UnixMillis,
        random: Random<'_>,
    ) -> Option<Ring> {
        let mut ring = self.clone();
        ring.forget(now);
        if schedule.makes_tickets {
            ring.drop_endless_tickets();
        }
        ring.make_due(schedule, now, random);
        ring.extend(schedule, now);
        (ring != *self).then_some(ring)
    }

    /// From when on [`Ring::maintain`] has work to do; any handshake may compare it with its clock. At once when keys
    /// that other schedules made are not accepted for long enough after `now`.
    pub fn maintenance_due(&self, schedule: &Schedule, now: UnixMillis) -> UnixMillis {
        let due = |keys: &[Arc<Record>], schedule: &Schedule| match last_retires(keys) {
            Some(end)
                if extensions(keys, schedule.lifetime, now).all(|needed| needed.is_none()) =>
            {
                end - schedule.reach()
            }
            _ => UnixMillis(0),
        };
        let tickets = match schedule.makes_tickets {
            true if self.tickets.iter().any(|record| is_endless(record)) => UnixMillis(0),
            true => due(&self.tickets, schedule),
            false => UnixMillis::MAX,
        };
        tickets.min(due(&self.ids, &schedule.for_ids()))
    }

    /// A new key that takes over after the activation delay: an administrator's "rotate now".
    ///
    /// # Errors
    /// As [`Ring::with`].
    pub fn rotate(
        &self,
        schedule: &Schedule,
        now: UnixMillis,
        random: Random<'_>,
    ) -> crate::error::Result<Ring> {
        let mut activates = now + schedule.activation_delay;
        if self.tickets.iter().any(|record| record.activates == activates) {
            // That one could win by its name.
            activates = activates + Duration::from_millis(1);
        }
        let ring = self.with([ticket_record(schedule, self.making(now), activates, random)])?;
        Ok(ring.maintain(schedule, now, random).unwrap_or(ring))
    }

    fn make_due(&mut self, schedule: &Schedule, now: UnixMillis, random: Random<'_>) {
        let mut made = Vec::new();
        let making = self.making(now);
        let ids = schedule.for_ids();
        let room = MAX_RECORDS.saturating_sub(self.records().count());
        let mut make = |keys: &[Arc<Record>], schedule: &Schedule, record: MakeRecord| {
            let mut end = last_retires(keys);
            while end.is_none_or(|end| end <= now + schedule.reach()) && made.len() < room {
                let earliest = now + schedule.activation_delay;
                let activates = end.map_or(earliest, |end| end.max(earliest));
                made.push(Arc::new(record(schedule, making, activates, random)));
                end = Some(activates + schedule.rotate);
            }
        };
        make(&self.ids, &ids, id_record);
        if schedule.makes_tickets {
            make(&self.tickets, schedule, ticket_record);
        }
        if !made.is_empty() {
            self.adopt(self.clone().records().cloned().chain(made));
        }
    }
}

impl Ring {
    /// When a key counts as made that is made now: not before what is revoked, wherever the clock was or is.
    pub fn making(&self, now: UnixMillis) -> UnixMillis {
        now.max(self.keys_since)
    }

    /// Drops what is left from a time when keys came from files, which alone have no end.
    pub(super) fn drop_endless_tickets(&mut self) {
        self.tickets.retain(|record| !is_endless(record));
    }

    /// Has every key accepted for as long as tickets may live that it makes.
    pub(super) fn extend(&mut self, schedule: &Schedule, now: UnixMillis) {
        self.tickets = extended(&self.tickets, schedule.lifetime, now);
        self.ids = extended(&self.ids, schedule.lifetime, now);
    }
}

type MakeRecord = fn(&Schedule, UnixMillis, UnixMillis, Random<'_>) -> Record;

/// When the keys that the schedule made run out. Imported keys have no successor to wait for.
fn last_retires(keys: &[Arc<Record>]) -> Option<UnixMillis> {
    keys.iter().filter(|record| !record.imported).map(|record| record.retires).max()
}

fn is_endless(record: &Record) -> bool {
    record.imported && record.accept_until == UnixMillis::MAX
}

/// The keys, each accepted for long enough.
fn extended(keys: &[Arc<Record>], lifetime: Duration, now: UnixMillis) -> Vec<Arc<Record>> {
    let extend = |(record, needed): (&Arc<Record>, Option<UnixMillis>)| match needed {
        None => Arc::clone(record),
        Some(accept_until) => Arc::new(Record { accept_until, ..Record::clone(record) }),
    };
    keys.iter().zip(extensions(keys, lifetime, now)).map(extend).collect()
}

/// For each key, until when it must be accepted if it is not yet: it encrypts until its successor activates, which may
/// be later than planned (an idle node, a revocation), and the last ticket that it made lives for a lifetime after.
fn extensions(
    keys: &[Arc<Record>],
    lifetime: Duration,
    now: UnixMillis,
) -> impl Iterator<Item = Option<UnixMillis>> {
    let successors = keys.iter().skip(1).map(|record| record.activates).chain([now]);
    keys.iter().zip(successors).map(move |(record, successor)| {
        let encrypts_until = record.retires.max(successor);
        let needed = encrypts_until + lifetime;
        // Also where that is past: a clock that is put back may find the key encrypting again.
        (record.accept_until < needed).then_some(needed)
    })
}

fn ticket_record(
    schedule: &Schedule,
    made: UnixMillis,
    activates: UnixMillis,
    random: Random<'_>,
) -> Record {
    let mut bytes = zeroize::Zeroizing::new([0u8; TICKET_KEY_BYTES]);
    random(&mut bytes[..]);
    record(Material::Ticket(ticket_key(&bytes)), schedule, made, activates)
}

fn id_record(
    schedule: &Schedule,
    made: UnixMillis,
    activates: UnixMillis,
    random: Random<'_>,
) -> Record {
    let mut bytes = zeroize::Zeroizing::new([0u8; ID_KEY_BYTES]);
    random(&mut bytes[..]);
    record(Material::SessionId(id_key(&bytes)), schedule, made, activates)
}

fn record(
    material: Material,
    schedule: &Schedule,
    made: UnixMillis,
    activates: UnixMillis,
) -> Record {
    let retires = activates + schedule.rotate;
    let accept_until = retires + schedule.lifetime;
    Record { material, imported: false, made, activates, retires, accept_until }
}

/// Bytes that make a ticket key: name, AES-256 key, HMAC-SHA256 key.
pub(super) const TICKET_KEY_BYTES: usize = KeyName::LEN + 32 + 32;

/// Bytes that make a session-id key: name and secret.
pub(super) const ID_KEY_BYTES: usize = KeyName::LEN + IdKey::LEN;

/// The ticket key that these bytes are.
pub fn ticket_key(bytes: &[u8; TICKET_KEY_BYTES]) -> TicketKey {
    let (name, keys) = split_name(bytes);
    let (aes, mac) = keys.split_at(32);
    TicketKey::new(name, Secret::new(aes), Secret::new(mac), Digest::Sha256)
        .expect("32 and 32 bytes fit")
}

pub(super) fn id_key(bytes: &[u8; ID_KEY_BYTES]) -> IdKey {
    let (name, secret) = split_name(bytes);
    IdKey::new(name, secret.first_chunk().expect("16 bytes after the name"))
}

fn split_name(bytes: &[u8]) -> (KeyName, &[u8]) {
    let (name, rest) = bytes.split_first_chunk().expect("longer than a name");
    (KeyName(*name), rest)
}
