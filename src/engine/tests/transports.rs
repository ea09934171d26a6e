//! What nodes share, over a transport that is not Redis: the engine knows none but by its traits.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use tlsresume_testkit::{DEADLINE, wait_until};

use super::support::*;
use crate::cluster::tests::in_memory::{Faults, InMemory};
use crate::cluster::transport::Offers;
use crate::config::{Cluster as Settings, Config, Replication};
use crate::engine::cluster::Cluster;
use crate::engine::memory::Memory;
use crate::engine::{Engine, Lookup, StoredSession};
use crate::ring::KeyName;
use crate::stats::{Counter, Gauge};

/// Some nodes, and what they share.
struct Fleet {
    transport: InMemory,
    config: Config,
    // Holds the secret's file.
    _place: Place,
}

impl Fleet {
    fn new(sessions: Replication) -> Self {
        let place = Place::new();
        let file = place.file("secret", &[b'5'; 64]);
        std::fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
        let secret_file = Some(file);
        // A busy machine is no reason to give a look-up up.
        let lookup_budget = seconds(1);
        let cluster = Settings { secret_file, sessions, lookup_budget, ..Settings::default() };
        let config = Config { cluster, ..alone() };
        Fleet { transport: InMemory::new(), config, _place: place }
    }

    fn node(&self) -> Arc<Engine> {
        let config = self.config.clone();
        let cluster = Cluster::over(Arc::new(self.transport.clone()), &config).unwrap();
        let store = Memory::open(&config).unwrap();
        let engine = Engine::assembled(config, store, Some(cluster)).unwrap();
        let engine = Arc::new(engine.with_keys().unwrap());
        engine.shared.set(Arc::downgrade(&engine)).unwrap();
        engine.start_agent_now();
        engine
    }

    /// Two nodes of one ring.
    fn pair(&self) -> [Arc<Engine>; 2] {
        let nodes = [self.node(), self.node()];
        soon("one ring", || {
            let [first, second] = [&nodes[0], &nodes[1]].map(|node| names(node));
            !first.is_empty() && first == second
        });
        nodes
    }
}

fn soon(what: &str, condition: impl FnMut() -> bool) {
    wait_until(what, DEADLINE, condition).unwrap();
}

fn names(node: &Engine) -> Vec<KeyName> {
    // The first callback of a process starts its agent.
    let _ = node.new_session_id(node.new_family(now()), now());
    node.keys(now()).iter().map(|key| key.name).collect()
}

/// Whether one opens the other's tickets.
fn opens_of(node: &Engine, other: &Engine) -> bool {
    opens(node, &issue(other, now()), now())
}

fn keep(node: &Engine) -> [u8; 32] {
    let now = now();
    let id = node.new_session_id(node.new_family(now), now).unwrap();
    node.keep_session(&session(&id, b"session", now), now, PATIENT);
    id
}

fn find(node: &Engine, id: &[u8; 32], lookup: Lookup) -> Option<StoredSession> {
    // A thread of its own, which has not waited for another session.
    std::thread::scope(|it| {
        it.spawn(|| node.find_session(id, &SHOP, lookup, now())).join().unwrap()
    })
}

fn has(node: &Engine, id: &[u8; 32]) -> bool {
    find(node, id, Lookup::Keep).is_some()
}

/// Whatever goes wrong now and then, and is no end.
fn mishaps() -> [Faults; 4] {
    let none = Faults::default();
    [
        none,
        Faults { loses_every: 29, ..none },
        Faults { doubles_entries: true, ..none },
        Faults { delay: seconds(1) / 50, ..none },
    ]
}

#[test]
fn sessions_that_are_pushed_resume_on_another_node_and_removals_reach_it() {
    for faults in mishaps() {
        let fleet = Fleet::new(Replication::Push);
        fleet.transport.set(faults);
        let [first, second] = fleet.pair();
        let ids = [(); 20].map(|()| keep(&first));
        soon(&format!("all sessions, {faults:?}"), || ids.iter().all(|id| has(&second, id)));
        assert!(first.forget_session(&ids[3], now()).unwrap());
        soon(&format!("the removal, {faults:?}"), || !has(&second, &ids[3]));
        assert!(has(&second, &ids[4]), "{faults:?}: another one");
        assert_eq!(fleet.transport.sessions(), 0, "none is looked up");
    }
}

