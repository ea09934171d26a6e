//! Handshakes that wait for another host's session do not hold others up in a server that is ready for it.

use std::thread;
use std::time::Duration;

use tlsresume_testkit::client::{OpenSsl, OpenSslVisitor};
use tlsresume_testkit::server::{Settings, example};
use tlsresume_testkit::{
    Behaviour, DEADLINE, Folder, Middleman, Mode, RedisServer, Result, Server, Visitor, wait_until,
};

/// How long Redis takes for an answer, and what is far less.
const DELAY: Duration = Duration::from_millis(300);
const FAR_LESS: Duration = Duration::from_millis(100);

/// What is stored, for which kind of client, and how many sessions a visit makes.
const STORED: [(&str, Mode, u64); 2] =
    [("stateless", Mode::Tls12Id, 1), ("stateful", Mode::Tls13, 2)];

/// One Redis, and nodes that find each other's sessions there.
struct Realm {
    redis: RedisServer,
    folder: Folder,
    mode: &'static str,
}

impl Realm {
    fn new(mode: &'static str) -> Result<Realm> {
        let (redis, folder) = (RedisServer::start()?, Folder::new()?);
        folder.write_private("secret", "0123456789abcdef".repeat(4)).expect("written");
        Ok(Realm { redis, folder, mode })
    }

    fn start(&self, node: Settings, url: &str) -> Result<Server> {
        node.env("TLSRESUME_RESUMPTION_MODE", self.mode)
            .env("TLSRESUME_CLUSTER_SECRET_FILE", self.folder.file("secret"))
            .env("TLSRESUME_CLUSTER_SESSIONS", "pull")
            .env("TLSRESUME_CLUSTER_LOOKUP_BUDGET", "1s")
            .env("TLSRESUME_REDIS_URL", url)
            .start()
    }

    /// Two nodes, once they share their keys. Nobody stands between Redis and the first.
    fn nodes(&self, node: &Settings, middleman: &Middleman, mode: Mode) -> Result<[Server; 2]> {
        let first = self.start(node.clone(), &self.redis.url())?;
        let second = self.start(node.clone(), &middleman.url(&self.redis.url()))?;
        let client = OpenSsl::new();
        let is_shared = || {
            let visitor = client.first_visit(first.address(), mode);
            let back = visitor.and_then(|it| Box::new(it).come_back(second.address()));
            back.is_ok_and(|back| back.resumed())
        };
        wait_until("one ring on both nodes", DEADLINE, is_shared)?;
        Ok([first, second])
    }

    /// Sessions and whatever else Redis has.
    fn keys(&self) -> Result<u64> {
        Ok(self.redis.command(&["DBSIZE"])?.parse().expect("a number"))
    }
}

/// Pauses that an `async_server` told of.
fn pauses(server: &Server) -> usize {
    server.log().lines().filter(|line| line.contains("paused ")).count()
}

/// How long the handshake of a new client takes, as the server measured it.
fn handshake(server: &Server) -> Result<Duration> {
    let answer = OpenSsl::new().get(server.address(), "/")?;
    let (_, rest) = answer.split_once("\"handshake_us\":").expect("an answer of async_server");
    let micros = rest.split('}').next().and_then(|number| number.parse().ok());
    Ok(Duration::from_micros(micros.expect("a number")))
}

#[test]
fn others_are_served_while_a_handshake_waits() -> Result<()> {
    for (stored, mode, sessions) in STORED {
        let realm = Realm::new(stored)?;
        let middleman = Middleman::start(realm.redis.address())?;
        let server = Server::program(example("async_server")?);
        let [first, second] = realm.nodes(&server, &middleman, mode)?;

        let before = realm.keys()?;
        let visitor = OpenSsl::new().first_visit(first.address(), mode)?;
        wait_until("the session", DEADLINE, || {
            realm.keys().is_ok_and(|it| it >= before + sessions)
        })?;
        middleman.behave(Behaviour::Delay(DELAY));
        let paused_before = pauses(&second);
        thread::scope(|scope| {
            let back = scope.spawn(|| Box::new(visitor).come_back(second.address()));
            wait_until("a pause", DEADLINE, || pauses(&second) > paused_before)?;
            let taken: Vec<_> = (0..3).map(|_| handshake(&second)).collect::<Result<_>>()?;
            assert!(taken.iter().min().is_some_and(|it| *it < FAR_LESS), "{mode}: {taken:?}");
            let back = back.join().expect("no panic")?;
            assert!(back.resumed(), "{mode}: {back:?}");
            Ok(())
        })?;
        assert_eq!(pauses(&second), paused_before + 1, "once, and nobody else");
    }
    Ok(())
}

#[test]
fn handshakes_that_are_paused_hold_nobody_up_and_are_all_looked_up() -> Result<()> {
    const CLIENTS: u64 = 12;
    let (stored, mode, _) = STORED[0];
    let realm = Realm::new(stored)?;
    let middleman = Middleman::start(realm.redis.address())?;
    let server = Server::program(example("async_server")?);
    let [first, second] = realm.nodes(&server, &middleman, mode)?;
    let before = realm.keys()?;
    let visitors: Vec<_> = (0..CLIENTS)
        .map(|_| OpenSsl::new().first_visit(first.address(), mode))
        .collect::<Result<_>>()?;
    wait_until("the sessions", DEADLINE, || realm.keys().is_ok_and(|it| it >= before + CLIENTS))?;
    middleman.behave(Behaviour::Far(DELAY));
    let address = second.address();
    let back: Vec<_> = thread::scope(|scope| {
        let come_back =
            |visitor: OpenSslVisitor| scope.spawn(move || Box::new(visitor).come_back(address));
        let threads: Vec<_> = visitors.into_iter().map(come_back).collect();
        threads.into_iter().map(|it| it.join().expect("no panic")).collect::<Result<_>>()
    })?;
    // One thread that was blocked for all of them could have waited for three.
    assert!(back.iter().all(|it| it.resumed()), "{back:?}");
    Ok(())
}

#[test]
fn a_server_that_is_not_ready_for_it_waits() -> Result<()> {
    for (stored, mode, sessions) in STORED {
        let realm = Realm::new(stored)?;
        let middleman = Middleman::start(realm.redis.address())?;
        let server = Server::example()?.args(["--workers", "1"]);
        let [first, second] = realm.nodes(&server, &middleman, mode)?;
        let before = realm.keys()?;
        let visitor = OpenSsl::new().first_visit(first.address(), mode)?;
        wait_until("the session", DEADLINE, || {
            realm.keys().is_ok_and(|it| it >= before + sessions)
        })?;
        middleman.behave(Behaviour::Delay(DELAY));
        // A handshake that was paused would have failed.
        let back = Box::new(visitor).come_back(second.address())?;
        assert!(back.resumed(), "{mode}: {back:?}");
    }
    Ok(())
}
