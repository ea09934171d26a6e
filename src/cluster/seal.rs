//! Sealing: what leaves the host can be read, changed, moved and invented by nobody outside the cluster.
//!
//! Owns: the keys derived from the cluster's secrets, and the form of sealed bytes. Called by: `engine`'s agent, and
//! handshake threads where an answer must come from the cluster. Threads: immutable, shared freely. Forks: a child has
//! copies of the keys, as it has of the secrets. Failure: [`Refused`]; what does not open is not used.
//!
//! ```text
//! sealed:          u8 version | secret hint 4 | nonce 24 | ciphertext as long as the plain bytes | tag 16
//! key:             HKDF-SHA256(salt "tlsresume cluster", secret, "tlsresume seal " label)
//! secret hint:     HKDF-SHA256(salt "tlsresume cluster", secret, "tlsresume secret hint")
//! associated data: u8 version | u8 label | u64 length of realm | realm | id
//! ```
//! The hint is public. It picks the secret that opens, and it tells what a secret sealed that this node lacks (its file
//! is behind the others') from what was forged. The cipher is XChaCha20-Poly1305: its nonces may be random.
//! Replay is not its business: whoever opens compares times and sequences.

#![forbid(unsafe_code)]

use std::fmt;
use std::iter;

use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{AeadInOut, KeyInit, XChaCha20Poly1305};
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use super::secrets::Secrets;
use crate::secret::Secret;

/// Length of the random nonce that goes with each sealed message.
pub const NONCE_LEN: usize = 24;

/// Bytes that sealing adds at most.
pub const MAX_OVERHEAD: usize = HEADER_LEN + TAG_LEN;

const VERSION: u8 = 1;
const HINT_LEN: usize = 4;
const HEADER_LEN: usize = 1 + HINT_LEN + NONCE_LEN;
const TAG_LEN: usize = 16;
const KEY_LEN: usize = 32;

/// What a message is about. Each has keys of its own, so none passes for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Label {
    /// The ring.
    Ring = 0,
    /// A session on its way to every node.
    Session = 1,
    /// What nodes tell about themselves.
    Control = 2,
    /// The mark that an early-data ticket was seen.
    Strike = 3,
    /// A session that waits to be looked up. It is not one that every node takes in: where a session may be used once
    /// only, whoever has Redis could hand out what one node is to take away.
    Lookup = 4,
}

impl Label {
    /// All of them, by number.
    pub const ALL: [Label; 5] =
        [Label::Ring, Label::Session, Label::Control, Label::Strike, Label::Lookup];

    fn name(self) -> &'static str {
        match self {
            Label::Ring => "ring",
            Label::Session => "session",
            Label::Control => "control",
            Label::Strike => "strike",
            Label::Lookup => "lookup",
        }
    }
}

/// Tells one secret from another, and nothing of it: it goes with everything that is sealed, for all to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SecretId(pub [u8; HINT_LEN]);

impl SecretId {
    /// The secret that is said to have sealed this, by whoever wrote it. `None`: it is not sealed in a known format.
    pub fn said_to_seal(sealed: &[u8]) -> Option<Self> {
        Sealed::parse(sealed).map(|sealed| SecretId(sealed.hint))
    }
}

impl fmt::Display for SecretId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Why sealed bytes were not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Too short, or of a version that this one does not know.
    #[error("not sealed in a known format")]
    Format,
    /// None of our secrets sealed it: the nodes' secret files differ.
    #[error("sealed with a secret that this node does not have")]
    Secret,
    /// One of our secrets is said to have sealed it, but not these bytes for this place.
    #[error("forged, damaged, or moved from its place")]
    Forged,
}

/// Seals and opens what one realm shares.
pub struct Sealer {
    realm: Box<str>,
    first: Keys,
    others: Vec<Keys>,
}

impl Sealer {
    /// A sealer for the realm: the first secret seals, all open.
    pub fn new(secrets: &Secrets, realm: &str) -> Self {
        Sealer {
            realm: realm.into(),
            first: Keys::derive(secrets.first()),
            others: secrets.iter().skip(1).map(Keys::derive).collect(),
        }
    }

