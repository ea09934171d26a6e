//! What the system's calls return.
//!
//! Owns: nothing. Called by: `sys`. Threads and forks: errno is the thread's own. Failure: the call's.

use std::io;

/// For calls that return zero where they succeed.
pub(super) fn cvt(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
