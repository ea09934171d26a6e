//! The application's servername callback, where it decides who verifies the client.
//!
//! Sessions are looked up before it runs. Where it makes a context verify clients that nobody knew of, or sets the mode
//! of the connection, a session that was resumed under other rules must not go on: its client may have shown no
//! certificate. That is seen right after the callback, and such a handshake ends with an alert, the one case in which the
//! library costs a connection. From then on the process knows, and such sessions cost a full handshake.

use std::ffi::{c_int, c_long, c_void};
use std::mem::transmute;
use std::ptr;

use openssl_sys::{SSL, SSL_CTX};

use super::note;
use crate::log::Once;
use crate::tls::ex_data::Place;
use crate::tls::functions::AnyCallback;
use crate::tls::guard::guarded;
use crate::tls::notes::Notes;
use crate::tls::policy;
use crate::tls::real::libssl;
use crate::tls::sys::{
    self, SSL_AD_HANDSHAKE_FAILURE, SSL_CTRL_SET_TLSEXT_SERVERNAME_CB, SSL_TLSEXT_ERR_ALERT_FATAL,
    SSL_TLSEXT_ERR_NOACK, ServerNameCallback,
};

/// On connections: the context that accepted them.
static ACCEPTED_BY: Place = Place::new(sys::CRYPTO_EX_INDEX_SSL);

/// A connection was made for a context, which it keeps alive.
///
/// # Safety
/// `ssl` is NULL or a new connection of `ctx`.
pub(super) unsafe fn note_accepting(ssl: *mut SSL, ctx: *mut SSL_CTX) {
    if let Some(index) = ACCEPTED_BY.index().filter(|_| !ssl.is_null()) {
        // SAFETY: as the caller promises.
        unsafe { openssl_sys::SSL_set_ex_data(ssl, index, ctx.cast()) };
    }
}

/// Takes note of the callback and has ours called in its place.
///
/// # Safety
/// The arguments are those of SSL_CTX_callback_ctrl(3).
pub(super) unsafe fn set_callback(ctx: *mut SSL_CTX, callback: Option<AnyCallback>) -> c_long {
    let mut noted = false;
    note(ctx, |notes| {
        // SAFETY: the command says that the callback has this type.
        notes
            .server_name
            .set(unsafe { transmute::<Option<AnyCallback>, Option<ServerNameCallback>>(callback) });
        noted = true;
    });
    let ours: ServerNameCallback = call;
    // SAFETY: as above.
    let ours = unsafe { transmute::<ServerNameCallback, AnyCallback>(ours) };
    let callback = if noted { callback.map(|_| ours) } else { callback };
    // SAFETY: as the caller promises.
    unsafe { (libssl().ctx_callback_ctrl)(ctx, SSL_CTRL_SET_TLSEXT_SERVERNAME_CB, callback) }
}

unsafe extern "C" fn call(ssl: *mut SSL, alert: *mut c_int, arg: *mut c_void) -> c_int {
    static SAID: Once = Once::new();
    // SAFETY: OpenSSL gives the arguments that SSL_CTX_set_tlsext_servername_callback(3) promises, which the
    // application's callback gets as they are.
    unsafe {
        let answer = match application_callback(ssl) {
            Some(callback) => callback(ssl, alert, arg),
            None => SSL_TLSEXT_ERR_NOACK,
        };
        if guarded(|| policy::resumed_under_another(ssl)) != Some(true) {
            return answer;
        }
        if SAID.first() {
            log::warn!(
                "a servername callback made a connection verify its client after a session was resumed that was made \
                 under other rules; the handshake was ended (said once)"
            );
        }
        *alert = SSL_AD_HANDSHAKE_FAILURE;
        SSL_TLSEXT_ERR_ALERT_FATAL
    }
}

/// OpenSSL calls that of the connection's current context, or else that of the accepting one.
///
/// # Safety
/// `ssl` is a valid connection.
unsafe fn application_callback(ssl: *mut SSL) -> Option<ServerNameCallback> {
    // SAFETY: as the caller promises; the connection keeps both contexts alive.
    unsafe {
        let of = |ctx: *mut SSL_CTX| {
            let notes = if ctx.is_null() { None } else { Notes::find(ctx) };
            notes.and_then(|notes| notes.server_name.get())
        };
        let accepting = ACCEPTED_BY
            .index()
            .map_or(ptr::null_mut(), |index| openssl_sys::SSL_get_ex_data(ssl, index));
        of(openssl_sys::SSL_get_SSL_CTX(ssl)).or_else(|| of(accepting.cast()))
    }
}
