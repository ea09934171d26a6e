//! Whatever Redis does, handshakes do not wait for it, its state is told once, and what it missed is made up for.
//!
//! Each fault has a process of its own, whose log is its own.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tlsresume::engine::Lookup;
use tlsresume_testkit::Stopwatch;
use tlsresume_testkit::middleman::{Behaviour, Middleman};
use tlsresume_testkit::redis::{RedisServer, RedisSettings};

use crate::support::*;

/// Longer than that a call hardly ever takes, and never as long as anything that waits for Redis.
const QUICK: Duration = Duration::from_millis(5);
const WAITED: Duration = Duration::from_millis(150);

const DOWN: &str = "redis: not reached: ";
const REFUSING: &str = "redis: refuses what this node asks: ";
const UP_AGAIN: [&str; 2] = ["redis: reached again after ", "redis: accepting commands again"];

struct Fault {
    /// Path of the test.
    test: &'static str,
    redis: RedisSettings,
    begin: fn(&mut RedisServer, &Middleman),
    end: fn(&mut RedisServer, &Middleman),
    /// What each node says of it; none where it may go on unharmed.
    says: Option<&'static str>,
}

impl Default for Fault {
    fn default() -> Fault {
        let end = |_: &mut RedisServer, middleman: &Middleman| middleman.behave(Behaviour::Pass);
        Fault { test: "", redis: RedisServer::settings(), begin: |_, _| (), end, says: Some(DOWN) }
    }
}

impl Fault {
    fn survive(self) {
        let says = self.says;
        let Some(said) = alone(self.test, || self.strike()) else { return };
        // The agent's lines carry the time: they are written later.
        let is_agents =
            |line: &&str| line.starts_with("tlsresume: warn: [") && line.contains("] redis: ");
        let lines: Vec<_> = said.lines().filter(is_agents).collect();
        let count = |what: &str| lines.iter().filter(|line| line.contains(what)).count();
        let (bad, good) = (count(DOWN) + count(REFUSING), count(UP_AGAIN[0]) + count(UP_AGAIN[1]));
        assert_eq!((bad + good, bad), (lines.len(), good), "{lines:#?}");
        match says {
            Some(line) => assert_eq!((bad, count(line)), (2, 2), "{lines:#?}"),
            None => assert!(bad <= 2, "{lines:#?}"),
        }
    }

    fn strike(self) {
        let mut redis = self.redis.clone().start().expect("redis");
        let middleman = Middleman::start(redis.address()).expect("a middleman");
        let realm = Realm::at(&middleman.url(&redis.url()), "");
        let nodes: [Node; 2] = realm.nodes();
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let handshakes = scope.spawn(|| handshakes(&nodes[0], &is_over));
            // Also when a claim fails: the scope waits for them.
            let ends = Ends(&is_over);
            (self.begin)(&mut redis, &middleman);
            let missed = nodes[0].keep(b"meanwhile");
            if self.says.is_some() {
                soon("to be noticed", || nodes.iter().all(|node| !node.is_up()));
            } else {
                // Two heartbeats.
                let begun = instant();
                soon("4 s", || begun.elapsed() > Duration::from_secs(4));
            }
            (self.end)(&mut redis, &middleman);
            nodes[1].finds_soon(&missed);
            agree(&nodes);
            let id = nodes[1].keep(b"after");
            nodes[0].finds_soon(&id);
            drop(ends);
            let [slow, waited, all] = handshakes.join().expect("no panic");
            assert!(waited == 0 && slow <= 3 + all / 50, "of {all}, {slow} slow, {waited} waited");
        });
        // Before Redis ends, which they would tell.
        nodes.into_iter().for_each(end);
    }
}

/// Sets a flag at its end.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// What a handshake asks, again and again: how often it took long, waited, was done at all.
fn handshakes(node: &Node, is_over: &AtomicBool) -> [usize; 3] {
    let mut counts = [0; 3];
    while !is_over.load(Ordering::Acquire) {
        let stopwatch = Stopwatch::start();
        let name = node.issue().expect("a key");
        assert!(node.opens(name));
        let id = node.keep(b"a session");
        assert!(node.find(&id, Lookup::Keep).is_some());
        let took = stopwatch.elapsed();
        counts[0] += usize::from(took > QUICK);
        counts[1] += usize::from(took > WAITED);
        counts[2] += 1;
        std::thread::park_timeout(Duration::from_millis(2));
    }
    counts
}

#[test]
fn one_that_is_stopped() {
    Fault {
        test: "faults::one_that_is_stopped",
        begin: |redis, _| redis.stop().expect("stopped"),
        end: |redis, _| redis.cont().expect("continued"),
        ..Fault::default()
    }
    .survive();
}

#[test]
fn one_that_is_killed_and_starts_empty() {
    Fault {
        test: "faults::one_that_is_killed_and_starts_empty",
        begin: |redis, _| redis.kill().expect("killed"),
        // What was written to the stream is lost, but not what was never written.
        end: |redis, _| redis.restart_empty().expect("started"),
        ..Fault::default()
    }
    .survive();
}

#[test]
fn one_that_forgets_our_password() {
    Fault {
        test: "faults::one_that_forgets_our_password",
        redis: RedisServer::settings().user("tls", "word", "~* &* +@all"),
        begin: |redis, _| {
            redis.command(&["ACL", "SETUSER", "tls", "resetpass", ">other"]).expect("set");
            redis.command(&["CLIENT", "KILL", "USER", "tls"]).expect("killed");
        },
        end: |redis, _| {
            redis.command(&["ACL", "SETUSER", "tls", "resetpass", ">word"]).expect("set");
        },
        ..Fault::default()
    }
    .survive();
}

