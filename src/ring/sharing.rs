//! How nodes keep one ring through a place that all of them write to and nobody locks: a map from field to bytes.
//!
//! Owns: how a ring is cut into fields, and what a node takes from the shared copy and gives to it. Called by: the
//! `engine`'s agent, which reads, seals and writes (on a transport's board). Pure: no I/O, time is an argument. Failure: a
//! field that is not what its name says is refused and counted; the others count.
//!
//! Each key has a field of its own, so writers that do not know of each other lose nothing: what is lost can only be
//! another form of one record, or of the revocations, and its writer finds that at its next exchange and repeats it. So
//! whatever the order of reading and writing, all end with one ring and one copy, and then write no more. For that:
//!
//! - After writing, exchange once more, or see to it that a change which came between reading and writing is noticed:
//!   the token of change to remember is the one that was read before the copy, never the one that was written.
//! - Where [`Exchange::makes_keys_for_all`], write only if the token is still the one that was read (on the board, a check
//!   in the same script), and read again if not: of many nodes that find the schedule short at once, one extends it.
//! - First write [`Exchange::publish`], then delete [`Exchange::superfluous`], and delete only where the place's own
//!   clock (the transport says) is at most an hour behind: a node whose clock is a day fast takes everybody's keys for over.
//! - Deleting is no news: it moves no token. Otherwise a node whose clock is a day slow, which publishes keys that all
//!   others delete, would keep all of them busy.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::{FORGET_AFTER, KeyName, Record, Ring, Schedule, wire};
use crate::clock::UnixMillis;

/// The name of one field of the shared copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Field {
    /// The record of one key.
    Key(KeyName),
    /// Everything that says what is refused: revoked names and both watermarks.
    Revocations,
}

/// What one exchange with the shared copy comes to.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// The node's ring from now on.
    pub ring: Ring,
    /// Parts of the copy that were not taken in: they are not what their field's name says, or [`Ring::admit`] refused
    /// them. Keys that are merely over do not count.
    pub refused: usize,
    /// What the copy lacks: to be written to these fields, over what is there.
    pub publish: Vec<(Field, Ring)>,
    /// Fields that nobody needs any more: keys that are revoked, or were over two hours ago. The module says when to
    /// delete them.
    ///
    /// Never a field whose content belongs to another name. Its right content may be with a node that has not been
    /// heard of yet, and will write over it; deleting it gains a few bytes, and is wrong where the mistake is here.
    pub superfluous: Vec<Field>,
}

impl Exchange {
    /// Whether keys are published that nobody uses yet. Somebody else may have published others in the meantime: then
    /// [`Ring::rejoin`] drops these where the node was alone, and otherwise the fleet has more keys than it needs.
    pub fn makes_keys_for_all(&self, now: UnixMillis) -> bool {
        let mut records = self.publish.iter().flat_map(|(_, part)| part.records());
        records.any(|record| now < record.activates)
    }
}

impl Record {
    /// As it is when it encrypts no more: before all others, so that any other is preferred, and over a lifetime from
    /// now. (A session-id key would stay for a week.)
    fn retired(&self, now: UnixMillis, schedule: &Schedule) -> Record {
        let accept_until = now + schedule.lifetime;
        Record { activates: UnixMillis(0), retires: now, accept_until, ..self.clone() }
    }
}

impl Field {
    const KEY: u8 = b'k';
    const REVOCATIONS: u8 = b'r';

    /// The name as bytes.
    pub fn to_bytes(self) -> Vec<u8> {
        match self {
            Field::Key(name) => [&[Self::KEY], &name.0[..]].concat(),
            Field::Revocations => vec![Self::REVOCATIONS],
        }
    }

    /// The field with that name, if there is one.
    pub fn parse(bytes: &[u8]) -> Option<Field> {
        match bytes.split_first()? {
            (&Self::KEY, name) => Some(Field::Key(KeyName(name.try_into().ok()?))),
            (&Self::REVOCATIONS, []) => Some(Field::Revocations),
            _ => None,
        }
    }

    /// Whether `part` is what belongs into this field.
    fn fits(self, part: &Ring) -> bool {
        let mut records = part.records();
        match self {
            Field::Key(name) => {
                records.next().is_some_and(|record| record.name() == name)
                    && records.next().is_none()
                    && !part.refuses_something()
            }
            Field::Revocations => records.next().is_none(),
        }
    }
}

