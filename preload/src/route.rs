//! Which libssl an object belongs to: its functions are the ones to call.
//!
//! Nearly every process has one libssl, and then there is nothing to look up. The first supported one is the library's;
//! contexts and connections of any other are remembered by their addresses, since no OpenSSL tells whose an object is.
//! An address that is used again is the new object's.

use core::ffi::c_void;
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

use crate::library;
use crate::libssl::Libssl;
use crate::sys::SSL_METHOD;

/// The libssl that the library works with.
static SERVED: AtomicPtr<Libssl> = AtomicPtr::new(ptr::null_mut());

/// Whether there are objects of any other.
static OTHERS: AtomicBool = AtomicBool::new(false);

const BUCKETS: usize = 256;
static OBJECTS: [AtomicPtr<Object>; BUCKETS] = [const { AtomicPtr::new(ptr::null_mut()) }; BUCKETS];

/// An object and its libssl; never freed.
struct Object {
    address: usize,
    owner: AtomicPtr<Libssl>,
    next: *mut Object,
}

/// The libssl that a method is of; the library is loaded if it can be of use there.
pub fn of_method(method: *const SSL_METHOD) -> Option<&'static Libssl> {
    let libssl = Libssl::around(method.cast())?;
    if libssl.is_supported() {
        let none = ptr::null_mut();
        let this = ptr::from_ref(libssl).cast_mut();
        let _ = SERVED.compare_exchange(none, this, Ordering::AcqRel, Ordering::Relaxed);
    }
    if is_served(libssl) && !libssl.is_client_method(method) {
        library::take_over(libssl);
    }
    Some(libssl)
}

/// The libssl that a context or connection is of.
pub fn of_object(object: *const c_void) -> Option<&'static Libssl> {
    if OTHERS.load(Ordering::Acquire)
        && let Some(object) = find(object)
    {
        // SAFETY: NULL never; libraries are never freed.
        return unsafe { object.owner.load(Ordering::Acquire).as_ref() };
    }
    // SAFETY: NULL, or a library that is never freed.
    unsafe { SERVED.load(Ordering::Acquire).as_ref() }.or_else(Libssl::of_the_program)
}

/// A context or connection was made.
pub fn note(object: *const c_void, libssl: &'static Libssl) {
    if object.is_null() {
        return;
    }
    let owner = ptr::from_ref(libssl).cast_mut();
    if OTHERS.load(Ordering::Acquire)
        && let Some(object) = find(object)
    {
        object.owner.store(owner, Ordering::Release);
    } else if !is_served(libssl) {
        remember(object, owner);
    }
}

fn is_served(libssl: &Libssl) -> bool {
    ptr::eq(SERVED.load(Ordering::Acquire), libssl)
}

fn find(object: *const c_void) -> Option<&'static Object> {
    // SAFETY: the lists have only objects that were put there whole, and are never freed.
    let first = unsafe { bucket(object).load(Ordering::Acquire).as_ref() };
    // SAFETY: as above.
    let mut all = core::iter::successors(first, |object| unsafe { object.next.as_ref() });
    all.find(|other| other.address == object.addr())
}

fn remember(object: *const c_void, owner: *mut Libssl) {
    // SAFETY: fresh memory of the right size, which malloc aligns for anything.
    let place = unsafe { libc::malloc(size_of::<Object>()) }.cast::<Object>();
    if place.is_null() {
        return;
    }
    let bucket = bucket(object);
    let mut next = bucket.load(Ordering::Acquire);
    loop {
        let entry = Object { address: object.addr(), owner: AtomicPtr::new(owner), next };
        // SAFETY: ours alone until it is in the list.
        unsafe { place.write(entry) };
        match bucket.compare_exchange(next, place, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => break,
            Err(newer) => next = newer,
        }
    }
    OTHERS.store(true, Ordering::Release);
}

fn bucket(object: *const c_void) -> &'static AtomicPtr<Object> {
    // Addresses from malloc are multiples of 16.
    let number = (object.addr() >> 4) ^ (object.addr() >> 12);
    #[allow(clippy::indexing_slicing, reason = "within the table by the remainder")]
    &OBJECTS[number % BUCKETS]
}
