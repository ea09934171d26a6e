//! The cluster's pure parts against their claims: secrets, sealing, messages, the breaker.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod breaker;
pub(crate) mod in_memory;
mod message;
mod seal;
mod secrets;
