//! Writing a line of log in a process that is not ours: to a descriptor that the program may use for anything.
//!
//! Compiled into libtlsresume_preload.so too, so it needs no standard library. Threads and forks: what standard error was
//! at first is the only state, and children inherit it. Failure: a
//! line that cannot be written is lost; no signal is raised.

use core::mem::zeroed;
use core::sync::atomic::{AtomicU64, Ordering};

use libc::c_int;

/// Signals of a write that fails: nobody reads the pipe any more, or the file would be longer than allowed.
const SIGNALS: [c_int; 2] = [libc::SIGPIPE, libc::SIGXFSZ];

/// What standard input, output and error were when the library was loaded.
static FIRST: [First; 3] = [const { First::unknown() }; 3];

/// A file: device, number, and when it was made, for another file may have the number of one that is gone.
struct First {
    device: AtomicU64,
    number: AtomicU64,
    made: AtomicU64,
}

const UNKNOWN: u64 = 0;
/// The number of no file.
const CLOSED: u64 = u64::MAX;

/// Longest line that goes to a pipe at once (pipe(7)).
const PIPE_BUF: usize = 4096;

/// Remembers what the standard descriptors are now. The first call counts.
pub(crate) fn remember_stdio() {
    for (descriptor, first) in (0..).zip(&FIRST) {
        if first.is_unknown() {
            first.remember(
                status(descriptor).map_or((0, CLOSED), |file| (file.st_dev, file.st_ino)),
                time_made(descriptor),
            );
        }
    }
}

impl First {
    const fn unknown() -> Self {
        First {
            device: AtomicU64::new(0),
            number: AtomicU64::new(UNKNOWN),
            made: AtomicU64::new(0),
        }
    }

    fn is_unknown(&self) -> bool {
        self.number.load(Ordering::Relaxed) == UNKNOWN
    }

    fn was_closed(&self) -> bool {
        self.number.load(Ordering::Relaxed) == CLOSED
    }

    fn remember(&self, (device, number): (u64, u64), made: u64) {
        self.device.store(device, Ordering::Relaxed);
        self.made.store(made, Ordering::Relaxed);
        self.number.store(number, Ordering::Relaxed);
    }

    fn is(&self, file: &libc::stat, descriptor: c_int) -> bool {
        let first = (self.device.load(Ordering::Relaxed), self.number.load(Ordering::Relaxed));
        // Only a regular file's number is another one's later; nothing more is asked for sockets and terminals.
        let is_regular = file.st_mode & libc::S_IFMT == libc::S_IFREG;
        (file.st_dev, file.st_ino) == first
            && (!is_regular || time_made(descriptor) == self.made.load(Ordering::Relaxed))
    }
}

/// Writes to standard error, unless that is a client's connection, or may be anything else by now.
pub(crate) fn write_stderr(text: &[u8]) {
    if status(libc::STDERR_FILENO).is_some_and(|file| is_for_lines(&file)) {
        write(libc::STDERR_FILENO, text);
    }
}

fn status(descriptor: c_int) -> Option<libc::stat> {
    // SAFETY: the structure is plain data that the call may write.
    unsafe {
        let mut file = zeroed::<libc::stat>();
        (libc::fstat(descriptor, &raw mut file) == 0).then_some(file)
    }
}

/// When a file was made, in nanoseconds; zero where its file system does not say.
fn time_made(descriptor: c_int) -> u64 {
    // SAFETY: the structure is plain data that the call may write; the path is empty.
    unsafe {
        let mut file = zeroed::<libc::statx>();
        let path = c"".as_ptr();
        let result =
            libc::statx(descriptor, path, libc::AT_EMPTY_PATH, libc::STATX_BTIME, &raw mut file);
        if result != 0 || file.stx_mask & libc::STATX_BTIME == 0 {
            return 0;
        }
        let made = file.stx_btime;
        made.tv_sec.cast_unsigned().wrapping_mul(1_000_000_000).wrapping_add(made.tv_nsec.into())
    }
}

/// Whether lines may be written to what standard error is: inetd(8) gives its servers the client's connection as standard
/// input, output and error, vsftpd does the same, and a program that closed standard error may get anything by that
/// number, also a mailbox or a journal that is appended to. Another file than at first is a log if it is only appended to,
/// was put in the place of one, and the program did so on purpose (dup2(2)), as servers do that detach themselves: then it
/// is open under another descriptor too, or standard input and output are in order.
fn is_for_lines(file: &libc::stat) -> bool {
    let [input, output, first] = &FIRST;
    let is_first = first.is_unknown() || first.is(file, libc::STDERR_FILENO);
    match file.st_mode & libc::S_IFMT {
        libc::S_IFSOCK => is_first && is_managers(file),
        libc::S_IFREG => {
            let are_others_in_order = || is_in_order(0, input) && is_in_order(1, output);
            let is_on_purpose = || is_doubled(file) || are_others_in_order();
            is_first || !first.was_closed() && is_appended_to() && is_on_purpose()
        }
        _ => is_first,
    }
}

fn is_appended_to() -> bool {
    // SAFETY: no precondition.
    unsafe { libc::fcntl(libc::STDERR_FILENO, libc::F_GETFL) & libc::O_APPEND != 0 }
}

/// Whether the file is open as standard output too, or under a number that a server gives its log.
fn is_doubled(file: &libc::stat) -> bool {
    const MOST: c_int = 64;
    let is_same = |other: libc::stat| (other.st_dev, other.st_ino) == (file.st_dev, file.st_ino);
    (libc::STDOUT_FILENO..MOST)
        .filter(|descriptor| *descriptor != libc::STDERR_FILENO)
        .any(|descriptor| status(descriptor).is_some_and(is_same))
}

/// Whether a standard descriptor is what it was at first, or a device, as /dev/null is: a program that lost standard error
/// by chance lost these as well, and got files or sockets by their numbers.
fn is_in_order(descriptor: c_int, first: &First) -> bool {
    let is_device = |file: &libc::stat| file.st_mode & libc::S_IFMT == libc::S_IFCHR;
    status(descriptor).is_some_and(|file| is_device(&file) || first.is(&file, descriptor))
}

/// Whether a socket is how a service manager reads standard error: one of the host, and not standard input too.
fn is_managers(file: &libc::stat) -> bool {
    let (mut domain, mut len): (c_int, libc::socklen_t) = (0, 4);
    let (level, option) = (libc::SOL_SOCKET, libc::SO_DOMAIN);
    let place = (&raw mut domain).cast();
    // SAFETY: the integer is writable for the length that is given.
    let failed =
        unsafe { libc::getsockopt(libc::STDERR_FILENO, level, option, place, &raw mut len) } != 0;
    let is_input = status(libc::STDIN_FILENO)
        .is_some_and(|input| (input.st_dev, input.st_ino) == (file.st_dev, file.st_ino));
    !failed && domain == libc::AF_UNIX && !is_input
}

/// Whether a write does not have to wait for a reader.
fn has_room(descriptor: c_int) -> bool {
    let mut asked = libc::pollfd { fd: descriptor, events: libc::POLLOUT, revents: 0 };
    // SAFETY: one entry, which the call may write.
    unsafe { libc::poll(&raw mut asked, 1, 0) == 1 && asked.revents & libc::POLLOUT != 0 }
}

/// Writes as much as goes at once, waits for nobody, and never raises a signal, whatever became of that descriptor.
pub(crate) fn write(descriptor: c_int, text: &[u8]) {
    let text = text.get(..PIPE_BUF).unwrap_or(text);
    if !has_room(descriptor) {
        return;
    }
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
