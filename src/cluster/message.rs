//! What travels between nodes, as bytes. Version 1 each, integers little-endian.
//!
//! Owns: the forms of sessions, removals, heartbeats and stream entries. Called by: `engine`'s agent, and look-ups.
//! No state, no I/O. Failure: `None`, when bytes are not exactly what this file would write, or when something is
//! longer than its form allows.
//!
//! ```text
//! session:   u8 version | u64 binding | u32 expires | u32 authenticated | u8 note | u16 n, value
//! removal:   u8 version | u32 until
//! heartbeat: u8 version | u64 time_ms | u64 sequence | digest of the ring 16 | u64 started_ms
//!            | u8 n, host | u8 n, version of the library
//! entry:     u8 version | u8 kind (1 session, 2 removal, 3 ring) | origin 8 | key 24 | what is sealed
//! ```
//! An entry is the outside: whoever carries it can read and change it, so nothing of it counts but what is sealed. The
//! rest is inside: a session or removal is sealed under its key, a heartbeat under its node. Neither of the first two
//! ever has the other's length, so an entry whose kind was changed does not parse.

#![forbid(unsafe_code)]

use std::fmt;

use zeroize::Zeroizing;

use super::seal;

const VERSION: u8 = 1;

/// Longest value of a session.
pub const MAX_VALUE: usize = 0xff00;

/// Longest sealed part of an entry: the longest session, sealed, and room for what later versions add.
pub const MAX_SEALED: usize = MAX_VALUE + 128;

/// Longest host name, in bytes.
pub const MAX_HOST: usize = 64;

/// Longest version of the library, in bytes.
pub const MAX_VERSION: usize = 32;

const SESSION_HEADER: usize = 1 + 8 + 4 + 4 + 1 + 2;
const HEARTBEAT_MAX: usize = 1 + 8 + 8 + 16 + 8 + 1 + MAX_HOST + 1 + MAX_VERSION;
const ENTRY_HEADER: usize = 1 + 1 + 8 + 24;

const _: () = assert!(SESSION_HEADER + MAX_VALUE + seal::MAX_OVERHEAD <= MAX_SEALED);

/// What a session is found by: the random bytes of its id.
pub type Key = [u8; 24];

/// A node's name for itself: random, new whenever its segment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub [u8; 8]);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A session, without the key under which it is sealed.
#[derive(Clone, PartialEq, Eq)]
pub struct SessionMessage {
    /// Digest of server name and policy.
    pub binding: u64,
    /// Not resumed from this second on (since 1970).
    pub expires: u32,
    /// When its full handshake took place (seconds since 1970).
    pub authenticated: u32,
    /// A byte that is carried for the caller.
    pub note: u8,
    /// The session itself, at most [`MAX_VALUE`] bytes.
    pub value: Zeroizing<Vec<u8>>,
}

impl SessionMessage {
    /// The session as bytes; they hold its secrets. `None` when the value is too long.
    pub fn encode(&self) -> Option<Zeroizing<Vec<u8>>> {
        let len = u16::try_from(self.value.len()).ok().filter(|_| self.value.len() <= MAX_VALUE)?;
        // Reserved in full: a vector that grew would leave copies of secrets behind.
        let mut out = Zeroizing::new(Vec::with_capacity(SESSION_HEADER + self.value.len()));
        out.push(VERSION);
        out.extend_from_slice(&self.binding.to_le_bytes());
        out.extend_from_slice(&self.expires.to_le_bytes());
        out.extend_from_slice(&self.authenticated.to_le_bytes());
        out.push(self.note);
        out.extend_from_slice(&len.to_le_bytes());
        out.extend_from_slice(&self.value);
        Some(out)
    }

    /// The session that the bytes encode.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut input = Reader::versioned(bytes)?;
        let (binding, expires, authenticated) = (input.u64()?, input.u32()?, input.u32()?);
        let (note, len) = (input.u8()?, usize::from(input.u16()?));
        let value = input.rest();
        let exact = value.len() == len && len <= MAX_VALUE;
        let value = Zeroizing::new(value.to_vec());
        exact.then_some(SessionMessage { binding, expires, authenticated, note, value })
    }
}

impl fmt::Debug for SessionMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionMessage")
            .field("binding", &self.binding)
            .field("expires", &self.expires)
            .field("authenticated", &self.authenticated)
            .field("note", &self.note)
            .field("value", &format_args!("{} bytes", self.value.len()))
            .finish()
    }
}

/// The session of that key is not resumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Removal {
    /// Until then (seconds since 1970): no copy lives longer.
    pub until: u32,
}

impl Removal {
    /// The removal as bytes.
    pub fn encode(&self) -> Vec<u8> {
        [&[VERSION], &self.until.to_le_bytes()[..]].concat()
    }

    /// The removal that the bytes encode.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut input = Reader::versioned(bytes)?;
        let until = input.u32()?;
        input.rest().is_empty().then_some(Removal { until })
    }
}

