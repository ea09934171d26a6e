//! Nodes with different schedules and wandering clocks that exchange rings when chance has it.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::support::*;
use crate::clock::UnixMillis;
use crate::ring::{KeyName, Material, Ring, Schedule};

/// Something that happens to one node or between two.
#[derive(Clone, Debug)]
enum Event {
    /// Time passes for all.
    Pass(Duration),
    /// A clock goes wrong by an hour, or is put right.
    Step(usize),
    /// The second takes in what the first knows.
    Gossip(usize, usize),
    /// A client gets a ticket.
    Issue(usize),
    Rotate(usize),
    /// The encrypting key is revoked.
    RevokeOne(usize),
    RevokeAll(usize),
}

/// A ticket that a client keeps.
#[derive(Debug)]
struct Ticket {
    key: KeyName,
    /// Until when its key was accepted where it was issued.
    accept_until: UnixMillis,
    /// When it was issued, and when its session ends, by the clock of its issuer.
    ends: UnixMillis,
}

#[derive(Debug)]
struct World {
    time: UnixMillis,
    nodes: Vec<Node>,
    /// Whether each clock is wrong now; the odd ones go ahead, the even ones back.
    wrong: Vec<bool>,
    /// For each node, the newest extension that it has seen of each key.
    seen: Vec<BTreeMap<KeyName, UnixMillis>>,
    /// The longest that anybody may accept a key.
    longest: BTreeMap<KeyName, UnixMillis>,
    issued: Vec<Ticket>,
}

impl World {
    fn new(schedules: Vec<Schedule>, seed: u64) -> Self {
        let count = schedules.len();
        let nodes = schedules.into_iter().zip(0u64..);
        World {
            time: START,
            nodes: nodes
                .map(|(schedule, number)| {
                    Node::new(schedule, seed ^ number.wrapping_mul(0x1234_5677))
                })
                .collect(),
            wrong: vec![false; count],
            seen: vec![BTreeMap::new(); count],
            longest: BTreeMap::new(),
            issued: Vec::new(),
        }
    }

    fn clock(&self, node: usize) -> UnixMillis {
        match (self.wrong[node], node % 2) {
            (false, _) => self.time,
            (true, 0) => self.time - HOUR,
            (true, _) => self.time + HOUR,
        }
    }

    fn happen(&mut self, event: &Event) {
        let count = self.nodes.len();
        match *event {
            Event::Pass(duration) => self.time = self.time + duration,
            Event::Step(node) => self.wrong[node % count] ^= true,
            Event::Gossip(from, to) => self.gossip(from % count, to % count),
            Event::Issue(node) => self.issue(node % count),
            Event::Rotate(node) => self.change(node % count, |node, now| node.rotate(now)),
            Event::RevokeOne(node) => self.change(node % count, |node, now| {
                let name = node.encrypting(now);
                node.ring = node.ring.revoke(name, now).expect("few are revoked");
                node.maintain(now);
            }),
            Event::RevokeAll(node) => self.change(node % count, |node, now| {
                node.ring = node.ring.revoke_all(now, false);
                node.maintain(now);
            }),
        }
        self.check_tickets();
        self.check_ends();
    }

    fn change(&mut self, node: usize, change: impl FnOnce(&mut Node, UnixMillis)) {
        let now = self.clock(node);
        self.nodes[node].keep_up(now);
        self.note(node);
        change(&mut self.nodes[node], now);
        self.note(node);
    }

    fn gossip(&mut self, from: usize, to: usize) {
        let (now, arrived) = (self.clock(to), self.nodes[from].ring.clone());
        let receiver = &mut self.nodes[to];
        receiver.ring = receiver.ring.admit(&arrived, &receiver.schedule, now).0;
        self.note(to);
    }

    fn issue(&mut self, node: usize) {
        self.change(node, |_, _| ());
        let (now, issuer) = (self.clock(node), &self.nodes[node]);
        let (record, _) = issuer.ring.encrypting(now).expect("a node has keys");
        let ends = now + issuer.schedule.lifetime;
        assert!(
            record.accept_until >= ends,
            "node {node} issues at {now:?} with a key that ends at {:?}",
            record.accept_until
        );
        self.issued.push(Ticket { key: record.name(), accept_until: record.accept_until, ends });
    }

