//! A change of keys or sessions says whom it reached, and fails when it was nobody or not everybody.

use std::fs;
use std::process::Command;
use std::time::Duration;

use crate::agent::started;
use crate::support::{Place, Ran, run};
use serde_json::Value;
use tlsresume::clock;
use tlsresume_testkit::redis::RedisServer;
use tlsresume_testkit::{Process, Server, wait_until};

const LIMIT: Duration = Duration::from_secs(30);

const CHANGES: [&[&str]; 3] =
    [&["keys", "rotate"], &["keys", "revoke", "--all"], &["sessions", "flush"]];

/// A real server with two workers on this memory.
fn server(place: &Place) -> Server {
    let settings = Server::example().expect("make all").args(["--workers", "2"]);
    let settings = settings.env("TLSRESUME_MEMORY_PATH", place.memory());
    settings.env("TLSRESUME_MEMORY_SIZE", "512KiB").start().expect("it starts")
}

fn first_line(ran: &Ran) -> &str {
    ran.out.lines().next().unwrap_or_default()
}

fn json(ran: &Ran) -> Value {
    serde_json::from_str(&ran.out).expect("JSON")
}

#[test]
fn every_change_counts_the_processes_that_have_the_memory() {
    let place = Place::new();
    let server = server(&place);
    for change in CHANGES {
        let ran = place.run(change);
        assert_eq!((ran.status, ran.err.as_str()), (Some(0), ""), "{}", ran.out);
        assert!(first_line(&ran).ends_with(": 3 processes here"), "{}", ran.out);
    }
    // This process is the fourth.
    let _own = place.server();
    for change in CHANGES {
        // Those that another test is starting count until they have a program of their own.
        let mut done = Value::Null;
        wait_until("four processes", LIMIT, || {
            done = place.run(&[&["--json"], change].concat()).json();
            done["processes"] == 4
        })
        .expect("those of the server, and this one");
        assert_eq!(done["processes_with_another_file"], 0);
        assert_eq!(done.get("nodes"), None, "there is no cluster");
    }
    drop(server);
}

#[test]
fn one_key_is_revoked_in_all_processes() {
    let place = Place::new();
    let own = place.server();
    let name = own.keys(clock::now())[0].name.to_string();
    let said = place.run(&["keys", "revoke", &name]).printed();
    assert!(said.starts_with("revoked 1 key: 1 process here\n"), "{said}");
}

#[test]
fn a_change_that_nobody_has_is_stored_and_ends_with_2() {
    let place = Place::new();
    let before = place.server().keys(clock::now());
    for change in CHANGES {
        let ran = place.run(change);
        assert_eq!(ran.status, Some(2), "{}", ran.out);
        assert!(first_line(&ran).ends_with(": no process here"), "{}", ran.out);
        let path = place.memory().display().to_string();
        let says = |words: &str| assert!(ran.err.contains(words), "{}", ran.err);
        says(&format!("tlsresumectl: no process has {path} open"));
        says(": the change is stored and holds for servers that start later");
    }
    let after = place.server().keys(clock::now());
    assert!(after.iter().all(|key| before.iter().all(|old| old.name != key.name)));
}

#[test]
fn processes_with_an_older_file_of_the_path_are_not_reached_which_ends_with_3() {
    let place = Place::new();
    let old = server(&place);
    fs::remove_file(place.memory()).expect("it is there");
    let new = place.server();
    for change in CHANGES {
        let ran = place.run(change);
        assert_eq!(ran.status, Some(3), "{}", ran.out);
        assert!(first_line(&ran).ends_with(": 1 process here"), "{}", ran.out);
        let said = "tlsresumectl: not reached: 3 processes have an older file of ";
        assert!(ran.err.starts_with(said) && ran.err.ends_with("; restart them\n"), "{}", ran.err);
    }
    let ran = place.run(&["--json", "keys", "revoke", "--all"]);
    assert_eq!(ran.status, Some(3));
    assert_eq!(json(&ran)["processes_with_another_file"], 3);
    // Nobody at all has the new one.
    drop(new);
    assert_eq!(place.run(&["keys", "revoke", "--all"]).status, Some(3));
    drop(old);
    assert_eq!(place.run(&["keys", "revoke", "--all"]).status, Some(2));
}

