//! The configuration that was asked for, and the servers' memory that it names.

use tlsresume::config::{Config, process_environment};
use tlsresume::engine::Engine;
use tlsresume::error::Result;

use crate::arguments::Options;

/// The memory of servers that have started. To look at it changes nothing.
pub(crate) fn existing(options: &Options) -> Result<Engine> {
    Engine::existing(config(options)?)
}

/// The memory of servers that have started or will.
pub(crate) fn shared(options: &Options) -> Result<Engine> {
    Engine::at_path(config(options)?)
}

fn config(options: &Options) -> Result<Config> {
    let mut config = Config::load(options.config.as_deref(), &process_environment)?;
    config.log.level = options.log_level.unwrap_or(config.log.level);
    Ok(config)
}
