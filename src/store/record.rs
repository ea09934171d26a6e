//! One session in a shard's log.
//!
//! ```text
//! unit 0..3  key: the 24 random bytes of the session id
//! unit 3     binding, keyed (8)
//! unit 4     check (4) | expires, seconds since 1970 (4)
//! unit 5     authenticated, seconds since 1970 (4) | length of the value (2) | kind, origin (1) | caller's note (1)
//! unit 6..   the value, padded with zeros to whole units
//! ```
//! The check is a keyed hash of everything else. It is what makes lock-free reading sound: a record that was half
//! written, half overwritten or invented does not pass.

#![forbid(unsafe_code)]

use std::hash::Hasher;

use siphasher::sip::SipHasher13;
use zeroize::Zeroizing;

use super::sync::{AtomicU64, Ordering};
use crate::sys::memory;

/// What the store finds a session by.
pub type Key = [u8; 24];

/// Units of 8 bytes before the value.
pub(super) const HEADER_UNITS: usize = 6;

/// Longest value.
pub const MAX_VALUE: usize = 0xff00;

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A session that may be resumed.
    Session = 1,
    /// Stands in the place of a session that was removed, so that a copy that arrives later is not taken in. No value.
    Removal = 3,
}

/// Whose record it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A handshake of this node made it.
    Here,
    /// It came from another node.
    Elsewhere,
}

/// The bit of the kind's byte that says [`Origin::Elsewhere`].
const ELSEWHERE: u8 = 0x80;

/// The rest of the log up to its end holds nothing.
const PAD_UNIT: u64 = 0xff << 48;

/// A session as the caller gives it and gets it back, without its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    /// What it is found by.
    pub key: Key,
    /// Digest of server name and policy, keyed by the caller.
    pub binding: u64,
    /// Not returned from this second on (since 1970).
    pub expires: u32,
    /// When its full handshake took place (seconds since 1970).
    pub authenticated: u32,
    /// A session, or the trace of a session that was removed.
    pub kind: Kind,
    /// Whose it is.
    pub origin: Origin,
    /// A byte that the store keeps for the caller.
    pub note: u8,
}

/// How many units a record of that many value bytes takes.
pub(super) fn units(value_len: usize) -> usize {
    HEADER_UNITS + value_len.div_ceil(8)
}

/// Writes a record into `to`, which has [`units`] of its value.
pub(super) fn write(to: &[AtomicU64], meta: &Meta, value: &[u8], seed: [u64; 2]) {
    let header = header(meta, value.len(), check(meta, value, seed));
    let (head, body) = to.split_at(HEADER_UNITS);
    head.iter().zip(header).for_each(|(unit, bits)| unit.store(bits, Ordering::Relaxed));
    write_bytes(body, value);
}

/// Marks the units up to the log's end as unused. Fewer than a header's are skipped unmarked.
pub(super) fn write_pad(to: &[AtomicU64]) {
    if let Some(unit) = to.get(HEADER_UNITS - 1) {
        unit.store(PAD_UNIT, Ordering::Relaxed);
    }
}

/// The key of the record that starts here; whatever memory holds.
pub(super) fn has_key(at: &[AtomicU64], key: &Key) -> bool {
    let parts = key.as_chunks::<8>().0.iter();
    at.len() >= HEADER_UNITS
        && parts
            .zip(at)
            .all(|(part, unit)| u64::from_le_bytes(*part) == unit.load(Ordering::Relaxed))
}

/// Whether what starts here says that it is a [`Kind::Removal`].
pub(super) fn is_removal(at: &[AtomicU64]) -> bool {
    matches!(look(at), Stands::Record(Meta { kind: Kind::Removal, .. }, _))
}

/// What stands at a place of the log, as far as its header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stands {
    /// A record of that many units.
    Record(Meta, usize),
    /// Nothing up to the end of the log.
    Pad,
    /// Nothing that we wrote.
    Garbage,
}

/// Looks at a header without reading the value.
pub(super) fn look(at: &[AtomicU64]) -> Stands {
    let Some(header) = at.get(..HEADER_UNITS) else {
        return Stands::Pad;
    };
    let bits: [u64; HEADER_UNITS] =
        std::array::from_fn(|unit| header[unit].load(Ordering::Relaxed));
    let [_, _, _, _, _, last] = bits;
    match parse_header(&bits) {
        Some((meta, len, _)) if units(len) <= at.len() => Stands::Record(meta, units(len)),
        _ if last == PAD_UNIT => Stands::Pad,
        _ => Stands::Garbage,
    }
}

