//! Whether the stream is read with caution.
//!
//! Owns: for how many answers yet. Called by: a [`super::Remote`], whose connections share it. Threads: any; one reads the
//! stream. Forks: a child goes on from its parent's state. Failure: none.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::cluster::transport::{Failure, News};

/// How many answers are read with caution after a failure, or something strange.
const CAUTION: u32 = 1000;

/// How many answers are still to be read with caution, by whatever connection: one that was cut off is followed by
/// another one.
#[derive(Clone, Debug, Default)]
pub(super) struct Caution(Arc<AtomicU32>);

impl Caution {
    pub(super) fn is_due(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }

    /// One thread reads the stream.
    pub(super) fn learn(&self, read: &Result<News, Failure>) {
        match read {
            Ok(news) if news.passed_over == 0 => {
                self.0.store(self.0.load(Ordering::Relaxed).saturating_sub(1), Ordering::Relaxed);
            }
            Ok(_) | Err(Failure::Lost(_)) => self.0.store(CAUTION, Ordering::Relaxed),
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caution_begins_with_a_failure_and_ends_after_enough_that_went_well() {
        let caution = Caution::default();
        let left = || caution.0.load(Ordering::Relaxed);
        caution.learn(&Err(Failure::Refused(String::new())));
        assert_eq!(left(), 0);
        for strange in
            [Err(Failure::Lost(String::new())), Ok(News { passed_over: 1, ..News::default() })]
        {
            caution.learn(&strange);
            (0..CAUTION - 1).for_each(|_| caution.learn(&Ok(News::default())));
            assert_eq!(left(), 1);
            caution.learn(&Ok(News::default()));
            assert_eq!(left(), 0);
        }
    }
}
