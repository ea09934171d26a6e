//! The kit's Redis servers, and the middleman before them, do what tests of the cluster rely on.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use tlsresume_testkit::installed::certs::Mutual;
use tlsresume_testkit::redis::{RespClient, key_slot};
use tlsresume_testkit::{
    Behaviour, DEADLINE, Error, Middleman, Process, RedisCluster, RedisServer, Result,
    SentinelGroup, wait_until,
};

/// For answers that must not come.
const MOMENT: Duration = Duration::from_secs(1);

fn connect(address: SocketAddr) -> Result<RespClient> {
    RespClient::connect(address, DEADLINE)
}

fn contains(bytes: &[u8], wanted: &str) -> bool {
    bytes.windows(wanted.len()).any(|part| part == wanted.as_bytes())
}

fn refusal<T>(result: Result<T>) -> String {
    result.map(drop).expect_err("this must not work").to_string()
}

fn is_alive(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

// ---- one server ----

#[test]
fn a_server_answers_at_its_port_and_at_its_socket() -> Result<()> {
    let redis = RedisServer::start()?;
    assert_eq!(redis.url(), format!("redis://{}", redis.address()));
    assert_eq!(connect(redis.address())?.command(&["SET", "key", "value"])?, "OK");
    let mut local = RespClient::connect_unix(&redis.socket_path(), DEADLINE)?;
    assert_eq!(local.command(&["GET", "key"])?, "value");
    assert_eq!(redis.command(&["GET", "other"])?, "(nil)");
    Ok(())
}

#[test]
fn a_server_with_a_socket_alone_has_no_port() -> Result<()> {
    let redis = RedisServer::settings().unix_socket().password("secret").start()?;
    let path = redis.socket_path();
    assert_eq!(redis.url(), format!("redis+unix://{}?pass=secret", path.display()));
    assert!(connect(redis.address()).is_err());
    assert_eq!(RespClient::connect_unix(&path, DEADLINE)?.command(&["AUTH", "secret"])?, "OK");
    Ok(())
}

#[test]
fn a_password_is_asked_for() -> Result<()> {
    let redis = RedisServer::settings().password("secret").start()?;
    assert_eq!(redis.url(), format!("redis://:secret@{}", redis.address()));
    let mut client = connect(redis.address())?;
    assert!(refusal(client.command(&["GET", "key"])).contains("NOAUTH"));
    assert_eq!(client.command(&["AUTH", "secret"])?, "OK");
    assert_eq!(client.command(&["GET", "key"])?, "(nil)");
    Ok(())
}

#[test]
fn a_user_may_do_what_its_rules_say_and_nobody_else_gets_in() -> Result<()> {
    let redis = RedisServer::settings().user("node", "secret", "~tlsresume:* +get").start()?;
    assert_eq!(redis.url(), format!("redis://node:secret@{}", redis.address()));
    let mut client = connect(redis.address())?;
    assert!(refusal(client.command(&["GET", "tlsresume:1"])).contains("NOAUTH"));
    assert_eq!(client.command(&["AUTH", "node", "secret"])?, "OK");
    assert_eq!(client.command(&["GET", "tlsresume:1"])?, "(nil)");
    assert!(refusal(client.command(&["GET", "other"])).contains("NOPERM"));
    assert!(refusal(client.command(&["SET", "tlsresume:1", ""])).contains("NOPERM"));
    Ok(())
}

#[test]
fn a_client_is_asked_for_its_certificate() -> Result<()> {
    let (mutual, other) = (Mutual::new()?, Mutual::new()?);
    let redis = RedisServer::settings().tls(&mutual).start()?;
    assert_eq!(redis.url(), format!("rediss://{}", redis.address()));
    let answer = |client: Option<&Mutual>| {
        let mut command = Command::new("redis-cli");
        command.args(["-h", "127.0.0.1", "-p", &redis.address().port().to_string()]);
        command.args(["--tls", "--cacert"]).arg(&mutual.authority);
        if let Some(Mutual { client, .. }) = client {
            command.arg("--cert").arg(&client.certificate).arg("--key").arg(&client.key);
        }
        command.arg("PING");
        let mut process = Process::start(command, "redis-tools")?;
        process.wait_end(DEADLINE)?;
        Ok::<_, Error>(process.transcript().stdout().any(|line| line == "PONG"))
    };
    assert!(answer(Some(&mutual))?);
    assert!(!answer(Some(&other))?);
    assert!(!answer(None)?);
    Ok(())
}

#[test]
fn a_full_server_refuses_to_write() -> Result<()> {
    let redis = RedisServer::settings().max_memory("2mb", "noeviction").start()?;
    let value = "v".repeat(100_000);
    let refused = (0..40).find_map(|n| redis.command(&["SET", &n.to_string(), &value]).err());
    assert!(refused.expect("40 values are 4 MB").to_string().contains("OOM"));
    assert_eq!(redis.command(&["STRLEN", "0"])?, "100000");
    Ok(())
}

#[test]
fn a_stopped_redis_answers_again_after_it_continues() -> Result<()> {
    let mut redis = RedisServer::start()?;
    redis.stop()?;
    let mut hasty = RespClient::connect(redis.address(), MOMENT)?;
    assert!(hasty.command(&["PING"]).is_err());
    redis.cont()?;
    assert_eq!(connect(redis.address())?.command(&["PING"])?, "PONG");
    Ok(())
}

#[test]
fn a_stopped_redis_does_not_outlive_its_test() -> Result<()> {
    let mut redis = RedisServer::start()?;
    let (pid, folder) = (redis.pid(), redis.folder().path().to_owned());
    redis.stop()?;
    let begin = Instant::now();
    drop(redis);
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    assert!(!is_alive(pid) && !folder.exists());
    Ok(())
}

#[test]
fn a_redis_does_not_outlive_a_test_that_panics() -> Result<()> {
    let redis = RedisServer::start()?;
    let pid = redis.pid();
    let panicked = panic::catch_unwind(AssertUnwindSafe(move || {
        let _redis = redis;
        panic!("this is part of the test");
    }));
    assert!(panicked.is_err() && !is_alive(pid));
    Ok(())
}

#[test]
fn a_killed_redis_comes_back_empty_at_the_same_port() -> Result<()> {
    let mut redis = RedisServer::start()?;
    let (address, pid) = (redis.address(), redis.pid());
    redis.command(&["SET", "key", "value"])?;
    redis.dump()?;
    redis.kill()?;
    let refused = TcpStream::connect(address).expect_err("nobody listens");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    redis.restart_empty()?;
    assert_eq!((redis.address(), redis.command(&["DBSIZE"])?.as_str()), (address, "0"));
    assert_ne!(redis.pid(), pid);
    Ok(())
}

#[test]
fn a_dump_holds_what_was_set() -> Result<()> {
    let redis = RedisServer::start()?;
    let value = "a compressible value ".repeat(50);
    redis.command(&["SET", "key", &value])?;
    redis.command(&["XADD", "stream", "*", "field", &value])?;
    redis.command(&["HSET", "hash", "field", "of a hash"])?;
    let dump = redis.dump()?;
    assert!(contains(&dump, &value));
    assert!(contains(&dump, "of a hash"));
    assert_eq!(dump.windows(value.len()).filter(|part| *part == value.as_bytes()).count(), 2);
    Ok(())
}

#[test]
fn an_append_only_file_holds_what_was_deleted() -> Result<()> {
    let redis = RedisServer::settings().append_only().start()?;
    redis.command(&["SET", "key", "value"])?;
    redis.command(&["DEL", "key"])?;
    assert!(contains(&redis.append_only_file()?, "value"));
    assert!(!contains(&redis.dump()?, "value"));
    Ok(())
}

#[test]
fn an_old_dump_brings_back_the_past() -> Result<()> {
    for settings in [RedisServer::settings(), RedisServer::settings().append_only()] {
        let mut redis = settings.start()?;
        redis.command(&["SET", "key", "old"])?;
        let dump = redis.dump()?;
        redis.command(&["SET", "key", "new"])?;
        redis.command(&["SET", "other", "new"])?;
        redis.restore(&dump)?;
        assert_eq!(redis.command(&["GET", "key"])?, "old");
        assert_eq!(redis.command(&["DBSIZE"])?, "1");
    }
    Ok(())
}

#[test]
fn only_the_clients_and_commands_of_others_are_counted() -> Result<()> {
    let mut redis = RedisServer::start()?;
    for _ in 0..2 {
        redis.command(&["PING"])?;
        assert_eq!((redis.client_count()?, redis.commands_processed()?), (0, 0));
        let mut clients = [connect(redis.address())?, connect(redis.address())?];
        for client in &mut clients {
            client.command(&["GET", "key"])?;
        }
        assert_eq!((redis.client_count()?, redis.commands_processed()?), (2, 2));
        assert_eq!((redis.info_commands("get")?, redis.info_commands("set")?), (2, 0));
        drop(clients);
        wait_until("the clients to be gone", DEADLINE, || {
            redis.client_count().is_ok_and(|count| count == 0)
        })?;
        redis.restart_empty()?;
    }
    Ok(())
}

#[test]
fn a_configuration_that_redis_refuses_is_told_with_its_reason() {
    let refused = refusal(RedisServer::settings().config("no-such-setting 1").start());
    assert!(refused.contains("no-such-setting"), "{refused}");
}

// ---- groups ----

#[test]
fn a_failover_makes_the_replica_the_master() -> Result<()> {
    let mut group = SentinelGroup::start()?;
    let url = group.url();
    assert!(url.starts_with("redis+sentinel://127.0.0.1:") && url.ends_with("/mymaster"), "{url}");
    assert_eq!(url.matches(',').count(), 2, "{url}");
    group.master()?.command(&["SET", "key", "value"])?;
    // What the replica has not got is lost, as always.
    assert_eq!(group.master()?.command(&["WAIT", "1", "5000"])?, "1");

    let old = group.kill_master()?;
    group.wait_for_failover(old)?;
    let new = group.master()?;
    assert_ne!(new.address(), old);
    assert_eq!(new.command(&["GET", "key"])?, "value");
    assert_eq!(new.command(&["SET", "key", "newer"])?, "OK");
    Ok(())
}

#[test]
fn a_master_that_was_stopped_and_replaced_takes_itself_for_one_for_seconds() -> Result<()> {
    let mut group = SentinelGroup::start()?;
    let old = group.master()?.address();
    group.master_mut()?.stop()?;
    group.wait_for_failover(old)?;
    assert_ne!(group.master()?.address(), old);
    // The sentinels leave it alone for 8 s.
    group.server_at(old)?.cont()?;
    assert!(group.server_at(old)?.command(&["ROLE"])?.starts_with("master"));
    assert_eq!(group.server_at(old)?.command(&["SET", "key", "value"])?, "OK");
    Ok(())
}

#[test]
fn each_key_has_one_master_and_others_say_which() -> Result<()> {
    let cluster = RedisCluster::start()?;
    assert_eq!(cluster.url().split(',').count(), 3);
    for key in ["a", "b", "c", "tlsresume:{realm}:1"] {
        let master = cluster.master_of(key)?;
        assert_eq!(master.command(&["SET", key, "value"])?, "OK");
        let slot = key_slot(key.as_bytes());
        assert_eq!(master.command(&["CLUSTER", "KEYSLOT", key])?, slot.to_string());
        let moved = format!("MOVED {slot} {}", master.address());
        let others = cluster.masters().filter(|other| other.pid() != master.pid());
        for other in others {
            assert!(refusal(other.command(&["GET", key])).contains(&moved));
        }
    }
    Ok(())
}

#[test]
fn a_slot_moves_while_its_keys_stay_readable() -> Result<()> {
    let cluster = RedisCluster::start()?;
    let [early, late] = ["{tag}:early", "{tag}:late"];
    let source = cluster.master_of("{tag}")?;
    source.command(&["SET", early, "value"])?;

    let migration = cluster.migrate_slot_of("{tag}")?;
    assert_eq!(migration.source(), source.address());
    assert_eq!(source.command(&["GET", early])?, "value");
    let ask = format!("ASK {} {}", key_slot(b"tag"), migration.target());
    assert!(refusal(source.command(&["SET", late, "value"])).contains(&ask));

    assert_eq!(migration.move_keys()?, 1);
    assert!(refusal(source.command(&["GET", early])).contains(&ask));
    let mut client = connect(migration.target())?;
    assert!(refusal(client.command(&["GET", early])).contains("MOVED"));
    assert_eq!(client.command(&["ASKING"])?, "OK");
    assert_eq!(client.command(&["GET", early])?, "value");

    migration.finish()?;
    assert_eq!(client.command(&["GET", early])?, "value");
    assert_eq!(cluster.master_of("{tag}")?.command(&["GET", early])?, "value");
    assert!(refusal(source.command(&["GET", early])).contains("MOVED"));
    Ok(())
}

// ---- the middleman ----

fn redis_and_middleman() -> Result<(RedisServer, Middleman)> {
    let redis = RedisServer::start()?;
    let middleman = Middleman::start(redis.address())?;
    Ok((redis, middleman))
}

#[test]
fn the_middleman_passes_many_connections_on() -> Result<()> {
    let (redis, middleman) = redis_and_middleman()?;
    assert_eq!(middleman.url(&redis.url()), format!("redis://{}", middleman.address()));
    let mut clients = (0..100).map(|_| connect(middleman.address())).collect::<Result<Vec<_>>>()?;
    let value = "v".repeat(100_000);
    for (n, client) in clients.iter_mut().enumerate() {
        client.command(&["SET", &n.to_string(), &value])?;
    }
    for (n, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.command(&["GET", &n.to_string()])?, value);
    }
    assert_eq!((middleman.arrivals(), middleman.open_connections()), (100, 100));
    assert_eq!(redis.client_count()?, 100);
    drop(clients);
    wait_until("all to be closed", DEADLINE, || middleman.open_connections() == 0)
}

