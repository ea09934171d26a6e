//! Reading the stream, in answers that can be read.
//!
//! How large an answer becomes, only Redis knows beforehand. It may be too large to come in time or to be read at all,
//! and a connection that is told of news is cut where it would be larger than what is allowed for that. After such a
//! failure a script reads for us, for a while: it gives less at once, and passes over what is none that a node writes.

use redis::Value;

use super::connection::MOST_LINES;
use super::link::Link;
use super::names::ENTRY;
use crate::cluster::transport::{Cursor, Failure, News};

/// Most entries of the stream in one answer.
const ENTRIES: usize = 512;

/// The same with caution; and after how many bytes an answer ends, those included that are passed over: a script that
/// looks at much takes long, and Redis does nothing else meanwhile.
const FEW_ENTRIES: usize = 64;
const FEW_BYTES: usize = 16 * 1024;

/// More than any node writes, and small enough to be read whatever is in it.
const LARGE: usize = 100_000;

// Of an answer with caution, every byte may be a line.
const _: () = assert!(FEW_BYTES + LARGE + 4 * FEW_ENTRIES < MOST_LINES);

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
pub(super) const NEWEST: &str = "\
    local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1) \
    return last[1] and last[1][1]";

impl Link {
    pub(super) fn read_much(&mut self, last: Cursor) -> Result<News, Failure> {
        let mut read = redis::cmd("XREAD");
        read.arg("COUNT").arg(ENTRIES).arg("STREAMS").arg(&self.names.stream).arg(text(last));
        let reply = self.ask(&read, self.until())?;
        news_in(reply).ok_or_else(|| Failure::garbage("XREAD"))
    }

    pub(super) fn read_little(&mut self, last: Cursor) -> Result<News, Failure> {
        let mut read = redis::cmd("EVAL");
        read.arg(READ).arg(1).arg(&self.names.stream);
        read.arg(text(last)).arg(ENTRY).arg(FEW_ENTRIES).arg(FEW_BYTES).arg(LARGE);
        let reply: Option<(String, usize, Vec<Vec<u8>>)> =
            self.ask_for(&read, "EVAL", self.until())?;
        let Some((id, passed_over, entries)) = reply else { return Ok(News::default()) };
        let last = entry_id(&id).ok_or_else(|| Failure::garbage("EVAL"))?;
        Ok(News { entries, last: Some(last), passed_over })
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
