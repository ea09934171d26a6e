//! How a handshake is ended for good: the connection cannot reach its client any more.
//!
//! No function of OpenSSL ends a handshake from inside a callback that has no answer. So the client is sent the alert
//! (RFC 8446, section 6.2; the connection is not encrypted yet), and then a callback on the connection's BIOs
//! (BIO_set_callback_ex(3)) refuses to write and to read, as if the other end were gone; and the connection counts as shut
//! down in both directions, so that it fails also if the application gives it other BIOs and goes on. To the application
//! the client has closed the connection (SSL_ERROR_ZERO_RETURN), so servers log no fault of their own. The BIOs stay the
//! application's: it may ask for their descriptor, read what is in them, set them again and free them.
//!
//! An application may use the object again (SSL_clear(3)). With the next handshake its BIOs write and read as before.
//!
//! The application may free its BIOs at any time, on any thread, and write over what is ours on them: so nobody keeps the
//! address of one. A BIO is found as the connection's, or as the one that calls us back, and gets its own callback back
//! then, once there is nothing to refuse.
//!
//! Owns: [`Cut`], one in a connection whose handshake was ended, and [`Block`], one on each of its BIOs, which both have.
//! Called by: [`super::confirm`] and [`super::handshake`]. Threads and forks: as for every callback, but a BIO may be used
//! and freed on another thread. Failure: a BIO that cannot be blocked, or is not since connections may share it (DTLS),
//! leaves the mark of a connection that is shut down, and a session with a secret that nobody has.

use std::ffi::{c_char, c_int, c_long, c_void};
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use openssl_sys::{BIO, CRYPTO_EX_DATA, SSL};

use super::bio_callback::{Call, Callback};
use super::connection::{has_begun_to_answer, is_renegotiated, is_tls};
use super::ex_data::{Place, give, unmarked};
use super::sys::{self, BioCallback};

/// A fatal alert, handshake_failure, as a record of its own.
const ALERT: [u8; ALERT_LEN as usize] = [21, 3, 3, 0, 2, 2, 40];
const ALERT_LEN: u8 = 7;

/// A connection whose handshake was ended: what it wrote to and read from.
#[derive(Default)]
pub(super) struct Cut {
    writes: Option<Arc<Block>>,
    reads: Option<Arc<Block>>,
}

impl Cut {
    /// Ends the handshake.
    ///
    /// # Safety
    /// `ssl` is the connection whose callback is running, not of QUIC.
    pub(super) unsafe fn end(ssl: *mut SSL) -> Self {
        let mut cut = Cut::default();
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
            openssl_sys::SSL_set_shutdown(ssl, sys::SSL_SENT_SHUTDOWN | sys::SSL_RECEIVED_SHUTDOWN);
            // Connections of DTLS may share a BIO.
            if is_tls(ssl) {
                self.block(openssl_sys::SSL_get_wbio(ssl), sys::BIO_CB_WRITE);
                self.block(openssl_sys::SSL_get_rbio(ssl), sys::BIO_CB_READ);
            }
        }
    }

    /// Lets the BIOs write and read again, and gives back their callbacks.
    ///
    /// # Safety
    /// `ssl` is the same connection, and has its BIOs still.
    pub(super) unsafe fn lift(self, ssl: *mut SSL) {
        drop(self);
        // SAFETY: as the caller promises.
        unsafe {
            for bio in [openssl_sys::SSL_get_wbio(ssl), openssl_sys::SSL_get_rbio(ssl)] {
                if let Some(block) = Block::find(bio) {
                    block.leave(bio);
                }
            }
        }
    }

    /// Leaves the connection ended, for as long as it has these BIOs.
    pub(super) fn stay(mut self) {
        self.writes = None;
        self.reads = None;
    }

    /// Has a BIO not do that any more, and no other one.
    ///
    /// # Safety
    /// `bio` is NULL or valid.
    unsafe fn block(&mut self, bio: *mut BIO, operation: c_int) {
        // SAFETY: as the caller promises.
        if unsafe { Block::find(bio) }.is_some_and(|found| self.has(found, operation)) {
            return;
        }
        let own = [&self.writes, &self.reads];
        // SAFETY: as the caller promises.
        let block = NonNull::new(bio).and_then(|bio| unsafe { Block::on(bio, own) });
        if let Some(block) = &block {
            block.of(operation).store(true, Ordering::Relaxed);
        }
        if let Some(before) = std::mem::replace(self.of(operation), block) {
            before.of(operation).store(false, Ordering::Relaxed);
        }
    }

    fn has(&mut self, found: &Arc<Block>, operation: c_int) -> bool {
        self.of(operation).as_ref().is_some_and(|block| Arc::ptr_eq(block, found))
    }

    fn of(&mut self, operation: c_int) -> &mut Option<Arc<Block>> {
        if operation == sys::BIO_CB_WRITE { &mut self.writes } else { &mut self.reads }
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        for operation in [sys::BIO_CB_WRITE, sys::BIO_CB_READ] {
            if let Some(block) = self.of(operation).take() {
                block.of(operation).store(false, Ordering::Relaxed);
            }
        }
    }
}

/// What a BIO does not do any more. The BIO has it in its ex_data until it is freed.
struct Block {
    writes: AtomicBool,
    reads: AtomicBool,
    /// The application's callback.
    callback: Callback,
    /// The application's callback is being called.
    is_passing_on: AtomicBool,
}

