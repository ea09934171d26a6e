//! Ticket keys into OpenSSL's cipher and MAC contexts.

use std::ptr;

use openssl_sys::{EVP_CIPHER, EVP_CIPHER_CTX};

use super::sys::MacCtx;
use crate::ring::{Digest, TicketKey};

/// Bytes of a ticket's initialisation vector: the block of AES.
pub(super) const IV_LEN: usize = 16;

/// Which way a ticket goes.
#[derive(Clone, Copy)]
pub(super) enum Direction {
    Encrypt,
    Decrypt,
}

/// Readies both contexts for a ticket.
///
/// # Safety
/// `cipher` and `mac` are the contexts that OpenSSL gave to the running callback.
pub(super) unsafe fn set_keys(
    key: &TicketKey,
    iv: &[u8; IV_LEN],
    cipher: *mut EVP_CIPHER_CTX,
    mac: *mut MacCtx,
    direction: Direction,
) -> bool {
    let Some(algorithm) = algorithm(key.aes().len()) else {
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

/// AES-CBC for a key of that many bytes: the only kind of cipher that OpenSSL can make tickets with.
#[cfg(ossl300)]
fn algorithm(key_len: usize) -> Option<*const EVP_CIPHER> {
    use std::sync::atomic::{AtomicPtr, Ordering};

    static AES_128: AtomicPtr<EVP_CIPHER> = AtomicPtr::new(ptr::null_mut());
    static AES_256: AtomicPtr<EVP_CIPHER> = AtomicPtr::new(ptr::null_mut());
    let (fetched, name) = match key_len {
        16 => (&AES_128, c"AES-128-CBC"),
        _ => (&AES_256, c"AES-256-CBC"),
    };
    // Fetched once: EVP_aes_256_cbc() would be looked up by every single ticket.
    let mut cipher = fetched.load(Ordering::Acquire);
    if cipher.is_null() {
        // SAFETY: the default library context and a C string.
        cipher =
            unsafe { openssl_sys::EVP_CIPHER_fetch(ptr::null_mut(), name.as_ptr(), ptr::null()) };
        fetched.store(cipher, Ordering::Release);
    }
    (!cipher.is_null()).then_some(cipher.cast_const())
}

/// AES-CBC for a key of that many bytes: the only kind of cipher that OpenSSL can make tickets with.
#[cfg(not(ossl300))]
fn algorithm(key_len: usize) -> Option<*const EVP_CIPHER> {
    // SAFETY: both return a static object.
    Some(unsafe {
        if key_len == 16 { openssl_sys::EVP_aes_128_cbc() } else { openssl_sys::EVP_aes_256_cbc() }
    })
}
