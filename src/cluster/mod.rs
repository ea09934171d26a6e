//! The cluster: what leaves the host, and how it is kept from others.
//!
//! Owns: sealing, the forms in which ring and sessions travel, the connections to Redis. Called by: `engine`'s agent.
//! Knows neither ring nor store: it carries bytes. Threads: see each part. Forks: a connection belongs to the process
//! that made it. Failure: what does not open or parse is refused and counted; a transport that is down is waited for.

#![forbid(unsafe_code)]

pub mod breaker;
pub mod message;
pub mod seal;
pub mod secrets;
#[cfg(test)]
mod tests;