#[test]
fn the_middleman_delays_only_replies() -> Result<()> {
    let (redis, middleman) = redis_and_middleman()?;
    let mut hasty = RespClient::connect(middleman.address(), MOMENT)?;
    hasty.command(&["PING"])?;
    middleman.behave(Behaviour::Delay(DEADLINE));
    assert!(hasty.command(&["SET", "key", "value"]).is_err());
    assert_eq!(redis.command(&["GET", "key"])?, "value");

    middleman.behave(Behaviour::Delay(MOMENT));
    let begin = Instant::now();
    assert_eq!(connect(middleman.address())?.command(&["GET", "key"])?, "value");
    assert!(begin.elapsed() >= MOMENT, "{:?}", begin.elapsed());
    Ok(())
}

#[test]
fn replies_from_far_away_are_late_at_the_same_time() -> Result<()> {
    let (_redis, middleman) = redis_and_middleman()?;
    let mut client = TcpStream::connect(middleman.address()).expect("connected");
    middleman.behave(Behaviour::Far(MOMENT));
    let begin = Instant::now();
    for asked in 1..=4 {
        client.write_all(b"*1\r\n$4\r\nPING\r\n").expect("sent");
        wait_until("its turn", DEADLINE, || begin.elapsed() > asked * MOMENT / 8)?;
    }
    let mut pongs = [0; 28];
    client.read_exact(&mut pongs[..7]).expect("an answer");
    assert!(begin.elapsed() >= MOMENT, "{:?}", begin.elapsed());
    client.read_exact(&mut pongs[7..]).expect("the others");
    let took = begin.elapsed();
    assert!(took < 3 * MOMENT, "not one after the other: {took:?}");
    Ok(())
}

