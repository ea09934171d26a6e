//! Single sessions are looked up within the time that a handshake has for it, whatever Redis does.

use std::fs;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use tlsresume::clock::since_boot;
use tlsresume::cluster::lookup::{Answer, Asked, Key, Lookups};
use tlsresume::cluster::redis::{Credentials, Remote};
use tlsresume_testkit::redis::RedisServer;
use tlsresume_testkit::{Behaviour, Middleman, Stopwatch};

use crate::support::*;

/// What handshakes have in most tests; what a busy machine may add; what is enough for anything but a fault.
pub(crate) const BUDGET: Duration = Duration::from_millis(30);
const SLACK: Duration = Duration::from_millis(70);
pub(crate) const AMPLE: Duration = Duration::from_secs(1);

const THREADS: usize = 8;

pub(crate) fn lookups(url: &str, budget: Duration, threads: bool) -> Lookups {
    let remote = Remote::new(&[url.to_owned()], &Credentials::default(), "default");
    Lookups::new(Arc::new(remote.expect("a remote")), budget, threads)
}

pub(crate) fn key(number: u8) -> Key {
    [number; 24]
}

pub(crate) fn put(redis: &RedisServer, number: u8) {
    let name = format!("tlsresume:default:session:{}", hex::encode(key(number)));
    assert_eq!(redis.command(&["SET", &name, "sealed"]).expect("set"), "OK");
}

pub(crate) fn found() -> Answer {
    Answer::Found(b"sealed".to_vec())
}

/// How often a command was processed.
pub(crate) fn asked(redis: &RedisServer, command: &str) -> u64 {
    redis.info_commands(command).expect("statistics")
}

/// The answers that many threads get at once, and the longest time that one of them took.
fn fetch_at_once(
    lookups: &Lookups,
    count: usize,
    what: impl Fn(usize) -> (Key, bool) + Sync,
) -> (Vec<Answer>, Duration) {
    let start = Barrier::new(count);
    let fetch = &|number| {
        start.wait();
        let (stopwatch, (key, take)) = (Stopwatch::start(), what(number));
        (lookups.fetch(&key, take), stopwatch.elapsed())
    };
    let results: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..count).map(|it| scope.spawn(move || fetch(it))).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    let longest = results.iter().map(|(_, took)| *took).max().unwrap_or_default();
    (results.into_iter().map(|(answer, _)| answer).collect(), longest)
}

pub(crate) fn until_found(lookups: &Lookups, number: u8) {
    soon("an answer", || lookups.fetch(&key(number), false) == found());
}

/// A busy machine may add something, but not every time.
fn nobody_waits_longer(lookups: &Lookups, what: &str) {
    let what_each = |number| (key(u8::try_from(number).expect("small")), false);
    let longest: Vec<_> = (0..5).map(|_| fetch_at_once(lookups, THREADS, what_each).1).collect();
    let first_rounds = longest.iter().take(3).min().expect("rounds");
    assert!(*first_rounds < BUDGET + SLACK, "{what}: {longest:?}");
    assert!(longest.iter().all(|took| *took < BUDGET + AMPLE), "{what}: {longest:?}");
}

#[test]
fn an_answer_comes_within_the_budget_or_not_at_all() {
    let mut redis = RedisServer::start().expect("redis");
    (0..THREADS).for_each(|it| put(&redis, u8::try_from(it).expect("small")));
    for threads in [true, false] {
        let middleman = Middleman::start(redis.address()).expect("a middleman");
        let url = middleman.url(&redis.url());
        for behaviour in [
            Behaviour::Delay(2 * AMPLE),
            Behaviour::Garbage,
            Behaviour::Reset,
            Behaviour::BlackHole,
            Behaviour::Refuse,
            Behaviour::Trickle(Duration::from_millis(20)),
        ] {
            for connected in [true, false] {
                middleman.behave(Behaviour::Pass);
                let lookups = lookups(&url, BUDGET, threads);
                if connected {
                    until_found(&lookups, 0);
                }
                middleman.behave(behaviour);
                nobody_waits_longer(&lookups, &format!("{behaviour:?} {threads} {connected}"));
                middleman.behave(Behaviour::Pass);
                until_found(&lookups, 0);
            }
        }
        let lookups = lookups(&redis.url(), BUDGET, threads);
        until_found(&lookups, 0);
        redis.stop().expect("stopped");
        nobody_waits_longer(&lookups, "SIGSTOP");
        redis.cont().expect("continued");
        until_found(&lookups, 0);
    }
}

