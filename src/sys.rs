//! The operating system: clocks, randomness, memory, files.
//!
//! Owns: every call into libc that is not OpenSSL's. Called by: `clock`, `log`, `store`, `cluster`, `engine`, `tls`.
//! Threads and forks: what its modules say; else no state. Failure: an [`io::Error`], or the soft answer that the function
//! documents.

mod file;
#[cfg(test)]
pub(crate) mod forked;
mod loaded;
mod lock;
pub(crate) mod memory;
mod outcome;
mod output;
mod owned_lock;
mod process;
#[cfg(feature = "reserve")]
mod reserve;
pub(crate) mod shared;
pub(crate) mod thread_word;
mod time;

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

pub(crate) use file::{
    FileLock, allocate, in_memory, is_allocated, lock_alone, lock_shared, name, open_nameless,
    open_private, open_private_existing, same_file,
};
pub(crate) use loaded::{Object, file_of, object_around, object_of};
pub(crate) use lock::lock_within;
pub(crate) use output::{remember_stdio, write as write_quietly, write_stderr};
pub(crate) use owned_lock::{OwnedGuard, OwnedLock};
pub(crate) use process::process_mark;
pub(crate) use time::{boot_clock, coarse_seconds, pause, wall_clock};

use outcome::cvt;
use time::timespec;

/// Runs as the library is loaded, before a program that it is linked to can have closed standard error.
#[used]
#[unsafe(link_section = ".init_array")]
static AT_LOAD: extern "C" fn() = {
    extern "C" fn remember() {
        remember_stdio();
    }
    remember
};

/// Fills `buffer` from the kernel's generator, which knows nothing of forks and keeps no state in this process. `false`
/// when the kernel refuses (a seccomp filter): the buffer is then not random.
#[must_use]
pub(crate) fn random(buffer: &mut [u8]) -> bool {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        // SAFETY: `rest` is writable for its length.
        let got = unsafe { libc::getrandom(rest.as_mut_ptr().cast(), rest.len(), 0) };
        match usize::try_from(got) {
            Ok(got) => filled += got,
            Err(_) if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return false,
        }
    }
    true
}

/// Waits until something may be read from a socket, or it has failed, for so long at most, to less than a millisecond.
/// May return early, without a reason.
pub(crate) fn await_readable(socket: &impl AsRawFd, longest: Duration) -> io::Result<()> {
    poll(socket, libc::POLLIN, longest)
}

/// The same for writing, and for a connection that is being made.
pub(crate) fn await_writable(socket: &impl AsRawFd, longest: Duration) -> io::Result<()> {
    poll(socket, libc::POLLOUT, longest)
}

fn poll(file: &impl AsRawFd, events: libc::c_short, longest: Duration) -> io::Result<()> {
    let mut file = libc::pollfd { fd: file.as_raw_fd(), events, revents: 0 };
    let time = timespec(longest);
    // SAFETY: one pollfd that the call may write, and a valid timespec; the signal mask stays as it is.
    let ready = unsafe { libc::ppoll(&raw mut file, 1, &raw const time, std::ptr::null()) };
    let error = (ready < 0).then(io::Error::last_os_error);
    error.filter(|error| error.kind() != io::ErrorKind::Interrupted).map_or(Ok(()), Err)
}

/// Sleeps until another process calls [`futex_wake`] for this word, at the longest for `timeout`; not at all when the
/// word is not `expected`. May return early, without a reason.
#[cfg_attr(loom, allow(dead_code, reason = "models have no kernel"))]
pub(crate) fn futex_wait(word: &AtomicU32, expected: u32, timeout: Duration) {
    let time = timespec(timeout);
    // SAFETY: the word is 4 aligned bytes that live through the call, which only reads them; the time is a valid
    // timespec. Not private: the word may be shared between processes.
    unsafe {
        libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAIT, expected, &raw const time)
    };
}

/// Wakes all who sleep in [`futex_wait`] for this word, in any process.
#[cfg_attr(loom, allow(dead_code, reason = "models have no kernel"))]
pub(crate) fn futex_wake(word: &AtomicU32) {
    // SAFETY: the word's address is only a name here; nothing is read or written.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, libc::c_int::MAX) };
}

/// Keeps errno as the caller had it, however the code in between leaves it.
pub(crate) struct ErrnoGuard(libc::c_int);

impl ErrnoGuard {
    pub(crate) fn new() -> Self {
        // SAFETY: the location is this thread's own errno.
        ErrnoGuard(unsafe { *libc::__errno_location() })
    }
}