#[test]
fn what_the_middleman_holds_back_comes_when_it_passes_again() -> Result<()> {
    let (redis, middleman) = redis_and_middleman()?;
    middleman.behave(Behaviour::Delay(2 * DEADLINE));
    let mut client = connect(middleman.address())?;
    std::thread::scope(|scope| {
        let answer = scope.spawn(|| client.command(&["INCR", "key"]));
        wait_until("the command", DEADLINE, || {
            redis.command(&["GET", "key"]).is_ok_and(|it| it == "1")
        })?;
        middleman.behave(Behaviour::Pass);
        assert_eq!(answer.join().expect("asking does not panic")?, "1");
        Ok(())
    })
}

#[test]
fn the_middleman_makes_garbage_of_replies_and_of_nothing_else() -> Result<()> {
    let (redis, middleman) = redis_and_middleman()?;
    middleman.record();
    middleman.behave(Behaviour::Garbage);
    let mut client = RespClient::connect(middleman.address(), MOMENT)?;
    assert_ne!(client.command(&["SET", "key", "value"]).unwrap_or_default(), "OK");
    assert_eq!(redis.command(&["GET", "key"])?, "value");
    // What was recorded is what Redis said.
    assert!(contains(&middleman.captured(), "+OK\r\n"));
    Ok(())
}

