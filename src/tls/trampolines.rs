//! The functions that OpenSSL calls: one of each kind for each slot ([`super::attachment`]).
//!
//! After a servername callback switched contexts, and in some callbacks of some OpenSSL versions, the connection no
//! longer tells which context it was accepted with; OpenSSL calls that context's callbacks all the same. So each
//! attached context gets functions of its own: the number is part of the function.
//!
//! Owns: nothing that changes. Called by: OpenSSL, and by attaching. Threads, forks, failure: as for what they call.

use std::ffi::{c_int, c_uchar, c_uint};

use openssl_sys::{EVP_CIPHER_CTX, SSL, SSL_SESSION};

use super::attachment::{NUMBERED, Slot};
use super::sys::{
    GenerateIdCallback, GetSessionCallback, MacCtx, NewSessionCallback, TicketKeyCallback,
};
use super::{callbacks, ticket_callback};

/// The functions that OpenSSL calls for one slot.
#[derive(Clone, Copy)]
pub(super) struct Callbacks {
    pub(super) ticket_key: TicketKeyCallback,
    pub(super) new_session: NewSessionCallback,
    pub(super) get_session: GetSessionCallback,
    pub(super) generate_id: GenerateIdCallback,
}

/// The functions of a slot.
pub(super) fn of(slot: Slot) -> Callbacks {
    CALLBACKS.as_flattened().get(slot.number()).copied().unwrap_or(SHARED_CALLBACKS)
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
    unsafe { ticket_callback::ticket_key(Slot::of(N), ssl, name, iv, cipher, mac, encrypt) }
}

unsafe extern "C" fn new_session<const N: u16>(ssl: *mut SSL, session: *mut SSL_SESSION) -> c_int {
    // SAFETY: called by OpenSSL with the arguments that its manual promises (SSL_CTX_sess_set_new_cb(3)).
    unsafe { callbacks::new_session(Slot::of(N), ssl, session) }
}

unsafe extern "C" fn get_session<const N: u16>(
    ssl: *mut SSL,
    id: *const c_uchar,
    len: c_int,
    copy: *mut c_int,
) -> *mut SSL_SESSION {
    // SAFETY: called by OpenSSL with the arguments that its manual promises (SSL_CTX_sess_set_get_cb(3)).
    unsafe { callbacks::get_session(Slot::of(N), ssl, id, len, copy) }
}

unsafe extern "C" fn generate_id<const N: u16>(
    ssl: *mut SSL,
    id: *mut c_uchar,
    len: *mut c_uint,
) -> c_int {
    // SAFETY: called by OpenSSL with the arguments that its manual promises (SSL_CTX_set_generate_session_id(3)).
    unsafe { callbacks::generate_id(Slot::of(N), ssl, id, len) }
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
static SHARED_CALLBACKS: Callbacks = callbacks_of::<{ Slot::SHARED_NUMBER }>();
