//! Where the agent is in the feed: what was cut off, and a feed that begins anew.

use std::time::Duration;

use super::{Agent, Pass};
use crate::clock::{self, UnixMillis};
use crate::cluster::transport::Cursor;
use crate::ring::CLOCKS_DIFFER;

/// Of a feed that lost its end, what was added so long before its new end is read again.
const READ_AGAIN: Duration = Duration::from_secs(60);

impl Agent<'_> {
    /// Entries that were cut off before they were read are noticed here: at a new connection, and now and then while
    /// there are some left to read. A feed that ends before what we have read began anew, or lost its end with a
    /// master that failed.
    pub(super) fn look_at_feed(&mut self) -> Pass<()> {
        let Some(feed) = self.channel()?.feed() else { return Ok(()) };
        let newest = feed.newest()?;
        let cursor = self.store.stream_cursor();
        if newest != cursor && cursor != self.gap {
            let Some(feed) = self.channel()?.feed() else { return Ok(()) };
            if feed.lacks_some_after(cursor)? {
                self.note_gap(cursor);
            }
        }
        if newest < cursor {
            // What lies between was read, and is no gap.
            self.gap = read_again_from(newest, cursor, clock::now());
            self.store.set_stream_cursor(self.gap);
        }
        Ok(())
    }
}

/// Where to go on in a feed that ends before the cursor. Masters are replaced with the loss of seconds, not of
/// minutes: what was read before that is not fetched by all nodes at once from the one that has just become master. But
/// a cursor that no clock came to says nothing of when that was.
fn read_again_from(newest: Cursor, cursor: Cursor, now: UnixMillis) -> Cursor {
    // Ids begin with the time, in milliseconds.
    let (newest, read) = (UnixMillis(newest.0), UnixMillis(cursor.0));
    if read <= now + CLOCKS_DIFFER { ((newest - READ_AGAIN).0, 0) } else { (0, 0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_stream_that_lost_its_end_the_last_minute_is_read_again() {
        let (now, cursor) = (UnixMillis(1_700_000_000_000), (1_699_999_999_000, 3));
        let newest = (1_699_999_998_500, 7);
        assert_eq!(read_again_from(newest, cursor, now), (1_699_999_938_500, 0));
        assert_eq!(read_again_from((0, 0), cursor, now), (0, 0), "and of an empty one everything");
    }

    #[test]
    fn a_stream_that_had_ids_of_no_clock_is_read_from_its_beginning() {
        let (now, newest) = (UnixMillis(1_700_000_000_000), (1_699_999_998_500, 7));
        assert_eq!(read_again_from(newest, (u64::MAX, u64::MAX), now), (0, 0));
        let late = (now + CLOCKS_DIFFER).0;
        assert_eq!(read_again_from(newest, (late + 1, 0), now), (0, 0));
        assert_ne!(read_again_from(newest, (late, 0), now), (0, 0));
    }
}