    /// Remembers what a node has in its ring.
    fn note(&mut self, node: usize) {
        let longest_lifetime =
            self.nodes.iter().map(|node| node.schedule.lifetime).max().expect("has nodes");
        let (now, keys) = (self.clock(node), tickets(&self.nodes[node].ring));
        let successors = keys.iter().skip(1).map(|record| record.activates).chain([now]);
        for (record, successor) in keys.iter().zip(successors) {
            let seen = self.seen[node].entry(record.name()).or_default();
            *seen = (*seen).max(record.accept_until);
            let stops_encrypting = record.retires.max(successor);
            let longest = self.longest.entry(record.name()).or_default();
            *longest = (*longest).max(stops_encrypting + longest_lifetime);
        }
    }

    /// A ticket whose session has not ended is accepted wherever the newest extension of its key was seen.
    fn check_tickets(&self) {
        for (number, node) in self.nodes.iter().enumerate() {
            let now = self.clock(number);
            for ticket in self.issued.iter().filter(|ticket| now < ticket.ends) {
                let seen = self.seen[number].get(&ticket.key);
                if seen.is_some_and(|until| *until >= ticket.accept_until)
                    && !self.is_refused(&node.ring, ticket.key)
                {
                    assert!(accepts(&node.ring, ticket.key, now), "node {number} lost {ticket:?}");
                }
            }
        }
    }

    /// Whether the ring revokes the key, or everything made when the key was.
    fn is_refused(&self, ring: &Ring, key: KeyName) -> bool {
        let rings = self.nodes.iter().map(|node| &node.ring);
        let made = rings.flat_map(Ring::records).find(|record| record.name() == key);
        ring.revoked.contains_key(&key) || made.is_none_or(|record| record.made < ring.keys_since)
    }

    /// No key is accepted for longer than the longest lifetime after it stopped encrypting.
    fn check_ends(&self) {
        for record in self.nodes.iter().flat_map(|node| tickets(&node.ring)) {
            assert!(record.accept_until <= self.longest[&record.name()], "{record:?} lives on");
        }
    }

    /// After everybody heard everybody, all have one ring and one answer.
    fn check_agreement(&mut self) {
        for _ in 0..2 {
            for from in 0..self.nodes.len() {
                for to in 0..self.nodes.len() {
                    self.nodes[to].ring = self.nodes[to].ring.merge(&self.nodes[from].ring);
                }
            }
        }
        let first = &self.nodes[0].ring;
        assert!(first.records().count() <= crate::ring::MAX_RECORDS);
        for node in &self.nodes {
            assert_eq!(node.ring, *first);
            for minutes in 0..600 {
                let now = START + seconds(60 * minutes);
                assert_eq!(name_in_use(&node.ring, now), name_in_use(first, now));
            }
        }
    }
}

fn arb_schedules() -> impl Strategy<Value = Vec<Schedule>> {
    let schedule = (900u64..7200, 1u32..6, 0u64..120, 1800u64..20_000).prop_map(
        |(rotate, ahead, delay, lifetime)| Schedule {
            makes_tickets: true,
            rotate: seconds(rotate),
            ahead,
            activation_delay: seconds(delay),
            lifetime: seconds(lifetime),
            early: Duration::ZERO,
        },
    );
    prop::collection::vec(schedule, 2..=5)
}

fn arb_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        20 => (1u64..3000).prop_map(|time| Event::Pass(seconds(time))),
        1 => (10_000u64..40_000).prop_map(|time| Event::Pass(seconds(time))),
        4 => any::<usize>().prop_map(Event::Step),
        20 => any::<(usize, usize)>().prop_map(|(from, to)| Event::Gossip(from, to)),
        30 => any::<usize>().prop_map(Event::Issue),
        2 => any::<usize>().prop_map(Event::Rotate),
        1 => any::<usize>().prop_map(Event::RevokeOne),
        1 => any::<usize>().prop_map(Event::RevokeAll),
    ]
}

