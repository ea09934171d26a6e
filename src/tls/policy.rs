//! How a connection's context verifies clients, as a digest, and which policy will serve a client that asks to resume.

use std::ffi::{c_int, c_uint};
use std::ptr;
use std::sync::atomic::{AtomicU8, Ordering};

use openssl_sys::{SSL, SSL_CTX, X509_OBJECT, X509_STORE};
use sha2::{Digest, Sha256};

use super::attach::{self, Attachment};
use super::handshake::Handshake;
use super::slots::Slot;
use super::sys;
use super::{notes, real};
use crate::engine::{Accepting, Binding, Learned, Policy};

const SSL_VERIFY_PEER: c_int = 1;
const SHA256_LEN: usize = 32;

/// What is known about the contexts of this process.
#[repr(u8)]
enum Verifies {
    /// A context was attached since it was looked at.
    Unknown = 0,
    No = 1,
    Yes = 2,
}

static VERIFIES: AtomicU8 = AtomicU8::new(Verifies::Unknown as u8);

/// Whether any context of this process verifies clients; true when in doubt.
pub(super) fn any_context_verifies() -> bool {
    if let Some(noted) = notes::any_verifies() {
        return noted || VERIFIES.load(Ordering::Relaxed) == Verifies::Yes as u8;
    }
    match VERIFIES.load(Ordering::Relaxed) {
        seen if seen == Verifies::Yes as u8 => true,
        seen if seen == Verifies::No as u8 => false,
        _ => attach::note_whether_any_verifies(|verifies| {
            let found = if verifies { Verifies::Yes } else { Verifies::No };
            VERIFIES.store(found as u8, Ordering::Relaxed);
        })
        .unwrap_or(true),
    }
}

/// A context was attached: what it does with clients is looked at when the first of them asks. Contexts without a
/// number cannot be looked at, unless there are notes on them.
pub(super) fn context_attached(slot: Slot) {
    if real::is_interposed() {
        return;
    }
    let [unknown, no, yes] =
        [Verifies::Unknown, Verifies::No, Verifies::Yes].map(|state| state as u8);
    if slot == Slot::SHARED {
        VERIFIES.store(yes, Ordering::Relaxed);
    } else {
        // Unknown stays unknown, and yes stays yes.
        let _ = VERIFIES.compare_exchange(no, unknown, Ordering::Relaxed, Ordering::Relaxed);
    }
}

/// The binding under which a client that asks for `name` may resume, and the policy in it; `None` when the policy that will serve it is not
/// known, or OpenSSL would end the handshake, which costs a full handshake.
pub(super) fn expected_binding(
    attachment: &Attachment,
    ssl: *mut SSL,
    name: &[u8],
) -> Option<(Binding, Policy)> {
    let engine = &attachment.engine;
    let bound = |policy| Some((engine.binding(name, policy), policy));
    if verifies_client(ssl) && !attachment.names_id_context() {
        return None;
    }
    if !engine.config().resumption.bind || !any_context_verifies() {
        return bound(Policy::NoVerification);
    }
    if has_own_rules(attachment, ssl) {
        return None;
    }
    match engine.recall_policy(attachment.accepting(), name) {
        Learned::Policy(policy) => bound(policy),
        Learned::Nothing | Learned::Ambiguous => None,
    }
}

/// The binding of what is issued now, under the policy that served; it is remembered for the name's next visit.
pub(super) fn serving_binding(
    attachment: &Attachment,
    accepted: Option<Accepting>,
    ssl: *mut SSL,
    name: &[u8],
) -> Binding {
    let engine = &attachment.engine;
    if !engine.config().resumption.bind {
        return Binding::NONE;
    }
    let policy = serving_policy(ssl);
    if any_context_verifies() && !has_own_rules(attachment, ssl) {
        accepted.into_iter().for_each(|accepting| engine.learn_policy(accepting, name, policy));
    }
    engine.binding(name, policy)
}

/// Whether a connection has resumed a session of ours that is tied to other rules than those that it has now.
pub(super) fn resumed_under_another(ssl: *mut SSL) -> bool {
    // SAFETY: `ssl` is the connection whose callback is running, and this is the only reference in it.
    let handshake = unsafe {
        if openssl_sys::SSL_session_reused(ssl) != 1 {
            return false;
        }
        Handshake::existing(ssl)
    };
    let serving = Attachment::serving(ssl).filter(|attachment| attachment.has_callbacks());
    let expected = handshake.and_then(|handshake| handshake.policy);
    let is_bound = serving.is_some_and(|it| it.engine.config().resumption.bind);
    is_bound && expected.is_some_and(|expected| expected != serving_policy(ssl))
}

/// Whether the application gave this connection a verify mode that neither its accepting nor its current context has
/// (SSL_set_verify): what served others says nothing about it, nor it about others.
fn has_own_rules(attachment: &Attachment, ssl: *mut SSL) -> bool {
    // SAFETY: `ssl` is the connection whose callback is running, which keeps its current context alive.
    let (mode, current) = unsafe {
        let current = openssl_sys::SSL_get_SSL_CTX(ssl);
        (openssl_sys::SSL_get_verify_mode(ssl), openssl_sys::SSL_CTX_get_verify_mode(current))
    };
    mode != attachment.verify_mode() && mode != current
}

