//! Places of our own on OpenSSL's objects (CRYPTO_get_ex_new_index(3)).
//!
//! Some programs write to indexes that they never took: FreeRADIUS 3.2 uses 1 and 10 to 16 of its connections. What lies at
//! our index is therefore only taken for ours if it bears our mark; the rest is neither followed, freed nor overwritten.

use std::ffi::{c_int, c_void};
use std::ptr::{self, NonNull};

use once_cell::sync::OnceCell;

use super::sys::{self, ExDataDup, ExDataFree};
use crate::sys::memory;

/// The lowest index that we use: programs that take none write to the first ones.
const LOWEST: c_int = 2;

/// The bits of an address that programs do not have: our mark is there, and never zero.
const MARK: u32 = 48;

/// Hands a value to an OpenSSL object by `set`, which stores it at an index of ours and says whether there was room. The
/// object owns it from then on; without room or memory it is dropped.
pub(super) fn give<T>(value: T, set: impl FnOnce(*mut c_void) -> bool) -> Option<NonNull<T>> {
    let value = NonNull::from(Box::leak(memory::try_box(value)?));
    if marked(value.as_ptr()).is_some_and(set) {
        return Some(value);
    }
    // SAFETY: made above, and nobody else has it.
    drop(unsafe { Box::from_raw(value.as_ptr()) });
    None
}

/// A pointer as it is stored at an index of ours; `None` for an address that leaves no room for the mark.
fn marked<T>(value: *mut T) -> Option<*mut c_void> {
    let address = value.addr();
    (address >> MARK == 0).then(|| value.map_addr(|address| address | mark(address)).cast())
}

/// The pointer that was stored; `None` for NULL and for what others stored.
pub(super) fn unmarked<T>(stored: *mut c_void) -> Option<NonNull<T>> {
    let address = stored.addr() & ((1 << MARK) - 1);
    let is_ours = stored.addr() == address | mark(address);
    NonNull::new(stored.map_addr(|_| address).cast()).filter(|_| is_ours)
}

/// Differs from address to address, so that no pointer or number of others has it by chance.
fn mark(address: usize) -> usize {
    const ODD: usize = 0x9E37_79B9_7F4A_7C15;
    (address.wrapping_mul(ODD) | 1 << MARK) >> MARK << MARK
}

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
        self.index.get().copied()
    }

    /// The index to use; `None` when OpenSSL has none left, or no memory for one.
    pub(super) fn index(&self) -> Option<c_int> {
        let index = self.index.get_or_try_init(|| {
            let take = || {
                // SAFETY: the functions have the signatures that OpenSSL documents.
                unsafe {
                    let (argument, new) = (ptr::null_mut(), ptr::null());
                    sys::CRYPTO_get_ex_new_index(self.class, 0, argument, new, self.dup, self.free)
                }
            };
            let taken = std::iter::repeat_with(take).find(|index| !(0..LOWEST).contains(index));
            taken.filter(|index| *index >= 0).ok_or(())
        });
        index.ok().copied()
    }
}

/// What a marked object has at an index: an address that nobody else knows.
pub(super) fn a_mark() -> *mut c_void {
    static MARK: u8 = 0;
    (&raw const MARK).cast_mut().cast()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_stored_is_found_again_and_nothing_else() {
        let mut value = 7;
        let stored = marked(&raw mut value).expect("an address of a program");
        assert_eq!(unmarked(stored), Some(NonNull::from(&mut value)));
        let others = [0, 1, usize::MAX, stored.addr() + 8, (&raw mut value).addr()];
        for other in others.map(ptr::without_provenance_mut::<c_void>) {
            assert_eq!(unmarked::<i32>(other), None, "{other:?}");
        }
        assert_eq!(marked(ptr::without_provenance_mut::<i32>(1 << MARK)), None);
    }

    #[test]
    fn the_first_indexes_are_left_to_others() {
        static PLACE: Place = Place::new(sys::CRYPTO_EX_INDEX_SSL);
        assert!(PLACE.index() >= Some(LOWEST));
    }
}
