//! When keys come, rule and go on one node.

use proptest::prelude::*;

use super::support::*;
use crate::clock::UnixMillis;
use crate::ring::{Age, MAX_RECORDS, Ring, Schedule, Verdict};

#[test]
fn an_empty_ring_has_no_key() {
    let ring = Ring::default();
    assert!(ring.encrypting(START).is_none());
    assert!(ring.id_key(START).is_none());
    assert_eq!(ring.maintenance_due(&HOURLY, START), UnixMillis(0));
}

#[test]
fn a_lone_node_uses_its_first_key_at_once() {
    let node = Node::started(HOURLY, 1, START);
    let first = node.encrypting(START);
    assert!(tickets(&node.ring)[0].activates > START, "not active yet");
    assert_eq!(node.encrypting(START + seconds(11)), first);
    let verdict = node.ring.verdict(&first, START);
    assert!(matches!(verdict, Verdict::Accepted(_, _, Age::Current)), "{verdict:?}");
}

#[test]
fn keys_are_made_ahead_and_take_over_when_their_predecessor_retires() {
    let mut node = Node::started(HOURLY, 1, START);
    let keys = tickets(&node.ring).to_vec();
    assert_eq!(keys[0].activates, START + HOURLY.activation_delay);
    let last = keys.last().unwrap();
    assert!(last.retires >= START + HOURLY.rotate * HOURLY.ahead);
    assert!(last.activates < START + HOURLY.rotate * HOURLY.ahead, "and not one more");
    for pair in keys.windows(2) {
        assert_eq!(pair[1].activates, pair[0].retires);
    }
    for key in &keys {
        assert_eq!(node.encrypting(key.activates), key.name());
        assert_eq!(node.encrypting(UnixMillis(key.retires.0 - 1)), key.name());
    }
    let census = node.ring.census(START + HOUR + seconds(11));
    assert_eq!((census.accepting, census.active, census.pending), (1, 1, keys.len() as u64 - 2));
    // A node cut off for three periods goes on with the keys that all have.
    node.maintain(START + HOUR * 3);
    assert!(keys.iter().all(|key| tickets(&node.ring).contains(key)));
}

#[test]
fn in_the_millisecond_in_which_a_key_is_due_it_is_made() {
    let mut node = Node::started(HOURLY, 1, START);
    let due = node.ring.maintenance_due(&HOURLY, START);
    let before = tickets(&node.ring).len();
    node.maintain(due);
    assert_eq!(tickets(&node.ring).len(), before + 1);
    assert!(node.ring.maintenance_due(&HOURLY, due) > due);
}

#[test]
fn a_replaced_key_is_older_and_still_accepted_until_its_last_ticket_ends() {
    let mut node = Node::started(HOURLY, 1, START);
    let first = node.encrypting(START);
    let replaced = tickets(&node.ring)[0].retires;
    for now in [replaced, replaced + HOUR * 6, UnixMillis((replaced + HOURLY.lifetime).0 - 1)] {
        node.keep_up(now);
        let verdict = node.ring.verdict(&first, now);
        assert!(matches!(verdict, Verdict::Accepted(_, _, Age::Older)), "{verdict:?}");
    }
    let end = replaced + HOURLY.lifetime;
    node.keep_up(end);
    assert!(matches!(node.ring.verdict(&first, end), Verdict::Expired));
    node.keep_up(end + HOUR * 3);
    assert!(matches!(node.ring.verdict(&first, end + HOUR * 3), Verdict::Unknown), "forgotten");
}

#[test]
fn a_key_made_by_hand_takes_over_after_the_delay_and_not_before() {
    let mut node = Node::started(HOURLY, 1, START);
    let now = START + seconds(600);
    let before = node.encrypting(now);
    node.rotate(now);
    assert_eq!(node.encrypting(now), before);
    assert_eq!(node.encrypting(now + seconds(9)), before);
    let after = node.encrypting(now + seconds(10));
    assert_ne!(after, before);
    assert!(accepts(&node.ring, after, now), "known before it is used");
    assert!(accepts(&node.ring, before, now + seconds(10)));
    assert_ne!(node.encrypting(START + seconds(3610)), after, "the schedule goes on");
}

#[test]
fn more_than_a_hundred_rotations_within_a_lifetime_lose_no_ticket() {
    let schedule = Schedule { rotate: seconds(240), ..HOURLY };
    let mut node = Node::started(schedule, 1, START);
    let mut issued = Vec::new();
    let mut names = std::collections::BTreeSet::new();
    for minute in 0..60 * 24 {
        let now = START + seconds(60 * minute);
        node.keep_up(now);
        let name = node.encrypting(now);
        names.insert(name);
        issued.push((name, now));
        issued.retain(|(_, at)| now < *at + schedule.lifetime);
        for (name, at) in &issued {
            assert!(accepts(&node.ring, *name, now), "{name} of {at:?} at {now:?}");
        }
        assert!(node.ring.records().count() < MAX_RECORDS);
    }
    assert!(names.len() >= 350, "{} keys in a day", names.len());
}

#[test]
fn rotation_by_hand_a_hundred_times_keeps_every_key_accepted() {
    let mut node = Node::started(HOURLY, 1, START);
    let mut names = vec![node.encrypting(START)];
    for minute in 1..=120 {
        let now = START + seconds(60 * minute);
        node.rotate(now);
        names.push(node.encrypting(now + seconds(10)));
    }
    names.dedup();
    assert_eq!(names.len(), 121);
    assert!(names.iter().all(|name| accepts(&node.ring, *name, START + HOUR * 12)));
}

