//! The configuration: defaults, then one TOML file, then the `TLSRESUME_*` variables on top.
//!
//! Owns: every setting with its unit, range and default, and the text of every mistake. A [`Config`] that exists is
//! valid: nobody checks a setting a second time. Called by: `engine` and `tlsresumectl`. Threads and forks: no state.
//! Failure: one mistake, on one line: origin, line, key, what was found and what is allowed.
//!
//! Reads no file but the configuration itself; what paths point at is read by whoever uses it.

#![forbid(unsafe_code)]

mod address;
mod draft;
mod env;
mod input;
mod rules;
mod sections;
mod show;
#[cfg(test)]
mod tests;
mod unknown;
mod words;

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

pub use crate::log::Target as LogTarget;
pub use env::{ENVIRONMENT, Setting};
pub use rules::MAX_KEYS;
pub use sections::{Cluster, EarlyData, Keys, Log, Memcached, Memory, Peers, Redis, Resumption};
pub use words::{Agent, Bind, KeyFormat, KeySource, Level, Mode, OnRemove, Replication};

use crate::error::{Error, Result};
use draft::{Draft, mistake};

/// The variable that names the configuration file when the caller names none.
pub const CONFIG_VARIABLE: &str = "TLSRESUME_CONFIG";

/// The longest configuration that is read, in bytes.
pub const MAX_CONFIG_SIZE: usize = 1 << 20;

/// The environment of this process, as the library reads it: nothing of it in programs with raised privileges.
pub fn process_environment(name: &str) -> Option<String> {
    crate::sys::secure_env(name)
}

/// What stands in for `secure_getenv`: the value of a variable, if it is set.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// A complete and valid configuration. `Config::default()` is what an empty file gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Name of the group that shares sessions and keys. 1 to 64 of `A-Z a-z 0-9 . _ -`; default "default".
    pub realm: String,
    /// How sessions are resumed.
    pub resumption: Resumption,
    /// Where ticket keys come from and how long they live.
    pub keys: Keys,
    /// The memory that the processes of one host share.
    pub memory: Memory,
    /// What all transports have in common.
    pub cluster: Cluster,
    /// The Redis transport.
    pub redis: Redis,
    /// The memcached transport.
    pub memcached: Memcached,
    /// The transport from host to host.
    pub peers: Peers,
    /// TLS 1.3 early data.
    pub early_data: EarlyData,
    /// Diagnostics.
    pub log: Log,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            realm: "default".to_owned(),
            resumption: Resumption::default(),
            keys: Keys::default(),
            memory: Memory::default(),
            cluster: Cluster::default(),
            redis: Redis::default(),
            memcached: Memcached::default(),
            peers: Peers::default(),
            early_data: EarlyData::default(),
            log: Log::default(),
        }
    }
}

impl Config {
    /// Whether anything joins this node to others.
    pub fn has_transport(&self) -> bool {
        !self.redis.url.is_empty()
    }

    /// Reads the file at `path`, or else the one that [`CONFIG_VARIABLE`] names, or else none; then the environment.
    pub fn load(path: Option<&Path>, env: Environment<'_>) -> Result<Config> {
        match file_of(path, env) {
            Some(path) => Config::from_toml(&read(&path)?, &path.display().to_string(), env),
            None => Config::from_toml("", "environment", env),
        }
    }

    /// Reads `text`, then the environment. Errors call the text `origin`: a path, or "configuration string".
    pub fn from_toml(text: &str, origin: &str, env: Environment<'_>) -> Result<Config> {
        let mut draft = Draft::new(origin);
        draft.read_toml(text)?;
        draft.read_environment(env)?;
        draft.finish()
    }

    /// What [`Config::load`] reads of the log, whatever mistakes the rest has: those are logged too.
    pub fn log_of(path: Option<&Path>, env: Environment<'_>) -> Log {
        let text = file_of(path, env).and_then(|path| read(&path).ok());
        let mut draft = Draft::new("");
        draft.read_log(&text.unwrap_or_default(), env);
        draft.log()
    }
}

/// The file at `path`, or else the one that [`CONFIG_VARIABLE`] names.
fn file_of(path: Option<&Path>, env: Environment<'_>) -> Option<PathBuf> {
    let named = || env(CONFIG_VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from);
    path.map(Path::to_path_buf).or_else(named)
}

/// The text of the file at `path`, which must be a regular file: a FIFO or a terminal would wait for ever.
fn read(path: &Path) -> Result<String> {
    let cannot =
        |action| move |source: io::Error| Error::Io { path: path.to_owned(), action, source };
    let refused = |problem| mistake(&path.display().to_string(), problem);

    if !fs::metadata(path).map_err(cannot("open the configuration"))?.is_file() {
        return Err(refused("is not a regular file"));
    }
    let mut bytes = Vec::new();
    File::open(path)
        .map_err(cannot("open the configuration"))?
        // One byte more than allowed, so that a file that is too long is still seen to be.
        .take(MAX_CONFIG_SIZE as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(cannot("read the configuration"))?;
    // The length comes first: a text cut in the middle of a character is not at fault for that.
    if bytes.len() > MAX_CONFIG_SIZE {
        return Err(refused("is longer than 1 MiB"));
    }
    String::from_utf8(bytes).map_err(|_| refused("is not UTF-8 text"))
}
