//! The only place that reads a clock.
//!
//! Owns: the types for wall-clock time and for short waits. Called by: `engine`, `store`, `tls`; the pure cores take a
//! [`UnixMillis`] as an argument instead. Threads and forks: no state. Failure: a clock that cannot be read counts as
//! the epoch, which makes sessions look young and keys pending, never the other way round.

#![deny(unsafe_code)]

use std::ops::{Add, Sub};
use std::time::Duration;

use crate::sys;

/// Wall-clock time: milliseconds since 1970-01-01T00:00:00Z, leap seconds not counted.
///
/// Sums and differences saturate, so no time that arrives from outside can overflow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixMillis(pub u64);

impl UnixMillis {
    /// Later than every time that can be met.
    pub const MAX: UnixMillis = UnixMillis(u64::MAX);

    /// The time `secs` whole seconds after the epoch.
    pub const fn from_secs(secs: u64) -> Self {
        UnixMillis(secs.saturating_mul(1000))
    }

    /// Whole seconds since the epoch, rounded down.
    pub const fn secs(self) -> u64 {
        self.0 / 1000
    }

    /// How much later this time is than `earlier`; zero when it is not later.
    pub const fn since(self, earlier: UnixMillis) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for UnixMillis {
    type Output = UnixMillis;

    fn add(self, duration: Duration) -> UnixMillis {
        UnixMillis(self.0.saturating_add(millis(duration)))
    }
}

impl Sub<Duration> for UnixMillis {
    type Output = UnixMillis;

    fn sub(self, duration: Duration) -> UnixMillis {
        UnixMillis(self.0.saturating_sub(millis(duration)))
    }
}

/// The wall clock, which an administrator or NTP may step in either direction.
pub fn now() -> UnixMillis {
    UnixMillis(millis(sys::wall_clock()))
}

/// The clock that OpenSSL stamps its sessions with, in seconds since 1970. It may lag behind [`now`] by a few
/// milliseconds, hence by a whole second: what is compared with OpenSSL's times must use it.
pub fn openssl_seconds() -> u64 {
    sys::coarse_seconds()
}

/// Time since boot, suspended time included; the same clock in every process of a host.
pub fn since_boot() -> Duration {
    sys::boot_clock()
}

/// How long it is until `deadline`, a time since boot; `None` when it is over.
pub fn until(deadline: Duration) -> Option<Duration> {
    Some(deadline.saturating_sub(since_boot())).filter(|left| !left.is_zero())
}

/// In whole milliseconds.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_and_differences_saturate() {
        assert_eq!(UnixMillis(5) - Duration::from_secs(1), UnixMillis(0));
        assert_eq!(UnixMillis::MAX + Duration::from_secs(1), UnixMillis::MAX);
        assert_eq!(UnixMillis(5).since(UnixMillis(9)), Duration::ZERO);
        assert_eq!(UnixMillis::from_secs(u64::MAX), UnixMillis::MAX);
    }
}
