//! The lease for making the next keys: one node has it, as long as it renews it.

use std::time::Duration;

use super::link::millis;
use super::{Link, Trouble};

/// No lease of ours is longer. What stays for longer under the lease's name is none.
const LONGEST_TERM: Duration = Duration::from_secs(60);

/// Takes or renews the lease, unless another one has it. Without permission to ask how long it lasts, it is a sound
/// one.
const BE_MAKER: &str = "\
    local holder, left = redis.call('GET', KEYS[1]), redis.pcall('PTTL', KEYS[1]) \
    if type(left) ~= 'number' then left = 0 end \
    local is_held = holder and holder ~= ARGV[1] and left >= 0 and left <= tonumber(ARGV[3]) \
    if is_held then return 0 end \
    redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) \
    return 1";

/// Gives the lease back, if it is the one to do so.
const LEAVE_MAKER: &str = "\
    if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end \
    return 0";

impl Link {
    /// Becomes, or stays, the node that makes the next keys.
    ///
    /// # Errors
    /// [`Trouble`].
    pub fn be_maker(&mut self, node: &str, term: Duration) -> Result<bool, Trouble> {
        let mut eval = redis::cmd("EVAL");
        eval.arg(BE_MAKER).arg(1).arg(&self.names.maker);
        eval.arg(node).arg(millis(term)).arg(millis(LONGEST_TERM));
        self.ask_for(&eval, "EVAL", self.until())
    }

    /// Leaves the making of keys to another node.
    ///
    /// # Errors
    /// [`Trouble`].
    pub fn leave_maker(&mut self, node: &str) -> Result<(), Trouble> {
        let mut eval = redis::cmd("EVAL");
        eval.arg(LEAVE_MAKER).arg(1).arg(&self.names.maker).arg(node);
        self.ask(&eval, self.until()).map(drop)
    }
}
