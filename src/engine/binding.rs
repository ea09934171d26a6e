//! What a session is tied to: the server name that was asked for, and the policy that served.
//!
//! Owns: the process's caches of bindings and bound keys. Called by: `engine`; [`Policy`] also by `tls`. Threads and
//! forks: nobody waits; who finds a cache in use computes anew. Failure: none.

use std::sync::Arc;

use hkdf::Hkdf;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::recent::Recent;
use crate::ring::family::VECTOR_LEN;
use crate::ring::session_id::MaskKey;
use crate::ring::{Digest, Family, KeyName, TicketKey};
use crate::secret::Secret;

/// Who gets in at a server: everybody, or those that certain rules admit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Policy(u64);

impl Policy {
    /// Everybody gets in, without a certificate or a shared key. All such servers have this one policy.
    pub const PUBLIC: Policy = Policy(0);

    /// The policy of rules with this digest. 64 bits of it are enough: rules are written by administrators, who gain
    /// nothing from a collision.
    pub fn of_rules(digest: &[u8; 32]) -> Self {
        let head = digest.first_chunk().copied().unwrap_or_default();
        Policy(u64::from_le_bytes(head).max(1))
    }

    /// Whether everybody gets in.
    pub fn is_public(self) -> bool {
        self == Self::PUBLIC
    }

    /// As the stored form of a session has it, and back.
    pub(super) fn to_bytes(self) -> [u8; Self::LEN] {
        self.0.to_le_bytes()
    }

    /// The policy whose [`Policy::to_bytes`] these are.
    pub(super) fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Policy(u64::from_le_bytes(bytes))
    }

    /// Bytes of a policy.
    pub(super) const LEN: usize = 8;

    /// 16 bits of it, for the node's table of names.
    pub fn print(self) -> u16 {
        let [a, b, ..] = self.to_bytes();
        u16::from_le_bytes([a, b])
    }
}

/// Digest of server name and policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Binding(pub [u8; 32]);

impl Binding {
    /// What sessions carry that are tied to nothing (`bind = false`).
    pub const NONE: Binding = Binding([0; 32]);

    fn of(name: &[u8], policy: Policy) -> Self {
        let mut hasher = Sha256::new_with_prefix(b"tlsresume binding 1\0");
        if policy.is_public() {
            hasher.update([0]);
        } else {
            hasher.update([2]);
            hasher.update(policy.to_bytes());
        }
        hasher.update(name);
        Binding(hasher.finalize().into())
    }
}

/// A key as tickets are made and opened with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoundKey {
    key: TicketKey,
    /// Not of imported keys as they are: other servers have no families.
    mask: Option<Secret>,
}

impl BoundKey {
    /// A key that other servers have too.
    pub(super) fn plain(key: TicketKey) -> Self {
        BoundKey { key, mask: None }
    }

    /// The secrets.
    pub fn key(&self) -> &TicketKey {
        &self.key
    }

    /// A new ticket's initialisation vector, from random bytes.
    pub fn vector(&self, family: Option<Family>, random: &[u8; VECTOR_LEN]) -> [u8; VECTOR_LEN] {
        match (self.mask(), family) {
            (Some(mask), Some(family)) => family.vector(mask, random),
            _ => *random,
        }
    }

    /// The family that a ticket's vector names; none where this key's tickets name none.
    pub(super) fn family(&self, vector: &[u8; VECTOR_LEN]) -> Option<Family> {
        self.mask().map(|mask| Family::of_vector(mask, vector))
    }

    fn mask(&self) -> Option<&MaskKey> {
        self.mask.as_ref()?.expose().first_chunk()
    }
}

/// How many visitors' names and keys a process remembers; clients who invent names cannot grow it.
const REMEMBERED: usize = 64;

/// Bindings, and the ticket keys tied to them, of recent visitors.
pub(super) struct Bindings {
    bindings: Recent<(Policy, Box<[u8]>), Binding, REMEMBERED>,
    keys: Recent<Bound, Arc<BoundKey>, REMEMBERED>,
    masks: Recent<KeyName, u64, MASKS>,
}

/// Which ring key is tied to which policy and server name.
type Bound = (KeyName, Policy, Box<[u8]>);

/// How many ring keys' masks a process remembers: those that encrypt and open, not those that wait or end.
const MASKS: usize = 16;

impl Bindings {
    pub(super) const fn new() -> Self {
        Bindings { bindings: Recent::new(), keys: Recent::new(), masks: Recent::new() }
    }

    /// The binding of a server name (as the client sent it; empty: none was asked for) and a policy.
    pub(super) fn binding(&self, name: &[u8], policy: Policy) -> Binding {
        self.bindings.get_or(
            |(other_policy, other_name)| *other_policy == policy && **other_name == *name,
            || ((policy, name.into()), Binding::of(name, policy)),
        )
    }