#[test]
fn after_three_failures_redis_is_not_asked_until_it_is_well() {
    let redis = RedisServer::start().expect("redis");
    put(&redis, 1);
    for threads in [true, false] {
        let middleman = Middleman::start(redis.address()).expect("a middleman");
        let lookups = lookups(&middleman.url(&redis.url()), BUDGET, threads);
        until_found(&lookups, 1);
        middleman.behave(Behaviour::BlackHole);
        let answers: Vec<_> = (0..3).map(|_| lookups.fetch(&key(1), false)).collect();
        assert_eq!(answers, [const { Answer::Unavailable }; 3]);
        // The thread may be about to look whether the third answer is there.
        let begun = since_boot();
        soon("the breaker", || lookups.fetch(&key(1), false) == Answer::Refused);
        assert!(since_boot() - begun < BUDGET / 2 + SLACK, "who waits is told when it opens");
        let begun = since_boot();
        assert!((0..1000).all(|_| lookups.fetch(&key(1), false) == Answer::Refused));
        assert!(since_boot() - begun < AMPLE, "at once");
        middleman.behave(Behaviour::Pass);
        until_found(&lookups, 1);
    }
}

#[test]
fn handshakes_that_wait_together_count_as_one_failure() {
    let redis = RedisServer::start().expect("redis");
    put(&redis, 1);
    let middleman = Middleman::start(redis.address()).expect("a middleman");
    let lookups = lookups(&middleman.url(&redis.url()), Duration::from_millis(100), true);
    until_found(&lookups, 1);
    middleman.behave(Behaviour::Delay(Duration::from_millis(600)));
    let (answers, _) = fetch_at_once(&lookups, THREADS, |_| (key(1), false));
    assert_eq!(answers, [const { Answer::Unavailable }; THREADS]);
    middleman.behave(Behaviour::Pass);
    assert_ne!(lookups.fetch(&key(1), false), Answer::Refused);
}

#[test]
fn answers_that_come_too_late_do_not_show_that_redis_is_well() {
    let redis = RedisServer::start().expect("redis");
    put(&redis, 1);
    let middleman = Middleman::start(redis.address()).expect("a middleman");
    let lookups = lookups(&middleman.url(&redis.url()), BUDGET, true);
    until_found(&lookups, 1);
    middleman.behave(Behaviour::Delay(3 * BUDGET));
    soon("the breaker", || lookups.fetch(&key(1), false) == Answer::Refused);
    let before = asked(&redis, "get");
    soon("probes", || asked(&redis, "get") >= before + 2);
    assert_eq!(lookups.fetch(&key(1), false), Answer::Refused);
    middleman.behave(Behaviour::Pass);
    until_found(&lookups, 1);
}

#[test]
fn where_look_ups_are_refused_redis_is_not_well_whatever_else_it_answers() {
    let redis = RedisServer::start().expect("redis");
    put(&redis, 1);
    let middleman = Middleman::start(redis.address()).expect("a middleman");
    let lookups = lookups(&middleman.url(&redis.url()), BUDGET, true);
    until_found(&lookups, 1);
    redis.command(&["ACL", "SETUSER", "default", "-get"]).expect("forbidden");
    middleman.record();
    soon("the breaker", || lookups.fetch(&key(1), false) == Answer::Refused);
    let refused = || String::from_utf8_lossy(&middleman.captured()).matches("NOPERM").count();
    let before = refused();
    soon("probes", || {
        assert_eq!(lookups.fetch(&key(1), false), Answer::Refused);
        refused() >= before + 3
    });
    redis.command(&["ACL", "SETUSER", "default", "+get"]).expect("permitted");
    until_found(&lookups, 1);
}

