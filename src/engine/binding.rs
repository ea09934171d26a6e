//! What a session is tied to: the server name that was asked for, and how the client was verified (DESIGN 4.6).

use std::sync::Arc;

use hkdf::Hkdf;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::recent::Recent;
use crate::ring::{Digest, KeyName, TicketKey};
use crate::secret::Secret;

/// How a context verifies its clients, as far as it decides whose sessions may be resumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Policy {
    /// Not at all; such contexts are all alike.
    NoVerification,
    /// By these rules: digest of verify mode, depth, client-CA names and trust anchors.
    Verifying([u8; 32]),
}

/// Digest of server name and policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Binding(pub [u8; 32]);

impl Binding {
    /// What sessions carry that are tied to nothing (`bind = false`).
    pub const NONE: Binding = Binding([0; 32]);

    fn of(name: &[u8], policy: Policy) -> Self {
        let mut hasher = Sha256::new_with_prefix(b"tlsresume binding 1\0");
        match policy {
            Policy::NoVerification => hasher.update([0]),
            Policy::Verifying(digest) => {
                hasher.update([1]);
                hasher.update(digest);
            }
        }
        hasher.update(name);
        Binding(hasher.finalize().into())
    }
}

/// How many visitors' names and keys a process remembers; clients who invent names cannot grow it.
const REMEMBERED: usize = 64;

/// Bindings, and the ticket keys tied to them, of recent visitors.
pub(super) struct Bindings {
    bindings: Recent<(Policy, Box<[u8]>), Binding, REMEMBERED>,
    keys: Recent<(KeyName, Binding), Arc<TicketKey>, REMEMBERED>,
}

impl Bindings {
    pub(super) const fn new() -> Self {
        Bindings { bindings: Recent::new(), keys: Recent::new() }
    }

    /// The binding of a server name (in lower case; empty: none was asked for) and a policy.
    pub(super) fn binding(&self, name: &[u8], policy: Policy) -> Binding {
        self.bindings.get_or(
            |(other_policy, other_name)| *other_policy == policy && **other_name == *name,
            || ((policy, name.into()), Binding::of(name, policy)),
        )
    }

    /// The keys under `ring_key`'s name that open tickets of this binding and no other.
    pub(super) fn bound_key(&self, ring_key: &TicketKey, binding: &Binding) -> Arc<TicketKey> {
        let name = ring_key.name();
        self.keys.get_or(
            |(other_name, other_binding)| *other_name == name && other_binding == binding,
            || ((name, *binding), Arc::new(derive(ring_key, binding))),
        )
    }

    /// Wipes the keys whose ring key is gone.
    pub(super) fn forget_keys(&self, is_known: impl Fn(&KeyName) -> bool) {
        self.keys.retain(|(name, _)| is_known(name));
    }
}

/// HKDF (RFC 5869) from both secrets of the ring key, with the binding as salt.
fn derive(ring_key: &TicketKey, binding: &Binding) -> TicketKey {
    let mut input = Zeroizing::new(Vec::with_capacity(32 + TicketKey::MAX_MAC_LEN));
    input.extend_from_slice(ring_key.aes().expose());
    input.extend_from_slice(ring_key.mac().expose());
    let mut output = Zeroizing::new([0u8; 64]);
    let kdf = Hkdf::<Sha256>::new(Some(&binding.0), &input);
    kdf.expand(b"tlsresume bound ticket key", &mut output[..])
        .expect("64 bytes are within HKDF's limit");
    let (aes, mac) = output.split_at(32);
    TicketKey::new(ring_key.name(), Secret::new(aes), Secret::new(mac), Digest::Sha256)
        .expect("32 and 32 bytes fit")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> TicketKey {
        let secret = |byte| Secret::new(&[byte; 32]);
        TicketKey::new(KeyName([1; 16]), secret(byte), secret(byte + 1), Digest::Sha256)
            .expect("fits")
    }

    #[test]
    fn another_name_or_policy_or_ring_key_gives_another_key_under_the_same_name() {
        let bindings = Bindings::new();
        let verifying = Policy::Verifying([7; 32]);
        let a = bindings.binding(b"a.example", Policy::NoVerification);
        let keys = [
            derive(&key(1), &a),
            derive(&key(1), &bindings.binding(b"b.example", Policy::NoVerification)),
            derive(&key(1), &bindings.binding(b"a.example", verifying)),
            derive(&key(1), &bindings.binding(b"", Policy::NoVerification)),
            derive(&key(1), &bindings.binding(b"a.example", Policy::Verifying([8; 32]))),
            derive(&key(3), &a),
        ];
        for (index, one) in keys.iter().enumerate() {
            assert_eq!(one.name(), KeyName([1; 16]));
            assert!(
                keys[..index].iter().all(|other| other != one),
                "key {index} repeats an earlier one"
            );
        }
        assert_eq!(*bindings.bound_key(&key(1), &a), keys[0]);
        assert_eq!(*bindings.bound_key(&key(1), &a), keys[0], "also from the cache");
    }
}
