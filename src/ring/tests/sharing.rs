//! Nodes that share one copy of the ring without locks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::support::*;
use crate::clock::UnixMillis;
use crate::ring::sharing::{Exchange, Field};
use crate::ring::{KeyName, Record, Ring, Schedule, wire};

type Copied = BTreeMap<Field, Ring>;

/// What a transport does: write first, then delete.
fn write(copy: &mut Copied, exchange: &Exchange) {
    copy.extend(exchange.publish.iter().cloned());
    exchange.superfluous.iter().for_each(|field| drop(copy.remove(field)));
}

fn copy_of(ring: &Ring) -> Copied {
    ring.parts().collect()
}

proptest! {
    #[test]
    fn a_field_reads_back_as_it_was(name in any::<[u8; 16]>(), bytes in any::<Vec<u8>>()) {
        for field in [Field::Key(KeyName(name)), Field::Revocations] {
            prop_assert_eq!(Field::parse(&field.to_bytes()), Some(field));
        }
        if let Some(field) = Field::parse(&bytes) {
            prop_assert_eq!(field.to_bytes(), bytes);
        }
    }

    #[test]
    fn the_parts_of_a_ring_are_the_ring(ring in arb_ring()) {
        let mut forth = Ring::default();
        let mut back = Ring::default();
        let parts: Vec<_> = ring.parts().collect();
        for (field, part) in &parts {
            prop_assert_eq!(&wire::decode(&wire::encode(part)).unwrap(), part, "{:?}", field);
            forth = forth.merge(part);
        }
        parts.iter().rev().for_each(|(_, part)| back = back.merge(part));
        prop_assert_eq!(&forth, &ring);
        prop_assert_eq!(&back, &ring);
        prop_assert_eq!(copy_of(&ring).len(), parts.len(), "no field comes twice");
    }

    #[test]
    fn digests_are_equal_if_and_only_if_the_rings_are(a in arb_ring(), b in arb_ring()) {
        prop_assert_eq!(a.digest() == b.digest(), a == b);
        prop_assert_eq!(a.merge(&b).digest(), b.merge(&a).digest());
    }

    #[test]
    fn what_one_exchange_wrote_leaves_nothing_to_do_for_the_next(
        ring in arb_ring(),
        theirs in arb_ring(),
        now in 0u64..8,
    ) {
        let mut copy = copy_of(&theirs);
        let exchange = ring.exchange(&copy, &HOURLY, UnixMillis(now));
        write(&mut copy, &exchange);
        let again = exchange.ring.exchange(&copy, &HOURLY, UnixMillis(now));
        prop_assert_eq!(&again.ring, &exchange.ring);
        prop_assert!(again.publish.is_empty() && again.superfluous.is_empty(), "{:?}", again);
    }

    /// Copies are read, and acted on when others have written meanwhile; then everybody comes round again.
    #[test]
    fn nodes_that_exchange_in_any_order_end_with_one_ring_and_write_no_more(
        schedule in arb_schedule(),
        own in prop::collection::vec(arb_ring(), 3),
        start in 0u64..8,
        steps in prop::collection::vec((0usize..3, any::<bool>(), arb_pause()), 0..40),
    ) {
        let own: Vec<_> = own.into_iter().map(believable).collect();
        let mut fleet = Fleet::new(schedule, &own, UnixMillis(start));
        for (node, writes, pause) in steps {
            fleet.now = fleet.now + pause;
            fleet.step(node, writes);
        }
        let rounds: Vec<usize> = (0..6).map(|_| fleet.round()).collect();
        prop_assert_eq!(&rounds[3..], &[0, 0, 0], "{:?}", rounds);
        let first = fleet.nodes[0].ring.living(fleet.now);
        for node in &fleet.nodes {
            prop_assert_eq!(node.ring.living(fleet.now).digest(), first.digest());
            prop_assert_eq!(node.ring.encrypting(fleet.now).is_some(), true);
        }
        let copied = fleet.copy.values().fold(Ring::default(), |ring, part| ring.merge(part));
        prop_assert_eq!(copied.living(fleet.now), first, "and the copy has it all");
    }

    /// Some refuse what others made, for now. Still nobody writes for ever.
    #[test]
    fn nodes_with_different_schedules_come_to_rest(
        schedules in prop::collection::vec(arb_schedule(), 3),
        steps in prop::collection::vec((0usize..3, any::<bool>(), arb_pause()), 0..40),
    ) {
        let mut fleet = Fleet::new(schedules[0], &vec![Ring::default(); 3], START);
        for (node, schedule) in fleet.nodes.iter_mut().zip(schedules) {
            node.schedule = schedule;
        }
        for (node, writes, pause) in steps {
            fleet.now = fleet.now + pause;
            fleet.step(node, writes);
        }
        let rounds: Vec<usize> = (0..6).map(|_| fleet.round()).collect();
        prop_assert_eq!(&rounds[3..], &[0, 0, 0], "{:?}", rounds);
    }
}

