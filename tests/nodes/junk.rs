//! Somebody fills what the nodes share with something else: they find what is theirs, and take the rest out.

use tlsresume::engine::Lookup;
use tlsresume::stats::{Counter, Gauge};
use tlsresume_testkit::redis::RedisServer;

use crate::support::*;

/// Writes fields whose names begin so, each with a value of so many bytes.
fn fill(redis: &RedisServer, hash: &str, begin: &str, count: u32, length: u32) {
    const FILL: &str = "\
        for nth = 1, tonumber(ARGV[2]) do \
            redis.call('HSET', KEYS[1], ARGV[1] .. string.format('%015d', nth), \
                string.rep('x', tonumber(ARGV[3]))) \
        end";
    let (count, length) = (count.to_string(), length.to_string());
    redis.command(&["EVAL", FILL, "1", hash, begin, &count, &length]).expect("filled");
}

/// Short fields, but more lines than are read in one answer.
fn fill_with_lines(redis: &RedisServer, hash: &str) {
    const FILL: &str = "\
        for nth = 1, 9 do \
            redis.call('HSET', KEYS[1], 'lines' .. nth, string.rep('\\n', 16000)) \
        end";
    redis.command(&["EVAL", FILL, "1", hash]).expect("filled");
}

#[test]
fn values_of_many_lines_stop_nothing_and_go() {
    let (_nodes, redis) = go_on_in_spite_of(|redis| {
        fill_with_lines(redis, RING);
        fill_with_lines(redis, NODES);
    });
    soon("the end of it", || fields(&redis, RING) < 30 && fields(&redis, NODES) == 3);
}

#[test]
fn other_things_under_our_names_stop_nothing_and_go() {
    let fillings: [fn(&RedisServer); 4] = [
        |redis| replace(redis, &["SET", RING, "x"]),
        |redis| replace(redis, &["SET", NODES, "x"]),
        |redis| replace(redis, &["RPUSH", MAKER, "x"]),
        |redis| replace(redis, &["RPUSH", STREAM, "x"]),
    ];
    for fill in fillings {
        let (nodes, _redis) = go_on_in_spite_of(fill);
        let counted = nodes.iter().map(|node| node.count(Counter::TransportRejectedFormat));
        assert_eq!(counted.sum::<u64>(), 1, "counted by the one that took it away");
    }
}

#[test]
fn a_key_of_another_type_is_no_session_and_no_trouble() {
    let redis = RedisServer::start().expect("redis");
    let realm = Realm::pulling(&redis.url(), "");
    let [one, two]: [Node; 2] = realm.nodes();
    for round in 0..5 {
        let (strange, sound) = (one.keep(b"a session"), one.keep(b"another"));
        one.finds_soon(&sound);
        let key = format!("tlsresume:default:session:{}", hex::encode(&strange[..24]));
        soon("the session", || redis.command(&["EXISTS", &key]).expect("answered") == "1");
        replace(&redis, &["RPUSH", &key, "x"]);
        assert!(two.find(&strange, Lookup::Keep).is_none());
        // Five in a row would have opened the breaker.
        assert!(two.find(&sound, Lookup::Keep).is_some(), "round {round}");
    }
}

/// Puts something else there, in one step.
fn replace(redis: &RedisServer, command: &[&str]) {
    const REPLACE: &str = "\
        redis.call('DEL', KEYS[1]) \
        redis.call(ARGV[1], KEYS[1], ARGV[2])";
    let [name, key, value] = command else { unreachable!("three words") };
    redis.command(&["EVAL", REPLACE, "1", key, name, value]).expect("replaced");
}

#[test]
fn entries_that_are_not_ours_stop_nothing() {
    const FIELDS: &str = "\
        local all = {} \
        for nth = 1, 3000 do all[#all + 1] = 'a' .. nth all[#all + 1] = '' end \
        for nth = 1, 40 do redis.call('XADD', KEYS[1], '*', unpack(all)) end";
    const LINES: &str = "redis.call('XADD', KEYS[1], '*', 'e', string.rep('\\n', 150000))";
    let redis = RedisServer::start().expect("redis");
    let realm = Realm::on(&redis, "");
    let nodes: [Node; 2] = realm.nodes();
    let strange: [&[u8]; 5] = [b"XADD", STREAM.as_bytes(), b"*", b"\xff", b"x"];
    redis.ask(&strange).expect("added");
    redis.command(&["EVAL", FIELDS, "1", STREAM]).expect("added");
    redis.command(&["EVAL", LINES, "1", STREAM]).expect("added");
    redis.ask(&strange).expect("added");
    let id = nodes[0].keep(b"a session");
    nodes[1].finds_soon(&id);
    agree(&[nodes, [realm.node(), realm.node()]].into_iter().flatten().collect::<Vec<_>>());
}

