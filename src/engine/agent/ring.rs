//! The agent's care for the ring: the cluster's shared copy and the node's own are made one.

use std::collections::BTreeMap;
use std::time::Duration;

use super::nodes::{GONE, SILENT};
use super::progress::{Change, Epoch};
use super::{Agent, Pass};
use crate::clock::{self, UnixMillis};
use crate::cluster::message::Entry;
use crate::cluster::seal::{Label, NONCE_LEN, SecretId};
use crate::cluster::transport::{Delivery, Outgoing, RingCopy, Table};
use crate::config::KeySource;
use crate::engine::view::NO_RANDOMNESS;
use crate::ring::sharing::Field;
use crate::ring::{CLOCKS_DIFFER, Material, Ring, Schedule, wire};
use crate::stats::Counter;
use crate::sys;

/// How often the copy's token is looked at, whatever was heard.
const POLL: Duration = Duration::from_secs(2);

/// How often the node that makes keys for all looks whether some are due.
const MAKING_LOOK: Duration = Duration::from_millis(100);

/// A copy that is not what it should be after so many exchanges in a row is left alone until the next poll.
const MOST_IN_VAIN: u32 = 8;

/// How long a field stays that no secret of anybody opens. One that is sealed with a secret which this node has not stays
/// as long as a node lives that has it, and [`GONE`] longer.
const JUNK_STAYS: Duration = Duration::from_secs(10);

/// A copy of which something was refused is looked at again after so long though it is the same: what is refused for
/// the clock's sake may be right by then, or the clock.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// How long one node makes the keys for all, unless it renews that.
const TERM: Duration = Duration::from_secs(10);

/// A node that finds no copy waits so long for the one that makes the first keys.
const FIRST_KEYS: Duration = Duration::from_millis(300);
const FIRST_KEYS_LOOK: Duration = Duration::from_millis(10);

/// How long another process may keep the ring's lease.
const PATIENCE: Duration = Duration::from_secs(1);

/// What others may look up is not written again sooner than so long after the last time.
const RESEND: Duration = Duration::from_secs(30);

/// A copy is not asked to live longer.
const LONGEST_KEEP: Duration = Duration::from_secs(4 * 365 * 24 * 3600);

/// The copy lives as long as any key in it, and this much longer.
const KEEP_AFTER: Duration = Duration::from_secs(24 * 3600);