proptest! {
    #[test]
    fn no_ticket_is_lost_and_no_key_lives_on_whatever_happens(
        schedules in arb_schedules(),
        seed in any::<u64>(),
        events in prop::collection::vec(arb_event(), 10..120),
    ) {
        let mut world = World::new(schedules, seed);
        for event in &events {
            world.happen(event);
        }
        world.check_agreement();
    }

    /// The strict form, for nodes that are never idle and whose clocks are right.
    #[test]
    fn nodes_that_gossip_each_period_use_one_key_and_open_each_others_tickets(
        schedule in arb_schedules(),
        seed in any::<u64>(),
    ) {
        let schedule = Schedule { activation_delay: seconds(30), ..schedule[0] };
        let mut world = World::new(vec![schedule; 3], seed);
        for node in 0..3 {
            world.happen(&Event::Issue(node));
        }
        for _ in 0..30 {
            for (from, to) in [(0, 1), (1, 2), (2, 0), (0, 1), (1, 2)] {
                world.happen(&Event::Gossip(from, to));
            }
            world.happen(&Event::Pass(schedule.rotate / 2));
            let names: Vec<_> =
                (0..3).map(|node| world.nodes[node].encrypting(world.clock(node))).collect();
            prop_assert!(names.iter().all(|name| *name == names[0]), "{names:?}");
            for node in 0..3 {
                world.happen(&Event::Issue(node));
                for name in &names {
                    prop_assert!(accepts(&world.nodes[node].ring, *name, world.time));
                }
            }
        }
        let keys = world.nodes[0].ring.records();
        prop_assert!(keys.filter(|key| matches!(key.material, Material::SessionId(_))).count() <= 6);
    }
}

/// Nodes cut off from each other for as many periods as keys are made ahead still use the same keys.
#[test]
fn nodes_cut_off_for_the_periods_ahead_use_the_same_keys() {
    let mut nodes = [Node::started(HOURLY, 1, START), Node::new(HOURLY, 2)];
    nodes[1].ring = nodes[0].ring.clone();
    let ends = tickets(&nodes[0].ring).last().unwrap().retires;
    let mut now = START;
    while now < ends {
        nodes.iter_mut().for_each(|node| node.keep_up(now));
        assert_eq!(nodes[0].encrypting(now), nodes[1].encrypting(now), "at {now:?}");
        now = now + seconds(60);
    }
    assert!(now >= START + HOURLY.rotate * HOURLY.ahead);
}

/// A fast clock sees a key of a shorter lifetime retired; put back, it finds it encrypting.
#[test]
fn a_clock_put_back_issues_nothing_that_ends_before_its_lifetime() {
    let short = Node::started(Schedule { lifetime: seconds(600), ..HOURLY }, 1, START);
    let mut node = Node::new(HOURLY, 2);
    let fast = START + HOUR + seconds(60);
    node.ring = node.ring.admit(&short.ring, &HOURLY, fast).0;
    node.keep_up(fast);
    let now = START + seconds(60);
    let (record, _) = node.ring.encrypting(now).expect("has keys");
    assert!(record.retires < fast);
    assert!(record.accept_until >= now + HOURLY.lifetime);
}

/// Keys made by a fast clock wait for their time; until then the last one before them goes on encrypting.
#[test]
fn a_clock_that_was_fast_for_a_while_loses_no_ticket_and_rotation_catches_up() {
    let schedule = Schedule { rotate: seconds(900), ahead: 1, ..HOURLY };
    let mut node = Node::started(schedule, 1, START);
    let issued = node.encrypting(START);
    node.keep_up(START + HOUR);
    for minute in 0..120 {
        let now = START + seconds(60 * minute);
        node.keep_up(now);
        let (record, _) = node.ring.encrypting(now).expect("has keys");
        assert!(record.accept_until >= now + schedule.lifetime);
        assert!(accepts(&node.ring, issued, now));
    }
    let (record, _) = node.ring.encrypting(START + HOUR * 2).expect("has keys");
    assert!(record.retires > START + HOUR * 2, "the schedule goes on");
}
