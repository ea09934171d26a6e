//! What was read so far of a hash that all nodes write to.
//!
//! Owns: nothing. Called by: [`super::hashes`], and who waits for the rest. Threads and forks: the agent's. Failure: none.

use std::collections::BTreeMap;

/// Most fields that are kept unseen: sixteen times as many as any ring has parts, or than nodes are expected. Beyond
/// them only those that open count, so that no number of others hides them.
pub(super) const FIELDS: usize = 4096;

/// Names and values.
pub(super) type Fields = BTreeMap<Vec<u8>, Vec<u8>>;

/// A hash of which some pages were read.
#[derive(Default)]
pub(super) struct Reading {
    /// The first page that is not read yet.
    pub(super) next: u64,
    pub(super) pages: usize,
    pub(super) fields: Fields,
}

impl Reading {
    /// Whether nothing was read yet.
    pub(super) fn is_new(&self) -> bool {
        self.pages == 0
    }
}
