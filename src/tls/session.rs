//! SSL_SESSION to bytes and back.
//!
//! The bytes are the DER of i2d_SSL_SESSION without the 32 bytes of the session id, which the store has as its key; a
//! note says where they belong.

use std::ffi::{c_int, c_long, c_uint};
use std::ptr::{self, NonNull};

use openssl_sys::SSL_SESSION;
use zeroize::Zeroizing;

use super::{client_session, session_data, sys};
use crate::clock::UnixMillis;
use crate::ring::session_id::SESSION_ID_LEN;
use crate::sys::memory;

/// Bytes of a master secret of TLS 1.2.
pub(super) const MASTER_KEY_LEN: usize = 48;

/// The note of bytes that still have their id in them.
const ID_INCLUDED: u8 = 0;

/// Notes are below 128 (see [`crate::engine::NewSession`]).
const HIGHEST_NOTE: u8 = 127;

/// A session that belongs to OpenSSL and is valid while its callback runs.
#[derive(Clone, Copy)]
pub(super) struct Session(NonNull<SSL_SESSION>);

impl Session {
    /// # Safety
    /// `session` is NULL or valid for as long as the result is used.
    pub(super) unsafe fn borrow(session: *mut SSL_SESSION) -> Option<Self> {
        NonNull::new(session).map(Session)
    }

    /// The id; empty for a TLS 1.2 ticket.
    pub(super) fn id(&self) -> &[u8] {
        let mut len: c_uint = 0;
        // SAFETY: the session is valid; OpenSSL points to `len` bytes inside it.
        unsafe {
            let id = openssl_sys::SSL_SESSION_get_id(self.0.as_ptr(), &raw mut len);
            #[allow(clippy::disallowed_methods, reason = "checked not to be null")]
            if id.is_null() { &[] } else { std::slice::from_raw_parts(id, len as usize) }
        }
    }

    /// When its (last) handshake took place.
    pub(super) fn time(self) -> UnixMillis {
        // SAFETY: the session is valid.
        from_seconds(unsafe { openssl_sys::SSL_SESSION_get_time(self.0.as_ptr()) })
    }

    /// When it ends.
    pub(super) fn expires(self) -> UnixMillis {
        // SAFETY: the session is valid.
        let timeout = unsafe { openssl_sys::SSL_SESSION_get_timeout(self.0.as_ptr()) };
        UnixMillis(self.time().0.saturating_add(from_seconds(timeout).0))
    }

    /// Makes it end after so many seconds from its time.
    pub(super) fn set_timeout(self, seconds: u64) {
        // SAFETY: the session is valid and, in the callbacks that do this, the connection's own.
        unsafe {
            sys::SSL_SESSION_set_timeout(
                self.0.as_ptr(),
                c_long::try_from(seconds).unwrap_or(c_long::MAX),
            )
        };
    }

    /// Whether its handshake has come to a secret. Without one it was never made resumable.
    pub(super) fn has_master_key(self) -> bool {
        // SAFETY: the session is valid; without a buffer the function only tells the length.
        unsafe { openssl_sys::SSL_SESSION_get_master_key(self.0.as_ptr(), ptr::null_mut(), 0) > 0 }
    }

    /// The master secret of a session of TLS 1.2 or older.
    pub(super) fn master_key(self) -> Zeroizing<[u8; MASTER_KEY_LEN]> {
        let mut key = Zeroizing::new([0; MASTER_KEY_LEN]);
        // SAFETY: the session is valid, the buffer as long as said.
        unsafe {
            openssl_sys::SSL_SESSION_get_master_key(
                self.0.as_ptr(),
                key.as_mut_ptr(),
                MASTER_KEY_LEN,
            );
        }
        key
    }

    /// Puts another master secret in the place of the session's: nobody has that.
    pub(super) fn replace_master_key(self, key: &[u8; MASTER_KEY_LEN]) {
        // SAFETY: the session is valid and the connection's own, the key as long as said.
        unsafe {
            sys::SSL_SESSION_set1_master_key(self.0.as_ptr(), key.as_ptr(), MASTER_KEY_LEN);
        }
    }

    /// The object.
    pub(super) fn as_non_null(self) -> NonNull<SSL_SESSION> {
        self.0
    }

    /// Whether the application gave its contexts a session id context.
    pub(super) fn has_id_context(self) -> bool {
        let mut len: c_uint = 0;
        // SAFETY: the session is valid; only the length is used.
        unsafe { sys::SSL_SESSION_get0_id_context(self.0.as_ptr(), &raw mut len) };
        len > 0
    }

