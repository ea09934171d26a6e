//! Whether the stream still has what a node has not read.

use super::{Link, STREAM_LENGTH, Trouble};

/// What is left of the stream, and what there was: the ids of its first entry (if there is one) and of the last that
/// was ever added, how many there are and were. A Redis before 7.0 does not count those, and permission may lack.
const STANDING: &str = "\
    local said, info = redis.pcall('XINFO', 'STREAM', KEYS[1]), {} \
    if said.err then return false end \
    for at = 1, #said, 2 do info[said[at]] = said[at + 1] end \
    local first = info['first-entry'] \
    return {first and first[1] or '', info['last-generated-id'], info['length'], \
        info['entries-added'] or -1}";

/// An entry's id.
type Id = (u64, u64);

struct Standing {
    first: Option<Id>,
    last: Id,
    length: i64,
    added: Option<i64>,
}

impl Link {
    /// Whether entries after the last one that was read are gone, as far as can be told: the stream was cut off behind
    /// it. A stream that begins anew was not.
    ///
    /// # Errors
    /// [`Trouble`].
    pub fn lacks_some_after(&mut self, last: Id) -> Result<bool, Trouble> {
        let mut ask = redis::cmd("EVAL");
        ask.arg(STANDING).arg(1).arg(&self.names.stream);
        let said: Option<(String, String, i64, i64)> = self.ask_for(&ask, "EVAL", self.until())?;
        let Some((first, newest, length, added)) = said else { return Ok(false) };
        let id = |text: &str| super::news::entry_id(text).ok_or_else(|| Trouble::garbage("EVAL"));
        let standing = Standing {
            first: if first.is_empty() { None } else { Some(id(&first)?) },
            last: id(&newest)?,
            length,
            added: Some(added).filter(|added| *added >= 0),
        };
        Ok(standing.lacks_some_after(last))
    }
}

impl Standing {
    fn lacks_some_after(&self, read: Id) -> bool {
        let was_cut = match self.added {
            Some(added) => added > self.length,
            // It is cut where it is longer.
            None => self.length >= i64::from(STREAM_LENGTH),
        };
        // Where the entry that was read last is the last that is gone, this is wrong; streams are cut by hundreds.
        read != (0, 0) && self.last > read && self.first.is_none_or(|first| first > read) && was_cut
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_lacks_entries_where_it_was_cut_behind_what_was_read() {
        let cut = |first, added| Standing { first, last: (9, 0), length: 3, added };
        assert!(cut(Some((7, 0)), Some(9)).lacks_some_after((5, 0)));
        assert!(cut(None, Some(9)).lacks_some_after((5, 0)), "nothing is left");
        assert!(!cut(Some((5, 0)), Some(9)).lacks_some_after((5, 0)), "all that follow are there");
        assert!(!cut(Some((7, 0)), Some(9)).lacks_some_after((9, 0)), "nothing follows");
        assert!(!cut(Some((7, 0)), Some(9)).lacks_some_after((0, 0)), "nothing was read");
        assert!(!cut(Some((7, 0)), Some(3)).lacks_some_after((5, 0)), "it is another stream");
        assert!(!cut(Some((7, 0)), None).lacks_some_after((5, 0)), "too short to be cut");
        let long = Standing { length: 70_000, ..cut(Some((7, 0)), None) };
        assert!(long.lacks_some_after((5, 0)));
    }
}
