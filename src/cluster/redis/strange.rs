//! What stands under a name of ours and no command of ours can do anything with, so it goes: a key of another type than
//! we give it, and a stream that somebody gave its last id.

use super::{Link, Trouble};

/// Takes away a key, unless it has that type, and no last id.
const TAKE_AWAY: &str = "\
    local is, last = redis.call('TYPE', KEYS[1]).ok, '' \
    if is == 'stream' then \
        local info = redis.call('XINFO', 'STREAM', KEYS[1]) \
        for at = 1, #info, 2 do if info[at] == 'last-generated-id' then last = info[at + 1] end end \
    end \
    if is == 'none' or (is == ARGV[1] and last ~= ARGV[2]) then return 0 end \
    return redis.call('UNLINK', KEYS[1])";

/// After it there is none.
const LAST_ID: &str = "18446744073709551615-18446744073709551615";

impl Link {
    /// Takes away what has a name that all nodes share and is of no use; how many such keys there were.
    ///
    /// # Errors
    /// [`Trouble`].
    pub fn take_away_strange(&mut self) -> Result<u64, Trouble> {
        let (mut taken, until) = (0, self.until());
        let types = [
            (self.names.ring.clone(), "hash"),
            (self.names.nodes.clone(), "hash"),
            (self.names.maker.clone(), "string"),
            (self.names.stream.clone(), "stream"),
        ];
        for (name, kind) in types {
            let mut eval = redis::cmd("EVAL");
            eval.arg(TAKE_AWAY).arg(1).arg(name).arg(kind).arg(LAST_ID);
            taken += self.ask_for::<u64>(&eval, "EVAL", until)?;
        }
        Ok(taken)
    }
}