/// Whether this connection asked its client for a certificate.
pub(super) fn verifies_client(ssl: *mut SSL) -> bool {
    // SAFETY: `ssl` is the connection whose callback is running.
    let verifies = unsafe { openssl_sys::SSL_get_verify_mode(ssl) } & SSL_VERIFY_PEER != 0;
    if verifies {
        VERIFIES.store(Verifies::Yes as u8, Ordering::Relaxed);
    }
    verifies
}

/// Whether a context asks its clients for certificates.
///
/// # Safety
/// `ctx` is a valid context.
pub(super) unsafe fn context_verifies(ctx: *mut SSL_CTX) -> bool {
    // SAFETY: as the caller promises.
    unsafe { openssl_sys::SSL_CTX_get_verify_mode(ctx) & SSL_VERIFY_PEER != 0 }
}

fn serving_policy(ssl: *mut SSL) -> Policy {
    if !verifies_client(ssl) {
        return Policy::NoVerification;
    }
    // SAFETY: `ssl` is the connection whose callback is running, which keeps its current context alive.
    let (mode, depth, ctx) = unsafe {
        let ctx = openssl_sys::SSL_get_SSL_CTX(ssl);
        (openssl_sys::SSL_get_verify_mode(ssl), sys::SSL_get_verify_depth(ssl), ctx)
    };
    // SAFETY: as above.
    let digest = || Box::new(unsafe { trust_digest(ctx) });
    let trust = match Attachment::serving(ssl) {
        Some(attachment) => *attachment.trust.get_or_init(digest),
        None => *digest(),
    };
    let mut hasher = Sha256::new_with_prefix(b"tlsresume policy 1\0");
    hasher.update(mode.to_be_bytes());
    hasher.update(depth.to_be_bytes());
    hasher.update(trust);
    Policy::Verifying(hasher.finalize().into())
}

/// Digest of whom a context trusts: the names it sends to clients, its trust anchors and revocation lists, each in sorted
/// order, so that it does not depend on the order of loading, and the flags of verification. Anchors in a hashed directory are not known before they are needed.
///
/// # Safety
/// `ctx` is a valid context.
unsafe fn trust_digest(ctx: *mut SSL_CTX) -> [u8; SHA256_LEN] {
    let mut verify_store: *mut X509_STORE = ptr::null_mut();
    // SAFETY: the context is valid (caller); OpenSSL without this request leaves the pointer as it is, NULL.
    let (names, stores) = unsafe {
        let out = (&raw mut verify_store).cast();
        openssl_sys::SSL_CTX_ctrl(ctx, sys::SSL_CTRL_GET_VERIFY_CERT_STORE, 0, out);
        (client_ca_names(ctx), [openssl_sys::SSL_CTX_get_cert_store(ctx), verify_store])
    };
    let mut hasher = Sha256::new();
    hash_sorted(&mut hasher, names);
    for store in stores {
        // SAFETY: stores belong to the context, which is valid.
        hash_sorted(&mut hasher, unsafe { trusted_objects(store) });
    }
    // SAFETY: the parameters belong to the context.
    let flags =
        unsafe { openssl_sys::X509_VERIFY_PARAM_get_flags(openssl_sys::SSL_CTX_get0_param(ctx)) };
    hasher.update(flags.to_be_bytes());
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
/// `ctx` is a valid context.
unsafe fn client_ca_names(ctx: *mut SSL_CTX) -> Vec<Vec<u8>> {
    // SAFETY: the context is valid (caller) and so are the list and the names in it; without an output i2d only
    // measures, and then writes as many bytes as it measured.
    unsafe {
        let list = sys::SSL_CTX_get_client_CA_list(ctx).cast();
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
            .filter_map(|at| digest(openssl_sys::OPENSSL_sk_value(objects, at).cast()))
            .collect();
        sys::X509_STORE_unlock(store);
        digests
    }
}

/// Digest of a certificate or a revocation list.
///
/// # Safety
/// `object` is a valid object of a store.
unsafe fn digest(object: *const X509_OBJECT) -> Option<Vec<u8>> {
    let mut digest = vec![0; SHA256_LEN];
    let mut len: c_uint = 0;
    // SAFETY: the object is valid (caller); what it is not comes back as NULL; the buffer is as long as SHA-256 writes.
    let done = unsafe {
        let (sha256, out) = (openssl_sys::EVP_sha256(), digest.as_mut_ptr());
        let certificate = openssl_sys::X509_OBJECT_get0_X509(object);
        let list = sys::X509_OBJECT_get0_X509_CRL(object);
        match (certificate.is_null(), list.is_null()) {
            (false, _) => openssl_sys::X509_digest(certificate, sha256, out, &raw mut len),
            (true, false) => openssl_sys::X509_CRL_digest(list, sha256, out, &raw mut len),
            (true, true) => 0,
        }
    };
    (done == 1).then_some(digest)
}