#[test]
fn an_imported_key_does_not_stop_the_schedule() {
    let mut node = Node::started(HOURLY, 1, START);
    let mut imported = ticket(9, START + seconds(60), START + HOUR * 400);
    (imported.imported, imported.retires) = (true, START + HOUR * 300);
    node.ring = node.ring.with([imported.clone()]).unwrap();
    assert_eq!(node.encrypting(START + seconds(60)), imported.name());
    for hour in 1..40 {
        let now = START + HOUR * hour + seconds(30);
        node.keep_up(now);
        let (record, _) = node.ring.encrypting(now).expect("has keys");
        assert!(!record.imported, "the next scheduled key takes over");
        assert!(now.since(record.activates) < HOUR, "and then the next");
    }
}

#[test]
fn a_full_ring_refuses_more_keys_and_goes_on_with_those_it_has() {
    let full = full_ring(0, MAX_RECORDS);
    assert!(full.with([ticket(9, START, START + HOUR)]).is_err());
    let mut node = Node { ring: full.clone(), schedule: HOURLY, seed: 1 };
    node.keep_up(START + HOUR);
    assert_eq!(node.ring.records().count(), MAX_RECORDS);
    assert!(node.ring.encrypting(START + HOUR).is_some());
    assert!(full.rotate(&HOURLY, START, &mut random_from(&mut 3)).is_err());
    // Old keys expire, and there is room again.
    node.keep_up(START + HOUR * 24);
    let name = node.encrypting(START + HOUR * 24);
    assert!(!full.knows(&name) && node.ring.records().count() < MAX_RECORDS);
}

#[test]
fn keys_from_files_take_the_place_of_generated_ones_and_the_other_way_round() {
    let endless = |number, activates| {
        let mut record = ticket(number, UnixMillis(activates), UnixMillis::MAX);
        (record.imported, record.retires) = (true, UnixMillis::MAX);
        record
    };
    let (opens, encrypts) = (endless(1, 0), endless(2, 1));
    let mut node = Node::started(HOURLY, 1, START);
    node.ring = node.ring.with_imported([opens.clone(), encrypts.clone()]).unwrap();
    node.schedule.makes_tickets = false;
    node.keep_up(START + seconds(20));
    assert_eq!(node.encrypting(START + seconds(20)), encrypts.name());
    assert_eq!(node.encrypting(START + HOUR * 10), encrypts.name());
    assert!(node.ring.id_key(START).is_some(), "session ids have a key of their own");
    node.schedule.makes_tickets = true;
    node.keep_up(START + HOUR);
    assert!(!node.ring.knows(&opens.name()), "would be accepted for ever");
    assert_ne!(node.encrypting(START + HOUR), encrypts.name());
}

proptest! {
    #[test]
    fn no_key_encrypts_sooner_than_the_delay_after_its_making_unless_there_is_no_other(
        schedule in arb_schedule(),
        times in prop::collection::vec((0u64..20_000, any::<bool>()), 1..12),
    ) {
        let mut node = Node::new(schedule, 7);
        let mut now = START;
        for (pause, by_hand) in times {
            now = now + seconds(pause);
            if by_hand { node.rotate(now) } else { node.keep_up(now) }
            for record in node.ring.records() {
                prop_assert!(record.activates >= record.made + schedule.activation_delay);
            }
        }
    }

    #[test]
    fn maintenance_is_done_once_and_not_due_before_there_is_something_to_do(
        schedule in arb_schedule(),
        pauses in prop::collection::vec(0u64..50_000, 1..12),
    ) {
        let mut node = Node::new(schedule, 7);
        let mut now = START;
        for pause in pauses {
            now = now + seconds(pause);
            node.keep_up(now);
            let due = node.ring.maintenance_due(&schedule, now);
            let covered = now + schedule.rotate * schedule.ahead;
            let end = tickets(&node.ring).iter().map(|record| record.retires).max().unwrap();
            prop_assert!(end >= covered, "keys for every period ahead");
            prop_assert!(due >= now, "not due again at once: {due:?} at {now:?}");
            let mut again = node.clone();
            again.maintain(now);
            again.maintain(now);
            prop_assert_eq!(
                again.ring.maintain(&schedule, now, &mut |_| panic!("makes no key twice")),
                None
            );
            let mut later = node.clone();
            later.maintain(UnixMillis(due.0 + 1));
            prop_assert!(later.ring != node.ring, "nothing to do when due");
        }
    }

    #[test]
    fn after_any_idle_time_the_encrypting_key_is_accepted_for_a_whole_lifetime(
        schedule in arb_schedule(),
        pauses in prop::collection::vec(
            prop_oneof![0u64..10_000, 10_000u64..1_000_000, 1_000_000u64..100_000_000],
            1..8,
        ),
    ) {
        let mut node = Node::new(schedule, 7);
        let mut now = START;
        for pause in pauses {
            now = now + seconds(pause);
            node.keep_up(now);
            let (record, _) = node.ring.encrypting(now).expect("has keys");
            prop_assert!(record.accept_until >= now + schedule.lifetime);
            prop_assert!(node.ring.id_key(now).is_some());
            prop_assert!(node.ring.records().count() < 120, "old keys are forgotten");
        }
    }

    #[test]
    fn a_node_that_is_never_idle_accepts_no_key_past_its_retirement_and_a_lifetime(
        schedule in arb_schedule(),
        steps in 1usize..60,
    ) {
        let schedule = Schedule { activation_delay: seconds(10), ..schedule };
        let mut node = Node::new(schedule, 7);
        for step in 0..steps {
            node.keep_up(START + schedule.rotate / 2 * step as u32);
            for record in tickets(&node.ring) {
                prop_assert_eq!(record.accept_until, record.retires + schedule.lifetime);
            }
        }
    }
}
