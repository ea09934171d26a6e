//! Sessions that are like one that was parsed before.
//!
//! OpenSSL's parser takes 23,000 instructions for a TLS 1.2 session, a fifteenth of the whole resumption. But those of
//! one server name and one kind of client differ in id, master key and time alone, for which OpenSSL has setters. So a
//! parsed session is kept as a template, without its secrets, and the next one that fits is a copy of it with these
//! three set: 800 instructions. TLS 1.3 sessions have a field without a setter (the ticket age's mask), and those with
//! a client certificate differ from client to client; both are parsed each time.

use std::ffi::{c_int, c_long};
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;

use openssl_sys::SSL_SESSION;
use zeroize::Zeroizing;

use super::session::{self, MASTER_KEY_LEN, Session};
use super::{session_data, sys};
use crate::recent::Recent;
use crate::sys::memory;

/// How many kinds of sessions a process remembers.
const REMEMBERED: usize = 64;

const TLS1_2_VERSION: c_int = 0x0303;

static TEMPLATES: Recent<Arc<Template>, Arc<Template>, REMEMBERED> = Recent::new();

/// What sessions of one kind have in common.
struct Template {
    /// The stored form (see [`super::session`]) with zeros where sessions differ.
    value: Vec<u8>,
    note: u8,
    master_key: Range<usize>,
    time: Range<usize>,
    /// The parsed form, likewise.
    session: Owned,
}

/// A reference to a session that is ours.
struct Owned(NonNull<SSL_SESSION>);

// SAFETY: a template's session is never changed after it is made, and OpenSSL counts its references atomically.
unsafe impl Send for Owned {}
// SAFETY: as above.
unsafe impl Sync for Owned {}

impl Drop for Owned {
    fn drop(&mut self) {
        session::free(self.0);
    }
}

/// The session that these bytes are, with its id put back; `None` when OpenSSL cannot parse them, or without memory. The
/// caller owns it.
pub(super) fn decode(value: &[u8], note: u8, id: &[u8]) -> Option<NonNull<SSL_SESSION>> {
    if let Some(known) = instantiate(value, note, id) {
        return Some(known);
    }
    let parsed = session::parse(&session::put_back_id(value, note, id)?)?;
    // OpenSSL 3.6 and later insist on the id, and so do we everywhere.
    // SAFETY: the session was just parsed and is ours.
    let has_id = unsafe { Session::borrow(parsed.as_ptr()) }.is_some_and(|it| it.id() == id);
    if !has_id {
        session::free(parsed);
        return None;
    }
    remember(parsed, value, note, id);
    Some(parsed)
}

/// A session of a known kind. The caller owns it.
fn instantiate(value: &[u8], note: u8, id: &[u8]) -> Option<NonNull<SSL_SESSION>> {
    let template = TEMPLATES.find(|template| template.fits(value, note))?;
    template.fill_in(value, id)
}

/// Remembers the kind of a session that was parsed from these bytes, if sessions like it are to be expected.
fn remember(parsed: NonNull<SSL_SESSION>, value: &[u8], note: u8, id: &[u8]) {
    if let Some(template) =
        Template::of(parsed, value, note).filter(|template| template.is_faithful(value, id))
    {
        let template = Arc::new(template);
        TEMPLATES.keep(Arc::clone(&template), template);
    }
}

impl Template {
    fn of(parsed: NonNull<SSL_SESSION>, value: &[u8], note: u8) -> Option<Self> {
        let (master_key, time) = variable_parts(parsed, value)?;
        // SAFETY: the session is valid; the copy is ours.
        let copy = Owned(NonNull::new(unsafe { sys::SSL_SESSION_dup(parsed.as_ptr()) })?);
        // SAFETY: the copy is valid and nobody else has it; the key is as long as said.
        let wiped = unsafe {
            sys::SSL_SESSION_set1_master_key(
                copy.0.as_ptr(),
                [0; MASTER_KEY_LEN].as_ptr(),
                MASTER_KEY_LEN,
            )
        };
        let mut common = memory::try_vec(value.len())?;
        common.extend_from_slice(value);
        [&master_key, &time].into_iter().for_each(|part| common[part.clone()].fill(0));
        (wiped == 1).then_some(Template { value: common, note, master_key, time, session: copy })
    }

