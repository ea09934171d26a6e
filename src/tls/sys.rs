//! Declarations that `openssl-sys` does not have. c-tests/sys_decls.c holds them against the real headers.

use std::ffi::{c_char, c_int, c_long, c_uchar, c_uint, c_void};

use openssl_sys::{
    BIO, CRYPTO_EX_DATA, EVP_CIPHER_CTX, SSL_CIPHER, SSL_SESSION, X509, X509_OBJECT, X509_STORE,
    X509_STORE_CTX, X509_VERIFY_PARAM, stack_st_X509_OBJECT,
};
pub(super) use openssl_sys::{SSL, SSL_CTX, SSL_METHOD, stack_st_X509_NAME};

/// A callback of whatever kind, which is passed on and never called.
pub(super) type AnyCallback = unsafe extern "C" fn();

/// The MAC that authenticates a ticket, as the ticket-key callback gets it.
#[cfg(ossl300)]
pub(super) type MacCtx = openssl_sys::EVP_MAC_CTX;
/// The MAC that authenticates a ticket, as the ticket-key callback gets it.
#[cfg(not(ossl300))]
pub(super) type MacCtx = openssl_sys::HMAC_CTX;

pub(super) type TicketKeyCallback = unsafe extern "C" fn(
    *mut SSL,
    *mut c_uchar,
    *mut c_uchar,
    *mut EVP_CIPHER_CTX,
    *mut MacCtx,
    c_int,
) -> c_int;
pub(super) type NewSessionCallback = unsafe extern "C" fn(*mut SSL, *mut SSL_SESSION) -> c_int;
pub(super) type GetSessionCallback =
    unsafe extern "C" fn(*mut SSL, *const c_uchar, c_int, *mut c_int) -> *mut SSL_SESSION;
pub(super) type RemoveSessionCallback = unsafe extern "C" fn(*mut SSL_CTX, *mut SSL_SESSION);
pub(super) type GenerateIdCallback =
    unsafe extern "C" fn(*mut SSL, *mut c_uchar, *mut c_uint) -> c_int;
pub(super) type BioCallback = unsafe extern "C" fn(
    *mut BIO,
    c_int,
    *const c_char,
    usize,
    c_int,
    c_long,
    c_int,
    *mut usize,
) -> c_long;
pub(super) type OldBioCallback =
    unsafe extern "C" fn(*mut BIO, c_int, *const c_char, c_int, c_long, c_long) -> c_long;
pub(super) type AllowEarlyDataCallback = unsafe extern "C" fn(*mut SSL, *mut c_void) -> c_int;

pub(super) const SSL_OP_NO_TICKET: u64 = 1 << 14;
pub(super) const SSL_OP_NO_ANTI_REPLAY: u64 = 1 << 24;
pub(super) const SSL_CTRL_SET_SESS_CACHE_MODE: c_int = 44;
pub(super) const SSL_CTRL_GET_SESS_CACHE_MODE: c_int = 45;
pub(super) const SSL_CTRL_GET_VERIFY_CERT_STORE: c_int = 137;
pub(super) const SSL_SESS_CACHE_CLIENT: c_long = 1;
pub(super) const SSL_SESS_CACHE_SERVER: c_long = 2;
pub(super) const SSL_SESS_CACHE_NO_AUTO_CLEAR: c_long = 0x80;
pub(super) const SSL_SESS_CACHE_NO_INTERNAL_LOOKUP: c_long = 0x100;
pub(super) const SSL_SESS_CACHE_NO_INTERNAL: c_long = 0x300;
pub(super) const SSL_CTRL_SET_TLSEXT_TICKET_KEY_CB: c_int = 72;

