//! Chance that repeats: splitmix64.

use super::Millis;

#[derive(Debug)]
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Chance(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// From `least` to `most`, both included.
    pub(crate) fn between(&mut self, least: Millis, most: Millis) -> Millis {
        least + self.next() % (most - least + 1)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).expect("less than end")
    }

    /// True `per_mille` times of a thousand.
    pub(crate) fn happens(&mut self, per_mille: u64) -> bool {
        self.next() % 1000 < per_mille
    }

    /// Times between events that know nothing of each other: exponential, by whole 64ths of a halving.
    pub(crate) fn around(&mut self, mean: Millis) -> Millis {
        let halvings = u64::from(self.next().leading_zeros());
        let part = self.next() % 64;
        // A halving takes ln 2 of the mean; 693 / 1000.
        1 + mean * 693 * (halvings * 64 + part) / 64_000
    }

    pub(crate) fn fill(&mut self, buffer: &mut [u8]) {
        for part in buffer.chunks_mut(8) {
            let bytes = self.next().to_le_bytes();
            part.copy_from_slice(&bytes[..part.len()]);
        }
    }
}
