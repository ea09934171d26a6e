//! A host whose secret file differs from the others' is named, on all of them.

use std::time::Duration;

use tlsresume::cluster::seal::Sealer;
use tlsresume::cluster::secrets::Secrets;
use tlsresume::stats::Gauge;
use tlsresume_testkit::redis::RedisServer;
use tlsresume_testkit::wait_until;

use crate::support::*;

const OTHER_SECRET: &str = "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210";

/// A node is heard every two seconds, and its heartbeat has to change.
const LIMIT: Duration = Duration::from_secs(30);

fn id_of(secret: &str) -> String {
    let secrets = Secrets::parse(secret.as_bytes(), "test").expect("a secret");
    Sealer::new(&secrets, "default").seals_with().to_string()
}

/// Waits until the node says that so many nodes live, are out of sync, and have another secret.
fn counts(node: &Node, expected: [u64; 3]) {
    wait_until(format!("{expected:?}, {}", node.metrics()), LIMIT, || {
        let report = node.0.report(now());
        let gauges = [Gauge::Nodes, Gauge::NodesOutOfSync, Gauge::NodesOtherSecret];
        gauges.map(|gauge| report.gauge(gauge)) == expected
    })
    .expect("in time");
}

#[test]
fn a_node_with_another_secret_is_out_of_sync_and_named_once_on_both_sides_and_junk_is_not() {
    const NAME: &str = "other_secret::a_node_with_another_secret_is_out_of_sync_and_named_once_on_both_sides_and_junk_is_not";
    let said = alone(NAME, || {
        let redis = RedisServer::start().expect("redis");
        let junk = [&[1, 7, 7, 7, 7][..], &[0; 60]].concat();
        redis.ask(&[b"HSET", NODES.as_bytes(), b"00000000deadbeef", &junk]).expect("set");
        let (realm, wrong) = (Realm::on(&redis, ""), Realm::on(&redis, ""));
        wrong.write_secrets(&[OTHER_SECRET]);
        let (node, other) = (realm.node(), wrong.node());
        for node in [&node, &other] {
            counts(node, [2, 1, 1]);
        }
        let (known, unknown) = (node.0.secrets(), other.0.secrets());
        let (known, unknown) = (known.expect("a cluster"), unknown.expect("a cluster"));
        assert_eq!(known.other, Some(unknown.own));
        assert_eq!((known.in_use, unknown.in_use), (Some(known.own), Some(unknown.own)));
        end(other);
        counts(&node, [1, 0, 0]);
        wrong.write_secrets(&[SECRET]);
        let other = wrong.node();
        counts(&node, [2, 0, 0]);
        counts(&other, [2, 0, 0]);
    });
    let Some(said) = said else { return };
    let (own, other) = (id_of(SECRET), id_of(OTHER_SECRET));
    let file = |line: &str, ids: &str| {
        let (_, rest) = line.split_once("1 of the nodes of this realm seal with a secret that ")?;
        rest.split_once(&format!(" has not ({ids}): ")).map(|(file, _)| file.to_owned())
    };
    let files = [(&own, &other), (&other, &own)].map(|(this, that)| {
        let ids = format!("{that}; this node's is {this}");
        let files: Vec<_> = said.lines().filter_map(|line| file(line, &ids)).collect();
        let [file] = &files[..] else { panic!("once: {said}") };
        file.clone()
    });
    assert!(files.iter().all(|file| file.ends_with("/secret")) && files[0] != files[1], "{said}");
    let over = format!("every node of this realm seals with a secret that {} has", files[0]);
    assert_eq!(said.matches(&over).count(), 1, "{said}");
    assert!(said.contains("write the same secret into that file on every host"), "{said}");
    assert!(!said.contains(SECRET) && !said.contains(OTHER_SECRET));
}
