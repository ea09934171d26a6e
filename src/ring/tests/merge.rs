//! Merging is a union: order, repetition and route do not matter.

use std::sync::Arc;

use proptest::prelude::*;

use super::support::{arb_ring, full_ring, name_in_use};
use crate::clock::UnixMillis;
use crate::ring::{IdKey, KeyName, MAX_RECORDS, MAX_REVOCATIONS, Record, Ring, wire};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases * 4))]

    #[test]
    fn the_order_of_two_rings_does_not_matter(a in arb_ring(), b in arb_ring()) {
        prop_assert_eq!(a.merge(&b), b.merge(&a));
    }

    #[test]
    fn the_grouping_of_three_rings_does_not_matter(
        a in arb_ring(),
        b in arb_ring(),
        c in arb_ring(),
    ) {
        prop_assert_eq!(a.merge(&b).merge(&c), a.merge(&b.merge(&c)));
    }

    #[test]
    fn a_ring_that_arrives_again_changes_nothing(a in arb_ring(), b in arb_ring()) {
        prop_assert_eq!(a.merge(&a), a.clone());
        let merged = a.merge(&b);
        prop_assert_eq!(merged.merge(&b), merged.clone());
        prop_assert_eq!(merged.merge(&a), merged);
    }

    #[test]
    fn a_merged_ring_has_every_key_that_neither_side_refuses(a in arb_ring(), b in arb_ring()) {
        let merged = a.merge(&b);
        let since = a.keys_since.max(b.keys_since);
        for record in a.records().chain(b.records()) {
            let name = record.name();
            if a.revoked.contains_key(&name) || b.revoked.contains_key(&name) {
                prop_assert!(!merged.knows(&name), "{name} is revoked");
            } else if record.made >= since {
                prop_assert!(merged.knows(&name), "{name} is lost");
            }
        }
        prop_assert!(merged.records().all(|record| record.made >= since));
        prop_assert_eq!(merged.sessions_since(), a.sessions_since.max(b.sessions_since));
    }

    #[test]
    fn the_longest_extension_of_a_key_survives(a in arb_ring(), extra in 0u64..5) {
        let mut longer = a.clone();
        for record in longer.tickets.iter_mut().chain(&mut longer.ids) {
            let mut extended = Record::clone(record);
            extended.accept_until = UnixMillis(extended.accept_until.0.saturating_add(extra));
            *record = extended.into();
        }
        prop_assert_eq!(a.merge(&longer), longer.clone());
        prop_assert_eq!(longer.merge(&a), longer);
    }

    #[test]
    fn which_key_encrypts_depends_on_the_ring_and_the_time_alone(
        a in arb_ring(),
        b in arb_ring(),
        now in 0u64..8,
    ) {
        let now = UnixMillis(now);
        let (ours, theirs) = (a.merge(&b), b.merge(&a).merge(&b));
        let copied = wire::decode(&wire::encode(&ours)).expect("reads back");
        let expected = expected_in_use(&ours, now);
        for ring in [&ours, &theirs, &copied] {
            prop_assert_eq!(name_in_use(ring, now), expected);
            let id = ring.id_key(now).map(IdKey::name);
            prop_assert_eq!(id, ours.id_key(now).map(IdKey::name));
        }
    }
}

/// The rule of the design, written down once more: the greatest of those that are active and not over, else the least
/// of all.
fn expected_in_use(ring: &Ring, now: UnixMillis) -> Option<KeyName> {
    let of = |record: &Arc<Record>| (record.activates, record.name());
    let active = ring.tickets.iter().filter(|record| record.activates <= now);
    let active = active.filter(|record| now < record.accept_until).map(of).max();
    active.or_else(|| ring.tickets.iter().map(of).min()).map(|(_, name)| name)
}

#[test]
fn a_merged_ring_is_never_larger_than_a_ring_may_be() {
    let (a, b) = (full_ring(0, MAX_RECORDS), full_ring(1000, MAX_RECORDS));
    for merged in [a.merge(&b), b.merge(&a), Ring::default().merge(&a)] {
        assert_eq!(merged.records().count(), MAX_RECORDS);
        assert_eq!(wire::decode(&wire::encode(&merged)), Some(merged));
    }
    assert_eq!(a.merge(&b), b.merge(&a));
}

#[test]
fn merged_revocations_are_never_more_than_a_ring_may_hold() {
    let revoking = |first: usize| {
        let mut ring = Ring::default();
        for number in first..first + MAX_REVOCATIONS {
            let mut name = [0; 16];
            name[..8].copy_from_slice(&(number as u64).to_be_bytes());
            ring.revoked.insert(KeyName(name), UnixMillis(number as u64));
        }
        ring
    };
    let (a, b) = (revoking(0), revoking(1000));
    let merged = a.merge(&b);
    assert_eq!(merged, b.merge(&a));
    assert_eq!(merged, b, "those that must be remembered longest stay");
    assert_eq!(wire::decode(&wire::encode(&merged)), Some(merged));
}
