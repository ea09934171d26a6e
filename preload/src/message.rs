//! C strings and lines on stderr, made without an allocator.

use core::ffi::{CStr, c_char};

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

/// Writes one line to stderr: that something went wrong, and that the program runs all the same.
pub fn stand_aside(what: &[u8], why: *const c_char) {
    let why: &[u8] = match why.is_null() {
        true => b"no reason given",
        // SAFETY: not NULL, and a C string, as dlerror(3) gives it.
        false => unsafe { CStr::from_ptr(why) }.to_bytes(),
    };
    let line = Text::of(&[
        b"tlsresume: error: preload: ",
        what,
        b": ",
        why,
        b"; the program runs without the library\n",
    ]);
    // SAFETY: the line is readable for its length. Where stderr is gone, nobody reads it.
    unsafe { libc::write(libc::STDERR_FILENO, line.as_ptr().cast(), line.len) };
}
