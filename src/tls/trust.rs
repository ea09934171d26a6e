//! Digests of the trust anchors and revocation lists that a server verifies clients with, and of the CA names that it
//! sends them.
//!
//! Owns: a reference to each store that an attachment remembers, so that no other store can come to its address. Called
//! by: [`super::rules`]. Threads and forks: nobody waits; who finds the memory in use makes the digest anew, as do
//! children that were forked at such a moment. Failure: a store that cannot be referenced is not remembered; what cannot be
//! read, for want of memory, has a digest that nothing else has.

use std::ffi::{c_int, c_uchar, c_uint};
use std::ptr;

use once_cell::race::OnceBox;
use openssl_sys::{EVP_MD, X509, X509_OBJECT, X509_STORE};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use super::sys::{self, stack_st_X509_NAME};
use crate::sys::{memory, random};

const SHA256_LEN: usize = 32;

/// The stores of a connection: its own, and its context's. NULL for one that there is not.
pub(super) type Stores = [*mut X509_STORE; 2];

/// What an attachment knows of stores.
#[derive(Default)]
pub(super) struct Trust {
    /// Those that look certificates up. What they hold is what clients needed so far, and does not count: rules that
    /// grew with every client would admit no session twice.
    looked_up: OnceBox<Held>,
    /// The last digest: to make one costs a hash of each certificate.
    last: Mutex<Option<Digested>>,
}

struct Digested {
    stores: Held,
    counts: [Count; 2],
    digest: [u8; SHA256_LEN],
}

/// How many objects of a store count; `None` where what it holds does not matter.
type Count = Option<c_int>;

impl Trust {
    /// From now on what these stores hold does not count: they look certificates up in a directory. To be called once,
    /// before the first digest.
    ///
    /// # Safety
    /// Each store is NULL or valid.
    pub(super) unsafe fn look_up(&self, stores: Stores) {
        // SAFETY: as the caller promises.
        if let Some(held) = unsafe { Held::new(stores) } {
            let _ = memory::try_box(held).map(|held| self.looked_up.set(held));
        }
    }

    /// The digest of the stores as they are now, which is that of last time while they are the same and hold as many
    /// objects: OpenSSL has no call that takes one out of a store.
    ///
    /// # Safety
    /// Each store is NULL or valid.
    pub(super) unsafe fn digest(&self, stores: Stores) -> [u8; SHA256_LEN] {
        // SAFETY: as the caller promises. Counted before they are read: one that comes in between is read next time.
        let counts =
            stores.map(|store| (!self.looks_up(store)).then(|| unsafe { object_count(store) }));
        if let Some(known) = self.last(stores, counts) {
            return known;
        }
        // SAFETY: as the caller promises.
        let (digest, held) = unsafe { (stores_digest(stores, counts), Held::new(stores)) };
        let Some(digest) = digest else { return unknown() };
        if let Some(stores) = held {
            self.keep(Digested { stores, counts, digest });
        }
        digest
    }

    fn looks_up(&self, store: *mut X509_STORE) -> bool {
        let looked_up = self.looked_up.get();
        !store.is_null() && looked_up.is_some_and(|Held(stores)| stores.contains(&store))
    }

    fn last(&self, stores: Stores, counts: [Count; 2]) -> Option<[u8; SHA256_LEN]> {
        let last = self.last.try_lock()?;
        let known = last.as_ref()?;
        (known.stores.0 == stores && known.counts == counts).then_some(known.digest)
    }

    fn keep(&self, digested: Digested) {
        // The one before is let go of without the lock: freeing a store may run the application's code.
        let _before = self.last.try_lock().map(|mut last| last.replace(digested));
    }
}

/// Stores that cannot be freed meanwhile.
struct Held(Stores);

// SAFETY: OpenSSL counts references to stores atomically, and only their addresses are read here.
unsafe impl Send for Held {}
// SAFETY: as above.
unsafe impl Sync for Held {}

impl Held {
    /// # Safety
    /// Each store is NULL or valid.
    unsafe fn new(stores: Stores) -> Option<Self> {
        let mut held = Held([ptr::null_mut(); 2]);
        for (place, store) in held.0.iter_mut().zip(stores) {
            // SAFETY: the store is valid (caller).
            if !store.is_null() && unsafe { sys::X509_STORE_up_ref(store) } != 1 {
                return None;
            }
            *place = store;
        }
        Some(held)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        for store in self.0 {
            // SAFETY: NULL, or a reference of ours that is given back once.
            unsafe { openssl_sys::X509_STORE_free(store) };
        }
    }
}

/// Digest of what stores trust: anchors and revocation lists, in sorted order, so that it does not depend on the order
/// of loading. A store that looks its certificates up is known as that alone. `None` without memory.
///
/// # Safety
/// Each store is NULL or valid.
unsafe fn stores_digest(stores: Stores, counts: [Count; 2]) -> Option<[u8; SHA256_LEN]> {
    let mut hasher = Sha256::new();
    for (store, count) in stores.into_iter().zip(counts) {
        if count.is_none() {
            hasher.update(LOOKED_UP);
        } else {
            // SAFETY: as the caller promises.
            hash_sorted(&mut hasher, unsafe { trusted_objects(store)? });
        }
    }
    Some(hasher.finalize().into())
}

