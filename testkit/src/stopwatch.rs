//! How long something takes a thread, on a machine that has other things to do.

use std::fs;
use std::time::{Duration, Instant};

/// Measures what a thread does and waits for, without the time in which it was ready to go on and had no processor.
/// Bounds on that time hold on a busy machine too. It is for the thread that makes it.
#[derive(Debug)]
pub struct Stopwatch {
    begun: Instant,
    held_up: Duration,
}

impl Stopwatch {
    /// Begins now.
    #[must_use]
    pub fn start() -> Stopwatch {
        Stopwatch { held_up: held_up(), begun: Instant::now() }
    }

    /// What has passed since then.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        let passed = self.begun.elapsed();
        passed.saturating_sub(held_up().saturating_sub(self.held_up))
    }
}

/// How long this thread has waited for a processor since it exists: the second number of the kernel's statistics.
/// Nothing, where the kernel keeps none.
fn held_up() -> Duration {
    let statistics = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = statistics.split(' ').nth(1).and_then(|number| number.parse().ok());
    Duration::from_nanos(nanos.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_counts_and_having_no_processor_does_not() {
        let waits = Stopwatch::start();
        let until = Instant::now() + Duration::from_millis(20);
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            std::thread::park_timeout(left);
        }
        let [counted, all] = [waits.elapsed(), waits.begun.elapsed()];
        assert!(counted <= all && counted >= Duration::from_millis(19), "{counted:?} of {all:?}");
    }
}