pub(super) const ERR_LIB_SSL: c_int = 20;
pub(super) const SSL_CB_ACCEPT_LOOP: c_int = 0x2001;
pub(super) const SSL_CB_HANDSHAKE_START: c_int = 0x10;
pub(super) const SSL_CB_HANDSHAKE_DONE: c_int = 0x20;
/// A member of OSSL_HANDSHAKE_STATE.
pub(super) const TLS_ST_BEFORE: c_int = 0;
pub(super) const BIO_CTRL_FLUSH: c_int = 11;
pub(super) const BIO_CB_READ: c_int = 2;
pub(super) const BIO_CB_WRITE: c_int = 3;
pub(super) const BIO_CB_GETS: c_int = 5;
pub(super) const BIO_CB_CTRL: c_int = 6;
pub(super) const BIO_CB_RETURN: c_int = 0x80;
pub(super) const SSL_VERIFY_PEER: c_int = 1;
pub(super) const SSL_VERIFY_FAIL_IF_NO_PEER_CERT: c_int = 2;
pub(super) const SSL_VERIFY_POST_HANDSHAKE: c_int = 8;
pub(super) const SSL_SENT_SHUTDOWN: c_int = 1;
pub(super) const SSL_RECEIVED_SHUTDOWN: c_int = 2;
pub(super) const SSL_CTRL_CERT_FLAGS: c_int = 99;
pub(super) const SSL_R_UNEXPECTED_EOF_WHILE_READING: c_int = 294;
pub(super) const X509_V_OK: c_long = 0;
pub(super) const TLS1_3_VERSION: c_int = 0x0304;
pub(super) const SSL_CTRL_SET_TLS_EXT_SRP_USERNAME_CB: c_int = 75;
pub(super) const SSL_CTRL_GET_MAX_PROTO_VERSION: c_int = 131;
pub(super) const NID_KX_PSK: c_int = 1043;
pub(super) const NID_KX_ECDHE_PSK: c_int = 1040;
pub(super) const NID_KX_DHE_PSK: c_int = 1041;
pub(super) const NID_KX_RSA_PSK: c_int = 1042;
pub(super) const NID_KX_SRP: c_int = 1044;
pub(super) const NID_KX_ANY: c_int = 1063;
pub(super) const NID_AUTH_NULL: c_int = 1053;
pub(super) const SSL_CTRL_MODE: c_int = 33;
pub(super) const SSL_MODE_ASYNC: c_long = 0x100;

pub(super) type InfoCallback = unsafe extern "C" fn(*const SSL, c_int, c_int);
pub(super) type CertVerifyCallback =
    unsafe extern "C" fn(*mut X509_STORE_CTX, *mut c_void) -> c_int;
pub(super) type PskServerCallback =
    unsafe extern "C" fn(*mut SSL, *const c_char, *mut c_uchar, c_uint) -> c_uint;
pub(super) type PskFindSessionCallback =
    unsafe extern "C" fn(*mut SSL, *const c_uchar, usize, *mut *mut SSL_SESSION) -> c_int;
pub(super) type SrpUserCallback = unsafe extern "C" fn(*mut SSL, *mut c_int, *mut c_void) -> c_int;

/// Opaque.
#[repr(C)]
pub(super) struct AsyncJob {
    _private: [u8; 0],
}

/// Opaque.
#[repr(C)]
pub(super) struct AsyncWaitCtx {
    _private: [u8; 0],
}

pub(super) type AsyncCleanup =
    unsafe extern "C" fn(*mut AsyncWaitCtx, *const c_void, c_int, *mut c_void);
#[cfg(ossl300)]
pub(super) type AsyncCallback = unsafe extern "C" fn(*mut c_void) -> c_int;

/// How OpenSSL 3 has it; 1.1.1 calls `value` a plain pointer, and passes the same address.
pub(super) type ExDataDup = unsafe extern "C" fn(
    *mut CRYPTO_EX_DATA,
    *const CRYPTO_EX_DATA,
    *mut *mut c_void,
    c_int,
    c_long,
    *mut c_void,
) -> c_int;
pub(super) type ExDataFree =
    unsafe extern "C" fn(*mut c_void, *mut c_void, *mut CRYPTO_EX_DATA, c_int, c_long, *mut c_void);

pub(super) const CRYPTO_EX_INDEX_SSL: c_int = 0;
pub(super) const CRYPTO_EX_INDEX_SSL_CTX: c_int = 1;
pub(super) const CRYPTO_EX_INDEX_SSL_SESSION: c_int = 2;
pub(super) const CRYPTO_EX_INDEX_BIO: c_int = 12;

