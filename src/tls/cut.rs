//! How a handshake is ended for good: the connection's BIOs are replaced.
//!
//! No function of OpenSSL ends a handshake from inside a callback that has no answer. So the client is sent the alert
//! (RFC 8446, section 6.2; the connection is not encrypted yet), and then the connection gets BIOs that fail as a socket
//! does whose other end is gone, and counts as shut down in both directions: OpenSSL fails at its next step, also if the
//! application gives it other BIOs and goes on. To the application the client has closed the connection
//! (SSL_ERROR_ZERO_RETURN), so servers log no fault of their own.
//!
//! An application may use the object again (SSL_clear(3)). The connection is then before its first step, and our BIOs
//! pass everything on to the application's, which come back when one of our callbacks runs.
//!
//! Owns: [`Cut`], one in a connection whose handshake was ended, and [`Gate`], one in each BIO of ours. Called by:
//! [`super::confirm`]. Threads and forks: as for every callback. Failure: without memory for a BIO the connection has
//! none, which ends it too.

use std::ffi::{c_char, c_int, c_long, c_void};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};
use std::sync::{Arc, OnceLock};

use openssl_sys::{BIO, BIO_METHOD, SSL};

use super::connection::is_before_handshake;
use super::sys;

/// A fatal alert, handshake_failure, as a record of its own.
const ALERT: [u8; ALERT_LEN as usize] = [21, 3, 3, 0, 2, 2, 40];
const ALERT_LEN: u8 = 7;

/// The mark on a connection whose handshake was ended. NULL once the connection is gone, for its BIOs may outlive it.
pub(super) struct Cut(Arc<AtomicPtr<SSL>>);

impl Cut {
    /// Ends the handshake. `with_alert`: nothing was sent yet that encrypts what follows.
    ///
    /// # Safety
    /// `ssl` is the connection whose callback is running, not of QUIC.
    pub(super) unsafe fn end(ssl: *mut SSL, with_alert: bool) -> Self {
        let cut = Cut(Arc::new(AtomicPtr::new(ssl)));
        // SAFETY: the connection is valid (caller), and so are its BIOs.
        unsafe {
            let writes = openssl_sys::SSL_get_wbio(ssl);
            if with_alert && !writes.is_null() {
                openssl_sys::BIO_write(writes, ALERT.as_ptr().cast(), ALERT_LEN.into());
                control(writes, sys::BIO_CTRL_FLUSH);
            }
            cut.again(ssl);
        }
        cut
    }

    /// The same for whatever BIOs the connection has now.
    ///
    /// # Safety
    /// As for [`Cut::end`]; `ssl` is the same connection.
    pub(super) unsafe fn again(&self, ssl: *mut SSL) {
        // SAFETY: the connection is valid (caller). SSL_set0_wbio(3) and SSL_set0_rbio(3) give up the connection's
        // references to its BIOs, which the new ones have counted, and take over those to the new ones.
        unsafe {
            let (writes, reads) = (openssl_sys::SSL_get_wbio(ssl), openssl_sys::SSL_get_rbio(ssl));
            if self.gate(writes).is_none() {
                sys::SSL_set0_wbio(ssl, Gate::close(writes, &self.0));
            }
            if self.gate(reads).is_none() {
                sys::SSL_set0_rbio(ssl, Gate::close(reads, &self.0));
            }
            openssl_sys::SSL_set_shutdown(ssl, sys::SSL_SENT_SHUTDOWN | sys::SSL_RECEIVED_SHUTDOWN);
        }
    }

    /// Gives a connection its BIOs back that makes another handshake, unless the application gave it others.
    ///
    /// # Safety
    /// As for [`Cut::again`].
    pub(super) unsafe fn undo(self, ssl: *mut SSL) {
        // SAFETY: as in `again`; the connection takes over references of its own to the application's BIOs.
        unsafe {
            if let Some(gate) = self.gate(openssl_sys::SSL_get_wbio(ssl)) {
                sys::SSL_set0_wbio(
                    ssl,
                    counted(gate.behind).map_or(ptr::null_mut(), NonNull::as_ptr),
                );
            }
            if let Some(gate) = self.gate(openssl_sys::SSL_get_rbio(ssl)) {
                sys::SSL_set0_rbio(
                    ssl,
                    counted(gate.behind).map_or(ptr::null_mut(), NonNull::as_ptr),
                );
            }
        }
    }

