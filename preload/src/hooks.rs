//! OpenSSL's names. Each passes its arguments on to the same function of the libssl that the object belongs to; where a
//! process has no libssl at all, nobody can call them.
//!
//! `SSL_CTX_set_session_cache_mode` and its like are macros around `SSL_CTX_ctrl`. `SSL_CTX_get_options` and
//! `SSL_get_options` are left alone, see src/tls/interpose/settings.rs.

use core::ffi::{c_char, c_int, c_long, c_uchar, c_uint, c_void};
use core::ptr;

use crate::functions::Functions;
use crate::libssl::{Libssl, Makers};
use crate::route;
use crate::sys::{
    AllowEarlyDataCallback, AnyCallback, GenerateIdCallback, GetSessionCallback, InfoCallback,
    NewSessionCallback, RemoveSessionCallback, SSL, SSL_CTX, SSL_METHOD, TicketKeyCallback,
};

/// What to call for an object.
fn functions<T>(object: *const T) -> Option<&'static Functions> {
    route::of_object(object.cast()).map(Libssl::functions)
}

/// Has a context made by the libssl that its method is of.
fn new_context(
    method: *const SSL_METHOD,
    make: impl FnOnce(&Functions) -> *mut SSL_CTX,
) -> *mut SSL_CTX {
    let Some(libssl) = route::of_method(method).or_else(Libssl::of_the_program) else {
        return ptr::null_mut();
    };
    let ctx = make(libssl.functions());
    route::note(ctx.cast(), libssl);
    ctx
}

// In all that follows, libssl gets the program's own arguments, which the program vouches for as without us.

