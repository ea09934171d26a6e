//! The files that are loaded: the program and its libraries, as the dynamic linker has them.
//!
//! Owns: nothing. Called by: `tls`, to know a callback's function again. Threads and forks: what is asked for often
//! ([`object_around`]) asks for no lock of the dynamic linker's; the rest takes the one that a child begins with free.
//! No memory of a file is read: an address may be of one that is being unloaded. Failure: `None`.

use std::ffi::{CStr, c_int, c_ulong, c_void};
use std::mem::zeroed;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What glibc 2.35 and later know of the object that an address lies in; zeros elsewhere. Another file that is loaded in
/// the place of one has other values, unless it is like it in all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Object {
    begin: usize,
    end: usize,
    link_map: usize,
    eh_frame: usize,
}

/// Where the object (program or library) begins that an address lies in; `None` when it lies in none.
pub(crate) fn object_of(address: *const c_void) -> Option<usize> {
    found(address).map(|found| found.dli_fbase.addr())
}

/// The file that code at an address was loaded from, and where in it that is; `None` when the address lies in no file. A
/// library is known by its path, the program by its name: it may be called by any path.
pub(crate) fn file_of(address: *const c_void) -> Option<(Vec<u8>, usize)> {
    let found = found(address).filter(|found| !found.dli_fname.is_null())?;
    // SAFETY: a C string that lives as long as the file is loaded, which it is while its code is somebody's callback.
    #[allow(clippy::disallowed_methods, reason = "checked not to be null")]
    let path = unsafe { CStr::from_ptr(found.dli_fname) }.to_bytes();
    let base = found.dli_fbase.addr();
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let file = if Some(base) == program() { name } else { path };
    Some((file.to_vec(), address.addr().wrapping_sub(base)))
}

/// What is known without a lock of the object that an address lies in.
pub(crate) fn object_around(address: *const c_void) -> Object {
    let Some(find) = find_object() else { return Object::default() };
    // SAFETY: the structure is plain data, longer than what the function fills; no address is followed.
    unsafe {
        let mut found = zeroed::<FoundObject>();
        if find(address.cast_mut(), &raw mut found) != 0 {
            return Object::default();
        }
        let FoundObject { begin, end, link_map, eh_frame, .. } = found;
        let [begin, end, link_map, eh_frame] = [begin, end, link_map, eh_frame].map(<*mut _>::addr);
        Object { begin, end, link_map, eh_frame }
    }
}

/// Where the program itself begins.
fn program() -> Option<usize> {
    const AT_PHDR: c_ulong = 3;
    // SAFETY: reads what the kernel gave this process.
    let headers = unsafe { libc::getauxval(AT_PHDR) };
    object_of(std::ptr::without_provenance(usize::try_from(headers).ok()?))
}

fn found(address: *const c_void) -> Option<libc::Dl_info> {
    // SAFETY: the structure is plain data that the call fills; no address is followed.
    unsafe {
        let mut found = zeroed::<libc::Dl_info>();
        (libc::dladdr(address, &raw mut found) != 0).then_some(found)
    }
}

/// What `_dl_find_object()` fills in, and room for what later versions add.
#[repr(C)]
struct FoundObject {
    flags: u64,
    begin: *mut c_void,
    end: *mut c_void,
    link_map: *mut c_void,
    eh_frame: *mut c_void,
    others: [u64; 16],
}

type FindObject = unsafe extern "C" fn(*mut c_void, *mut FoundObject) -> c_int;

fn find_object() -> Option<FindObject> {
    const UNKNOWN: usize = 0;
    const NONE: usize = 1;
    static ADDRESS: AtomicUsize = AtomicUsize::new(UNKNOWN);
    if ADDRESS.load(Ordering::Relaxed) == UNKNOWN {
        // SAFETY: the name is a C string.
        let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"_dl_find_object".as_ptr()) };
        ADDRESS.store(found.expose_provenance().max(NONE), Ordering::Relaxed);
    }
    match ADDRESS.load(Ordering::Relaxed) {
        NONE => None,
        // SAFETY: glibc's function of that name has this signature.
        address => Some(unsafe {
            std::mem::transmute::<*const c_void, FindObject>(std::ptr::with_exposed_provenance(
                address,
            ))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_known_by_its_name_a_library_by_its_path_and_what_is_none_is_not() {
        let here = object_of as *const c_void;
        let (file, offset) = file_of(here).expect("in a file");
        assert!(offset > 0 && object_of(here).expect("in an object") + offset == here.addr());
        assert!(!file.contains(&b'/'), "the program's name");
        let (library, _) = file_of(libc::dlsym as *const c_void).expect("in a file");
        assert!(library.starts_with(b"/"), "a library's path");
        assert_eq!(file_of((&raw const offset).cast()), None);
    }

    #[test]
    fn functions_of_one_file_lie_in_one_object() {
        let [one, other] =
            [object_of as *const c_void, file_of as *const c_void].map(object_around);
        assert_eq!(one, other);
        if one != Object::default() {
            assert_ne!(object_around(libc::dlsym as *const c_void), one);
        }
    }
}