    /// The plain bytes, sealed in the place that `label` and `id` name. A nonce is random and used once.
    pub fn seal(&self, label: Label, id: &[u8], plain: &[u8], nonce: [u8; NONCE_LEN]) -> Vec<u8> {
        // Reserved in full: a vector that grew would leave plain bytes behind.
        let mut out = Vec::with_capacity(plain.len() + MAX_OVERHEAD);
        out.push(VERSION);
        out.extend_from_slice(&self.first.hint);
        out.extend_from_slice(&nonce);
        out.extend_from_slice(plain);
        let place = self.place(label, id);
        let cipher = self.first.cipher(label);
        let tag = cipher
            .encrypt_inout_detached(&nonce.into(), &place, (&mut out[HEADER_LEN..]).into())
            .expect("messages are shorter than 256 GiB");
        out.extend_from_slice(&tag);
        out
    }

    /// The plain bytes that were sealed in the place that `label` and `id` name.
    ///
    /// # Errors
    /// They were not, or not with a secret that this node has.
    pub fn open(
        &self,
        label: Label,
        id: &[u8],
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, Refused> {
        let sealed = Sealed::parse(sealed).ok_or(Refused::Format)?;
        let place = self.place(label, id);
        // Two secrets may have one hint.
        let mut known = self.all().filter(|keys| keys.hint == sealed.hint).peekable();
        known.peek().ok_or(Refused::Secret)?;
        known.find_map(|keys| keys.open(label, &place, &sealed)).ok_or(Refused::Forged)
    }

    /// Whether the secret that seals here is said to have sealed this too.
    pub fn seals_like(&self, sealed: &[u8]) -> bool {
        SecretId::said_to_seal(sealed) == Some(self.seals_with())
    }

    /// The secret that seals here.
    pub fn seals_with(&self) -> SecretId {
        SecretId(self.first.hint)
    }

    /// Whether that secret opens here.
    pub fn has(&self, secret: SecretId) -> bool {
        self.all().any(|keys| keys.hint == secret.0)
    }

    fn all(&self) -> impl Iterator<Item = &Keys> {
        iter::once(&self.first).chain(&self.others)
    }

    /// The associated data. What varies in length but for the last has its length before it, so that no two places
    /// have the same.
    fn place(&self, label: Label, id: &[u8]) -> Vec<u8> {
        let realm_len = self.realm.len() as u64;
        [&[VERSION, label as u8], &realm_len.to_le_bytes()[..], self.realm.as_bytes(), id].concat()
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealer({:?}, {} secrets)", self.realm, self.all().count())
    }
}

/// What is derived from one secret.
struct Keys {
    hint: [u8; HINT_LEN],
    /// By label.
    keys: [Secret; Label::ALL.len()],
}

impl Keys {
    fn derive(secret: &Secret) -> Self {
        let kdf = Hkdf::<Sha256>::new(Some(b"tlsresume cluster"), secret.expose());
        let mut hint = [0; HINT_LEN];
        kdf.expand(b"tlsresume secret hint", &mut hint).expect("4 bytes are within HKDF's limit");
        Keys { hint, keys: Label::ALL.map(|label| derive_key(&kdf, label)) }
    }

    fn open(&self, label: Label, place: &[u8], sealed: &Sealed<'_>) -> Option<Zeroizing<Vec<u8>>> {
        let payload = Payload { msg: sealed.body, aad: place };
        self.cipher(label).decrypt(&sealed.nonce.into(), payload).ok().map(Zeroizing::new)
    }

    /// Wipes its copy of the key when it is dropped.
    fn cipher(&self, label: Label) -> XChaCha20Poly1305 {
        let key = self.keys[label as usize].expose();
        XChaCha20Poly1305::new_from_slice(key).expect("keys are made with 32 bytes")
    }
}

fn derive_key(kdf: &Hkdf<Sha256>, label: Label) -> Secret {
    let mut key = Zeroizing::new([0; KEY_LEN]);
    kdf.expand_multi_info(&[b"tlsresume seal ", label.name().as_bytes()], &mut key[..])
        .expect("32 bytes are within HKDF's limit");
    Secret::new(&key[..])
}

/// Sealed bytes in their parts.
struct Sealed<'a> {
    hint: [u8; HINT_LEN],
    nonce: [u8; NONCE_LEN],
    /// Ciphertext and tag.
    body: &'a [u8],
}

impl<'a> Sealed<'a> {
    /// `None` unless all parts are there and the version is known.
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (version, rest) = bytes.split_first()?;
        let (hint, rest) = rest.split_first_chunk()?;
        let (nonce, body) = rest.split_first_chunk()?;
        let complete = *version == VERSION && body.len() >= TAG_LEN;
        complete.then_some(Sealed { hint: *hint, nonce: *nonce, body })
    }
}
