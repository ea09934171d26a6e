//! How far the node's ring and the shared copy have become one.
//!
//! Owns: that. Called by: the agent, and [`super::ring`]. Threads and forks: the agent's. Failure: none.

use std::time::Duration;

use super::pace::Pace;
use super::reading::Reading;
use super::unread::Unread;
use crate::clock::UnixMillis;

/// The copy is read so many times at once, and then once in so long, whatever others say of it: a notice costs who
/// writes one far less.
const READS_AT_ONCE: u32 = 4;
const READ_EVERY: Duration = Duration::from_millis(500);

/// How far the node's ring and the copy have become one.
pub(super) struct Progress {
    /// The copy's token when nothing was left to do.
    pub(super) token: Option<Vec<u8>>,
    /// Generation of the node's ring then.
    pub(super) generation: u64,
    /// When the token is looked at next.
    pub(super) poll: Duration,
    /// When the copy is looked at next though it is the same.
    pub(super) look_again: Option<Duration>,
    /// What is read of the copy so far, and the token that it had before.
    pub(super) reading: (Option<Vec<u8>>, Reading),
    /// How often the copy is read.
    pub(super) pace: Pace<READS_AT_ONCE>,
    /// What is in the copy and does not open.
    pub(super) unread: Unread,
    /// Somebody said that the copy changed.
    pub(super) noticed: bool,
    /// Since when the first keys of another node are waited for.
    pub(super) waiting_since: Option<Duration>,
    /// This node makes the keys for all; and when it looks next whether some are due.
    pub(super) is_maker: bool,
    pub(super) making: Duration,
    /// Which copy this is, as its token says: another one when everything was lost.
    pub(super) epoch: Option<Epoch>,
    /// What older secrets had sealed was sealed again.
    pub(super) is_resealed: bool,
    /// When the copy was read, by this node's clock, that had everything at last.
    pub(super) contact: Option<UnixMillis>,
    /// How many exchanges there were since then.
    pub(super) in_vain: u32,
}

/// The first part of a token stays the same as long as the copy is there, the rest is new with each change.
pub(super) type Epoch = [u8; 8];
pub(super) type Change = [u8; 8];

impl Default for Progress {
    fn default() -> Self {
        Progress {
            token: None,
            generation: 0,
            poll: Duration::ZERO,
            look_again: None,
            reading: Default::default(),
            pace: Pace::once_in(READ_EVERY),
            unread: Unread::default(),
            noticed: false,
            waiting_since: None,
            is_maker: false,
            making: Duration::ZERO,
            epoch: None,
            is_resealed: false,
            contact: None,
            in_vain: 0,
        }
    }
}

impl Progress {
    /// A new connection: what the copy holds now is anybody's guess.
    pub(super) fn begin_anew(&mut self) {
        let before = std::mem::take(self);
        let Progress { epoch, is_resealed, contact, pace, .. } = before;
        *self = Progress { epoch, is_resealed, contact, pace, ..Progress::default() };
    }

    /// Whether some of the copy is read and some is not.
    pub(super) fn is_reading(&self) -> bool {
        !self.reading.1.is_new()
    }
}
