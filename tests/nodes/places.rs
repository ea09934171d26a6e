//! Every kind of Redis that can be configured.

use tlsresume::engine::Lookup;
use tlsresume_testkit::installed::certs::Mutual;
use tlsresume_testkit::redis::{RedisCluster, RedisServer, SentinelGroup};
use tlsresume_testkit::{DEADLINE, wait_until};

use crate::support::*;

/// What docs/redis-layout.md tells administrators to allow, without the user's name and password.
fn rules() -> &'static str {
    const TEXT: &str = include_str!("../../docs/redis-layout.md");
    let line = TEXT.lines().find(|line| line.starts_with("user tlsresume")).expect("an ACL");
    line.split_once(">PASSWORD ").expect("a password, then rules").1
}

/// Ring, sessions, removal; in push and pull.
fn serves(realm: Realm) {
    let mut realm = realm;
    for settings in ["", PULL] {
        realm.settings = settings.into();
        let nodes: [Node; 2] = realm.nodes();
        let id = nodes[0].keep(b"a session");
        nodes[1].finds_soon(&id);
        nodes[1].0.forget_session(&id, now()).expect("the store is free");
        soon("the removal", || nodes[0].find(&id, Lookup::Keep).is_none());
    }
}

#[test]
fn a_unix_socket_will_do() {
    let redis = RedisServer::settings().unix_socket().start().expect("redis");
    serves(Realm::at(&redis.socket_url(), ""));
}

#[test]
fn a_password_may_be_in_the_address_or_in_a_file() {
    let redis = RedisServer::settings().password("open:/sesame@").start().expect("redis");
    serves(Realm::at(&format!("redis://:open%3A%2Fsesame%40@{}", redis.address()), ""));
    let mut realm = Realm::at(&format!("redis://{}", redis.address()), "");
    std::fs::write(realm.file("password"), "open:/sesame@\n").expect("written");
    realm.redis = format!("password_file = {:?}", realm.file("password"));
    serves(realm);
}

#[test]
fn the_documented_permissions_are_enough() {
    let redis = RedisServer::settings().user("tls", "word", rules()).start().expect("redis");
    serves(Realm::on(&redis, ""));
    // What takes away something strange is allowed too.
    redis.command(&["SET", NODES, "x"]).expect("set");
    serves(Realm::on(&redis, ""));
    soon("the heartbeats", || redis.command(&["TYPE", NODES]).is_ok_and(|it| it == "hash"));
    let denied = redis.command(&["ACL", "LOG"]).expect("answered");
    assert!(denied.is_empty(), "{denied}");
}

#[test]
fn no_documented_permission_is_superfluous() {
    let redis = RedisServer::settings().user("tls", "word", rules()).start().expect("redis");
    serves(Realm::on(&redis, ""));
    let settings = "[resumption]\nmode = \"stateful\"\nsingle_use = true\n[cluster]\nlookup_budget = \"100ms\"";
    let realm = Realm::on(&redis, settings);
    let nodes = [realm.node(), realm.node()];
    let id = nodes[0].keep(b"a session");
    soon("the session", || nodes[1].find(&id, Lookup::Consume).is_some());
    // Rare ones: after faults, at the end of an agent, over an hour.
    const RARE: [&str; 6] = ["auth", "time", "hdel", "del", "type", "xinfo|stream"];
    let commands = rules().split(' ').filter_map(|rule| rule.strip_prefix('+'));
    for command in commands.filter(|it| !RARE.contains(it)) {
        soon(command, || redis.info_commands(command).is_ok_and(|calls| calls > 0));
    }
}

#[test]
fn tls_with_certificates_on_both_sides() {
    let certificates = Mutual::new().expect("certificates");
    let redis = RedisServer::settings().tls(&certificates).start().expect("redis");
    let mut realm = Realm::on(&redis, "");
    let (cert, key) = (&certificates.client.certificate, &certificates.client.key);
    realm.redis =
        format!("ca_file = {:?}\ncert_file = {cert:?}\nkey_file = {key:?}", certificates.authority);
    serves(realm);
}