impl Ring {
    /// The ring cut into fields. Merged again, in any order, the parts are the ring.
    pub fn parts(&self) -> impl Iterator<Item = (Field, Ring)> + '_ {
        let revocations = self.refusals();
        let tickets = self.tickets.iter().map(|record| {
            let part = Ring { tickets: vec![record.clone()], ..Ring::default() };
            (Field::Key(record.name()), part)
        });
        let ids = self.ids.iter().map(|record| {
            let part = Ring { ids: vec![record.clone()], ..Ring::default() };
            (Field::Key(record.name()), part)
        });
        let revocations = self.refuses_something().then_some((Field::Revocations, revocations));
        tickets.chain(ids).chain(revocations)
    }

    /// What the ring refuses, without its keys.
    #[must_use]
    pub fn refusals(&self) -> Ring {
        Ring { tickets: Vec::new(), ids: Vec::new(), ..self.clone() }
    }

    /// What is the same if and only if two rings are equal. Nodes compare [`Ring::living`]'s: when a ring forgets what
    /// is over depends on its history.
    pub fn digest(&self) -> [u8; 16] {
        let digest = Sha256::digest(&wire::encode(self)[..]);
        *digest.first_chunk().expect("16 of 32 bytes")
    }

    /// The ring without keys and revocations whose time is over.
    #[must_use]
    pub fn living(&self, now: UnixMillis) -> Ring {
        let mut ring = self.clone();
        ring.tickets.retain(|record| now < record.accept_until);
        ring.ids.retain(|record| now < record.accept_until);
        ring.revoked.retain(|_, until| now < *until);
        ring
    }

    /// Takes in what the shared copy knows, and tells what it lacks. `copy` has the fields that could be read.
    pub fn exchange(
        &self,
        copy: &BTreeMap<Field, Ring>,
        schedule: &Schedule,
        now: UnixMillis,
    ) -> Exchange {
        let sound = sound(copy);
        let (ring, refused) = self.admit(&union(&sound, now), schedule, now);
        let lacking = |(field, part): (Field, Ring)| {
            news(part, sound.get(&field).copied(), now).map(|part| (field, part))
        };
        let living = ring.living(now);
        let publish = living.parts().filter_map(lacking).collect();
        // A key may be back under the name of one that is over.
        let is_superfluous =
            |record: &Arc<Record>| ring.needs_no_more(record, now) && !living.knows(&record.name());
        let superfluous = sound
            .iter()
            .filter(|(_, part)| part.records().any(is_superfluous))
            .map(|(field, _)| *field)
            .collect();
        Exchange { ring, refused: refused + copy.len() - sound.len(), publish, superfluous }
    }

    /// The ring with which a node comes back that was alone, before its [`Ring::exchange`]: `contact` is when, by its
    /// own clock, it asked for the last copy after whose exchange that copy had everything, if there was one since the
    /// ring was empty. Keys made since then are known to nobody else. If the fleet has its own, those that are not in
    /// use yet go, and if one of the fleet's is active, those that encrypted stay to be accepted, but encrypt no more.
    ///
    /// Otherwise a key that was made alone could take over on each node in the moment when it hears of it, and the
    /// others refuse its tickets until they do; and a fleet of which many nodes were alone would fill the ring soon:
    /// there is room for 256 keys.
    #[must_use]
    pub fn rejoin(
        &self,
        copy: &BTreeMap<Field, Ring>,
        contact: Option<UnixMillis>,
        schedule: &Schedule,
        now: UnixMillis,
    ) -> Ring {
        let sound = sound(copy);
        // What this node knows to be revoked is no key of the fleet's any more.
        let refusing = self.refusals();
        let (fleet, _) = refusing.admit(&union(&sound, now), schedule, now);
        if fleet.maintenance_due(schedule, now) <= now {
            return self.clone();
        }
        let in_use = [
            self.encrypting(now).map(|(record, _)| record.name()),
            self.id_key(now).map(super::IdKey::name),
        ];
        let is_shared = |record: &Record| {
            let is_old = contact.is_some_and(|contact| record.made <= contact);
            record.imported || is_old || copy.contains_key(&Field::Key(record.name()))
        };
        let fleet_encrypts =
            fleet.encrypting(now).is_some_and(|(record, _)| record.activates <= now);
        let kept = |record: &Arc<Record>| match () {
            () if is_shared(record) => Some(Arc::clone(record)),
            () if record.activates > now && !in_use.contains(&Some(record.name())) => None,
            () if !fleet_encrypts => Some(Arc::clone(record)),
            () => Some(Arc::new(record.retired(now, schedule))),
        };
        let mut ring = self.clone();
        ring.adopt(self.records().filter_map(kept));
        ring
    }

    fn refuses_something(&self) -> bool {
        let watermark = self.keys_since.max(self.sessions_since);
        watermark > UnixMillis(0) || !self.revoked.is_empty()
    }

    fn needs_no_more(&self, record: &Record, now: UnixMillis) -> bool {
        now >= record.accept_until + FORGET_AFTER
            || record.made < self.keys_since
            || self.revoked.contains_key(&record.name())
    }
}

/// The parts that are what their fields' names say.
fn sound(copy: &BTreeMap<Field, Ring>) -> BTreeMap<Field, &Ring> {
    let sound = copy.iter().filter(|(field, part)| field.fits(part));
    sound.map(|(field, part)| (*field, part)).collect()
}

/// All parts as one ring, without what is over. No watermark is applied to the keys yet: it may be one to refuse.
fn union(parts: &BTreeMap<Field, &Ring>, now: UnixMillis) -> Ring {
    let refusing = parts.get(&Field::Revocations).map(|part| part.living(now)).unwrap_or_default();
    let mut keys = Ring::default();
    let records = parts.values().flat_map(|part| part.records());
    keys.adopt(records.filter(|record| now < record.accept_until).cloned());
    Ring { tickets: keys.tickets, ids: keys.ids, ..refusing }
}

/// What to write for a part of which the copy has `copied`, if anything: never less than is there, but for what is
/// over.
fn news(part: Ring, copied: Option<&Ring>, now: UnixMillis) -> Option<Ring> {
    let Some(copied) = copied else { return Some(part) };
    let merged = part.merge(copied);
    (merged != *copied).then(|| merged.living(now))
}
