//! How a handshake is ended for good: the connection cannot reach its client any more.
//!
//! No function of OpenSSL ends a handshake from inside a callback that has no answer. So the client is sent the alert
//! (RFC 8446, section 6.2; the connection is not encrypted yet), and then a callback on the connection's BIOs
//! (BIO_set_callback_ex(3)) refuses to write and to read, as if the other end were gone; and the connection counts as shut
//! down in both directions, so that it fails also if the application gives it other BIOs and goes on. To the application
//! the client has closed the connection (SSL_ERROR_ZERO_RETURN), so servers log no fault of their own. The BIOs stay the
//! application's: it may ask for their descriptor, read what is in them, set them again and free them.
//!
//! An application may use the object again (SSL_clear(3)). The connection is then before its first step, and its BIOs write
//! and read as before.
//!
//! Owns: [`Cut`], one in a connection whose handshake was ended, and [`Block`], one on each of its BIOs. Called by:
//! [`super::confirm`]. Threads and forks: as for every callback. Failure: a BIO that cannot be blocked leaves the mark of
//! a connection that is shut down.

use std::ffi::{c_char, c_int, c_long, c_void};
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

use openssl_sys::{BIO, CRYPTO_EX_DATA, SSL};

use super::connection::{has_begun_to_answer, is_before_handshake, is_renegotiated, is_tls};
use super::ex_data::{Place, give, unmarked};
use super::sys::{self, BioCallback};

/// A fatal alert, handshake_failure, as a record of its own.
const ALERT: [u8; ALERT_LEN as usize] = [21, 3, 3, 0, 2, 2, 40];
const ALERT_LEN: u8 = 7;

/// A connection whose handshake was ended, and what it wrote to and read from.
pub(super) struct Cut {
    /// NULL once the connection is gone, for its BIOs may outlive it.
    ssl: Arc<AtomicPtr<SSL>>,
    writes: Option<Blocked>,
    reads: Option<Blocked>,
}

impl Cut {
    /// Ends the handshake.
    ///
    /// # Safety
    /// `ssl` is the connection whose callback is running, not of QUIC.
    pub(super) unsafe fn end(ssl: *mut SSL) -> Self {
        let mut cut = Cut { ssl: Arc::new(AtomicPtr::new(ssl)), writes: None, reads: None };
        // SAFETY: the connection is valid (caller), and so are its BIOs.
        unsafe {
            let writes = openssl_sys::SSL_get_wbio(ssl);
            // Nothing was sent yet that encrypts what follows.
            let may_alert = is_tls(ssl) && !is_renegotiated(ssl) && !has_begun_to_answer(ssl);
            if may_alert && !writes.is_null() {
                openssl_sys::BIO_write(writes, ALERT.as_ptr().cast(), ALERT_LEN.into());
                openssl_sys::BIO_ctrl(writes, sys::BIO_CTRL_FLUSH, 0, ptr::null_mut());
            }
            cut.again(ssl);
        }
        cut
    }

    /// The same for whatever BIOs the connection has now.
    ///
    /// # Safety
    /// As for [`Cut::end`]; `ssl` is the same connection.
    pub(super) unsafe fn again(&mut self, ssl: *mut SSL) {
        // SAFETY: the connection is valid (caller), and so are its BIOs.
        unsafe {
            let (writes, reads) = (openssl_sys::SSL_get_wbio(ssl), openssl_sys::SSL_get_rbio(ssl));
            Blocked::change(&mut self.writes, writes, sys::BIO_CB_WRITE, &self.ssl);
            Blocked::change(&mut self.reads, reads, sys::BIO_CB_READ, &self.ssl);
            openssl_sys::SSL_set_shutdown(ssl, sys::SSL_SENT_SHUTDOWN | sys::SSL_RECEIVED_SHUTDOWN);
        }
    }

    /// Leaves the connection ended, for as long as it has these BIOs.
    pub(super) fn stay(mut self) {
        for blocked in [self.writes.take(), self.reads.take()].into_iter().flatten() {
            blocked.stay();
        }
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        self.ssl.store(ptr::null_mut(), Ordering::Release);
    }
}

/// A BIO that does not do one thing any more, with a reference to it. Dropping it gives the BIO back as it was.
struct Blocked {
    bio: NonNull<BIO>,
    operation: c_int,
}

impl Blocked {
    /// Blocks a BIO, and no other any more.
    ///
    /// # Safety
    /// `bio` is NULL or valid.
    unsafe fn change(
        blocked: &mut Option<Blocked>,
        bio: *mut BIO,
        operation: c_int,
        ssl: &Arc<AtomicPtr<SSL>>,
    ) {
        let bio = NonNull::new(bio);
        if blocked.as_ref().map(|blocked| blocked.bio) != bio {
            // SAFETY: as the caller promises.
            *blocked = bio.and_then(|bio| unsafe { Blocked::new(bio, operation, ssl) });
        }
    }

    /// # Safety
    /// `bio` is valid.
    unsafe fn new(bio: NonNull<BIO>, operation: c_int, ssl: &Arc<AtomicPtr<SSL>>) -> Option<Self> {
        // SAFETY: as the caller promises; the reference is given back by `drop` or `stay`.
        unsafe {
            let block = Block::on(bio.as_ptr(), ssl)?;
            if sys::BIO_up_ref(bio.as_ptr()) != 1 {
                return None;
            }
            block.of(operation).store(true, Ordering::Relaxed);
        }
        Some(Blocked { bio, operation })
    }

