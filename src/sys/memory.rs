//! Allocations that may fail.
//!
//! Rust ends the process when an allocation fails, but for the few kinds that may: those here. They are for what is long
//! or lives long. What is left is small and soon freed, or is made by code that cannot be told (`Arc`, maps, texts of
//! lines), and may come from the [`reserve`].
//!
//! Owns: nothing. Called by: everybody who can do without memory. Threads and forks: no state. Failure: `None`.

use std::alloc::{Layout, alloc};
use std::ptr::NonNull;

#[cfg(feature = "reserve")]
use super::reserve;

/// A value in memory that is not of the reserve; `None` without memory.
pub(crate) fn try_box<T>(value: T) -> Option<Box<T>> {
    const { assert!(size_of::<T>() > 0) };
    // SAFETY: the layout has a size. The memory is new, fit for a T, and the Box's from here on.
    unsafe {
        let memory = try_alloc(Layout::new::<T>())?.cast::<T>();
        memory.write(value);
        Some(Box::from_raw(memory.as_ptr()))
    }
}

/// No values, and room for so many, not of the reserve; `None` without memory.
pub(crate) fn try_vec<T>(capacity: usize) -> Option<Vec<T>> {
    let layout = Layout::array::<T>(capacity).ok()?;
    if layout.size() == 0 {
        return Some(Vec::new());
    }
    // SAFETY: the layout has a size. The memory is new, fit for so many values, none of which is there yet, and the
    // vector's from here on.
    unsafe {
        let memory = try_alloc(layout)?.cast::<T>();
        Some(Vec::from_raw_parts(memory.as_ptr(), 0, capacity))
    }
}

/// Makes room for one more value, not of the reserve; false without memory.
pub(crate) fn try_grow<T>(values: &mut Vec<T>) -> bool {
    if values.len() < values.capacity() {
        return true;
    }
    let larger = try_vec((values.len() * 2).max(4));
    larger.is_some_and(|mut larger| {
        larger.append(values);
        *values = larger;
        true
    })
}

/// Whether there is memory for work that needs about so many bytes in many pieces. Others may take it meanwhile: then the
/// reserve makes up for it.
pub(crate) fn has_room(bytes: usize) -> bool {
    is_at_hand() && try_vec::<u8>(bytes).is_some()
}

/// Whether so many bytes that are soon given back are to be had: few are, be it from the reserve.
pub(crate) fn affords(bytes: usize) -> bool {
    const FEW: usize = 4 << 10;
    bytes <= FEW || has_room(bytes)
}

/// Whether most of the reserve is there. Who can do without an answer gives none where it is not.
pub(crate) fn is_at_hand() -> bool {
    #[cfg(feature = "reserve")]
    return reserve::is_at_hand();
    #[cfg(not(feature = "reserve"))]
    true
}

/// # Safety
/// The layout has a size.
unsafe fn try_alloc(layout: Layout) -> Option<NonNull<u8>> {
    // SAFETY: as the caller promises.
    let memory = NonNull::new(unsafe { alloc(layout) });
    #[cfg(feature = "reserve")]
    let memory = memory.filter(|memory| !reserve::give_back(memory.as_ptr()));
    memory
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_much_is_nothing() {
        let most = usize::MAX / 4;
        assert!(try_vec::<u8>(most).is_none() && try_vec::<u64>(most).is_none());
        assert!(!has_room(most) && !affords(most));
        assert!(has_room(1000) && affords(1000));
        assert_eq!(try_box([7u8; 100]).as_deref(), Some(&[7; 100]));
    }

    #[test]
    fn a_vector_that_grew_has_what_it_had() {
        let mut values = try_vec(0).expect("nothing is always there");
        for value in 0..100 {
            assert!(try_grow(&mut values));
            values.push(value);
        }
        assert!(values.iter().copied().eq(0..100));
    }
}
