//! A ring as bytes: what the shared-memory slots hold. Version 1, integers little-endian.
//!
//! ```text
//! u8 version | u64 keys_since | u64 sessions_since | u16 records | u16 revocations
//! record:     u8 kind (0 ticket, 1 session id) | u8 flags (1 imported, 2 SHA-1) | name 16
//!             | u64 made | u64 activates | u64 retires | u64 accept_until | u8 n, AES key | u8 n, HMAC or id key
//! revocation: name 16 | u64 until
//! ```

use std::sync::Arc;

use zeroize::Zeroizing;

use super::key::{Digest, KeyName, TicketKey};
use super::record::{Material, Record};
use super::session_id::IdKey;
use super::{MAX_RECORDS, MAX_REVOCATIONS, Ring};
use crate::clock::UnixMillis;
use crate::secret::Secret;

const VERSION: u8 = 1;
const HEADER_LEN: usize = 1 + 8 + 8 + 2 + 2;
const RECORD_MAX: usize = 2 + KeyName::LEN + 4 * 8 + 1 + 32 + 1 + TicketKey::MAX_MAC_LEN;
const REVOCATION_LEN: usize = KeyName::LEN + 8;

const TICKET: u8 = 0;
const SESSION_ID: u8 = 1;
const IMPORTED: u8 = 1;
const SHA1: u8 = 2;

/// Longest encoding of any ring.
pub const MAX_LEN: usize = HEADER_LEN + MAX_RECORDS * RECORD_MAX + MAX_REVOCATIONS * REVOCATION_LEN;

/// The ring as bytes, at most [`MAX_LEN`] of them; they hold secrets.
pub fn encode(ring: &Ring) -> Zeroizing<Vec<u8>> {
    // Reserved in full: a vector that grew would leave copies of keys behind.
    let records = ring.records().count();
    let most = HEADER_LEN + records * RECORD_MAX + ring.revoked.len() * REVOCATION_LEN;
    let mut out = Zeroizing::new(Vec::with_capacity(most));
    out.push(VERSION);
    put_time(&mut out, ring.keys_since);
    put_time(&mut out, ring.sessions_since);
    put_count(&mut out, records);
    put_count(&mut out, ring.revoked.len());
    ring.records().for_each(|record| put_record(&mut out, record));
    for (name, until) in &ring.revoked {
        out.extend_from_slice(&name.0);
        put_time(&mut out, *until);
    }
    out
}

/// The ring that the bytes encode; `None` unless every byte is as [`encode`] would write it.
pub fn decode(bytes: &[u8]) -> Option<Ring> {
    let mut input = Reader(bytes);
    if input.byte()? != VERSION {
        return None;
    }
    let (keys_since, sessions_since) = (input.time()?, input.time()?);
    let (records, revocations) = (input.count()?, input.count()?);
    if records > MAX_RECORDS || revocations > MAX_REVOCATIONS {
        return None;
    }
    let records: Vec<_> =
        (0..records).map(|_| input.record().map(Arc::new)).collect::<Option<_>>()?;
    let mut ring = Ring { keys_since, sessions_since, ..Ring::default() };
    for _ in 0..revocations {
        ring.revoked.insert(input.name()?, input.time()?);
    }
    ring.adopt(records.into_iter());
    (encode(&ring).as_slice() == bytes).then_some(ring)
}

fn put_record(out: &mut Vec<u8>, record: &Record) {
    let imported = if record.imported { IMPORTED } else { 0 };
    let (kind, flags, aes, mac): (u8, u8, &[u8], &[u8]) = match &record.material {
        Material::Ticket(key) => {
            let digest = if key.digest() == Digest::Sha1 { SHA1 } else { 0 };
            (TICKET, imported | digest, key.aes().expose(), key.mac().expose())
        }
        Material::SessionId(key) => (SESSION_ID, imported, &[], key.secret()),
    };
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&record.name().0);
    for time in [record.made, record.activates, record.retires, record.accept_until] {
        put_time(out, time);
    }
    put_secret(out, aes);
    put_secret(out, mac);
}

fn put_time(out: &mut Vec<u8>, time: UnixMillis) {
    out.extend_from_slice(&time.0.to_le_bytes());
}

fn put_count(out: &mut Vec<u8>, count: usize) {
    let count = u16::try_from(count).expect("at most 256 of each");
    out.extend_from_slice(&count.to_le_bytes());
}

fn put_secret(out: &mut Vec<u8>, secret: &[u8]) {
    out.push(u8::try_from(secret.len()).expect("at most 64 bytes"));
    out.extend_from_slice(secret);
}

/// What is left to read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn record(&mut self) -> Option<Record> {
        let (kind, flags) = (self.byte()?, self.byte()?);
        let name = self.name()?;
        let [made, activates, retires, accept_until] =
            [self.time()?, self.time()?, self.time()?, self.time()?];
        let (aes, mac) = (self.secret()?, self.secret()?);
        let digest = if flags & SHA1 == 0 { Digest::Sha256 } else { Digest::Sha1 };
        let material = match kind {
            TICKET => {
                Material::Ticket(TicketKey::new(name, Secret::new(aes), Secret::new(mac), digest)?)
            }
            SESSION_ID if aes.is_empty() => {
                Material::SessionId(IdKey::new(name, mac.try_into().ok()?))
            }
            _ => return None,
        };
        let imported = flags & IMPORTED != 0;
        (flags & !(IMPORTED | SHA1) == 0).then_some(Record {
            material,
            imported,
            made,
            activates,
            retires,
            accept_until,
        })
    }

    fn secret(&mut self) -> Option<&'a [u8]> {
        let len = self.byte()?;
        self.take(usize::from(len))
    }

    fn name(&mut self) -> Option<KeyName> {
        self.array().map(KeyName)
    }

    fn time(&mut self) -> Option<UnixMillis> {
        self.array().map(|bytes| UnixMillis(u64::from_le_bytes(bytes)))
    }

    fn count(&mut self) -> Option<usize> {
        self.array().map(|bytes| usize::from(u16::from_le_bytes(bytes)))
    }

    fn byte(&mut self) -> Option<u8> {
        self.array().map(|[byte]| byte)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }
}