/// A node says that it is there, and what it knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// The node's clock (milliseconds since 1970).
    pub time_ms: u64,
    /// Greater than in every heartbeat that this node sent before.
    pub sequence: u64,
    /// Digest of its ring: nodes whose digests are equal have the same keys.
    pub ring_digest: [u8; 16],
    /// Since when it runs (milliseconds since 1970).
    pub started_ms: u64,
    /// Its host's name, at most [`MAX_HOST`] bytes.
    pub host: String,
    /// Its version of the library, at most [`MAX_VERSION`] bytes.
    pub version: String,
}

impl Heartbeat {
    /// The heartbeat as bytes; `None` when a name is too long.
    pub fn encode(&self) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity(HEARTBEAT_MAX);
        out.push(VERSION);
        out.extend_from_slice(&self.time_ms.to_le_bytes());
        out.extend_from_slice(&self.sequence.to_le_bytes());
        out.extend_from_slice(&self.ring_digest);
        out.extend_from_slice(&self.started_ms.to_le_bytes());
        put_text(&mut out, &self.host, MAX_HOST)?;
        put_text(&mut out, &self.version, MAX_VERSION)?;
        Some(out)
    }

    /// The heartbeat that the bytes encode.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut input = Reader::versioned(bytes)?;
        let heartbeat = Heartbeat {
            time_ms: input.u64()?,
            sequence: input.u64()?,
            ring_digest: input.array()?,
            started_ms: input.u64()?,
            host: input.text(MAX_HOST)?,
            version: input.text(MAX_VERSION)?,
        };
        input.rest().is_empty().then_some(heartbeat)
    }
}

/// What an entry of the stream is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A [`SessionMessage`] is sealed in it.
    Session = 1,
    /// A [`Removal`] is sealed in it.
    Removal = 2,
    /// Nothing is: the ring changed, look now.
    Ring = 3,
}

impl Kind {
    fn from_code(code: u8) -> Option<Self> {
        [Kind::Session, Kind::Removal, Kind::Ring].into_iter().find(|kind| *kind as u8 == code)
    }
}

/// An entry of the stream that nodes read from each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Who wrote it, so that nobody reads back what it wrote itself.
    pub origin: NodeId,
    /// What it is about.
    pub kind: Kind,
    /// Which session; zeros for [`Kind::Ring`].
    pub key: Key,
    /// Sealed under the key, at most [`MAX_SEALED`] bytes; empty for [`Kind::Ring`].
    pub sealed: Vec<u8>,
}

impl Entry {
    /// The notice that the ring changed.
    pub fn ring_changed(origin: NodeId) -> Self {
        Entry { origin, kind: Kind::Ring, key: [0; 24], sealed: Vec::new() }
    }

    /// The entry as bytes; `None` when it has a part too long, too short or too many.
    pub fn encode(&self) -> Option<Vec<u8>> {
        let kind = [VERSION, self.kind as u8];
        self.is_sound().then(|| [&kind[..], &self.origin.0, &self.key, &self.sealed].concat())
    }

    /// The entry that the bytes encode.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        // Looked at first: what is too long is not copied.
        if bytes.len() > ENTRY_HEADER + MAX_SEALED {
            return None;
        }
        let mut input = Reader::versioned(bytes)?;
        let kind = Kind::from_code(input.u8()?)?;
        let (origin, key) = (NodeId(input.array()?), input.array()?);
        let entry = Entry { origin, kind, key, sealed: input.rest().to_vec() };
        entry.is_sound().then_some(entry)
    }

    fn is_sound(&self) -> bool {
        match self.kind {
            Kind::Session | Kind::Removal => {
                (seal::MAX_OVERHEAD..=MAX_SEALED).contains(&self.sealed.len())
            }
            Kind::Ring => self.sealed.is_empty() && self.key == [0; 24],
        }
    }
}

/// `None` when the text is longer than `max`, which is less than 256.
fn put_text(out: &mut Vec<u8>, text: &str, max: usize) -> Option<()> {
    let len = u8::try_from(text.len()).ok().filter(|_| text.len() <= max)?;
    out.push(len);
    out.extend_from_slice(text.as_bytes());
    Some(())
}

/// What is left to read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// What comes after the first byte, if that is our version.
    fn versioned(bytes: &'a [u8]) -> Option<Self> {
        let (version, rest) = bytes.split_first()?;
        (*version == VERSION).then_some(Reader(rest))
    }

    fn text(&mut self, max: usize) -> Option<String> {
        let len = usize::from(self.u8()?);
        let (text, rest) = self.0.split_at_checked(len).filter(|_| len <= max)?;
        self.0 = rest;
        str::from_utf8(text).ok().map(str::to_owned)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(|[byte]| byte)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*array)
    }

    fn rest(&self) -> &'a [u8] {
        self.0
    }
}
