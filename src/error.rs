//! What can go wrong outside a handshake, in words that name the file, the key and the remedy.
//!
//! Owns: the error type of every fallible operation that a user asks for (inside a handshake there are no errors, only
//! the soft answers that ARCHITECTURE.md lists). Called by: every module. No state.

#![forbid(unsafe_code)]

use std::path::PathBuf;

/// Why an operation that a caller asked for was not done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An argument of a C function is out of its range.
    #[error("{0}")]
    Argument(&'static str),
    /// The configuration has a mistake; the text names the origin, the line, the key and what is allowed.
    #[error("{0}")]
    Config(String),
    /// A key file (or imported key data) is not what its format says.
    #[error("{origin}: {problem}")]
    KeyFile {
        /// The file's path, or "imported data".
        origin: String,
        /// What was expected and what was found.
        problem: String,
    },
    /// The operating system refused something.
    #[error("{}: {action}: {source}", path.display())]
    Io {
        /// The file that was worked on.
        path: PathBuf,
        /// What was being done, as a verb phrase: "open", "lock in memory".
        action: &'static str,
        /// The system's own reason.
        source: std::io::Error,
    },
    /// The ring cannot hold another key, or another process holds its lock.
    #[error("{0}")]
    Ring(&'static str),
    /// What was asked for was done on this node; other nodes do not follow. The text says why and what to do.
    #[error("{0}")]
    OnThisNodeOnly(&'static str),
    /// The caller was compiled against another OpenSSL than the library.
    #[error(
        "compiled against OpenSSL {header}, but this libtlsresume is for OpenSSL {library}; use the same major version for both"
    )]
    OpensslVersion {
        /// Version of the header that the caller included.
        header: String,
        /// Version that the library was built for.
        library: String,
    },
    /// A caller's buffer is too small; the length it needs was written where the caller said.
    #[error("{0}")]
    BufferTooSmall(&'static str),
    /// The context was attached before, or never.
    #[error("{0}")]
    Attachment(&'static str),
}

/// The result of an operation that a caller asked for.
pub type Result<T> = std::result::Result<T, Error>;