#[unsafe(no_mangle)]
unsafe extern "C" fn SSL_CTX_new(method: *const SSL_METHOD) -> *mut SSL_CTX {
    // SAFETY: see above.
    new_context(method, |functions| unsafe { (functions.ctx_new)(method) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn SSL_CTX_new_ex(
    libctx: *mut c_void,
    properties: *const c_char,
    method: *const SSL_METHOD,
) -> *mut SSL_CTX {
    new_context(method, |functions| match functions.ctx_new_ex {
        // SAFETY: see above.
        Some(new) => unsafe { new(libctx, properties, method) },
        None => ptr::null_mut(),
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn SSL_new(ctx: *mut SSL_CTX) -> *mut SSL {
    let Some(libssl) = route::of_object(ctx.cast()) else { return ptr::null_mut() };
    // SAFETY: see above.
    let ssl = unsafe { (libssl.functions().new)(ctx) };
    route::note(ssl.cast(), libssl);
    ssl
}

/// QUIC's servers, from OpenSSL 3.5 on: connections that they accept are made inside libssl.
#[unsafe(no_mangle)]
unsafe extern "C" fn SSL_new_listener(ctx: *mut SSL_CTX, flags: u64) -> *mut SSL {
    let Some(libssl) = route::of_object(ctx.cast()) else { return ptr::null_mut() };
    let new = libssl.functions().new_listener;
    // SAFETY: see above.
    let listener = new.map_or(ptr::null_mut(), |new| unsafe { new(ctx, flags) });
    route::note(listener.cast(), libssl);
    listener
}

#[unsafe(no_mangle)]
unsafe extern "C" fn SSL_new_listener_from(domain: *mut SSL, flags: u64) -> *mut SSL {
    let Some(libssl) = route::of_object(domain.cast()) else { return ptr::null_mut() };
    let new = libssl.functions().new_listener_from;
    // SAFETY: see above.
    let listener = new.map_or(ptr::null_mut(), |new| unsafe { new(domain, flags) });
    route::note(listener.cast(), libssl);
    listener
}

/// Has a BIO with a connection in it made by the libssl that the context is of.
fn new_bio(ctx: *mut SSL_CTX, make: impl FnOnce(&Makers) -> *mut c_void) -> *mut c_void {
    let Some(libssl) = route::of_object(ctx.cast()) else { return ptr::null_mut() };
    let bio = make(&libssl.makers);
    route::note(libssl.makers.connection(bio).cast(), libssl);
    bio
}

#[unsafe(no_mangle)]
unsafe extern "C" fn BIO_new_ssl(ctx: *mut SSL_CTX, client: c_int) -> *mut c_void {
    // SAFETY: see above.
    new_bio(ctx, |makers| unsafe { (makers.bio_new_ssl)(ctx, client) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn BIO_new_ssl_connect(ctx: *mut SSL_CTX) -> *mut c_void {
    // SAFETY: see above.
    new_bio(ctx, |makers| unsafe { (makers.bio_new_ssl_connect)(ctx) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn BIO_new_buffer_ssl_connect(ctx: *mut SSL_CTX) -> *mut c_void {
    // SAFETY: see above.
    new_bio(ctx, |makers| unsafe { (makers.bio_new_buffer_ssl_connect)(ctx) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn SSL_dup(ssl: *mut SSL) -> *mut SSL {
    let Some(libssl) = route::of_object(ssl.cast()) else { return ptr::null_mut() };
    // SAFETY: see above.
    let copy = unsafe { (libssl.makers.dup)(ssl) };
    route::note(copy.cast(), libssl);
    copy
}

#[unsafe(no_mangle)]
unsafe extern "C" fn SSL_CTX_set_tlsext_ticket_key_evp_cb(
    ctx: *mut SSL_CTX,
    callback: Option<TicketKeyCallback>,
) -> c_int {
    let set = functions(ctx).and_then(|functions| functions.ctx_set_ticket_key_evp_cb);
    // SAFETY: see above.
    set.map_or(0, |set| unsafe { set(ctx, callback) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn SSL_set_SSL_CTX(ssl: *mut SSL, ctx: *mut SSL_CTX) -> *mut SSL_CTX {
    // SAFETY: see above.
    functions(ssl).map_or(ptr::null_mut(), |functions| unsafe { (functions.set_ssl_ctx)(ssl, ctx) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn SSL_set_connect_state(ssl: *mut SSL) {
    if let Some(functions) = functions(ssl) {
        // SAFETY: see above.
        unsafe { (functions.set_connect_state)(ssl) };
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn SSL_connect(ssl: *mut SSL) -> c_int {
    // SAFETY: see above.
    functions(ssl).map_or(-1, |functions| unsafe { (functions.connect)(ssl) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn SSL_CTX_ctrl(
    ctx: *mut SSL_CTX,
    command: c_int,
    value: c_long,
    data: *mut c_void,
) -> c_long {
    // SAFETY: see above.
    functions(ctx).map_or(0, |functions| unsafe { (functions.ctx_ctrl)(ctx, command, value, data) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn SSL_CTX_callback_ctrl(
    ctx: *mut SSL_CTX,
    command: c_int,
    callback: Option<AnyCallback>,
) -> c_long {
    // SAFETY: see above.
    functions(ctx)
        .map_or(0, |functions| unsafe { (functions.ctx_callback_ctrl)(ctx, command, callback) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn SSL_CTX_sess_set_new_cb(
    ctx: *mut SSL_CTX,
    callback: Option<NewSessionCallback>,
) {
    if let Some(functions) = functions(ctx) {
        // SAFETY: see above.
        unsafe { (functions.ctx_sess_set_new_cb)(ctx, callback) };
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn SSL_CTX_sess_get_new_cb(ctx: *mut SSL_CTX) -> Option<NewSessionCallback> {
    // SAFETY: see above.
    functions(ctx).and_then(|functions| unsafe { (functions.ctx_sess_get_new_cb)(ctx) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn SSL_CTX_sess_set_get_cb(
    ctx: *mut SSL_CTX,
    callback: Option<GetSessionCallback>,
) {
    if let Some(functions) = functions(ctx) {
        // SAFETY: see above.
        unsafe { (functions.ctx_sess_set_get_cb)(ctx, callback) };
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn SSL_CTX_sess_get_get_cb(ctx: *mut SSL_CTX) -> Option<GetSessionCallback> {
    // SAFETY: see above.
    functions(ctx).and_then(|functions| unsafe { (functions.ctx_sess_get_get_cb)(ctx) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn SSL_CTX_sess_set_remove_cb(
    ctx: *mut SSL_CTX,
    callback: Option<RemoveSessionCallback>,
) {
    if let Some(functions) = functions(ctx) {
        // SAFETY: see above.
        unsafe { (functions.ctx_sess_set_remove_cb)(ctx, callback) };
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn SSL_CTX_sess_get_remove_cb(
    ctx: *mut SSL_CTX,
) -> Option<RemoveSessionCallback> {
    // SAFETY: see above.
    functions(ctx).and_then(|functions| unsafe { (functions.ctx_sess_get_remove_cb)(ctx) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn SSL_CTX_set_num_tickets(ctx: *mut SSL_CTX, count: usize) -> c_int {
    // SAFETY: see above.
    functions(ctx).map_or(0, |functions| unsafe { (functions.ctx_set_num_tickets)(ctx, count) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn SSL_CTX_get_num_tickets(ctx: *const SSL_CTX) -> usize {
    // SAFETY: see above.
    functions(ctx).map_or(0, |functions| unsafe { (functions.ctx_get_num_tickets)(ctx) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn SSL_CTX_set_timeout(ctx: *mut SSL_CTX, seconds: c_long) -> c_long {
    // SAFETY: see above.
    functions(ctx).map_or(0, |functions| unsafe { (functions.ctx_set_timeout)(ctx, seconds) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn SSL_CTX_get_timeout(ctx: *const SSL_CTX) -> c_long {
    // SAFETY: see above.
    functions(ctx).map_or(0, |functions| unsafe { (functions.ctx_get_timeout)(ctx) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn SSL_CTX_set_options(ctx: *mut SSL_CTX, options: u64) -> u64 {
    // SAFETY: see above.
    functions(ctx).map_or(0, |functions| unsafe { (functions.ctx_set_options)(ctx, options) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn SSL_CTX_clear_options(ctx: *mut SSL_CTX, options: u64) -> u64 {
    // SAFETY: see above.
    functions(ctx).map_or(0, |functions| unsafe { (functions.ctx_clear_options)(ctx, options) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn SSL_CTX_set_generate_session_id(
    ctx: *mut SSL_CTX,
    callback: Option<GenerateIdCallback>,
) -> c_int {
    // SAFETY: see above.
    functions(ctx)
        .map_or(0, |functions| unsafe { (functions.ctx_set_generate_session_id)(ctx, callback) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn SSL_CTX_set_session_id_context(
    ctx: *mut SSL_CTX,
    id: *const c_uchar,
    len: c_uint,
) -> c_int {
    // SAFETY: see above.
    functions(ctx)
        .map_or(0, |functions| unsafe { (functions.ctx_set_session_id_context)(ctx, id, len) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn SSL_CTX_set_allow_early_data_cb(
    ctx: *mut SSL_CTX,
    callback: Option<AllowEarlyDataCallback>,
    arg: *mut c_void,
) {
    if let Some(functions) = functions(ctx) {
        // SAFETY: see above.
        unsafe { (functions.ctx_set_allow_early_data_cb)(ctx, callback, arg) };
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn SSL_set_allow_early_data_cb(
    ssl: *mut SSL,
    callback: Option<AllowEarlyDataCallback>,
    arg: *mut c_void,
) {
    if let Some(functions) = functions(ssl) {
        // SAFETY: see above.
        unsafe { (functions.set_allow_early_data_cb)(ssl, callback, arg) };
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn SSL_set_options(ssl: *mut SSL, options: u64) -> u64 {
    // SAFETY: see above.
    functions(ssl).map_or(0, |functions| unsafe { (functions.set_options)(ssl, options) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn SSL_clear_options(ssl: *mut SSL, options: u64) -> u64 {
    // SAFETY: see above.
    functions(ssl).map_or(0, |functions| unsafe { (functions.clear_options)(ssl, options) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn SSL_set_session_id_context(
    ssl: *mut SSL,
    id: *const c_uchar,
    len: c_uint,
) -> c_int {
    // SAFETY: see above.
    functions(ssl)
        .map_or(0, |functions| unsafe { (functions.set_session_id_context)(ssl, id, len) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn SSL_get_info_callback(ssl: *const SSL) -> Option<InfoCallback> {
    // SAFETY: see above.
    functions(ssl).and_then(|functions| unsafe { (functions.get_info_callback)(ssl) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn SSL_set_info_callback(ssl: *mut SSL, callback: Option<InfoCallback>) {
    if let Some(functions) = functions(ssl) {
        // SAFETY: see above.
        unsafe { (functions.set_info_callback)(ssl, callback) };
    }
}
