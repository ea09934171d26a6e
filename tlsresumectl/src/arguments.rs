//! What can be asked for on the command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use tlsresume::config::Level;
use tlsresume::ring::KeyName;

/// Looks after the keys and sessions that the servers of a host share through libtlsresume.
///
/// It works on the memory at memory.path, as the user of the servers and with their configuration.
#[derive(Debug, Parser)]
#[command(name = "tlsresumectl", version)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) options: Options,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The servers' configuration; else the file that TLSRESUME_CONFIG names. TLSRESUME_* variables override single
    /// keys
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Print one JSON value instead of text
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// What the library logs to standard error: off, error, warn, info, debug or trace, whatever the configuration says
    #[arg(long, global = true, value_name = "LEVEL")]
    pub(crate) log_level: Option<Level>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show keys, sessions, memory and counters
    Status,
    /// Show and change the ring of ticket keys
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Change the session cache
    #[command(subcommand)]
    Sessions(SessionsCommand),
    /// Print every metric in the text format of Prometheus
    Metrics,
    /// Look at a configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Talk to transports on behalf of the servers, in the foreground, until SIGTERM or SIGINT
    Agent,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// List every key with its state and times
    List,
    /// Make a key that takes over after keys.activation_delay
    Rotate,
    /// Refuse a key from now on, and every ticket that it made
    Revoke(Which),
}

/// Either one key, or all.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Which {
    /// The key's name as `keys list` shows it: 32 hexadecimal digits
    #[arg(value_parser = key_name)]
    pub(crate) name: Option<KeyName>,
    /// Every key made so far; new ones take their place
    #[arg(long)]
    all: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SessionsCommand {
    /// Forget every stored session
    Flush,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Say what is wrong with a configuration, or what it sets; nothing is started
    Check {
        /// The configuration
        file: PathBuf,
    },
}

fn key_name(text: &str) -> Result<KeyName, String> {
    let digits = text.as_bytes();
    let mut name = KeyName([0; KeyName::LEN]);
    if digits.len() != 2 * KeyName::LEN || !digits.iter().all(u8::is_ascii_hexdigit) {
        return Err(format!("a key's name has {} hexadecimal digits", 2 * KeyName::LEN));
    }
    for (byte, pair) in name.0.iter_mut().zip(text.as_bytes().chunks(2)) {
        let pair = str::from_utf8(pair).map_err(|error| error.to_string())?;
        *byte = u8::from_str_radix(pair, 16).map_err(|error| error.to_string())?;
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_well_formed() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_name_is_read_as_it_is_printed_and_nothing_else_is() {
        let name = KeyName(*b"\x00\x0f\xf0\xff 012345678\xab\xcd");
        assert_eq!(key_name(&name.to_string()), Ok(name));
        assert_eq!(key_name(&name.to_string().to_uppercase()), Ok(name));
        for wrong in
            ["", "00", "+0000000000000000000000000000000", "0123456789abcdef0123456789abcde\u{e9}"]
        {
            assert!(key_name(wrong).is_err(), "{wrong}");
        }
    }
}