impl Drop for ErrnoGuard {
    fn drop(&mut self) {
        // SAFETY: as in `new`.
        unsafe { *libc::__errno_location() = self.0 }
    }
}

/// An environment variable, unless the process runs with raised privileges or the value is not UTF-8.
pub(crate) fn secure_env(name: &str) -> Option<String> {
    // SAFETY: reading the auxiliary vector has no precondition.
    let raised = unsafe { libc::getauxval(libc::AT_SECURE) } != 0;
    if raised { None } else { std::env::var(name).ok() }
}

/// The local address of a socket as bytes: port, and address of IPv4 or IPv6; zeros for what is no such socket.
pub(crate) fn local_address(descriptor: libc::c_int) -> [u8; 18] {
    let mut bytes = [0; 18];
    // SAFETY: the structure is plain data that the call fills, as far as the length says that it fits.
    let address = unsafe {
        let mut found = std::mem::zeroed::<libc::sockaddr_storage>();
        let mut len = libc::socklen_t::try_from(size_of_val(&found)).unwrap_or(0);
        if libc::getsockname(descriptor, (&raw mut found).cast(), &raw mut len) != 0 {
            return bytes;
        }
        found
    };
    let (port, host) = bytes.split_at_mut(2);
    // SAFETY: the family says which structure it is; all of them fit into the storage, and are plain data.
    unsafe {
        match libc::c_int::from(address.ss_family) {
            libc::AF_INET => {
                let address = &*(&raw const address).cast::<libc::sockaddr_in>();
                port.copy_from_slice(&address.sin_port.to_ne_bytes());
                host[..4].copy_from_slice(&address.sin_addr.s_addr.to_ne_bytes());
            }
            libc::AF_INET6 => {
                let address = &*(&raw const address).cast::<libc::sockaddr_in6>();
                port.copy_from_slice(&address.sin6_port.to_ne_bytes());
                host.copy_from_slice(&address.sin6_addr.s6_addr);
            }
            _ => {}
        }
    }
    bytes
}

/// What this host calls itself; empty when it does not say.
pub(crate) fn host_name() -> String {
    let mut name = [0u8; 65];
    // SAFETY: the buffer is writable for the length given, which leaves the last zero in place.
    unsafe { libc::gethostname(name.as_mut_ptr().cast(), name.len() - 1) };
    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(name).chars().take(16).collect()
}

/// The effective user id.
pub(crate) fn effective_user() -> u32 {
    // SAFETY: no precondition, never fails.
    unsafe { libc::geteuid() }
}

/// Maps `size` bytes, readable and writable, shared with children and, when `file` is given, with whoever maps it.
pub(crate) fn map(file: Option<&File>, size: usize) -> io::Result<NonNull<u8>> {
    let (flags, descriptor) = match file {
        Some(file) => (libc::MAP_SHARED, file.as_raw_fd()),
        None => (libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1),
    };
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping at an address of the kernel's choice touches no memory that is in use.
    let address =
        unsafe { libc::mmap(std::ptr::null_mut(), size, protection, flags, descriptor, 0) };
    if address == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(address.cast()).ok_or_else(|| io::Error::from_raw_os_error(libc::ENOMEM))
}

/// Words that are zero, are shared with children, and live as long as the process. `None` without memory.
pub(crate) fn shared_words(count: usize) -> Option<&'static [AtomicU64]> {
    let address = map(None, count * size_of::<AtomicU64>()).ok()?;
    // SAFETY: a new mapping of that length, aligned at a page, readable and writable, which nobody ends. Zeros are atomic
    // integers, which may be changed while they are shared, by other processes too.
    #[allow(clippy::disallowed_methods, reason = "a mapping is not null")]
    Some(unsafe { std::slice::from_raw_parts(address.as_ptr().cast(), count) })
}

/// Ends a mapping.
///
/// # Safety
/// `address` and `size` are those of one call of [`map`], and nothing refers to the memory any more.
pub(crate) unsafe fn unmap(address: NonNull<u8>, size: usize) {
    // SAFETY: as the caller promises.
    unsafe { libc::munmap(address.as_ptr().cast(), size) };
}

/// Leaves a mapping out of core dumps. Where the kernel cannot, dumps hold it; that is not worth a failure.
pub(crate) fn exclude_from_dumps(address: NonNull<u8>, size: usize) {
    // SAFETY: the advice changes no content; a range that is not mapped is an error, not a fault.
    unsafe { libc::madvise(address.as_ptr().cast(), size, libc::MADV_DONTDUMP) };
}

