//! `tlsresumectl` looks after the keys and sessions that the servers of a host share.
//!
//! Each command opens the servers' memory at `memory.path`, does one thing and says what it did: as text, or with
//! `--json` as one JSON value. No command prints a key. What goes wrong is one line on standard error; the exit status
//! tells what was done (output::Exit).
//!
//! ```text
//! main        from arguments to a command, from its result to the exit status
//! arguments   what can be asked for
//! realm       the configuration, and the servers' memory
//! status  keys  sessions  metrics  check  agent      one command each
//! reach       whom a change reached, in words and as an exit status
//! attached    which processes have the memory mapped
//! output      the only place that prints
//! time        times as people and programs read them
//! ```

#![forbid(unsafe_code)]

mod agent;
mod arguments;
mod attached;
mod check;
mod keys;
mod metrics;
mod output;
mod reach;
mod realm;
mod sessions;
mod status;
mod time;

use std::process::ExitCode;

use clap::Parser;

use arguments::{Arguments, Command, ConfigCommand, KeysCommand, SessionsCommand};
use output::{Exit, Failure, Output};

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(told) => {
            let exit = if told.use_stderr() { Exit::Refused } else { Exit::Done };
            // Where it cannot be said, the exit status still tells.
            let _ = told.print();
            return exit.into();
        }
    };
    match run(&arguments) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            output::complain(&failure.reason);
            failure.exit.into()
        }
    }
}

fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let options = &arguments.options;
    let out = Output { json: options.json };
    match &arguments.command {
        Command::Status => status::status(&realm::existing(options)?, out),
        Command::Keys(KeysCommand::List) => keys::list(&realm::existing(options)?, out),
        Command::Keys(KeysCommand::Rotate) => keys::rotate(&realm::existing(options)?, out),
        Command::Keys(KeysCommand::Revoke(which)) => {
            keys::revoke(&realm::existing(options)?, which.name, out)
        }
        Command::Sessions(SessionsCommand::Flush) => {
            sessions::flush(&realm::existing(options)?, out)
        }
        Command::Metrics => metrics::metrics(&realm::existing(options)?, out),
        Command::Config(ConfigCommand::Check { file }) => check::check(file, out),
        Command::Agent => agent::agent(&realm::shared(options)?, out),
    }
}
