//! Ctrl-C and the time limit: the demo stops between two steps, so that everything it started is
//! dropped in order.

use std::sync::atomic::{AtomicI32, Ordering};

use libc::c_int;

/// What a shell reports for a program that Ctrl-C ended.
pub(crate) const EXIT_CODE: u8 = 130;

/// Several times what it takes, and so early that a last, stuck step ends within a minute.
pub(crate) const TIME_LIMIT_S: u32 = 40;

/// The signal that came, or 0.
static RECEIVED: AtomicI32 = AtomicI32::new(0);

/// Why the demo ends before its time.
pub(crate) enum Stop {
    /// The user wants it.
    Interrupted,
    /// [`TIME_LIMIT_S`] is over.
    OutOfTime,
    /// Something around the measurements does not work.
    Failed(tlsresume_testkit::Error),
}

/// What a step of the demo returns.
pub(crate) type Outcome<T> = Result<T, Stop>;

impl From<tlsresume_testkit::Error> for Stop {
    /// A terminal sends Ctrl-C to our children as well: what fails after that is no news.
    fn from(error: tlsresume_testkit::Error) -> Stop {
        check().err().unwrap_or(Stop::Failed(error))
    }
}

/// From now on these signals only leave a note for [`check`]; one of them comes at the time limit.
pub(crate) fn catch() {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGALRM] {
        let handler: extern "C" fn(c_int) = note;
        // SAFETY: the handler only stores an atomic, which is async-signal-safe, and lives forever.
        unsafe { libc::signal(signal, handler as libc::sighandler_t) };
    }
    // SAFETY: alarm takes an integer and concerns this process only.
    unsafe { libc::alarm(TIME_LIMIT_S) };
}

/// Between two steps: is there to be another one?
pub(crate) fn check() -> Outcome<()> {
    match RECEIVED.load(Ordering::Relaxed) {
        0 => Ok(()),
        libc::SIGALRM => Err(Stop::OutOfTime),
        _ => Err(Stop::Interrupted),
    }
}

extern "C" fn note(signal: c_int) {
    RECEIVED.store(signal, Ordering::Relaxed);
}
