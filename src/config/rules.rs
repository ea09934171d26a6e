//! The rules that tie several settings together.

#![forbid(unsafe_code)]

use std::time::Duration;

use super::words::{KeySource, Mode, Replication};
use super::{Config, Keys, Redis, Resumption};

/// How many ticket keys may be in use or made in advance at one time: `lifetime / rotate + ahead`.
pub const MAX_KEYS: u32 = 200;

/// A key to change, and why. It is one that somebody set: the defaults fit together.
pub(super) type Breach = (&'static str, String);

/// The first rule that `config` breaks.
pub(super) fn broken(config: &Config) -> Option<Breach> {
    key_files(&config.keys)
        .or_else(|| too_many_keys(&config.resumption, &config.keys))
        .or_else(|| missing_secret(config))
        .or_else(|| single_use(config))
        .or_else(|| pull(config))
        .or_else(|| half_a_certificate(&config.redis))
        .or_else(|| certificates_without_tls(&config.redis))
}

fn breach(key: &'static str, problem: impl Into<String>) -> Option<Breach> {
    Some((key, problem.into()))
}

fn key_files(keys: &Keys) -> Option<Breach> {
    match (keys.source, keys.files.is_empty()) {
        (KeySource::Files, true) => {
            breach("keys.source", r#""files" needs keys.files, which is not set"#)
        }
        (KeySource::Random | KeySource::Derived, false) => breach(
            "keys.files",
            format!(r#"needs keys.source = "files", which is "{}""#, keys.source),
        ),
        _ => None,
    }
}

/// The ring has room for [`MAX_KEYS`]. Only a short `rotate` can exceed it: with the default one, the longest lifetime
/// and the most keys ahead still fit.
fn too_many_keys(resumption: &Resumption, keys: &Keys) -> Option<Breach> {
    let (lifetime, rotate, ahead) = (resumption.lifetime, keys.rotate, keys.ahead);
    let total = lifetime.as_nanos().div_ceil(rotate.as_nanos()) + u128::from(ahead);
    if total <= u128::from(MAX_KEYS) {
        return None;
    }
    let room = MAX_KEYS - ahead;
    let whole_seconds = lifetime.as_secs() + u64::from(lifetime.subsec_nanos() > 0);
    let least_rotate = Duration::from_secs(whole_seconds.div_ceil(room.into()));
    breach(
        "keys.rotate",
        format!(
            "{} with resumption.lifetime = {} and keys.ahead = {ahead} makes {total} keys; allowed: {MAX_KEYS}; \
             raise keys.rotate to at least {}, or lower resumption.lifetime to at most {}",
            in_words(rotate),
            in_words(lifetime),
            in_words(least_rotate),
            in_words(rotate * room),
        ),
    )
}

fn missing_secret(config: &Config) -> Option<Breach> {
    if config.cluster.secret_file.is_some() {
        return None;
    }
    if config.keys.source == KeySource::Derived {
        return breach("keys.source", r#""derived" needs cluster.secret_file, which is not set"#);
    }
    let transport = transports(config).next()?;
    breach(transport, "needs cluster.secret_file, which is not set")
}

fn single_use(config: &Config) -> Option<Breach> {
    const KEY: &str = "resumption.single_use";
    let mode = config.resumption.mode;
    if !config.resumption.single_use {
        None
    } else if mode != Mode::Stateful {
        breach(KEY, format!(r#"true needs resumption.mode = "stateful", which is "{mode}""#))
    } else if peers_alone(config) {
        breach(KEY, "true needs redis.url or memcached.servers: peers cannot decide who was first")
    } else {
        None
    }
}

fn pull(config: &Config) -> Option<Breach> {
    if config.cluster.sessions == Replication::Pull && peers_alone(config) {
        breach(
            "cluster.sessions",
            r#""pull" needs redis.url or memcached.servers: peers hold nothing to look up"#,
        )
    } else {
        None
    }
}

fn half_a_certificate(redis: &Redis) -> Option<Breach> {
    match (&redis.cert_file, &redis.key_file) {
        (Some(_), None) => breach("redis.cert_file", "needs redis.key_file, which is not set"),
        (None, Some(_)) => breach("redis.key_file", "needs redis.cert_file, which is not set"),
        _ => None,
    }
}

/// Whoever sets one of these files means TLS, and must not get less for a letter that is missing.
fn certificates_without_tls(redis: &Redis) -> Option<Breach> {
    let first =
        redis.url.first().filter(|_| !redis.url.iter().any(|it| it.starts_with("rediss")))?;
    let remedy = match first.split_once("://")?.0 {
        "redis+unix" => "a Unix socket has none",
        "redis+sentinel" => "write rediss+sentinel://",
        _ => "write rediss://",
    };
    let files = [
        ("redis.ca_file", &redis.ca_file),
        ("redis.cert_file", &redis.cert_file),
        ("redis.key_file", &redis.key_file),
    ];
    let (key, _) = files.iter().find(|(_, file)| file.is_some())?;
    breach(key, format!("needs TLS, which redis.url does not ask for: {remedy}"))
}

/// The keys that are set and turn a transport on.
fn transports(config: &Config) -> impl Iterator<Item = &'static str> {
    let peers = &config.peers;
    [
        ("redis.url", !config.redis.url.is_empty()),
        ("memcached.servers", !config.memcached.servers.is_empty()),
        ("peers.listen", peers.listen.is_some()),
        ("peers.members", !peers.members.is_empty()),
        ("peers.multicast", peers.multicast.is_some()),
    ]
    .into_iter()
    .filter_map(|(key, is_set)| is_set.then_some(key))
}

/// Whether the only transport is the one without a place that all nodes share.
fn peers_alone(config: &Config) -> bool {
    let mut transports = transports(config).peekable();
    transports.peek().is_some() && transports.all(|key| key.starts_with("peers."))
}

/// A duration in the short units of the documentation: "7d", "3m 41s".
fn in_words(duration: Duration) -> String {
    let long = humantime::format_duration(duration).to_string();
    long.replace("days", "d").replace("day", "d")
}
