//! Ticket keys into OpenSSL's cipher and MAC contexts.

#[cfg(ossl300)]
use std::ffi::CStr;
use std::ptr;
#[cfg(ossl300)]
use std::ptr::NonNull;

#[cfg(ossl300)]
use once_cell::sync::OnceCell;
use openssl_sys::{EVP_CIPHER, EVP_CIPHER_CTX, SSL_CTX};

#[cfg(ossl300)]
use super::hidden;
use super::sys::MacCtx;
#[cfg(ossl300)]
use crate::log::Once;
use crate::ring::{Digest, TicketKey};

/// Bytes of a ticket's initialisation vector: the block of AES.
pub(super) const IV_LEN: usize = 16;

/// Which way a ticket goes.
#[derive(Clone, Copy)]
pub(super) enum Direction {
    Encrypt,
    Decrypt,
}

/// Readies both contexts for a ticket, with the ciphers of the context that accepted the connection.
///
/// # Safety
/// `cipher` and `mac` are the contexts that OpenSSL gave to the running callback; `ctx` is valid, or NULL where it is not
/// known.
pub(super) unsafe fn set_keys(
    ciphers: &Ciphers,
    ctx: *mut SSL_CTX,
    key: &TicketKey,
    iv: &[u8; IV_LEN],
    (cipher, mac): (*mut EVP_CIPHER_CTX, *mut MacCtx),
    direction: Direction,
) -> bool {
    // SAFETY: as the caller promises.
    let Some(algorithm) = (unsafe { ciphers.get(ctx, key.aes().len()) }) else {
        return false;
    };
    let (aes, iv) = (key.aes().expose().as_ptr(), iv.as_ptr());
    let engine = ptr::null_mut();
    // SAFETY: the contexts are valid (caller); key and vector are as long as AES-CBC of this key size reads, which
    // TicketKey and the array type assure.
    unsafe {
        let ready = match direction {
            Direction::Encrypt => {
                openssl_sys::EVP_EncryptInit_ex(cipher, algorithm, engine, aes, iv)
            }
            Direction::Decrypt => {
                openssl_sys::EVP_DecryptInit_ex(cipher, algorithm, engine, aes, iv)
            }
        };
        ready == 1 && set_mac_key(key, mac)
    }
}

/// # Safety
/// `mac` is the context that OpenSSL gave to the running callback.
#[cfg(ossl300)]
unsafe fn set_mac_key(key: &TicketKey, mac: *mut MacCtx) -> bool {
    let digest = match key.digest() {
        Digest::Sha256 => c"SHA256",
        Digest::Sha1 => c"SHA1",
    };
    let secret = key.mac().expose();
    // SAFETY: the parameters live until the call returns, which copies what it needs and writes to neither, although
    // the constructors take mutable pointers.
    unsafe {
        let params = [
            openssl_sys::OSSL_PARAM_construct_octet_string(
                c"key".as_ptr(),
                secret.as_ptr().cast_mut().cast(),
                secret.len(),
            ),
            super::sys::OSSL_PARAM_construct_utf8_string(
                c"digest".as_ptr(),
                digest.as_ptr().cast_mut(),
                0,
            ),
            openssl_sys::OSSL_PARAM_construct_end(),
        ];
        openssl_sys::EVP_MAC_CTX_set_params(mac, params.as_ptr()) == 1
    }
}

/// # Safety
/// `mac` is the context that OpenSSL gave to the running callback.
#[cfg(not(ossl300))]
unsafe fn set_mac_key(key: &TicketKey, mac: *mut MacCtx) -> bool {
    let secret = key.mac().expose();
    let Ok(len) = std::ffi::c_int::try_from(secret.len()) else {
        return false;
    };
    // SAFETY: the context is valid (caller), the key `len` bytes long.
    unsafe {
        let digest = match key.digest() {
            Digest::Sha256 => openssl_sys::EVP_sha256(),
            Digest::Sha1 => openssl_sys::EVP_sha1(),
        };
        openssl_sys::HMAC_Init_ex(mac, secret.as_ptr().cast(), len, digest, ptr::null_mut()) == 1
    }
}

