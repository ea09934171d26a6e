//! How a handshake is ended for good: the connection loses its way to the client.
//!
//! No function of OpenSSL ends a handshake from inside a callback that has no answer. So the client is sent the alert
//! (RFC 8446, section 6.2; the connection is not encrypted yet), and then the connection gets BIOs that neither write nor
//! read in the place of its own: OpenSSL fails at its next step, and at every later try. The application's BIOs are kept
//! until the connection is freed or makes another handshake, as after SSL_clear(3), which gets them back.
//!
//! Owns: [`Cut`], one in a connection whose handshake was ended. Called by: [`super::confirm`]. Threads and forks: as for
//! every callback. Failure: without memory for a BIO the connection has none, which ends it too.

use std::ffi::{c_char, c_int, c_long, c_void};
use std::ptr::{self, NonNull};
use std::sync::OnceLock;

use openssl_sys::{BIO, BIO_METHOD, SSL};

use super::sys;

/// A fatal alert, handshake_failure, as a record of its own.
const ALERT: [u8; ALERT_LEN as usize] = [21, 3, 3, 0, 2, 2, 40];
const ALERT_LEN: u8 = 7;

/// The application's BIOs of a connection whose handshake was ended.
pub(super) struct Cut {
    own_write: Option<NonNull<BIO>>,
    own_read: Option<NonNull<BIO>>,
    /// What stands in the place of each. Compared, never followed.
    write: *mut BIO,
    read: *mut BIO,
}

impl Cut {
    /// Ends the handshake. `with_alert`: nothing was sent yet that encrypts what follows.
    ///
    /// # Safety
    /// `ssl` is the connection whose callback is running, not of QUIC.
    pub(super) unsafe fn end(ssl: *mut SSL, with_alert: bool) -> Self {
        // SAFETY: the connection is valid (caller). SSL_set0_wbio(3) and SSL_set0_rbio(3) give up the connection's
        // references to its BIOs and take over those to the new ones; ours are counted before.
        unsafe {
            let (own_write, own_read) =
                (openssl_sys::SSL_get_wbio(ssl), openssl_sys::SSL_get_rbio(ssl));
            if with_alert && !own_write.is_null() {
                openssl_sys::BIO_write(own_write, ALERT.as_ptr().cast(), ALERT_LEN.into());
                flush(own_write);
            }
            let (own_write, own_read) = (counted(own_write), counted(own_read));
            let (write, read) = (gone(), gone());
            sys::SSL_set0_wbio(ssl, write);
            sys::SSL_set0_rbio(ssl, read);
            Cut { own_write, own_read, write, read }
        }
    }

    /// Gives a connection its BIOs back that makes another handshake, unless the application gave it others.
    ///
    /// # Safety
    /// As for [`Cut::end`]; `ssl` is the same connection.
    pub(super) unsafe fn undo(mut self, ssl: *mut SSL) {
        // SAFETY: as in `end`; our references go to the connection.
        unsafe {
            if openssl_sys::SSL_get_wbio(ssl) == self.write {
                sys::SSL_set0_wbio(
                    ssl,
                    self.own_write.take().map_or(ptr::null_mut(), NonNull::as_ptr),
                );
            }
            if openssl_sys::SSL_get_rbio(ssl) == self.read {
                sys::SSL_set0_rbio(
                    ssl,
                    self.own_read.take().map_or(ptr::null_mut(), NonNull::as_ptr),
                );
            }
        }
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        for bio in [self.own_write, self.own_read].into_iter().flatten() {
            // SAFETY: a reference of ours.
            unsafe { openssl_sys::BIO_free_all(bio.as_ptr()) };
        }
    }
}

/// # Safety
/// `bio` is NULL or valid.
unsafe fn counted(bio: *mut BIO) -> Option<NonNull<BIO>> {
    let bio = NonNull::new(bio)?;
    // SAFETY: as the caller promises.
    (unsafe { sys::BIO_up_ref(bio.as_ptr()) } == 1).then_some(bio)
}

/// # Safety
/// `bio` is valid.
unsafe fn flush(bio: *mut BIO) {
    // SAFETY: as the caller promises.
    let _: c_long = unsafe { openssl_sys::BIO_ctrl(bio, sys::BIO_CTRL_FLUSH, 0, ptr::null_mut()) };
}

/// A BIO that fails as a socket does whose other end is gone, so that servers log it as such and not as a fault of their
/// own: without an error on OpenSSL's queue, and not to be tried again. NULL without memory.
fn gone() -> *mut BIO {
    static METHOD: OnceLock<Option<Method>> = OnceLock::new();
    let method = METHOD.get_or_init(Method::new);
    // SAFETY: the method is whole and never freed.
    method
        .as_ref()
        .map_or(ptr::null_mut(), |method| unsafe { openssl_sys::BIO_new(method.0.as_ptr()) })
}

struct Method(NonNull<BIO_METHOD>);

// SAFETY: nobody changes a method after it was made.
unsafe impl Send for Method {}
// SAFETY: as above.
unsafe impl Sync for Method {}

impl Method {
    fn new() -> Option<Self> {
        // SAFETY: the name lives for ever; the functions have the signatures that BIO_meth_new(3) documents.
        unsafe {
            let method =
                NonNull::new(openssl_sys::BIO_meth_new(NO_TYPE, c"tlsresume: ended".as_ptr()))?;
            openssl_sys::BIO_meth_set_write__fixed_rust(method.as_ptr(), Some(write_nothing));
            openssl_sys::BIO_meth_set_read__fixed_rust(method.as_ptr(), Some(read_nothing));
            openssl_sys::BIO_meth_set_ctrl__fixed_rust(method.as_ptr(), Some(control_nothing));
            Some(Method(method))
        }
    }
}

/// BIO_TYPE_NONE: nobody looks for it by type.
const NO_TYPE: c_int = 0;

unsafe extern "C" fn write_nothing(_bio: *mut BIO, _bytes: *const c_char, _len: c_int) -> c_int {
    fail()
}

unsafe extern "C" fn read_nothing(_bio: *mut BIO, _bytes: *mut c_char, _len: c_int) -> c_int {
    fail()
}

fn fail() -> c_int {
    // SAFETY: the location is this thread's own errno, which a BIO sets when it fails.
    unsafe { *libc::__errno_location() = libc::EPIPE };
    -1
}

unsafe extern "C" fn control_nothing(
    _bio: *mut BIO,
    _command: c_int,
    _number: c_long,
    _argument: *mut c_void,
) -> c_long {
    0
}
