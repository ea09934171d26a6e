//! One ring on all nodes.

use std::time::Duration;

use tlsresume::clock::UnixMillis;
use tlsresume::cluster::seal::{Label, NONCE_LEN, Sealer};
use tlsresume::cluster::secrets::Secrets;
use tlsresume::ring::sharing::Field;
use tlsresume::ring::{CLOCKS_DIFFER, Digest, KeyName, Material, Record, Ring, TicketKey, wire};
use tlsresume::secret::Secret;
use tlsresume::stats::Counter;
use tlsresume_testkit::redis::RedisServer;
use tlsresume_testkit::{DEADLINE, wait_until};

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

#[test]
fn a_key_that_seemed_to_come_from_the_future_is_taken_in_once_it_does_not() {
    let redis = RedisServer::start().expect("redis");
    let nodes: [Node; 2] = Realm::on(&redis, "").nodes();
    // The clock of whoever made it is wrong by as much as is borne, and 4 s more.
    let made = now() + CLOCKS_DIFFER + Duration::from_secs(4);
    let name = KeyName([0xab; KeyName::LEN]);
    write(&redis, key(name, made));
    let is_refused = |node: &Node| node.count(Counter::TransportRejectedClock) > 0;
    soon("a refusal", || nodes.iter().all(is_refused));
    assert!(!nodes.iter().any(|node| node.opens(name.0)));
    // Nothing moves the copy's token: one of the two makes the keys and looks all the time, the other does not.
    wait_until("the key", DEADLINE, || nodes.iter().all(|node| node.opens(name.0)))
        .expect("taken in");
}

/// A key that only opens.
fn key(name: KeyName, made: UnixMillis) -> Record {
    let secret = || Secret::new(&[7; 32]);
    let key = TicketKey::new(name, secret(), secret(), Digest::Sha256).expect("its lengths");
    Record {
        material: Material::Ticket(key),
        imported: false,
        made,
        activates: UnixMillis(0),
        retires: now(),
        accept_until: now() + Duration::from_secs(48 * 3600),
    }
}

/// Writes a key into the copy as a node does, and says so to all.
fn write(redis: &RedisServer, record: Record) {
    let field = Field::Key(record.name()).to_bytes();
    let part = Ring::default().with([record]).expect("room");
    let secrets = Secrets::parse(SECRET.as_bytes(), "test").expect("a secret");
    let sealer = Sealer::new(&secrets, "default");
    let sealed = sealer.seal(Label::Ring, &field, &wire::encode(&part), [3; NONCE_LEN]);
    let token: &[u8] = &[9; 16];
    redis.ask(&[b"HSET", RING.as_bytes(), &field, &sealed, b"token", token]).expect("written");
}