#[test]
fn where_look_ups_are_answered_redis_is_well_whatever_else_it_refuses() {
    let redis = RedisServer::start().expect("redis");
    put(&redis, 1);
    let middleman = Middleman::start(redis.address()).expect("a middleman");
    let lookups = lookups(&middleman.url(&redis.url()), BUDGET, true);
    until_found(&lookups, 1);
    middleman.behave(Behaviour::BlackHole);
    soon("the breaker", || lookups.fetch(&key(1), false) == Answer::Refused);
    redis.command(&["ACL", "SETUSER", "default", "-ping", "-set"]).expect("forbidden");
    redis.command(&["CONFIG", "SET", "maxmemory", "1"]).expect("full");
    middleman.behave(Behaviour::Pass);
    until_found(&lookups, 1);
}

#[test]
fn a_connection_that_takes_longer_than_the_budget_is_made_all_the_same() {
    let redis = RedisServer::start().expect("redis");
    put(&redis, 1);
    let middleman = Middleman::start(redis.address()).expect("a middleman");
    middleman.behave(Behaviour::Delay(3 * BUDGET));
    let lookups = lookups(&middleman.url(&redis.url()), BUDGET, true);
    lookups.warm_up();
    soon("a connection", || middleman.open_connections() == 1);
    soon("an answer", || {
        if lookups.fetch(&key(1), false) == Answer::Refused {
            middleman.behave(Behaviour::Pass);
        }
        lookups.fetch(&key(1), false) == found()
    });
    assert_eq!(middleman.arrivals(), 1, "the first connection serves");
}

/// What a connection takes that leaves too little of [`AMPLE`] for an answer, and an answer over it.
const MOST_OF_IT: Behaviour = Behaviour::Delay(Duration::from_millis(600));

#[test]
fn without_a_thread_a_connection_that_takes_most_of_the_budget_serves_the_next_handshake() {
    let redis = RedisServer::start().expect("redis");
    put(&redis, 1);
    let middleman = Middleman::start(redis.address()).expect("a middleman");
    middleman.behave(MOST_OF_IT);
    let lookups = lookups(&middleman.url(&redis.url()), AMPLE, false);
    assert_eq!(lookups.fetch(&key(1), false), Answer::Unavailable);
    assert_eq!(lookups.fetch(&key(1), false), found());
    assert_eq!(middleman.arrivals(), 1);
}

#[test]
fn without_a_thread_connections_that_are_late_and_then_lost_count_as_failures_but_the_first() {
    let redis = RedisServer::start().expect("redis");
    put(&redis, 1);
    let middleman = Middleman::start(redis.address()).expect("a middleman");
    middleman.behave(MOST_OF_IT);
    let lookups = lookups(&middleman.url(&redis.url()), AMPLE, false);
    let fetch = |_| {
        let answer = lookups.fetch(&key(1), false);
        redis.command(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).expect("killed");
        answer
    };
    let answers: Vec<_> = (0..5).map(fetch).collect();
    assert_eq!(answers[..4], [const { Answer::Unavailable }; 4]);
    assert_eq!(answers[4], Answer::Refused);
}

#[test]
fn a_connection_that_redis_ended_costs_no_handshake() {
    let redis = RedisServer::start().expect("redis");
    put(&redis, 1);
    for threads in [true, false] {
        let lookups = lookups(&redis.url(), AMPLE, threads);
        for _ in 0..5 {
            assert_eq!(lookups.fetch(&key(1), false), found());
            redis.command(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).expect("killed");
        }
    }
}

