//! What Redis loses, nodes bring back; what a node missed, it makes up for.

use std::collections::BTreeSet;
use std::time::Duration;

use tlsresume::engine::Lookup;
use tlsresume::stats::Counter;
use tlsresume_testkit::middleman::{Behaviour, Middleman};
use tlsresume_testkit::redis::RedisServer;
use tlsresume_testkit::{DEADLINE, wait_until};

use crate::support::*;

/// Fields of the shared copy.
fn fields(redis: &RedisServer) -> BTreeSet<Vec<u8>> {
    let answer = redis.ask(&["HKEYS", RING]).expect("answered");
    answer.list().iter().filter_map(|name| Some(name.bytes()?.to_vec())).collect()
}

/// Does something to a Redis that two nodes share. Both must have one key, a whole copy and each other's sessions
/// after.
fn survives(what: &str, harm: impl FnOnce(&mut RedisServer)) {
    let mut redis = RedisServer::start().expect("redis");
    let realm = Realm::pulling(&redis.url(), "");
    let nodes: [Node; 2] = realm.nodes();
    let (name, before) = (nodes[0].issue().expect("a key"), fields(&redis));
    let ids = [nodes[0].keep(b"of the first"), nodes[1].keep(b"of the second")];
    soon("all written", || redis.command(&["DBSIZE"]).is_ok_and(|it| it == "6"));

    harm(&mut redis);
    soon(&format!("{what}: the copy"), || before.is_subset(&fields(&redis)));
    soon(&format!("{what}: the sessions"), || {
        let found = |(node, id): (&Node, &[u8; 32])| node.find(id, Lookup::Keep).is_some();
        nodes.iter().rev().zip(&ids).all(found)
    });
    agree(&nodes);
    assert_eq!(nodes[0].issue(), Some(name), "{what}");
    let third = realm.node();
    assert_eq!(third.issue(), Some(name), "{what}: a node that joins");
}

#[test]
fn an_emptied_redis_is_filled_again() {
    survives("FLUSHALL", |redis| {
        redis.command(&["FLUSHALL"]).expect("done");
    });
}

#[test]
fn a_redis_that_restarts_empty_is_filled_again() {
    survives("restart", |redis| redis.restart_empty().expect("restarted"));
}

#[test]
fn an_older_state_of_redis_is_brought_up_to_date() {
    let mut redis = RedisServer::start().expect("redis");
    let realm = Realm::pulling(&redis.url(), "");
    let nodes: [Node; 2] = realm.nodes();
    let dump = redis.dump().expect("a dump");
    let id = nodes[0].keep(b"younger than the dump");
    nodes[1].finds_soon(&id);
    let third = realm.node();

    redis.restore(&dump).expect("restored");
    third.finds_soon(&id);
    agree(&nodes);
}

#[test]
fn a_lost_ring_or_stream_is_written_again() {
    survives("DEL ring", |redis| {
        redis.command(&["DEL", RING]).expect("done");
    });
    survives("DEL stream", |redis| {
        redis.command(&["DEL", STREAM]).expect("done");
    });
}

#[test]
fn a_lost_or_spoilt_field_of_the_ring_is_written_again() {
    survives("HDEL", |redis| {
        let key = fields(redis).into_iter().find(|it| it.starts_with(b"k")).expect("a key");
        redis.ask(&[b"HDEL", RING.as_bytes(), &key]).expect("done");
    });

    let redis = RedisServer::start().expect("redis");
    let realm = Realm::on(&redis, "");
    let nodes: [Node; 2] = realm.nodes();
    let all = fields(&redis);
    let key = all.iter().find(|it| it.starts_with(b"k")).expect("a key");
    redis.ask(&[b"HSET", RING.as_bytes(), key, b"garbage"]).expect("done");
    let value = || redis.ask(&[b"HGET", RING.as_bytes(), key]).expect("answered");
    soon("the field", || value().bytes().is_some_and(|it| it != b"garbage"));
    assert!(nodes.iter().any(|node| node.count(Counter::TransportRejectedFormat) > 0));
    agree(&nodes);
}

#[test]
fn a_node_that_was_cut_off_agrees_again_and_its_tickets_open() {
    const FAST: &str =
        "[keys]\nrotate = \"1s\"\nactivation_delay = \"1s\"\n[resumption]\nlifetime = \"60s\"";
    let redis = RedisServer::start().expect("redis");
    let near = Realm::on(&redis, FAST);
    let middlemen = [(); 2].map(|()| Middleman::start(redis.address()).expect("a middleman"));
    let far = [0, 1].map(|nth: usize| Realm::at(&middlemen[nth].url(&redis.url()), FAST));
    let nodes = [near.node(), far[0].node(), far[1].node()];
    agree(&nodes);

    middlemen[0].behave(Behaviour::Refuse);
    middlemen[1].behave(Behaviour::BlackHole);
    let mut names = [(); 3].map(|()| BTreeSet::new());
    wait_until("rotations", DEADLINE, || {
        nodes.iter().zip(&mut names).for_each(|(node, names)| names.extend(node.issue()));
        names.iter().all(|names| names.len() > 6)
    })
    .expect("rotated");
    assert!(!nodes[1].is_up() && !nodes[2].is_up());
    middlemen.iter().for_each(|middleman| middleman.behave(Behaviour::Pass));
    agree(&nodes);
    soon("all tickets to open", || {
        nodes.iter().all(|node| names.iter().flatten().all(|name| node.opens(*name)))
    });
}

