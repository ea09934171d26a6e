//! What is taken in from other nodes.

use proptest::prelude::*;

use super::support::*;
use crate::clock::UnixMillis;
use crate::ring::{MAX_RECORDS, Ring};

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
    let last = ticket(1, horizon, UnixMillis::MAX);
    let beyond = ticket(2, UnixMillis(horizon.0 + 1), UnixMillis::MAX);
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
    let wrong = Ring::default().revoke_all(START + year).flush_sessions(START + year);
    let (admitted, refused) = node.ring.admit(&wrong, &HOURLY, START);
    assert_eq!(admitted, node.ring, "watermarks of next year are not believed");
    assert_eq!(refused, 2);
    let right = Ring::default().revoke_all(START + seconds(5)).flush_sessions(START);
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
