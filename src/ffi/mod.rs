//! The exported C functions, and nothing else: include/tlsresume.h is made from this folder.
//!
//! Owns: the C types and the process-wide default instance. Called by: C. Threads: every function may be called from
//! any thread unless it says otherwise. Forks: nothing here starts a thread or holds a lock across a call into C.
//! Failure: 0 or NULL with the reason on OpenSSL's error queue; no panic crosses.

mod boundary;
mod errors;
mod instance;
mod interpose;
mod keys;
mod report;

pub use instance::*;
pub use interpose::*;
pub use keys::*;
pub use report::*;