#[test]
fn one_key_is_made_for_each_period() {
    let redis = RedisServer::start().expect("redis");
    let settings =
        "[keys]\nrotate = \"1s\"\nactivation_delay = \"1s\"\n[resumption]\nlifetime = \"60s\"";
    let realm = Realm::on(&redis, settings);
    let nodes: [Node; 3] = realm.nodes();
    let known = || fields(&redis).len();
    let (before, begun) = (known(), instant());
    let (mut names, mut apart) = (BTreeSet::new(), Duration::ZERO);
    let mut together = instant();
    wait_until("10 rotations", DEADLINE, || {
        let now: BTreeSet<_> = nodes.iter().filter_map(Node::issue).collect();
        if now.len() == 1 {
            together = instant();
        }
        apart = apart.max(together.elapsed());
        names.extend(now);
        names.len() > 10
    })
    .expect("rotated");
    let periods = usize::try_from(begun.elapsed().as_secs()).expect("a few") + 2;
    assert!(apart < Duration::from_secs(1), "apart for {apart:?}");
    assert!(known() - before <= periods, "{} keys, {periods} periods", known() - before);
}

#[test]
fn a_removal_that_redis_did_not_take_is_sent_again_also_where_sessions_are_sent_once() {
    let redis = RedisServer::start().expect("redis");
    let middleman = Middleman::start(redis.address()).expect("a middleman");
    let settings = "[resumption]\nmode = \"stateful\"\nsingle_use = true\n[cluster]\nlookup_budget = \"100ms\"";
    let node = Realm::at(&middleman.url(&redis.url()), settings).node();
    let id = node.keep(b"a session");
    let exist = |keys: &str| {
        let names = redis.command(&["KEYS", "tlsresume:default:session:*"]);
        names.is_ok_and(|names| names.is_empty() == (keys == "none"))
    };
    soon("the session", || exist("one"));

    soon("up", || node.is_up());
    // A busy node would be found asking for news, and say nothing more.
    let mut last = 0;
    soon("a node at rest", || {
        let looks = redis.info_commands("xread").expect("counted");
        std::mem::replace(&mut last, looks) == looks
    });
    middleman.behave(Behaviour::BlackHole);
    node.0.forget_session(&id, now()).expect("the store is free");
    soon("down", || !node.is_up());
    middleman.behave(Behaviour::Pass);
    soon("the removal", || exist("none"));
}

#[test]
fn a_stream_that_was_cut_off_behind_a_node_is_noticed_once_and_an_emptied_one_is_not() {
    const TEST: &str =
        "repair::a_stream_that_was_cut_off_behind_a_node_is_noticed_once_and_an_emptied_one_is_not";
    let said = alone(TEST, || {
        let redis = RedisServer::start().expect("redis");
        let middleman = Middleman::start(redis.address()).expect("a middleman");
        let near = Realm::on(&redis, "").node();
        let far = Realm::at(&middleman.url(&redis.url()), "").node();
        let nodes = [near, far];
        agree(&nodes);
        nodes[1].finds_soon(&nodes[0].keep(b"before"));
        let away = |harm: &dyn Fn()| {
            middleman.behave(Behaviour::Refuse);
            soon("to be noticed", || !nodes[1].is_up());
            let sent = nodes[0].count(Counter::TransportSent);
            let missed = [nodes[0].keep(b"one"), nodes[0].keep(b"two")];
            soon("both sent", || nodes[0].count(Counter::TransportSent) >= sent + 2);
            harm();
            middleman.behave(Behaviour::Pass);
            agree(&nodes);
            nodes[1].finds_soon(&nodes[0].keep(b"after"));
            let missed = missed.map(|id| nodes[1].find(&id, Lookup::Keep).is_none());
            (missed.contains(&true), nodes[1].count(Counter::TransportDropped))
        };
        assert_eq!(away(&|| ()), (false, 0));
        let trim = |most: &str| redis.command(&["XTRIM", STREAM, "MAXLEN", most]).expect("trimmed");
        assert_eq!(away(&|| drop(trim("1"))), (true, 1));
        assert_eq!(away(&|| drop(trim("0"))), (true, 2));
        assert_eq!(nodes[0].count(Counter::TransportDropped), 0, "it had read all");
        redis.command(&["FLUSHALL"]).expect("flushed");
        agree(&nodes);
        nodes[1].finds_soon(&nodes[0].keep(b"anew"));
        assert_eq!(nodes[1].count(Counter::TransportDropped), 2);
        nodes.into_iter().for_each(end);
    });
    let Some(said) = said else { return };
    assert_eq!(
        said.lines().filter(|line| line.contains("was cut off before")).count(),
        1,
        "{said}"
    );
}
