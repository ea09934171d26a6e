//! What is taken in from other nodes.

use proptest::prelude::*;

use super::support::*;
use crate::clock::UnixMillis;
use crate::ring::{CLOCKS_DIFFER, KeyName, MAX_RECORDS, Record, Ring, Schedule, is_believed};

proptest! {
    #[test]
    fn what_a_node_with_the_same_schedule_made_is_taken_in_whole(
        schedule in arb_schedule(),
        pauses in prop::collection::vec(0u64..50_000, 1..6),
        by_hand in any::<bool>(),
    ) {
        let mut theirs = Node::new(schedule, 7);
        let mut now = START;
        for pause in pauses {
            now = now + seconds(pause);
            theirs.keep_up(now);
        }
        if by_hand {
            theirs.rotate(now);
        }
        let (admitted, refused) = Ring::default().admit(&theirs.ring, &schedule, now);
        let expired = theirs.ring.records().filter(|record| record.accept_until <= now).count();
        prop_assert_eq!(refused, expired);
        prop_assert_eq!(name_in_use(&admitted, now), name_in_use(&theirs.ring, now));
    }
}

#[test]
fn keys_that_activate_further_ahead_than_anybody_makes_them_are_refused_and_counted() {
    let node = Node::started(HOURLY, 1, START);
    let horizon = START + HOURLY.rotate * (HOURLY.ahead + 1) + HOURLY.activation_delay;
    let made = |record: Record| Record { made: START, ..record };
    let last = made(ticket(1, horizon, UnixMillis::MAX));
    let beyond = made(ticket(2, UnixMillis(horizon.0 + 1), UnixMillis::MAX));
    let arrived = Ring::default().with([last.clone(), beyond.clone()]).unwrap();
    let (admitted, refused) = node.ring.admit(&arrived, &HOURLY, START);
    assert_eq!(refused, 1);
    assert!(admitted.knows(&last.name()) && !admitted.knows(&beyond.name()));
    assert_eq!(name_in_use(&admitted, START), name_in_use(&node.ring, START));
}

#[test]
fn expired_keys_are_not_taken_in_again() {
    let arrived = Ring::default().with([ticket(1, START - HOUR, START)]).unwrap();
    let (admitted, refused) = Ring::default().admit(&arrived, &HOURLY, START);
    assert_eq!((admitted, refused), (Ring::default(), 1));
    let (admitted, refused) = Ring::default().admit(&arrived, &HOURLY, UnixMillis(START.0 - 1));
    assert_eq!((admitted.records().count(), refused), (1, 0));
}

#[test]
fn refused_keys_that_the_node_has_itself_stay() {
    let own = Ring::default().with([ticket(1, START - HOUR, START)]).unwrap();
    let (admitted, _) = own.admit(&own, &HOURLY, START);
    assert_eq!(admitted, own);
}

#[test]
fn a_wrong_clock_elsewhere_revokes_nothing_here() {
    let node = Node::started(HOURLY, 1, START);
    let year = HOUR * 24 * 365;
    let wrong = Ring::default().revoke_all(START + year, false).flush_sessions(START + year);
    let (admitted, refused) = node.ring.admit(&wrong, &HOURLY, START);
    assert_eq!(admitted, node.ring, "watermarks of next year are not believed");
    assert_eq!(refused, 2);
    let right = Ring::default().revoke_all(START + seconds(5), false).flush_sessions(START);
    let (admitted, refused) = node.ring.admit(&right, &HOURLY, START);
    assert_eq!((admitted.records().count(), refused), (0, 0), "those of now are");
    assert_eq!(admitted.sessions_since(), START);
}

#[test]
fn what_does_not_fit_into_a_full_ring_is_refused_and_counted() {
    let ours = full_ring(0, MAX_RECORDS - 1);
    let arrived = full_ring(500, 3);
    let (admitted, refused) = ours.admit(&arrived, &HOURLY, START);
    assert_eq!((admitted.records().count(), refused), (MAX_RECORDS, 2));
    assert!(ours.records().all(|record| admitted.knows(&record.name())), "nobody pushes ours out");
}

#[test]
fn keys_that_are_over_leave_a_full_ring_for_those_that_arrive() {
    let ours = full_ring(0, MAX_RECORDS);
    let later = START + HOUR * 5;
    let mut arrived = Node::started(HOURLY, 1, later);
    let (admitted, refused) = ours.admit(&arrived.ring, &HOURLY, later);
    assert_eq!((admitted.records().count(), refused), (MAX_RECORDS, 0));
    assert!(arrived.ring.records().all(|record| admitted.knows(&record.name())));
    arrived.ring = admitted;
    arrived.maintain(later);
    assert!(arrived.ring.records().count() < 10, "and are forgotten at once where they are many");
}