impl Block {
    /// The block on a BIO, made if need be. `None` without memory, and where a connection other than the one that has
    /// `own` has blocked it.
    ///
    /// # Safety
    /// `bio` is valid.
    unsafe fn on(bio: NonNull<BIO>, own: [&Option<Arc<Block>>; 2]) -> Option<Arc<Block>> {
        // SAFETY: as the caller promises.
        let found = unsafe { Block::find(bio.as_ptr()) }.filter(|found| found.is_active());
        if let Some(found) = found {
            let is_own = own.into_iter().flatten().any(|block| Arc::ptr_eq(block, found));
            return is_own.then(|| Arc::clone(found));
        }
        // SAFETY: as above.
        unsafe { Block::set(bio) }
    }

    /// Puts a new block on a BIO, in the place of one that was lifted.
    ///
    /// # Safety
    /// `bio` is valid, and has no block that is active.
    unsafe fn set(bio: NonNull<BIO>) -> Option<Arc<Block>> {
        let index = index()?;
        // SAFETY: as the caller promises; what is stored is the BIO's until it is replaced or the BIO is freed.
        unsafe {
            let before = sys::BIO_get_ex_data(bio.as_ptr(), index);
            if !before.is_null() && unmarked::<Arc<Block>>(before).is_none() {
                return None;
            }
            let block = Arc::new(Block {
                writes: AtomicBool::new(false),
                reads: AtomicBool::new(false),
                callback: Block::callback_of(bio.as_ptr()),
                is_passing_on: AtomicBool::new(false),
            });
            give(Arc::clone(&block), |it| sys::BIO_set_ex_data(bio.as_ptr(), index, it) == 1)?;
            free_block(before);
            sys::BIO_set_callback_ex(bio.as_ptr(), Some(PASS_OR_FAIL));
            Some(block)
        }
    }

    /// What the application has the BIO call.
    ///
    /// # Safety
    /// `bio` is valid.
    unsafe fn callback_of(bio: *mut BIO) -> Callback {
        // SAFETY: as the caller promises.
        unsafe {
            let is_on = sys::BIO_get_callback_ex(bio).is_some_and(is_ours);
            let lifted = Block::find(bio).filter(|_| is_on);
            lifted.map_or_else(|| Callback::of(bio, is_ours), |lifted| lifted.callback)
        }
    }

    /// # Safety
    /// `bio` is NULL or valid, and keeps its block while the result is used.
    unsafe fn find<'a>(bio: *mut BIO) -> Option<&'a Arc<Block>> {
        let index = index().filter(|_| !bio.is_null())?;
        // SAFETY: as the caller promises; what bears our mark under our index is a block.
        unsafe { Some(&*unmarked(sys::BIO_get_ex_data(bio, index))?.as_ptr()) }
    }

    /// Without anything to refuse the BIO gets the application's callback back, unless that has set another.
    ///
    /// # Safety
    /// `bio` is valid, and this its block.
    unsafe fn leave(&self, bio: *mut BIO) {
        // SAFETY: as the caller promises.
        unsafe {
            if !self.is_active() && sys::BIO_get_callback_ex(bio).is_some_and(is_ours) {
                sys::BIO_set_callback_ex(bio, self.callback.newer());
            }
        }
    }

    fn of(&self, operation: c_int) -> &AtomicBool {
        if operation == sys::BIO_CB_WRITE { &self.writes } else { &self.reads }
    }

    fn is_active(&self) -> bool {
        self.writes.load(Ordering::Relaxed) || self.reads.load(Ordering::Relaxed)
    }

    /// Whether the BIO must not do that now.
    fn forbids(&self, operation: c_int) -> bool {
        matches!(operation, sys::BIO_CB_WRITE | sys::BIO_CB_READ)
            && self.of(operation).load(Ordering::Relaxed)
    }
}

/// Our place in the ex_data of BIOs, taken when the first handshake is ended.
fn index() -> Option<c_int> {
    static PLACE: Place = Place::freed_by(sys::CRYPTO_EX_INDEX_BIO, free).copied_by(not_copied);
    PLACE.index()
}

/// A copy (BIO_dup_chain(3)) is another connection's.
unsafe extern "C" fn not_copied(
    _to: *mut CRYPTO_EX_DATA,
    _from: *const CRYPTO_EX_DATA,
    value: *mut *mut c_void,
    _index: c_int,
    _argl: c_long,
    _argp: *mut c_void,
) -> c_int {
    // SAFETY: OpenSSL passes the address of the copied pointer.
    unsafe {
        if unmarked::<Arc<Block>>(*value).is_some() {
            *value = ptr::null_mut();
        }
    }
    1
}

unsafe extern "C" fn free(
    _bio: *mut c_void,
    block: *mut c_void,
    _data: *mut CRYPTO_EX_DATA,
    _index: c_int,
    _argl: c_long,
    _argp: *mut c_void,
) {
    // SAFETY: OpenSSL frees the BIO, which owns its reference.
    unsafe { free_block(block) };
}

/// # Safety
/// What bears our mark is a reference to a block, which the BIO does not have any more.
unsafe fn free_block(stored: *mut c_void) {
    if let Some(block) = unmarked::<Arc<Block>>(stored) {
        // SAFETY: as the caller promises; made by `give`.
        drop(unsafe { Box::from_raw(block.as_ptr()) });
    }
}

/// One address for the function, to know it again by.
static PASS_OR_FAIL: BioCallback = pass_or_fail;

fn is_ours(callback: BioCallback) -> bool {
    ptr::fn_addr_eq(callback, PASS_OR_FAIL)
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
        // The application's callback may free what the block is on, or call ours.
        let block = Arc::clone(block);
        block.leave(bio);
        if block.is_passing_on.swap(true, Ordering::Relaxed) {
            return result.into();
        }
        let call = Call { bio, operation, bytes, len, number, argument, result, processed };
        let answer = block.callback.call(call);
        block.is_passing_on.store(false, Ordering::Relaxed);
        answer
    }
}