    fn stay(self) {
        // SAFETY: the reference of `new`.
        unsafe { openssl_sys::BIO_free_all(self.bio.as_ptr()) };
        std::mem::forget(self);
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        // SAFETY: the reference of `new` keeps the BIO alive until here, and is given back once.
        unsafe {
            Block::lift(self.bio.as_ptr(), self.operation);
            openssl_sys::BIO_free_all(self.bio.as_ptr());
        }
    }
}

/// What a BIO does not do for a connection, in its ex_data until it is lifted or the BIO is freed.
struct Block {
    ssl: Arc<AtomicPtr<SSL>>,
    writes: AtomicBool,
    reads: AtomicBool,
    /// The application's callback.
    callback: Option<BioCallback>,
}

impl Block {
    /// The block on a BIO of that connection, made if need be. `None` without memory, and where others have blocked it.
    ///
    /// # Safety
    /// `bio` is valid and not freed while the result is used.
    unsafe fn on<'a>(bio: *mut BIO, ssl: &Arc<AtomicPtr<SSL>>) -> Option<&'a Block> {
        let index = index()?;
        // SAFETY: as the caller promises; the block is the BIO's once it is stored.
        unsafe {
            if let Some(block) = Block::find(bio) {
                return Some(block).filter(|block| Arc::ptr_eq(&block.ssl, ssl));
            }
            let block = Block {
                ssl: Arc::clone(ssl),
                writes: AtomicBool::new(false),
                reads: AtomicBool::new(false),
                callback: sys::BIO_get_callback_ex(bio),
            };
            let block = give(block, |stored| sys::BIO_set_ex_data(bio, index, stored) == 1)?;
            sys::BIO_set_callback_ex(bio, Some(pass_or_fail));
            Some(&*block.as_ptr())
        }
    }

    /// # Safety
    /// As for [`Block::on`].
    unsafe fn find<'a>(bio: *mut BIO) -> Option<&'a Block> {
        let index = index()?;
        // SAFETY: as the caller promises; what bears our mark under our index is a block.
        unsafe { Some(&*unmarked(sys::BIO_get_ex_data(bio, index))?.as_ptr()) }
    }

    /// Lets a BIO do that again; the last one takes the block off.
    ///
    /// # Safety
    /// `bio` is valid.
    unsafe fn lift(bio: *mut BIO, operation: c_int) {
        // SAFETY: as the caller promises; the block is freed once, when the BIO does not have it any more.
        unsafe {
            let (Some(block), Some(index)) = (Block::find(bio), index()) else { return };
            block.of(operation).store(false, Ordering::Relaxed);
            if block.writes.load(Ordering::Relaxed) || block.reads.load(Ordering::Relaxed) {
                return;
            }
            let stored = sys::BIO_get_ex_data(bio, index);
            sys::BIO_set_callback_ex(bio, block.callback);
            sys::BIO_set_ex_data(bio, index, ptr::null_mut());
            free_block(stored);
        }
    }

    fn of(&self, operation: c_int) -> &AtomicBool {
        if operation == sys::BIO_CB_WRITE { &self.writes } else { &self.reads }
    }

    /// Whether the BIO must not do that now. A connection that makes another handshake is before its first step until its
    /// ClientHello is read; from then on nothing is blocked.
    fn forbids(&self, operation: c_int) -> bool {
        let is_blocked = match operation {
            sys::BIO_CB_WRITE | sys::BIO_CB_READ => self.of(operation).load(Ordering::Relaxed),
            _ => false,
        };
        let ssl = self.ssl.load(Ordering::Acquire);
        // The connection is gone when the pointer is NULL; who reads or writes for it is on its thread.
        if is_blocked && !ssl.is_null() && is_before_handshake(ssl) {
            self.writes.store(false, Ordering::Relaxed);
            self.reads.store(false, Ordering::Relaxed);
            return false;
        }
        is_blocked
    }
}

/// Our place in the ex_data of BIOs, taken when the first handshake is ended.
fn index() -> Option<c_int> {
    static PLACE: Place = Place::freed_by(sys::CRYPTO_EX_INDEX_BIO, free);
    PLACE.index()
}

unsafe extern "C" fn free(
    _bio: *mut c_void,
    block: *mut c_void,
    _data: *mut CRYPTO_EX_DATA,
    _index: c_int,
    _argl: c_long,
    _argp: *mut c_void,
) {
    // SAFETY: OpenSSL frees the BIO, so nobody uses its block any more.
    unsafe { free_block(block) };
}

/// # Safety
/// What bears our mark is a block that nobody uses any more.
unsafe fn free_block(stored: *mut c_void) {
    if let Some(block) = unmarked::<Block>(stored) {
        // SAFETY: as the caller promises; made by `Block::on` with Box::into_raw.
        drop(unsafe { Box::from_raw(block.as_ptr()) });
    }
}

/// Called before a BIO does something, and after it (BIO_callback_fn_ex(3)).
unsafe extern "C" fn pass_or_fail(
    bio: *mut BIO,
    operation: c_int,
    bytes: *const c_char,
    len: usize,
    number: c_int,
    argument: c_long,
    result: c_int,
    processed: *mut usize,
) -> c_long {
    const RETRY: c_int = 0x0f;
    const FAILED: c_long = -1;
    // SAFETY: OpenSSL calls this for a valid BIO. The location is this thread's own errno, which a BIO sets when it fails.
    // The application's callback gets the arguments that OpenSSL gave.
    unsafe {
        let Some(block) = Block::find(bio) else { return result.into() };
        if block.forbids(operation) {
            openssl_sys::BIO_clear_flags(bio, RETRY);
            *libc::__errno_location() = libc::EPIPE;
            return FAILED;
        }
        match block.callback {
            Some(callback) => {
                callback(bio, operation, bytes, len, number, argument, result, processed)
            }
            None => result.into(),
        }
    }
}
