//! Small questions about a connection whose callback is running.
//!
//! Owns: nothing. Called by: the callbacks and what they call, on the thread that OpenSSL called. Threads and forks: as
//! for every callback. Failure: none. Each function requires that `ssl` is the connection whose callback is running,
//! or, where it only reads fields, the one that is being freed; callers in `tls` hold that by construction.

use std::ffi::c_int;
use std::sync::atomic::{AtomicI32, Ordering};

use openssl_sys::SSL;

use super::sys::{self, TLS1_3_VERSION};
use crate::engine::Listener;

/// What SSL_version(3) says of QUIC, whose handshake is that of TLS 1.3.
const QUIC1_VERSION: c_int = 0x0000_0001;

pub(super) fn is_tls13(ssl: *mut SSL) -> bool {
    // SAFETY: the connection is valid in its callback.
    let version = unsafe { openssl_sys::SSL_version(ssl) };
    version == TLS1_3_VERSION || version == QUIC1_VERSION
}

pub(super) fn is_resumed(ssl: *mut SSL) -> bool {
    // SAFETY: the connection is valid in its callback.
    unsafe { openssl_sys::SSL_session_reused(ssl) == 1 }
}

pub(super) fn is_quic(ssl: *mut SSL) -> bool {
    // SAFETY: the connection is valid in its callback.
    unsafe { openssl_sys::SSL_version(ssl) == QUIC1_VERSION }
}

/// Whether the connection is TLS over a stream, neither DTLS nor QUIC.
pub(super) fn is_tls(ssl: *mut SSL) -> bool {
    // SAFETY: the connection is valid in its callback.
    unsafe { openssl_sys::SSL_version(ssl) >> 8 == TLS1_3_VERSION >> 8 }
}

/// Whether the server has gone further in this handshake than to read the ClientHello.
pub(super) fn has_begun_to_answer(ssl: *mut SSL) -> bool {
    // SAFETY: the connection is valid in its callback.
    let state = unsafe { sys::SSL_get_state(ssl) };
    state != sys::TLS_ST_BEFORE && !reads_client_hello(ssl, state)
}

/// Whether that is the state in which a server reads the ClientHello. Its number differs between versions of OpenSSL that
/// have one ABI, its name does not: once the name was seen, the number is known.
fn reads_client_hello(ssl: *mut SSL, state: c_int) -> bool {
    const UNKNOWN: c_int = -1;
    static NUMBER: AtomicI32 = AtomicI32::new(UNKNOWN);
    let known = NUMBER.load(Ordering::Relaxed);
    if known != UNKNOWN {
        return state == known;
    }
    let is_it = state_name(ssl) == *b"TRCH";
    if is_it {
        NUMBER.store(state, Ordering::Relaxed);
    }
    is_it
}

/// Whether an error has ended the connection (SSL_state_string(3): "SSLERR").
pub(super) fn has_failed(ssl: *mut SSL) -> bool {
    state_name(ssl) == *b"SSLE"
}

fn state_name(ssl: *mut SSL) -> [u8; 4] {
    // SAFETY: the connection is valid in its callback; the text is a constant of OpenSSL's, four letters long at least.
    unsafe { openssl_sys::SSL_state_string(ssl).cast::<[u8; 4]>().read_unaligned() }
}

/// Whether the connection's handshake is over.
pub(super) fn is_finished(ssl: *mut SSL) -> bool {
    // SAFETY: the connection is valid in its callback.
    unsafe { sys::SSL_is_init_finished(ssl) == 1 }
}

/// The address that the client connected to. Zeros where OpenSSL does not read from a socket itself: for QUIC, and
/// where the application gave the connection a BIO of its own. One system call.
pub(super) fn listener(ssl: *mut SSL) -> Listener {
    if is_quic(ssl) {
        return Listener::default();
    }
    // SAFETY: the connection is valid in its callback.
    crate::sys::local_address(unsafe { sys::SSL_get_rfd(ssl) })
}

/// Whether a connection whose ex_data is being freed has its BIOs still.
pub(super) fn has_bios_when_freed() -> bool {
    const FREES_BIOS_FIRST: std::ffi::c_ulong = 0x3020_0000;
    // SAFETY: no precondition.
    unsafe { openssl_sys::OpenSSL_version_num() < FREES_BIOS_FIRST }
}

/// Bytes of a Finished message that are looked at: all of TLS 1.2.
pub(super) const FINISHED_LEN: usize = 12;

/// The server's last Finished message, the beginning of it; zeros before the first one and after SSL_clear(3).
pub(super) fn last_finished(ssl: *mut SSL) -> [u8; FINISHED_LEN] {
    let mut finished = [0; FINISHED_LEN];
    // SAFETY: the connection is valid in its callback, and the buffer as long as said.
    unsafe { openssl_sys::SSL_get_finished(ssl, finished.as_mut_ptr().cast(), FINISHED_LEN) };
    finished
}

/// The client's last Finished message, the beginning of it; zeros before the first one and after SSL_clear(3).
pub(super) fn clients_finished(ssl: *mut SSL) -> [u8; FINISHED_LEN] {
    let mut finished = [0; FINISHED_LEN];
    // SAFETY: the connection is valid in its callback, and the buffer as long as said.
    unsafe { openssl_sys::SSL_get_peer_finished(ssl, finished.as_mut_ptr().cast(), FINISHED_LEN) };
    finished
}

/// Whether a ClientHello of this handshake was answered already: the server's random is chosen once it is read, and gone
/// after SSL_clear(3).
pub(super) fn has_server_random(ssl: *mut SSL) -> bool {
    const LEN: usize = 32;
    let mut random = [0; LEN];
    // SAFETY: the connection is valid in its callback, and the buffer as long as said.
    unsafe { openssl_sys::SSL_get_server_random(ssl, random.as_mut_ptr(), LEN) };
    random != [0; LEN]
}

/// Whether a ClientHello that is being read is not the connection's first (TLS 1.2 and older), whoever asked for it.
pub(super) fn is_renegotiated(ssl: *mut SSL) -> bool {
    last_finished(ssl) != [0; FINISHED_LEN]
}

/// Whether the tickets of this connection carry the session themselves, so that there is nothing to keep: what its own
/// options say, which the application may have changed. Those of a QUIC connection cannot be asked for: its engine, which
/// makes the callback, holds the lock that SSL_get_options(3) takes. There the context's count.
pub(super) fn is_stateless(ssl: *mut SSL) -> bool {
    // SAFETY: the connection is valid in its callback, and keeps its context alive.
    let (options, early_data) = unsafe {
        let options = match is_quic(ssl) {
            true => sys::SSL_CTX_get_options(openssl_sys::SSL_get_SSL_CTX(ssl)),
            false => sys::SSL_get_options(ssl),
        };
        (options, openssl_sys::SSL_get_max_early_data(ssl))
    };
    let replay_protected = early_data > 0 && options & sys::SSL_OP_NO_ANTI_REPLAY == 0;
    is_tls13(ssl) && options & sys::SSL_OP_NO_TICKET == 0 && !replay_protected
}