#[test]
fn one_that_forbids_what_it_allowed() {
    Fault {
        test: "faults::one_that_forbids_what_it_allowed",
        redis: RedisServer::settings().user("tls", "word", "~* &* +@all"),
        begin: |redis, _| {
            redis.command(&["ACL", "SETUSER", "tls", "-xadd", "-hset"]).expect("set");
        },
        end: |redis, _| {
            redis.command(&["ACL", "SETUSER", "tls", "+@all"]).expect("set");
        },
        says: Some(REFUSING),
    }
    .survive();
}

#[test]
fn one_that_is_full() {
    Fault {
        test: "faults::one_that_is_full",
        redis: RedisServer::settings().max_memory("1gb", "noeviction"),
        begin: |redis, _| {
            redis.command(&["CONFIG", "SET", "maxmemory", "1"]).expect("set");
        },
        end: |redis, _| {
            redis.command(&["CONFIG", "SET", "maxmemory", "1gb"]).expect("set");
        },
        says: Some(REFUSING),
    }
    .survive();
}

#[test]
fn one_that_only_reads() {
    Fault {
        test: "faults::one_that_only_reads",
        begin: |redis, _| {
            redis.command(&["REPLICAOF", "127.0.0.1", "1"]).expect("a replica");
        },
        end: |redis, _| {
            redis.command(&["REPLICAOF", "NO", "ONE"]).expect("a master");
        },
        ..Fault::default()
    }
    .survive();
}

#[test]
fn one_that_is_loading() {
    Fault {
        test: "faults::one_that_is_loading",
        redis: RedisServer::settings().config("key-load-delay 500"),
        begin: |redis, _| {
            let pairs: Vec<_> = (0..3000).map(|nth| nth.to_string()).collect();
            let words = std::iter::once("MSET").chain(pairs.iter().map(String::as_str));
            redis.command(&words.collect::<Vec<_>>()).expect("filled");
            let dump = redis.dump().expect("a dump");
            redis.restore(&dump).expect("restored");
        },
        end: |_, _| (),
        says: None,
    }
    .survive();
}

#[test]
fn one_that_is_slow() {
    Fault {
        test: "faults::one_that_is_slow",
        begin: |_, middleman| middleman.behave(Behaviour::Delay(Duration::from_millis(500))),
        says: None,
        ..Fault::default()
    }
    .survive();
}

#[test]
fn one_that_trickles() {
    Fault {
        test: "faults::one_that_trickles",
        begin: |_, middleman| middleman.behave(Behaviour::Trickle(Duration::from_millis(20))),
        says: None,
        ..Fault::default()
    }
    .survive();
}

#[test]
fn one_that_talks_nonsense() {
    Fault {
        test: "faults::one_that_talks_nonsense",
        begin: |_, middleman| middleman.behave(Behaviour::Garbage),
        ..Fault::default()
    }
    .survive();
}

#[test]
fn one_that_hangs_up() {
    Fault {
        test: "faults::one_that_hangs_up",
        begin: |_, middleman| middleman.behave(Behaviour::Reset),
        ..Fault::default()
    }
    .survive();
}

#[test]
fn one_that_refuses_connections() {
    Fault {
        test: "faults::one_that_refuses_connections",
        begin: |_, middleman| middleman.behave(Behaviour::Refuse),
        ..Fault::default()
    }
    .survive();
}

#[test]
fn one_that_swallows_everything() {
    Fault {
        test: "faults::one_that_swallows_everything",
        begin: |_, middleman| middleman.behave(Behaviour::BlackHole),
        ..Fault::default()
    }
    .survive();
}

#[test]
fn one_that_does_not_tell_is_asked() {
    let rules = "~tlsresume:* +@all -subscribe -publish";
    let redis = RedisServer::settings().user("tls", "word", rules).start().expect("redis");
    let nodes: [Node; 2] = Realm::on(&redis, "").nodes();
    for _ in 0..3 {
        let id = nodes[0].keep(b"a session");
        nodes[1].finds_soon(&id);
    }
    assert!(nodes.iter().all(Node::is_up));
}

/// How often it does so.
const CUTS: u32 = 12;

#[test]
fn one_that_cuts_every_connection_is_told_of_once_and_not_hurried() {
    let said =
        alone("faults::one_that_cuts_every_connection_is_told_of_once_and_not_hurried", || {
            let redis = RedisServer::start().expect("redis");
            let nodes: [Node; 1] = Realm::on(&redis, "").nodes();
            let begun = instant();
            for _ in 0..CUTS {
                soon("up", || nodes[0].is_up());
                for kind in ["normal", "pubsub"] {
                    redis.command(&["CLIENT", "KILL", "TYPE", kind]).expect("cut");
                }
                soon("the cut", || !nodes[0].is_up());
            }
            let took = begun.elapsed();
            assert!(took > CUTS * Duration::from_millis(375), "{CUTS} connections in {took:?}");
            agree(&nodes);
            nodes.into_iter().for_each(end);
        });
    let Some(said) = said else { return };
    for line in [DOWN, UP_AGAIN[0]] {
        assert_eq!(said.lines().filter(|it| it.contains(line)).count(), 1, "{said}");
    }
}