    /// The gate in a BIO, if it is one that this cut closed.
    ///
    /// # Safety
    /// `bio` is NULL or valid, and is not freed while the result is used.
    unsafe fn gate<'a>(&self, bio: *mut BIO) -> Option<&'a Gate> {
        // SAFETY: as the caller promises.
        unsafe { Gate::of(bio) }.filter(|gate| Arc::ptr_eq(&gate.ssl, &self.0))
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        self.0.store(ptr::null_mut(), Ordering::Release);
    }
}

/// What a BIO of ours has: the application's BIO, which it keeps alive, and the connection.
struct Gate {
    behind: *mut BIO,
    ssl: Arc<AtomicPtr<SSL>>,
    /// The connection makes another handshake.
    is_open: AtomicBool,
}

impl Gate {
    /// A BIO that closes the way to `behind`; NULL without memory.
    ///
    /// # Safety
    /// `behind` is NULL or valid.
    unsafe fn close(behind: *mut BIO, ssl: &Arc<AtomicPtr<SSL>>) -> *mut BIO {
        // SAFETY: as the caller promises; the BIO is new and owns its gate, which `destroy` frees.
        unsafe {
            let has_descriptor = !behind.is_null()
                && !sys::BIO_find_type(behind, sys::BIO_TYPE_DESCRIPTOR).is_null();
            let Some(method) = method(has_descriptor) else { return ptr::null_mut() };
            let bio = openssl_sys::BIO_new(method.0.as_ptr());
            if !bio.is_null() {
                let behind = counted(behind).map_or(ptr::null_mut(), NonNull::as_ptr);
                let gate = Gate { behind, ssl: Arc::clone(ssl), is_open: AtomicBool::new(false) };
                openssl_sys::BIO_set_data(bio, Box::into_raw(Box::new(gate)).cast());
                openssl_sys::BIO_set_init(bio, 1);
            }
            bio
        }
    }

    /// The gate of a BIO, if it is one of ours.
    ///
    /// # Safety
    /// `bio` is NULL or valid, and is not freed while the result is used.
    unsafe fn of<'a>(bio: *mut BIO) -> Option<&'a Gate> {
        if bio.is_null() {
            return None;
        }
        // SAFETY: the BIO is valid (caller), and one with our destructor has NULL or a gate.
        unsafe {
            let kind = sys::BIO_method_type(bio);
            let is_ours = [false, true].into_iter().filter_map(method).any(|it| it.1 == kind);
            if is_ours { openssl_sys::BIO_get_data(bio).cast::<Gate>().as_ref() } else { None }
        }
    }

    /// The application's BIO, once the connection makes another handshake: until its ClientHello is read, it is before its
    /// first step.
    fn opened(&self) -> Option<NonNull<BIO>> {
        let ssl = self.ssl.load(Ordering::Acquire);
        // The connection is gone when the pointer is NULL; who reads or writes for it is on its thread.
        if !ssl.is_null() && is_before_handshake(ssl) {
            self.is_open.store(true, Ordering::Relaxed);
        }
        NonNull::new(self.behind).filter(|_| self.is_open.load(Ordering::Relaxed))
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        // SAFETY: a reference of ours, or NULL.
        unsafe { openssl_sys::BIO_free_all(self.behind) };
    }
}

/// A reference of one's own.
///
/// # Safety
/// `bio` is NULL or valid.
unsafe fn counted(bio: *mut BIO) -> Option<NonNull<BIO>> {
    let bio = NonNull::new(bio)?;
    // SAFETY: as the caller promises.
    (unsafe { sys::BIO_up_ref(bio.as_ptr()) } == 1).then_some(bio)
}

/// # Safety
/// `bio` is valid.
unsafe fn control(bio: *mut BIO, command: c_int) -> c_long {
    // SAFETY: as the caller promises.
    unsafe { openssl_sys::BIO_ctrl(bio, command, 0, ptr::null_mut()) }
}

/// A method of BIOs, and its type.
struct Method(NonNull<BIO_METHOD>, c_int);

// SAFETY: nobody changes a method after it was made.
unsafe impl Send for Method {}
// SAFETY: as above.
unsafe impl Sync for Method {}

/// The method of BIOs in the place of one with a descriptor, as SSL_get_fd(3) looks for, or of another.
fn method(has_descriptor: bool) -> Option<&'static Method> {
    static METHODS: [OnceLock<Option<Method>>; 2] = [const { OnceLock::new() }; 2];
    let [without, with] = &METHODS;
    let method = if has_descriptor { with } else { without };
    method.get_or_init(|| Method::new(has_descriptor)).as_ref()
}

