//! The secret that a session of TLS 1.2 does not have until it was judged ([`super::confirm`]).
//!
//! Owns: [`Withheld`]. Called by: the search for a session, and the judgement. Threads and forks: a value of one handshake.
//! Failure: where it cannot be taken, the session has it still.

use std::ptr::NonNull;

use openssl_sys::SSL_SESSION;
use zeroize::Zeroizing;

use super::random::random;
use super::session::{self, MASTER_KEY_LEN, Session};

/// The secret of a session that was handed out, of TLS 1.2 or older. The session itself is kept: another one may have its
/// address later.
pub(super) struct Withheld {
    session: NonNull<SSL_SESSION>,
    secret: Zeroizing<[u8; MASTER_KEY_LEN]>,
}

impl Withheld {
    /// Takes the secret out of a session, which is new, until it was judged. `None`: it has it still.
    pub(super) fn of(session: NonNull<SSL_SESSION>) -> Option<Self> {
        // SAFETY: the session is valid, and nobody else has it yet.
        unsafe {
            let found = Session::borrow(session.as_ptr())?;
            if openssl_sys::SSL_SESSION_up_ref(session.as_ptr()) != 1 {
                return None;
            }
            let secret = found.master_key();
            found.replace_master_key(&random_secret());
            Some(Withheld { session, secret })
        }
    }

    /// Gives the secret back, if this is the session that it was taken from.
    pub(super) fn give_back(&self, session: Session) {
        if self.session == session.as_non_null() {
            session.replace_master_key(&self.secret);
        }
    }
}

impl Drop for Withheld {
    fn drop(&mut self) {
        session::free(self.session);
    }
}

/// A secret that no client has.
pub(super) fn random_secret() -> Zeroizing<[u8; MASTER_KEY_LEN]> {
    let mut secret = Zeroizing::new([0; MASTER_KEY_LEN]);
    let _ = random(&mut secret[..]);
    secret
}
