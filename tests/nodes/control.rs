//! What an administrator does on one node takes effect on all.

use std::time::Duration;

use tlsresume::engine::Lookup;
use tlsresume::ring::KeyName;
use tlsresume::stats::Counter;
use tlsresume_testkit::redis::{RedisServer, Reply};

use crate::support::*;

const QUICK: &str = "[keys]\nactivation_delay = \"1s\"";

fn in_push_and_pull(check: impl Fn(&RedisServer, &Realm, [Node; 3])) {
    for settings in [QUICK.to_owned(), format!("{QUICK}\n{PULL}")] {
        let redis = RedisServer::start().expect("redis");
        let realm = Realm::on(&redis, &settings);
        let nodes = realm.nodes();
        check(&redis, &realm, nodes);
    }
}

/// All entries of the stream.
fn entries(redis: &RedisServer) -> Vec<Vec<u8>> {
    let all = redis.ask(&["XRANGE", STREAM, "-", "+"]).expect("answered");
    let entry = |it: &Reply| Some(it.list().get(1)?.list().get(1)?.bytes()?.to_vec());
    all.list().iter().filter_map(entry).collect()
}

fn replay(redis: &RedisServer, entry: &[u8]) {
    redis.ask(&[b"XADD", STREAM.as_bytes(), b"*", b"e", entry]).expect("added");
}

#[test]
fn rotation_takes_effect_on_all_nodes() {
    in_push_and_pull(|_, _, nodes| {
        let old = nodes[0].issue().expect("a key");
        nodes[1].0.rotate_keys().expect("rotated");
        // After the activation delay.
        soon("another key", || {
            nodes.iter().all(|node| node.issue().is_some_and(|name| name != old))
        });
        agree(&nodes);
        assert!(nodes.iter().all(|node| node.opens(old)));
    });
}

#[test]
fn a_revoked_key_opens_nothing_anywhere() {
    in_push_and_pull(|_, realm, nodes| {
        let old = nodes[0].issue().expect("a key");
        nodes[1].0.revoke_keys(Some(KeyName(old))).expect("revoked");
        soon("revocation", || nodes.iter().all(|node| !node.opens(old)));
        let young = nodes[2].issue().expect("a key");
        nodes[2].0.revoke_keys(None).expect("revoked");
        soon("revocation of all", || nodes.iter().all(|node| !node.opens(young)));
        agree(&nodes);
        assert!(!realm.node().opens(young), "a node that joins");
    });
}

#[test]
fn a_flush_covers_the_sessions_of_all_nodes() {
    in_push_and_pull(|_, _, nodes| {
        let ids = [nodes[0].keep(b"a session"), nodes[1].keep(b"another")];
        ids.iter().for_each(|id| nodes.iter().for_each(|node| node.finds_soon(id)));
        let later = now() + Duration::from_secs(1);
        // Sessions are dated to the second.
        soon("another second", || now() > later);
        nodes[2].0.flush_sessions().expect("flushed");
        soon("the flush", || {
            let gone = |id| nodes.iter().all(|node| node.find(id, Lookup::Keep).is_none());
            ids.iter().all(gone)
        });
    });
}

#[test]
fn a_removed_session_is_gone_everywhere_and_does_not_come_back() {
    in_push_and_pull(|redis, realm, nodes| {
        let id = nodes[0].keep(b"a session");
        nodes.iter().for_each(|node| node.finds_soon(&id));
        let key = format!("tlsresume:default:session:{}", hex::encode(&id[..24]));
        let copy = redis.ask(&["GET", &key]).expect("answered");
        let session = entries(redis).into_iter().find(|it| it.get(1) == Some(&1));

        nodes[1].0.forget_session(&id, now()).expect("the store is free");
        let is_gone = |node: &Node| node.find(&id, Lookup::Keep).is_none();
        soon("the removal", || nodes.iter().all(is_gone));

        if let Some(entry) = session {
            replay(redis, &entry);
        }
        if let Some(copy) = copy.bytes() {
            redis.ask(&[b"SET", key.as_bytes(), copy]).expect("set");
        }
        let mark = nodes[0].keep(b"later");
        nodes.iter().for_each(|node| node.finds_soon(&mark));
        assert!(nodes.iter().all(is_gone), "replayed");
        let joined = realm.node();
        joined.finds_soon(&mark);
        soon("the removal", || is_gone(&joined));
    });
}

#[test]
fn a_flushed_session_is_refused_when_it_is_replayed() {
    let redis = RedisServer::start().expect("redis");
    let nodes: [Node; 2] = Realm::on(&redis, QUICK).nodes();
    let id = nodes[0].keep(b"a session");
    nodes[1].finds_soon(&id);
    let session = entries(&redis).into_iter().find(|it| it.get(1) == Some(&1)).expect("an entry");
    let later = now() + Duration::from_secs(1);
    soon("another second", || now() > later);
    nodes[0].0.flush_sessions().expect("flushed");
    soon("the flush", || nodes[1].find(&id, Lookup::Keep).is_none());
    replay(&redis, &session);
    soon("a refusal", || nodes[1].count(Counter::TransportRejectedExpired) > 0);
    assert!(nodes[1].find(&id, Lookup::Keep).is_none());
}

#[test]
fn key_files_older_than_a_revocation_of_all_keys_are_refused_with_a_line_and_newer_ones_are_not() {
    const NAME: &str = "control::key_files_older_than_a_revocation_of_all_keys_are_refused_with_a_line_and_newer_ones_are_not";
    let said = alone(NAME, || {
        let redis = RedisServer::start().expect("redis");
        let mut realm = Realm::on(&redis, "");
        let file = realm.file("ticket.key");
        realm.settings = format!("[keys]\nsource = \"files\"\nfiles = [{file:?}]");
        let start_with = |byte: u8| {
            std::fs::write(&file, [byte; 80]).expect("written");
            realm.node_in(Some("memory"))
        };
        let node = start_with(1);
        assert!(node.opens([1; 16]));
        node.0.revoke_keys(None).expect("revoked");
        assert!(!node.opens([1; 16]));
        end(node);
        let node = start_with(2);
        assert!(node.opens([2; 16]) && !node.opens([1; 16]));
        end(node);
        let old = std::fs::File::options().write(true).open(&file).expect("there");
        old.set_modified(std::time::UNIX_EPOCH).expect("dated back");
        assert!(!realm.node_in(Some("memory")).opens([2; 16]));
    });
    let Some(said) = said else { return };
    assert_eq!(said.matches("keys.files: 1 of 1 keys are refused").count(), 1, "{said}");
}
