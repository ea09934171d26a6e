//! OpenSSL: the callbacks that it calls and the settings of a context. The only user of SSL_*.
//!
//! Owns: what hangs on contexts and connections (their ex_data). Called by: `ffi`, and by OpenSSL on any thread that
//! does a handshake. Threads: callbacks run concurrently, those of one connection never do. Forks: everything is
//! inherited; no thread is started. Failure: every callback has a soft answer (ARCHITECTURE.md), leaves OpenSSL's error
//! queue and errno as they were, and lets no panic through.

mod accepting;
mod addresses;
mod application;
mod attach;
mod attachment;
mod binding;
mod bio_callback;
#[cfg(feature = "openssl")]
mod builder;
mod callbacks;
mod client;
mod client_session;
mod code;
mod confirm;
mod connection;
mod cut;
mod ex_data;
mod functions;
mod guard;
mod handshake;
mod hidden;
mod interpose;
mod name;
mod notes;
mod pause;
mod policy;
mod random;
mod real;
mod removal;
mod rules;
mod search;
mod session;
mod session_data;
mod sys;
mod template;
mod ticket;
mod ticket_callback;
mod trampolines;
mod trust;
mod withheld;

pub(crate) use attach::{attach, detach, early_data_allowed};
#[cfg(feature = "openssl")]
pub(crate) use builder::attach_builder;
pub(crate) use functions::Functions;
pub(crate) use interpose::{Worker, check_is_linked, executed_worker, interpose, is_dry_run};
