//! What all tickets and session ids of one full handshake have in common.
//!
//! A family is 8 bytes: when its lifetime is over, and a number. Tickets carry it in their initialisation
//! vector, session ids in their random part, both masked with a key of the ring, so that nobody outside can tell which
//! of them belong together, and the vector stays unpredictable, as CBC needs it (NIST SP 800-38A, appendix C). So what
//! ends a family, its age or its removal, is known before a ticket is decrypted.
//!
//! Owns: the form of families in vectors and ids. Called by: `ring`, `engine` and `tls`. Threads and forks: a
//! [`Family`] is a value. Failure: none; unmasked with another key it is some other family.

use std::hash::Hasher;

use sha2::{Digest, Sha256};
use siphasher::sip::SipHasher13;

use super::session_id::{MaskKey, SessionKey};
use crate::clock::UnixMillis;

/// One full handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Family {
    /// The last second, since 1970, in which its sessions may be resumed.
    ends: u32,
    /// Tells it from others of the same second. Two that have the same number by chance are removed together.
    number: u32,
}

/// Bytes of a ticket's initialisation vector: the block of AES.
pub const VECTOR_LEN: usize = 16;

impl Family {
    /// The family of a full handshake whose sessions end then.
    pub fn new(ends: UnixMillis, number: u32) -> Self {
        Family { ends: u32::try_from(ends.secs()).unwrap_or(u32::MAX), number }
    }

    /// The last second in which its sessions may be resumed.
    pub fn ends(self) -> UnixMillis {
        UnixMillis::from_secs(self.ends.into())
    }

    /// What the store finds the removal of a family by. A digest, for the store spreads its records by all of a key.
    pub fn removal_key(self) -> SessionKey {
        let digest = Sha256::new_with_prefix(b"tlsresume family removed 1\0")
            .chain_update(self.to_bits().to_le_bytes())
            .finalize();
        digest.first_chunk().copied().unwrap_or_default()
    }

    /// A ticket's initialisation vector: half of the 16 random bytes, and the family.
    pub fn vector(self, mask: &MaskKey, random: &[u8; VECTOR_LEN]) -> [u8; VECTOR_LEN] {
        let mut vector = *random;
        let (head, tail) = vector.split_at_mut(8);
        tail.copy_from_slice(&self.masked(mask, head).to_le_bytes());
        vector
    }

    /// The family that a vector names. Any bytes name one: the ticket's MAC says whether it is true.
    pub fn of_vector(mask: &MaskKey, vector: &[u8; VECTOR_LEN]) -> Self {
        let (head, tail) = vector.split_at(8);
        Self::unmasked(mask, head, tail)
    }

    /// The random part of a session id: 16 of the random bytes, and the family.
    pub fn session_key(self, mask: &MaskKey, random: &SessionKey) -> SessionKey {
        let mut key = *random;
        let (head, tail) = key.split_at_mut(16);
        tail.copy_from_slice(&self.masked(mask, head).to_le_bytes());
        key
    }

    /// The family that the random part of a session id names. Any bytes name one: the id's tag says whether it is true.
    pub fn of_session_key(mask: &MaskKey, key: &SessionKey) -> Self {
        let (head, tail) = key.split_at(16);
        Self::unmasked(mask, head, tail)
    }

    fn to_bits(self) -> u64 {
        u64::from(self.ends) << 32 | u64::from(self.number)
    }

    fn masked(self, mask: &MaskKey, head: &[u8]) -> u64 {
        self.to_bits() ^ hash(mask, head)
    }

    fn unmasked(mask: &MaskKey, head: &[u8], tail: &[u8]) -> Self {
        let tail = tail.first_chunk().copied().unwrap_or_default();
        let [a, b, c, d, e, f, g, h] = (u64::from_le_bytes(tail) ^ hash(mask, head)).to_be_bytes();
        Family { ends: u32::from_be_bytes([a, b, c, d]), number: u32::from_be_bytes([e, f, g, h]) }
    }
}

fn hash(key: &MaskKey, input: &[u8]) -> u64 {
    let mut hasher = SipHasher13::new_with_key(key);
    hasher.write(input);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MASK: MaskKey = [7; 16];

    fn family() -> Family {
        Family::new(UnixMillis::from_secs(1_700_000_000), 0x0102_0304)
    }

    #[test]
    fn a_vector_and_an_id_give_back_the_family_under_its_mask_and_no_other() {
        let (vector, key) =
            (family().vector(&MASK, &[9; 16]), family().session_key(&MASK, &[9; 24]));
        assert_eq!(Family::of_vector(&MASK, &vector), family());
        assert_eq!(Family::of_session_key(&MASK, &key), family());
        assert_ne!(Family::of_vector(&[8; 16], &vector), family());
        assert_eq!((&vector[..8], &key[..16]), (&[9; 8][..], &[9; 16][..]), "the rest is random");
    }

    #[test]
    fn members_of_a_family_do_not_look_alike() {
        let [one, other] = [[1; 16], [2; 16]].map(|random| family().vector(&MASK, &random));
        assert_ne!(one[8..], other[8..]);
    }

    #[test]
    fn removals_of_two_families_differ_in_every_word_that_the_store_spreads_records_by() {
        let other = Family::new(family().ends(), 5);
        let [one, other] = [family().removal_key(), other.removal_key()];
        assert!(one.as_chunks::<8>().0.iter().zip(other.as_chunks::<8>().0).all(|(a, b)| a != b));
    }

    #[test]
    fn it_knows_when_it_ends() {
        assert_eq!(family().ends(), UnixMillis::from_secs(1_700_000_000));
    }
}