#[test]
fn servers_with_another_size_have_the_same_file() {
    let place = Place::new();
    let first = server(&place);
    let mut config = place.config();
    config.memory.size = 1 << 20;
    let _second = tlsresume::engine::Engine::new(config).expect("memory in /dev/shm");
    wait_until("all processes", LIMIT, || {
        let ran = place.run(&["keys", "revoke", "--all"]);
        assert_eq!(ran.status, Some(0), "{}", ran.err);
        first_line(&ran).ends_with(": 4 processes here")
    })
    .expect("three of the server, and this one");
    drop(first);
}

#[test]
fn a_path_with_spaces_and_newlines_is_found() {
    let place = Place::new();
    let folder = place.path("two words\nand (deleted)");
    fs::create_dir(&folder).expect("the folder is ours");
    let memory = folder.join("a b\n (deleted)");
    let mut config = place.config();
    config.memory.path = Some(memory.clone());
    let _own = tlsresume::engine::Engine::new(config.clone()).expect("memory in /dev/shm");
    let mut rotate = place.command(&["keys", "rotate"]);
    let ran = run(rotate.env("TLSRESUME_MEMORY_PATH", &memory));
    assert_eq!(ran.status, Some(0), "{}", ran.err);
    fs::remove_file(&memory).expect("it is there");
    let _new = tlsresume::engine::Engine::new(config).expect("memory in /dev/shm");
    let again = run(rotate.env("TLSRESUME_MEMORY_PATH", &memory));
    // The same process has both.
    assert_eq!(again.status, Some(0), "{}", again.err);
}

/// A node of a cluster: memory of its own, and its agent.
struct Node {
    place: Place,
    agent: Process,
    redis: String,
}

impl Node {
    fn of(redis: &RedisServer) -> Self {
        Node::with_secret(redis, "of this test alone, 32 bytes or more\n")
    }

    fn with_secret(redis: &RedisServer, secret: &str) -> Self {
        let place = Place::new();
        place.file("secret", secret);
        fs::set_permissions(
            place.path("secret"),
            std::os::unix::fs::PermissionsExt::from_mode(0o600),
        )
        .expect("ours");
        let redis = redis.url();
        let agent = started(Node::command(&place, &redis, &["agent"]));
        Node { place, agent, redis }
    }

    fn command(place: &Place, redis: &str, arguments: &[&str]) -> Command {
        let mut command = place.command(arguments);
        command.env("TLSRESUME_REDIS_URL", redis);
        command.env("TLSRESUME_CLUSTER_SECRET_FILE", place.path("secret"));
        command
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        run(&mut Node::command(&self.place, &self.redis, arguments))
    }

    fn gauge(&self, name: &str) -> Value {
        json(&self.run(&["--json", "metrics"]))[name].clone()
    }

    fn wait_for_nodes(&self, count: u64) {
        wait_until("the nodes to hear of each other", LIMIT, || {
            self.gauge("tlsresume_nodes") == count && self.gauge("tlsresume_nodes_out_of_sync") == 0
        })
        .expect("in time");
    }
}

#[test]
fn in_a_cluster_a_change_counts_the_nodes_that_say_they_have_it() {
    let redis = RedisServer::start().expect("redis");
    let (one, other) = (Node::of(&redis), Node::of(&redis));
    one.wait_for_nodes(2);
    let done = one.run(&["keys", "revoke", "--all"]);
    assert_eq!((done.status, done.err.as_str()), (Some(0), ""), "{}", done.out);
    assert!(first_line(&done).ends_with(": 1 process here, 2 nodes"), "{}", done.out);
    let names = |node: &Node| json(&node.run(&["--json", "keys", "list"]));
    assert_eq!(names(&one), names(&other), "when it says so, it is so");
    let done = one.run(&["--json", "sessions", "flush"]);
    let done = json(&done);
    assert_eq!((&done["nodes"], &done["nodes_not_reached"]), (&2.into(), &0.into()), "{done}");
}

