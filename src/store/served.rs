//! What the table of names answers.
//!
//! Owns: nothing. Called by: [`super::names`], `engine`. Threads and forks: plain values. Failure: none.

/// What the table knows of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Served {
    /// Nothing, and there is room to remember it.
    Nothing,
    /// What this fingerprint stands for served it last, and the name is not marked.
    By(u16),
    /// It is marked: different things serve it.
    Mixed,
    /// Nothing, and there is no room to remember it.
    NoRoom,
}
