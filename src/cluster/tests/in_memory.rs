//! A transport for tests: what nodes share is in this process's memory, and does wrong what it is told to.
//!
//! It is the second implementation of `cluster::transport`: what holds with it and with Redis rests on the traits, not
//! on Redis. Threads: any number of connections, one lock. It never blocks for longer than a call's limit.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::{self, UnixMillis};
use crate::cluster::message::Key;
use crate::cluster::transport::{
    Board, Channel, Cursor, Failure, Feed, News, Offers, Outgoing, Page, Sessions, Table,
    Transport, Vault, Wanted,
};
use crate::sys;

/// Fields of a page, and entries of one answer: few, so that there are several.
const PAGE: usize = 2;
const ENTRIES: usize = 3;

/// What goes wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Faults {
    /// Nobody is reached, and connections are lost.
    pub(crate) is_down: bool,
    /// Nothing more is written.
    pub(crate) refuses_writes: bool,
    /// Of so many calls the last one is done, and its connection lost before the answer comes; 0: of none.
    pub(crate) loses_every: u32,
    /// Every entry of the feed comes twice.
    pub(crate) doubles_entries: bool,
    /// Of so many entries of the feed the last one never comes; 0: all come.
    pub(crate) drops_every: u32,
    /// How long the vault takes for an answer.
    pub(crate) delay: Duration,
}

/// What the nodes of a test share. Clones are the same.
#[derive(Clone)]
pub(crate) struct InMemory {
    shared: Arc<Mutex<Shared>>,
    offers: Offers,
}

#[derive(Default)]
struct Shared {
    faults: Faults,
    calls: u32,
    ring: BTreeMap<Vec<u8>, Vec<u8>>,
    nodes: BTreeMap<Vec<u8>, Vec<u8>>,
    token: Option<Vec<u8>>,
    /// Who makes keys, and until when.
    maker: Option<(String, Duration)>,
    feed: Vec<Vec<u8>>,
    vault: HashMap<Key, Vec<u8>>,
}

/// A connection of one thread.
struct Link {
    shared: Arc<Mutex<Shared>>,
    limit: Duration,
    /// Answers, and when they come.
    asked: Vec<(Duration, Sessions)>,
    is_lost: bool,
}

impl InMemory {
    pub(crate) fn new() -> Self {
        InMemory::offering(Offers { feed: true, vault: true })
    }

    pub(crate) fn offering(offers: Offers) -> Self {
        InMemory { shared: Arc::default(), offers }
    }

    pub(crate) fn set(&self, faults: Faults) {
        locked(&self.shared).faults = faults;
    }

    /// How many sessions are in the vault.
    pub(crate) fn sessions(&self) -> usize {
        locked(&self.shared).vault.len()
    }

    /// How many nodes have written a heartbeat.
    pub(crate) fn nodes(&self) -> usize {
        locked(&self.shared).nodes.len()
    }

    fn link(&self, limit: Duration) -> Result<Box<Link>, Failure> {
        if locked(&self.shared).faults.is_down {
            return Err(Failure::Lost("down".into()));
        }
        let shared = Arc::clone(&self.shared);
        Ok(Box::new(Link { shared, limit, asked: Vec::new(), is_lost: false }))
    }
}

impl Transport for InMemory {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn offers(&self) -> Offers {
        self.offers
    }

    fn connect(&self, limit: Duration) -> Result<Box<dyn Channel>, Failure> {
        Ok(self.link(limit)?)
    }

    fn connect_vault(&self, limit: Duration) -> Result<Box<dyn Vault>, Failure> {
        Ok(self.link(limit)?)
    }
}

impl Link {
    fn read<T>(&mut self, read: impl FnOnce(&mut Shared) -> T) -> Result<T, Failure> {
        self.call(false, read)
    }

    fn write<T>(&mut self, write: impl FnOnce(&mut Shared) -> T) -> Result<T, Failure> {
        self.call(true, write)
    }

    fn call<T>(&mut self, writes: bool, act: impl FnOnce(&mut Shared) -> T) -> Result<T, Failure> {
        let mut shared = locked(&self.shared);
        let faults = shared.faults;
        if self.is_lost || faults.is_down {
            self.is_lost = true;
            return Err(Failure::Lost("down".into()));
        }
        if writes && faults.refuses_writes {
            return Err(Failure::Refused("read-only".into()));
        }
        shared.calls += 1;
        let done = act(&mut shared);
        if faults.loses_every > 0 && shared.calls.is_multiple_of(faults.loses_every) {
            self.is_lost = true;
            return Err(Failure::Lost("cut".into()));
        }
        Ok(done)
    }
}

impl Shared {
    fn table(&mut self, table: Table) -> &mut BTreeMap<Vec<u8>, Vec<u8>> {
        match table {
            Table::Ring => &mut self.ring,
            Table::Nodes => &mut self.nodes,
        }
    }

    fn put_ring(&mut self, parts: &[(Vec<u8>, Vec<u8>)], token: &[u8]) {
        self.ring.extend(parts.iter().cloned());
        self.token = Some(token.to_vec());
    }

    fn be_maker(&mut self, node: &str, term: Duration) -> bool {
        let now = clock::since_boot();
        let is_held = |(holder, until): &(String, Duration)| holder != node && *until > now;
        if self.maker.as_ref().is_some_and(is_held) {
            return false;
        }
        self.maker = Some((node.to_owned(), now + term));
        true
    }

    fn put(&mut self, item: &Outgoing) {
        match item {
            Outgoing::Entry(entry) => self.feed.push(entry.clone()),
            Outgoing::Session(key, sealed, _) => {
                self.vault.insert(*key, sealed.clone());
            }
            Outgoing::Forget(key) => {
                self.vault.remove(key);
            }
        }
    }

