//! What is refused, and stays refused wherever it turns up.

use std::time::Duration;

use super::support::*;
use crate::clock::UnixMillis;
use crate::ring::{KeyName, MAX_REVOCATIONS, Ring};

const NOW: UnixMillis = UnixMillis(START.0 + 2 * 3_600_000);

fn two_hours_old() -> Node {
    let mut node = Node::started(HOURLY, 1, START);
    node.keep_up(NOW);
    node
}

fn revoke(node: &mut Node, name: KeyName, now: UnixMillis) {
    node.ring = node.ring.revoke(name, now).unwrap();
    node.maintain(now);
}

#[test]
fn a_revoked_key_is_refused_whichever_it_is_and_the_others_are_not() {
    let fresh = two_hours_old();
    let (old, active, pending) = {
        let keys = tickets(&fresh.ring);
        (keys[0].name(), fresh.encrypting(NOW), keys.last().unwrap().name())
    };
    assert!(old != active && active != pending);
    for name in [old, active, pending] {
        let mut node = fresh.clone();
        revoke(&mut node, name, NOW);
        assert!(is_revoked(&node.ring, name, NOW));
        for record in tickets(&fresh.ring).iter().filter(|record| record.name() != name) {
            assert!(accepts(&node.ring, record.name(), NOW));
        }
        assert_ne!(node.encrypting(NOW), name);
        assert_eq!(node.ring.census(NOW).revoked, 1);
        let later = node.ring.merge(&fresh.ring);
        assert!(is_revoked(&later, name, NOW), "also when it turns up again");
        assert!(is_revoked(&fresh.ring.merge(&node.ring), name, NOW), "on every node");
    }
}

#[test]
fn the_key_that_encrypts_after_a_revocation_is_accepted_for_a_lifetime() {
    let mut node = two_hours_old();
    let mut other = node.clone();
    let active = node.encrypting(NOW);
    revoke(&mut node, active, NOW);
    other.ring = other.ring.merge(&node.ring);
    // The other node only hears of it, and uses the ring as the engine does.
    other.keep_up(NOW);
    for node in [node, other] {
        let (record, _) = node.ring.encrypting(NOW).expect("another one");
        assert!(record.accept_until >= NOW + HOURLY.lifetime);
    }
}

#[test]
fn a_revocation_outlives_the_key_and_is_then_forgotten() {
    let mut node = two_hours_old();
    let name = node.encrypting(NOW);
    let end = tickets(&node.ring).iter().find(|record| record.name() == name).unwrap().accept_until;
    revoke(&mut node, name, NOW);
    let seven_days = Duration::from_secs(7 * 24 * 3600);
    node.maintain(end + seven_days);
    assert!(is_revoked(&node.ring, name, end), "longer than another node may have extended it");
    node.maintain(end + seven_days * 2);
    assert_eq!(node.ring.census(NOW).revoked, 0, "then its place is free");
}

#[test]
fn a_revoked_key_without_an_end_stays_revoked_for_good() {
    let endless = Ring::default().with([ticket(1, START, UnixMillis::MAX)]).unwrap();
    let mut node = Node { ring: endless.clone(), schedule: HOURLY, seed: 1 };
    revoke(&mut node, KeyName([1; 16]), NOW);
    node.maintain(NOW + Duration::from_secs(400 * 24 * 3600));
    let again = node.ring.with(endless.records().map(|record| record.as_ref().clone())).unwrap();
    assert!(is_revoked(&again, KeyName([1; 16]), NOW));
}

#[test]
fn no_more_single_keys_are_revoked_than_a_ring_can_remember() {
    let mut ring = Ring::default();
    for number in 0..MAX_REVOCATIONS {
        ring = ring.revoke(KeyName((number as u128).to_be_bytes()), NOW).unwrap();
    }
    assert!(ring.revoke(KeyName([9; 16]), NOW).is_err());
    assert!(ring.revoke(KeyName(7u128.to_be_bytes()), NOW).is_ok(), "again is no more");
}

