//! Keys that every node computes for itself.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::support::*;
use crate::clock::UnixMillis;
use crate::ring::derive::derived;
use crate::ring::{KeyName, Material, Ring, Schedule};
use crate::secret::Secret;

fn ring_at(schedule: &Schedule, now: UnixMillis) -> Ring {
    let secret = Secret::new(&[5; 32]);
    derived(&Ring::default(), &secret, "realm", schedule, now).unwrap()
}

fn materials(ring: &Ring) -> BTreeMap<KeyName, Material> {
    ring.records().map(|record| (record.name(), record.material.clone())).collect()
}

proptest! {
    #[test]
    fn nodes_that_start_at_different_times_have_the_same_keys(
        schedule in arb_schedule(),
        first in 0u64..1_000_000,
        later in 0u64..100_000,
    ) {
        let now = START + seconds(first + later);
        let early = ring_at(&schedule, START + seconds(first));
        let early =
            derived(&early, &Secret::new(&[5; 32]), "realm", &schedule, now).unwrap();
        let late = ring_at(&schedule, now);
        prop_assert_eq!(name_in_use(&early, now), name_in_use(&late, now));
        let name = name_in_use(&late, now).unwrap();
        prop_assert!(accepts(&late, name, now));
        let (ours, theirs) = (materials(&early), materials(&late));
        for (name, material) in &theirs {
            prop_assert_eq!(Some(material), ours.get(name));
        }
        prop_assert_eq!(early.id_key(now), late.id_key(now));
    }

    #[test]
    fn every_ticket_that_lives_is_opened_by_a_node_that_starts_later(
        schedule in arb_schedule(),
        issued in 0u64..1_000_000,
        age in 0.0f64..1.0,
    ) {
        let issued = START + seconds(issued);
        let name = name_in_use(&ring_at(&schedule, issued), issued).unwrap();
        let now = issued + schedule.lifetime.mul_f64(age * 0.999);
        prop_assert!(accepts(&ring_at(&schedule, now), name, now));
    }

    #[test]
    fn the_keys_of_the_periods_ahead_are_known(schedule in arb_schedule(), at in 0u64..1_000_000) {
        let now = START + seconds(at);
        let ring = ring_at(&schedule, now);
        let in_time = now + schedule.rotate * schedule.ahead;
        prop_assert_eq!(
            name_in_use(&ring, in_time),
            name_in_use(&ring_at(&schedule, in_time), in_time)
        );
    }
}

#[test]
fn another_secret_realm_or_period_gives_other_keys() {
    let secret = Secret::new(&[5; 32]);
    let names = |ring: &Ring| ring.records().map(|record| record.name()).collect::<Vec<_>>();
    let one = derived(&Ring::default(), &secret, "realm", &HOURLY, START).unwrap();
    let half = Schedule { rotate: HOUR / 2, ..HOURLY };
    let tickets_differ = [
        derived(&Ring::default(), &Secret::new(&[6; 32]), "realm", &HOURLY, START).unwrap(),
        derived(&Ring::default(), &secret, "other", &HOURLY, START).unwrap(),
    ];
    for other in tickets_differ {
        assert!(names(&other).iter().all(|name| !names(&one).contains(name)));
    }
    let other = derived(&Ring::default(), &secret, "realm", &half, START).unwrap();
    assert!(tickets(&other).iter().all(|record| !one.knows(&record.name())));
}

#[test]
fn keys_are_known_values_so_that_releases_agree() {
    let ring = ring_at(&HOURLY, START);
    let name = name_in_use(&ring, START).unwrap();
    assert_eq!(name.to_string(), KNOWN_TICKET_KEY);
    assert_eq!(ring.id_key(START).unwrap().name().to_string(), KNOWN_ID_KEY);
}

/// Names by another implementation of HKDF, under the secret of 32 bytes 05 in "realm", at 2023-11-14T22:13:20Z with
/// hourly keys.
const KNOWN_TICKET_KEY: &str = "e1773fed973cb5dce8ee06f79cd2c673";
const KNOWN_ID_KEY: &str = "9ee80016b86ba7de0d348c470f1962c9";

#[test]
fn revoking_all_derived_keys_leaves_those_of_periods_to_come() {
    let secret = Secret::new(&[5; 32]);
    let before = ring_at(&HOURLY, START);
    let revoked = before.revoke_all(START, true);
    let after = derived(&revoked, &secret, "realm", &HOURLY, START).unwrap();
    let old = name_in_use(&before, START).unwrap();
    assert!(!after.knows(&old));
    let next = name_in_use(&before, START + HOUR).unwrap();
    assert_eq!(name_in_use(&after, START), Some(next), "the next one takes over early");
    assert_ne!(after.id_key(START), before.id_key(START));
    assert!(after.id_key(START).is_some());
}

#[test]
fn revoking_each_derived_key_leaves_those_of_periods_to_come_and_the_id_key() {
    let before = ring_at(&HOURLY, START);
    let old = name_in_use(&before, START).unwrap();
    let revoked = before.revoke_each(START, true).unwrap();
    let after = derived(&revoked, &Secret::new(&[5; 32]), "realm", &HOURLY, START).unwrap();
    assert!(!after.knows(&old));
    assert_eq!(name_in_use(&after, START), name_in_use(&before, START + HOUR));
    assert_eq!(after.id_key(START), before.id_key(START));
}

#[test]
fn keys_of_a_node_with_a_shorter_lifetime_are_accepted_for_ours() {
    let short = Schedule { lifetime: HOUR, ..HOURLY };
    let theirs = ring_at(&short, START);
    assert_eq!(theirs.maintenance_due(&HOURLY, START), UnixMillis(0), "there is something to do");
    let ours = derived(&theirs, &Secret::new(&[5; 32]), "realm", &HOURLY, START).unwrap();
    let (record, _) = ours.encrypting(START).unwrap();
    assert!(record.accept_until >= START + HOURLY.lifetime);
    assert!(ours.maintenance_due(&HOURLY, START) > START, "and then it is done");
}

#[test]
fn generated_keys_that_the_memory_still_holds_are_extended_too() {
    let generated = Node::started(Schedule { lifetime: HOUR, ..HOURLY }, 1, START);
    let ring = derived(&generated.ring, &Secret::new(&[5; 32]), "realm", &HOURLY, START).unwrap();
    assert!(ring.maintenance_due(&HOURLY, START) > START, "or it would be tried for ever");
}

#[test]
fn the_next_key_is_due_a_period_later() {
    let ring = ring_at(&HOURLY, START);
    let due = ring.maintenance_due(&HOURLY, START);
    assert!(START < due && due <= START + HOUR, "{due:?}");
}
