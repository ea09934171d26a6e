//! A realm with a Redis and some nodes.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tlsresume::clock::UnixMillis;
use tlsresume::config::Config;
use tlsresume::engine::{
    Engine, Judged, KeyState, Lookup, NewSession, Policy, StoredSession, Visit,
};
use tlsresume::stats::{Counter, Gauge};
use tlsresume_testkit::redis::RedisServer;
use tlsresume_testkit::{DEADLINE, Folder, wait_until};

/// What the nodes of a realm without a name share.
pub(crate) const RING: &str = "tlsresume:{default}:ring";
pub(crate) const NODES: &str = "tlsresume:{default}:nodes";
pub(crate) const MAKER: &str = "tlsresume:{default}:maker";
pub(crate) const STREAM: &str = "tlsresume:{default}:stream";

pub(crate) const SECRET: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// A secret file, and what nodes are made with.
pub(crate) struct Realm {
    folder: Folder,
    pub(crate) url: String,
    /// Configuration; `[cluster]` comes last, if at all.
    pub(crate) settings: String,
    /// More of the section `[redis]`.
    pub(crate) redis: String,
}

impl Realm {
    pub(crate) fn on(redis: &RedisServer, settings: &str) -> Realm {
        Realm::at(&redis.url(), settings)
    }

    pub(crate) fn at(url: &str, settings: &str) -> Realm {
        let folder = Folder::in_memory().expect("a folder");
        let (url, settings) = (url.to_owned(), settings.to_owned());
        let realm = Realm { folder, url, settings, redis: String::new() };
        realm.write_secrets(&[SECRET]);
        realm
    }

    /// One that looks sessions up, with a budget that a busy machine keeps.
    pub(crate) fn pulling(url: &str, settings: &str) -> Realm {
        Realm::at(url, &format!("{settings}\n{PULL}"))
    }

    pub(crate) fn write_secrets(&self, secrets: &[&str]) {
        self.folder.write_private("secret", secrets.join("\n")).expect("written");
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.file(name)
    }

    /// `memory`: its file, for a node that is more than one engine, or restarts with what it had.
    pub(crate) fn config(&self, memory: Option<&str>) -> Config {
        let Realm { settings, redis, url, .. } = self;
        let cluster = if settings.contains("[cluster]") { "" } else { "[cluster]" };
        let path = memory.map(|name| self.file(name)).unwrap_or_default();
        let text = format!(
            "{settings}\n{cluster}\nsecret_file = {:?}\n[redis]\nurl = {url:?}\n{redis}\n[memory]\npath = {path:?}\n",
            self.file("secret"),
        );
        Config::from_toml(&text, "test", &|_| None).expect("a valid configuration")
    }

    /// A node, or one of its processes, that has not done anything yet.
    pub(crate) fn engine(&self, memory: Option<&str>) -> Node {
        Node(Engine::shared(self.config(memory)).expect("a node"))
    }

    pub(crate) fn node_in(&self, memory: Option<&str>) -> Node {
        let node = self.engine(memory);
        node.0.start_agent_now();
        node.first_callback();
        node
    }

    /// So many of them, all reached and of one mind.
    pub(crate) fn nodes<const N: usize>(&self) -> [Node; N] {
        let nodes = std::array::from_fn(|_| self.node());
        agree(&nodes);
        nodes
    }

    /// A node that has the ring of the others, or has waited for it.
    pub(crate) fn node(&self) -> Node {
        self.node_in(None)
    }
}

pub(crate) const PULL: &str = "[cluster]\nsessions = \"pull\"\nlookup_budget = \"100ms\"";

/// Waits until all encrypt with one key, open each other's tickets and reach Redis.
pub(crate) fn agree(nodes: &[Node]) {
    soon("one key", || {
        let names: Vec<_> = nodes.iter().map(Node::issue).collect();
        names.iter().all(|name| name.is_some_and(|it| nodes.iter().all(|node| node.opens(it))))
            && names.iter().all(|name| *name == names[0])
    });
    soon("all up", || nodes.iter().all(Node::is_up));
}

