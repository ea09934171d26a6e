//! The ring: the set of keys that a node knows, and what each is good for at a given time.
//!
//! Owns: key records, revocations, the rules by which keys come, rule and go, the files and bytes that
//! keys travel in. Called by: `engine`. Pure: time and randomness are arguments; no I/O, no lock, no OpenSSL. Threads
//! and forks: a [`Ring`] is a value, changed by making another. Failure: bytes that do not parse are refused whole.
//!
//! Two rings merge by union. Records of one name merge by the maximum of a total order, revocations and watermarks by
//! the maximum of their times, so any two nodes that have seen the same rings agree, in whatever order, however often.

#![forbid(unsafe_code)]

mod admission;
pub mod derive;
pub mod family;
pub mod file;
pub mod key;
mod record;
pub mod schedule;
pub mod session_id;
pub mod sharing;
pub mod wire;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

pub use admission::{CLOCKS_DIFFER, is_believed};
pub use family::Family;
pub use key::{Digest, KeyName, TicketKey};
pub use record::{Material, Record};
pub use schedule::Schedule;
pub use session_id::IdKey;

use crate::clock::UnixMillis;
use crate::error::{Error, Result};

/// Most key records in a ring; the configuration's ranges keep a scheduled ring below it.
pub const MAX_RECORDS: usize = 256;

/// Most revocations of single keys in a ring.
pub const MAX_REVOCATIONS: usize = 256;

/// A record is kept this long after its end, not accepted, so that a clock which was an hour fast and is put right
/// finds its keys again.
const FORGET_AFTER: Duration = Duration::from_secs(2 * 3600);

/// A revocation outlives the longest extension that another node may have given to the key.
const REVOCATION_OUTLIVES: Duration = Duration::from_secs(8 * 24 * 3600);

/// Key records and revocations; see the module's documentation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ring {
    /// Ticket keys, ordered by [`Record::succession`].
    tickets: Vec<Arc<Record>>,
    /// Session-id keys, in the same order.
    ids: Vec<Arc<Record>>,
    /// Revoked key names, each with the time when the revocation may be forgotten.
    revoked: BTreeMap<KeyName, UnixMillis>,
    /// Keys made before this are refused.
    keys_since: UnixMillis,
    /// Sessions authenticated before this are refused.
    sessions_since: UnixMillis,
}

/// How a ticket key is used at a given time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Age {
    /// It is the one that encrypts.
    Current,
    /// Another one encrypts: a ticket made with it is accepted and replaced.
    Older,
}

/// What the ring says about the key that a ticket names.
#[derive(Clone, Debug)]
pub enum Verdict<'a> {
    /// Decrypt with it.
    Accepted(&'a Arc<Record>, &'a TicketKey, Age),
    /// The ring never knew it, or has forgotten it.
    Unknown,
    /// Its time is over.
    Expired,
    /// It was revoked.
    Revoked,
}

/// How many keys are in each state at a given time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Known, and not yet used to encrypt.
    pub pending: u64,
    /// Encrypting: one, or none in an empty ring.
    pub active: u64,
    /// Only accepted.
    pub accepting: u64,
    /// Revoked by name and remembered.
    pub revoked: u64,
}

impl Ring {
    /// The key that encrypts at `now`: the greatest (activates, name) of those that have activated and are accepted; if
    /// there is none (first start, a clock that stepped back) the least of all. Depends on the ring and the time alone.
    pub fn encrypting(&self, now: UnixMillis) -> Option<(&Arc<Record>, &TicketKey)> {
        let (record, material) = in_use(&self.tickets, now)?;
        match material {
            Material::Ticket(key) => Some((record, key)),
            Material::SessionId(_) => None,
        }
    }

    /// The key that tags session ids at `now`, by the same rule.
    pub fn id_key(&self, now: UnixMillis) -> Option<&IdKey> {
        match in_use(&self.ids, now)?.1 {
            Material::SessionId(key) => Some(key),
            Material::Ticket(_) => None,
        }
    }