#[test]
fn the_middleman_resets_old_and_new_connections_at_their_first_command() -> Result<()> {
    let (redis, middleman) = redis_and_middleman()?;
    let mut old = connect(middleman.address())?;
    old.command(&["PING"])?;
    middleman.behave(Behaviour::Reset);
    let mut new = connect(middleman.address())?;
    for client in [&mut old, &mut new] {
        assert_eq!(io_kind(client.command(&["INCR", "key"])), ErrorKind::ConnectionReset);
    }
    assert_eq!(redis.command(&["GET", "key"])?, "(nil)");
    middleman.behave(Behaviour::Pass);
    assert_eq!(connect(middleman.address())?.command(&["PING"])?, "PONG");
    Ok(())
}

#[test]
fn a_connection_that_lost_something_in_a_black_hole_stays_silent() -> Result<()> {
    let (redis, middleman) = redis_and_middleman()?;
    let mut old = RespClient::connect(middleman.address(), MOMENT)?;
    let mut idle = connect(middleman.address())?;
    old.command(&["PING"])?;
    middleman.behave(Behaviour::BlackHole);
    let mut new = RespClient::connect(middleman.address(), MOMENT)?;
    for _ in 0..2 {
        for client in [&mut old, &mut new] {
            assert_eq!(io_kind(client.command(&["INCR", "key"])), ErrorKind::WouldBlock);
        }
        middleman.behave(Behaviour::Pass);
    }
    assert_eq!(redis.command(&["GET", "key"])?, "(nil)");
    assert_eq!(idle.command(&["PING"])?, "PONG");
    Ok(())
}