/// Keeps a mapping out of swap.
pub(crate) fn lock_memory(address: NonNull<u8>, size: usize) -> io::Result<()> {
    // SAFETY: locking changes no content; a range that is not mapped is an error, not a fault.
    cvt(unsafe { libc::mlock(address.as_ptr().cast(), size) })
}

/// A number that a child does not have from its parent: a thread, a connection or a lock that was made under another
/// number is not this process's.
pub(crate) fn fork_generation() -> u32 {
    if !COUNTS_FORKS.load(Ordering::Relaxed) {
        count_forks();
    }
    GENERATION.load(Ordering::Relaxed)
}

static GENERATION: AtomicU32 = AtomicU32::new(0);
static COUNTS_FORKS: AtomicBool = AtomicBool::new(false);

/// Tried again where there was no memory. Two threads that come together count each fork twice, which is as good.
#[cold]
fn count_forks() {
    extern "C" fn count() {
        GENERATION.fetch_add(1, Ordering::Relaxed);
    }
    // SAFETY: the handler is a function of this library, which stays loaded (linked -z nodelete), and does nothing in a
    // child but an atomic addition.
    if unsafe { libc::pthread_atfork(None, None, Some(count)) } == 0 {
        COUNTS_FORKS.store(true, Ordering::Relaxed);
    }
}

/// Starts a thread that no signal of the application's is delivered to. A thread that begins without memory would end the
/// process, so there has to be some.
pub(crate) fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    if !memory::has_room(THREAD_START) {
        return Err(io::ErrorKind::OutOfMemory.into());
    }
    let builder = thread::Builder::new().name(name.into()).stack_size(THREAD_STACK);
    // SAFETY: the signal sets are initialised before use, and the mask of this thread alone changes, which the new
    // thread inherits; it is put back at once.
    unsafe {
        let mut all = std::mem::zeroed::<libc::sigset_t>();
        let mut before = std::mem::zeroed::<libc::sigset_t>();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
        #[allow(clippy::disallowed_methods, reason = "the one place that starts threads")]
        let started = builder.spawn(body);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, std::ptr::null_mut());
        started.map(drop)
    }
}

/// TLS to Redis, and formatted text, need some of it; what is not touched costs nothing.
const THREAD_STACK: usize = 1 << 20;

/// More than std and libc allocate for a thread before it does anything.
const THREAD_START: usize = 64 << 10;

/// Gives the calling thread a table of descriptors of its own with nothing in it, so that what it opens is never
/// inherited by the application's children, nor closed by the application, nor in the way of its own numbers; and what
/// the application closes is closed. Where the kernel cannot (before 5.9, or a filter forbids it), the table stays
/// shared.
pub(crate) fn separate_descriptors() {
    // SAFETY: with the table unshared first, only this thread's copies are closed.
    let separate = unsafe {
        libc::syscall(libc::SYS_close_range, 0, libc::c_uint::MAX, libc::CLOSE_RANGE_UNSHARE)
    } == 0;
    if !separate {
        return;
    }
    for _ in 0..3 {
        // SAFETY: the new descriptors take the lowest numbers. An epoll instance refuses to be written to: what a panic
        // prints does not go to Redis.
        unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
    }
}

/// A descriptor that is readable from [`EventFd::raise`] until [`EventFd::clear`].
#[derive(Debug)]
pub(crate) struct EventFd(File);

impl EventFd {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: no precondition; a descriptor that is returned is new and nobody else's.
        unsafe {
            let descriptor = libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK);
            cvt(if descriptor < 0 { -1 } else { 0 })?;
            Ok(EventFd(File::from_raw_fd(descriptor)))
        }
    }

    pub(crate) fn raise(&self) {
        // Fails only when it was raised before, as often as it counts.
        let _ = (&self.0).write(&1u64.to_ne_bytes());
    }

    pub(crate) fn clear(&self) {
        // Fails when it was not raised.
        let _ = (&self.0).read(&mut [0; 8]);
    }

    /// Its number, for who watches it while it lives.
    pub(crate) fn number(&self) -> libc::c_int {
        self.0.as_raw_fd()
    }
}

/// Has `function` called when the process exits in the orderly way. Where that is refused, exits go without.
pub(crate) fn at_exit(function: extern "C" fn()) {
    // SAFETY: the function is this library's, which stays loaded (linked -z nodelete).
    unsafe { libc::atexit(function) };
}
