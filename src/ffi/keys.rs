//! An administrator's requests: keys and stored sessions.

use std::ffi::{c_int, c_uchar};

use super::boundary::{bytes, status};
use super::instance::{TLSRESUME, engine};
use crate::clock;
use crate::error::Error;
use crate::ring::KeyName;
use crate::ring::file::Format;

/// Key file of nginx: 48 or 80 bytes, one key.
pub const TLSRESUME_KEYS_NGINX: c_int = 1;
/// Key file of HAProxy: base64 lines, at least three; the last but one encrypts.
pub const TLSRESUME_KEYS_HAPROXY: c_int = 2;
/// Key file of Apache httpd: 48 bytes.
pub const TLSRESUME_KEYS_APACHE: c_int = 3;
/// Key file of Apache Traffic Server: 48 bytes each; the first encrypts.
pub const TLSRESUME_KEYS_ATS: c_int = 4;
/// Key file of nghttpx: 48 or 80 bytes, one key.
pub const TLSRESUME_KEYS_NGHTTPX: c_int = 5;
/// Key file of H2O: YAML; the newest that is valid encrypts.
pub const TLSRESUME_KEYS_H2O: c_int = 6;
/// Keys as SSL_CTX_set_tlsext_ticket_keys(3) takes them: 80 bytes.
pub const TLSRESUME_KEYS_OPENSSL: c_int = 7;
/// Key file of dnsdist: 80 bytes each; the last encrypts.
pub const TLSRESUME_KEYS_DNSDIST: c_int = 8;

/// Adds another server's ticket keys to the ring. All of them open tickets from now on; the one that encrypts in that
/// server takes over here after keys.activation_delay, until the next scheduled key does. Tickets made with imported
/// keys are not bound to server name and policy, since that server does not bind them; they are refused once a connection
/// of this node was served under rules for its clients, unless resumption.bind = false.
///
/// @param tr      Instance.
/// @param data    Content of the key file, at most 64 KiB. Copied; wipe your own copy.
/// @param len     Bytes in data.
/// @param format  One of TLSRESUME_KEYS_*.
/// @return 1 on success; 0 on failure, with the ring as it was: an argument is out of range, the data is not what the
///         format says (the reason says what was expected), or the ring is full.
///
/// Thread safety: any thread. Waits at most 2 s for another process that changes the ring. Fork safety: every process of
/// the node sees the keys.
///
/// # Safety
/// tr is NULL or an instance that was not released; data is NULL or points to len bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tlsresume_keys_import(
    tr: *mut TLSRESUME,
    data: *const c_uchar,
    len: usize,
    format: c_int,
) -> c_int {
    status(|| {
        // SAFETY: as the caller promises.
        let (engine, data) = unsafe { (engine(tr)?, bytes(data, len, "data is NULL")?) };
        let format = Format::from_code(format)
            .ok_or(Error::Argument("format is none of TLSRESUME_KEYS_*"))?;
        engine.import_keys(data, format)
    })
}

/// Makes a new ticket key that takes over after keys.activation_delay; the old ones go on opening their tickets.
///
/// @param tr  Instance with keys.source = "random".
/// @return 1 on success; 0 on failure: tr is NULL, keys come from files or a secret, or 256 keys are in use already.
///
/// Thread and fork safety: as tlsresume_keys_import().
///
/// # Safety
/// tr is NULL or an instance that was not released.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tlsresume_keys_rotate(tr: *mut TLSRESUME) -> c_int {
    // SAFETY: as the caller promises.
    status(|| unsafe { engine(tr) }?.rotate_keys())
}

/// Refuses a key, or all keys made so far, from now on; new ones take their place at once. Tickets made with it lead to
/// full handshakes.
///
/// @param tr    Instance.
/// @param name  16 bytes: the key's name, which is how its tickets begin. NULL: every key.
/// @return 1 on success; 0 on failure: tr is NULL, no key of that name is known, 256 single keys are revoked already, or
///         (every key) this host's clock differs from Redis's by more than 30 minutes: then the keys that this node knows
///         are refused, and others that turn up later are not; set the clock and call it again.
///
/// Thread and fork safety: as tlsresume_keys_import(), but with Redis and NULL it waits longer: first for Redis to say what
/// time it is, at most 1.5 s, then 2 s for another process that changes the ring. That is 3.5 s together, and as long as
/// the system takes to look up names of hosts.
///
/// # Safety
/// tr is NULL or an instance that was not released; name is NULL or points to 16 bytes.
///
/// cbindgen:ptrs-as-arrays=[[name; 16]]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tlsresume_keys_revoke(tr: *mut TLSRESUME, name: *const c_uchar) -> c_int {
    status(|| {
        // SAFETY: as the caller promises.
        let (engine, name) = unsafe { (engine(tr)?, name.cast::<[u8; KeyName::LEN]>().as_ref()) };
        engine.revoke_keys(name.map(|name| KeyName(*name)))
    })
}

/// Forgets every session in the store, and those authenticated before now wherever they turn up. Tickets that carry
/// their session themselves are not affected: tlsresume_keys_revoke(tr, NULL) ends those.
///
/// @param tr  Instance.
/// @return 1 on success; 0 on failure: tr is NULL, another process kept the ring for 2 s, or this host's clock differs
///         from Redis's by more than 30 minutes: then only the sessions that this node stores are forgotten; set the clock
///         and call it again.
///
/// Thread and fork safety: as tlsresume_keys_revoke(tr, NULL), 3.5 s included.
///
/// # Safety
/// tr is NULL or an instance that was not released.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tlsresume_sessions_flush(tr: *mut TLSRESUME) -> c_int {
    // SAFETY: as the caller promises.
    status(|| unsafe { engine(tr) }?.flush_sessions())
}

/// Forgets one session, e.g. when its user logs out, and all other sessions and tickets of the same full handshake, on
/// every node that shares them. A TLS 1.3 ticket that holds its session has an id too; a TLS 1.2 ticket has none.
///
/// @param tr      Instance.
/// @param id      Session id (SSL_SESSION_get_id(3)).
/// @param id_len  Bytes in id.
/// @return 1, whether or not the session was known; 0 when an argument is NULL, or when other processes kept the store for
///         too long: then other nodes are not told; call it again.
///
/// Thread safety: any thread; waits at most 30 ms for others that write to the store. Fork safety: every process of the
/// node sees it.
///
/// # Safety
/// tr is NULL or an instance that was not released; id is NULL or points to id_len bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tlsresume_session_remove(
    tr: *mut TLSRESUME,
    id: *const c_uchar,
    id_len: usize,
) -> c_int {
    status(|| {
        if id.is_null() {
            return Err(Error::Argument("id is NULL"));
        }
        // SAFETY: as the caller promises.
        let (engine, id) = unsafe { (engine(tr)?, bytes(id, id_len, "id is NULL")?) };
        engine.forget_session(id, clock::now()).map(|_| ())
    })
}