fn arb_pause() -> impl Strategy<Value = Duration> {
    prop_oneof![(0u64..3).prop_map(Duration::from_millis), (0u64..2000).prop_map(seconds)]
}

/// The ring as nodes can have it: what has one name differs in its end alone, and nothing is of a far future.
fn believable(mut ring: Ring) -> Ring {
    let honest = |record: &Arc<Record>| {
        let number = record.name().0[0];
        let made = UnixMillis(number.into());
        let extended = seconds(record.accept_until.0 % 8 * 500);
        Arc::new(ticket(number, made, made + HOUR + extended))
    };
    let records: Vec<_> = ring.records().map(honest).collect();
    ring.adopt(records.into_iter());
    ring.sessions_since = UnixMillis(ring.sessions_since.0 % 8);
    // Revocations outlive what they revoke.
    ring.revoked.values_mut().for_each(|until| *until = UnixMillis(until.0 % 8) + HOUR * 24 * 8);
    ring
}

/// Nodes and the copy between them; each node has what it read last, which may be old.
struct Fleet {
    now: UnixMillis,
    nodes: Vec<Node>,
    read: Vec<Copied>,
    copy: Copied,
}

impl Fleet {
    fn new(schedule: Schedule, own: &[Ring], now: UnixMillis) -> Self {
        let nodes = own.iter().zip(1u64..).map(|(ring, number)| {
            let mut node = Node::new(schedule, number << 32);
            node.ring = ring.clone();
            node
        });
        let nodes: Vec<_> = nodes.collect();
        Fleet { now, read: vec![Copied::new(); nodes.len()], nodes, copy: Copied::new() }
    }

    fn step(&mut self, node: usize, writes: bool) {
        match writes {
            true => drop(self.write(node)),
            false => self.read(node),
        }
    }

    fn read(&mut self, node: usize) {
        self.nodes[node].keep_up(self.now);
        self.read[node] = self.copy.clone();
    }

    fn write(&mut self, node: usize) -> usize {
        let node_now = &mut self.nodes[node];
        let exchange = node_now.ring.exchange(&self.read[node], &node_now.schedule, self.now);
        node_now.ring = exchange.ring.clone();
        write(&mut self.copy, &exchange);
        exchange.publish.len() + exchange.superfluous.len()
    }

    /// Everybody keeps its schedule, exchanges, and exchanges again; how much was written the second time.
    fn round(&mut self) -> usize {
        for node in 0..self.nodes.len() {
            self.read(node);
            self.write(node);
        }
        (0..self.nodes.len())
            .map(|node| {
                self.read(node);
                self.write(node)
            })
            .sum()
    }
}

#[test]
fn a_node_that_starts_takes_the_fleets_key_and_publishes_none_of_its_own() {
    let fleet = Node::started(HOURLY, 1, START);
    let mut copy = Copied::new();
    let first = fleet.ring.exchange(&copy, &HOURLY, START);
    assert_eq!(first.publish.len(), fleet.ring.records().count());
    write(&mut copy, &first);
    let started = Ring::default().exchange(&copy, &HOURLY, START + seconds(5));
    assert_eq!(started.ring, fleet.ring);
    assert_eq!((started.publish.len(), started.refused), (0, 0));
    assert!(START + seconds(5) < started.ring.maintenance_due(&HOURLY, START + seconds(5)));
}