/// What somebody writes who has an old secret, or a clock that is ahead: active now, made tomorrow.
fn made_at(name: u8, made: UnixMillis) -> Record {
    Record { made, ..ticket(name, START, START + HOUR * 24) }
}

#[test]
fn a_key_made_in_the_future_is_refused_and_counted_and_so_cannot_escape_a_revocation_of_all() {
    let mut node = Node::started(HOURLY, 1, START);
    let tomorrow = made_at(1, START + HOUR * 24);
    let ahead = made_at(2, START + CLOCKS_DIFFER);
    let arrived = Ring::default().with([tomorrow.clone(), ahead.clone()]).unwrap();
    let (admitted, refused) = node.ring.admit(&arrived, &HOURLY, START);
    assert_eq!(refused, 1);
    assert!(!admitted.knows(&tomorrow.name()));
    assert!(admitted.knows(&ahead.name()), "clocks may differ by so much");

    node.ring = admitted.revoke_all(START, false);
    node.maintain(START);
    let (again, refused) = node.ring.admit(&arrived, &HOURLY, START);
    assert_eq!(again, node.ring, "neither comes back");
    assert_eq!(refused, 1);
    let (again, _) = node.ring.admit(&arrived, &HOURLY, START + HOUR * 23);
    assert!(!again.knows(&ahead.name()));
}

#[test]
fn keys_made_after_a_revocation_by_a_clock_that_is_ahead_are_taken_in_with_it() {
    let mut theirs = Node::started(HOURLY, 1, START);
    theirs.ring = theirs.ring.revoke_all(START + HOUR * 2, false);
    theirs.maintain(START);
    let (admitted, refused) =
        Node::started(HOURLY, 2, START).ring.admit(&theirs.ring, &HOURLY, START);
    assert_eq!((&admitted, refused), (&theirs.ring, 0));
    let without: Vec<_> = theirs.ring.records().map(|record| Record::clone(record)).collect();
    let arrived = Ring::default().with(without).unwrap();
    let (alone, _) = Ring::default().admit(&arrived, &HOURLY, START);
    assert_eq!(alone.records().count(), 0, "but not without it");
}

#[test]
fn revoking_all_says_nothing_that_others_refuse_also_where_a_key_was_made_far_ahead() {
    let mut node = Node::started(HOURLY, 1, START);
    let year = START + HOUR * 24 * 365;
    let far = Record { activates: year, accept_until: year + HOUR, ..made_at(9, year) };
    node.ring = node.ring.with([far.clone()]).unwrap();
    let before = node.ring.clone();
    node.ring = node.ring.revoke_all(START, false);
    assert_eq!(node.ring.records().count(), 0);
    assert!(is_believed(node.ring.keys_since(), START));
    let (other, refused) = Ring::default().admit(&node.ring, &HOURLY, START);
    assert_eq!(refused, 0, "the watermark is believed");
    let (late, _) = other.admit(&before, &HOURLY, year);
    assert!(!late.knows(&KeyName([9; 16])), "also when its time has come");
    assert!(!is_believed(before.revoke_all(year, false).keys_since(), START));
}

#[test]
fn what_one_node_says_of_all_that_was_made_is_believed_by_nodes_with_any_schedule() {
    let latest = START + CLOCKS_DIFFER + seconds(60);
    assert!(is_believed(latest, START) && !is_believed(latest + seconds(1), START));
    for schedule in [HOURLY, Schedule { rotate: seconds(60), ..HOURLY }] {
        let said = Ring { keys_since: latest, sessions_since: latest, ..Ring::default() };
        let (ring, refused) = Ring::default().admit(&said, &schedule, START);
        assert_eq!((ring, refused), (said, 0));
    }
}

#[test]
fn keys_are_not_revoked_one_by_one_where_others_would_be_forgotten() {
    let mut ring = Node::started(HOURLY, 1, START).ring;
    for number in 0..u8::MAX {
        ring = ring.revoke(KeyName([number; 16]), START).unwrap();
    }
    assert!(ring.revoke_each(START, false).is_err());
}

#[test]
fn keys_revoked_one_by_one_stay_away_also_where_no_time_is_told() {
    let node = Node::started(HOURLY, 1, START);
    let before = node.ring.clone();
    let revoked = before.revoke_each(START, false).unwrap();
    assert_eq!((revoked.records().count(), revoked.keys_since()), (0, UnixMillis(0)));
    let (other, refused) = before.admit(&revoked, &HOURLY, START);
    assert_eq!((other.records().count(), refused), (0, 0), "a node that had them too");
    let (back, _) = revoked.admit(&before, &HOURLY, START);
    assert_eq!(back.records().count(), 0, "brought back");
}