    /// The key of this ring that made `id`: the newest are tried first, and at most [`MAX_ID_KEYS`] of them.
    pub fn maker_of(
        &self,
        id: &[u8; session_id::SESSION_ID_LEN],
        now: UnixMillis,
    ) -> Option<&IdKey> {
        let accepted = self.ids.iter().rev().filter(|record| now < record.accept_until);
        accepted.take(MAX_ID_KEYS).find_map(|record| match &record.material {
            Material::SessionId(key) => key.made(id).then_some(key),
            Material::Ticket(_) => None,
        })
    }

    /// What to do with a ticket that names `name`.
    pub fn verdict(&self, name: &KeyName, now: UnixMillis) -> Verdict<'_> {
        let Some(record) = self.tickets.iter().rev().find(|record| record.name() == *name) else {
            let revoked = self.revoked.contains_key(name);
            return if revoked { Verdict::Revoked } else { Verdict::Unknown };
        };
        let Material::Ticket(key) = &record.material else {
            return Verdict::Unknown;
        };
        if now >= record.accept_until {
            return Verdict::Expired;
        }
        let current =
            in_use(&self.tickets, now).is_some_and(|(active, _)| Arc::ptr_eq(active, record));
        Verdict::Accepted(record, key, if current { Age::Current } else { Age::Older })
    }

    /// The whole name of the ticket key that has this short one, of the newest if there are several; also of one that
    /// is revoked.
    pub fn by_short_name(&self, short: u64) -> Option<KeyName> {
        let known = self.tickets.iter().rev().map(|record| record.name());
        known.chain(self.revoked.keys().copied()).find(|name| name.short() == short)
    }

    /// Keys made before this time are refused.
    pub fn keys_since(&self) -> UnixMillis {
        self.keys_since
    }

    /// Sessions authenticated before this time are refused.
    pub fn sessions_since(&self) -> UnixMillis {
        self.sessions_since
    }

    /// When the last of its keys is not accepted any more.
    pub fn last_end(&self) -> UnixMillis {
        let ends = self.records().map(|record| record.accept_until);
        ends.filter(|end| *end != UnixMillis::MAX).max().unwrap_or_default()
    }

    /// Whether a key of that name is in the ring.
    pub fn knows(&self, name: &KeyName) -> bool {
        self.records().any(|record| record.name() == *name)
    }

    /// Every record, ticket keys first.
    pub fn records(&self) -> impl Iterator<Item = &Arc<Record>> {
        self.tickets.iter().chain(&self.ids)
    }

    /// How many ticket keys are in which state.
    pub fn census(&self, now: UnixMillis) -> Census {
        let mut census = Census { revoked: self.revoked.len() as u64, ..Census::default() };
        let active = in_use(&self.tickets, now).map(|(record, _)| record.name());
        for record in self.tickets.iter().filter(|record| now < record.accept_until) {
            match () {
                () if Some(record.name()) == active => census.active += 1,
                () if record.activates > now => census.pending += 1,
                () => census.accepting += 1,
            }
        }
        census
    }

    /// Everything that either ring knows.
    #[must_use]
    pub fn merge(&self, other: &Ring) -> Ring {
        let mut revoked = self.revoked.clone();
        for (name, until) in &other.revoked {
            let entry = revoked.entry(*name).or_default();
            *entry = (*entry).max(*until);
        }
        let mut merged = Ring {
            revoked,
            keys_since: self.keys_since.max(other.keys_since),
            sessions_since: self.sessions_since.max(other.sessions_since),
            ..Ring::default()
        };
        merged.adopt(self.records().chain(other.records()).cloned());
        merged.keep_within_limits();
        merged
    }

    /// The ring with more records in it.
    ///
    /// # Errors
    /// [`Error::Ring`] when it would hold more than [`MAX_RECORDS`].
    pub fn with(&self, records: impl IntoIterator<Item = Record>) -> Result<Ring> {
        let mut ring = self.clone();
        ring.adopt(self.records().cloned().chain(records.into_iter().map(Arc::new)));
        if ring.records().count() > MAX_RECORDS {
            return Err(Error::Ring(
                "the ring is full (256 keys are still accepted); wait for old keys to expire, or revoke them",
            ));
        }
        Ok(ring)
    }

    /// The ring whose ticket keys are exactly `records`: what follows a key file that changed. Keys that were generated
    /// before the source became files go too, or they would take turns with the files'.
    ///
    /// # Errors
    /// As [`Ring::with`].
    pub fn with_imported(&self, records: impl IntoIterator<Item = Record>) -> Result<Ring> {
        let ring = Ring { tickets: Vec::new(), ..self.clone() };
        ring.with(records)
    }

    /// The ring without the key of that name, which is refused from now on wherever this ring arrives.
    ///
    /// # Errors
    /// [`Error::Ring`] when more than [`MAX_REVOCATIONS`] are remembered already.
    pub fn revoke(&self, name: KeyName, now: UnixMillis) -> Result<Ring> {
        if self.revoked.len() >= MAX_REVOCATIONS && !self.revoked.contains_key(&name) {
            return Err(Error::Ring("256 keys are revoked already; revoke all keys instead"));
        }
        let records = self.records().filter(|record| record.name() == name);
        let end = records.map(|record| record.accept_until).max().unwrap_or(now);
        let remember = end.max(now) + REVOCATION_OUTLIVES;
        let mut ring = self.clone();
        ring.revoked.insert(name, remember);
        ring.adopt(self.records().cloned());
        Ok(ring)
    }

    /// The ring without any key made so far, on every node that it reaches. Where this node derives its keys they count
    /// as made when they activate: those of periods to come stay.
    ///
    /// A key that was made by a clock which is out of everybody's sight (ours, once) is refused by its name instead: a
    /// watermark behind it would be believed nowhere else.
    #[must_use]
    pub fn revoke_all(&self, now: UnixMillis, derives: bool) -> Ring {
        let latest = self.latest_making(now);
        let made = self.records().filter(|record| !derives || !is_derived(record));
        let (made, unlikely): (Vec<_>, Vec<_>) = made.partition(|record| record.made <= latest);
        let made = made.into_iter().map(|record| record.made);
        let newest = made.chain([now, self.keys_since]).max().unwrap_or(now);
        let ring = Ring { keys_since: newest + Duration::from_millis(1), ..self.clone() };
        ring.without(unlikely.into_iter(), now)
    }

    /// The ring without any key that it knows, each refused by its name: where nobody knows what time it is for all. A
    /// key that another node made and that has not arrived is not covered. Where this node derives its keys those of
    /// periods to come stay, and the session-id key, which would come back under its name.
    ///
    /// # Errors
    /// [`Error::Ring`] when more than [`MAX_REVOCATIONS`] would be remembered.
    pub fn revoke_each(&self, now: UnixMillis, derives: bool) -> Result<Ring> {
        let is_revoked = |record: &&Arc<Record>| {
            let has_come =
                record.activates <= now && matches!(record.material, Material::Ticket(_));
            !derives || !is_derived(record) || has_come
        };
        let keys: Vec<_> = self.records().filter(is_revoked).collect();
        if self.revoked.len() + keys.len() > MAX_REVOCATIONS {
            return Err(Error::Ring(
                "nothing was done: this host's clock and the transport's differ, so that each key has to be revoked by its name, \
                 and there is no room for so many; set the clocks (NTP) and try again",
            ));
        }
        Ok(self.without(keys.into_iter(), now))
    }

    /// The ring that refuses these keys by their names.
    fn without<'a>(&self, keys: impl Iterator<Item = &'a Arc<Record>>, now: UnixMillis) -> Ring {
        let mut ring = self.clone();
        for key in keys {
            ring.revoked.insert(key.name(), key.accept_until.max(now) + REVOCATION_OUTLIVES);
        }
        ring.adopt(self.records().cloned());
        ring.keep_within_limits();
        ring
    }

    /// The ring that refuses stored sessions authenticated before `now`, and all that count as authenticated since an
    /// earlier flush ([`Ring::authenticating`]), whatever clock that one had.
    #[must_use]
    pub fn flush_sessions(&self, now: UnixMillis) -> Ring {
        let flushed = whole_second(self.sessions_since) + Duration::from_millis(1);
        Ring { sessions_since: flushed.max(now), ..self.clone() }
    }

    /// When a session counts as authenticated whose full handshake takes place now, to the second: not before what is
    /// flushed, wherever the clock was or is that the flush has its time from.
    pub fn authenticating(&self, now: UnixMillis) -> UnixMillis {
        now.max(whole_second(self.sessions_since))
    }

    /// Drops what nobody can need any more, even after a clock step of an hour. Where keys are many, those that are
    /// over leave no room for others.
    fn forget(&mut self, now: UnixMillis) {
        let is_roomy = self.records().count() <= MAX_RECORDS / 2;
        let remember = if is_roomy { FORGET_AFTER } else { Duration::ZERO };
        let keep = |record: &Arc<Record>| now < record.accept_until + remember;
        self.tickets.retain(keep);
        self.ids.retain(keep);
        self.revoked.retain(|_, until| now < *until);
    }

    /// Drops what would not fit into a ring's bytes: the keys that end soonest, the revocations forgotten soonest.
    fn keep_within_limits(&mut self) {
        if self.records().count() > MAX_RECORDS {
            let mut records: Vec<_> = self.records().cloned().collect();
            records.sort_by_key(|record| (record.accept_until, record.name()));
            let superfluous = records.len() - MAX_RECORDS;
            self.adopt(records.into_iter().skip(superfluous));
        }
        while self.revoked.len() > MAX_REVOCATIONS {
            let soonest = self.revoked.iter().map(|(name, until)| (*until, *name)).min();
            soonest.and_then(|(_, name)| self.revoked.remove(&name));
        }
    }

    /// Replaces the records by those of `candidates` that are not revoked, one per name.
    fn adopt(&mut self, candidates: impl Iterator<Item = Arc<Record>>) {
        let mut by_name: BTreeMap<KeyName, Arc<Record>> = BTreeMap::new();
        for record in candidates {
            if record.made < self.keys_since || self.revoked.contains_key(&record.name()) {
                continue;
            }
            let best = by_name.entry(record.name()).or_insert_with(|| Arc::clone(&record));
            if record.precedence(best).is_gt() {
                *best = record;
            }
        }
        let (mut tickets, mut ids): (Vec<_>, Vec<_>) = by_name
            .into_values()
            .partition(|record| matches!(record.material, Material::Ticket(_)));
        tickets.sort_by_key(|record| record.succession());
        ids.sort_by_key(|record| record.succession());
        (self.tickets, self.ids) = (tickets, ids);
    }
}

/// Sessions are dated to the second: the first one that is not before `time`.
fn whole_second(time: UnixMillis) -> UnixMillis {
    UnixMillis::from_secs(time.0.div_ceil(1000))
}

/// Derived keys count as made when they activate.
fn is_derived(record: &Record) -> bool {
    !record.imported && record.made == record.activates
}

/// Most id keys that are tried on a session id: nodes that start apart each bring one.
const MAX_ID_KEYS: usize = 8;

fn in_use(keys: &[Arc<Record>], now: UnixMillis) -> Option<(&Arc<Record>, &Material)> {
    let activated = keys.partition_point(|record| record.activates <= now);
    // A key file may end its newest key before its older ones.
    let accepted = keys[..activated].iter().rev().find(|record| now < record.accept_until);
    let record = accepted.or(keys.first())?;
    Some((record, &record.material))
}
