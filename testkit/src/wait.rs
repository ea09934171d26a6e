//! Waiting for a condition, never for a time.

use std::thread;
use std::time::{Duration, Instant};

use crate::{Error, Result};

/// When a test gives up what it waits for. Only what hangs takes so long, also where many other programs share the
/// processors: how fast something is, benchmarks say.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// How often a condition that cannot notify us is looked at.
const PAUSE: Duration = Duration::from_millis(10);

/// Returns once `condition` holds; fails with `what` if it does not within `limit`.
pub fn wait_until(
    what: impl Into<String>,
    limit: Duration,
    mut condition: impl FnMut() -> bool,
) -> Result<()> {
    let deadline = Instant::now() + limit;
    while !condition() {
        if Instant::now() >= deadline {
            return Err(Error::TimedOut { what: what.into(), limit, log: String::new() });
        }
        thread::park_timeout(PAUSE);
    }
    Ok(())
}
