//! Bytes that must not outlive their use.
//!
//! Owns: the type for key material. Called by: everything that holds a secret. Threads and forks: a forked child has
//! copies of its parent's secrets, as it has of the certificate's key. Failure: none.

#![forbid(unsafe_code)]

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// Secret bytes of a length known at run time: wiped when dropped, compared in constant time, never printed.
#[derive(Clone)]
pub struct Secret(Zeroizing<Box<[u8]>>);

impl Secret {
    /// Copies `bytes`. The caller wipes its own copy.
    pub fn new(bytes: &[u8]) -> Self {
        Secret(Zeroizing::new(bytes.into()))
    }

    /// The bytes themselves, for the function that needs them.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// How many bytes there are (lengths are public).
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({} bytes)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_holds_no_byte_of_the_secret() {
        assert_eq!(format!("{:?}", Secret::new(b"hunter2")), "Secret(7 bytes)");
    }

    #[test]
    fn secrets_of_different_length_or_content_differ() {
        assert_eq!(Secret::new(b"abc"), Secret::new(b"abc"));
        assert_ne!(Secret::new(b"abc"), Secret::new(b"abd"));
        assert_ne!(Secret::new(b"abc"), Secret::new(b"ab"));
    }
}
