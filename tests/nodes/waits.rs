//! How long threads wait for Redis, and what Redis is blamed for.

use std::thread;
use std::time::Duration;

use tlsresume::clock::since_boot;
use tlsresume::cluster::lookup::Answer;
use tlsresume::engine::Lookup;
use tlsresume::stats::Counter;
use tlsresume_testkit::redis::RedisServer;
use tlsresume_testkit::{Behaviour, Middleman};

use crate::lookups::{AMPLE, BUDGET, asked, fork, found, key, lookups, put, until_found, wait_for};
use crate::support::*;

#[test]
fn questions_to_a_redis_that_is_far_away_are_under_way_at_the_same_time() {
    const FAR: Duration = Duration::from_millis(400);
    let redis = RedisServer::start().expect("redis");
    (0..5).for_each(|number| put(&redis, number));
    let middleman = Middleman::start(redis.address()).expect("a middleman");
    let lookups = lookups(&middleman.url(&redis.url()), AMPLE, true);
    until_found(&lookups, 0);
    middleman.behave(Behaviour::Far(FAR));
    let start = since_boot();
    let fetch = |number: u8| {
        soon("its turn", || since_boot() >= start + u32::from(number) * FAR / 4);
        let begun = since_boot();
        (lookups.fetch(&key(number), false), since_boot() - begun)
    };
    let seen: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (1..5).map(|it| scope.spawn(move || fetch(it))).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    // One after the other, the second would have waited for the first for three quarters of that.
    let is_soon = |(answer, took): &(Answer, Duration)| *answer == found() && *took < FAR * 3 / 2;
    assert!(seen.iter().all(is_soon), "{seen:?}");
}

#[test]
fn a_process_that_gets_no_processor_does_not_take_redis_for_silent() {
    const STOPS: u64 = 6;
    let redis = RedisServer::start().expect("redis");
    (0..20).for_each(|number| put(&redis, number));
    let middleman = Middleman::start(redis.address()).expect("a middleman");
    middleman.behave(Behaviour::Far(BUDGET * 2 / 3));
    let lookups = lookups(&middleman.url(&redis.url()), BUDGET, true);
    let child = fork(|| {
        let refused = |number| lookups.fetch(&key(number), false) == Answer::Refused;
        (0..20).filter(|number| refused(*number)).count() == 0
    });
    for stop in 0..STOPS {
        soon("a question", || asked(&redis, "get") > stop);
        let since = since_boot();
        // SAFETY: a child of ours that was not waited for.
        unsafe { libc::kill(child, libc::SIGSTOP) };
        soon("the end of the budget", || since_boot() > since + 2 * BUDGET);
        // SAFETY: as above.
        unsafe { libc::kill(child, libc::SIGCONT) };
    }
    wait_for(child);
}

#[test]
fn a_session_that_redis_does_not_have_is_not_asked_for_again_at_once_and_is_a_second_later() {
    let redis = RedisServer::start().expect("redis");
    for (number, threads) in [(1, true), (2, false)] {
        let lookups = lookups(&redis.url(), AMPLE / 4, threads);
        assert_eq!(lookups.fetch(&key(number), false), Answer::Absent);
        let (before, since) = (asked(&redis, "get"), since_boot());
        let again = (0..100).all(|_| lookups.fetch(&key(number), false) == Answer::Absent);
        assert!(again && (asked(&redis, "get") == before || since_boot() - since > AMPLE / 2));
        put(&redis, number);
        until_found(&lookups, number);
    }
}

#[test]
fn a_thread_waits_for_its_share_of_the_time_and_then_goes_on_without_the_sessions_of_others() {
    const SESSIONS: usize = 30;
    let redis = RedisServer::start().expect("redis");
    let middleman = Middleman::start(redis.address()).expect("a middleman");
    let near = Realm::pulling(&redis.url(), "").node();
    let far = Realm::pulling(&middleman.url(&redis.url()), "").node();
    let (near, far) = (&near, &far);
    soon("one ring", || far.opens(near.issue().unwrap_or_default()));
    let ids: Vec<_> = (0..SESSIONS).map(|_| near.keep(b"value")).collect();
    let others = Realm::pulling(&redis.url(), "").node();
    ids.iter().for_each(|id| others.finds_soon(id));
    let own = far.keep(b"value");

    middleman.behave(Behaviour::Far(Duration::from_millis(80)));
    let finds = |id: &[u8; 32]| far.find_here(id, Lookup::Keep).is_some();
    let (found, took) = thread::scope(|scope| {
        let crowded = scope.spawn(|| {
            let begun = since_boot();
            let found = ids.iter().filter(|id| finds(id)).count();
            assert!(finds(&own), "what is here is not waited for");
            (found, since_boot() - begun)
        });
        crowded.join().expect("no panic")
    });
    let skipped = far.count(Counter::LookupsSkipped);
    assert!((1..5).contains(&found) && skipped >= 20, "{found}, {skipped}");
    assert!(took < Duration::from_millis(800), "not 80 ms for each: {took:?}");

    // Of threads with one client each, none holds anybody up.
    let last = &ids[SESSIONS - 4..];
    let found = thread::scope(|scope| {
        let threads: Vec<_> = last.iter().map(|id| scope.spawn(move || finds(id))).collect();
        threads.into_iter().map(|it| it.join().expect("no panic")).collect::<Vec<_>>()
    });
    assert!(found.iter().filter(|found| **found).count() >= 3, "{found:?}");
    assert_eq!(far.count(Counter::LookupsSkipped), skipped);
}