#[test]
fn a_node_that_does_not_take_a_change_makes_it_end_with_3() {
    let redis = RedisServer::start().expect("redis");
    let (one, mut other) = (Node::of(&redis), Node::of(&redis));
    one.wait_for_nodes(2);
    other.agent.signal(libc::SIGSTOP).expect("it runs");
    let done = one.run(&["keys", "revoke", "--all"]);
    other.agent.signal(libc::SIGCONT).expect("it runs");
    assert_eq!(done.status, Some(3), "{}", done.out);
    assert!(first_line(&done).ends_with(": 1 process here, 1 node"), "{}", done.out);
    assert!(done.err.contains("1 of 2 nodes did not say "), "{}", done.err);
}

#[test]
fn a_cluster_that_is_not_reached_makes_a_change_end_with_3() {
    let mut redis = RedisServer::start().expect("redis");
    let node = Node::of(&redis);
    node.wait_for_nodes(1);
    redis.kill().expect("it runs");
    wait_until("the agent to notice", LIMIT, || {
        node.gauge("tlsresume_transport_up{transport=\"redis\"}") == 0
    })
    .expect("in time");
    let done = node.run(&["--json", "keys", "rotate"]);
    assert_eq!(done.status, Some(3), "{}", done.out);
    assert_eq!(json(&done)["transport_up"], false);
    assert!(done.err.contains("other nodes not reached: "), "{}", done.err);
}

#[test]
fn a_node_with_another_secret_is_named_by_status_on_both_sides_and_is_not_reached() {
    let redis = RedisServer::start().expect("redis");
    let secrets = ["of this test alone, 32 bytes or more\n", "of nobody, 32 bytes or more in it\n"];
    let nodes = secrets.map(|secret| Node::with_secret(&redis, secret));
    for node in &nodes {
        wait_until("the nodes to hear of each other", LIMIT, || {
            node.gauge("tlsresume_nodes_other_secret") == 1
        })
        .expect("in time");
    }
    let status = nodes.each_ref().map(|node| json(&node.run(&["--json", "status"])));
    assert_ne!(status[0]["secret"]["id"], status[1]["secret"]["id"]);
    for (node, (own, other)) in nodes.iter().zip([(0, 1), (1, 0)]) {
        let (own, other) = (&status[own], &status[other]);
        let file = node.place.path("secret").display().to_string();
        let expected = (&Value::from(file.clone()), &own["secret"]["id"]);
        assert_eq!((&own["secret"]["file"], &own["secret"]["in_use"]), expected);
        let id = &other["secret"]["id"];
        let nodes = serde_json::json!({
            "heard": 2, "out_of_sync": 1, "other_secret": 1, "other_secret_id": id,
        });
        assert_eq!(own["nodes"], nodes);
        let text = node.run(&["status"]).printed();
        let id = id.as_str().expect("text");
        let says = |words: &str| assert!(text.contains(words), "{text}");
        says(&format!("first in {file}"));
        says(&format!(
            "2 heard, 1 out of sync; 1 with a secret that is not in this node's file ({id})"
        ));
    }
    let done = nodes[0].run(&["keys", "revoke", "--all"]);
    assert_eq!(done.status, Some(3), "{}", done.out);
    assert!(
        done.err.contains("cluster.secret_file: 1 of them have another secret"),
        "{}",
        done.err
    );

    nodes[0].place.file("secret", secrets[1]);
    let text = nodes[0].run(&["status"]).printed();
    assert!(text.contains("; the agent seals with "), "{text}");
}
