//! One agent a node, wherever it is, and the next one goes on where it was.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tlsresume::engine::Lookup;
use tlsresume::stats::Counter;
use tlsresume_testkit::Random;
use tlsresume_testkit::redis::{Monitor, RedisServer};
use tlsresume_testkit::{DEADLINE, say};

use crate::support::*;

#[test]
fn the_processes_of_a_node_have_one_connection() {
    let redis = RedisServer::start().expect("redis");
    let realm = Realm::on(&redis, "");
    let node: Vec<_> = (0..8).map(|_| realm.node_in(Some("memory"))).collect();
    agree(&node);
    let id = node[5].keep(b"a session");
    let other = realm.node();
    other.finds_soon(&id);
    assert_eq!(redis.client_count().expect("counted"), 2, "one for each node");
}

#[test]
fn another_process_goes_on_where_the_agent_stopped() {
    let redis = RedisServer::start().expect("redis");
    let realm = Realm::on(&redis, "");
    let first = realm.node_in(Some("memory"));
    soon("up", || first.is_up());
    let second = realm.engine(Some("memory"));
    let elsewhere = realm.node();
    // Lived for long enough to be the agent.
    let settled = now() + Duration::from_secs(2);
    soon("2 s", || second.issue().is_some() && now() > settled);

    drop(first);
    let ids: Vec<_> = (0..50).map(|_| second.keep(b"not sent yet")).collect();
    soon("a successor", || {
        second.first_callback();
        // The first one may have sent them as it ended.
        second.is_up() && ids.iter().all(|id| elsewhere.find(id, Lookup::Keep).is_some())
    });
}

#[test]
fn an_external_agent_serves_and_the_library_starts_no_thread() {
    alone("agent::an_external_agent_serves_and_the_library_starts_no_thread", || {
        for sessions in ["push", "pull"] {
            external_agent(sessions);
        }
    });
}

fn external_agent(sessions: &str) {
    let redis = RedisServer::start().expect("redis");
    let settings = format!("[cluster]\nlookup_budget = \"100ms\"\nsessions = {sessions:?}\n");
    let mut realm = Realm::on(&redis, &format!("{settings}agent = \"external\""));
    let [server, agent] = [(); 2].map(|()| realm.engine(Some("memory")));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let serving = scope.spawn(|| agent.0.serve_agent(&stop));
        soon("up", || agent.is_up());
        server.0.start_agent_now();
        server.first_callback();
        let id = server.keep(b"a session");
        assert_eq!(agents(), 0);

        realm.settings = settings;
        let elsewhere = realm.node();
        elsewhere.finds_soon(&id);
        let id = elsewhere.keep(b"a session");
        server.finds_soon(&id);
        assert!(server.0.has_agent());
        stop.store(true, Ordering::Release);
        serving.join().expect("no panic");
        soon("down", || !server.is_up());
    });
}

/// Threads of this process that the library started.
fn agents() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").expect("tasks").flatten();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    names.filter(|name| name.starts_with("tlsresume-")).count()
}

/// Of invented ids one in 2^64 has the right tag, for each of the realm's id keys that are accepted: never, in this
/// universe. So what is looked up here is none, not few.
#[test]
fn invented_ids_cost_no_look_up() {
    let redis = RedisServer::start().expect("redis");
    let realm = Realm::pulling(&redis.url(), "");
    let nodes: [Node; 1] = realm.nodes();
    let monitor = redis.monitor().expect("listens");
    let mut random = Random::new();
    for _ in 0..10_000 {
        let mut id = [0; 32];
        id.chunks_mut(8).for_each(|part| part.copy_from_slice(&random.number().to_le_bytes()));
        assert!(nodes[0].find(&id, Lookup::Keep).is_none());
    }
    assert_eq!(nodes[0].count(Counter::SessionsForgedId), 10_000);
    assert_eq!(looked_up(monitor, &redis), Vec::<String>::new());

    let ours = nodes[0].new_id().expect("an id");
    soon("an id of the realm's own, which is looked up, and that is heard", || {
        let monitor = redis.monitor().expect("listens");
        assert!(nodes[0].find(&ours, Lookup::Keep).is_none());
        !looked_up(monitor, &redis).is_empty()
    });
}

/// The commands about sessions. The agent gives others, for itself.
fn looked_up(monitor: Monitor, redis: &RedisServer) -> Vec<String> {
    let heard = monitor.heard(redis).expect("heard");
    heard.into_iter().filter(|line| line.contains(":session:")).collect()
}

#[test]
fn how_long_a_session_takes_to_another_node() {
    let redis = RedisServer::start().expect("redis");
    let nodes: [Node; 2] = Realm::on(&redis, "").nodes();
    for (what, pause) in [("busy", Duration::ZERO), ("idle", Duration::from_millis(2500))] {
        let count = if pause.is_zero() { 500 } else { delays_when_idle() };
        let mut delays: Vec<_> = (0..count)
            .map(|_| {
                let quiet = instant() + pause;
                while instant() < quiet {
                    std::thread::park_timeout(Duration::from_millis(50));
                }
                let id = nodes[0].keep(b"a session");
                let begun = instant();
                while nodes[1].find(&id, Lookup::Keep).is_none() {
                    assert!(begun.elapsed() < DEADLINE);
                    std::thread::park_timeout(Duration::from_micros(100));
                }
                begun.elapsed()
            })
            .collect();
        delays.sort();
        let at = |percent| delays.get(delays.len() * percent / 100).or(delays.last());
        say(&format!("push delay, {what}: median {:?}, p99 {:?}", at(50), at(99)));
        assert!(at(50).is_none_or(|it| *it < Duration::from_millis(250)));
    }
}

/// Each takes 2.5 s.
fn delays_when_idle() -> usize {
    std::env::var("TLSRESUME_IDLE_DELAYS").ok().and_then(|it| it.parse().ok()).unwrap_or(1)
}

#[test]
fn a_process_that_gets_the_file_after_all_is_a_node_of_its_own_no_longer() {
    let redis = RedisServer::start().expect("redis");
    let realm = Realm::on(&redis, "");
    let path = Some("directory/memory");
    let apart = realm.node_in(path);
    soon("a node", || apart.is_up());
    std::fs::create_dir(realm.file("directory")).expect("the folder is writable");
    let other = realm.node_in(path);
    let elsewhere = realm.node();
    let id = other.keep(b"a session");
    soon("the file", || {
        apart.first_callback();
        let nodes = redis.command(&["HLEN", NODES]).expect("answered");
        nodes == "2" && redis.client_count().is_ok_and(|count| count == 2)
    });
    apart.finds_soon(&id);
    let id = apart.keep(b"another session");
    other.finds_soon(&id);
    elsewhere.finds_soon(&id);
}