#[test]
fn the_middleman_refuses_old_and_new_connections() -> Result<()> {
    let (redis, middleman) = redis_and_middleman()?;
    let mut old = connect(middleman.address())?;
    old.command(&["PING"])?;
    middleman.behave(Behaviour::Refuse);
    wait_until("the old one to be closed", DEADLINE, || middleman.open_connections() == 0)?;
    assert!(old.command(&["INCR", "key"]).is_err());
    assert!(
        connect(middleman.address()).and_then(|mut new| new.command(&["INCR", "key"])).is_err()
    );
    assert_eq!(redis.command(&["GET", "key"])?, "(nil)");
    middleman.behave(Behaviour::Pass);
    assert_eq!(connect(middleman.address())?.command(&["PING"])?, "PONG");
    Ok(())
}

#[test]
fn the_middleman_lets_replies_trickle() -> Result<()> {
    let (_redis, middleman) = redis_and_middleman()?;
    let pause = Duration::from_millis(10);
    middleman.behave(Behaviour::Trickle(pause));
    let begin = Instant::now();
    let text = "0123456789";
    assert_eq!(connect(middleman.address())?.command(&["ECHO", text])?, text);
    assert!(begin.elapsed() >= pause * 10, "{:?}", begin.elapsed());
    Ok(())
}

#[test]
fn the_middleman_records_what_both_sides_say() -> Result<()> {
    let (redis, middleman) = redis_and_middleman()?;
    redis.command(&["SET", "key", "said by Redis"])?;
    let mut client = connect(middleman.address())?;
    client.command(&["ECHO", "before"])?;
    middleman.record();
    client.command(&["GET", "key"])?;
    client.command(&["ECHO", "said by the client"])?;
    let captured = middleman.captured();
    assert!(contains(&captured, "said by Redis") && contains(&captured, "said by the client"));
    assert!(!contains(&captured, "before"));
    Ok(())
}

#[test]
fn the_threads_of_a_middleman_end_with_it() -> Result<()> {
    for behaviour in [
        Behaviour::Pass,
        Behaviour::Delay(2 * DEADLINE),
        Behaviour::BlackHole,
        Behaviour::Trickle(2 * DEADLINE),
    ] {
        let (redis, middleman) = redis_and_middleman()?;
        let mut client = RespClient::connect(middleman.address(), MOMENT)?;
        middleman.behave(behaviour);
        // Whether it is answered is not the question.
        let _ = client.command(&["PING"]);
        let begin = Instant::now();
        drop(middleman);
        assert!(begin.elapsed() < DEADLINE, "{behaviour:?}: {:?}", begin.elapsed());
        wait_until("Redis to be left alone", DEADLINE, || {
            redis.client_count().is_ok_and(|count| count == 0)
        })?;
    }
    Ok(())
}

fn io_kind<T>(result: Result<T>) -> ErrorKind {
    match result.map(drop) {
        Err(Error::Io { source, .. }) => source.kind(),
        other => panic!("{other:?} is no error of the network"),
    }
}