    /// Whether the application put data of its own on it (SSL_SESSION_set_ex_data(3)) under any index, which bytes do not carry:
    /// stunnel notes there that a client was not let in. A new session tells what is there from the start, and no news.
    pub(super) fn has_application_data(self) -> bool {
        // SAFETY: the session is valid, and the connection's own.
        let mut indexes = unsafe { session_data::indexes(self.0.as_ptr()) };
        if indexes.is_empty() {
            return false;
        }
        // SAFETY: no precondition; the new session is ours and freed here.
        let Some(fresh) = NonNull::new(unsafe { sys::SSL_SESSION_new() }) else {
            return true;
        };
        let differs = |index| {
            // SAFETY: both sessions are valid; the data is compared and not followed.
            unsafe {
                sys::SSL_SESSION_get_ex_data(self.0.as_ptr(), index)
                    != sys::SSL_SESSION_get_ex_data(fresh.as_ptr(), index)
            }
        };
        let has_data = indexes.any(|index| !client_session::is_mark(index) && differs(index));
        free(fresh);
        has_data
    }

    /// The session as bytes and the note that goes with them; `None` when OpenSSL cannot encode it, or without memory.
    pub(super) fn encode(self) -> Option<(Zeroizing<Vec<u8>>, u8)> {
        // SAFETY: the session is valid; without an output OpenSSL only measures.
        let len = unsafe { openssl_sys::i2d_SSL_SESSION(self.0.as_ptr(), ptr::null_mut()) };
        let room = usize::try_from(len).ok().filter(|len| *len > 0)?;
        let mut der = Zeroizing::new(memory::try_vec(room)?);
        der.resize(room, 0);
        let mut end = der.as_mut_ptr();
        // SAFETY: the session is valid, and `der` has room for what was just measured.
        let written = unsafe { openssl_sys::i2d_SSL_SESSION(self.0.as_ptr(), &raw mut end) };
        (written == len).then(|| take_out_id(der, self.id()))
    }
}

pub(super) fn parse(der: &[u8]) -> Option<NonNull<SSL_SESSION>> {
    let mut start = der.as_ptr();
    let len = c_long::try_from(der.len()).ok()?;
    // SAFETY: `start` points to `len` readable bytes; on success OpenSSL returns a new object.
    let session = unsafe { openssl_sys::d2i_SSL_SESSION(ptr::null_mut(), &raw mut start, len) };
    NonNull::new(session)
}

/// What [`Session::encode`] makes of a session that the caller owns, which is freed.
pub(super) fn encode_owned(session: NonNull<SSL_SESSION>) -> Option<(Zeroizing<Vec<u8>>, u8)> {
    let encoded = Session(session).encode();
    free(session);
    encoded
}

/// Frees a session that `decode` returned and nobody wants.
pub(super) fn free(session: NonNull<SSL_SESSION>) {
    // SAFETY: the caller gives up its reference.
    unsafe { openssl_sys::SSL_SESSION_free(session.as_ptr()) };
}

fn take_out_id(mut der: Zeroizing<Vec<u8>>, id: &[u8]) -> (Zeroizing<Vec<u8>>, u8) {
    let found = if id.len() == SESSION_ID_LEN {
        der.windows(id.len()).position(|part| part == id)
    } else {
        None
    };
    let note = found.and_then(|at| u8::try_from(at).ok());
    match note.filter(|note| (ID_INCLUDED + 1..=HIGHEST_NOTE).contains(note)) {
        Some(note) => {
            let at = usize::from(note);
            der.copy_within(at + id.len().., at);
            let len = der.len() - id.len();
            der.truncate(len);
            (der, note)
        }
        None => (der, ID_INCLUDED),
    }
}

pub(super) fn put_back_id(value: &[u8], note: u8, id: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let mut der = Zeroizing::new(memory::try_vec(value.len() + id.len())?);
    if note == ID_INCLUDED {
        der.extend_from_slice(value);
    } else {
        let (before, after) = value.split_at_checked(usize::from(note))?;
        [before, id, after].iter().for_each(|part| der.extend_from_slice(part));
    }
    Some(der)
}

fn from_seconds(seconds: impl TryInto<u64>) -> UnixMillis {
    UnixMillis::from_secs(seconds.try_into().unwrap_or(0))
}

/// The length that OpenSSL gives for a session id, as a slice's.
///
/// # Safety
/// `id` is NULL or points to `len` readable bytes for as long as the result is used.
pub(super) unsafe fn id_slice<'a>(id: *const u8, len: c_int) -> &'a [u8] {
    match usize::try_from(len) {
        #[allow(clippy::disallowed_methods, reason = "checked not to be null")]
        // SAFETY: as the caller promises.
        Ok(len) if !id.is_null() => unsafe { std::slice::from_raw_parts(id, len) },
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_is_taken_out_and_put_back_in_its_place() {
        let id = [7; 32];
        let der = [&[1, 2, 3][..], &id, &[4, 5]].concat();
        let (value, note) = take_out_id(Zeroizing::new(der.clone()), &id);
        assert_eq!((value.as_slice(), note), (&[1, 2, 3, 4, 5][..], 3));
        assert_eq!(*put_back_id(&value, note, &id).expect("in range"), der);
    }

    #[test]
    fn a_note_beyond_the_value_is_refused() {
        assert!(put_back_id(&[1, 2, 3], 9, &[7; 32]).is_none());
    }
}
