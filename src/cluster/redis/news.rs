//! Reading the stream, in answers that Redis can give.
//!
//! How large an answer becomes, only Redis knows beforehand. It may be too large to come in time or to be read at all,
//! and a connection that is told of news is cut where it would be larger than what is allowed for that. So as many
//! entries are asked for at once as went well lately, and an entry that alone is too large is stepped over: no node
//! writes such entries.

use std::time::Duration;

use redis::streams::{StreamId, StreamReadReply};
use redis::{FromRedisValue, Value};

use super::{Link, Trouble};

/// Most entries of the stream in one answer.
const ENTRIES: usize = 512;

/// The field of an entry.
pub(super) const ENTRY: &str = "e";

/// How often one entry is asked for before its size is.
const ATTEMPTS: u32 = 2;

/// More than any node writes; an entry that is smaller is waited for.
const LARGE: usize = 1 << 20;

/// The id of the next entry, and how many bytes it has.
const MEASURE: &str = "\
    local read = redis.call('XREAD', 'COUNT', 1, 'STREAMS', KEYS[1], ARGV[1]) \
    if not read then return false end \
    local entry, size = read[1][2][1], 0 \
    for _, part in ipairs(entry[2]) do size = size + #part end \
    return {entry[1], size}";

/// New entries of the stream.
#[derive(Debug, Default)]
pub struct News {
    /// In their order, as they were written.
    pub entries: Vec<Vec<u8>>,
    /// The id of the last one, also when it was stepped over.
    pub last: Option<(u64, u64)>,
    /// How many were stepped over.
    pub too_large: usize,
}

/// How many entries are asked for at once. It outlives connections: keep it where the last id is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    count: usize,
    /// How often one entry alone did not come.
    failures: u32,
}

impl Default for Pace {
    fn default() -> Self {
        Pace { count: ENTRIES, failures: 0 }
    }
}

impl Pace {
    fn went_well(&mut self) {
        *self = Pace { count: (self.count * 2).min(ENTRIES), failures: 0 };
    }

    fn went_wrong(&mut self) {
        match self.count {
            0 | 1 => self.failures += 1,
            count => self.count = count / 2,
        }
    }

    fn is_stuck(&self) -> bool {
        self.failures >= ATTEMPTS
    }
}

impl Link {
    /// The entries after `last`; as many as `pace` allows, which learns how it went.
    ///
    /// # Errors
    /// [`Trouble`]. After [`Trouble::Lost`] connect again, and ask again with the same `pace`.
    pub fn news(&mut self, last: (u64, u64), pace: &mut Pace) -> Result<News, Trouble> {
        let until = self.until();
        if pace.is_stuck() {
            let stepped = self.step_over(last, until);
            if !matches!(stepped, Err(Trouble::Lost(_))) {
                // From here on it is tried again, be it with the same entry.
                pace.failures = 0;
            }
            if let Some(news) = stepped? {
                return Ok(news);
            }
        }
        let read = self.read(last, pace.count, until);
        match &read {
            Ok(_) => pace.went_well(),
            Err(Trouble::Lost(_)) => pace.went_wrong(),
            Err(_) => {}
        }
        read
    }

    fn read(&mut self, last: (u64, u64), count: usize, until: Duration) -> Result<News, Trouble> {
        let mut read = redis::cmd("XREAD");
        read.arg("COUNT").arg(count).arg("STREAMS").arg(&self.names.stream).arg(text(last));
        let reply: Option<StreamReadReply> = self.ask_for(&read, "XREAD", until)?;
        let ids = reply.into_iter().flat_map(|reply| reply.keys).flat_map(|key| key.ids);
        let mut news = News::default();
        for mut id in ids {
            news.last = Some(entry_id(&id.id).ok_or_else(|| Trouble::garbage("XREAD"))?);
            if let Some(Value::BulkString(entry)) = id.map.remove(ENTRY) {
                news.entries.push(entry);
            }
        }
        Ok(news)
    }

    /// The next entry, if it is one that is too large: its id alone.
    fn step_over(&mut self, last: (u64, u64), until: Duration) -> Result<Option<News>, Trouble> {
        let mut measure = redis::cmd("EVAL");
        measure.arg(MEASURE).arg(1).arg(&self.names.stream).arg(text(last));
        let next: Option<(String, usize)> = self.ask_for(&measure, "EVAL", until)?;
        let Some((id, size)) = next else { return Ok(None) };
        if size <= LARGE {
            return Ok(None);
        }
        let last = entry_id(&id).ok_or_else(|| Trouble::garbage("EVAL"))?;
        Ok(Some(News { last: Some(last), too_large: 1, ..News::default() }))
    }

    /// The id of the stream's last entry; zeros when there is none.
    ///
    /// # Errors
    /// [`Trouble`].
    pub fn newest(&mut self) -> Result<(u64, u64), Trouble> {
        let mut read = redis::cmd("XREVRANGE");
        read.arg(&self.names.stream).arg("+").arg("-").arg("COUNT").arg(1);
        let reply =
            redis::streams::StreamRangeReply::from_redis_value(self.ask(&read, self.until())?);
        let reply = reply.map_err(|_| Trouble::garbage("XREVRANGE"))?;
        match reply.ids.first() {
            None => Ok((0, 0)),
            Some(StreamId { id, .. }) => entry_id(id).ok_or_else(|| Trouble::garbage("XREVRANGE")),
        }
    }
}

fn text((time, sequence): (u64, u64)) -> String {
    format!("{time}-{sequence}")
}

pub(super) fn entry_id(id: &str) -> Option<(u64, u64)> {
    let (time, sequence) = id.split_once('-')?;
    Some((time.parse().ok()?, sequence.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fewer_are_asked_for_after_each_failure_and_more_after_each_success() {
        let mut pace = Pace::default();
        (0..9).for_each(|_| pace.went_wrong());
        assert_eq!(pace, Pace { count: 1, failures: 0 });
        (0..ATTEMPTS).for_each(|_| pace.went_wrong());
        assert!(pace.is_stuck());
        (0..20).for_each(|_| pace.went_well());
        assert_eq!(pace, Pace::default());
    }
}