#[test]
fn handshakes_that_want_one_session_cost_one_question() {
    let redis = RedisServer::start().expect("redis");
    put(&redis, 1);
    let middleman = Middleman::start(redis.address()).expect("a middleman");
    let lookups = lookups(&middleman.url(&redis.url()), AMPLE, true);
    until_found(&lookups, 1);
    middleman.behave(Behaviour::Delay(AMPLE / 2));
    let before = asked(&redis, "get");
    let (answers, _) = fetch_at_once(&lookups, 2 * THREADS, |_| (key(1), false));
    assert!(answers.iter().all(|answer| *answer == found()), "{answers:?}");
    assert_eq!(asked(&redis, "get"), before + 1);
}

#[test]
fn a_session_that_is_taken_is_given_to_one() {
    let redis = RedisServer::start().expect("redis");
    let [one, other] = [true, false].map(|threads| lookups(&redis.url(), AMPLE, threads));
    for round in 0..10 {
        put(&redis, round);
        let fetch = |node| fetch_at_once(node, THREADS, |_| (key(round), true)).0;
        let (first, second) = thread::scope(|scope| {
            let second = scope.spawn(|| fetch(&other));
            (fetch(&one), second.join().expect("no panic"))
        });
        let given = first.iter().chain(&second).filter(|answer| **answer == found()).count();
        assert_eq!(given, 1, "{first:?} {second:?}");
    }
}

#[test]
fn an_absent_session_is_asked_for_a_few_times_however_long_one_waits() {
    let redis = RedisServer::start().expect("redis");
    let lookups = lookups(&redis.url(), Duration::from_millis(200), true);
    assert_eq!(lookups.fetch(&key(9), false), Answer::Absent);
    let count = asked(&redis, "get");
    // At 0, 1, 3, 7, ... 127 ms.
    assert!((1..=8).contains(&count), "{count}");
    // Somebody writes it in between.
    thread::scope(|scope| {
        let waiting = scope.spawn(|| lookups.fetch(&key(8), false));
        soon("the question", || asked(&redis, "get") > count);
        put(&redis, 8);
        assert_eq!(waiting.join().expect("no panic"), found());
    });
}

#[test]
fn what_nobody_waits_for_any_more_is_not_asked_again() {
    let mut redis = RedisServer::start().expect("redis");
    put(&redis, 1);
    let lookups = lookups(&redis.url(), BUDGET, true);
    until_found(&lookups, 1);
    let before = asked(&redis, "get");
    redis.stop().expect("stopped");
    for number in 0..20 {
        lookups.fetch(&key(number), number % 2 == 0);
    }
    redis.cont().expect("continued");
    until_found(&lookups, 1);
    let more = asked(&redis, "get") + asked(&redis, "getdel") - before;
    // Up to the breaker's opening, the probe that closes it, and one answer.
    assert!(more <= 7, "{more} questions");
}

#[test]
fn more_than_one_exchange_holds_are_all_answered() {
    let redis = RedisServer::start().expect("redis");
    (0..150).for_each(|number| put(&redis, number));
    let middleman = Middleman::start(redis.address()).expect("a middleman");
    let lookups = lookups(&middleman.url(&redis.url()), AMPLE, true);
    until_found(&lookups, 0);
    middleman.behave(Behaviour::Delay(Duration::from_millis(100)));
    let (answers, _) =
        fetch_at_once(&lookups, 150, |number| (key(u8::try_from(number).expect("small")), false));
    assert!(answers.iter().all(|answer| *answer == found()));
}

