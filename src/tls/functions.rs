//! The functions of libssl that the preload interposes, as a table: libssl's own, or the library's in their place.
//!
//! This file is part of two crates, so that both have the same table: the library, and `preload/`, which fills it from
//! whatever libssl a program has and gets back the library's. Each names the types for itself in its `sys` module.

use core::ffi::{c_char, c_int, c_long, c_uchar, c_uint, c_void};

use super::sys::{
    AllowEarlyDataCallback, AnyCallback, GenerateIdCallback, GetSessionCallback, InfoCallback,
    NewSessionCallback, RemoveSessionCallback, SSL, SSL_CTX, SSL_METHOD, TicketKeyCallback,
};

/// One libssl's functions. The names are OpenSSL's without the leading `SSL_`; the manual page of each says what its
/// arguments mean.
#[repr(C)]
#[derive(Clone, Copy)]
#[rustfmt::skip]
#[allow(missing_docs, reason = "OpenSSL's manual has a page for each")]
pub struct Functions {
    pub ctx_new: unsafe extern "C" fn(*const SSL_METHOD) -> *mut SSL_CTX,
    pub ctx_new_ex: Option<unsafe extern "C" fn(*mut c_void, *const c_char, *const SSL_METHOD) -> *mut SSL_CTX>,
    pub new: unsafe extern "C" fn(*mut SSL_CTX) -> *mut SSL,
    pub new_listener: Option<unsafe extern "C" fn(*mut SSL_CTX, u64) -> *mut SSL>,
    pub new_listener_from: Option<unsafe extern "C" fn(*mut SSL, u64) -> *mut SSL>,
    pub set_ssl_ctx: unsafe extern "C" fn(*mut SSL, *mut SSL_CTX) -> *mut SSL_CTX,
    pub set_connect_state: unsafe extern "C" fn(*mut SSL),
    pub connect: unsafe extern "C" fn(*mut SSL) -> c_int,
    pub ctx_ctrl: unsafe extern "C" fn(*mut SSL_CTX, c_int, c_long, *mut c_void) -> c_long,
    pub ctx_callback_ctrl: unsafe extern "C" fn(*mut SSL_CTX, c_int, Option<AnyCallback>) -> c_long,
    pub ctx_sess_set_new_cb: unsafe extern "C" fn(*mut SSL_CTX, Option<NewSessionCallback>),
    pub ctx_sess_get_new_cb: unsafe extern "C" fn(*mut SSL_CTX) -> Option<NewSessionCallback>,
    pub ctx_sess_set_get_cb: unsafe extern "C" fn(*mut SSL_CTX, Option<GetSessionCallback>),
    pub ctx_sess_get_get_cb: unsafe extern "C" fn(*mut SSL_CTX) -> Option<GetSessionCallback>,
    pub ctx_sess_set_remove_cb: unsafe extern "C" fn(*mut SSL_CTX, Option<RemoveSessionCallback>),
    pub ctx_sess_get_remove_cb: unsafe extern "C" fn(*mut SSL_CTX) -> Option<RemoveSessionCallback>,
    pub ctx_set_ticket_key_evp_cb: Option<unsafe extern "C" fn(*mut SSL_CTX, Option<TicketKeyCallback>) -> c_int>,
    pub ctx_set_num_tickets: unsafe extern "C" fn(*mut SSL_CTX, usize) -> c_int,
    pub ctx_get_num_tickets: unsafe extern "C" fn(*const SSL_CTX) -> usize,
    pub ctx_set_timeout: unsafe extern "C" fn(*mut SSL_CTX, c_long) -> c_long,
    pub ctx_get_timeout: unsafe extern "C" fn(*const SSL_CTX) -> c_long,
    pub ctx_set_options: unsafe extern "C" fn(*mut SSL_CTX, u64) -> u64,
    pub ctx_clear_options: unsafe extern "C" fn(*mut SSL_CTX, u64) -> u64,
    pub ctx_set_generate_session_id: unsafe extern "C" fn(*mut SSL_CTX, Option<GenerateIdCallback>) -> c_int,
    pub ctx_set_session_id_context: unsafe extern "C" fn(*mut SSL_CTX, *const c_uchar, c_uint) -> c_int,
    pub ctx_set_allow_early_data_cb: unsafe extern "C" fn(*mut SSL_CTX, Option<AllowEarlyDataCallback>, *mut c_void),
    pub set_allow_early_data_cb: unsafe extern "C" fn(*mut SSL, Option<AllowEarlyDataCallback>, *mut c_void),
    pub set_session_id_context: unsafe extern "C" fn(*mut SSL, *const c_uchar, c_uint) -> c_int,
    pub get_info_callback: unsafe extern "C" fn(*const SSL) -> Option<InfoCallback>,
    pub set_info_callback: unsafe extern "C" fn(*mut SSL, Option<InfoCallback>),
    pub set_options: unsafe extern "C" fn(*mut SSL, u64) -> u64,
    pub clear_options: unsafe extern "C" fn(*mut SSL, u64) -> u64,
}
