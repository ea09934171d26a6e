//! Writing a line of log in a process that is not ours: to a descriptor that the program may use for anything.
//!
//! Compiled into libtlsresume_preload.so too, so it needs no standard library. Threads and forks: no state. Failure: a
//! line that cannot be written is lost; no signal is raised.

use core::mem::zeroed;

use libc::c_int;

/// Signals of a write that fails: nobody reads the pipe any more, or the file would be longer than allowed.
const SIGNALS: [c_int; 2] = [libc::SIGPIPE, libc::SIGXFSZ];

/// Writes to standard error, unless that is a client's connection.
pub(crate) fn write_stderr(text: &[u8]) {
    if !is_clients(libc::STDERR_FILENO) {
        write(libc::STDERR_FILENO, text);
    }
}

/// Whether a descriptor is a connection of a client's: inetd(8) gives it to its servers as standard input, output and
/// error, vsftpd does the same, and a server that closed standard error may get a connection by that number. A socket of
/// the host is how service managers read standard error, unless it is standard input too.
fn is_clients(descriptor: c_int) -> bool {
    // SAFETY: the structures are plain data that the calls may write, for the length that is given.
    unsafe {
        let mut file = zeroed::<libc::stat>();
        if libc::fstat(descriptor, &raw mut file) != 0
            || file.st_mode & libc::S_IFMT != libc::S_IFSOCK
        {
            return false;
        }
        let (mut domain, mut len): (c_int, libc::socklen_t) = (0, 4);
        let place = (&raw mut domain).cast();
        if libc::getsockopt(descriptor, libc::SOL_SOCKET, libc::SO_DOMAIN, place, &raw mut len) != 0
            || domain != libc::AF_UNIX
        {
            return true;
        }
        let mut input = zeroed::<libc::stat>();
        libc::fstat(libc::STDIN_FILENO, &raw mut input) == 0
            && (input.st_dev, input.st_ino) == (file.st_dev, file.st_ino)
    }
}

/// Writes as much as goes at once, and never raises a signal, whatever became of that descriptor.
pub(crate) fn write(descriptor: c_int, text: &[u8]) {
    // SAFETY: the sets are initialised by sigemptyset before use; the mask of this thread alone changes, and is put back.
    // A signal that was pending before stays so; one that our write raised is taken off.
    unsafe {
        let mut blocked = zeroed::<libc::sigset_t>();
        let mut before = zeroed::<libc::sigset_t>();
        let mut pending = zeroed::<libc::sigset_t>();
        libc::sigemptyset(&raw mut blocked);
        for signal in SIGNALS {
            libc::sigaddset(&raw mut blocked, signal);
        }
        libc::sigpending(&raw mut pending);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const blocked, &raw mut before);
        if libc::write(descriptor, text.as_ptr().cast(), text.len()) < 0 {
            for signal in SIGNALS {
                if libc::sigismember(&raw const pending, signal) == 1 {
                    libc::sigdelset(&raw mut blocked, signal);
                }
            }
            let at_once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
            libc::sigtimedwait(&raw const blocked, core::ptr::null_mut(), &raw const at_once);
        }
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, core::ptr::null_mut());
    }
}
