//! What the tests of the ring share: schedules, randomness that repeats, arbitrary rings.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use crate::clock::UnixMillis;
use crate::ring::{Digest, IdKey, KeyName, Material, Record, Ring, Schedule, TicketKey, Verdict};
use crate::secret::Secret;

/// Where the tests' clocks start: far from zero, so that steps back do not saturate.
pub(super) const START: UnixMillis = UnixMillis::from_secs(1_700_000_000);

pub(super) const HOUR: Duration = Duration::from_secs(3600);

pub(super) const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// The schedule of the default configuration.
pub(super) const HOURLY: Schedule = Schedule {
    makes_tickets: true,
    rotate: HOUR,
    ahead: 4,
    activation_delay: seconds(10),
    lifetime: seconds(12 * 3600),
    early: Duration::ZERO,
};

/// Bytes that look random and are the same in each run: splitmix64.
pub(super) fn random_from(seed: &mut u64) -> impl FnMut(&mut [u8]) + '_ {
    move |buffer| {
        for part in buffer.chunks_mut(8) {
            *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = *seed;
            mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^= mixed >> 31;
            part.copy_from_slice(&mixed.to_le_bytes()[..part.len()]);
        }
    }
}

/// One node's ring, its schedule and its randomness.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) ring: Ring,
    pub(super) schedule: Schedule,
    pub(super) seed: u64,
}

impl Node {
    pub(super) fn new(schedule: Schedule, seed: u64) -> Self {
        Node { ring: Ring::default(), schedule, seed }
    }

    /// A node that made its first keys at `now`.
    pub(super) fn started(schedule: Schedule, seed: u64, now: UnixMillis) -> Self {
        let mut node = Node::new(schedule, seed);
        node.maintain(now);
        node
    }

    pub(super) fn maintain(&mut self, now: UnixMillis) {
        let random = &mut random_from(&mut self.seed);
        if let Some(ring) = self.ring.maintain(&self.schedule, now, random) {
            self.ring = ring;
        }
    }

    /// What the engine does before each use: maintenance when it is due.
    pub(super) fn keep_up(&mut self, now: UnixMillis) {
        if now >= self.ring.maintenance_due(&self.schedule, now) {
            self.maintain(now);
        }
    }

    pub(super) fn rotate(&mut self, now: UnixMillis) {
        let random = &mut random_from(&mut self.seed);
        self.ring = self.ring.rotate(&self.schedule, now, random).expect("has room");
    }

    pub(super) fn encrypting(&self, now: UnixMillis) -> KeyName {
        name_in_use(&self.ring, now).expect("a ring with keys has one that encrypts")
    }
}

pub(super) fn name_in_use(ring: &Ring, now: UnixMillis) -> Option<KeyName> {
    ring.encrypting(now).map(|(record, _)| record.name())
}

pub(super) fn accepts(ring: &Ring, name: KeyName, now: UnixMillis) -> bool {
    matches!(ring.verdict(&name, now), Verdict::Accepted(..))
}

pub(super) fn is_revoked(ring: &Ring, name: KeyName, now: UnixMillis) -> bool {
    matches!(ring.verdict(&name, now), Verdict::Revoked)
}

/// The records of ticket keys, in the order of succession.
pub(super) fn tickets(ring: &Ring) -> &[Arc<Record>] {
    &ring.tickets
}

pub(super) fn ticket(name: u8, activates: UnixMillis, accept_until: UnixMillis) -> Record {
    let secret = Secret::new(&[name; 32]);
    let key = TicketKey::new(KeyName([name; 16]), secret.clone(), secret, Digest::Sha256);
    Record {
        material: Material::Ticket(key.expect("32 bytes fit")),
        imported: false,
        made: activates,
        activates,
        retires: activates + HOUR,
        accept_until,
    }
}

pub(super) fn arb_schedule() -> impl Strategy<Value = Schedule> {
    let rotate = prop_oneof![60u64..600, 600u64..7200, 7200u64..100_000];
    (rotate, 1u32..8, 0u64..120, 1800u64..100_000).prop_map(|(rotate, ahead, delay, lifetime)| {
        Schedule {
            makes_tickets: true,
            rotate: seconds(rotate),
            ahead,
            activation_delay: seconds(delay),
            lifetime: seconds(lifetime.min(rotate * 100)),
            early: Duration::ZERO,
        }
    })
}

/// Few values, so that records clash in every way.
fn arb_time() -> impl Strategy<Value = UnixMillis> {
    prop_oneof![9 => (0u64..6).prop_map(UnixMillis), 1 => Just(UnixMillis::MAX)]
}

fn arb_name() -> impl Strategy<Value = KeyName> {
    (0u8..6).prop_map(|byte| KeyName([byte; 16]))
}

fn arb_material() -> impl Strategy<Value = Material> {
    let ticket = (
        arb_name(),
        prop_oneof![Just(16usize), Just(32)],
        prop_oneof![Just(1usize), Just(16), Just(32), Just(64)],
        0u8..2,
        any::<bool>(),
    )
        .prop_map(|(name, aes, mac, byte, sha1)| {
            let digest = if sha1 { Digest::Sha1 } else { Digest::Sha256 };
            let (aes, mac) = (Secret::new(&vec![byte; aes]), Secret::new(&vec![byte; mac]));
            Material::Ticket(TicketKey::new(name, aes, mac, digest).expect("these lengths fit"))
        });
    let id = (arb_name(), 0u8..2)
        .prop_map(|(name, byte)| Material::SessionId(IdKey::new(name, &[byte; 16])));
    prop_oneof![4 => ticket, 1 => id]
}

pub(super) fn arb_record() -> impl Strategy<Value = Record> {
    let times = (arb_time(), arb_time(), arb_time(), arb_time());
    (arb_material(), any::<bool>(), times).prop_map(
        |(material, imported, (made, activates, retires, accept_until))| Record {
            material,
            imported,
            made,
            activates,
            retires,
            accept_until,
        },
    )
}

/// Rings with clashing names, revocations, watermarks, imported keys and extensions.
pub(super) fn arb_ring() -> impl Strategy<Value = Ring> {
    (
        prop::collection::vec(arb_record(), 0..10),
        prop::collection::btree_map(arb_name(), arb_time(), 0..2),
        prop_oneof![3 => Just(UnixMillis(0)), 1 => (0u64..4).prop_map(UnixMillis)],
        arb_time(),
    )
        .prop_map(|(records, revoked, keys_since, sessions_since)| {
            let mut ring = Ring { revoked, keys_since, sessions_since, ..Ring::default() };
            ring.adopt(records.into_iter().map(Arc::new));
            ring
        })
}

/// A ring with more different keys than a ring may hold, or exactly as many.
pub(super) fn full_ring(first: usize, count: usize) -> Ring {
    let mut ring = Ring::default();
    ring.adopt((first..first + count).map(|number| {
        let mut record = ticket(0, START + seconds(number as u64), START + HOUR * 5);
        let mut name = [0; 16];
        name[..8].copy_from_slice(&(number as u64).to_be_bytes());
        let secret = Secret::new(&[7; 64]);
        let aes = Secret::new(&[7; 32]);
        let key = TicketKey::new(KeyName(name), aes, secret, Digest::Sha256);
        record.material = Material::Ticket(key.expect("fits"));
        Arc::new(record)
    }));
    ring
}
