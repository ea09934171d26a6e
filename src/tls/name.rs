//! The server name that the client asks for (RFC 6066 section 3), byte for byte: an application may tell `A` from `a`.
//! Empty when it asks for none.

use std::ffi::{CStr, c_int};

use openssl_sys::SSL;

const TLSEXT_TYPE_SERVER_NAME: u32 = 0;
const TLSEXT_NAMETYPE_HOST_NAME: c_int = 0;

/// Longest name that OpenSSL accepts.
const MAX_LEN: usize = 255;

/// A server name, in place.
#[derive(Clone, Copy)]
pub(super) struct ServerName {
    bytes: [u8; MAX_LEN],
    len: usize,
}

impl ServerName {
    /// The name in the ClientHello that is being processed: what decrypt and get must use, for OpenSSL has not looked
    /// at it yet.
    pub(super) fn in_client_hello(ssl: *mut SSL) -> Self {
        let (mut data, mut len) = (std::ptr::null(), 0);
        // SAFETY: `ssl` is the connection whose callback is running; the extension stays valid while it does.
        let found = unsafe {
            openssl_sys::SSL_client_hello_get0_ext(
                ssl,
                TLSEXT_TYPE_SERVER_NAME,
                &raw mut data,
                &raw mut len,
            )
        };
        if found != 1 || data.is_null() {
            return Self::of(&[]);
        }
        #[allow(clippy::disallowed_methods, reason = "checked not to be null")]
        // SAFETY: on success OpenSSL points to `len` bytes inside the ClientHello.
        let extension = unsafe { std::slice::from_raw_parts(data, len) };
        Self::of(first_host_name(extension).unwrap_or_default())
    }

    /// The name that the connection ended up with: what encrypt and new must use, where the ClientHello is gone.
    pub(super) fn negotiated(ssl: *mut SSL) -> Self {
        #[allow(clippy::disallowed_methods, reason = "checked not to be null")]
        // SAFETY: `ssl` is the connection whose callback is running; the name is a C string or NULL, and OpenSSL keeps
        // it while the callback runs.
        let name = unsafe {
            let name = openssl_sys::SSL_get_servername(ssl, TLSEXT_NAMETYPE_HOST_NAME);
            if name.is_null() { &[] } else { CStr::from_ptr(name).to_bytes() }
        };
        Self::of(name)
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// OpenSSL refuses names that are longer; such a handshake does not go on.
    pub(super) fn of(name: &[u8]) -> Self {
        let len = name.len().min(MAX_LEN);
        let mut bytes = [0; MAX_LEN];
        bytes[..len].copy_from_slice(&name[..len]);
        ServerName { bytes, len }
    }
}

/// The first entry of a server name list, if it is a host name: the one that OpenSSL takes.
fn first_host_name(extension: &[u8]) -> Option<&[u8]> {
    let (_list_len, entry) = extension.split_first_chunk::<2>()?;
    let (kind, rest) = entry.split_first()?;
    let (len, name) = rest.split_first_chunk::<2>()?;
    let name = name.get(..usize::from(u16::from_be_bytes(*len)))?;
    (*kind == 0).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_name_is_read_from_the_raw_extension() {
        let extension = b"\x00\x0c\x00\x00\x09A.Example";
        assert_eq!(first_host_name(extension), Some(&b"A.Example"[..]));
        assert_eq!(ServerName::of(b"A.Example").as_bytes(), b"A.Example", "as it was sent");
    }

    #[test]
    fn extensions_cut_short_give_no_name() {
        let extension = b"\x00\x0c\x00\x00\x09A.Example";
        for len in 0..extension.len() {
            assert_eq!(first_host_name(&extension[..len]), None, "{len} bytes");
        }
    }
}
