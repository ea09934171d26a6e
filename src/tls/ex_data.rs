//! Places of our own on OpenSSL's objects (CRYPTO_get_ex_new_index(3)).

use std::ffi::c_int;
use std::ptr;

use once_cell::sync::OnceCell;

use super::sys::{self, ExDataDup, ExDataFree};

/// Our place on the objects of one class, taken once in a process.
pub(super) struct Place {
    class: c_int,
    dup: Option<ExDataDup>,
    free: Option<ExDataFree>,
    index: OnceCell<c_int>,
}

impl Place {
    /// For values without an owner: copies of the object have them too, and nobody frees them.
    pub(super) const fn new(class: c_int) -> Self {
        Place { class, dup: None, free: None, index: OnceCell::new() }
    }

    /// For values that go with their object.
    pub(super) const fn freed_by(class: c_int, free: ExDataFree) -> Self {
        Place { free: Some(free), ..Place::new(class) }
    }

    /// What a copy of the object gets.
    pub(super) const fn copied_by(self, dup: ExDataDup) -> Self {
        Place { dup: Some(dup), ..self }
    }

    /// The index, if it was ever used. Taking it makes each new object of the class a thousand instructions dearer.
    pub(super) fn used(&self) -> Option<c_int> {
        self.index.get().copied().filter(|index| *index >= 0)
    }

    /// The index to use; `None` when OpenSSL has none left.
    pub(super) fn index(&self) -> Option<c_int> {
        let index = self.index.get_or_init(|| {
            // SAFETY: the functions have the signatures that OpenSSL documents.
            unsafe {
                let (argument, new) = (ptr::null_mut(), ptr::null());
                sys::CRYPTO_get_ex_new_index(self.class, 0, argument, new, self.dup, self.free)
            }
        });
        (*index >= 0).then_some(*index)
    }
}
