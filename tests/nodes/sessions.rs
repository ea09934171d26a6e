//! Sessions of one node are found at others.

use tlsresume::engine::{Asking, Lookup, Search, Waited};
use tlsresume::stats::Counter;
use tlsresume_testkit::redis::RedisServer;

use crate::support::*;

#[test]
fn a_session_is_pushed_to_every_node() {
    let redis = RedisServer::start().expect("redis");
    let realm = Realm::on(&redis, "");
    let nodes = [realm.node(), realm.node(), realm.node()];
    for _ in 0..3 {
        let id = nodes[0].keep(b"a session");
        for node in &nodes {
            soon("the session", || node.find(&id, Lookup::Keep).is_some());
        }
    }
}

#[test]
fn a_session_is_pulled_by_any_node() {
    let redis = RedisServer::start().expect("redis");
    let realm = Realm::pulling(&redis.url(), "");
    let nodes = [realm.node(), realm.node()];
    let id = nodes[0].keep(b"a session");
    let found =
        nodes[1].find(&id, Lookup::Keep).unwrap_or_else(|| panic!("{}", nodes[1].metrics()));
    assert_eq!(found.value.as_slice(), b"a session");
    assert_eq!(found.note, 7);
}

#[test]
fn a_single_use_session_is_given_to_one_node_alone() {
    let redis = RedisServer::start().expect("redis");
    let realm = Realm::on(
        &redis,
        "[resumption]\nmode = \"stateful\"\nsingle_use = true\n[cluster]\nlookup_budget = \"100ms\"",
    );
    let nodes = [realm.node(), realm.node(), realm.node()];
    let id = nodes[0].keep(b"a session");
    let keys = || redis.command(&["KEYS", "tlsresume:default:session:*"]);
    soon("the session", || keys().is_ok_and(|names| !names.is_empty()));
    let given = [1, 2, 0, 1].map(|node: usize| nodes[node].find(&id, Lookup::Consume).is_some());
    assert_eq!(given, [true, false, false, false]);
}

#[test]
fn a_used_session_that_is_put_back_stays_used_where_it_was_used() {
    let redis = RedisServer::start().expect("redis");
    let realm = Realm::on(
        &redis,
        "[resumption]\nmode = \"stateful\"\nsingle_use = true\n[cluster]\nlookup_budget = \"100ms\"",
    );
    let nodes = [realm.node(), realm.node()];
    let id = nodes[0].keep(b"a session");
    let keys = || redis.command(&["KEYS", "tlsresume:default:session:*"]).unwrap_or_default();
    soon("the session", || !keys().is_empty());
    let name = keys();
    let sealed = redis.ask(&["GET", &name]).expect("answered").bytes().expect("sealed").to_vec();
    assert!(nodes[1].find(&id, Lookup::Consume).is_some());
    redis.ask(&[b"SET", name.as_bytes(), &sealed]).expect("put back");
    assert!(nodes[1].find(&id, Lookup::Consume).is_none());
}

#[test]
fn all_searches_of_one_handshake_wait_for_one_budget() {
    let mut redis = RedisServer::start().expect("redis");
    let realm = Realm::pulling(&redis.url(), "");
    let node = realm.node();
    soon("the connection", || node.is_up());
    redis.stop().expect("stopped");
    let waited = &mut Waited::default();
    for _ in 0..4 {
        let id = node.new_id().expect("an id");
        let asked = Asking::Anyone;
        match node.0.begin_search(&id, &SHOP, Lookup::Keep, asked, waited, now()) {
            Search::Over(found) => assert!(found.is_none()),
            Search::Asked(question) => {
                let none = node.0.end_search(question, &id, &SHOP, Lookup::Keep, waited, now());
                assert!(none.is_none());
            }
        }
    }
    redis.cont().expect("continued");
    assert_eq!(node.count(Counter::SessionsOverLimit), 3, "{}", node.metrics());
}
