//! How the transport does.
//!
//! Owns: nothing. Called by: the agent, which tells of changes, and [`super::start`], which remembers what was told.
//! Threads and forks: plain values. Failure: none.

/// How the transport does, as the metrics have it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// It was not asked yet.
    Unknown,
    /// It does what it is asked.
    Up,
    /// It answers, and refuses: no memory, no permission, no disk.
    Refusing,
    /// It does not answer.
    Down,
}