#[test]
fn a_field_with_the_key_of_another_name_is_refused_and_left_alone() {
    let node = Node::started(HOURLY, 1, START);
    let (right, other) = (ticket(1, START, START + HOUR), ticket(2, START, START + HOUR));
    let part = |record| Ring::default().with([record]).unwrap();
    let field = Field::Key(right.name());
    let both = part(right.clone()).merge(&part(other.clone()));
    let revoking = part(right.clone()).revoke_all(START - HOUR * 3, false);
    for content in [part(other), both, revoking, Ring::default()] {
        let copy = Copied::from([(field, content)]);
        let exchange = node.ring.exchange(&copy, &HOURLY, START);
        assert_eq!((exchange.ring, exchange.refused), (node.ring.clone(), 1));
        assert!(!exchange.superfluous.contains(&field));
        // Who has the right one writes it over what is there.
        let owner = part(right.clone()).exchange(&copy, &HOURLY, START);
        assert_eq!(owner.publish, [(field, part(right.clone()))]);
    }
    let copy = Copied::from([(Field::Revocations, part(right))]);
    assert_eq!(node.ring.exchange(&copy, &HOURLY, START).refused, 1);
}

#[test]
fn keys_that_are_over_for_long_are_superfluous_and_those_over_lately_stay_uncounted() {
    let at = |name, end| Ring::default().with([ticket(name, START - HOUR * 9, end)]).unwrap();
    let (long, lately) = (at(1, START - HOUR * 2), at(2, START - HOUR));
    let copy = copy_of(&long.merge(&lately));
    let exchange = Ring::default().exchange(&copy, &HOURLY, START);
    assert_eq!((exchange.ring, exchange.refused), (Ring::default(), 0));
    assert_eq!(exchange.superfluous, [Field::Key(KeyName([1; 16]))]);
    // A ring that has them still does not bring them back.
    let holder = long.merge(&lately).exchange(&Copied::new(), &HOURLY, START);
    assert!(holder.publish.is_empty());
}

#[test]
fn a_name_that_is_over_in_the_copy_and_living_here_is_written_and_not_deleted() {
    let over = Ring::default().with([ticket(1, START - HOUR * 9, START - HOUR * 3)]).unwrap();
    let living = Ring::default().with([ticket(1, START - HOUR * 9, START + HOUR)]).unwrap();
    let exchange = living.exchange(&copy_of(&over), &HOURLY, START);
    assert_eq!(exchange.publish, [(Field::Key(KeyName([1; 16])), living)]);
    assert!(exchange.superfluous.is_empty());
}

#[test]
fn a_node_that_was_alone_brings_the_key_that_it_used_and_encrypts_with_the_fleets() {
    let mut fleet = Node::started(HOURLY, 1, START);
    let alone = Node::started(HOURLY, 2, START + HOUR + seconds(60));
    fleet.keep_up(START + HOUR * 2);
    let now = START + HOUR + HOUR / 2;
    let mut copy = copy_of(&fleet.ring);
    let (theirs, own) = (fleet.encrypting(now), alone.encrypting(now));
    let plain = alone.ring.exchange(&copy, &HOURLY, now);
    assert_eq!(name_in_use(&plain.ring, now), Some(own), "would take over wherever it is heard of");
    assert!(plain.makes_keys_for_all(now));
    let exchange = alone.ring.rejoin(&copy, None, &HOURLY, now).exchange(&copy, &HOURLY, now);
    assert!(!exchange.makes_keys_for_all(now));
    write(&mut copy, &exchange);
    let heard = fleet.ring.exchange(&copy, &HOURLY, now);
    for ring in [&exchange.ring, &heard.ring] {
        assert_eq!(name_in_use(ring, now), Some(theirs));
        assert!(accepts(ring, own, UnixMillis((now + HOURLY.lifetime).0 - 1)));
        let more = ring.records().count() - fleet.ring.records().count();
        assert_eq!(more, 2, "the ticket key and the id key that it used");
    }
    assert!(heard.publish.is_empty());
    // What was shared before is nobody's own.
    let copy = copy_of(&fleet.ring);
    assert_eq!(alone.ring.rejoin(&copy, Some(now), &HOURLY, now), alone.ring);
    // A fleet that has lost its keys needs those of whoever has some.
    assert_eq!(alone.ring.rejoin(&Copied::new(), None, &HOURLY, now), alone.ring);
}

