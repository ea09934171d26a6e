//! What a Redis is told while a test looks on.

use super::{RedisServer, RespClient};
use crate::Result;

/// Hears every command from its start on, also those that scripts give; all but an administrator's.
#[derive(Debug)]
pub struct Monitor(RespClient);

/// What the test itself says when it has heard enough.
const END: &str = "the end of what is monitored";

impl Monitor {
    pub(super) fn start(mut control: RespClient) -> Result<Monitor> {
        control.command(&["MONITOR"])?;
        Ok(Monitor(control))
    }

    /// Every command that `redis`, the one that it listens to, has processed until now, one a line:
    /// when, from where, and its words in quotation marks.
    pub fn heard(mut self, redis: &RedisServer) -> Result<Vec<String>> {
        redis.command(&["ECHO", END])?;
        let mut all = Vec::new();
        loop {
            let line = self.0.hear()?.to_string();
            if line.contains(END) {
                return Ok(all);
            }
            all.push(line);
        }
    }
}