/// Stands in a digest for the content of a store that looks certificates up. No number of objects has these bytes.
const LOOKED_UP: &[u8] = b"looked up";

/// How many certificates and lists a store holds. Read without the store's lock: it is one integer, and an old one is
/// put right at the next look.
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

/// Digest of the CA names that the server sends to clients.
///
/// # Safety
/// `list` is NULL or a valid list.
pub(super) unsafe fn names_digest(list: *mut stack_st_X509_NAME) -> [u8; SHA256_LEN] {
    // SAFETY: as the caller promises.
    let Some(names) = (unsafe { encoded_names(list) }) else { return unknown() };
    let mut hasher = Sha256::new();
    hash_sorted(&mut hasher, names);
    hasher.finalize().into()
}

/// Stands for what cannot be read: no session was ever made under it.
fn unknown() -> [u8; SHA256_LEN] {
    let mut digest = [0; SHA256_LEN];
    // Without randomness there are no keys either.
    let _ = random(&mut digest);
    digest
}

fn hash_sorted<T: Ord + AsRef<[u8]>>(hasher: &mut Sha256, mut parts: Vec<T>) {
    parts.sort_unstable();
    hasher.update((parts.len() as u64).to_be_bytes());
    for part in parts {
        hasher.update((part.as_ref().len() as u64).to_be_bytes());
        hasher.update(part);
    }
}

/// `None` without memory.
///
/// # Safety
/// `list` is NULL or a valid list.
unsafe fn encoded_names(list: *mut stack_st_X509_NAME) -> Option<Vec<Vec<u8>>> {
    let list = list.cast();
    // SAFETY: the list is valid (caller) and so are the names in it.
    let encode = |at, end| unsafe {
        openssl_sys::i2d_X509_NAME(openssl_sys::OPENSSL_sk_value(list, at).cast(), end)
    };
    // SAFETY: as above. A missing list counts -1 entries.
    let number = unsafe { openssl_sys::OPENSSL_sk_num(list) };
    let lengths = (0..number).map(|at| usize::try_from(encode(at, ptr::null_mut())).unwrap_or(0));
    let is_affordable = memory::affords(lengths.map(|len| len + size_of::<Vec<u8>>()).sum());
    is_affordable.then(|| (0..number).map(|at| encoded(|end| encode(at, end))).collect())?
}

/// What `encode` writes: without an output it only measures, and then it writes as many bytes as it measured. `None`
/// without memory.
fn encoded(encode: impl Fn(*mut *mut c_uchar) -> c_int) -> Option<Vec<u8>> {
    let len = usize::try_from(encode(ptr::null_mut())).ok();
    let mut der = vec![0; len.filter(|len| *len > 0 && memory::affords(*len))?];
    let mut end = der.as_mut_ptr();
    (encode(&raw mut end) > 0).then_some(der)
}

/// `None` without memory.
///
/// # Safety
/// `store` is NULL or a valid store.
unsafe fn trusted_objects(store: *mut X509_STORE) -> Option<Vec<[u8; SHA256_LEN]>> {
    // SAFETY: the store is valid (caller); its objects are looked at under its lock.
    unsafe {
        if store.is_null() {
            return Some(Vec::new());
        }
        if sys::X509_STORE_lock(store) != 1 {
            return None;
        }
        let objects = sys::X509_STORE_get0_objects(store).cast();
        let number = openssl_sys::OPENSSL_sk_num(objects);
        let is_affordable = memory::affords(usize::try_from(number).unwrap_or(0) * SHA256_LEN);
        let digest = |at| object_digest(openssl_sys::OPENSSL_sk_value(objects, at).cast());
        let digests = is_affordable.then(|| (0..number).map(digest).collect());
        sys::X509_STORE_unlock(store);
        digests?
    }
}

/// Digest of a certificate; `None` without one.
///
/// # Safety
/// `certificate` is NULL or valid.
pub(super) unsafe fn certificate_digest(certificate: *mut X509) -> Option<[u8; SHA256_LEN]> {
    if certificate.is_null() {
        return None;
    }
    // SAFETY: as the caller promises; see `sha256`.
    let digest = sha256(|method, out, len| unsafe {
        openssl_sys::X509_digest(certificate, method, out, len)
    });
    Some(digest.unwrap_or_else(unknown))
}

/// Digest of a certificate with the trust settings that go with it (X509_add1_trust_object(3)); `None` without one.
///
/// # Safety
/// `anchor` is NULL or valid.
unsafe fn anchor_digest(anchor: *mut X509) -> Option<[u8; SHA256_LEN]> {
    if anchor.is_null() {
        return None;
    }
    // SAFETY: as the caller promises.
    let der = encoded(|end| unsafe { sys::i2d_X509_AUX(anchor, end) })?;
    Some(Sha256::digest(der).into())
}

