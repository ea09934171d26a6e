//! The application's callback on a BIO (BIO_set_callback(3)), called in OpenSSL's place.
//!
//! OpenSSL calls the newer kind of callback if a BIO has one, and else the older kind, which has no lengths of its own. A
//! newer one of ours keeps the older one from being called.
//!
//! Owns: nothing. Called by: [`super::cut`]. Threads and forks: as for every callback. Failure: none.

use std::ffi::{c_char, c_int, c_long};

use openssl_sys::BIO;

use super::sys::{self, BioCallback, OldBioCallback};

/// What OpenSSL calls, and gives to it.
pub(super) struct Call {
    pub(super) bio: *mut BIO,
    pub(super) operation: c_int,
    pub(super) bytes: *const c_char,
    pub(super) len: usize,
    pub(super) number: c_int,
    pub(super) argument: c_long,
    pub(super) result: c_int,
    pub(super) processed: *mut usize,
}

/// The callback of an application.
#[derive(Clone, Copy)]
pub(super) enum Callback {
    Newer(BioCallback),
    /// The one that the BIO has when it is called, if any.
    Older,
}

impl Callback {
    /// That of a BIO; none of the newer kind that is ours.
    ///
    /// # Safety
    /// `bio` is valid.
    pub(super) unsafe fn of(bio: *mut BIO, is_ours: impl Fn(BioCallback) -> bool) -> Self {
        // SAFETY: as the caller promises.
        let newer = unsafe { sys::BIO_get_callback_ex(bio) };
        newer.filter(|callback| !is_ours(*callback)).map_or(Callback::Older, Callback::Newer)
    }

    /// As it is set again.
    pub(super) fn newer(self) -> Option<BioCallback> {
        match self {
            Callback::Newer(callback) => Some(callback),
            Callback::Older => None,
        }
    }

    /// # Safety
    /// The call is one that OpenSSL makes now.
    pub(super) unsafe fn call(self, call: Call) -> c_long {
        let Call { bio, operation, bytes, len, number, argument, result, processed } = call;
        // SAFETY: the callback is the application's, for this BIO, and gets what OpenSSL gave.
        unsafe {
            match self {
                Callback::Newer(callback) => {
                    callback(bio, operation, bytes, len, number, argument, result, processed)
                }
                Callback::Older => match sys::BIO_get_callback(bio) {
                    Some(callback) => call_older(callback, call),
                    None => result.into(),
                },
            }
        }
    }
}

/// As OpenSSL does it: lengths go where the older kind has integers, and come back.
///
/// # Safety
/// As for [`Callback::call`].
unsafe fn call_older(callback: OldBioCallback, call: Call) -> c_long {
    const FAILED: c_long = -1;
    let Call { bio, operation, bytes, len, number, argument, result, processed } = call;
    let bare = operation & !sys::BIO_CB_RETURN;
    let has_len = matches!(bare, sys::BIO_CB_READ | sys::BIO_CB_WRITE | sys::BIO_CB_GETS);
    let number = if has_len { c_int::try_from(len) } else { Ok(number) };
    let tells = operation != bare && bare != sys::BIO_CB_CTRL && !processed.is_null();
    // SAFETY: as the caller promises; OpenSSL gives the address of a length with what was done.
    unsafe {
        let result = match tells && result > 0 {
            true => c_int::try_from(*processed).map(c_long::from),
            false => Ok(result.into()),
        };
        let (Ok(number), Ok(result)) = (number, result) else { return FAILED };
        let answer = callback(bio, operation, bytes, number, argument, result);
        match usize::try_from(answer) {
            Ok(done @ 1..) if tells => {
                *processed = done;
                1
            }
            _ => answer,
        }
    }
}