fn fields(redis: &RedisServer, hash: &str) -> u64 {
    redis.command(&["HLEN", hash]).expect("answered").parse().expect("a number")
}

/// Nodes that are there, and one that joins, agree and see each other, whatever else is in the hashes.
fn go_on_in_spite_of(fill: impl Fn(&RedisServer)) -> ([Node; 3], RedisServer) {
    let redis = RedisServer::start().expect("redis");
    let realm = Realm::on(&redis, "");
    let [one, two]: [Node; 2] = realm.nodes();
    fill(&redis);
    one.0.rotate_keys().expect("rotated");
    let nodes = [one, two, realm.node()];
    agree(&nodes);
    let id = nodes[0].keep(b"a session");
    nodes[2].finds_soon(&id);
    soon("three nodes", || {
        nodes.iter().all(|node| {
            let report = node.0.report(now());
            (report.gauge(Gauge::Nodes), report.gauge(Gauge::NodesOutOfSync)) == (3, 0)
        })
    });
    (nodes, redis)
}

#[test]
fn fields_that_are_not_ours_stop_nothing_and_go() {
    for count in [4097, 100_000] {
        let (nodes, redis) = go_on_in_spite_of(|redis| {
            fill(redis, RING, "junk", count, 20);
            fill(redis, NODES, "junk", count, 20);
        });
        soon("the end of it", || fields(&redis, RING) < 30 && fields(&redis, NODES) == 3);
        let counted: u64 =
            nodes.iter().map(|node| node.count(Counter::TransportRejectedFormat)).sum();
        assert_eq!(counted, 2 * u64::from(count), "each by the one that took it out");
    }
}

#[test]
fn fields_with_our_names_stop_nothing_and_only_some_of_them_stay() {
    // Sealed by nobody, and under names that keys and nodes have.
    let (_nodes, redis) = go_on_in_spite_of(|redis| {
        fill(redis, RING, "kk", 20_000, 100);
        fill(redis, NODES, "0", 20_000, 100);
    });
    soon("fewer", || fields(&redis, RING) < 5000 && fields(&redis, NODES) < 5000);
}

#[test]
fn values_that_are_too_long_are_not_read() {
    let (_nodes, redis) = go_on_in_spite_of(|redis| {
        fill(redis, RING, "kk", 40, 1 << 20);
        fill(redis, NODES, "0", 40, 1 << 20);
    });
    soon("the end of them", || fields(&redis, RING) < 30 && fields(&redis, NODES) == 3);
}

#[test]
fn a_token_of_any_length_stops_nothing_and_goes() {
    for length in [17, 64, 65, 100, 1024, 1 << 20] {
        let (_nodes, redis) = go_on_in_spite_of(|redis| {
            redis.command(&["DEL", RING]).expect("gone");
            redis.command(&["HSET", RING, "token", &"x".repeat(length)]).expect("set");
        });
        let token = || redis.command(&["HGET", RING, "token"]).expect("answered");
        soon("a token of ours", || token().len() != length);
    }
}

#[test]
fn a_maker_that_is_no_node_stops_nothing_and_goes() {
    for junk in ["x", &"\n".repeat(140_000)] {
        let (nodes, redis) = go_on_in_spite_of(|redis| replace(redis, &["SET", MAKER, junk]));
        let maker = || redis.command(&["GET", MAKER]).expect("answered");
        soon("another maker", || maker().len() == 16);
        drop(nodes);
    }
}

#[test]
fn a_stream_that_takes_no_more_entries_goes() {
    const LAST: &str = "18446744073709551615-18446744073709551615";
    let (nodes, _redis) = go_on_in_spite_of(|redis| {
        redis.command(&["XADD", STREAM, LAST, "e", "x"]).expect("added");
    });
    let id = nodes[1].keep(b"another session");
    nodes[0].finds_soon(&id);
}

#[test]
fn stretches_of_entries_that_are_not_ours_are_passed_soon() {
    const ADD: &str = "\
        for nth = 1, tonumber(ARGV[1]) do \
            redis.call('XADD', KEYS[1], '*', ARGV[3], string.rep('x', tonumber(ARGV[2]))) \
        end";
    for (count, length, field) in [("64", "4194304", "e"), ("5000", "10", "x")] {
        let redis = RedisServer::start().expect("redis");
        let nodes: [Node; 2] = Realm::on(&redis, "").nodes();
        redis.command(&["EVAL", ADD, "1", STREAM, count, length, field]).expect("added");
        let id = nodes[0].keep(b"a session");
        nodes[1].finds_soon(&id);
        agree(&nodes);
    }
}
