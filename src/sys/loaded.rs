//! The files that are loaded: the program and its libraries.
//!
//! Owns: nothing. Called by: `tls`, to know a callback's function again. Threads and forks: what is asked for often
//! ([`image_of`]) asks for no lock of the dynamic linker's where glibc is 2.35 or later: a child inherits them locked, and
//! a thread that loads a file keeps them. Failure: `None`.

use std::ffi::{CStr, c_int, c_void};
use std::mem::zeroed;
use std::sync::atomic::{AtomicUsize, Ordering};

#[cfg(target_pointer_width = "32")]
use libc::{Elf32_Ehdr as Header, Elf32_Phdr as Segment};
#[cfg(target_pointer_width = "64")]
use libc::{Elf64_Ehdr as Header, Elf64_Phdr as Segment};

/// What tells one file from the next that is loaded at its place: where it begins, and a digest of its headers and its
/// build id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Image {
    base: usize,
    digest: u64,
}

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
    let file = [name, b"\0", build_id(base).unwrap_or_default()].concat();
    Some((file, address.addr().wrapping_sub(base)))
}

/// The image that the code of somebody's callback lies in; `None` when that lies in no file.
pub(crate) fn image_of(code: *const c_void) -> Option<Image> {
    let base = base_of(code)?;
    let header = header_at(base)?;
    let parts = [bytes_of(std::slice::from_ref(header)), bytes_of(segments(base, header))];
    let id = build_id(base).unwrap_or_default();
    let digest = parts
        .into_iter()
        .chain([id])
        .flatten()
        .fold(FNV_BASIS, |digest, byte| (digest ^ u64::from(*byte)).wrapping_mul(FNV_PRIME));
    Some(Image { base, digest })
}

const FNV_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0100_0000_01b3;

fn found(address: *const c_void) -> Option<libc::Dl_info> {
    // SAFETY: the structure is plain data that the call fills; no address is followed.
    unsafe {
        let mut found = zeroed::<libc::Dl_info>();
        (libc::dladdr(address, &raw mut found) != 0).then_some(found)
    }
}

/// What glibc 2.35 and later fill in for `_dl_find_object()`, which takes no lock.
#[repr(C)]
struct FoundObject {
    flags: u64,
    begin: *mut c_void,
    end: *mut c_void,
    others: [u64; 16],
}

type FindObject = unsafe extern "C" fn(*mut c_void, *mut FoundObject) -> c_int;

/// Where the file begins that code lies in.
fn base_of(code: *const c_void) -> Option<usize> {
    let Some(find) = find_object() else { return object_of(code) };
    // SAFETY: the structure is plain data, longer than what the function fills; no address is followed.
    unsafe {
        let mut object = zeroed::<FoundObject>();
        (find(code.cast_mut(), &raw mut object) == 0).then(|| object.begin.addr())
    }
}

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

/// The ELF header of a file that is loaded there, while its code is somebody's callback.
fn header_at<'a>(base: usize) -> Option<&'a Header> {
    let header = std::ptr::with_exposed_provenance::<Header>(base);
    // SAFETY: the first segment of a file is mapped where the dynamic linker says that the file begins, at a page, and
    // has its header.
    let header = unsafe { header.as_ref() }?;
    (header.e_ident.starts_with(b"\x7fELF")
        && usize::from(header.e_phentsize) == size_of::<Segment>())
    .then_some(header)
}

/// The program headers of that file.
fn segments<'a>(base: usize, header: &Header) -> &'a [Segment] {
    let Some(begin) = usize::try_from(header.e_phoff).ok().and_then(|at| base.checked_add(at))
    else {
        return &[];
    };
    // SAFETY: they lie in the first segment too: the dynamic linker has used them. It checks that they are aligned.
    #[allow(clippy::disallowed_methods, reason = "not null")]
    unsafe {
        std::slice::from_raw_parts(
            std::ptr::with_exposed_provenance(begin),
            usize::from(header.e_phnum),
        )
    }
}

fn bytes_of<T>(values: &[T]) -> &[u8] {
    // SAFETY: headers are integers without gaps between them.
    #[allow(clippy::disallowed_methods, reason = "not null")]
    unsafe {
        std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values))
    }
}

/// The build id of the file that begins there.
fn build_id<'a>(base: usize) -> Option<&'a [u8]> {
    let segments = segments(base, header_at(base)?);
    let first = segments.iter().find(|it| it.p_type == libc::PT_LOAD)?;
    let notes = segments.iter().filter(|it| it.p_type == libc::PT_NOTE);
    notes.filter_map(|notes| build_id_in(mapped(base, first, notes))).next()
}

/// What a segment of notes holds.
fn mapped<'a>(base: usize, first: &Segment, notes: &Segment) -> &'a [u8] {
    let place = usize::try_from(notes.p_vaddr.wrapping_sub(first.p_vaddr));
    let (Ok(place), Ok(len)) = (place, usize::try_from(notes.p_memsz)) else { return &[] };
    let begin = std::ptr::with_exposed_provenance::<u8>(base.wrapping_add(place));
    if begin.is_null() {
        return &[];
    }
    // SAFETY: notes lie in a loaded segment, which is mapped as long as the file is loaded, at its distance from the first.
    #[allow(clippy::disallowed_methods, reason = "checked not to be null")]
    unsafe {
        std::slice::from_raw_parts(begin, len)
    }
}

/// The build id among notes (elf(5)): sizes of name and description, type, name, description, each padded to 4 bytes.
fn build_id_in(mut notes: &[u8]) -> Option<&[u8]> {
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
            return Some(description);
        }
        notes = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_known_by_its_name_and_build_id_and_what_is_none_is_not() {
        let here = object_of as *const c_void;
        let (file, offset) = file_of(here).expect("in a file");
        let base = object_of(here).expect("in an object");
        assert!(offset > 0 && base + offset == here.addr());
        assert!(file.ends_with(build_id(base).unwrap_or_default()));
        assert_eq!(file_of((&raw const offset).cast()), None);
    }

    #[test]
    fn functions_of_one_file_have_one_image_and_those_of_another_file_another() {
        let image = |address| image_of(address).expect("an image");
        let [one, other] = [object_of as *const c_void, file_of as *const c_void].map(image);
        assert_eq!(one, other);
        assert_eq!(one.base, object_of(file_of as *const c_void).expect("in an object"));
        assert_ne!(image(libc::dlsym as *const c_void), one);
        assert_eq!(image_of((&raw const one).cast()), None);
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
        assert_eq!(build_id_in(&notes), Some(&b"build-id"[..]));
        assert_eq!(build_id_in(&id[..id.len() - 1]), None);
        assert_eq!(build_id_in(&[0xff; 64]), None);
        assert_eq!(build_id_in(&[]), None);
    }
}