/// AES-CBC for keys of 128 and 256 bits: the only kind of cipher that OpenSSL can make tickets with. Fetched once for a
/// context: EVP_aes_256_cbc() would be looked up by every single ticket.
#[cfg(ossl300)]
pub(super) struct Ciphers {
    aes_128: OnceCell<Fetched>,
    aes_256: OnceCell<Fetched>,
}

#[cfg(ossl300)]
struct Fetched(NonNull<EVP_CIPHER>);

// SAFETY: a fetched cipher does not change, and OpenSSL counts its references atomically.
#[cfg(ossl300)]
unsafe impl Send for Fetched {}
// SAFETY: as above.
#[cfg(ossl300)]
unsafe impl Sync for Fetched {}

#[cfg(ossl300)]
impl Drop for Fetched {
    fn drop(&mut self) {
        // SAFETY: the reference that fetching gave.
        unsafe { openssl_sys::EVP_CIPHER_free(self.0.as_ptr()) };
    }
}

#[cfg(ossl300)]
impl Ciphers {
    pub(super) const fn new() -> Self {
        Ciphers { aes_128: OnceCell::new(), aes_256: OnceCell::new() }
    }

    /// # Safety
    /// `ctx` is the context that has these, and valid, or NULL.
    unsafe fn get(&self, ctx: *mut SSL_CTX, key_len: usize) -> Option<*const EVP_CIPHER> {
        let (cell, name) = match key_len {
            16 => (&self.aes_128, c"AES-128-CBC"),
            _ => (&self.aes_256, c"AES-256-CBC"),
        };
        // SAFETY: as the caller promises.
        let fetched = cell.get_or_try_init(|| unsafe { Fetched::of(ctx, name) }.ok_or(()));
        fetched.ok().map(|cipher| cipher.0.as_ptr().cast_const())
    }
}

#[cfg(ossl300)]
impl Fetched {
    /// From OpenSSL's default library context, or where that has no such cipher, from that of the context.
    ///
    /// # Safety
    /// `ctx` is a valid context or NULL.
    unsafe fn of(ctx: *mut SSL_CTX, name: &CStr) -> Option<Self> {
        static SAID: Once = Once::new();
        // SAFETY: NULL, or the library context of a valid context; a C string; no properties.
        let fetch = |library_context| unsafe {
            let cipher = openssl_sys::EVP_CIPHER_fetch(library_context, name.as_ptr(), ptr::null());
            NonNull::new(cipher).map(Fetched)
        };
        // SAFETY: as the caller promises.
        let own = |ctx| unsafe { fetch(hidden::library_context(ctx)) };
        let fetched =
            fetch(ptr::null_mut()).or_else(|| Some(ctx).filter(|ctx| !ctx.is_null()).and_then(own));
        if fetched.is_none() && SAID.first() {
            log::warn!(
                "OpenSSL has no AES-CBC here, so tickets are neither made nor opened (said once); load a provider that has \
                 it, as the default one"
            );
        }
        fetched
    }
}

/// AES-CBC for keys of 128 and 256 bits: the only kind of cipher that OpenSSL can make tickets with.
#[cfg(not(ossl300))]
pub(super) struct Ciphers;

#[cfg(not(ossl300))]
impl Ciphers {
    pub(super) const fn new() -> Self {
        Ciphers
    }

    /// # Safety
    /// None here.
    #[allow(clippy::unused_self, reason = "see the other one")]
    unsafe fn get(&self, _ctx: *mut SSL_CTX, key_len: usize) -> Option<*const EVP_CIPHER> {
        // SAFETY: both return a static object.
        Some(unsafe {
            if key_len == 16 {
                openssl_sys::EVP_aes_128_cbc()
            } else {
                openssl_sys::EVP_aes_256_cbc()
            }
        })
    }
}