    /// An entry's place is its number, from one.
    fn news(&self, (_, last): Cursor) -> News {
        let begin = usize::try_from(last).unwrap_or(usize::MAX).min(self.feed.len());
        let end = self.feed.len().min(begin + ENTRIES);
        let Faults { drops_every, doubles_entries, .. } = self.faults;
        let comes =
            |number: usize| drops_every == 0 || !number.is_multiple_of(drops_every as usize);
        let numbers = (begin..end).filter(|at| comes(at + 1));
        let times = if doubles_entries { 2 } else { 1 };
        let entries = numbers.flat_map(|at| vec![self.feed[at].clone(); times]).collect();
        News { entries, last: (end > begin).then_some((0, end as u64)), passed_over: 0 }
    }

    fn session(&mut self, (key, take): &Wanted) -> Option<Vec<u8>> {
        if *take { self.vault.remove(key) } else { self.vault.get(key).cloned() }
    }
}

impl Channel for Link {
    fn send(&mut self, batch: &[Outgoing], _: Duration) -> Result<(), Failure> {
        self.write(|shared| batch.iter().for_each(|item| shared.put(item)))
    }

    fn feed(&mut self) -> Option<&mut dyn Feed> {
        Some(self)
    }
}

impl Board for Link {
    fn page(&mut self, table: Table, begin: u64) -> Result<Page, Failure> {
        self.read(|shared| {
            let begin = usize::try_from(begin).unwrap_or(usize::MAX);
            let all = shared.table(table);
            let fields = all.iter().skip(begin).take(PAGE);
            let fields = fields.map(|(name, value)| (name.clone(), value.clone())).collect();
            let next = if begin + PAGE < all.len() { (begin + PAGE) as u64 } else { 0 };
            Page { fields, dropped: 0, next }
        })
    }

    fn take_out(&mut self, table: Table, fields: &[Vec<u8>]) -> Result<u64, Failure> {
        self.write(|shared| {
            let table = shared.table(table);
            fields.iter().filter(|name| table.remove(*name).is_some()).count() as u64
        })
    }

    fn ring_token(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        self.read(|shared| shared.token.clone())
    }

    fn write_ring(
        &mut self,
        parts: &[(Vec<u8>, Vec<u8>)],
        token: &[u8],
        _: Duration,
    ) -> Result<(), Failure> {
        self.write(|shared| shared.put_ring(parts, token))
    }

    fn write_ring_after(
        &mut self,
        known: Option<&[u8]>,
        parts: &[(Vec<u8>, Vec<u8>)],
        token: &[u8],
        _: Duration,
    ) -> Result<bool, Failure> {
        self.write(|shared| {
            let is_known = shared.token.as_deref() == known;
            if is_known {
                shared.put_ring(parts, token);
            }
            is_known
        })
    }

    fn beat(&mut self, node: &str, sealed: &[u8], _: Duration) -> Result<(), Failure> {
        self.write(|shared| drop(shared.nodes.insert(node.as_bytes().to_vec(), sealed.to_vec())))
    }

    fn be_maker(&mut self, node: &str, term: Duration) -> Result<bool, Failure> {
        self.write(|shared| shared.be_maker(node, term))
    }

    fn leave_maker(&mut self, node: &str) -> Result<(), Failure> {
        self.write(|shared| shared.maker = shared.maker.take().filter(|(holder, _)| holder != node))
    }

    fn time(&mut self) -> Result<UnixMillis, Failure> {
        self.read(|_| clock::now())
    }

    fn take_away_strange(&mut self) -> Result<u64, Failure> {
        Ok(0)
    }
}

impl Feed for Link {
    fn listen(&mut self) -> Result<(), Failure> {
        Ok(())
    }

    fn is_told(&self) -> bool {
        false
    }

    fn wait_for_notice(&mut self, longest: Duration) -> Result<bool, Failure> {
        sys::pause(longest);
        Ok(false)
    }

    fn has_notice(&mut self) -> bool {
        false
    }

    fn news(&mut self, last: Cursor) -> Result<News, Failure> {
        self.read(|shared| shared.news(last))
    }

    fn newest(&mut self) -> Result<Cursor, Failure> {
        self.read(|shared| (0, shared.feed.len() as u64))
    }

    fn lacks_some_after(&mut self, _: Cursor) -> Result<bool, Failure> {
        Ok(false)
    }
}

impl Vault for Link {
    fn limit(&mut self, limit: Duration) {
        self.limit = limit;
    }

    fn ask(&mut self, wanted: &[Wanted]) -> Result<(), Failure> {
        let (answers, delay) = self.read(|shared| {
            let answers = wanted.iter().map(|it| shared.session(it)).collect();
            (answers, shared.faults.delay)
        })?;
        self.asked.push((clock::since_boot() + delay, answers));
        Ok(())
    }

    fn fetch(&mut self, until: Duration) -> Result<Option<Sessions>, Failure> {
        self.read(|_| ())?;
        let Some((comes, _)) = self.asked.first() else { return Ok(None) };
        let (comes, now) = (*comes, clock::since_boot());
        sys::pause(comes.min(until).saturating_sub(now));
        Ok((comes <= until.max(now)).then(|| self.asked.remove(0).1))
    }

    fn sessions(&mut self, wanted: &[Wanted]) -> Result<Sessions, Failure> {
        self.ask(wanted)?;
        let until = clock::since_boot() + self.limit;
        let late = || Failure::Lost("no answer in time".into());
        self.fetch(until)?.ok_or_else(late)
    }

    fn is_answered_alone(&self) -> bool {
        true
    }
}

fn locked(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
