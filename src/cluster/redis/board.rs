//! The board: two hashes, the ring's copy and the heartbeats, and the lease for making keys.
//!
//! Whoever may write to Redis may put anything into a hash. So it is never asked for whole: a page has about as many
//! fields as are asked for (a small hash comes whole), what is longer than anything of ours is dropped where it is, in
//! Redis, and the caller decides between two pages whether to go on now. And what stands under a name of ours with
//! another type than we give it, or is a stream that somebody gave its last id, no command of ours can do anything with:
//! it can be taken away.

use std::time::Duration;

use super::link::{Link, expire, millis};
use crate::clock::UnixMillis;
use crate::cluster::transport::{Board, Failure, LONGEST_VALUE, Page, Table};

/// About how many fields a page has.
const PAGE: usize = 64;

/// The longest name of a field of ours, with room.
const LONGEST_NAME: usize = 64;

const LONGEST_REVOCATIONS: usize = 16 * 1024;

/// The field of the ring's hash that has all revocations.
const REVOCATIONS: &str = "r";

/// The field of the ring's hash that changes with every change of it.
const TOKEN: &str = "token";

/// Longer than any token.
const LONGEST_TOKEN: usize = 64;

/// Reads a page, and drops what is too long to be read. Without permission to delete it is passed over. Short names: it
/// is sent every other second.
const READ: &str = "\
    local p = redis.call('HSCAN', KEYS[1], ARGV[1], 'COUNT', ARGV[2]) \
    local f, kept, dropped = p[2], {}, 0 \
    for i = 1, #f, 2 do \
        local most = f[i] == ARGV[6] and ARGV[5] or ARGV[4] \
        if #f[i] > ARGV[3] + 0 or #f[i + 1] > most + 0 then \
            local n = redis.pcall('HDEL', KEYS[1], f[i]) \
            if type(n) == 'number' then dropped = dropped + n end \
        else \
            kept[#kept + 1] = f[i] kept[#kept + 1] = f[i + 1] \
        end \
    end \
    return {p[1], dropped, kept}";

/// Reads the token, unless it is none.
const READ_TOKEN: &str = "\
    local t = redis.call('HGET', KEYS[1], ARGV[1]) \
    return t and #t <= ARGV[2] + 0 and t";

/// Compares the token of the ring's copy, then writes fields; no token is an empty argument, and none is one that is
/// too long to be one.
const WRITE_AFTER: &str = "\
    local token = redis.call('HGET', KEYS[1], ARGV[4]) or '' \
    if #token > tonumber(ARGV[3]) then token = '' end \
    if token ~= ARGV[1] then return 0 end \
    for at = 4, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[at], ARGV[at + 1]) end \
    redis.call('PEXPIRE', KEYS[1], ARGV[2]) \
    return 1";

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

impl Board for Link {
    fn page(&mut self, table: Table, begin: u64) -> Result<Page, Failure> {
        let mut read = redis::cmd("EVAL");
        read.arg(READ).arg(1).arg(self.name_of(table));
        read.arg(begin).arg(PAGE).arg(LONGEST_NAME).arg(LONGEST_VALUE);
        read.arg(LONGEST_REVOCATIONS).arg(REVOCATIONS);
        let (next, dropped, list): (u64, u64, Vec<Vec<u8>>) =
            self.ask_for(&read, "EVAL", self.until())?;
        let mut list = list.into_iter();
        let pairs = std::iter::from_fn(|| list.next().zip(list.next()));
        let is_field =
            |(name, _): &(Vec<u8>, Vec<u8>)| !(table == Table::Ring && name == TOKEN.as_bytes());
        Ok(Page { fields: pairs.filter(is_field).collect(), dropped, next })
    }

    fn take_out(&mut self, table: Table, fields: &[Vec<u8>]) -> Result<u64, Failure> {
        let (mut taken, until) = (0, self.until());
        for some in fields.chunks(PAGE) {
            let mut delete = redis::cmd("HDEL");
            delete.arg(self.name_of(table)).arg(some);
            taken += self.ask_for::<u64>(&delete, "HDEL", until)?;
        }
        Ok(taken)
    }

    fn ring_token(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        let mut read = redis::cmd("EVAL");
        read.arg(READ_TOKEN).arg(1).arg(self.name_of(Table::Ring)).arg(TOKEN).arg(LONGEST_TOKEN);
        self.ask_for(&read, "EVAL", self.until())
    }

    fn write_ring(
        &mut self,
        parts: &[(Vec<u8>, Vec<u8>)],
        token: &[u8],
        keep: Duration,
    ) -> Result<(), Failure> {
        let mut set = redis::cmd("HSET");
        set.arg(&self.names.ring).arg(TOKEN).arg(token);
        parts.iter().for_each(|(field, value)| {
            set.arg(field).arg(value);
        });
        self.all(vec![set, expire(&self.names.ring, keep)], self.until()).map(drop)
    }

    fn write_ring_after(
        &mut self,
        known: Option<&[u8]>,
        parts: &[(Vec<u8>, Vec<u8>)],
        token: &[u8],
        keep: Duration,
    ) -> Result<bool, Failure> {
        let mut eval = redis::cmd("EVAL");
        eval.arg(WRITE_AFTER).arg(1).arg(&self.names.ring);
        eval.arg(known.unwrap_or_default())
            .arg(millis(keep))
            .arg(LONGEST_TOKEN)
            .arg(TOKEN)
            .arg(token);
        parts.iter().for_each(|(field, value)| {
            eval.arg(field).arg(value);
        });
        self.ask_for(&eval, "EVAL", self.until())
    }

    fn beat(&mut self, node: &str, sealed: &[u8], keep: Duration) -> Result<(), Failure> {
        let mut set = redis::cmd("HSET");
        set.arg(&self.names.nodes).arg(node).arg(sealed);
        self.all(vec![set, expire(&self.names.nodes, keep)], self.until()).map(drop)
    }

    fn be_maker(&mut self, node: &str, term: Duration) -> Result<bool, Failure> {
        let mut eval = redis::cmd("EVAL");
        eval.arg(BE_MAKER).arg(1).arg(&self.names.maker);
        eval.arg(node).arg(millis(term)).arg(millis(LONGEST_TERM));
        self.ask_for(&eval, "EVAL", self.until())
    }

    fn leave_maker(&mut self, node: &str) -> Result<(), Failure> {
        let mut eval = redis::cmd("EVAL");
        eval.arg(LEAVE_MAKER).arg(1).arg(&self.names.maker).arg(node);
        self.ask(&eval, self.until()).map(drop)
    }

    fn time(&mut self) -> Result<UnixMillis, Failure> {
        let (seconds, _): (u64, u64) = self.ask_for(&redis::cmd("TIME"), "TIME", self.until())?;
        Ok(UnixMillis::from_secs(seconds))
    }

    fn take_away_strange(&mut self) -> Result<u64, Failure> {
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

impl Link {
    fn name_of(&self, table: Table) -> &str {
        match table {
            Table::Ring => &self.names.ring,
            Table::Nodes => &self.names.nodes,
        }
    }
}