    fn fits(&self, value: &[u8], note: u8) -> bool {
        let same = |part: Range<usize>| self.value[part.clone()] == value[part];
        let (start, end) = (self.master_key.start, self.value.len());
        self.note == note
            && value.len() == end
            && same(0..start)
            && same(self.master_key.end..self.time.start)
            && same(self.time.end..end)
    }

    /// The session that a value which fits is. The caller owns it.
    fn fill_in(&self, value: &[u8], id: &[u8]) -> Option<NonNull<SSL_SESSION>> {
        let master_key = &value[self.master_key.clone()];
        let time = c_long::try_from(integer(&value[self.time.clone()])).ok()?;
        // SAFETY: the template's session is valid; the copy is valid and nobody else has it; id and key are as long as
        // said, and OpenSSL refuses lengths that it has no room for.
        unsafe {
            let copy = NonNull::new(sys::SSL_SESSION_dup(self.session.0.as_ptr()))?;
            let filled =
                sys::SSL_SESSION_set1_id(copy.as_ptr(), id.as_ptr(), id.len().try_into().ok()?)
                    == 1
                    && sys::SSL_SESSION_set1_master_key(
                        copy.as_ptr(),
                        master_key.as_ptr(),
                        MASTER_KEY_LEN,
                    ) == 1;
            sys::SSL_SESSION_set_time(copy.as_ptr(), time);
            if !filled {
                session::free(copy);
            }
            filled.then_some(copy)
        }
    }

    /// Whether the session that it was made from comes out again, to the byte.
    fn is_faithful(&self, value: &[u8], id: &[u8]) -> bool {
        let Some(copy) = self.fill_in(value, id) else { return false };
        let encoded = session::encode_owned(copy);
        self.fits(value, self.note)
            && encoded.is_some_and(|(again, note)| again.as_slice() == value && note == self.note)
    }
}

/// Where master key and time are in the stored form; `None` for sessions that templates are not for.
fn variable_parts(
    session: NonNull<SSL_SESSION>,
    value: &[u8],
) -> Option<(Range<usize>, Range<usize>)> {
    // SAFETY: the session is valid.
    let version = unsafe { openssl_sys::SSL_SESSION_get_protocol_version(session.as_ptr()) };
    if version > TLS1_2_VERSION {
        return None;
    }
    let mut master_key = Zeroizing::new([0; MASTER_KEY_LEN]);
    // SAFETY: the session is valid, the buffer as long as said.
    let (len, peer, time, has_data) = unsafe {
        let session = session.as_ptr();
        (
            openssl_sys::SSL_SESSION_get_master_key(
                session,
                master_key.as_mut_ptr(),
                MASTER_KEY_LEN,
            ),
            sys::SSL_SESSION_get0_peer(session),
            openssl_sys::SSL_SESSION_get_time(session),
            session_data::indexes(session)
                .any(|index| !sys::SSL_SESSION_get_ex_data(session, index).is_null()),
        )
    };
    // Data of the application that is born with a session may not bear copying.
    if len != MASTER_KEY_LEN || !peer.is_null() || has_data {
        return None;
    }
    let master_key = position(value, &master_key[..], 0)?;
    let time = position(value, &time_field(time), master_key.end)?;
    Some((master_key, time.start + TIME_FIELD_HEADER..time.end))
}

/// Bytes of the time field before the number: explicit tag 1 with its length, INTEGER with its length.
const TIME_FIELD_HEADER: usize = 4;

