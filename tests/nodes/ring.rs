//! One ring on all nodes.

use tlsresume_testkit::redis::RedisServer;

use crate::support::*;

#[test]
fn nodes_that_start_together_use_one_key_and_open_each_others_tickets() {
    let redis = RedisServer::start().expect("redis");
    let realm = Realm::on(&redis, "");
    let nodes = [realm.node(), realm.node(), realm.node()];
    soon("one key", || {
        let names: Vec<_> = nodes.iter().map(Node::issue).collect();
        names.iter().all(|name| name.is_some() && *name == names[0])
    });
    let name = nodes[0].issue().expect("a key");
    assert!(nodes.iter().all(|node| node.opens(name)));
}

#[test]
fn a_node_that_joins_has_the_ring_before_its_first_handshake() {
    let redis = RedisServer::start().expect("redis");
    let realm = Realm::on(&redis, "");
    let first = realm.node();
    let name = first.issue().expect("a key");
    let second = realm.node();
    assert!(second.opens(name), "at once");
    assert_eq!(second.issue(), Some(name));
}
