//! What goes over connections to Redis, and how long that may take.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tlsresume::cluster::redis::{Credentials, Link, Remote};
use tlsresume::cluster::transport::{Failure, Feed, Vault};
use tlsresume::engine::Lookup;
use tlsresume::ring::KeyName;
use tlsresume::store::Store;
use tlsresume_testkit::Stopwatch;
use tlsresume_testkit::redis::RedisServer;

use crate::support::{Realm, STREAM};

const LIMIT: Duration = Duration::from_millis(400);

/// What a busy machine may add.
const SLACK: Duration = Duration::from_millis(800);

/// Answers what it is told to, and is silent otherwise.
struct Fake {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Fake {
    /// Lets everybody in; the script says what else it answers.
    fn start(script: impl Fn(&str, SocketAddr) -> Option<String> + Send + Sync + 'static) -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let address = listener.local_addr().expect("an address");
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (log, script) = (Arc::clone(&asked), Arc::new(script));
        let serve = move || {
            for stream in listener.incoming().flatten() {
                let (log, script) = (Arc::clone(&log), Arc::clone(&script));
                let answer = move |command: &str| match command {
                    _ if command.starts_with("HELLO") => Some("%1\r\n+proto\r\n:3\r\n".into()),
                    _ => {
                        log.lock().expect("unlocked").push(command.to_owned());
                        script(command, address)
                    }
                };
                thread(move || talk(&stream, answer));
            }
        };
        thread(serve);
        Fake { address, asked }
    }

    fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    fn count(&self, start: &str) -> usize {
        let asked = self.asked.lock().expect("unlocked");
        asked.iter().filter(|command| command.starts_with(start)).count()
    }
}

fn thread(run: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new().spawn(run).expect("a thread");
}

fn talk(stream: &TcpStream, answer: impl Fn(&str) -> Option<String>) {
    let mut reader = BufReader::new(stream);
    let mut writer = stream;
    while let Some(command) = command(&mut reader) {
        if let Some(answer) = answer(&command)
            && writer.write_all(answer.as_bytes()).is_err()
        {
            return;
        }
    }
}

/// Its words, with a space between them.
fn command(reader: &mut impl BufRead) -> Option<String> {
    let number = |reader: &mut dyn BufRead| {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        line.get(1..)?.trim().parse::<usize>().ok()
    };
    let count = number(reader)?;
    let mut words = Vec::new();
    for _ in 0..count {
        let mut word = vec![0; number(reader)? + 2];
        reader.read_exact(&mut word).ok()?;
        words.push(String::from_utf8_lossy(&word[..word.len() - 2]).into_owned());
    }
    Some(words.join(" "))
}

/// All slots are at one node; it does not say what its host is called.
fn slots(port: u16) -> String {
    format!("*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$-1\r\n:{port}\r\n")
}

fn remote(urls: &[String]) -> Remote {
    let remote = Remote::new(urls, &Credentials::default(), "default").expect("addresses");
    remote.without_host_names().expect("numbers")
}

/// How it ended, within its limit.
fn in_time<T>(run: impl FnOnce() -> T) -> T {
    let stopwatch = Stopwatch::start();
    let result = run();
    let took = stopwatch.elapsed();
    assert!(took < LIMIT + SLACK, "took {took:?}");
    result
}

fn take(link: &mut Link, count: u8) -> Result<Vec<Option<Vec<u8>>>, Failure> {
    let wanted: Vec<_> = (0..count).map(|nth| ([nth; 24], true)).collect();
    link.sessions(&wanted)
}

#[test]
fn a_cluster_whose_nodes_are_silent_is_not_waited_for() {
    let nodes: Vec<_> = (0..3).map(|_| Fake::start(|_, _| None)).collect();
    let remote = remote(&nodes.iter().map(Fake::url).collect::<Vec<_>>());
    assert!(in_time(|| remote.link(LIMIT)).is_err());
    assert!(nodes.iter().all(|node| node.count("CLUSTER SLOTS") == 1));
}

#[test]
fn a_silent_node_does_not_keep_the_others_from_being_asked() {
    let silent = Fake::start(|_, _| None);
    let node =
        Fake::start(|command, own| command.starts_with("CLUSTER SLOTS").then(|| slots(own.port())));
    let remote = remote(&[silent.url(), node.url()]);
    assert!(in_time(|| remote.link(LIMIT)).is_ok());
    assert!(in_time(|| remote.link(LIMIT)).is_ok());
    assert_eq!(silent.count("CLUSTER SLOTS"), 1);
}

#[test]
fn what_a_silent_node_was_asked_ends_in_time_and_is_not_asked_again() {
    let node =
        Fake::start(|command, own| command.starts_with("CLUSTER SLOTS").then(|| slots(own.port())));
    for urls in [vec![node.url()], vec![node.url(), node.url()]] {
        let remote = remote(&urls);
        let mut link = remote.link(LIMIT).expect("connected");
        let before = node.count("GETDEL");
        let taken = in_time(|| take(&mut link, 50));
        assert!(matches!(taken, Err(Failure::Lost(_))), "{taken:?}");
        assert_eq!(node.count("GETDEL") - before, 50);
    }
}

#[test]
fn what_has_moved_is_asked_of_the_new_owner_and_stays_with_it() {
    let new = Fake::start(|command, own| match command {
        _ if command.starts_with("CLUSTER SLOTS") => Some(slots(own.port())),
        _ => Some("$3\r\nyes\r\n".into()),
    });
    let port = new.address.port();
    // It names no host either.
    let old = Fake::start(move |command, own| match command {
        _ if command.starts_with("CLUSTER SLOTS") => Some(slots(own.port())),
        _ => Some(format!("-MOVED 1 :{port}\r\n")),
    });
    let remote = remote(&[old.url(), old.url()]);
    let mut link = remote.link(LIMIT).expect("connected");
    for _ in 0..2 {
        let taken = in_time(|| take(&mut link, 3)).expect("answered");
        assert!(taken.iter().all(|it| it.as_deref() == Some(b"yes")));
    }
    assert_eq!((old.count("GETDEL"), new.count("GETDEL")), (3, 6));
}

#[test]
fn a_slot_on_its_way_is_asked_for_where_it_goes_to_each_time() {
    let target = Fake::start(|command, _| match command {
        "ASKING" => Some("+OK\r\n".into()),
        _ => Some("$3\r\nyes\r\n".into()),
    });
    let to = target.address;
    let source = Fake::start(move |command, own| match command {
        _ if command.starts_with("CLUSTER SLOTS") => Some(slots(own.port())),
        _ => Some(format!("-ASK 1 {to}\r\n")),
    });
    let remote = remote(&[source.url(), source.url()]);
    let mut link = remote.link(LIMIT).expect("connected");
    for round in 1..=2 {
        let taken = in_time(|| take(&mut link, 2)).expect("answered");
        assert!(taken.iter().all(|it| it.as_deref() == Some(b"yes")));
        let counts = (source.count("GETDEL"), target.count("ASKING"), target.count("GETDEL"));
        assert_eq!(counts, (2 * round, 2 * round, 2 * round));
    }
}

#[test]
fn nodes_that_send_everything_on_are_given_up() {
    let node = Fake::start(|command, own| match command {
        _ if command.starts_with("CLUSTER SLOTS") => Some(slots(own.port())),
        _ => Some(format!("-MOVED 1 {own}\r\n")),
    });
    let mut link = remote(&[node.url(), node.url()]).link(LIMIT).expect("connected");
    let taken = in_time(|| take(&mut link, 1));
    assert!(matches!(taken, Err(Failure::Lost(_))), "{taken:?}");
    assert!(node.count("GETDEL") < 10);
}

#[test]
fn an_answer_that_redis_cuts_off_costs_one_connection_and_what_no_node_writes_is_passed_over() {
    const ENTRIES: usize = 60;
    let limit = "client-output-buffer-limit pubsub 2mb 2mb 1";
    let redis = RedisServer::settings().config(limit).start().expect("redis");
    let add = |size: usize| {
        let entry = vec![b'\n'; size];
        let command: [&[u8]; 5] = [b"XADD", STREAM.as_bytes(), b"*", b"e", &entry];
        redis.ask(&command).expect("added");
    };
    (0..ENTRIES / 2).for_each(|_| add(65_000));
    [100_001, 8_000_000].into_iter().for_each(add);
    (0..ENTRIES / 2).for_each(|_| add(65_000));
    let remote = remote(&[redis.url()]);
    let mut last = (0, 0);
    let (mut seen, mut passed_over, mut failed) = (0, 0, 0);
    loop {
        let mut link = remote.link(Duration::from_secs(2)).expect("connected");
        link.listen().expect("told");
        while let Ok(news) = link.news(last) {
            seen += news.entries.len();
            passed_over += news.passed_over;
            last = news.last.unwrap_or(last);
            if news.last.is_none() {
                assert_eq!((seen, passed_over, failed), (ENTRIES, 2, 1));
                return;
            }
        }
        failed += 1;
        assert_eq!(failed, 1, "stuck after {seen} entries");
    }
}

#[test]
fn where_redis_says_another_time_what_is_known_is_revoked_and_an_error_says_what_is_not() {
    // By this Redis it is 2023, and then a century later.
    for (time, word) in [("1700000000", "ahead"), ("4855000000", "behind")] {
        let fake = Fake::start(move |command, _| {
            command.starts_with("TIME").then(|| format!("*2\r\n$10\r\n{time}\r\n$1\r\n0\r\n"))
        });
        refuses_the_derived_keys_that_have_come(&fake.url());
        let node = Realm::at(&fake.url(), "").engine(None);
        let (name, id) = (node.issue().expect("a key"), node.keep(b"a session"));
        assert!(node.find(&id, Lookup::Keep).is_some());
        for said in [node.0.flush_sessions(), node.0.revoke_keys(None)] {
            let said = said.expect_err("not all").to_string();
            assert!(
                said.contains("only with what this node knows") && said.contains(word),
                "{said}"
            );
            assert!(node.find(&id, Lookup::Keep).is_none());
        }
        assert!(!node.opens(name));
        let young = node.issue().expect("another key");
        assert_ne!(young, name);
        node.0.revoke_keys(Some(KeyName(young))).expect("needs no clock");
    }
}

fn refuses_the_derived_keys_that_have_come(url: &str) {
    let node = Realm::at(url, "[keys]\nsource = \"derived\"").engine(None);
    let (name, id) = (node.issue().expect("a key"), node.keep(b"a session"));
    node.0.revoke_keys(None).expect_err("not all");
    assert!(!node.opens(name) && node.issue().is_some_and(|other| other != name));
    assert!(node.find(&id, Lookup::Keep).is_none());
    let other = node.keep(b"another session");
    assert!(node.find(&other, Lookup::Keep).is_some(), "ids are made again");
}

#[test]
fn where_redis_does_not_answer_all_keys_are_revoked_all_the_same() {
    let silent = Fake::start(|_, _| None);
    let node = Realm::at(&silent.url(), "").engine(None);
    let name = node.issue().expect("a key");
    in_time(|| node.0.revoke_keys(None)).expect("done here");
    assert!(!node.opens(name));
}

#[test]
fn a_flush_ends_within_three_and_a_half_seconds_though_redis_is_silent_and_others_keep_the_ring() {
    let silent = Fake::start(|_, _| None);
    let realm = Realm::at(&silent.url(), "");
    let node = realm.engine(Some("memory"));
    assert!(node.issue().is_some());
    let size = usize::try_from(node.0.config().memory.size).expect("it fits");
    let over = Mutex::new(false);
    // A writer may have the ring for a second.
    let keep = || {
        let store = Store::open(&realm.file("memory"), size).expect("the same");
        while !*over.lock().expect("unlocked") {
            store.update_ring(Duration::from_secs(5), |_| {
                std::thread::sleep(Duration::from_millis(900));
                None
            });
        }
    };
    let (took, said) = std::thread::scope(|scope| {
        (0..3).for_each(|_| drop(scope.spawn(keep)));
        let begin = tlsresume::clock::since_boot();
        let said = node.0.flush_sessions();
        let took = tlsresume::clock::since_boot() - begin;
        *over.lock().expect("unlocked") = true;
        (took, said)
    });
    assert!(took < Duration::from_millis(3500) + SLACK, "took {took:?}: {said:?}");
    assert!(took > Duration::from_millis(700), "Redis was waited for: {took:?}");
}