/// Digest of a certificate or a revocation list.
///
/// # Safety
/// `object` is a valid object of a store.
unsafe fn object_digest(object: *const X509_OBJECT) -> Option<[u8; SHA256_LEN]> {
    // SAFETY: the object is valid (caller); what it is not comes back as NULL; see `sha256`.
    unsafe {
        let list = sys::X509_OBJECT_get0_X509_CRL(object);
        if list.is_null() {
            return anchor_digest(openssl_sys::X509_OBJECT_get0_X509(object));
        }
        sha256(|method, out, len| openssl_sys::X509_CRL_digest(list, method, out, len))
    }
}

/// What `digest` writes: it gets SHA-256, room for as many bytes as that has, and where to put their number.
fn sha256(
    digest: impl FnOnce(*const EVP_MD, *mut c_uchar, *mut c_uint) -> c_int,
) -> Option<[u8; SHA256_LEN]> {
    let mut bytes = [0; SHA256_LEN];
    let mut len: c_uint = 0;
    // SAFETY: no precondition.
    let method = unsafe { openssl_sys::EVP_sha256() };
    (digest(method, bytes.as_mut_ptr(), &raw mut len) == 1).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;

    use super::*;

    struct Store(*mut X509_STORE);

    impl Store {
        fn new() -> Self {
            // SAFETY: no precondition.
            Store(unsafe { openssl_sys::X509_STORE_new() })
        }

        fn add(&self, name: &CStr) {
            let certificate = certificate(name);
            // SAFETY: the store is valid and takes a reference of its own; ours is given back.
            unsafe {
                assert_eq!(openssl_sys::X509_STORE_add_cert(self.0, certificate), 1);
                openssl_sys::X509_free(certificate);
            }
        }
    }

    impl Drop for Store {
        fn drop(&mut self) {
            // SAFETY: made by `new`, and freed once.
            unsafe { openssl_sys::X509_STORE_free(self.0) };
        }
    }

    /// A certificate of its own name: a store takes each name once.
    fn certificate(name: &CStr) -> *mut X509 {
        const ASCII: c_int = 0x1001;
        const SECRET: [u8; 32] = [7; 32];
        // SAFETY: the certificate, its name and the key are ours; the members that are asked for are the certificate's.
        unsafe {
            let key = openssl_sys::EVP_PKEY_new_raw_private_key(
                openssl_sys::EVP_PKEY_ED25519,
                ptr::null_mut(),
                SECRET.as_ptr(),
                SECRET.len(),
            );
            let certificate = openssl_sys::X509_new();
            openssl_sys::X509_gmtime_adj(openssl_sys::X509_getm_notBefore(certificate), 0);
            openssl_sys::X509_gmtime_adj(openssl_sys::X509_getm_notAfter(certificate), 60);
            let subject = openssl_sys::X509_get_subject_name(certificate);
            let (field, text) = (c"CN".as_ptr(), name.as_ptr().cast());
            openssl_sys::X509_NAME_add_entry_by_txt(subject, field, ASCII, text, -1, -1, 0);
            openssl_sys::X509_set_pubkey(certificate, key);
            assert_ne!(openssl_sys::X509_sign(certificate, key, ptr::null()), 0);
            openssl_sys::EVP_PKEY_free(key);
            certificate
        }
    }

    fn digest(trust: &Trust, store: &Store) -> [u8; SHA256_LEN] {
        // SAFETY: the store is valid.
        unsafe { trust.digest([ptr::null_mut(), store.0]) }
    }

    #[test]
    fn the_digest_follows_what_is_added_to_a_store() {
        let (trust, store, other) = (Trust::default(), Store::new(), Store::new());
        let empty = digest(&trust, &store);
        store.add(c"one");
        let one = digest(&trust, &store);
        assert_ne!(empty, one);
        assert_eq!(one, digest(&trust, &store));
        other.add(c"one");
        assert_eq!(one, digest(&trust, &other), "stores are known by what they hold");
    }

    #[test]
    fn what_a_store_looks_up_does_not_count() {
        let (trust, store, other) = (Trust::default(), Store::new(), Store::new());
        // SAFETY: the store is valid.
        unsafe { trust.look_up([ptr::null_mut(), store.0]) };
        let empty = digest(&trust, &store);
        assert_ne!(empty, digest(&trust, &other));
        store.add(c"one");
        assert_eq!(empty, digest(&trust, &store));
    }

    #[test]
    fn a_store_that_is_known_is_not_freed() {
        let trust = Trust::default();
        let of_new_store = |name| {
            let store = Store::new();
            store.add(name);
            (store.0, digest(&trust, &store))
        };
        let (one, other) = (of_new_store(c"one"), of_new_store(c"other"));
        assert_ne!(one.0, other.0, "its address is not used again");
        assert_ne!(one.1, other.1);
    }

    #[test]
    fn who_finds_the_memory_in_use_makes_the_digest_anew() {
        let (trust, store) = (Trust::default(), Store::new());
        let known = digest(&trust, &store);
        let in_use = trust.last.lock();
        assert_eq!(known, digest(&trust, &store));
        store.add(c"one");
        assert_ne!(known, digest(&trust, &store));
        drop(in_use);
    }
}