/// Copies out the record that starts here, if it is whole; nothing without memory.
pub(super) fn read(at: &[AtomicU64], seed: [u64; 2]) -> Option<(Meta, Zeroizing<Vec<u8>>)> {
    let header = at.get(..HEADER_UNITS)?;
    let bits: [u64; HEADER_UNITS] =
        std::array::from_fn(|unit| header[unit].load(Ordering::Relaxed));
    let (meta, len, stored_check) = parse_header(&bits)?;
    let body = at.get(HEADER_UNITS..units(len))?;
    let room = memory::try_vec(body.len() * 8)?;
    let value = read_bytes(room, body, len);
    (check(&meta, &value, seed) == stored_check).then_some((meta, value))
}

fn header(meta: &Meta, len: usize, check: u32) -> [u64; HEADER_UNITS] {
    let [k0, k1, k2] = key_words(&meta.key);
    let len = u64::try_from(len).unwrap_or(u64::MAX) & 0xffff;
    [
        k0,
        k1,
        k2,
        meta.binding,
        u64::from(check) | u64::from(meta.expires) << 32,
        u64::from(meta.authenticated)
            | len << 32
            | u64::from(kind_byte(meta)) << 48
            | u64::from(meta.note) << 56,
    ]
}

fn parse_header(bits: &[u64; HEADER_UNITS]) -> Option<(Meta, usize, u32)> {
    let [k0, k1, k2, binding, fourth, fifth] = *bits;
    let mut key = [0; 24];
    for (part, word) in key.as_chunks_mut::<8>().0.iter_mut().zip([k0, k1, k2]) {
        *part = word.to_le_bytes();
    }
    let [c0, c1, c2, c3, e0, e1, e2, e3] = fourth.to_le_bytes();
    let [a0, a1, a2, a3, l0, l1, kind, note] = fifth.to_le_bytes();
    let (kind, origin) = parse_kind(kind)?;
    let len = usize::from(u16::from_le_bytes([l0, l1]));
    let meta = Meta {
        key,
        binding,
        expires: u32::from_le_bytes([e0, e1, e2, e3]),
        authenticated: u32::from_le_bytes([a0, a1, a2, a3]),
        kind,
        origin,
        note,
    };
    (len <= MAX_VALUE).then_some((meta, len, u32::from_le_bytes([c0, c1, c2, c3])))
}

fn kind_byte(meta: &Meta) -> u8 {
    let origin = if meta.origin == Origin::Elsewhere { ELSEWHERE } else { 0 };
    meta.kind as u8 | origin
}

fn parse_kind(byte: u8) -> Option<(Kind, Origin)> {
    let origin = if byte & ELSEWHERE == 0 { Origin::Here } else { Origin::Elsewhere };
    let kind = match byte & !ELSEWHERE {
        1 => Kind::Session,
        3 => Kind::Removal,
        _ => return None,
    };
    Some((kind, origin))
}

/// The key as three words, the form in which the log and the index use it.
pub(super) fn key_words(key: &Key) -> [u64; 3] {
    let mut words = [0; 3];
    for (word, part) in words.iter_mut().zip(key.as_chunks::<8>().0) {
        *word = u64::from_le_bytes(*part);
    }
    words
}

fn check(meta: &Meta, value: &[u8], [k0, k1]: [u64; 2]) -> u32 {
    let mut hasher = SipHasher13::new_with_keys(k0, k1);
    for word in header(meta, value.len(), 0) {
        hasher.write(&word.to_le_bytes());
    }
    hasher.write(value);
    let [a, b, c, d, ..] = hasher.finish().to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

/// Stores bytes as whole units, the last one padded with zeros.
pub(super) fn write_bytes(to: &[AtomicU64], bytes: &[u8]) {
    let (whole, rest) = bytes.as_chunks::<8>();
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    let words = whole.iter().chain((!rest.is_empty()).then_some(&last));
    to.iter()
        .zip(words)
        .for_each(|(unit, word)| unit.store(u64::from_le_bytes(*word), Ordering::Relaxed));
}

/// Loads the first `len` bytes of `from`, which has units enough for them, into a vector that has room for all of it.
pub(super) fn read_bytes(room: Vec<u8>, from: &[AtomicU64], len: usize) -> Zeroizing<Vec<u8>> {
    let mut bytes = Zeroizing::new(room);
    from.iter()
        .for_each(|unit| bytes.extend_from_slice(&unit.load(Ordering::Relaxed).to_le_bytes()));
    bytes.truncate(len);
    bytes
}
