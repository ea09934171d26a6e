//! Which context accepted a connection.
//!
//! After a servername callback switched contexts, and in some callbacks of some OpenSSL versions, the connection no
//! longer tells which context it was accepted with; OpenSSL calls that context's callbacks all the same. So each
//! attached context gets functions of its own: the number is part of the function. There are 512 of them in a process
//! (nginx has the contexts of two configurations while it reloads); further contexts share one set, and are then told
//! apart by the connection's current context only.
//!
//! Owns: the table of numbered attachments. Called by: OpenSSL, and by attaching and detaching. Threads: numbers are
//! taken and given back by one atomic operation each. Forks: children inherit the table. Failure: without a free
//! number, the shared set.

use std::ffi::{c_int, c_uchar, c_uint, c_void};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use openssl_sys::{EVP_CIPHER_CTX, SSL, SSL_SESSION};

use super::attach::Attachment;
use super::callbacks;
use super::sys::{
    GenerateIdCallback, GetSessionCallback, MacCtx, NewSessionCallback, TicketKeyCallback,
};

/// How many contexts of a process have a number.
const NUMBERED: usize = Slot::SHARED.0 as usize;

/// The number of an attached context, or the one that all further contexts share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot(u16);

/// The functions that OpenSSL calls for one slot.
#[derive(Clone, Copy)]
pub(super) struct Callbacks {
    pub(super) ticket_key: TicketKeyCallback,
    pub(super) new_session: NewSessionCallback,
    pub(super) get_session: GetSessionCallback,
    pub(super) generate_id: GenerateIdCallback,
}

static ATTACHED: [AtomicPtr<Attachment>; NUMBERED] =
    [const { AtomicPtr::new(ptr::null_mut()) }; NUMBERED];

impl Slot {
    /// The slot that contexts beyond the numbered ones share.
    pub(super) const SHARED: Slot = Slot(512);

    /// Gives a number to an attachment, if one is left.
    pub(super) fn take(attachment: *mut Attachment) -> Slot {
        let free = ATTACHED.iter().position(|slot| {
            slot.compare_exchange(ptr::null_mut(), attachment, Ordering::Release, Ordering::Relaxed)
                .is_ok()
        });
        free.and_then(|number| u16::try_from(number).ok()).map_or(Slot::SHARED, Slot)
    }

    /// Gives the number back. The attachment is not looked at any more.
    pub(super) fn release(self) {
        if let Some(slot) = ATTACHED.get(usize::from(self.0)) {
            slot.store(ptr::null_mut(), Ordering::Release);
        }
    }

    /// The attachment that has this number.
    pub(super) fn attachment(self) -> Option<&'static Attachment> {
        let attachment = ATTACHED.get(usize::from(self.0))?.load(Ordering::Acquire);
        // SAFETY: a pointer in the table is an attachment that lives until its context is freed or detached. A
        // connection keeps its context alive, and tlsresume_detach must not run during handshakes; so whoever is called
        // back for this slot may use the attachment until the callback returns, and nobody keeps it longer.
        unsafe { attachment.as_ref() }
    }

    /// The attachment for a connection that was accepted by a context of this slot.
    pub(super) fn attachment_for(self, ssl: *mut SSL) -> Option<&'static Attachment> {
        if self == Slot::SHARED { Attachment::serving(ssl) } else { self.attachment() }
    }

    /// This slot's functions.
    pub(super) fn callbacks(self) -> Callbacks {
        CALLBACKS.as_flattened().get(usize::from(self.0)).copied().unwrap_or(SHARED_CALLBACKS)
    }

    /// The slot's number as a callback argument, and back.
    pub(super) fn to_arg(self) -> *mut c_void {
        ptr::without_provenance_mut(usize::from(self.0))
    }

    /// The slot whose [`Slot::to_arg`] this is.
    pub(super) fn from_arg(arg: *mut c_void) -> Slot {
        u16::try_from(arg.addr()).map_or(Slot::SHARED, |number| Slot(number.min(Slot::SHARED.0)))
    }
}

const fn callbacks_of<const N: u16>() -> Callbacks {
    Callbacks {
        ticket_key: ticket_key::<N>,
        new_session: new_session::<N>,
        get_session: get_session::<N>,
        generate_id: generate_id::<N>,
    }
}

unsafe extern "C" fn ticket_key<const N: u16>(
    ssl: *mut SSL,
    name: *mut c_uchar,
    iv: *mut c_uchar,
    cipher: *mut EVP_CIPHER_CTX,
    mac: *mut MacCtx,
    encrypt: c_int,
) -> c_int {
    // SAFETY: called by OpenSSL with the arguments that its manual promises (SSL_CTX_set_tlsext_ticket_key_cb(3)).
    unsafe { callbacks::ticket_key(Slot(N), ssl, name, iv, cipher, mac, encrypt) }
}

unsafe extern "C" fn new_session<const N: u16>(ssl: *mut SSL, session: *mut SSL_SESSION) -> c_int {
    // SAFETY: called by OpenSSL with the arguments that its manual promises (SSL_CTX_sess_set_new_cb(3)).
    unsafe { callbacks::new_session(Slot(N), ssl, session) }
}

unsafe extern "C" fn get_session<const N: u16>(
    ssl: *mut SSL,
    id: *const c_uchar,
    len: c_int,
    copy: *mut c_int,
) -> *mut SSL_SESSION {
    // SAFETY: called by OpenSSL with the arguments that its manual promises (SSL_CTX_sess_set_get_cb(3)).
    unsafe { callbacks::get_session(Slot(N), ssl, id, len, copy) }
}

unsafe extern "C" fn generate_id<const N: u16>(
    ssl: *mut SSL,
    id: *mut c_uchar,
    len: *mut c_uint,
) -> c_int {
    // SAFETY: called by OpenSSL with the arguments that its manual promises (SSL_CTX_set_generate_session_id(3)).
    unsafe { callbacks::generate_id(Slot(N), ssl, id, len) }
}

// A function per number can only come from naming each number: const generics have no loop. So the numbers are named as
// rows of 16.
macro_rules! row {
    ($row:literal) => {
        row!($row, 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15)
    };
    ($row:literal, $($column:literal)*) => {
        [$(callbacks_of::<{ 16 * $row + $column }>()),*]
    };
}

macro_rules! rows {
    ($($row:literal)*) => { [$(row!($row)),*] };
}

const ROW: usize = 16;
const ROWS: usize = NUMBERED / ROW;

static CALLBACKS: [[Callbacks; ROW]; ROWS] = rows!(
    0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31
);

/// The set that all further contexts share.
static SHARED_CALLBACKS: Callbacks = callbacks_of::<{ Slot::SHARED.0 }>();
