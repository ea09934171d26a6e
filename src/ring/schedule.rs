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
}

impl Schedule {
    /// The schedule of the session-id keys, which only keep invented ids out: they rotate weekly.
    pub(super) fn for_ids(&self) -> Schedule {
        Schedule { rotate: Duration::from_secs(7 * 24 * 3600), ahead: 1, ..*self }
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
        ring.make_due(schedule, now, random);
        ring.tickets = accepted_long_enough(&ring.tickets, schedule.lifetime, now);
        ring.ids = accepted_long_enough(&ring.ids, schedule.lifetime, now);
        (ring != *self).then_some(ring)
    }

    /// From when on [`Ring::maintain`] has work to do; any handshake may compare it with its clock.
    pub fn maintenance_due(&self, schedule: &Schedule) -> UnixMillis {
        let covered = |keys: &[Arc<Record>], schedule: &Schedule| {
            last_retires(keys).map_or(UnixMillis(0), |end| end - schedule.rotate * schedule.ahead)
        };
        let tickets =
            if schedule.makes_tickets { covered(&self.tickets, schedule) } else { UnixMillis::MAX };
        tickets.min(covered(&self.ids, &schedule.for_ids()))
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
        let ring =
            self.with([ticket_record(schedule, now, now + schedule.activation_delay, random)])?;
        Ok(ring.maintain(schedule, now, random).unwrap_or(ring))
    }

    fn make_due(&mut self, schedule: &Schedule, now: UnixMillis, random: Random<'_>) {
        let mut made = Vec::new();
        let ids = schedule.for_ids();
        let room = MAX_RECORDS.saturating_sub(self.records().count());
        let mut make = |keys: &[Arc<Record>], schedule: &Schedule, record: MakeRecord| {
            let mut end = last_retires(keys);
            while end.is_none_or(|end| end < now + schedule.rotate * schedule.ahead)
                && made.len() < room
            {
                let earliest = now + schedule.activation_delay;
                let activates = end.map_or(earliest, |end| end.max(earliest));
                made.push(Arc::new(record(schedule, now, activates, random)));
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

type MakeRecord = fn(&Schedule, UnixMillis, UnixMillis, Random<'_>) -> Record;

/// When the keys that the schedule made run out. Imported keys have no successor to wait for.
fn last_retires(keys: &[Arc<Record>]) -> Option<UnixMillis> {
    keys.iter().filter(|record| !record.imported).map(|record| record.retires).max()
}

/// A key encrypts until its successor activates, which may be later than planned (an idle node, a revocation): as long
/// as it may encrypt, it must be accepted for a lifetime after.
fn accepted_long_enough(
    keys: &[Arc<Record>],
    lifetime: Duration,
    now: UnixMillis,
) -> Vec<Arc<Record>> {
    let successors = keys.iter().skip(1).map(|record| record.activates).chain([now]);
    keys.iter()
        .zip(successors)
        .map(|(record, successor)| {
            let encrypts_until = record.retires.max(successor);
            let needed = encrypts_until + lifetime;
            if encrypts_until < now || record.accept_until >= needed {
                Arc::clone(record)
            } else {
                Arc::new(Record { accept_until: needed, ..Record::clone(record) })
            }
        })
        .collect()
}

fn ticket_record(
    schedule: &Schedule,
    now: UnixMillis,
    activates: UnixMillis,
    random: Random<'_>,
) -> Record {
    let mut bytes = zeroize::Zeroizing::new([0u8; TICKET_KEY_BYTES]);
    random(&mut bytes[..]);
    record(Material::Ticket(ticket_key(&bytes)), schedule, now, activates)
}

fn id_record(
    schedule: &Schedule,
    now: UnixMillis,
    activates: UnixMillis,
    random: Random<'_>,
) -> Record {
    let mut bytes = zeroize::Zeroizing::new([0u8; ID_KEY_BYTES]);
    random(&mut bytes[..]);
    record(Material::SessionId(id_key(&bytes)), schedule, now, activates)
}

fn record(
    material: Material,
    schedule: &Schedule,
    now: UnixMillis,
    activates: UnixMillis,
) -> Record {
    let retires = activates + schedule.rotate;
    let accept_until = retires + schedule.lifetime;
    Record { material, imported: false, made: now, activates, retires, accept_until }
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