impl Method {
    fn new(has_descriptor: bool) -> Option<Self> {
        let descriptor = if has_descriptor { sys::BIO_TYPE_DESCRIPTOR } else { 0 };
        // SAFETY: the name lives for ever; the functions have the signatures that BIO_meth_new(3) documents.
        unsafe {
            let index = sys::BIO_get_new_index();
            if index < 0 {
                return None;
            }
            let kind = index | sys::BIO_TYPE_SOURCE_SINK | descriptor;
            let method =
                NonNull::new(openssl_sys::BIO_meth_new(kind, c"tlsresume: ended".as_ptr()))?;
            openssl_sys::BIO_meth_set_write__fixed_rust(method.as_ptr(), Some(write));
            openssl_sys::BIO_meth_set_read__fixed_rust(method.as_ptr(), Some(read));
            openssl_sys::BIO_meth_set_ctrl__fixed_rust(method.as_ptr(), Some(answer));
            openssl_sys::BIO_meth_set_destroy__fixed_rust(method.as_ptr(), Some(destroy));
            Some(Method(method, kind))
        }
    }
}

unsafe extern "C" fn write(bio: *mut BIO, bytes: *const c_char, len: c_int) -> c_int {
    // SAFETY: OpenSSL calls this for a BIO of ours, with `len` readable bytes.
    unsafe { pass_on(bio, |behind| openssl_sys::BIO_write(behind, bytes.cast(), len)) }
}

unsafe extern "C" fn read(bio: *mut BIO, bytes: *mut c_char, len: c_int) -> c_int {
    // SAFETY: OpenSSL calls this for a BIO of ours, with room for `len` bytes.
    unsafe { pass_on(bio, |behind| openssl_sys::BIO_read(behind, bytes.cast(), len)) }
}

/// What the application's BIO does, once the gate is open, with its word on whether to try again; else a failure for good.
///
/// # Safety
/// `bio` is valid and of ours.
unsafe fn pass_on(bio: *mut BIO, work: impl FnOnce(*mut BIO) -> c_int) -> c_int {
    const RETRY: c_int = 0x0f;
    // SAFETY: as the caller promises; the gate keeps the BIO behind it alive. The location is this thread's own errno,
    // which a BIO sets when it fails.
    unsafe {
        openssl_sys::BIO_clear_flags(bio, RETRY);
        let Some(behind) = Gate::of(bio).and_then(Gate::opened) else {
            *libc::__errno_location() = libc::EPIPE;
            return -1;
        };
        let done = work(behind.as_ptr());
        openssl_sys::BIO_set_flags(bio, sys::BIO_test_flags(behind.as_ptr(), RETRY));
        done
    }
}

/// Behind a closed gate, the descriptor is all that can be asked for.
unsafe extern "C" fn answer(
    bio: *mut BIO,
    command: c_int,
    number: c_long,
    argument: *mut c_void,
) -> c_long {
    const NONE: c_long = 0;
    // SAFETY: OpenSSL calls this for a BIO of ours; the gate keeps the BIO behind it alive.
    unsafe {
        let Some(gate) = Gate::of(bio) else { return NONE };
        match (gate.opened(), command) {
            (Some(behind), _) => openssl_sys::BIO_ctrl(behind.as_ptr(), command, number, argument),
            (None, sys::BIO_C_GET_FD) => {
                let socket = if gate.behind.is_null() {
                    ptr::null_mut()
                } else {
                    sys::BIO_find_type(gate.behind, sys::BIO_TYPE_DESCRIPTOR)
                };
                let descriptor = || openssl_sys::BIO_ctrl(socket, command, number, argument);
                if socket.is_null() { -1 } else { descriptor() }
            }
            (None, _) => NONE,
        }
    }
}

unsafe extern "C" fn destroy(bio: *mut BIO) -> c_int {
    // SAFETY: OpenSSL frees a BIO of ours, once; its data is NULL or the gate that `close` made.
    unsafe {
        let gate = openssl_sys::BIO_get_data(bio).cast::<Gate>();
        openssl_sys::BIO_set_data(bio, ptr::null_mut());
        if !gate.is_null() {
            drop(Box::from_raw(gate));
        }
    }
    1
}
