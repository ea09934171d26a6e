//! C strings and lines of log, made without an allocator.

use core::ffi::{CStr, c_char};

use crate::{environment, output};

/// Room for any path that the kernel accepts.
const ROOM: usize = 4096 + 64;

/// A text that ends with NUL; what does not fit is left out.
pub struct Text {
    bytes: [u8; ROOM],
    len: usize,
}

impl Text {
    /// All parts, one after the other.
    pub fn of(parts: &[&[u8]]) -> Text {
        let mut text = Text { bytes: [0; ROOM], len: 0 };
        for byte in parts.iter().copied().flatten() {
            // The last byte stays NUL.
            if text.len + 1 < ROOM
                && let Some(place) = text.bytes.get_mut(text.len)
            {
                *place = *byte;
                text.len += 1;
            }
        }
        text
    }

    /// As a C string.
    pub fn as_ptr(&self) -> *const c_char {
        self.bytes.as_ptr().cast()
    }
}

/// Writes one line: that something went wrong, and that the program runs all the same. The library, which knows the
/// configuration file, is not there, so the variables alone say where to, and whether at all.
pub fn stand_aside(what: &[u8], why: *const c_char) {
    let why: &[u8] = match why.is_null() {
        true => b"no reason given",
        // SAFETY: not NULL, and a C string, as dlerror(3) gives it.
        false => unsafe { CStr::from_ptr(why) }.to_bytes(),
    };
    let end = b"; the program runs without the library\n";
    let line = Text::of(&[b"tlsresume: error: preload: ", what, b": ", why, end]);
    let line = line.bytes.get(..line.len).unwrap_or_default();
    if environment::variable(b"TLSRESUME_LOG_LEVEL") == Some(b"off") {
        return;
    }
    match environment::variable(b"TLSRESUME_LOG_TARGET") {
        Some(path @ [b'/', ..]) => append(path, line),
        Some(b"syslog") => log(line),
        _ => output::write_stderr(line),
    }
}

fn append(path: &[u8], line: &[u8]) {
    let path = Text::of(&[path]);
    let flags = libc::O_WRONLY
        | libc::O_APPEND
        | libc::O_CREAT
        | libc::O_CLOEXEC
        | libc::O_NONBLOCK
        | libc::O_NOCTTY;
    // SAFETY: the path is a C string, and the descriptor is ours.
    unsafe {
        let file = libc::open(path.as_ptr(), flags, 0o640);
        if file < 0 {
            return output::write_stderr(line);
        }
        output::write(file, line);
        libc::close(file);
    }
}

fn log(line: &[u8]) {
    let line = Text::of(&[line]);
    // SAFETY: both are C strings, and the format wants one.
    unsafe { libc::syslog(libc::LOG_DAEMON | libc::LOG_ERR, c"%s".as_ptr(), line.as_ptr()) };
}
