//! `LD_PRELOAD=libtlsresume_preload.so server …`: libtlsresume in a server that nobody changes.
//!
//! It is in every process that the server starts, so it is small: no standard library, no thread-local storage, and
//! nothing is loaded or done before the first `SSL_CTX_new` that could serve, or before a program with libssl gives up
//! root ([`privileges`]). Then it loads libtlsresume.so, which lies beside it, and from there on only passes calls on:
//!
//! ```text
//! program -> hooks (OpenSSL's names) -> route (whose object is it?) -> libtlsresume's functions, or libssl's own
//! ```
//!
//! All decisions are the library's (src/tls/interpose). Failure: whatever goes wrong, the program runs as without us,
//! and one line of log says why. Threads: nothing is locked. Forks: children inherit what was loaded; a child that
//! was forked off while another thread loaded the library runs without it.

#![no_std]

mod environment;
#[path = "../../src/tls/functions.rs"]
mod functions;
mod hooks;
mod library;
mod libssl;
mod message;
#[path = "../../src/sys/output.rs"]
mod output;
mod privileges;
mod route;
mod sys;

/// Nothing here panics; the compiler wants the function all the same.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: no precondition.
    unsafe { libc::abort() }
}
