//! Loading libtlsresume.so.

use core::ffi::{CStr, c_char, c_void};
use core::mem::transmute;
use core::sync::atomic::{AtomicBool, Ordering};

use crate::environment;
use crate::functions::Functions;
use crate::libssl::Libssl;
use crate::message::{Text, stand_aside};

const SONAME: &CStr = {
    let name = concat!("libtlsresume.so.", env!("CARGO_PKG_VERSION_MAJOR"), "\0");
    match CStr::from_bytes_with_nul(name.as_bytes()) {
        Ok(name) => name,
        Err(_) => unreachable!(),
    }
};

/// `tlsresume_interpose` of src/ffi/interpose.rs, which explains the arguments.
type Interpose =
    unsafe extern "C" fn(usize, *const Functions, *const *const c_char) -> *const Functions;

/// Loads the library, once in a process, and lets it take the place of this libssl's functions. Meanwhile and if it
/// fails, the libssl's own stay in force.
pub fn take_over(libssl: &'static Libssl) {
    static TRIED: AtomicBool = AtomicBool::new(false);
    if TRIED.swap(true, Ordering::AcqRel) {
        return;
    }
    // SAFETY: a thread's errno has no other precondition.
    let errno = unsafe { *libc::__errno_location() };
    if let Some(functions) = ask(libssl) {
        libssl.replace_functions(functions);
    }
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
}

/// What the library puts in the place of a libssl's functions; `None` after one line that says why not.
fn ask(libssl: &'static Libssl) -> Option<&'static Functions> {
    let (size, interpose) = (size_of::<Functions>(), entry_point()?);
    // SAFETY: the entry point has this signature in every release; another layout of the table is refused by its size.
    // What it returns is never freed.
    unsafe { interpose(size, libssl.own_functions(), environment::variables()).as_ref() }
}

fn entry_point() -> Option<Interpose> {
    let library = load();
    if library.is_null() {
        return complain(b"cannot load libtlsresume.so");
    }
    // SAFETY: a handle and a C string.
    let address = unsafe { libc::dlsym(library, c"tlsresume_interpose".as_ptr()) };
    if address.is_null() {
        return complain(b"libtlsresume.so is of another release");
    }
    // SAFETY: the function of that name has this type.
    Some(unsafe { transmute::<*mut c_void, Interpose>(address) })
}

/// The library beside this one, or else wherever the dynamic linker looks.
fn load() -> *mut c_void {
    let flags = libc::RTLD_NOW | libc::RTLD_LOCAL;
    // SAFETY: the structure is plain data that dladdr fills, and the name in it is a C string; so are all others.
    unsafe {
        let mut this = core::mem::zeroed::<libc::Dl_info>();
        if libc::dladdr((take_over as *const ()).cast(), &raw mut this) != 0 {
            let path = CStr::from_ptr(this.dli_fname).to_bytes();
            let folder = path.iter().rposition(|byte| *byte == b'/').and_then(|at| path.get(..=at));
            let beside = Text::of(&[folder.unwrap_or_default(), SONAME.to_bytes()]);
            if libc::access(beside.as_ptr(), libc::F_OK) == 0 {
                return libc::dlopen(beside.as_ptr(), flags);
            }
        }
        libc::dlopen(SONAME.as_ptr(), flags)
    }
}

fn complain<T>(what: &[u8]) -> Option<T> {
    // SAFETY: no precondition; the text stays until the next call.
    stand_aside(what, unsafe { libc::dlerror() });
    None
}