/// The field as DER has it: the number in as few bytes as can be, its first bit the sign.
fn time_field(time: c_long) -> Vec<u8> {
    let bytes = time.to_be_bytes();
    let redundant = |pair: &[u8]| matches!(pair, [0, next] if *next < 0x80);
    let skip = bytes.windows(2).take_while(|pair| redundant(pair)).count();
    let number = &bytes[skip..];
    let len = u8::try_from(number.len()).unwrap_or(8);
    [&[0xa1, len + 2, 0x02, len], number].concat()
}

fn integer(bytes: &[u8]) -> i64 {
    bytes.iter().fold(0, |number, byte| number << 8 | i64::from(*byte))
}

fn position(value: &[u8], part: &[u8], from: usize) -> Option<Range<usize>> {
    let at = from + value.get(from..)?.windows(part.len()).position(|window| window == part)?;
    Some(at..at + part.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A session of TLS 1.2 as i2d_SSL_SESSION wrote it: id, master key and time follow their tags.
    fn der(id: [u8; 32], master_key: [u8; 48], time: u32) -> Vec<u8> {
        let parts: [&[u8]; 7] = [
            &hex::decode("308180020101020203030402c02c0420").expect("hex"),
            &id,
            &hex::decode("0430").expect("hex"),
            &master_key,
            &hex::decode("a1060204").expect("hex"),
            &time.to_be_bytes(),
            &hex::decode("a20402021c20a407040570726f6265ad03020101b30302011d").expect("hex"),
        ];
        parts.concat()
    }

    /// The stored form: the id taken out behind its tag.
    fn stored(der: &[u8]) -> (Vec<u8>, u8) {
        ([&der[..16], &der[48..]].concat(), 16)
    }

    fn encoded(session: NonNull<SSL_SESSION>) -> (Vec<u8>, u8) {
        let (value, note) = session::encode_owned(session).expect("encodes");
        (value.to_vec(), note)
    }

    #[test]
    fn a_session_from_a_template_is_the_one_that_was_stored_to_the_byte() {
        let (value, note) = stored(&der([1; 32], [2; 48], 0x6b01_e56f));
        let parsed = decode(&value, note, &[1; 32]).expect("parses, and is remembered");
        assert_eq!(encoded(parsed), (value, note));
        let (value, note) = stored(&der([3; 32], [4; 48], 0x6b01_ffff));
        let session = instantiate(&value, note, &[3; 32]).expect("is of a known kind");
        assert_eq!(encoded(session), (value, note));
    }

    #[test]
    fn a_session_that_differs_elsewhere_is_no_instance() {
        let (mut value, note) = stored(&der([5; 32], [6; 48], 0x6b01_e570));
        let parsed = decode(&value, note, &[5; 32]).expect("parses");
        session::free(parsed);
        let lifetime = value.len() - 20;
        value[lifetime] ^= 1;
        assert!(instantiate(&value, note, &[5; 32]).is_none());
    }

    #[test]
    fn templates_keep_no_secret() {
        let (value, note) = stored(&der([7; 32], [0xab; 48], 0x6b01_e571));
        let parsed = decode(&value, note, &[7; 32]).expect("parses");
        let template = Template::of(parsed, &value, note).expect("fits");
        session::free(parsed);
        assert!(!template.value.windows(8).any(|window| window == [0xab; 8]));
        let (common, _) = encoded(template.session.0);
        assert!(!common.windows(8).any(|window| window == [0xab; 8]));
        std::mem::forget(template);
    }

    #[test]
    fn the_time_field_is_as_der_writes_it() {
        assert_eq!(time_field(0x6b01_e56f), [0xa1, 6, 2, 4, 0x6b, 0x01, 0xe5, 0x6f]);
        assert_eq!(time_field(0x8000_0000), [0xa1, 7, 2, 5, 0, 0x80, 0, 0, 0]);
        assert_eq!(integer(&time_field(0x8000_0000)[TIME_FIELD_HEADER..]), 0x8000_0000);
    }
}