impl Agent<'_> {
    /// Makes the two one, if either may have changed.
    pub(super) fn keep_ring(&mut self) -> Pass<()> {
        let now = clock::since_boot();
        let own_changed = self.store.ring_generation() != self.ring.generation;
        if self.ring.is_reading() || !self.store.has_first_copy() {
            return self.exchange_rings();
        }
        // Nodes with different secrets overwrite each other's parts for ever, at this pace.
        if self.ring.in_vain >= MOST_IN_VAIN && now < self.ring.poll {
            return Ok(());
        }
        if self.ring.pace.allows(now) && (own_changed || self.has_moved()?) {
            return self.exchange_rings();
        }
        if self.ring.is_maker && now >= self.ring.making {
            self.ring.making = now + MAKING_LOOK;
            if self.ring.pace.allows(now) && self.is_due() {
                return self.exchange_rings();
            }
        }
        if now < self.ring.poll {
            return Ok(());
        }
        self.ring.poll = now + POLL;
        self.look_at_feed()?;
        self.be_maker()?;
        let token = self.channel()?.ring_token()?;
        if token != self.ring.token || self.ring.look_again.is_some_and(|due| now >= due) {
            return self.exchange_rings();
        }
        // What is missing without anybody having said so is found by the one who looks at all of it.
        if self.ring.is_maker || !self.makes_keys() {
            return self.exchange_rings();
        }
        Ok(())
    }

    /// Whether the copy is not the one that this node knows. A notice is anybody's word: the token is what counts.
    fn has_moved(&mut self) -> Pass<bool> {
        if self.ring.noticed && self.ring.token.is_some() {
            let token = self.channel()?.ring_token()?;
            self.ring.noticed = token != self.ring.token;
        }
        Ok(self.ring.noticed || self.ring.token.is_none())
    }

    fn makes_keys(&self) -> bool {
        self.engine.config.keys.source == KeySource::Random
    }

    fn be_maker(&mut self) -> Pass<bool> {
        let name = self.node.to_string();
        self.ring.is_maker = self.makes_keys() && self.channel()?.be_maker(&name, TERM)?;
        Ok(self.ring.is_maker)
    }

    fn is_due(&self) -> bool {
        let now = clock::now();
        self.engine.current(now).ring.maintenance_due(&self.early(), now) <= now
    }

    /// The schedule of the node that makes keys for all: a little before others would.
    fn early(&self) -> Schedule {
        let schedule = self.engine.schedule;
        Schedule { early: schedule.early_lead(), ..schedule }
    }

    fn exchange_rings(&mut self) -> Pass<()> {
        let Some(copy) = self.read_copy()? else { return Ok(()) };
        self.note_epoch(copy.epoch());
        let parts = self.open(&copy);
        self.take_out_junk()?;
        let is_maker = self.be_maker()?;
        if self.must_wait(&copy, is_maker) {
            sys::pause(FIRST_KEYS_LOOK);
            return Ok(());
        }
        let schedule = if is_maker { self.early() } else { self.engine.schedule };
        let now = clock::now();
        // Only then: keys that are made in company, by schedule or by hand, are the fleet's too.
        let was_alone = self.ring.token.is_none();
        let contact = self.ring.contact;
        let merged = self.engine.change_ring(PATIENCE, |ring| {
            let ring = if was_alone { &ring.rejoin(&parts, contact, &schedule, now) } else { ring };
            let exchange = ring.exchange(&parts, &schedule, now);
            let refused = exchange.refused as u64;
            self.engine.counters().add(Counter::TransportRejectedClock, refused);
            self.engine.maintained_by(&schedule, &exchange.ring, now)
        });
        if let Err(error) = merged {
            log::debug!("agent: the ring is not exchanged now: {error}");
            return Ok(());
        }
        self.store.note_first_copy();
        self.publish(&copy, &parts, &schedule, now)
    }

    /// The copy; `None` while some of it is still to be read. Its token is read first: what changes meanwhile moves it.
    fn read_copy(&mut self) -> Pass<Option<RingCopy>> {
        let (mut token, mut reading) = std::mem::take(&mut self.ring.reading);
        if reading.is_new() {
            if self.store.has_first_copy() {
                self.ring.pace.note(clock::since_boot());
            }
            // What is said from now on is of another copy, perhaps.
            self.ring.noticed = false;
            token = self.channel()?.ring_token()?;
        }
        let Some(parts) = self.read(Table::Ring, &mut reading)? else {
            self.ring.reading = (token, reading);
            return Ok(None);
        };
        Ok(Some(RingCopy { token, parts }))
    }

    /// Whether another node is about to make the first keys of all.
    fn must_wait(&mut self, copy: &RingCopy, is_maker: bool) -> bool {
        let now = clock::since_boot();
        let nothing_yet = copy.parts.is_empty() && !self.store.has_first_copy();
        if is_maker || !nothing_yet || !self.makes_keys() {
            return false;
        }
        let since = *self.ring.waiting_since.get_or_insert(now);
        now.saturating_sub(since) < FIRST_KEYS
    }

    /// Writes what the copy lacks. Only a copy that lacks nothing is taken for known: others may have written between
    /// our reading and our writing.
    fn publish(
        &mut self,
        copy: &RingCopy,
        parts: &BTreeMap<Field, Ring>,
        schedule: &Schedule,
        now: UnixMillis,
    ) -> Pass<()> {
        // Before the ring: what changes in between is looked at again.
        let generation = self.store.ring_generation();
        let view = self.engine.current(now);
        let exchange = view.ring.exchange(parts, schedule, now);
        let for_all = exchange.makes_keys_for_all(now);
        let mut publish: Vec<_> =
            exchange.publish.into_iter().filter(|(_, part)| self.is_shared(part)).collect();
        if !self.ring.is_resealed {
            publish.extend(self.to_reseal(copy, parts, &publish));
        }
        if publish.is_empty() && copy.token.is_some() {
            self.ring.is_resealed = true;
            self.tidy(&exchange.superfluous, now)?;
            self.ring.token = copy.token.clone();
            self.ring.generation = generation;
            let since_boot = clock::since_boot();
            self.ring.poll = since_boot + POLL;
            self.ring.look_again = (exchange.refused > 0).then_some(since_boot + LOOK_AGAIN);
            self.ring.contact = Some(now);
            self.ring.in_vain = 0;
            return Ok(());
        }
        let write: Vec<_> = publish
            .iter()
            .filter_map(|(field, part)| {
                let field = field.to_bytes();
                let sealed = self.seal(Label::Ring, &field, &wire::encode(part))?;
                Some((field, sealed))
            })
            .collect();
        let Some(token) = next_token(copy) else {
            log::debug!("agent: {NO_RANDOMNESS}");
            return Ok(());
        };
        let keep = (view.ring.last_end().since(now) + KEEP_AFTER).min(LONGEST_KEEP);
        drop(view);
        if !for_all {
            self.channel()?.write_ring(&write, &token, keep)?;
        } else if !self.channel()?.write_ring_after(copy.token.as_deref(), &write, &token, keep)? {
            // Others may have made keys meanwhile, which then are everybody's.
            self.ring.noticed = true;
            self.note_in_vain();
            return Ok(());
        }
        self.engine.counters().add(Counter::TransportSent, write.len() as u64);
        self.ring.is_resealed = true;
        self.note_in_vain();
        self.tell_others()
    }

    fn note_in_vain(&mut self) {
        self.ring.in_vain += 1;
        self.ring.poll = clock::since_boot() + POLL;
    }

    /// Takes away what nobody needs, if the clock of the transport agrees on what time it is: a node whose clock is a day fast would take
    /// everybody's keys for over. That is no news, so the token stays.
    fn tidy(&mut self, superfluous: &[Field], now: UnixMillis) -> Pass<()> {
        if superfluous.is_empty() || now > self.channel()?.time()? + CLOCKS_DIFFER {
            return Ok(());
        }
        let fields: Vec<_> = superfluous.iter().copied().map(Field::to_bytes).collect();
        self.channel()?.take_out(Table::Ring, &fields)?;
        Ok(())
    }

    fn tell_others(&mut self) -> Pass<()> {
        let keep = self.engine.config.resumption.lifetime;
        self.ring.noticed = true;
        let notice = Entry::ring_changed(self.node).encode().map(Outgoing::Entry);
        Ok(self.channel()?.send(notice.as_slice(), keep)?)
    }

    /// Key files and derived keys are every node's own affair; the rest is everybody's.
    fn is_shared(&self, part: &Ring) -> bool {
        let source = self.engine.config.keys.source;
        part.records().all(|record| {
            let from_a_file = record.imported && record.accept_until == UnixMillis::MAX;
            let derived = source == KeySource::Derived && !record.imported;
            let made_elsewhere = matches!(record.material, Material::Ticket(_)) && from_a_file;
            !derived && !made_elsewhere
        })
    }

    /// What is sound of the copy; the rest is counted.
    fn open(&mut self, copy: &RingCopy) -> BTreeMap<Field, Ring> {
        let now = clock::since_boot();
        self.ring.unread.keep_only(&copy.parts);
        let mut parts = BTreeMap::new();
        for (name, sealed) in &copy.parts {
            let Some(plain) = self.open_sealed(Label::Ring, name, sealed) else {
                self.ring.unread.see(name, sealed, now);
                continue;
            };
            self.ring.unread.forget(name);
            match Field::parse(name).zip(wire::decode(&plain)) {
                Some((field, part)) => {
                    parts.insert(field, part);
                }
                None => self.engine.counters().count(Counter::TransportRejectedFormat),
            }
        }
        parts
    }

    /// What stays and nobody can open goes, so that it is not read for ever.
    fn take_out_junk(&mut self) -> Pass<()> {
        let now = clock::since_boot();
        let (sealer, unread) = (&self.cluster.sealer, &self.nodes.unread);
        let stays = |secret: Option<SecretId>| match secret.filter(|id| !sealer.has(*id)) {
            None => JUNK_STAYS,
            others if unread.living(now, SILENT).any(|id| id == others) => Duration::MAX,
            Some(_) => GONE,
        };
        let junk = self.ring.unread.stale(now, stays);
        if !junk.is_empty() {
            let taken = self.take_out(Table::Ring, &junk)?;
            self.engine.counters().add(Counter::TransportRejectedFormat, taken);
        }
        Ok(())
    }

    /// Seals under this realm's secret; `None` without randomness.
    pub(super) fn seal(&self, label: Label, id: &[u8], plain: &[u8]) -> Option<Vec<u8>> {
        let mut nonce = [0; NONCE_LEN];
        sys::random(&mut nonce).then(|| self.cluster.sealer.seal(label, id, plain, nonce))
    }

    /// What was sealed by one of us; else `None`, counted by reason.
    pub(super) fn open_sealed(
        &self,
        label: Label,
        id: &[u8],
        sealed: &[u8],
    ) -> Option<zeroize::Zeroizing<Vec<u8>>> {
        self.engine.open_sealed(self.cluster, label, id, sealed)
    }

    /// The parts of the copy that an older secret of ours sealed: once that is deleted, a node that joins could not
    /// read them. Done once in an agent's life, lest two nodes whose files differ in their order do it in turns; the
    /// last one that is restarted sees to all of them.
    fn to_reseal(
        &self,
        copy: &RingCopy,
        parts: &BTreeMap<Field, Ring>,
        publish: &[(Field, Ring)],
    ) -> Vec<(Field, Ring)> {
        let is_old = |field: &Field| {
            let sealed = copy.parts.get(&field.to_bytes());
            sealed.is_some_and(|sealed| !self.cluster.sealer.seals_like(sealed))
        };
        let is_published = |field: &Field| publish.iter().any(|(other, _)| other == field);
        let old = parts.iter().filter(|(field, _)| is_old(field) && !is_published(field));
        old.map(|(field, part)| (*field, part.clone())).collect()
    }

    /// Another copy than before: what we wrote is lost.
    fn note_epoch(&mut self, epoch: Option<Epoch>) {
        if epoch.is_some()
            && std::mem::replace(&mut self.ring.epoch, epoch)
                .is_some_and(|known| Some(known) != epoch)
        {
            self.resend.0 = true;
        }
    }

    /// What others may look up is written again, unless a copy of what was used up would come back; not more often than
    /// Redis, or who has it, can make us do harm to both.
    pub(super) fn send_again_if_due(&mut self) {
        let now = clock::since_boot();
        let (is_wanted, last) = self.resend;
        if !is_wanted || last.is_some_and(|last| now < last + RESEND) {
            return;
        }
        self.resend = (false, Some(now));
        let once = self.engine.config.resumption.single_use;
        if self.cluster.delivery == Delivery::Vault && !once {
            self.store.send_again();
        }
    }
}

impl RingCopy {
    fn epoch(&self) -> Option<Epoch> {
        self.token.as_ref()?.first_chunk().copied()
    }
}

/// The token of what is written over a copy; `None` without randomness.
fn next_token(copy: &RingCopy) -> Option<Vec<u8>> {
    let (mut epoch, mut change) = (Epoch::default(), Change::default());
    let sound = sys::random(&mut epoch) && sys::random(&mut change);
    sound.then(|| [copy.epoch().unwrap_or(epoch), change].concat())
}
