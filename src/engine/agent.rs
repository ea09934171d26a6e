//! The agent: what talks to transports on behalf of a node.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::Engine;
use crate::error::Result;
use crate::sys;

/// How soon the agent notices that it should stop.
const NOTICE: Duration = Duration::from_millis(20);

impl Engine {
    /// Does the agent's work on the calling thread until `stop` is true, which it notices within 50 ms.
    ///
    /// # Errors
    /// When the agent cannot go on; the text says what to do.
    pub fn serve_agent(&self, stop: &AtomicBool) -> Result<()> {
        while !stop.load(Ordering::Relaxed) {
            sys::pause(NOTICE);
        }
        Ok(())
    }
}