#[test]
fn tls_finds_a_host_by_its_name_and_trusts_nobody_but_whom_it_is_told_to() {
    let certificates = Mutual::new().expect("certificates");
    let redis = RedisServer::settings().tls(&certificates).start().expect("redis");
    let (cert, key) = (&certificates.client.certificate, &certificates.client.key);
    let ours = format!("cert_file = {cert:?}\nkey_file = {key:?}");
    let url = format!("rediss://localhost:{}", redis.address().port());
    let realm = |trusted: &str| {
        let mut realm = Realm::at(&url, "");
        realm.redis = format!("{trusted}{ours}");
        realm
    };
    let stranger = realm("").node();
    assert!(stranger.issue().is_some());
    serves(realm(&format!("ca_file = {:?}\n", certificates.authority)));
    assert!(!stranger.is_up());
}

#[test]
fn a_cluster_and_sentinels_over_tls() {
    let certificates = Mutual::new().expect("certificates");
    let cluster = RedisCluster::start_with_tls(&certificates).expect("a cluster");
    let group = SentinelGroup::start_with_tls(&certificates).expect("sentinels");
    for url in [cluster.url(), group.url()] {
        let mut realm = Realm::at(&url, "");
        let (cert, key) = (&certificates.client.certificate, &certificates.client.key);
        let authority = &certificates.authority;
        realm.redis = format!("ca_file = {authority:?}\ncert_file = {cert:?}\nkey_file = {key:?}");
        serves(realm);
    }
}

#[test]
fn a_server_that_another_authority_vouches_for_is_refused() {
    let [ours, others] = [(); 2].map(|()| Mutual::new().expect("certificates"));
    let redis = RedisServer::settings().tls(&others).start().expect("redis");
    let mut realm = Realm::on(&redis, "");
    let (cert, key) = (&others.client.certificate, &others.client.key);
    realm.redis =
        format!("ca_file = {:?}\ncert_file = {cert:?}\nkey_file = {key:?}", ours.authority);
    let node = realm.node();
    soon("an attempt", || {
        redis.info("stats", "total_connections_received").is_ok_and(|it| it.is_some())
    });
    assert!(!node.is_up());
    assert!(node.issue().is_some());
    assert_eq!(redis.command(&["DBSIZE"]).expect("answered"), "0");
}

#[test]
fn a_failover_is_followed() {
    let mut group = SentinelGroup::start().expect("sentinels");
    group.sentinels()[0].stop().expect("stopped");
    let realm = Realm::at(&group.url(), "");
    let nodes: [Node; 2] = realm.nodes();
    let pulling = Realm::pulling(&group.url(), "realm = \"pull\"");
    let pullers: [Node; 2] = pulling.nodes();
    let id = pullers[0].keep(b"before");
    pullers[1].finds_soon(&id);
    group.sentinels()[0].cont().expect("continued");

    let old = group.kill_master().expect("killed");
    group.wait_for_failover(old).expect("a failover");
    for nodes in [&nodes, &pullers] {
        let id = nodes[0].keep(b"after");
        nodes[1].finds_soon(&id);
        agree(nodes);
    }
    pulling.node().finds_soon(&id);
}

#[test]
fn a_cluster_will_do_while_its_slots_move() {
    let cluster = RedisCluster::start().expect("a cluster");
    let realm = Realm::at(&cluster.url(), "[keys]\nactivation_delay = \"1s\"");
    let nodes: [Node; 2] = realm.nodes();
    let pulling = Realm::pulling(&cluster.url(), "realm = \"pull\"");
    let pullers: [Node; 2] = pulling.nodes();
    let works = || {
        for nodes in [&nodes, &pullers] {
            let ids: Vec<_> = (0..20).map(|_| nodes[0].keep(b"a session")).collect();
            ids.iter().for_each(|id| nodes[1].finds_soon(id));
        }
    };
    works();
    let id = pullers[0].keep(b"a session");
    pullers[1].finds_soon(&id);
    let session = format!("tlsresume:pull:session:{}", hex::encode(&id[..24]));
    let old = nodes[0].issue();
    for key in ["tlsresume:{default}:ring", "tlsresume:{pull}:ring", &session] {
        let migration = cluster.migrate_slot_of(key).expect("begun");
        works();
        migration.move_keys().expect("moved");
        works();
        migration.finish().expect("finished");
        works();
    }
    nodes[0].0.rotate_keys().expect("rotated");
    wait_until("a new key", DEADLINE, || nodes.iter().all(|node| node.issue() != old))
        .expect("in time");
    agree(&nodes);
    let joined = pulling.node();
    joined.finds_soon(&id);
}