#[test]
fn revoking_all_refuses_every_key_also_those_that_turn_up_later() {
    let mut node = two_hours_old();
    let before = node.ring.clone();
    let unseen = Node::started(HOURLY, 99, UnixMillis(NOW.0 - 1)).ring;
    node.ring = node.ring.revoke_all(NOW, false);
    node.maintain(NOW);
    let refuses_all = |ring: &Ring| {
        let mut old = before.records().chain(unseen.records());
        old.all(|record| !ring.knows(&record.name()))
    };
    assert!(refuses_all(&node.ring));
    let later = node.ring.merge(&before).merge(&unseen);
    assert!(refuses_all(&later));
    assert_eq!(later, node.ring);
    let elsewhere = before.merge(&node.ring);
    assert!(refuses_all(&elsewhere));
    let name = node.encrypting(NOW);
    assert_eq!(name_in_use(&elsewhere, NOW), Some(name), "new keys take their place");
    assert!(node.ring.id_key(NOW).is_some());
}

#[test]
fn revoking_all_in_the_millisecond_of_the_making_refuses_it_too() {
    let mut node = Node::started(HOURLY, 1, NOW);
    let made = node.ring.clone();
    node.ring = node.ring.revoke_all(NOW, false);
    node.maintain(NOW);
    assert!(made.records().all(|record| !node.ring.knows(&record.name())));
    let first = node.ring.clone();
    node.ring = node.ring.revoke_all(NOW, false);
    node.maintain(NOW);
    assert!(first.records().all(|record| !node.ring.knows(&record.name())), "and once more");
    assert!(node.ring.encrypting(NOW).is_some() && node.ring.id_key(NOW).is_some());
}

#[test]
fn revoking_all_covers_keys_made_by_a_clock_that_was_fast() {
    let mut node = Node::started(HOURLY, 1, NOW + HOUR);
    let fast = node.ring.clone();
    node.ring = node.ring.revoke_all(NOW, false);
    node.maintain(NOW);
    assert!(fast.records().all(|record| !node.ring.knows(&record.name())));
    assert!(node.ring.encrypting(NOW).is_some(), "and there are new ones");
}

#[test]
fn a_clock_put_right_after_everything_was_revoked_still_gets_keys() {
    let mut node = two_hours_old();
    node.ring = node.ring.revoke_all(NOW + HOUR, false);
    node.keep_up(NOW);
    assert!(node.ring.encrypting(NOW).is_some());
    assert!(node.ring.id_key(NOW).is_some());
    node.rotate(NOW + seconds(60));
    let rotated = node.encrypting(NOW + seconds(70));
    assert!(accepts(&node.ring, rotated, NOW + seconds(70)));
}

#[test]
fn flushing_moves_the_sessions_watermark_forward_only() {
    let ring = Ring::default().flush_sessions(NOW).flush_sessions(START);
    assert!(ring.sessions_since() >= NOW);
    assert_eq!(Ring::default().merge(&ring).sessions_since(), ring.sessions_since());
}

#[test]
fn a_session_made_after_a_flush_counts_as_later_whatever_clock_the_flush_had_until_the_next_one() {
    for clock in [NOW, NOW + Duration::from_millis(1), NOW + HOUR / 2] {
        let flushed = Ring::default().flush_sessions(clock);
        let dated = |ring: &Ring| UnixMillis::from_secs(ring.authenticating(NOW).secs());
        let made = dated(&flushed);
        assert!(made >= flushed.sessions_since(), "it resumes");
        let again = flushed.flush_sessions(NOW);
        assert!(made < again.sessions_since(), "the next flush covers it");
        assert!(dated(&again) >= again.sessions_since());
    }
    assert_eq!(Ring::default().flush_sessions(START).authenticating(NOW), NOW);
}
