//! libtlsresume makes TLS sessions resumable across every process and host of a fleet, for any server built on OpenSSL.
//!
//! C programs use `include/tlsresume.h`. Rust servers on the `openssl` crate use `Realm`, with the cargo feature `openssl`;
//! the other Rust items are the library's inside, public for tests and tools. A handshake goes down through the layers and
//! back:
//!
//! ```text
//! ffi     the exported C functions            realm   the Rust API
//! tls     the only user of SSL_*: OpenSSL's callbacks
//! engine  policy: what each callback answers  ring    which key is good for what, when
//! store   shared memory: sessions, the ring's bytes, counters
//! config, stats, secret, clock, log, sys, error: used by all above
//! ```
//! ARCHITECTURE.md has the map and the life of a handshake.

pub mod clock;
pub mod cluster;
pub mod config;
pub mod engine;
pub mod error;
pub mod ffi;
mod log;
#[cfg(feature = "openssl")]
mod realm;
mod recent;
pub mod ring;
pub mod secret;
pub mod stats;
pub mod store;
mod sys;
mod tls;
mod trouble;

#[cfg(feature = "openssl")]
pub use realm::Realm;