/// Everybody's visit.
pub(crate) const SHOP: Visit<'static> = Visit {
    name: b"shop.example",
    accepting: Policy::PUBLIC,
    listener: [0; 18],
    judged: Judged::WhereSeen { context: 1 },
};

pub(crate) struct Node(pub(crate) Arc<Engine>);

impl Node {
    pub(crate) fn first_callback(&self) {
        let _ = self.new_id();
    }

    pub(crate) fn new_id(&self) -> Option<[u8; 32]> {
        self.0.new_session_id(self.0.new_family(now()), now())
    }

    pub(crate) fn issue(&self) -> Option<[u8; 16]> {
        let issuing = self.0.issuing_key(SHOP.name, SHOP.accepting, now(), now());
        issuing.map(|issuing| issuing.name.0)
    }

    /// Whether tickets of the key of that name are accepted.
    pub(crate) fn opens(&self, name: [u8; 16]) -> bool {
        self.first_callback();
        let keys = self.0.keys(now());
        keys.iter().any(|key| key.name.0 == name && key.state != KeyState::Expired)
    }

    pub(crate) fn keep(&self, value: &[u8]) -> [u8; 32] {
        let id = self.new_id().expect("an id");
        let session = NewSession {
            id: &id,
            name: SHOP.name,
            policy: SHOP.accepting,
            began: now(),
            authenticated: None,
            expires: now() + Duration::from_secs(600),
            value,
            note: 7,
        };
        self.0.keep_session(&session, now(), Duration::from_millis(100));
        id
    }

    /// In a handshake on a thread of its own, which has not waited for another one.
    pub(crate) fn find(&self, id: &[u8; 32], lookup: Lookup) -> Option<StoredSession> {
        let handshake = || self.find_here(id, lookup);
        std::thread::scope(|scope| scope.spawn(handshake).join().expect("no panic"))
    }

    /// On this thread.
    pub(crate) fn find_here(&self, id: &[u8; 32], lookup: Lookup) -> Option<StoredSession> {
        self.0.find_session(id, &SHOP, lookup, now())
    }

    /// Whether it finds a session within the usual time.
    pub(crate) fn finds_soon(&self, id: &[u8; 32]) {
        soon(&format!("the session, {}", self.metrics()), || self.find(id, Lookup::Keep).is_some());
    }

    pub(crate) fn is_up(&self) -> bool {
        self.0.report(now()).gauge(Gauge::TransportUp) == 1
    }

    pub(crate) fn metrics(&self) -> String {
        let all = self.0.metrics(now());
        let said = |line: &&str| !line.starts_with('#') && !line.ends_with(" 0");
        all.lines().filter(said).collect::<Vec<_>>().join("\n")
    }

    pub(crate) fn count(&self, counter: Counter) -> u64 {
        self.0.counters().value(counter)
    }
}

pub(crate) fn now() -> UnixMillis {
    tlsresume::clock::now()
}

#[allow(clippy::disallowed_methods, reason = "tests measure")]
pub(crate) fn instant() -> Instant {
    Instant::now()
}

pub(crate) fn soon(what: &str, condition: impl FnMut() -> bool) {
    wait_until(what, DEADLINE, condition).expect("comes in time");
}

/// Drops a node, and waits until its agent is gone.
pub(crate) fn end(node: Node) {
    let weak = Arc::downgrade(&node.0);
    drop(node);
    soon("its end", || weak.strong_count() == 0);
}

/// Runs `body` in a process of its own that runs this test alone, and returns what was said there on standard error;
/// nothing in that process itself.
pub(crate) fn alone(test: &str, body: impl FnOnce()) -> Option<String> {
    const VARIABLE: &str = "TLSRESUME_TEST_ALONE";
    if std::env::var_os(VARIABLE).is_some() {
        body();
        return None;
    }
    let myself = std::env::current_exe().expect("a path");
    let mut command = std::process::Command::new(myself);
    command.args(["--exact", test, "--nocapture"]).env(VARIABLE, "1");
    let output = command.output().expect("run");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stdout));
    Some(said)
}
