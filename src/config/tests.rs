//! Every key, every kind of mistake with its whole message, and text that nobody meant as a configuration.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::time::Duration;

use toml::de::DeTable;

use super::input::Input;
use super::*;

mod hostile;
mod show;

/// The text of the documentation.
const EXAMPLE: &str = include_str!("tests/example.toml");

/// A value for every key that is not the default, as text of a variable and in TOML. Together they are valid.
const SAMPLES: [(&str, &str, &str); 35] = [
    ("realm", "shop.eu-1", r#""shop.eu-1""#),
    ("resumption.mode", "stateful", r#""stateful""#),
    ("resumption.tickets", "16", "0x10"),
    ("resumption.lifetime", "1h 30m", r#""90min""#),
    ("resumption.single_use", "yes", "true"),
    ("resumption.on_remove", "forget", r#""forget""#),
    ("resumption.bind", "certificate", r#""certificate""#),
    ("resumption.force", "1", "true"),
    ("keys.source", "files", r#""files""#),
    ("keys.rotate", "30m", r#""1800s""#),
    ("keys.ahead", "2", "2"),
    ("keys.activation_delay", "0s", r#""0s""#),
    ("keys.files", "/a.key, b.key,", r#"["/a.key", "b.key", ""]"#),
    ("keys.format", "haproxy", r#""haproxy""#),
    ("memory.path", "/dev/shm/t", r#""/dev/shm/t""#),
    ("memory.size", "1048576", r#""1 MiB""#),
    ("memory.lock", "on", "true"),
    ("cluster.secret_file", "/secret", r#""/secret""#),
    ("cluster.agent", "external", r#""external""#),
    ("cluster.sessions", "pull", r#""pull""#),
    ("cluster.lookup_budget", "1ms", r#""1000us""#),
    ("redis.url", "rediss://a:1,redis://b", r#""rediss://a:1, redis://b""#),
    ("redis.password_file", "/pw", r#""/pw""#),
    ("redis.ca_file", "/ca", r#""/ca""#),
    ("redis.cert_file", "/cert", r#""/cert""#),
    ("redis.key_file", "/key", r#""/key""#),
    ("memcached.servers", "m1:11211,[::1]:11211", r#"["m1:11211", "[::1]:11211"]"#),
    ("peers.listen", "0.0.0.0:7557", r#""0.0.0.0:7557""#),
    ("peers.members", "n1:7557", r#"["n1:7557"]"#),
    ("peers.multicast", "239.255.75.57:7557", r#""239.255.75.57:7557""#),
    ("peers.interface", "eth0", r#""eth0""#),
    ("peers.ttl", "255", "255"),
    ("early_data.replay_window", "1m", r#""1m""#),
    ("log.level", "debug", r#""debug""#),
    ("log.target", "/var/log/t", r#""/var/log/t""#),
];

fn samples() -> Config {
    let path = |text: &str| Some(PathBuf::from(text));
    let list = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    Config {
        realm: "shop.eu-1".to_owned(),
        resumption: Resumption {
            mode: Mode::Stateful,
            tickets: 16,
            lifetime: Duration::from_secs(5400),
            single_use: true,
            on_remove: OnRemove::Forget,
            bind: Bind::Certificate,
            force: true,
        },
        keys: Keys {
            source: KeySource::Files,
            rotate: Duration::from_secs(1800),
            ahead: 2,
            activation_delay: Duration::ZERO,
            files: vec!["/a.key".into(), "b.key".into()],
            format: KeyFormat::Haproxy,
        },
        memory: Memory { path: path("/dev/shm/t"), size: 1 << 20, lock: true },
        cluster: Cluster {
            secret_file: path("/secret"),
            agent: Agent::External,
            sessions: Replication::Pull,
            lookup_budget: Duration::from_millis(1),
        },
        redis: Redis {
            url: list(&["rediss://a:1", "redis://b"]),
            password_file: path("/pw"),
            ca_file: path("/ca"),
            cert_file: path("/cert"),
            key_file: path("/key"),
        },
        memcached: Memcached { servers: list(&["m1:11211", "[::1]:11211"]) },
        peers: Peers {
            listen: Some("0.0.0.0:7557".parse().unwrap()),
            members: list(&["n1:7557"]),
            multicast: Some("239.255.75.57:7557".parse().unwrap()),
            interface: Some("eth0".to_owned()),
            ttl: 255,
        },
        early_data: EarlyData { replay_window: Duration::from_secs(60) },
        log: Log { level: Level::Debug, target: LogTarget::File("/var/log/t".into()) },
    }
}

fn unset(_: &str) -> Option<String> {
    None
}

fn toml(text: &str) -> Result<Config> {
    Config::from_toml(text, "t.toml", &unset)
}

fn variable(name: &str, value: &str) -> Result<Config> {
    let env = |asked: &str| (asked == name).then(|| value.to_owned());
    Config::from_toml("", "t.toml", &env)
}

/// The message of the mistake; empty if there is none.
fn message(result: Result<Config>) -> String {
    result.map_or_else(|error| error.to_string(), |_| String::new())
}

/// The TOML line that sets one key from anywhere in a file.
fn line(key: &str, value: &str) -> String {
    format!("{key} = {value}\n")
}

#[test]
fn the_documented_example_lists_every_key_with_its_default() {
    assert_eq!(toml(EXAMPLE).unwrap(), Config::default());
    assert_eq!(toml("").unwrap(), Config::default());

    let document = DeTable::parse(EXAMPLE).unwrap();
    let documented: usize = document
        .get_ref()
        .values()
        .map(|value| value.get_ref().as_table().map_or(1, |section| section.len()))
        .sum();
    assert_eq!(documented, ENVIRONMENT.len());
}

#[test]
fn every_key_is_settable_by_its_variable_and_in_toml() {
    let keys: Vec<_> = ENVIRONMENT.iter().map(|setting| setting.key).collect();
    assert_eq!(keys, SAMPLES.map(|(key, ..)| key));

    let env = |name: &str| {
        let setting = ENVIRONMENT.iter().find(|setting| setting.name == name).unwrap();
        SAMPLES.iter().find(|(key, ..)| *key == setting.key).map(|(_, text, _)| (*text).to_owned())
    };
    let text: String = SAMPLES.iter().map(|(key, _, value)| line(key, value)).collect();

    assert_eq!(Config::from_toml("", "t.toml", &env).unwrap(), samples());
    assert_eq!(toml(&text).unwrap(), samples());
}

#[test]
fn every_variable_is_named_after_its_key() {
    for setting in ENVIRONMENT {
        let name = format!("TLSRESUME_{}", setting.key.to_uppercase().replace('.', "_"));
        assert_eq!(setting.name, name);
    }
}

#[test]
fn both_ends_of_an_allowed_range_are_allowed() {
    let ranges =
        ENVIRONMENT.iter().filter_map(|s| s.allowed.split_once(" to ").map(|ends| (s, ends)));
    let numeric = ranges.filter(|(setting, _)| setting.key != "realm");
    let mut checked = 0;
    for (setting, (first, last)) in numeric {
        for end in [first, last] {
            let result = (setting.set)(&mut Config::default(), &Input::Variable(end));
            assert_eq!(result, Ok(()), "{setting:?}");
        }
        checked += 1;
    }
    assert_eq!(checked, 9);
}

#[test]
fn every_word_is_read_and_printed_the_same() {
    fn check<T: Copy + ToString + std::str::FromStr + PartialEq + std::fmt::Debug>(
        all: &[T],
        allowed: &str,
    ) {
        let words: Vec<_> = all.iter().map(T::to_string).collect();
        assert_eq!(words.join(", "), allowed);
        for (word, value) in words.iter().zip(all) {
            assert_eq!(word.parse().ok(), Some(*value));
        }
    }
    check(Mode::ALL, "stateless, stateful, off");
    check(OnRemove::ALL, "keep, forget");
    check(KeySource::ALL, "random, derived, files");
    check(KeyFormat::ALL, "nginx, haproxy, apache, ats, nghttpx, h2o, openssl, dnsdist");
    check(Agent::ALL, "thread, external");
    check(Replication::ALL, "push, pull, off");
    check(Level::ALL, "off, error, warn, info, debug, trace");
    let error = "Nginx".parse::<KeyFormat>().unwrap_err().to_string();
    assert_eq!(error, format!(r#""Nginx" is unknown; allowed: {}"#, KeyFormat::ALLOWED));
}

/// Blocks of TOML lines and variables, each followed by the indented message that they give, or "fits".
const MISTAKES: &str = include_str!("tests/mistakes.txt");

#[test]
fn every_kind_of_mistake_names_its_line_its_key_what_was_found_and_what_is_allowed() {
    for block in MISTAKES.split("\n\n") {
        let (input, expected) = block.trim_end().rsplit_once("\n    ").unwrap();
        let is_variable = |line: &&str| line.starts_with("TLSRESUME_");
        let (variables, text): (Vec<_>, Vec<_>) = input.lines().partition(is_variable);
        let env = |name: &str| {
            let mut pairs = variables.iter().filter_map(|line| line.split_once('='));
            pairs.find(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
        };
        let result = Config::from_toml(&text.join("\n"), "t.toml", &env);
        let found = result.map_or_else(|error| error.to_string(), |_| "fits".to_owned());
        assert_eq!(found, expected, "{input}");
    }
}

#[test]
fn the_log_is_read_whatever_mistakes_the_rest_has() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.toml");
    let log = |text: &str, variable: &str| {
        fs::write(&path, text).unwrap();
        let env = |name: &str| (name == "TLSRESUME_LOG_LEVEL").then(|| variable.to_owned());
        let Log { level, target } = Config::log_of(Some(&path), &env);
        (level, target)
    };
    let text = "[log]\nlevel = 'off'\ntarget = 'syslog'\nloud = 1\n[memory]\nsize = 'little'";
    assert_eq!(log(text, ""), (Level::Off, LogTarget::Syslog));
    assert_eq!(log(text, "info"), (Level::Info, LogTarget::Syslog));
    assert_eq!(log(text, "loud"), (Level::Off, LogTarget::Syslog));
    assert_eq!(log("[log]\nlevel = 'loud'\ntarget = 'log'", ""), (Level::Warn, LogTarget::Stderr));
    assert_eq!(log("[log\nlevel = 'off'", "error"), (Level::Error, LogTarget::Stderr));
}

#[test]
fn either_remedy_for_too_many_keys_is_just_enough() {
    let keys = |rotate: &str, lifetime: &str| {
        message(toml(&format!("keys.rotate = '{rotate}'\nresumption.lifetime = '{lifetime}'")))
    };
    assert_eq!(keys("3m 41s", "12h"), "");
    assert_ne!(keys("3m 40s", "12h"), "");
    assert_eq!(keys("1m", "3h 16m"), "");
    assert_ne!(keys("1m", "3h 16m 1s"), "");
}

#[test]
fn commas_separate_redis_addresses_but_not_sentinels_or_parts_of_a_password() {
    let urls = |text: &str| {
        let text = format!("cluster.secret_file = '/s'\nredis.url = '{text}'");
        toml(&text).map(|config| config.redis.url).map_err(|error| error.to_string())
    };
    for one in [
        "redis+sentinel://a:1,b:2/main",
        "rediss+sentinel://a,b/main",
        "redis://:p,w@h",
        "redis+unix:///run/redis.sock",
        "rediss://h/1",
    ] {
        assert_eq!(urls(one), Ok(vec![one.to_owned()]));
    }
    assert_eq!(
        urls("rediss://a, rediss://b"),
        Ok(vec!["rediss://a".to_owned(), "rediss://b".to_owned()])
    );
}

#[test]
fn a_password_in_a_redis_address_is_never_printed() {
    let mistakes = [
        "http://:hunter2@h",
        "redis:/:hunter2@h",
        "redis://:hunter2@h,redis+unix://x",
        "redis://hunter2 @h",
    ];
    for url in mistakes {
        let error = message(variable("TLSRESUME_REDIS_URL", url));
        assert!(!error.is_empty() && !error.contains("hunter2"), "{error}");
    }
    let text = "cluster.secret_file = '/s'\nredis.url = 'redis://:hunter2@h'";
    assert!(!format!("{:?}", toml(text).unwrap()).contains("hunter2"));
    let error = message(toml("redis.url = ['redis://:hunter2@h']"));
    assert!(error.starts_with("t.toml:1: redis.url: the address is not a string"), "{error}");
    assert!(!message(toml("redis.url = 'redis://:hunter2@h\nrealm='x'")).contains("hunter2"));
}

#[test]
fn a_variable_overrides_the_file_unless_it_is_empty() {
    let with = |value: &'static str| {
        let env = move |name: &str| (name == "TLSRESUME_REALM").then(|| value.to_owned());
        Config::from_toml("realm = 'file'", "t.toml", &env).unwrap().realm
    };
    assert_eq!(with("variable"), "variable");
    assert_eq!(with(""), "file");
}

#[test]
fn an_empty_string_leaves_any_setting_at_its_default() {
    for setting in ENVIRONMENT {
        assert_eq!(toml(&line(setting.key, "''")).unwrap(), Config::default(), "{setting:?}");
        assert_eq!(variable(setting.name, "").unwrap(), Config::default(), "{setting:?}");
    }
}