unsafe extern "C" {
    pub(super) fn CRYPTO_get_ex_new_index(
        class: c_int,
        argl: c_long,
        argp: *mut c_void,
        new: *const c_void,
        dup: Option<ExDataDup>,
        free: Option<ExDataFree>,
    ) -> c_int;

    pub(super) fn ASYNC_get_current_job() -> *mut AsyncJob;
    pub(super) fn ASYNC_get_wait_ctx(job: *mut AsyncJob) -> *mut AsyncWaitCtx;
    pub(super) fn ASYNC_pause_job() -> c_int;
    pub(super) fn ASYNC_WAIT_CTX_set_wait_fd(
        ctx: *mut AsyncWaitCtx,
        key: *const c_void,
        descriptor: c_int,
        data: *mut c_void,
        cleanup: Option<AsyncCleanup>,
    ) -> c_int;
    pub(super) fn ASYNC_WAIT_CTX_get_fd(
        ctx: *mut AsyncWaitCtx,
        key: *const c_void,
        descriptor: *mut c_int,
        data: *mut *mut c_void,
    ) -> c_int;
    #[cfg(ossl300)]
    pub(super) fn ASYNC_WAIT_CTX_get_callback(
        ctx: *mut AsyncWaitCtx,
        callback: *mut Option<AsyncCallback>,
        data: *mut *mut c_void,
    ) -> c_int;

    pub(super) fn ERR_set_mark() -> c_int;
    pub(super) fn ERR_pop_to_mark() -> c_int;

    pub(super) fn SSL_get_rfd(ssl: *const SSL) -> c_int;
    pub(super) fn SSL_get_state(ssl: *const SSL) -> c_int;
    pub(super) fn SSL_up_ref(ssl: *mut SSL) -> c_int;
    pub(super) fn SSL_in_init(ssl: *const SSL) -> c_int;
    pub(super) fn SSL_is_init_finished(ssl: *const SSL) -> c_int;
    pub(super) fn BIO_get_callback_ex(bio: *const BIO) -> Option<BioCallback>;
    pub(super) fn BIO_get_callback(bio: *const BIO) -> Option<OldBioCallback>;
    pub(super) fn BIO_set_callback_ex(bio: *mut BIO, callback: Option<BioCallback>);
    pub(super) fn BIO_get_ex_data(bio: *const BIO, index: c_int) -> *mut c_void;
    pub(super) fn BIO_set_ex_data(bio: *mut BIO, index: c_int, data: *mut c_void) -> c_int;
    pub(super) fn i2d_X509_AUX(certificate: *const X509, out: *mut *mut c_uchar) -> c_int;
    pub(super) fn SSL_get_info_callback(ssl: *const SSL) -> Option<InfoCallback>;
    pub(super) fn SSL_set_info_callback(ssl: *mut SSL, callback: Option<InfoCallback>);
    pub(super) fn SSL_CTX_get_info_callback(ctx: *mut SSL_CTX) -> Option<InfoCallback>;
    pub(super) fn SSL_get_ciphers(ssl: *const SSL) -> *mut c_void;
    pub(super) fn SSL_CTX_get_ciphers(ctx: *const SSL_CTX) -> *mut c_void;
    pub(super) fn SSL_CIPHER_get_kx_nid(cipher: *const SSL_CIPHER) -> c_int;
    pub(super) fn SSL_CIPHER_get_auth_nid(cipher: *const SSL_CIPHER) -> c_int;
    pub(super) fn SSL_get_verify_callback(ssl: *const SSL) -> *const c_void;
    pub(super) fn SSL_CTX_get_verify_callback(ctx: *const SSL_CTX) -> *const c_void;
    pub(super) fn SSL_get_client_CA_list(ssl: *const SSL) -> *mut stack_st_X509_NAME;
    pub(super) fn SSL_CTX_set_cert_verify_callback(
        ctx: *mut SSL_CTX,
        callback: Option<CertVerifyCallback>,
        arg: *mut c_void,
    );
    pub(super) fn SSL_CTX_set_psk_server_callback(
        ctx: *mut SSL_CTX,
        callback: Option<PskServerCallback>,
    );
    pub(super) fn SSL_CTX_set_psk_find_session_callback(
        ctx: *mut SSL_CTX,
        callback: Option<PskFindSessionCallback>,
    );
    pub(super) fn X509_VERIFY_PARAM_get_hostflags(param: *const X509_VERIFY_PARAM) -> c_uint;
    pub(super) fn X509_VERIFY_PARAM_get_depth(param: *const X509_VERIFY_PARAM) -> c_int;
    pub(super) fn X509_VERIFY_PARAM_get_auth_level(param: *const X509_VERIFY_PARAM) -> c_int;
    pub(super) fn X509_VERIFY_PARAM_get_time(param: *const X509_VERIFY_PARAM) -> libc::time_t;
    pub(super) fn X509_VERIFY_PARAM_get_inh_flags(param: *const X509_VERIFY_PARAM) -> u32;
    #[cfg(ossl300)]
    pub(super) fn X509_VERIFY_PARAM_get0_host(
        param: *mut X509_VERIFY_PARAM,
        at: c_int,
    ) -> *mut c_char;
    #[cfg(ossl300)]
    pub(super) fn X509_VERIFY_PARAM_get0_email(param: *mut X509_VERIFY_PARAM) -> *mut c_char;
    #[cfg(ossl300)]
    pub(super) fn X509_VERIFY_PARAM_get1_ip_asc(param: *mut X509_VERIFY_PARAM) -> *mut c_char;
    #[cfg(ossl300)]
    pub(super) fn CRYPTO_free(memory: *mut c_void, file: *const c_char, line: c_int);

    pub(super) fn SSL_get_options(ssl: *const SSL) -> u64;
    pub(super) fn SSL_CTX_get_options(ctx: *const SSL_CTX) -> u64;
    pub(super) fn SSL_SESSION_get0_id_context(
        session: *const SSL_SESSION,
        len: *mut c_uint,
    ) -> *const c_uchar;
    pub(super) fn SSL_SESSION_set_timeout(session: *mut SSL_SESSION, seconds: c_long) -> c_long;

    pub(super) fn SSL_SESSION_new() -> *mut SSL_SESSION;
    pub(super) fn SSL_SESSION_dup(session: *const SSL_SESSION) -> *mut SSL_SESSION;
    pub(super) fn SSL_SESSION_set1_id(
        session: *mut SSL_SESSION,
        id: *const c_uchar,
        len: c_uint,
    ) -> c_int;
    pub(super) fn SSL_SESSION_set1_master_key(
        session: *mut SSL_SESSION,
        key: *const c_uchar,
        len: usize,
    ) -> c_int;
    pub(super) fn SSL_SESSION_set_time(session: *mut SSL_SESSION, seconds: c_long) -> c_long;
    pub(super) fn SSL_SESSION_get0_peer(session: *mut SSL_SESSION) -> *mut X509;
    pub(super) fn SSL_SESSION_get_ex_data(session: *const SSL_SESSION, index: c_int)
    -> *mut c_void;
    pub(super) fn SSL_SESSION_set_ex_data(
        session: *mut SSL_SESSION,
        index: c_int,
        data: *mut c_void,
    ) -> c_int;

    pub(super) fn SSL_CTX_get_client_CA_list(ctx: *const SSL_CTX) -> *mut stack_st_X509_NAME;
    #[cfg(ossl300)]
    pub(super) fn OSSL_PARAM_construct_utf8_string(
        key: *const c_char,
        text: *mut c_char,
        size: usize,
    ) -> openssl_sys::OSSL_PARAM;

    pub(super) fn SSL_get_security_callback(ssl: *const SSL) -> *const c_void;
    pub(super) fn SSL_CTX_get_security_callback(ctx: *const SSL_CTX) -> *const c_void;
    pub(super) fn SSL_get0_security_ex_data(ssl: *const SSL) -> *mut c_void;
    pub(super) fn SSL_CTX_get0_security_ex_data(ctx: *const SSL_CTX) -> *mut c_void;

    pub(super) fn X509_STORE_up_ref(store: *mut X509_STORE) -> c_int;
    pub(super) fn X509_STORE_get0_param(store: *const X509_STORE) -> *mut X509_VERIFY_PARAM;
    pub(super) fn X509_STORE_get_verify(store: *const X509_STORE) -> *const c_void;
    pub(super) fn X509_STORE_get_verify_cb(store: *const X509_STORE) -> *const c_void;
    pub(super) fn X509_STORE_get_get_issuer(store: *const X509_STORE) -> *const c_void;
    pub(super) fn X509_STORE_get_check_issued(store: *const X509_STORE) -> *const c_void;
    pub(super) fn X509_STORE_get_check_revocation(store: *const X509_STORE) -> *const c_void;
    pub(super) fn X509_STORE_get_get_crl(store: *const X509_STORE) -> *const c_void;
    pub(super) fn X509_STORE_get_check_crl(store: *const X509_STORE) -> *const c_void;
    pub(super) fn X509_STORE_get_cert_crl(store: *const X509_STORE) -> *const c_void;
    pub(super) fn X509_STORE_get_check_policy(store: *const X509_STORE) -> *const c_void;
    pub(super) fn X509_STORE_get_lookup_certs(store: *const X509_STORE) -> *const c_void;
    pub(super) fn X509_STORE_get_lookup_crls(store: *const X509_STORE) -> *const c_void;
    pub(super) fn X509_STORE_get_cleanup(store: *const X509_STORE) -> *const c_void;
    pub(super) fn X509_STORE_lock(store: *mut X509_STORE) -> c_int;
    pub(super) fn X509_STORE_unlock(store: *mut X509_STORE) -> c_int;
    pub(super) fn X509_OBJECT_get0_X509_CRL(
        object: *const X509_OBJECT,
    ) -> *mut openssl_sys::X509_CRL;
    pub(super) fn X509_STORE_get0_objects(store: *const X509_STORE) -> *mut stack_st_X509_OBJECT;
}

