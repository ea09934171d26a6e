//! What joins nodes, whatever carries it: the traits that every transport implements, and what they are told.
//!
//! Owns: the traits, their failures, and the forms in which they take and give things. No I/O. Called by: `engine` and
//! [`super::lookup`], which know a transport by these traits alone; one folder beside this file implements them. Threads:
//! a [`Transport`] is shared, what it connects belongs to one thread. Forks: a connection made before a fork is of no
//! use after it. Failure: a [`Failure`]; every call ends within the limit that its connection was made with.
//!
//! A transport has a [`Board`]: a few small sealed records that all nodes read and merge (parts of the ring,
//! heartbeats). It may have a [`Feed`], which brings new entries to every node (sessions by push, removals, notices), and
//! a [`Vault`], which holds one value for each session (pull, `single_use`). [`Offers`] says which; a configuration that
//! asks for more is refused.

use std::collections::BTreeMap;
use std::time::Duration;

use super::message::Key;
use crate::clock::UnixMillis;

/// The longest value of a field of a board, with room: a key, or a heartbeat, sealed. That of all revocations is longer.
pub const LONGEST_VALUE: usize = 1024;

/// Why a transport did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The connection is of no use any more, or there never was one.
    #[error("{0}")]
    Lost(String),
    /// It answered with an error; the connection goes on.
    #[error("{0}")]
    Refused(String),
    /// It has no memory left for what was to be written.
    #[error("out of memory: {0}")]
    Full(String),
    /// There is something under a name of ours that is of no use ([`Board::take_away_strange`]).
    #[error("{0}")]
    Strange(String),
}

impl Failure {
    /// Whether it answered, and goes on answering.
    pub fn is_refusal(&self) -> bool {
        !matches!(self, Failure::Lost(_))
    }
}

/// What a transport has beside a [`Board`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offers {
    /// A [`Feed`].
    pub feed: bool,
    /// A [`Vault`].
    pub vault: bool,
}

/// How sessions reach the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Not at all: keys only.
    None,
    /// As entries of a [`Feed`] that every node takes into its store.
    Feed,
    /// Through a [`Vault`], to be looked up.
    Vault,
}

/// A way to reach the other nodes; [`Transport::connect`] for the agent, [`Transport::connect_vault`] for look-ups.
pub trait Transport: Send + Sync {
    /// What it is called in the configuration, in the log and in metrics.
    fn name(&self) -> &'static str;

    /// What it has.
    fn offers(&self) -> Offers;

    /// Connects; every later call may take as long as `limit`. Looking up names of hosts comes on top.
    ///
    /// # Errors
    /// [`Failure`].
    fn connect(&self, limit: Duration) -> Result<Box<dyn Channel>, Failure>;

    /// Connects to what holds sessions by their keys, where there is one; every later call may take as long as `limit`.
    ///
    /// # Errors
    /// [`Failure`].
    fn connect_vault(&self, limit: Duration) -> Result<Box<dyn Vault>, Failure>;
}

/// The agent's connection. After [`Failure::Lost`] it is of no more use.
pub trait Channel: Board + Send {
    /// Writes a batch. On an error none or some of it was written; writing it again does no harm, except where a
    /// session may be used once only. Entries are kept for `keep` at least.
    ///
    /// # Errors
    /// [`Failure`].
    fn send(&mut self, batch: &[Outgoing], keep: Duration) -> Result<(), Failure>;

    /// What brings the others' entries, where there is such a thing.
    fn feed(&mut self) -> Option<&mut dyn Feed>;
}

/// Something that is written for the others.
#[derive(Clone, Debug)]
pub enum Outgoing {
    /// An entry of the feed.
    Entry(Vec<u8>),
    /// A session for the vault, for as long.
    Session(Key, Vec<u8>, Duration),
    /// A session that is to be in the vault no more.
    Forget(Key),
}

/// A part of a board.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// The shared copy of the ring.
    Ring,
    /// The nodes' heartbeats.
    Nodes,
}

/// Some fields of a table.
#[derive(Debug, Default)]
pub struct Page {
    /// Names and values, without the ring's token.
    pub fields: Vec<(Vec<u8>, Vec<u8>)>,
    /// How many were dropped because nothing of ours is so long.
    pub dropped: u64,
    /// Where the next page begins; zero after the last one.
    pub next: u64,
}

/// The shared copy of the ring: its token and its sealed parts.
#[derive(Debug, Default)]
pub struct RingCopy {
    /// Moves with each change; none while there is no copy.
    pub token: Option<Vec<u8>>,
    /// Sealed, by field.
    pub parts: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// Small sealed records that all nodes read, write and merge.
pub trait Board {
    /// The page of a table that begins there; the first one at zero. Pages are no snapshot: what changes meanwhile may
    /// be seen or not, and a field may come twice.
    ///
    /// # Errors
    /// [`Failure`].
    fn page(&mut self, table: Table, begin: u64) -> Result<Page, Failure>;

    /// Takes fields out of a table; how many were there.
    ///
    /// # Errors
    /// [`Failure`].
    fn take_out(&mut self, table: Table, fields: &[Vec<u8>]) -> Result<u64, Failure>;

