//! A configuration as its reader would write it.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Value;

use super::{Bind, Config};

/// What stands for a value that may hold a secret.
const HIDDEN: &str = "(hidden)";

impl Config {
    /// Every setting and its value, in the order of [`ENVIRONMENT`](super::ENVIRONMENT). What is not set is empty.
    /// Addresses of Redis may hold a password and are hidden.
    pub fn settings(&self) -> Vec<(&'static str, Value)> {
        let Config { resumption, keys, memory, cluster, redis, memcached, peers, .. } = self;
        let url = if redis.url.is_empty() { "" } else { HIDDEN };
        vec![
            ("realm", word(&self.realm)),
            ("resumption.mode", word(resumption.mode)),
            ("resumption.tickets", number(resumption.tickets)),
            ("resumption.lifetime", duration(resumption.lifetime)),
            ("resumption.single_use", Value::Boolean(resumption.single_use)),
            ("resumption.on_remove", word(resumption.on_remove)),
            ("resumption.bind", bind(resumption.bind)),
            ("resumption.force", Value::Boolean(resumption.force)),
            ("keys.source", word(keys.source)),
            ("keys.rotate", duration(keys.rotate)),
            ("keys.ahead", number(keys.ahead)),
            ("keys.activation_delay", duration(keys.activation_delay)),
            ("keys.files", list(keys.files.iter().map(|path| path.display()))),
            ("keys.format", word(keys.format)),
            ("memory.path", path(memory.path.as_ref())),
            ("memory.size", size(memory.size)),
            ("memory.lock", Value::Boolean(memory.lock)),
            ("cluster.secret_file", path(cluster.secret_file.as_ref())),
            ("cluster.agent", word(cluster.agent)),
            ("cluster.sessions", word(cluster.sessions)),
            ("cluster.lookup_budget", duration(cluster.lookup_budget)),
            ("redis.url", word(url)),
            ("redis.password_file", path(redis.password_file.as_ref())),
            ("redis.ca_file", path(redis.ca_file.as_ref())),
            ("redis.cert_file", path(redis.cert_file.as_ref())),
            ("redis.key_file", path(redis.key_file.as_ref())),
            ("memcached.servers", list(&memcached.servers)),
            ("peers.listen", optional(peers.listen)),
            ("peers.members", list(&peers.members)),
            ("peers.multicast", optional(peers.multicast)),
            ("peers.interface", optional(peers.interface.as_ref())),
            ("peers.ttl", number(peers.ttl)),
            ("early_data.replay_window", duration(self.early_data.replay_window)),
            ("log.level", word(self.log.level)),
            ("log.target", word(&self.log.target)),
        ]
    }
}

fn bind(value: Bind) -> Value {
    match value {
        Bind::On => Value::Boolean(true),
        Bind::Off => Value::Boolean(false),
        Bind::Certificate => word(value),
    }
}

fn word(value: impl ToString) -> Value {
    Value::String(value.to_string())
}

fn optional(value: Option<impl ToString>) -> Value {
    Value::String(value.map(|value| value.to_string()).unwrap_or_default())
}

fn path(value: Option<&PathBuf>) -> Value {
    optional(value.map(|path| Path::display(path)))
}

fn list(values: impl IntoIterator<Item = impl ToString>) -> Value {
    Value::Array(values.into_iter().map(word).collect())
}

fn number(value: impl Into<i64>) -> Value {
    Value::Integer(value.into())
}

fn duration(value: Duration) -> Value {
    word(humantime::format_duration(value))
}

/// In the largest unit that leaves a whole number.
fn size(bytes: u64) -> Value {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    let whole = units.into_iter().find(|(shift, _)| bytes > 0 && bytes.is_multiple_of(1 << shift));
    let (shift, unit) = whole.unwrap_or((0, "B"));
    Value::String(format!("{}{unit}", bytes >> shift))
}
