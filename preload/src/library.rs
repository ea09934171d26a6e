//! Loading libtlsresume.so: at the first context that could serve, or before the program gives up root.

use core::ffi::{CStr, c_char, c_void};
use core::mem::transmute;
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

use crate::environment;
use crate::functions::Functions;
use crate::libssl::{self, Libssl};
use crate::message::{Text, stand_aside};
use crate::privileges;

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

/// `tlsresume_prepare` of the same file.
type Prepare = unsafe extern "C" fn(*const *const c_char);

/// Before the program gives up root: loads the library and has it open what the configuration names, without a word.
/// Whatever fails is said at the first context.
pub fn prepare() {
    static PREPARED: AtomicBool = AtomicBool::new(false);
    let is_done = || TRIED.load(Ordering::Acquire) || PREPARED.swap(true, Ordering::AcqRel);
    if libssl::supported().is_null() || is_done() {
        return;
    }
    if let Some(prepare) = find(load(), c"tlsresume_prepare") {
        // SAFETY: the function of that name has this type in every release.
        let prepare = unsafe { transmute::<*mut c_void, Prepare>(prepare) };
        // SAFETY: a list of C strings that ends with NULL and stays for ever.
        unsafe { prepare(environment::variables()) };
    }
}

/// The library took over, or tried to.
static TRIED: AtomicBool = AtomicBool::new(false);

/// Loads the library, once in a process, and lets it take the place of this libssl's functions. Meanwhile and if it
/// fails, the libssl's own stay in force.
pub fn take_over(libssl: &'static Libssl) {
    if TRIED.swap(true, Ordering::AcqRel) {
        return;
    }
    keeping_errno(|| {
        if let Some(functions) = ask(libssl) {
            libssl.replace_functions(functions);
        }
    });
}

/// Calls `f` behind the program's back.
pub fn keeping_errno(f: impl FnOnce()) {
    // SAFETY: a thread's errno has no other precondition.
    let errno = unsafe { *libc::__errno_location() };
    f();
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
    let Some(address) = find(library, c"tlsresume_interpose") else {
        return complain(b"libtlsresume.so is of another release");
    };
    // SAFETY: the function of that name has this type.
    Some(unsafe { transmute::<*mut c_void, Interpose>(address) })
}

/// The address of a function of the library.
fn find(library: *mut c_void, name: &CStr) -> Option<*mut c_void> {
    if library.is_null() {
        return None;
    }
    // SAFETY: a handle and a C string.
    let address = unsafe { libc::dlsym(library, name.as_ptr()) };
    (!address.is_null()).then_some(address)
}

/// The library, once it was loaded: from another root directory it is not found again.
fn load() -> *mut c_void {
    static LOADED: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());
    if LOADED.load(Ordering::Acquire).is_null() {
        LOADED.store(open(), Ordering::Release);
    }
    LOADED.load(Ordering::Acquire)
}

/// The library beside this one, or else wherever the dynamic linker looks.
fn open() -> *mut c_void {
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
    const ELSEWHERE: &CStr =
        c"the program has changed its root directory (chroot) since it began; \
        docs/preload.md says what helps";
    let why = match privileges::root_directory_was_changed() {
        true => ELSEWHERE.as_ptr(),
        // SAFETY: no precondition; the text stays until the next call.
        false => unsafe { libc::dlerror() },
    };
    stand_aside(what, why);
    None
}
