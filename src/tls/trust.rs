//! Digests of whom a server trusts to vouch for clients, and whom it says so of.

use std::ffi::{c_int, c_uchar, c_uint};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use once_cell::race::OnceBox;
use openssl_sys::{EVP_MD, X509, X509_OBJECT, X509_STORE};
use sha2::{Digest, Sha256};

use super::sys::{self, stack_st_X509_NAME};

const SHA256_LEN: usize = 32;

/// The stores of a connection: its own, and its context's.
pub(super) type Stores = [*mut X509_STORE; 2];

/// The digest of a context's stores, made once: a hashed directory's certificates come into a store as they are needed,
/// and rules that grew with every client would admit no session twice.
#[derive(Default)]
pub(super) struct Trust {
    stores: [AtomicPtr<X509_STORE>; 2],
    digest: OnceBox<[u8; SHA256_LEN]>,
}

impl Trust {
    /// The digest that was made of these stores first; of others, what `make` makes.
    pub(super) fn digest(
        &self,
        stores: Stores,
        make: impl FnOnce() -> [u8; SHA256_LEN],
    ) -> [u8; SHA256_LEN] {
        if let Some(known) = self.digest.get() {
            return if self.are(stores) { *known } else { make() };
        }
        let made = make();
        let unset = |(place, store): (&AtomicPtr<X509_STORE>, *mut X509_STORE)| {
            place
                .compare_exchange(ptr::null_mut(), store, Ordering::AcqRel, Ordering::Acquire)
                .is_ok()
        };
        // The first who says which stores they are makes the digest.
        if self.stores.iter().zip(stores).all(unset) {
            let _ = self.digest.set(Box::new(made));
        }
        made
    }

    fn are(&self, stores: Stores) -> bool {
        self.stores.iter().zip(stores).all(|(known, store)| known.load(Ordering::Acquire) == store)
    }
}

/// Digest of what stores trust: anchors and revocation lists, in sorted order, so that it does not depend on the order of
/// loading. Anchors in a hashed directory are not known before they are needed.
///
/// # Safety
/// Each store is NULL or valid.
pub(super) unsafe fn stores_digest(stores: Stores) -> [u8; SHA256_LEN] {
    let mut hasher = Sha256::new();
    for store in stores {
        // SAFETY: as the caller promises.
        hash_sorted(&mut hasher, unsafe { trusted_objects(store) });
    }
    hasher.finalize().into()
}

/// How many certificates and lists a store holds.
///
/// # Safety
/// `store` is NULL or valid.
pub(super) unsafe fn object_count(store: *mut X509_STORE) -> c_int {
    if store.is_null() {
        return 0;
    }
    // SAFETY: as the caller promises.
    unsafe { openssl_sys::OPENSSL_sk_num(sys::X509_STORE_get0_objects(store).cast()) }
}

/// Digest of the names that clients are told of.
///
/// # Safety
/// `list` is NULL or a valid list.
pub(super) unsafe fn names_digest(list: *mut stack_st_X509_NAME) -> [u8; SHA256_LEN] {
    let mut hasher = Sha256::new();
    // SAFETY: as the caller promises.
    hash_sorted(&mut hasher, unsafe { encoded_names(list) });
    hasher.finalize().into()
}

fn hash_sorted(hasher: &mut Sha256, mut parts: Vec<Vec<u8>>) {
    parts.sort_unstable();
    hasher.update((parts.len() as u64).to_be_bytes());
    for part in parts {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
}

/// # Safety
/// `list` is NULL or a valid list.
unsafe fn encoded_names(list: *mut stack_st_X509_NAME) -> Vec<Vec<u8>> {
    let list = list.cast();
    // SAFETY: the list is valid (caller) and so are the names in it; without an output i2d only measures, and then writes
    // as many bytes as it measured.
    unsafe {
        // A missing list counts -1 entries.
        (0..openssl_sys::OPENSSL_sk_num(list))
            .map(|at| {
                let name = openssl_sys::OPENSSL_sk_value(list, at).cast();
                let len = openssl_sys::i2d_X509_NAME(name, ptr::null_mut());
                let mut der = vec![0; usize::try_from(len).unwrap_or(0)];
                let mut end = der.as_mut_ptr();
                if !der.is_empty() {
                    openssl_sys::i2d_X509_NAME(name, &raw mut end);
                }
                der
            })
            .collect()
    }
}

/// # Safety
/// `store` is NULL or a valid store.
unsafe fn trusted_objects(store: *mut X509_STORE) -> Vec<Vec<u8>> {
    // SAFETY: the store is valid (caller); its objects are looked at under its lock.
    unsafe {
        if store.is_null() || sys::X509_STORE_lock(store) != 1 {
            return Vec::new();
        }
        let objects = sys::X509_STORE_get0_objects(store).cast();
        let digests = (0..openssl_sys::OPENSSL_sk_num(objects))
            .filter_map(|at| object_digest(openssl_sys::OPENSSL_sk_value(objects, at).cast()))
            .collect();
        sys::X509_STORE_unlock(store);
        digests
    }
}

/// Digest of a certificate; `None` without one.
///
/// # Safety
/// `certificate` is NULL or valid.
pub(super) unsafe fn certificate_digest(certificate: *mut X509) -> Option<Vec<u8>> {
    if certificate.is_null() {
        return None;
    }
    // SAFETY: as the caller promises; see `sha256`.
    sha256(|method, out, len| unsafe { openssl_sys::X509_digest(certificate, method, out, len) })
}

/// Digest of a certificate or a revocation list.
///
/// # Safety
/// `object` is a valid object of a store.
unsafe fn object_digest(object: *const X509_OBJECT) -> Option<Vec<u8>> {
    // SAFETY: the object is valid (caller); what it is not comes back as NULL; see `sha256`.
    unsafe {
        let list = sys::X509_OBJECT_get0_X509_CRL(object);
        if list.is_null() {
            return certificate_digest(openssl_sys::X509_OBJECT_get0_X509(object));
        }
        sha256(|method, out, len| openssl_sys::X509_CRL_digest(list, method, out, len))
    }
}

/// What `digest` writes: it gets SHA-256, room for as many bytes as that has, and where to put their number.
fn sha256(
    digest: impl FnOnce(*const EVP_MD, *mut c_uchar, *mut c_uint) -> c_int,
) -> Option<Vec<u8>> {
    let mut bytes = vec![0; SHA256_LEN];
    let mut len: c_uint = 0;
    // SAFETY: no precondition.
    let method = unsafe { openssl_sys::EVP_sha256() };
    (digest(method, bytes.as_mut_ptr(), &raw mut len) == 1).then_some(bytes)
}