// The functions that the preload interposes: called through `real::libssl`, by nobody directly.
#[rustfmt::skip]
unsafe extern "C" {
    #[cfg(ossl300)]
    pub(super) fn SSL_CTX_new_ex(
        library_context: *mut c_void,
        properties: *const c_char,
        method: *const SSL_METHOD,
    ) -> *mut SSL_CTX;
    pub(super) fn SSL_CTX_new(method: *const SSL_METHOD) -> *mut SSL_CTX;
    pub(super) fn SSL_new(ctx: *mut SSL_CTX) -> *mut SSL;
    pub(super) fn SSL_set_SSL_CTX(ssl: *mut SSL, ctx: *mut SSL_CTX) -> *mut SSL_CTX;
    pub(super) fn SSL_set_connect_state(ssl: *mut SSL);
    pub(super) fn SSL_connect(ssl: *mut SSL) -> c_int;
    pub(super) fn SSL_CTX_ctrl(ctx: *mut SSL_CTX, command: c_int, value: c_long, data: *mut c_void) -> c_long;
    pub(super) fn SSL_CTX_callback_ctrl(ctx: *mut SSL_CTX, command: c_int, callback: Option<AnyCallback>) -> c_long;
    pub(super) fn SSL_CTX_sess_set_new_cb(ctx: *mut SSL_CTX, callback: Option<NewSessionCallback>);
    pub(super) fn SSL_CTX_sess_get_new_cb(ctx: *mut SSL_CTX) -> Option<NewSessionCallback>;
    pub(super) fn SSL_CTX_sess_set_get_cb(ctx: *mut SSL_CTX, callback: Option<GetSessionCallback>);
    pub(super) fn SSL_CTX_sess_get_get_cb(ctx: *mut SSL_CTX) -> Option<GetSessionCallback>;
    pub(super) fn SSL_CTX_sess_set_remove_cb(ctx: *mut SSL_CTX, callback: Option<RemoveSessionCallback>);
    pub(super) fn SSL_CTX_sess_get_remove_cb(ctx: *mut SSL_CTX) -> Option<RemoveSessionCallback>;
    #[cfg(ossl300)]
    pub(super) fn SSL_CTX_set_tlsext_ticket_key_evp_cb(ctx: *mut SSL_CTX, callback: Option<TicketKeyCallback>) -> c_int;
    pub(super) fn SSL_CTX_set_num_tickets(ctx: *mut SSL_CTX, count: usize) -> c_int;
    pub(super) fn SSL_CTX_get_num_tickets(ctx: *const SSL_CTX) -> usize;
    pub(super) fn SSL_CTX_set_timeout(ctx: *mut SSL_CTX, seconds: c_long) -> c_long;
    pub(super) fn SSL_CTX_get_timeout(ctx: *const SSL_CTX) -> c_long;
    pub(super) fn SSL_CTX_set_options(ctx: *mut SSL_CTX, options: u64) -> u64;
    pub(super) fn SSL_CTX_clear_options(ctx: *mut SSL_CTX, options: u64) -> u64;
    pub(super) fn SSL_CTX_set_generate_session_id(ctx: *mut SSL_CTX, callback: Option<GenerateIdCallback>) -> c_int;
    pub(super) fn SSL_CTX_set_session_id_context(ctx: *mut SSL_CTX, id: *const c_uchar, len: c_uint) -> c_int;
    pub(super) fn SSL_set_session_id_context(ssl: *mut SSL, id: *const c_uchar, len: c_uint) -> c_int;
    pub(super) fn SSL_CTX_set_allow_early_data_cb(ctx: *mut SSL_CTX, callback: Option<AllowEarlyDataCallback>, arg: *mut c_void);
    pub(super) fn SSL_set_allow_early_data_cb(ssl: *mut SSL, callback: Option<AllowEarlyDataCallback>, arg: *mut c_void);
    pub(super) fn SSL_set_options(ssl: *mut SSL, options: u64) -> u64;
    pub(super) fn SSL_clear_options(ssl: *mut SSL, options: u64) -> u64;
}
