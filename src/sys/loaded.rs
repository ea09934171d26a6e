//! The files that are loaded: the program and its libraries, as the dynamic linker has them.
//!
//! Owns: nothing. Called by: `tls`, to know a callback's function again. Threads: the dynamic linker's lock is taken for the
//! length of a call, as by every exception that is thrown. Forks: any. Failure: `None`, or a number that never changes.

use std::ffi::{CStr, c_int, c_void};
use std::mem::zeroed;

use libc::dl_phdr_info;

#[cfg(target_pointer_width = "32")]
use libc::Elf32_Phdr as Segment;
#[cfg(target_pointer_width = "64")]
use libc::Elf64_Phdr as Segment;

/// Where the object (program or library) begins that an address lies in; `None` when it lies in none.
pub(crate) fn object_of(address: *const c_void) -> Option<usize> {
    found(address).map(|found| found.dli_fbase.addr())
}

/// The file that code at an address was loaded from, by its name (without its directory) and its build id, if it has one,
/// and where in it that is; `None` when the address lies in no file.
pub(crate) fn file_of(address: *const c_void) -> Option<(Vec<u8>, usize)> {
    let found = found(address).filter(|found| !found.dli_fname.is_null())?;
    // SAFETY: a C string that lives as long as the file is loaded, which it is while its code is somebody's callback.
    #[allow(clippy::disallowed_methods, reason = "checked not to be null")]
    let path = unsafe { CStr::from_ptr(found.dli_fname) }.to_bytes();
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let base = found.dli_fbase.addr();
    let file = [name, b"\0", &build_id(base).unwrap_or_default()].concat();
    Some((file, address.addr().wrapping_sub(base)))
}

fn found(address: *const c_void) -> Option<libc::Dl_info> {
    // SAFETY: the structure is plain data that the call fills; no address is followed.
    unsafe {
        let mut found = zeroed::<libc::Dl_info>();
        (libc::dladdr(address, &raw mut found) != 0).then_some(found)
    }
}

/// How many files have been unloaded: another one may be at the place of each.
pub(crate) fn unloaded_files() -> u64 {
    let mut unloaded = 0;
    for_each_file(&mut |file| {
        unloaded = file.dlpi_subs;
        true
    });
    unloaded
}

/// The build id of the file that begins at an address.
fn build_id(base: usize) -> Option<Vec<u8>> {
    let mut id = None;
    for_each_file(&mut |file| {
        let segments = segments(file);
        let begin = segments
            .iter()
            .find(|it| it.p_type == libc::PT_LOAD)
            .map_or(0, |it| usize::try_from(it.p_vaddr.wrapping_sub(it.p_offset)).unwrap_or(0));
        let load_address = usize::try_from(file.dlpi_addr).unwrap_or(0);
        let is_it = load_address.wrapping_add(begin) == base;
        if is_it {
            let notes = segments.iter().filter(|it| it.p_type == libc::PT_NOTE);
            id = notes.filter_map(|it| build_id_in(mapped(file, it))).next();
        }
        is_it
    });
    id
}

/// Calls `look` with each file, until it says `true`.
fn for_each_file(look: &mut dyn FnMut(&dl_phdr_info) -> bool) {
    unsafe extern "C" fn each(file: *mut dl_phdr_info, _len: usize, look: *mut c_void) -> c_int {
        // SAFETY: the dynamic linker gives a structure that is valid during the call, and what `for_each_file` gave it.
        unsafe {
            let look = &mut *look.cast::<&mut dyn FnMut(&dl_phdr_info) -> bool>();
            c_int::from(look(&*file))
        }
    }
    let mut look = look;
    // SAFETY: the function has the documented signature, does not unwind, and gets what it expects.
    unsafe { libc::dl_iterate_phdr(Some(each), (&raw mut look).cast()) };
}

/// The program headers of a file.
fn segments(file: &dl_phdr_info) -> &[Segment] {
    if file.dlpi_phdr.is_null() {
        return &[];
    }
    // SAFETY: the dynamic linker says where they are, and how many.
    #[allow(clippy::disallowed_methods, reason = "checked not to be null")]
    unsafe {
        std::slice::from_raw_parts(file.dlpi_phdr, usize::from(file.dlpi_phnum))
    }
}

/// What a segment of notes holds.
fn mapped<'a>(file: &'a dl_phdr_info, segment: &Segment) -> &'a [u8] {
    let address = file.dlpi_addr.wrapping_add(segment.p_vaddr);
    let (Ok(address), Ok(len)) = (usize::try_from(address), usize::try_from(segment.p_memsz))
    else {
        return &[];
    };
    let notes = std::ptr::with_exposed_provenance::<u8>(address);
    if notes.is_null() {
        return &[];
    }
    // SAFETY: a segment of notes lies in a loaded one, which is mapped as long as the file is loaded; the dynamic linker's
    // lock is held.
    #[allow(clippy::disallowed_methods, reason = "checked not to be null")]
    unsafe {
        std::slice::from_raw_parts(notes, len)
    }
}

/// The build id among notes (elf(5)): sizes of name and description, type, name, description, each padded to 4 bytes.
fn build_id_in(mut notes: &[u8]) -> Option<Vec<u8>> {
    const NT_GNU_BUILD_ID: u32 = 3;
    loop {
        let (sizes, rest) = notes.split_first_chunk::<12>()?;
        let number = |at: usize| {
            u32::from_ne_bytes([sizes[at], sizes[at + 1], sizes[at + 2], sizes[at + 3]])
        };
        let padded = |len: u32| usize::try_from(len).ok()?.checked_next_multiple_of(4);
        let (name, rest) = rest.split_at_checked(padded(number(0))?)?;
        let (description, rest) = rest.split_at_checked(padded(number(4))?)?;
        if number(8) == NT_GNU_BUILD_ID && name == b"GNU\0" {
            return Some(description.to_vec());
        }
        notes = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_known_by_its_name_and_build_id_and_one_that_is_none_is_not() {
        let here = object_of as *const c_void;
        let (file, offset) = file_of(here).expect("in a file");
        assert!(offset > 0 && object_of(here).expect("in an object") + offset == here.addr());
        let id = build_id(object_of(here).expect("in an object"));
        assert!(file.ends_with(&id.unwrap_or_default()));
        assert_eq!(file_of((&raw const offset).cast()), None);
        assert_eq!(build_id(1), None);
    }

    #[test]
    fn the_build_id_is_found_behind_other_notes_and_sizes_that_lie_are_none() {
        let note = |kind: u32, name: &[u8], text: &[u8]| {
            let sizes = [name.len(), text.len()]
                .map(|len| u32::try_from(len).expect("short").to_ne_bytes());
            [&sizes[0][..], &sizes[1], &kind.to_ne_bytes(), name, text].concat()
        };
        let id = note(3, b"GNU\0", b"build-id");
        let notes = [note(1, b"GNU\0", b"abcd"), note(3, b"XXX\0", b"efgh"), id.clone()].concat();
        assert_eq!(build_id_in(&notes).as_deref(), Some(&b"build-id"[..]));
        assert_eq!(build_id_in(&id[..id.len() - 1]), None);
        assert_eq!(build_id_in(&[0xff; 64]), None);
        assert_eq!(build_id_in(&[]), None);
    }
}
