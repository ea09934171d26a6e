//! The configuration that was asked for, and the servers' memory that it names.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use tlsresume::config::{Config, process_environment};
use tlsresume::engine::Engine;
use tlsresume::error::Error;

use crate::arguments::Options;
use crate::output::{Exit, Failure};

/// The memory of servers that have started. To look at it changes nothing.
pub(crate) fn existing(options: &Options) -> Result<Engine, Failure> {
    let config = config(options)?;
    let path = config.memory.path.clone();
    Engine::existing(config).map_err(|error| Failure {
        exit: if path.is_some_and(|path| is_absent(&path)) { Exit::Nothing } else { Exit::Refused },
        reason: error.to_string(),
    })
}

/// Whether no server has made the file yet: one that is being made is empty.
fn is_absent(path: &Path) -> bool {
    match fs::symlink_metadata(path) {
        Ok(file) => file.is_file() && file.len() == 0,
        Err(error) => error.kind() == ErrorKind::NotFound,
    }
}

/// The memory of servers that have started or will.
pub(crate) fn shared(options: &Options) -> Result<Engine, Failure> {
    Ok(Engine::at_path(config(options)?)?)
}

fn config(options: &Options) -> Result<Config, Error> {
    let mut config = Config::load(options.config.as_deref(), &process_environment)?;
    config.log.level = options.log_level.unwrap_or(config.log.level);
    Ok(config)
}