#[test]
fn a_full_redis_still_answers_and_one_that_lets_nobody_in_is_not_waited_for() {
    let redis = RedisServer::settings().password("secret").start().expect("redis");
    for (number, threads) in [(1, true), (2, false)] {
        put(&redis, number);
        let full = lookups(&redis.url(), AMPLE, threads);
        redis.command(&["CONFIG", "SET", "maxmemory", "1"]).expect("full");
        assert_eq!(full.fetch(&key(number), false), found());
        assert_eq!(full.fetch(&key(number), true), found());
        redis.command(&["CONFIG", "SET", "maxmemory", "0"]).expect("not full");
        let stranger = lookups(&redis.url().replace("secret", "wrong"), BUDGET, threads);
        nobody_waits_longer(&stranger, "a wrong password");
        assert_eq!(stranger.fetch(&key(1), false), Answer::Refused);
    }
}

#[test]
fn without_a_thread_those_who_wait_for_their_turn_give_up_and_blame_nobody() {
    let redis = RedisServer::start().expect("redis");
    put(&redis, 1);
    let middleman = Middleman::start(redis.address()).expect("a middleman");
    let lookups = lookups(&middleman.url(&redis.url()), BUDGET, false);
    until_found(&lookups, 1);
    middleman.behave(Behaviour::BlackHole);
    let (answers, took) = fetch_at_once(&lookups, THREADS, |_| (key(1), false));
    assert_eq!(answers, [const { Answer::Unavailable }; THREADS]);
    assert!(took < BUDGET + AMPLE, "{took:?}");
    middleman.behave(Behaviour::Pass);
    assert_ne!(lookups.fetch(&key(1), false), Answer::Refused);
}

#[test]
fn without_a_thread_those_whose_turn_comes_late_leave_the_connection_to_others() {
    let redis = RedisServer::start().expect("redis");
    (0..THREADS).for_each(|it| put(&redis, u8::try_from(it).expect("small")));
    let middleman = Middleman::start(redis.address()).expect("a middleman");
    let lookups = lookups(&middleman.url(&redis.url()), 40 * BUDGET, false);
    until_found(&lookups, 0);
    middleman.behave(Behaviour::Delay(8 * BUDGET));
    let before = middleman.arrivals();
    let mut answered = 0;
    for _ in 0..3 {
        let all =
            fetch_at_once(&lookups, THREADS, |it| (key(u8::try_from(it).expect("small")), false));
        answered += all.0.iter().filter(|answer| **answer == found()).count();
    }
    // Within half of the budget two are asked for at the least, one after the other.
    assert!(answered >= 6, "{answered}");
    assert_eq!(middleman.arrivals(), before, "no connection was lost");
}

#[test]
fn a_child_has_a_connection_of_its_own() {
    let redis = RedisServer::start().expect("redis");
    put(&redis, 1);
    let lookups = lookups(&redis.url(), AMPLE, true);
    for _ in 0..10 {
        until_found(&lookups, 1);
        a_child_sees(|| (0..3).all(|_| lookups.fetch(&key(1), false) == found()));
    }
    assert_eq!(lookups.fetch(&key(1), false), found());
}

#[test]
fn a_child_leaves_alone_what_has_the_number_of_its_parents_connection() {
    let redis = RedisServer::start().expect("redis");
    put(&redis, 1);
    let mut lookups = Some(lookups(&redis.url(), AMPLE, false));
    let is_found = |it: &Option<Lookups>| {
        it.as_ref().is_some_and(|lookups| lookups.fetch(&key(1), false) == found())
    };
    assert!(is_found(&lookups));
    let sockets = sockets_to(redis.address());
    let number = own_descriptor(&format!("socket:[{}]", sockets[0])).expect("our connection");
    let null = fs::File::open("/dev/null").expect("a file");
    for looks_up in [true, false] {
        a_child_sees(|| {
            // SAFETY: both are open; what was there is closed by its number, as children do with all that they inherit.
            let is_replaced = unsafe { libc::dup2(null.as_raw_fd(), number) } == number;
            let is_well = is_replaced && (!looks_up || is_found(&lookups));
            drop(lookups.take());
            // SAFETY: no precondition.
            is_well && unsafe { libc::fcntl(number, libc::F_GETFD) } >= 0
        });
    }
    assert!(is_found(&lookups), "and the parent has its own still");
    assert_eq!(sockets_to(redis.address()), sockets);
}

