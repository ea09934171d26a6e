//! Reading a hash, page by page, however much of it is not ours.
//!
//! Whoever may write to Redis may put anything into a hash. So it is never asked for whole: a page has about as many
//! fields as are asked for (a small hash comes whole), what is longer than anything of ours is dropped where it is, in
//! Redis, and the caller decides between two pages whether to go on now. Pages are no snapshot: what changes meanwhile
//! may be seen or not, and a field may come twice.

use super::{Link, Trouble};

/// About how many fields a page has.
const PAGE: usize = 64;

/// The longest name of a field of ours, with room.
const LONGEST_NAME: usize = 64;

/// The longest value of a field of ours, with room: a key, or a heartbeat, sealed. That of all revocations is longer. A
/// page of the longest ones can be read whatever is in them.
pub const LONGEST_VALUE: usize = 1024;
const LONGEST_REVOCATIONS: usize = 16 * 1024;

/// The field of the ring's hash that has all revocations.
const REVOCATIONS: &str = "r";

/// The field of the ring's hash that changes with every change of it.
pub(super) const TOKEN: &str = "token";

/// Longer than any token.
pub(super) const LONGEST_TOKEN: usize = 64;

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

/// A hash that all nodes read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hash {
    /// The ring's copy.
    Ring,
    /// The nodes' heartbeats.
    Nodes,
}

/// Some fields of a hash.
#[derive(Debug, Default)]
pub struct Page {
    /// Names and values, without the token.
    pub fields: Vec<(Vec<u8>, Vec<u8>)>,
    /// How many were dropped because nothing of ours is so long.
    pub dropped: u64,
    /// Where the next page begins; zero after the last one.
    pub next: u64,
}

impl Link {
    /// The page of a hash that begins there; the first one at zero.
    ///
    /// # Errors
    /// [`Trouble`].
    pub fn page(&mut self, hash: Hash, begin: u64) -> Result<Page, Trouble> {
        let mut read = redis::cmd("EVAL");
        read.arg(READ).arg(1).arg(self.name_of(hash));
        read.arg(begin).arg(PAGE).arg(LONGEST_NAME).arg(LONGEST_VALUE);
        read.arg(LONGEST_REVOCATIONS).arg(REVOCATIONS);
        let (next, dropped, list): (u64, u64, Vec<Vec<u8>>) =
            self.ask_for(&read, "EVAL", self.until())?;
        let mut list = list.into_iter();
        let pairs = std::iter::from_fn(|| list.next().zip(list.next()));
        let is_field =
            |(name, _): &(Vec<u8>, Vec<u8>)| !(hash == Hash::Ring && name == TOKEN.as_bytes());
        Ok(Page { fields: pairs.filter(is_field).collect(), dropped, next })
    }

    /// The token of the ring's copy: whether it moved. None while there is no copy.
    ///
    /// # Errors
    /// [`Trouble`].
    pub fn ring_token(&mut self) -> Result<Option<Vec<u8>>, Trouble> {
        let mut read = redis::cmd("EVAL");
        read.arg(READ_TOKEN).arg(1).arg(self.name_of(Hash::Ring)).arg(TOKEN).arg(LONGEST_TOKEN);
        self.ask_for(&read, "EVAL", self.until())
    }

    /// Takes fields out of a hash: as many at once as a page has.
    ///
    /// # Errors
    /// [`Trouble`].
    pub fn take_out(&mut self, hash: Hash, fields: &[Vec<u8>]) -> Result<u64, Trouble> {
        let (mut taken, until) = (0, self.until());
        for some in fields.chunks(PAGE) {
            let mut delete = redis::cmd("HDEL");
            delete.arg(self.name_of(hash)).arg(some);
            taken += self.ask_for::<u64>(&delete, "HDEL", until)?;
        }
        Ok(taken)
    }

    fn name_of(&self, hash: Hash) -> &str {
        match hash {
            Hash::Ring => &self.names.ring,
            Hash::Nodes => &self.names.nodes,
        }
    }
}
