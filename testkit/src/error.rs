//! The one error type: each text says what to do or what the process said.

use std::fmt;
use std::io;
use std::time::Duration;

/// What can go wrong around a process test.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A program of the distribution is missing.
    #[error("{program} is not installed: apt-get install {package}")]
    MissingProgram {
        /// The program's name.
        program: String,
        /// The Debian package that has it.
        package: &'static str,
    },

    /// One of our own example programs is missing.
    #[error("{name} is not built: make examples")]
    MissingExample {
        /// The program's name.
        name: String,
    },

    /// One of our own libraries is missing.
    #[error("{name} is not built: make all")]
    MissingLibrary {
        /// Its file name.
        name: String,
    },

    /// Something was waited for in vain.
    #[error("{what}: not within {limit:?}\n{log}")]
    TimedOut {
        /// What was waited for.
        what: String,
        /// For how long.
        limit: Duration,
        /// What the process had printed by then.
        log: String,
    },

    /// A process ended, or said something, that was not expected.
    #[error("{program}: {reason}\n{log}")]
    Unexpected {
        /// The program's name.
        program: String,
        /// What was not as expected.
        reason: String,
        /// What the process had printed by then.
        log: String,
    },

    /// The operating system refused something.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done.
        doing: String,
        /// Why it was refused.
        source: io::Error,
    },
}

/// A test that returns an error shows it with `Debug`: let that be the text, with its lines.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A result with the testkit's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// Turns an I/O error into ours, saying what was being done.
pub(crate) trait Doing<T> {
    fn doing(self, what: impl Into<String>) -> Result<T>;
}

impl<T> Doing<T> for io::Result<T> {
    fn doing(self, what: impl Into<String>) -> Result<T> {
        self.map_err(|source| Error::Io { doing: what.into(), source })
    }
}