#[test]
fn a_child_does_not_wait_for_what_its_parent_asked() {
    let mut redis = RedisServer::start().expect("redis");
    put(&redis, 1);
    let lookups = lookups(&redis.url(), AMPLE, true);
    until_found(&lookups, 1);
    redis.stop().expect("stopped");
    let Asked::Waits(inquiry) = lookups.ask(&key(1), false, AMPLE) else {
        panic!("it is not answered")
    };
    let mut inquiry = Some(inquiry);
    a_child_sees(|| {
        let (begun, inquiry) = (since_boot(), inquiry.take());
        inquiry.is_some_and(|it| it.is_over() && it.answer(AMPLE) == Answer::Unavailable)
            && since_boot() - begun < AMPLE / 2
    });
    redis.cont().expect("continued");
    assert_eq!(inquiry.map(|it| it.answer(AMPLE)), Some(found()), "the parent does");
}

/// Runs `check` in a child, where it has to hold.
fn a_child_sees(check: impl FnOnce() -> bool) {
    wait_for(fork(check));
}

/// A child that runs `check`, and ends.
pub(crate) fn fork(check: impl FnOnce() -> bool) -> libc::pid_t {
    // SAFETY: the child calls nothing but what is under test, and ends at once.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let holds = check();
        // SAFETY: no precondition.
        unsafe { libc::_exit(if holds { 7 } else { 1 }) };
    }
    child
}

/// Waits until it has ended, and whatever it ran held.
pub(crate) fn wait_for(child: libc::pid_t) {
    let mut status = 0;
    // SAFETY: the status may be written.
    let ended = || unsafe { libc::waitpid(child, &raw mut status, libc::WNOHANG) } == child;
    soon("the child", ended);
    assert_eq!((libc::WIFEXITED(status), libc::WEXITSTATUS(status)), (true, 7));
}

/// The number of the descriptor that is this.
fn own_descriptor(target: &str) -> Option<RawFd> {
    let numbers = fs::read_dir("/proc/self/fd").expect("descriptors");
    numbers.flatten().find_map(|entry| {
        let link = fs::read_link(entry.path()).ok()?;
        (link.to_str() == Some(target)).then(|| entry.file_name().to_str()?.parse().ok()).flatten()
    })
}

#[test]
fn the_connection_ends_with_its_owner_and_is_not_among_the_applications_descriptors() {
    let redis = RedisServer::start().expect("redis");
    put(&redis, 1);
    let lookups = lookups(&redis.url(), AMPLE, true);
    until_found(&lookups, 1);
    let sockets = sockets_to(redis.address());
    assert_eq!(sockets.len(), 1);
    let ours: Vec<_> = fs::read_dir("/proc/self/fd")
        .expect("descriptors")
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .map(|link| link.to_string_lossy().into_owned())
        .collect();
    assert!(!ours.contains(&format!("socket:[{}]", sockets[0])), "{ours:?}");
    assert_eq!(redis.client_count().expect("clients"), 1);
    drop(lookups);
    soon("its end", || redis.client_count().is_ok_and(|count| count == 0));
}

/// The inodes of the established connections to an IPv4 address.
fn sockets_to(address: SocketAddr) -> Vec<String> {
    let remote = format!(":{:04X}", address.port());
    let table = fs::read_to_string("/proc/net/tcp").expect("connections");
    let inode = |line: &str| {
        let words: Vec<_> = line.split_whitespace().collect();
        let is_one = words.get(2)?.ends_with(&remote) && *words.get(3)? == "01";
        is_one.then(|| words.get(9).map(|inode| (*inode).to_owned())).flatten()
    };
    table.lines().filter_map(inode).collect()
}
