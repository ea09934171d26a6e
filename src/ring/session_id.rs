//! Session ids that prove they came from this realm, so that invented ones cost no lookup anywhere.
//!
//! An id is 24 bytes and an 8-byte tag of them: SipHash-2-4, which is a MAC for short inputs, under the realm's id key.
//! 16 of the 24 are random, and 8 name the session's [`super::Family`] to who has the key. 32 bytes is the only length
//! that TLS 1.3 stateful tickets resume with, and the most that TLS 1.2 allows.

use siphasher::sip::SipHasher24;

use super::key::KeyName;
use crate::secret::Secret;

/// The key that families are masked with.
pub type MaskKey = [u8; 16];

/// The random part of a session id: what the store finds a session by.
pub type SessionKey = [u8; SESSION_KEY_LEN];

/// Bytes in a [`SessionKey`].
pub const SESSION_KEY_LEN: usize = 24;

/// Bytes in a whole session id.
pub const SESSION_ID_LEN: usize = 32;

const TAG_LEN: usize = SESSION_ID_LEN - SESSION_KEY_LEN;

/// The key that tags a realm's session ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdKey {
    name: KeyName,
    secret: Secret,
}

impl IdKey {
    /// Bytes in the secret.
    pub const LEN: usize = 16;

    /// A key of that name.
    pub fn new(name: KeyName, secret: &[u8; Self::LEN]) -> Self {
        IdKey { name, secret: Secret::new(secret) }
    }

    /// The public name.
    pub fn name(&self) -> KeyName {
        self.name
    }

    /// The 16 secret bytes.
    pub fn secret(&self) -> &[u8] {
        self.secret.expose()
    }

    /// The session id of a session whose random part is `key`.
    pub fn session_id(&self, key: &SessionKey) -> [u8; SESSION_ID_LEN] {
        let mut id = [0; SESSION_ID_LEN];
        id[..SESSION_KEY_LEN].copy_from_slice(key);
        id[SESSION_KEY_LEN..].copy_from_slice(&self.tag(key));
        id
    }

    /// What families in ids of this key are masked with. Tags hash 24 bytes, bindings 32 and masks 16: SipHash takes
    /// the length in, so none is ever another.
    pub fn mask(&self) -> &MaskKey {
        self.secret.expose().first_chunk().expect("made with 16 bytes")
    }

    /// Whether this key made `id`.
    pub fn made(&self, id: &[u8; SESSION_ID_LEN]) -> bool {
        let (key, tag) = split(id);
        subtle::ConstantTimeEq::ct_eq(&self.tag(key)[..], &tag[..]).into()
    }

    /// The 8 bytes that a stored session carries of its binding. They are keyed: nobody outside can search for another
    /// server name with the same ones.
    pub fn bind(&self, binding: &[u8; 32]) -> u64 {
        self.hasher().hash(binding)
    }

    fn tag(&self, key: &SessionKey) -> [u8; TAG_LEN] {
        self.hasher().hash(key).to_le_bytes()
    }

    fn hasher(&self) -> SipHasher24 {
        SipHasher24::new_with_key(self.mask())
    }
}

/// The random part of an id.
pub fn session_key(id: &[u8; SESSION_ID_LEN]) -> &SessionKey {
    split(id).0
}

fn split(id: &[u8; SESSION_ID_LEN]) -> (&SessionKey, &[u8; TAG_LEN]) {
    let (key, tag) = id.split_first_chunk::<SESSION_KEY_LEN>().expect("24 of 32 bytes");
    (key, tag.first_chunk().expect("the other 8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_known_by_the_key_that_made_it_and_by_no_other() {
        let key = IdKey::new(KeyName([1; 16]), &[7; 16]);
        let other = IdKey::new(KeyName([1; 16]), &[8; 16]);
        let id = key.session_id(&[9; 24]);
        assert!(key.made(&id));
        assert!(!other.made(&id));
        assert_eq!(session_key(&id), &[9; 24]);
    }

    #[test]
    fn a_flipped_bit_anywhere_makes_an_id_foreign() {
        let key = IdKey::new(KeyName([1; 16]), &[7; 16]);
        let id = key.session_id(&[9; 24]);
        for bit in 0..SESSION_ID_LEN * 8 {
            let mut forged = id;
            forged[bit / 8] ^= 1 << (bit % 8);
            assert!(!key.made(&forged), "bit {bit}");
        }
    }
}