    /// The token of the ring's copy: whether it moved. None while there is no copy.
    ///
    /// # Errors
    /// [`Failure`].
    fn ring_token(&mut self) -> Result<Option<Vec<u8>>, Failure>;

    /// Writes parts of the ring under a new token, all at once.
    ///
    /// # Errors
    /// [`Failure`].
    fn write_ring(
        &mut self,
        parts: &[(Vec<u8>, Vec<u8>)],
        token: &[u8],
        keep: Duration,
    ) -> Result<(), Failure>;

    /// The same, unless the copy has changed since it had the token `known`; whether it was written.
    ///
    /// # Errors
    /// [`Failure`].
    fn write_ring_after(
        &mut self,
        known: Option<&[u8]>,
        parts: &[(Vec<u8>, Vec<u8>)],
        token: &[u8],
        keep: Duration,
    ) -> Result<bool, Failure>;

    /// Writes this node's heartbeat.
    ///
    /// # Errors
    /// [`Failure`].
    fn beat(&mut self, node: &str, sealed: &[u8], keep: Duration) -> Result<(), Failure>;

    /// Becomes, or stays, the node that makes the next keys, for `term`; whether it is.
    ///
    /// # Errors
    /// [`Failure`].
    fn be_maker(&mut self, node: &str, term: Duration) -> Result<bool, Failure>;

    /// Leaves the making of keys to another node.
    ///
    /// # Errors
    /// [`Failure`].
    fn leave_maker(&mut self, node: &str) -> Result<(), Failure>;

    /// What time it is there.
    ///
    /// # Errors
    /// [`Failure`].
    fn time(&mut self) -> Result<UnixMillis, Failure>;

    /// Takes away what stands under a name of ours and is of no use; how many such things there were.
    ///
    /// # Errors
    /// [`Failure`].
    fn take_away_strange(&mut self) -> Result<u64, Failure>;
}

/// How far a feed was read: larger with every entry, zeros before the first one.
pub type Cursor = (u64, u64);

/// New entries of a feed.
#[derive(Debug, Default)]
pub struct News {
    /// In their order, as they were written.
    pub entries: Vec<Vec<u8>>,
    /// The place of the last one, also when it was passed over.
    pub last: Option<Cursor>,
    /// How many were passed over: no node writes such entries.
    pub passed_over: usize,
}

/// Brings the entries that all nodes write.
pub trait Feed {
    /// Asks to be told when there is news. Where nobody tells, [`Feed::is_told`] stays false, and it is polled.
    ///
    /// # Errors
    /// [`Failure`].
    fn listen(&mut self) -> Result<(), Failure>;

    /// Whether this connection is told when there is news.
    fn is_told(&self) -> bool;

    /// Waits until it is told that there is news; `false` when it is not for so long.
    ///
    /// # Errors
    /// [`Failure`].
    fn wait_for_notice(&mut self, longest: Duration) -> Result<bool, Failure>;

    /// Whether there were notices since this was asked last.
    fn has_notice(&mut self) -> bool;

    /// The entries after `last`, some of them.
    ///
    /// # Errors
    /// [`Failure`].
    fn news(&mut self, last: Cursor) -> Result<News, Failure>;

    /// The place of the last entry; zeros when there is none.
    ///
    /// # Errors
    /// [`Failure`].
    fn newest(&mut self) -> Result<Cursor, Failure>;

    /// Whether entries after the last one that was read are gone, as far as can be told. A feed that begins anew lacks
    /// none.
    ///
    /// # Errors
    /// [`Failure`].
    fn lacks_some_after(&mut self, last: Cursor) -> Result<bool, Failure>;
}

/// A session that is looked up, and whether it is taken.
pub type Wanted = (Key, bool);

/// The sealed sessions that were asked for, in their order.
pub type Sessions = Vec<Option<Vec<u8>>>;

/// Holds one sealed session for each key. A connection for look-ups; after [`Failure::Lost`] it is of no more use.
pub trait Vault: Send {
    /// A call takes no longer than this from now on.
    fn limit(&mut self, limit: Duration);

    /// Asks for sessions, and leaves it to [`Vault::fetch`] to wait for the answer; there may be several questions under
    /// way. Of all who take a session one gets it.
    ///
    /// # Errors
    /// [`Failure`].
    fn ask(&mut self, wanted: &[Wanted]) -> Result<(), Failure>;

    /// The answer to the first question that was not answered yet, waited for until then (a time since boot); `None`
    /// when it has not come. However late this is called, an answer that is there counts as one.
    ///
    /// # Errors
    /// [`Failure`].
    fn fetch(&mut self, until: Duration) -> Result<Option<Sessions>, Failure>;

    /// Asks for sessions and waits for them.
    ///
    /// # Errors
    /// [`Failure`].
    fn sessions(&mut self, wanted: &[Wanted]) -> Result<Sessions, Failure>;

    /// Whether what is asked alone decides how long an answer takes once the question was sent.
    fn is_answered_alone(&self) -> bool;
}
