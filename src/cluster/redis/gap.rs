//! Whether the stream still has what a node has not read.

use super::STREAM_LENGTH;
use crate::cluster::transport::Cursor;

/// What is left of the stream, and what there was: the ids of its first entry (if there is one) and of the last that
/// was ever added, how many there are and were. A Redis before 7.0 does not count those, and permission may lack.
pub(super) const STANDING: &str = "\
    local said, info = redis.pcall('XINFO', 'STREAM', KEYS[1]), {} \
    if said.err then return false end \
    for at = 1, #said, 2 do info[said[at]] = said[at + 1] end \
    local first = info['first-entry'] \
    return {first and first[1] or '', info['last-generated-id'], info['length'], \
        info['entries-added'] or -1}";

pub(super) struct Standing {
    pub(super) first: Option<Cursor>,
    pub(super) last: Cursor,
    pub(super) length: i64,
    pub(super) added: Option<i64>,
}

impl Standing {
    pub(super) fn lacks_some_after(&self, read: Cursor) -> bool {
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
