//! What is looked up, and what may become of it.
//!
//! Owns: nothing. Called by: everything of look-ups, and `engine`. Threads and forks: plain values. Failure: none.

/// What a session is looked up by.
pub type Key = [u8; 24];

/// What became of a look-up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The sealed session.
    Found(Vec<u8>),
    /// The vault has no such session.
    Absent,
    /// The vault did not answer in time.
    Unavailable,
    /// The vault was not asked: it did not answer others.
    Refused,
}
