//! The cluster: what leaves the host, and how it is kept from others.
//!
//! Owns: sealing, the forms in which ring and sessions travel, the connections that carry them. Called by: `engine`'s agent.
//! Knows neither ring nor store: it carries bytes. Threads: see each part. Forks: a connection belongs to the process
//! that made it. Failure: what does not open or parse is refused and counted; a transport that is down is waited for.

#![forbid(unsafe_code)]

pub mod breaker;
pub mod lookup;
pub mod message;
pub mod redis;
pub mod seal;
pub mod secrets;
#[cfg(test)]
pub(crate) mod tests;
pub mod transport;

use std::time::Duration;

use crate::log::Once;

/// How long nobody tries again to start a thread after the system refused one.
pub(crate) const THREAD_RETRY: Duration = Duration::from_secs(60);

/// Says once why this process has no thread of ours, and what to do.
pub(crate) fn say_thread_refused(error: &std::io::Error) {
    static SAID: Once = Once::new();
    if SAID.first() {
        log::warn!(
            "no thread could be started ({error}); set cluster.agent = \"external\" and run `tlsresumectl agent`"
        );
    }
}
