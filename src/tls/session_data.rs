//! Under which indexes a session may have data of the application (SSL_SESSION_set_ex_data(3)).
//!
//! An application may use any index, and OpenSSL does not tell the highest one in use without taking another, which makes
//! each new session dearer. So it is found out once in a process where sessions have the list of such data: a session of
//! our own is given some, and the word that changes is the list. Reading it is a load at a place that every session has.
//!
//! Owns: the place. Called by: [`super::session`] and [`super::template`]; attaching has it found. Threads and forks: found
//! out once, and inherited. Failure: where it is not known, the first indexes are looked at.

use std::ffi::{c_int, c_void};
use std::ops::Range;

use once_cell::race::OnceBox;
use openssl_sys::SSL_SESSION;

use super::sys;

/// How many words at the start of a session are looked at: fewer than the smallest of any version has.
const WORDS: usize = if cfg!(ossl300) { 108 } else { 76 };

/// Where the place is not known.
const FIRST: Range<c_int> = 0..256;

static PLACE: OnceBox<Option<usize>> = OnceBox::new();

/// To be called before the process forks, so that its children inherit the answer.
pub(super) fn find_out() {
    PLACE.get_or_init(|| Box::new(find()));
}

/// The indexes under which a session may have data.
///
/// # Safety
/// `session` is valid, and nobody else changes it.
pub(super) unsafe fn indexes(session: *mut SSL_SESSION) -> Range<c_int> {
    let Some(Some(place)) = PLACE.get() else { return FIRST };
    // SAFETY: the session is valid (caller) and of the type that the place was found out on; what is there is NULL or a
    // list, whose length is asked for. That of NULL is negative.
    unsafe { 0..openssl_sys::OPENSSL_sk_num(word_at(session, *place).cast()) }
}

/// The one word that changes when a session gets data.
fn find() -> Option<usize> {
    // SAFETY: the session is ours and freed once, and has more words than are looked at; nobody follows the data.
    unsafe {
        let sample = sys::SSL_SESSION_new();
        if sample.is_null() {
            return None;
        }
        let words = || std::array::from_fn::<_, WORDS, _>(|at| word_at(sample, at));
        let before = words();
        let index = 0;
        let is_set = sys::SSL_SESSION_set_ex_data(sample, index, sample.cast()) == 1;
        let after = words();
        let mut changed = (0..WORDS).filter(|at| before[*at] != after[*at]);
        let place = changed.next().filter(|at| is_set && before[*at].is_null());
        let only = place.filter(|_| changed.next().is_none());
        sys::SSL_SESSION_set_ex_data(sample, index, std::ptr::null_mut());
        openssl_sys::SSL_SESSION_free(sample);
        only
    }
}

/// # Safety
/// `session` points to a session, which is aligned as pointers are and has more words than `at`.
unsafe fn word_at(session: *mut SSL_SESSION, at: usize) -> *const c_void {
    // SAFETY: as the caller promises. Volatile: OpenSSL writes there without our compiler's knowledge.
    unsafe { session.cast::<*const c_void>().add(at).read_volatile() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_at_any_index_is_in_the_range() {
        find_out();
        // SAFETY: the session is ours; nobody follows the data.
        unsafe {
            let session = sys::SSL_SESSION_new();
            assert!(indexes(session).is_empty(), "{:?}", indexes(session));
            for index in [3, 40, 3000] {
                assert_eq!(sys::SSL_SESSION_set_ex_data(session, index, session.cast()), 1);
                assert_eq!(indexes(session), 0..index + 1);
            }
            openssl_sys::SSL_SESSION_free(session);
        }
    }
}
