//! Which function a pointer means, in a way that is the same in every process: the file that it lies in, and where.
//!
//! Another file may be loaded at the same address later (dlclose(3)), so what is known holds for one object.
//!
//! Owns: a cache of the functions asked for last. Called by: [`super::rules`]. Threads and forks: nobody waits; who
//! finds the cache in use asks the dynamic linker again. Failure: `None`.

use std::ffi::c_void;

use crate::recent::Recent;
use crate::sys::{self, Object};

/// How many functions a process remembers.
const REMEMBERED: usize = 16;

/// The file and the function's place in it.
type Identity = Box<[u8]>;

#[derive(Clone, Copy, PartialEq, Eq)]
struct Known {
    address: usize,
    object: Object,
}

/// The identity of a function; `None` where it lies in no file, as those that a program generates.
///
/// The same program of another version has its functions at other places: its sessions are then those of other rules.
pub(super) fn identity(function: *const c_void) -> Option<Identity> {
    static KNOWN: Recent<Known, Option<Identity>, REMEMBERED> = Recent::new();
    let known = Known { address: function.addr(), object: sys::object_around(function) };
    KNOWN.get_or(|other| *other == known, || (known, find(function)))
}

fn find(function: *const c_void) -> Option<Identity> {
    let (file, offset) = sys::file_of(function)?;
    Some([&file[..], b"+", &offset.to_le_bytes()].concat().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_differ_and_stay_themselves() {
        let [one, other] = [identity as *const c_void, find as *const c_void];
        assert_eq!(identity(one), identity(one));
        assert_ne!(identity(one), identity(other));
        assert!(identity(one).is_some());
    }

    #[test]
    fn what_lies_in_no_file_has_no_identity() {
        let memory = Box::new(0u8);
        assert_eq!(identity(std::ptr::from_ref(&*memory).cast()), None);
    }
}
