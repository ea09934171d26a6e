//! Reproducible chance.

use std::env;
use std::thread;
use std::time::{Duration, Instant};

use crate::process::say;

/// The variable that sets the seed; a failed test prints what it was.
pub const SEED_VARIABLE: &str = "TLSRESUME_TEST_SEED";

/// Numbers that follow from a seed: SplitMix64.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// With the seed that [`SEED_VARIABLE`] sets, else a new one. The seed is printed.
    pub fn new() -> Random {
        let wanted = env::var(SEED_VARIABLE).ok().map(|text| {
            text.parse().unwrap_or_else(|_| panic!("{SEED_VARIABLE}={text:?} is not a number"))
        });
        let seed = wanted.unwrap_or_else(|| u64::from(std::process::id()) << 20 | clock_bits());
        say(&format!("{SEED_VARIABLE}={seed}"));
        Random(seed)
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Lets a random part of `limit` go by, so that what follows hits others at a random moment.
    pub fn moment(&mut self, limit: Duration) {
        let nanos = u64::try_from(limit.as_nanos()).expect("a limit of less than 500 years");
        let end = Instant::now() + Duration::from_nanos(self.below(nanos.max(1)));
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            thread::park_timeout(left);
        }
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.number() % end
    }
}

impl Default for Random {
    fn default() -> Random {
        Random::new()
    }
}

fn clock_bits() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |now| u64::from(now.subsec_micros()))
}