#[test]
fn what_is_revoked_leaves_the_copy_and_stays_away() {
    let node = Node::started(HOURLY, 1, START);
    let mut copy = copy_of(&node.ring);
    let name = node.encrypting(START);
    let revoking = node.ring.revoke(name, START).unwrap();
    let exchange = revoking.exchange(&copy, &HOURLY, START);
    assert_eq!(exchange.superfluous, [Field::Key(name)]);
    assert_eq!(exchange.publish.len(), 1);
    write(&mut copy, &exchange);
    let other = node.ring.exchange(&copy, &HOURLY, START);
    assert!(is_revoked(&other.ring, name, START));
    assert!(other.publish.is_empty());
    // Both watermarks and names come through one field, from two writers.
    let both = Ring::default().revoke_all(START - HOUR, false).exchange(&copy, &HOURLY, START);
    write(&mut copy, &both);
    assert!(is_revoked(&Ring::default().exchange(&copy, &HOURLY, START).ring, name, START));
    assert!(other.ring.exchange(&copy, &HOURLY, START).publish.is_empty());
}

#[test]
fn a_watermark_that_is_not_believed_keeps_no_key_out() {
    let node = Node::started(HOURLY, 1, START);
    let mut copy = copy_of(&node.ring);
    copy.extend(Ring::default().revoke_all(START + HOUR * 9000, false).parts());
    let exchange = Ring::default().exchange(&copy, &HOURLY, START);
    assert_eq!((exchange.ring, exchange.refused), (node.ring, 1));
    assert!(exchange.superfluous.is_empty() && exchange.publish.is_empty());
}

#[test]
fn a_revocation_that_is_over_leaves_with_the_next_one() {
    let ring = Ring::default().revoke(KeyName([1; 16]), START).unwrap();
    let later = START + HOUR * 24 * 9;
    let mut copy = copy_of(&ring);
    let idle = ring.exchange(&copy, &HOURLY, later);
    assert!(idle.publish.is_empty());
    let more = ring.revoke(KeyName([2; 16]), later).unwrap().exchange(&copy, &HOURLY, later);
    write(&mut copy, &more);
    let revoked: Vec<_> = copy[&Field::Revocations].revoked.keys().copied().collect();
    assert_eq!(revoked, [KeyName([2; 16])]);
}

proptest! {
    /// The one that makes keys early: nobody else ever finds the schedule short, even with a clock that is off.
    #[test]
    fn keys_made_early_by_one_are_taken_in_by_all_and_leave_nothing_to_make(
        schedule in arb_schedule(),
        apart in 0u64..=1000,
        travel in 0u64..=50,
        steps in 1usize..40,
    ) {
        let apart = schedule.activation_delay * u32::try_from(apart).unwrap() / 1000;
        let early = Schedule { early: schedule.early_lead(), ..schedule };
        prop_assume!(schedule.early_lead() > apart + seconds(travel + 1));
        let (mut maker, mut other) = (Node::started(early, 7, START), Node::new(schedule, 8));
        other.ring = maker.ring.clone();
        let mut now = START;
        for _ in 0..steps {
            let due = maker.ring.maintenance_due(&early, now);
            prop_assert!(due >= now, "made once");
            now = due + seconds(1);
            maker.maintain(now);
            let behind = maker.ring.exchange(&Copied::new(), &early, now);
            prop_assert!(behind.publish.len() >= 2);
            // A clock that is behind; one that is ahead, to which the news travels for a while.
            let (slow, fast) = (now - apart, now + apart + seconds(travel));
            for clock in [slow, fast] {
                prop_assert!(clock < other.ring.maintenance_due(&schedule, clock));
                let (_, refused) = other.ring.admit(&maker.ring.living(clock), &schedule, clock);
                prop_assert_eq!(refused, 0);
            }
            other.ring = other.ring.merge(&maker.ring);
        }
    }
}

#[test]
fn a_node_that_revoked_all_keys_while_it_was_alone_comes_back_with_the_keys_that_it_made_then() {
    let mut fleet = Node::started(HOURLY, 1, START);
    let mut alone = Node { ring: fleet.ring.clone(), ..Node::new(HOURLY, 2) };
    let now = START + seconds(600);
    fleet.keep_up(now);
    let copy = copy_of(&fleet.ring);
    alone.ring = alone.ring.revoke_all(now, false);
    alone.maintain(now);
    let later = now + seconds(60);
    let back = alone.ring.rejoin(&copy, Some(START), &HOURLY, later);
    assert_eq!(back, alone.ring, "the fleet's keys are no reason to drop them: they are revoked");
    let exchange = back.exchange(&copy, &HOURLY, later);
    assert_eq!(name_in_use(&exchange.ring, later), name_in_use(&alone.ring, later));
    assert_eq!(exchange.superfluous.len(), fleet.ring.records().count());
}
