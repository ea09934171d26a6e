//! The `TLSRESUME_*` variables as they were when the process began: servers clear their environment, or write their
//! title over it, before they make their first context.

use core::ffi::{CStr, c_char};
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

use crate::{output, privileges};

const PREFIX: &[u8] = b"TLSRESUME_";

/// Copies of `NAME=VALUE`, then NULL; NULL itself when there are none.
static VARIABLES: AtomicPtr<*const c_char> = AtomicPtr::new(ptr::null_mut());

unsafe extern "C" {
    static environ: *const *const c_char;
}

/// The dynamic linker calls it before the program begins.
#[used]
#[unsafe(link_section = ".init_array")]
static AT_LOAD: extern "C" fn() = read;

/// The variables, as `tlsresume_interpose` takes them. Libraries of the program may make contexts in constructors that
/// come before ours.
pub fn variables() -> *const *const c_char {
    read();
    VARIABLES.load(Ordering::Acquire)
}

/// The value of one variable; one that is empty counts as not set.
pub fn variable(name: &[u8]) -> Option<&'static [u8]> {
    // SAFETY: NULL, or a list of C strings that ends with NULL and stays for ever.
    let mut entries = unsafe { strings(variables()) };
    entries
        .find_map(|entry| entry.to_bytes().strip_prefix(name)?.strip_prefix(b"="))
        .filter(|it| !it.is_empty())
}

/// Whether the configuration may name a file that has to be there later.
pub fn names_files() -> bool {
    let names = [&b"TLSRESUME_MEMORY_PATH"[..], b"TLSRESUME_CONFIG"];
    names.iter().any(|name| variable(name).is_some())
}

extern "C" fn read() {
    static READ: AtomicBool = AtomicBool::new(false);
    if READ.swap(true, Ordering::AcqRel) {
        return;
    }
    output::remember_stdio();
    // SAFETY: reading the auxiliary vector has no precondition. Programs with raised privileges take nothing from the
    // environment, as secure_getenv(3) has it.
    if unsafe { libc::getauxval(libc::AT_SECURE) } != 0 {
        return;
    }
    // SAFETY: the program has not begun: nobody changes the environment.
    let ours = || unsafe { strings(environ) }.filter(|entry| entry.to_bytes().starts_with(PREFIX));
    let count = ours().count();
    if count == 0 {
        return;
    }
    privileges::remember();
    // SAFETY: one more than there are entries, for the NULL at the end, which is what calloc fills it with; each copy
    // is a C string, or NULL when memory is short, which ends the list early. Nothing of it is ever freed.
    unsafe {
        let list = libc::calloc(count + 1, size_of::<*const c_char>()).cast::<*const c_char>();
        if list.is_null() {
            return;
        }
        for (at, entry) in ours().enumerate() {
            list.add(at).write(libc::strdup(entry.as_ptr()));
        }
        VARIABLES.store(list, Ordering::Release);
    }
}

/// The entries of a list.
///
/// # Safety
/// `next` is NULL, or a list of C strings that ends with NULL (environ(7)) and does not change while the result is used.
unsafe fn strings(mut next: *const *const c_char) -> impl Iterator<Item = &'static CStr> {
    core::iter::from_fn(move || {
        // SAFETY: as the caller promises; the end is not passed.
        unsafe {
            if next.is_null() || (*next).is_null() {
                return None;
            }
            let entry = CStr::from_ptr(*next);
            next = next.add(1);
            Some(entry)
        }
    })
}