#[test]
fn sessions_that_are_looked_up_resume_on_another_node_and_those_removed_do_not() {
    for faults in mishaps() {
        let fleet = Fleet::new(Replication::Pull);
        fleet.transport.set(faults);
        let [first, second] = fleet.pair();
        let ids = [(); 5].map(|()| keep(&first));
        soon("all are in the vault", || fleet.transport.sessions() == ids.len());
        ids.iter().for_each(|id| soon("the session", || has(&second, id)));
        assert!(first.forget_session(&ids[3], now()).unwrap());
        soon(&format!("the removal, {faults:?}"), || {
            !has(&second, &ids[3]) && fleet.transport.sessions() == 4
        });
        assert!(has(&second, &ids[4]), "{faults:?}: another one");
    }
}

#[test]
fn a_session_that_may_be_used_once_is_used_once_by_all_nodes() {
    let mut fleet = Fleet::new(Replication::Push);
    fleet.config.resumption.single_use = true;
    let [first, second] = fleet.pair();
    let ids = [(); 8].map(|()| keep(&first));
    soon("all are in the vault", || fleet.transport.sessions() == ids.len());
    for id in &ids {
        let takes = |node: &Engine| find(node, id, Lookup::Consume).is_some();
        let taken = std::thread::scope(|scope| {
            [&first, &second].map(|node| scope.spawn(|| takes(node))).map(|it| it.join().unwrap())
        });
        assert!(taken.contains(&true) && taken.contains(&false), "{taken:?}");
    }
}

#[test]
fn entries_that_never_come_cost_their_sessions_and_no_others() {
    let fleet = Fleet::new(Replication::Push);
    let [first, second] = fleet.pair();
    fleet.transport.set(Faults { drops_every: 3, ..Faults::default() });
    let ids = [(); 30].map(|()| keep(&first));
    let last = keep(&first);
    let found = || ids.iter().filter(|id| has(&second, id)).count();
    soon("two of three", || found() >= ids.len() * 2 / 3 - 1);
    assert!(found() < ids.len() && opens_of(&second, &first));
    // The node itself has them all.
    assert!(ids.iter().chain([&last]).all(|id| has(&first, id)));
}

#[test]
fn nodes_whose_transport_is_down_serve_on_their_own_and_share_again_when_it_is_back() {
    let fleet = Fleet::new(Replication::Push);
    fleet.transport.set(Faults { is_down: true, ..Faults::default() });
    let nodes = [fleet.node(), fleet.node()];
    let id = keep(&nodes[0]);
    assert!(has(&nodes[0], &id) && opens_of(&nodes[0], &nodes[0]));
    assert!(!opens_of(&nodes[0], &nodes[1]));
    fleet.transport.set(Faults::default());
    soon("one ring", || opens_of(&nodes[0], &nodes[1]) && opens_of(&nodes[1], &nodes[0]));
    soon("what was made meanwhile", || has(&nodes[1], &id));
    soon("both are up", || {
        nodes.iter().all(|node| node.report(now()).gauge(Gauge::TransportUp) == 1)
    });
}

#[test]
fn what_a_transport_refuses_to_take_waits_until_it_does() {
    let fleet = Fleet::new(Replication::Push);
    let [first, second] = fleet.pair();
    fleet.transport.set(Faults { refuses_writes: true, ..Faults::default() });
    let id = keep(&first);
    soon("it is noticed", || first.report(now()).gauge(Gauge::TransportUp) == 0);
    assert!(!has(&second, &id));
    fleet.transport.set(Faults::default());
    soon("the session", || has(&second, &id));
    assert_eq!(first.counters().value(Counter::TransportDropped), 0);
}

#[test]
fn nodes_hear_of_each_other() {
    let fleet = Fleet::new(Replication::Off);
    let nodes = fleet.pair();
    soon("heartbeats", || fleet.transport.nodes() == 2);
    soon("both count two", || nodes.iter().all(|node| node.report(now()).gauge(Gauge::Nodes) == 2));
}

#[test]
fn what_a_transport_cannot_carry_is_refused_and_the_error_names_one_that_can() {
    let of = |sessions, offers| {
        let fleet = Fleet::new(sessions);
        let transport = Arc::new(InMemory::offering(offers));
        Cluster::over(transport, &fleet.config).map(drop).map_err(|error| error.to_string())
    };
    let board = Offers { feed: false, vault: false };
    assert_eq!(of(Replication::Off, board), Ok(()));
    let push = of(Replication::Push, Offers { vault: true, ..board }).unwrap_err();
    let pull = of(Replication::Pull, Offers { feed: true, ..board }).unwrap_err();
    for (said, asked) in [(push, "push"), (pull, "pull")] {
        assert!(said.contains("cluster.sessions: memory cannot"), "{said}");
        assert!(said.contains(asked) && said.contains("use redis"), "{said}");
    }
    assert_eq!(of(Replication::Pull, Offers { vault: true, ..board }), Ok(()));
}