    /// The keys that open tickets of a ring key, a server name and a policy, and no others.
    pub(super) fn bound_key(
        &self,
        ring_key: &TicketKey,
        name: &[u8],
        policy: Policy,
    ) -> Arc<BoundKey> {
        let key_name = ring_key.name();
        self.keys.get_or(
            |(other_key, other_policy, other)| {
                *other_key == key_name && *other_policy == policy && **other == *name
            },
            || {
                let key = derive(ring_key, &Binding::of(name, policy));
                ((key_name, policy, name.into()), Arc::new(key))
            },
        )
    }

    /// The name that tickets of a policy bear: the key's short one, and the policy, masked.
    pub(super) fn name_for(&self, ring_key: &TicketKey, policy: Policy) -> KeyName {
        KeyName::from_halves([ring_key.name().short(), policy.0 ^ self.policy_mask(ring_key)])
    }

    /// The policy that the second half of such a name tells.
    pub(super) fn policy_of(&self, ring_key: &TicketKey, second_half: u64) -> Policy {
        Policy(second_half ^ self.policy_mask(ring_key))
    }

    /// Wipes the keys whose ring key is gone.
    pub(super) fn forget_keys(&self, is_known: impl Fn(&KeyName) -> bool) {
        self.keys.retain(|(name, ..)| is_known(name));
        self.masks.retain(is_known);
    }

    fn policy_mask(&self, ring_key: &TicketKey) -> u64 {
        self.masks.get_or(
            |name| *name == ring_key.name(),
            || {
                let mut mask = [0; 8];
                expand(ring_key, None, b"tlsresume policy mask", &mut mask);
                (ring_key.name(), u64::from_le_bytes(mask))
            },
        )
    }
}

const AES_LEN: usize = 32;
const MAC_LEN: usize = 32;

/// The mask does not depend on the name, so that a ticket offered under another name still tells its family, and is
/// counted for the right reason.
fn derive(ring_key: &TicketKey, binding: &Binding) -> BoundKey {
    let mut secrets = Zeroizing::new([0u8; AES_LEN + MAC_LEN]);
    let mut mask = Zeroizing::new(MaskKey::default());
    expand(ring_key, Some(&binding.0), b"tlsresume bound ticket key", &mut secrets[..]);
    expand(ring_key, None, b"tlsresume family mask", &mut mask[..]);
    let (aes, mac) = secrets.split_at(AES_LEN);
    let key = TicketKey::new(ring_key.name(), Secret::new(aes), Secret::new(mac), Digest::Sha256)
        .expect("32 and 32 bytes fit");
    BoundKey { key, mask: Some(Secret::new(&mask[..])) }
}

/// HKDF (RFC 5869) from both secrets of the ring key.
fn expand(ring_key: &TicketKey, salt: Option<&[u8]>, purpose: &[u8], output: &mut [u8]) {
    let (aes, mac) = (ring_key.aes().expose(), ring_key.mac().expose());
    let len = aes.len() + mac.len();
    let mut input = Zeroizing::new([0; AES_LEN + TicketKey::MAX_MAC_LEN]);
    input[..aes.len()].copy_from_slice(aes);
    input[aes.len()..len].copy_from_slice(mac);
    Hkdf::<Sha256>::new(salt, &input[..len])
        .expand(purpose, output)
        .expect("less than HKDF's limit of 8,160 bytes");
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
        let rules = |byte| Policy::of_rules(&[byte; 32]);
        let a = bindings.binding(b"a.example", Policy::PUBLIC);
        let keys = [
            derive(&key(1), &a),
            derive(&key(1), &bindings.binding(b"b.example", Policy::PUBLIC)),
            derive(&key(1), &bindings.binding(b"A.example", Policy::PUBLIC)),
            derive(&key(1), &bindings.binding(b"a.example", rules(7))),
            derive(&key(1), &bindings.binding(b"", Policy::PUBLIC)),
            derive(&key(1), &bindings.binding(b"a.example", rules(8))),
            derive(&key(3), &a),
        ];
        for (index, one) in keys.iter().enumerate() {
            assert_eq!(one.key().name(), KeyName([1; 16]));
            assert!(
                keys[..index].iter().all(|other| other.key() != one.key()),
                "key {index} repeats an earlier one"
            );
        }
        let bound = || bindings.bound_key(&key(1), b"a.example", Policy::PUBLIC);
        assert_eq!(*bound(), keys[0]);
        assert_eq!(*bound(), keys[0], "also from the cache");
    }

    #[test]
    fn the_name_of_a_ticket_tells_its_policy_to_who_has_the_key_alone() {
        let (bindings, policy) = (Bindings::new(), Policy::of_rules(&[7; 32]));
        let name = bindings.name_for(&key(1), policy);
        let [short, masked] = name.halves();
        assert_eq!(short, key(1).name().short());
        assert_eq!(bindings.policy_of(&key(1), masked), policy);
        assert_ne!(Bindings::new().policy_of(&key(3), masked), policy, "of another key");
        assert_ne!(masked.to_le_bytes(), policy.to_bytes());
    }

    #[test]
    fn rules_are_never_taken_for_no_rules() {
        assert!(!Policy::of_rules(&[0; 32]).is_public());
        assert!(Policy::PUBLIC.is_public());
    }
}
