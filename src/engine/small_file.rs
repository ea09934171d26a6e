//! Files of keys and secrets: read whole, bounded, wiped from memory.
//!
//! Owns: nothing. Called by: `engine`, off the handshake threads. Threads and forks: any. Failure: an error that names the
//! file.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::UNIX_EPOCH;

use zeroize::Zeroizing;

use crate::clock::UnixMillis;
use crate::error::{Error, Result};

/// Longest key file and secret file.
const MAX_FILE: usize = 64 * 1024;

/// A small file and when it was last changed.
pub(super) fn read_file(path: &Path) -> Result<(Zeroizing<Vec<u8>>, UnixMillis)> {
    let failed = |source: io::Error| Error::Io { path: path.into(), action: "read", source };
    // Reserved in full: a vector that grew would leave copies of keys behind.
    let mut data = Zeroizing::new(Vec::with_capacity(MAX_FILE + 1));
    let file = File::open(path).map_err(failed)?;
    let meta = file.metadata().map_err(failed)?;
    if !meta.is_file() {
        return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, "is not a regular file")));
    }
    file.take(MAX_FILE as u64 + 1).read_to_end(&mut data).map_err(failed)?;
    if data.len() > MAX_FILE {
        return Err(failed(io::Error::new(io::ErrorKind::FileTooLarge, "is longer than 64 KiB")));
    }
    let modified = meta.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    Ok((data, UnixMillis(0) + modified.unwrap_or_default()))
}
