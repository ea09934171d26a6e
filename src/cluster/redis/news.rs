//! Reading the stream, in answers that can be read.
//!
//! How large an answer becomes, only Redis knows beforehand. It may be too large to come in time or to be read at all,
//! and a connection that is told of news is cut where it would be larger than what is allowed for that. After such a
//! failure a script reads for us, for a while: it gives less at once, and passes over what is none that a node writes.

use redis::Value;

use super::connection::MOST_LINES;
use super::{Link, Trouble};

/// Most entries of the stream in one answer.
const ENTRIES: usize = 512;

/// The same with caution; and after how many bytes an answer ends, those included that are passed over: a script that
/// looks at much takes long, and Redis does nothing else meanwhile.
const FEW_ENTRIES: usize = 64;
const FEW_BYTES: usize = 16 * 1024;

/// How many answers are read with caution after a failure, or something strange.
const CAUTION: u32 = 1000;

/// More than any node writes, and small enough to be read whatever is in it.
const LARGE: usize = 100_000;

// Of an answer with caution, every byte may be a line.
const _: () = assert!(FEW_BYTES + LARGE + 4 * FEW_ENTRIES < MOST_LINES);

/// The field of an entry.
pub(super) const ENTRY: &str = "e";

/// The id of the last entry that was looked at, how many were passed over, and the entries.
const READ: &str = "\
    local last, passed, bytes, kept = ARGV[1], 0, 0, {} \
    for _ = 1, tonumber(ARGV[3]) do \
        local read = redis.call('XREAD', 'COUNT', 1, 'STREAMS', KEYS[1], last) \
        if not read then break end \
        local entry = read[1][2][1] \
        local parts = entry[2] \
        for _, part in ipairs(parts) do bytes = bytes + #part end \
        last = entry[1] \
        if #parts == 2 and parts[1] == ARGV[2] and #parts[2] <= tonumber(ARGV[5]) then \
            kept[#kept + 1] = parts[2] \
        else \
            passed = passed + 1 \
        end \
        if bytes >= tonumber(ARGV[4]) then break end \
    end \
    return last ~= ARGV[1] and {last, passed, kept}";

/// The id of the last entry alone, whatever is in it.
const NEWEST: &str = "\
    local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1) \
    return last[1] and last[1][1]";

/// New entries of the stream.
#[derive(Debug, Default)]
pub struct News {
    /// In their order, as they were written.
    pub entries: Vec<Vec<u8>>,
    /// The id of the last one, also when it was passed over.
    pub last: Option<(u64, u64)>,
    /// How many were passed over: no node writes such entries.
    pub passed_over: usize,
}

/// How many answers are still to be read with caution. It outlives connections: keep it where the last id is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caution(u32);

impl Caution {
    fn learn(&mut self, read: &Result<News, Trouble>) {
        match read {
            Ok(news) if news.passed_over == 0 => self.0 = self.0.saturating_sub(1),
            Ok(_) | Err(Trouble::Lost(_)) => self.0 = CAUTION,
            Err(_) => {}
        }
    }
}

impl Link {
    /// The entries after `last`, some of them. How it went is kept in `caution`.
    ///
    /// # Errors
    /// [`Trouble`]. After [`Trouble::Lost`] connect again, and ask again with the same `caution`.
    pub fn news(&mut self, last: (u64, u64), caution: &mut Caution) -> Result<News, Trouble> {
        let read = match caution.0 {
            0 => self.read_much(last),
            _ => self.read_little(last),
        };
        caution.learn(&read);
        read
    }

    fn read_much(&mut self, last: (u64, u64)) -> Result<News, Trouble> {
        let mut read = redis::cmd("XREAD");
        read.arg("COUNT").arg(ENTRIES).arg("STREAMS").arg(&self.names.stream).arg(text(last));
        let reply = self.ask(&read, self.until())?;
        news_in(reply).ok_or_else(|| Trouble::garbage("XREAD"))
    }

    fn read_little(&mut self, last: (u64, u64)) -> Result<News, Trouble> {
        let mut read = redis::cmd("EVAL");
        read.arg(READ).arg(1).arg(&self.names.stream);
        read.arg(text(last)).arg(ENTRY).arg(FEW_ENTRIES).arg(FEW_BYTES).arg(LARGE);
        let reply: Option<(String, usize, Vec<Vec<u8>>)> =
            self.ask_for(&read, "EVAL", self.until())?;
        let Some((id, passed_over, entries)) = reply else { return Ok(News::default()) };
        let last = entry_id(&id).ok_or_else(|| Trouble::garbage("EVAL"))?;
        Ok(News { entries, last: Some(last), passed_over })
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
        match (parts.next(), parts.next(), parts.next()) {
            (Some(Value::BulkString(name)), Some(Value::BulkString(value)), None)
                if name == ENTRY.as_bytes() && value.len() <= LARGE =>
            {
                news.entries.push(value);
            }
            _ => news.passed_over += 1,
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
    fn caution_begins_with_a_failure_and_ends_after_enough_that_went_well() {
        let mut caution = Caution::default();
        caution.learn(&Err(Trouble::Refused(String::new())));
        assert_eq!(caution, Caution(0));
        for strange in
            [Err(Trouble::Lost(String::new())), Ok(News { passed_over: 1, ..News::default() })]
        {
            caution.learn(&strange);
            (0..CAUTION - 1).for_each(|_| caution.learn(&Ok(News::default())));
            assert_eq!(caution, Caution(1));
            caution.learn(&Ok(News::default()));
            assert_eq!(caution, Caution(0));
        }
    }
}
