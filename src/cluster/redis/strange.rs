//! What stands under a name of ours and is of another type than we give it: no command of ours can do anything with it,
//! so it goes.

use super::{Link, Trouble};

/// Takes away a key, unless it has that type.
const TAKE_AWAY: &str = "\
    local is = redis.call('TYPE', KEYS[1]).ok \
    if is == 'none' or is == ARGV[1] then return 0 end \
    return redis.call('UNLINK', KEYS[1])";

impl Link {
    /// Takes away what has a name that all nodes share and another type; how many such keys there were.
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
            eval.arg(TAKE_AWAY).arg(1).arg(name).arg(kind);
            taken += self.ask_for::<u64>(&eval, "EVAL", until)?;
        }
        Ok(taken)
    }
}
