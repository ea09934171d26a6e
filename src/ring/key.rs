//! One ticket key: the name that a ticket carries in clear, and the secrets that it names.

use std::fmt;

use crate::secret::Secret;

/// The 16 bytes at the start of a ticket that say which key made it (RFC 5077 section 4). Public.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyName(pub [u8; KeyName::LEN]);

impl KeyName {
    /// Bytes in a key name.
    pub const LEN: usize = 16;

    /// Half as long, for tickets that say more than their key. Of both halves, for imported names may differ in one
    /// only.
    pub fn short(&self) -> u64 {
        let [first, second] = self.halves();
        first ^ second
    }

    /// The name on a ticket: a short name, and 8 bytes more.
    pub fn from_halves(halves: [u64; 2]) -> Self {
        let mut name = [0; Self::LEN];
        let (first, second) = name.split_at_mut(8);
        first.copy_from_slice(&halves[0].to_le_bytes());
        second.copy_from_slice(&halves[1].to_le_bytes());
        KeyName(name)
    }

    /// Its first and its last 8 bytes.
    pub fn halves(&self) -> [u64; 2] {
        let (first, second) = self.0.split_at(8);
        [first, second]
            .map(|half| u64::from_le_bytes(half.first_chunk().copied().unwrap_or_default()))
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyName({self})")
    }
}

/// The hash under HMAC that authenticates a ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Digest {
    /// HMAC-SHA256: every key that is made here, and most imported ones.
    Sha256,
    /// HMAC-SHA1: only in imported keys (H2O's `hash: sha1`).
    Sha1,
}

/// The secrets under one [`KeyName`]: AES-CBC key and HMAC key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TicketKey {
    name: KeyName,
    aes: Secret,
    mac: Secret,
    digest: Digest,
}

impl TicketKey {
    /// Longest HMAC key: the block size of SHA-256 and SHA-1.
    pub const MAX_MAC_LEN: usize = 64;

    /// A key from its parts, or `None` when `aes` is not 16 or 32 bytes (AES-128, AES-256) or `mac` is not 1 to 64.
    pub fn new(name: KeyName, aes: Secret, mac: Secret, digest: Digest) -> Option<Self> {
        let fits = matches!(aes.len(), 16 | 32) && (1..=Self::MAX_MAC_LEN).contains(&mac.len());
        fits.then_some(TicketKey { name, aes, mac, digest })
    }

    /// The public name.
    pub fn name(&self) -> KeyName {
        self.name
    }

    /// The AES-CBC key: 16 or 32 bytes.
    pub fn aes(&self) -> &Secret {
        &self.aes
    }

    /// The HMAC key: 1 to 64 bytes.
    pub fn mac(&self) -> &Secret {
        &self.mac
    }

    /// The hash that the HMAC uses.
    pub fn digest(&self) -> Digest {
        self.digest
    }
}
