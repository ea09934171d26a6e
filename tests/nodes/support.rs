//! A realm with a Redis and some nodes.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tlsresume::clock::UnixMillis;
use tlsresume::config::Config;
use tlsresume::engine::{Binding, Engine, Lookup, NewSession, Policy, StoredSession};
use tlsresume::stats::Counter;
use tlsresume_testkit::redis::RedisServer;
use tlsresume_testkit::{Folder, wait_until};

/// How long anything that has to come may take.
pub(crate) const SOON: Duration = Duration::from_secs(5);

/// A secret file, and what nodes are made with.
pub(crate) struct Realm {
    folder: Folder,
    pub(crate) url: String,
    pub(crate) settings: String,
}

impl Realm {
    pub(crate) fn on(redis: &RedisServer, settings: &str) -> Realm {
        Realm::at(&redis.url(), settings)
    }

    pub(crate) fn at(url: &str, settings: &str) -> Realm {
        let folder = Folder::new().expect("a folder");
        let realm = Realm { folder, url: url.to_owned(), settings: settings.to_owned() };
        realm.write_secrets(&[&"0123456789abcdef".repeat(4)]);
        realm
    }

    pub(crate) fn write_secrets(&self, secrets: &[&str]) {
        let path = self.folder.path().join("secret");
        std::fs::write(path, secrets.join("\n")).expect("written");
    }

    pub(crate) fn config(&self) -> Config {
        let text = format!(
            "{}\n[cluster]\nsecret_file = \"{}\"\n",
            self.settings,
            self.folder.path().join("secret").display()
        );
        let text = if self.settings.contains("[cluster]") {
            self.settings.replace(
                "[cluster]",
                &format!(
                    "[cluster]\nsecret_file = \"{}\"",
                    self.folder.path().join("secret").display()
                ),
            )
        } else {
            text
        };
        let text = format!("{text}\n[redis]\nurl = \"{}\"\n", self.url);
        Config::from_toml(&text, "test", &|_| None).expect("a valid configuration")
    }

    /// A node that has the ring of the others, or has waited for it.
    pub(crate) fn node(&self) -> Node {
        let node = Node(Engine::shared(self.config()).expect("a node"));
        node.0.start_agent_now();
        node.first_callback();
        node
    }
}

pub(crate) struct Node(pub(crate) Arc<Engine>);

impl Node {
    pub(crate) fn first_callback(&self) {
        let _ = self.0.new_session_id(now());
    }

    pub(crate) fn binding(&self) -> Binding {
        self.0.binding(b"shop.example", Policy::NoVerification)
    }

    pub(crate) fn issue(&self) -> Option<[u8; 16]> {
        self.0.issuing_key(&self.binding(), false, now()).map(|key| key.name().0)
    }

    pub(crate) fn opens(&self, name: [u8; 16]) -> bool {
        let name = tlsresume::ring::KeyName(name);
        self.0.opening_key(&name, &self.binding(), false, now()).is_some()
    }

    pub(crate) fn keep(&self, value: &[u8]) -> [u8; 32] {
        let id = self.0.new_session_id(now()).expect("an id");
        let binding = self.binding();
        let session = NewSession {
            id: &id,
            binding: &binding,
            authenticated: now(),
            expires: now() + Duration::from_secs(600),
            value,
            note: 7,
        };
        self.0.keep_session(&session, now(), Duration::from_millis(100));
        id
    }

    pub(crate) fn find(&self, id: &[u8; 32], lookup: Lookup) -> Option<StoredSession> {
        self.0.find_session(id, &self.binding(), lookup, now())
    }

    pub(crate) fn count(&self, counter: Counter) -> u64 {
        self.0.counters().value(counter)
    }
}

pub(crate) fn now() -> UnixMillis {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    UnixMillis(now.as_millis().try_into().expect("before the end of time"))
}

pub(crate) fn soon(what: &str, condition: impl FnMut() -> bool) {
    wait_until(what, SOON, condition).expect("comes in time");
}
