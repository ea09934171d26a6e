//! The functions by which a program gives up root: some servers do before they make a context, and then neither the
//! library nor the memory is in reach. So both are fetched just before, if the program has libssl by then.
//!
//! Whoever makes these system calls without the C library passes the preload by.

use core::ffi::{CStr, c_char, c_int};
use core::mem::{transmute_copy, zeroed};
use core::sync::atomic::{AtomicI32, AtomicU64, Ordering};

use libc::uid_t;

use crate::{environment, library};

/// Device and number of the root directory when the program began, and the process. Zero: not known.
static DEVICE: AtomicU64 = AtomicU64::new(0);
static NUMBER: AtomicU64 = AtomicU64::new(0);
static PROCESS: AtomicI32 = AtomicI32::new(0);

/// Remembers what the root directory is now, and which process this is.
pub fn remember() {
    if let Some((device, number)) = root_directory() {
        DEVICE.store(device, Ordering::Relaxed);
        NUMBER.store(number, Ordering::Relaxed);
    }
    // SAFETY: no precondition.
    PROCESS.store(unsafe { libc::getpid() }, Ordering::Relaxed);
}

/// Whether the root directory is another one than at first: then files that are there are not found.
pub fn root_directory_was_changed() -> bool {
    let first = (DEVICE.load(Ordering::Relaxed), NUMBER.load(Ordering::Relaxed));
    first.1 != 0 && root_directory().is_some_and(|now| now != first)
}

fn root_directory() -> Option<(u64, u64)> {
    // SAFETY: the structure is plain data that the call may write, and the path is a C string.
    unsafe {
        let mut directory = zeroed::<libc::stat>();
        let found = libc::stat(c"/".as_ptr(), &raw mut directory) == 0;
        found.then_some((directory.st_dev, directory.st_ino))
    }
}

/// To be called before root is given up.
fn before_it_is_late() {
    // SAFETY: no precondition.
    if environment::names_files() && unsafe { libc::geteuid() } == 0 && may_load() {
        library::keeping_errno(library::prepare);
    }
}

/// Whether anything may be loaded here: not in a child of a process with threads, which is about to execute something
/// else, and may have inherited locks that nobody opens again.
fn may_load() -> bool {
    // SAFETY: no precondition; a variable of the C library's of this name is one char.
    unsafe {
        let alone = libc::dlsym(libc::RTLD_DEFAULT, c"__libc_single_threaded".as_ptr());
        PROCESS.load(Ordering::Relaxed) == libc::getpid()
            || alone.cast::<c_char>().as_ref().is_some_and(|alone| *alone != 0)
    }
}

/// The next function of that name, which is the C library's unless another library interposes it, too.
fn next<F: Copy>(name: &CStr) -> Option<F> {
    const { assert!(size_of::<F>() == size_of::<*mut libc::c_void>()) };
    // SAFETY: a C string. F is the type that the manual has for the name: each caller below sees to it.
    unsafe {
        let address = libc::dlsym(libc::RTLD_NEXT, name.as_ptr());
        (!address.is_null()).then(|| transmute_copy(&address))
    }
}

// The C library gets the program's own arguments, which it vouches for as without us.

#[unsafe(no_mangle)]
unsafe extern "C" fn chroot(path: *const c_char) -> c_int {
    before_it_is_late();
    let next = next::<unsafe extern "C" fn(*const c_char) -> c_int>(c"chroot");
    // SAFETY: see above.
    next.map_or(-1, |next| unsafe { next(path) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn setuid(user: uid_t) -> c_int {
    before_it_is_late();
    let next = next::<unsafe extern "C" fn(uid_t) -> c_int>(c"setuid");
    // SAFETY: see above.
    next.map_or(-1, |next| unsafe { next(user) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn seteuid(user: uid_t) -> c_int {
    before_it_is_late();
    let next = next::<unsafe extern "C" fn(uid_t) -> c_int>(c"seteuid");
    // SAFETY: see above.
    next.map_or(-1, |next| unsafe { next(user) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn setreuid(real: uid_t, effective: uid_t) -> c_int {
    before_it_is_late();
    let next = next::<unsafe extern "C" fn(uid_t, uid_t) -> c_int>(c"setreuid");
    // SAFETY: see above.
    next.map_or(-1, |next| unsafe { next(real, effective) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn setresuid(real: uid_t, effective: uid_t, saved: uid_t) -> c_int {
    before_it_is_late();
    let next = next::<unsafe extern "C" fn(uid_t, uid_t, uid_t) -> c_int>(c"setresuid");
    // SAFETY: see above.
    next.map_or(-1, |next| unsafe { next(real, effective, saved) })
}
