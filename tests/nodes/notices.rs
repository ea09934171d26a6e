//! Notices have no authority: whoever may write to Redis may write any number of them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use tlsresume::ring::KeyName;
use tlsresume_testkit::redis::RedisServer;
use tlsresume_testkit::say;

use crate::support::*;

/// How many fields of the ring's hash are nobody's, and about how many are read at once.
const JUNK: u32 = 1024;
const PAGE: f64 = 64.0;

/// A forged notice every so often.
const PAUSE: Duration = Duration::from_millis(25);

/// Fields with names of ours and values that are said to be sealed as one of ours is, which nobody opens.
fn fill_with_junk(redis: &RedisServer) {
    let keys = redis.ask(&["HKEYS", RING]).expect("answered");
    let key = keys.list().iter().filter_map(|it| it.bytes()).find(|it| it[0] == b'k');
    let sealed = redis.ask(&[b"HGET", RING.as_bytes(), key.expect("a key")]).expect("answered");
    let junk = [&sealed.bytes().expect("a value")[..5], &[7; 900]].concat();
    for block in 0..JUNK / 64 {
        let names = (0..64).map(|nth| {
            let mut name = [0xff; 17];
            name[0] = b'k';
            name[1..5].copy_from_slice(&(block * 64 + nth).to_le_bytes());
            name
        });
        let mut words = vec![b"HSET".to_vec(), RING.as_bytes().to_vec()];
        words.extend(names.flat_map(|name| [name.to_vec(), junk.clone()]));
        redis.ask(&words).expect("set");
    }
}

/// How often a page of a hash was read.
fn pages(redis: &RedisServer) -> f64 {
    let stats = redis.command(&["INFO", "commandstats"]).expect("answered");
    let calls = stats.lines().find_map(|line| line.strip_prefix("cmdstat_hscan:calls="));
    calls.and_then(|it| it.split(',').next()?.parse().ok()).unwrap_or(0.0)
}

/// Sets it at the end of its scope, also where a check fails there.
struct AtItsEnd<'a>(&'a AtomicBool);

impl Drop for AtItsEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Forges notices until it is over; each with a new token, if that is wanted.
fn forge(redis: &RedisServer, with_tokens: bool, over: &AtomicBool) {
    let notice = [&[1, 3][..], &[0xff; 8], &[0; 24]].concat();
    for nth in 0_u64.. {
        if over.load(Ordering::Relaxed) {
            return;
        }
        if with_tokens {
            let token = [[5; 8], nth.to_le_bytes()].concat();
            redis.ask(&[b"HSET", RING.as_bytes(), b"token", &token]).expect("set");
        }
        redis.ask(&[b"XADD", STREAM.as_bytes(), b"*", b"e", &notice]).expect("added");
        redis.command(&["PUBLISH", "tlsresume:{default}:notices", ""]).expect("told");
        thread::sleep(PAUSE);
    }
}

fn is_full(redis: &RedisServer) -> bool {
    let fields = redis.command(&["HLEN", RING]).expect("answered");
    fields.parse::<u32>().expect("a number") >= JUNK
}

/// Forged notices for as long as junk stays. Of a true change all hear all the same.
fn forged_notices_cost_so_many_reads_a_second(with_tokens: bool, reads_a_second: f64) {
    let redis = RedisServer::start().expect("redis");
    let nodes: [Node; 2] = Realm::on(&redis, "").nodes();
    fill_with_junk(&redis);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let _ends = AtItsEnd(&over);
        scope.spawn(|| forge(&redis, with_tokens, &over));
        let (before, begun) = (pages(&redis), instant());
        let name = nodes[0].issue().expect("a key");
        nodes[1].0.revoke_keys(Some(KeyName(name))).expect("revoked");
        soon("the revocation", || !nodes[0].opens(name));
        say(&format!("a change took {:?}", begun.elapsed()));
        soon("some seconds", || begun.elapsed() > Duration::from_secs(4));
        let seconds = begun.elapsed().as_secs_f64();
        assert!(is_full(&redis), "it is not known yet that junk stays");
        let reads = (pages(&redis) - before) / (f64::from(JUNK) / PAGE) / nodes.len() as f64;
        say(&format!("{reads} reads of each node in {seconds} s"));
        assert!(reads < 5.0 + reads_a_second * seconds, "{reads} reads in {seconds} s");
        soon("the end of the junk", || !is_full(&redis));
    });
    agree(&nodes);
}

#[test]
fn forged_notices_cost_no_read_of_the_ring_and_junk_that_nobody_opens_goes() {
    forged_notices_cost_so_many_reads_a_second(false, 0.5);
}

#[test]
fn forged_notices_with_forged_tokens_cost_two_reads_a_second_and_a_change_is_heard_of() {
    // The maker looks every two seconds in any case.
    forged_notices_cost_so_many_reads_a_second(true, 2.0 + 0.5);
}
