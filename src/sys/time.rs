//! The system's clocks, and short sleeps.
//!
//! Owns: nothing. Called by: `clock`, and whoever waits. Threads and forks: no state. Failure: a clock that cannot be read
//! is at zero, and a sleep may end early.

use std::time::Duration;

/// `CLOCK_REALTIME`; zero when it cannot be read.
pub(crate) fn wall_clock() -> Duration {
    read_clock(libc::CLOCK_REALTIME)
}

/// `CLOCK_BOOTTIME`; zero when it cannot be read.
pub(crate) fn boot_clock() -> Duration {
    read_clock(libc::CLOCK_BOOTTIME)
}

/// Seconds since 1970 as time(2) counts them: on the kernel's last tick, which may be a few milliseconds behind.
pub(crate) fn coarse_seconds() -> u64 {
    // SAFETY: without a place to write, the time is only returned.
    u64::try_from(unsafe { libc::time(std::ptr::null_mut()) }).unwrap_or(0)
}

fn read_clock(clock: libc::clockid_t) -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a timespec that the call may write.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    let secs = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(secs, u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Sleeps for a short while; may return early when a signal arrives.
pub(crate) fn pause(duration: Duration) {
    let time = timespec(duration);
    // SAFETY: `time` is a valid timespec; the remaining time is not asked for.
    unsafe { libc::nanosleep(&raw const time, std::ptr::null_mut()) };
}

pub(super) fn timespec(duration: Duration) -> libc::timespec {
    libc::timespec {
        tv_sec: libc::time_t::try_from(duration.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: libc::c_long::from(duration.subsec_nanos() as i32),
    }
}
