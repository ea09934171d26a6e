//! Reading the stream, in answers that Redis can give.
//!
//! How large an answer becomes, only Redis knows beforehand. It may be too large to come in time or to be read at all,
//! and a connection that is told of news is cut where it would be larger than what is allowed for that. So as many
//! entries are asked for at once as went well lately, and an entry that alone does not come is stepped over if it is none
//! that a node writes.

use std::time::Duration;

use redis::Value;

use super::{Link, Trouble};

/// Most entries of the stream in one answer.
const ENTRIES: usize = 512;

/// The field of an entry.
pub(super) const ENTRY: &str = "e";

/// How often one entry is asked for before it is asked what it is.
const ATTEMPTS: u32 = 2;

/// More than any node writes; an entry that is smaller is waited for, and small enough to be read whatever is in it.
const LARGE: usize = 100_000;

/// The id of the next entry, and whether it is none of ours: it has other fields, or is too large.
const JUDGE: &str = "\
    local read = redis.call('XREAD', 'COUNT', 1, 'STREAMS', KEYS[1], ARGV[1]) \
    if not read then return false end \
    local entry = read[1][2][1] \
    local parts = entry[2] \
    local ours = #parts == 2 and parts[1] == ARGV[2] and #parts[2] <= tonumber(ARGV[3]) \
    return {entry[1], ours and 0 or 1}";

/// The id of the last entry alone, whatever is in it.
const NEWEST: &str = "\
    local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1) \
    return last[1] and last[1][1]";

/// New entries of the stream.
#[derive(Debug, Default)]
pub struct News {
    /// In their order, as they were written.
    pub entries: Vec<Vec<u8>>,
    /// The id of the last one, also when it was stepped over.
    pub last: Option<(u64, u64)>,
    /// How many were stepped over.
    pub stepped_over: usize,
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
            count => self.count = (count / 4).max(1),
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
        let reply = self.ask(&read, until)?;
        news_in(reply).ok_or_else(|| Trouble::garbage("XREAD"))
    }

    /// The next entry, if it is none that a node writes: its id alone.
    fn step_over(&mut self, last: (u64, u64), until: Duration) -> Result<Option<News>, Trouble> {
        let mut judge = redis::cmd("EVAL");
        judge.arg(JUDGE).arg(1).arg(&self.names.stream).arg(text(last)).arg(ENTRY).arg(LARGE);
        let next: Option<(String, bool)> = self.ask_for(&judge, "EVAL", until)?;
        let Some((id, true)) = next else { return Ok(None) };
        let last = entry_id(&id).ok_or_else(|| Trouble::garbage("EVAL"))?;
        Ok(Some(News { last: Some(last), stepped_over: 1, ..News::default() }))
    }

    /// The id of the stream's last entry; zeros when there is none.
    ///
    /// # Errors
    /// [`Trouble`].
    pub fn newest(&mut self) -> Result<(u64, u64), Trouble> {
        let mut read = redis::cmd("EVAL");
        read.arg(NEWEST).arg(1).arg(&self.names.stream);
        let id: Option<String> = self.ask_for(&read, "EVAL", self.until())?;
        let newest = id.map_or(Some((0, 0)), |id| entry_id(&id));
        newest.ok_or_else(|| Trouble::garbage("EVAL"))
    }
}

/// What one stream was read of. Entries without our field are passed over, whatever theirs are called.
fn news_in(reply: Value) -> Option<News> {
    let mut news = News::default();
    let entries = match reply {
        Value::Nil => return Some(news),
        Value::Map(streams) => streams.into_iter().next()?.1,
        _ => return None,
    };
    let Value::Array(entries) = entries else { return None };
    for entry in entries {
        let Value::Array(entry) = entry else { return None };
        let mut entry = entry.into_iter();
        let (Some(Value::BulkString(id)), Some(Value::Array(parts))) = (entry.next(), entry.next())
        else {
            return None;
        };
        news.last = Some(entry_id(std::str::from_utf8(&id).ok()?)?);
        let mut parts = parts.into_iter();
        if let (Some(Value::BulkString(name)), Some(Value::BulkString(value))) =
            (parts.next(), parts.next())
            && name == ENTRY.as_bytes()
        {
            news.entries.push(value);
        }
    }
    Some(news)
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
        (0..5).for_each(|_| pace.went_wrong());
        assert_eq!(pace, Pace { count: 1, failures: 0 });
        (0..ATTEMPTS).for_each(|_| pace.went_wrong());
        assert!(pace.is_stuck());
        (0..20).for_each(|_| pace.went_well());
        assert_eq!(pace, Pace::default());
    }
}
