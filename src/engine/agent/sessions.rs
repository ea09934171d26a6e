//! The agent's way with sessions: what this node's processes made goes out, what others made comes in.

use std::time::Duration;

use zeroize::Zeroizing;

use super::{Agent, Pass};
use crate::clock::{self, UnixMillis};
use crate::cluster::message::{self, Entry, Removal, SessionMessage};
use crate::cluster::seal::Label;
use crate::cluster::transport::{Cursor, Delivery, Outgoing};
use crate::log::Once;
use crate::ring::CLOCKS_DIFFER;
use crate::stats::Counter;
use crate::store::{Kind, Meta, NotInserted, Origin, Record};

/// Most records in one exchange.
const BATCH: usize = 256;

/// Most removals that are kept to be sent again, where the log's position does not remember them.
const MOST_UNSENT: usize = 4096;

/// A gap in the stream is told of no sooner after another one.
const GAP_AGAIN: Duration = Duration::from_secs(60);

/// What is sent in one exchange.
#[derive(Default)]
struct Batch {
    records: usize,
    /// May be used once.
    once: Vec<Outgoing>,
    /// May be written again.
    again: Vec<Outgoing>,
}

/// How far a shard's log goes into a batch.
struct Position {
    shard: usize,
    from: u64,
    next: u64,
}

/// How long a shard's lease is waited for: nobody waits for the agent.
const PATIENCE: Duration = Duration::from_millis(20);

/// The longest lifetime that any node may have configured, and room for a clock.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600 + 3600);

impl Agent<'_> {
    /// Sends what is new in the store's logs; how many records there were.
    pub(super) fn send_sessions(&mut self) -> Pass<usize> {
        let store = self.store;
        let shards = store.shards();
        self.first_shard = (self.first_shard + 1) % shards.max(1);
        let (mut batch, mut positions) = (Batch::default(), Vec::new());
        for shard in (self.first_shard..shards).chain(0..self.first_shard) {
            let from = store.sent(shard);
            let tail = store.tail(shard, from, BATCH.saturating_sub(batch.records));
            if tail.lapped && from != 0 {
                self.note_lapped();
            }
            if tail.next == from {
                continue;
            }
            let position = Position { shard, from, next: tail.next };
            self.put(tail.records, position, &mut batch, &mut positions);
            if batch.records >= BATCH {
                break;
            }
        }
        let records = batch.records;
        self.send_batch(batch)?;
        for Position { shard, from, next } in positions {
            store.advance_sent(shard, from, next);
        }
        Ok(records)
    }

    /// Puts a shard's records into the batch. What may be used once is noted before it is written, lost rather than
    /// doubled; all else after it.
    fn put(
        &self,
        records: Vec<Record>,
        position: Position,
        batch: &mut Batch,
        positions: &mut Vec<Position>,
    ) {
        let Position { shard, from, next } = position;
        let once = self.engine.config.resumption.single_use;
        // Whoever has moved it on meanwhile has taken over: it is his to send.
        let is_ours = !once || self.store.advance_sent(shard, from, next);
        if !once {
            positions.push(position);
        }
        if !is_ours {
            return;
        }
        batch.records += records.len();
        for (meta, value) in &records {
            let items = self.outgoing(meta, value);
            if once && meta.kind == Kind::Session {
                batch.once.extend(items);
            } else {
                batch.again.extend(items);
            }
        }
    }

    fn send_batch(&mut self, batch: Batch) -> Pass<()> {
        // First of all: where the log's position is noted already, nothing else would remind us of these.
        self.unsent.extend(batch.again);
        let sent = self.send_once(&batch.once).and_then(|()| self.send_unsent());
        if !self.engine.config.resumption.single_use {
            // The log has them.
            self.unsent.clear();
        }
        self.unsent.truncate(MOST_UNSENT);
        sent
    }

    fn send_once(&mut self, items: &[Outgoing]) -> Pass<()> {
        let sent = self.send(items);
        let counter = if sent.is_ok() { Counter::TransportSent } else { Counter::TransportDropped };
        self.engine.counters().add(counter, items.len() as u64);
        sent
    }

    fn send_unsent(&mut self) -> Pass<()> {
        let items = std::mem::take(&mut self.unsent);
        let sent = self.send(&items);
        if sent.is_ok() {
            self.engine.counters().add(Counter::TransportSent, items.len() as u64);
        } else {
            self.unsent = items;
        }
        sent
    }

    fn send(&mut self, items: &[Outgoing]) -> Pass<()> {
        if items.is_empty() {
            return Ok(());
        }
        let keep = self.engine.config.resumption.lifetime;
        Ok(self.channel()?.send(items, keep)?)
    }

    /// Sessions came faster than they went, or the transport was away for long: how many are gone, nobody knows.
    fn note_lapped(&self) {
        static SAID: Once = Once::new();
        self.engine.counters().count(Counter::TransportDropped);
        if SAID.first() {
            let transport = self.cluster.transport.name();
            log::warn!(
                "{transport}: sessions were overwritten before they were sent; raise memory.size to keep more of them"
            );
        }
    }

    /// The feed was cut off behind what was read: how many entries are gone, nobody knows. Told once a minute at
    /// most, and of each gap once.
    pub(super) fn note_gap(&mut self, cursor: Cursor) {
        self.gap = cursor;
        self.engine.counters().count(Counter::TransportDropped);
        let now = clock::since_boot();
        if self.gap_told.is_some_and(|told| now < told + GAP_AGAIN) {
            return;
        }
        self.gap_told = Some(now);
        let transport = self.cluster.transport.name();
        log::warn!(
            "{transport}: the feed was cut off before this node had read it: sessions and removals of other nodes are \
             missing here; was this node away for long, or does something trim the feed?"
        );
    }

    /// Takes in what others wrote; how many entries there were.
    pub(super) fn receive(&mut self) -> Pass<usize> {
        let cursor = self.store.stream_cursor();
        let Some(feed) = self.channel()?.feed() else { return Ok(0) };
        let news = feed.news(cursor)?;
        let passed_over = news.passed_over as u64;
        self.engine.counters().add(Counter::TransportRejectedFormat, passed_over);
        for bytes in &news.entries {
            self.take_in(bytes);
        }
        // An answer that goes back would be read for ever.
        if let Some(last) = news.last.filter(|last| *last > cursor) {
            self.store.set_stream_cursor(last);
        }
        Ok(news.entries.len() + news.passed_over)
    }

    /// What becomes of a record; nothing, where sessions are not shared or its time is over.
    fn outgoing(&self, meta: &Meta, value: &Zeroizing<Vec<u8>>) -> Vec<Outgoing> {
        let now = clock::now();
        let expires = UnixMillis::from_secs(meta.expires.into());
        let delivery = self.cluster.delivery;
        if delivery == Delivery::None || expires <= now {
            return Vec::new();
        }
        let entry = |kind, label, plain: &[u8]| {
            let sealed = self.seal(label, &meta.key, plain)?;
            let entry = Entry { origin: self.node, kind, key: meta.key, sealed };
            entry.encode().map(Outgoing::Entry)
        };
        match meta.kind {
            Kind::Session => {
                let Some(plain) = message(meta, value).encode() else { return Vec::new() };
                let item = match delivery {
                    Delivery::Vault => self
                        .seal(Label::Lookup, &meta.key, &plain)
                        .map(|sealed| Outgoing::Session(meta.key, sealed, expires.since(now))),
                    _ => entry(message::Kind::Session, Label::Session, &plain),
                };
                item.into_iter().collect()
            }
            Kind::Removal => {
                let removal = Removal { until: meta.expires }.encode();
                let forget = (delivery == Delivery::Vault).then_some(Outgoing::Forget(meta.key));
                let entry = entry(message::Kind::Removal, Label::Control, &removal);
                forget.into_iter().chain(entry).collect()
            }
        }
    }

    fn take_in(&mut self, bytes: &[u8]) {
        let counters = self.engine.counters();
        let Some(entry) = Entry::decode(bytes) else {
            return counters.count(Counter::TransportRejectedFormat);
        };
        if entry.origin == self.node {
            return;
        }
        counters.count(Counter::TransportReceived);
        match entry.kind {
            message::Kind::Ring => self.ring.noticed = true,
            message::Kind::Session if self.cluster.delivery == Delivery::None => {}
            message::Kind::Session => self.take_session(&entry),
            message::Kind::Removal => self.take_removal(&entry),
        }
    }

    fn take_session(&self, entry: &Entry) {
        let now = clock::now();
        let plain = self.open_sealed(Label::Session, &entry.key, &entry.sealed);
        let session = plain.and_then(|plain| self.engine.admit_session(&entry.key, &plain, now));
        if let Some((meta, value)) = session {
            self.engine.adopt_session(&meta, &value, now, PATIENCE);
        }
    }

    fn take_removal(&self, entry: &Entry) {
        let Some(plain) = self.open_sealed(Label::Control, &entry.key, &entry.sealed) else {
            return;
        };
        let counters = self.engine.counters();
        let Some(removal) = Removal::decode(&plain) else {
            return counters.count(Counter::TransportRejectedFormat);
        };
        let now = clock::now();
        let until = UnixMillis::from_secs(removal.until.into()).min(now + LONGEST);
        if self.store.keeps_away(&entry.key, until) {
            return;
        }
        let removed =
            self.store.remove_for_all(&entry.key, until, Origin::Elsewhere, now, PATIENCE);
        if removed.is_err() {
            counters.count(Counter::TransportDropped);
        }
    }
}

impl super::Engine {
    /// The session that another node made, unless its times say that it is of no use, counted by reason.
    pub(in crate::engine) fn admit_session(
        &self,
        key: &[u8; 24],
        plain: &[u8],
        now: UnixMillis,
    ) -> Option<(Meta, Zeroizing<Vec<u8>>)> {
        let refuse = |reason| {
            self.counters().count(reason);
            None
        };
        let Some(message) = SessionMessage::decode(plain) else {
            return refuse(Counter::TransportRejectedFormat);
        };
        let authenticated = UnixMillis::from_secs(message.authenticated.into());
        let expires = UnixMillis::from_secs(message.expires.into());
        if expires <= now || authenticated < self.current(now).ring.sessions_since() {
            return refuse(Counter::TransportRejectedExpired);
        }
        // One that was authenticated later by our clock would escape a flush.
        if expires > now + LONGEST || authenticated > now + CLOCKS_DIFFER {
            return refuse(Counter::TransportRejectedClock);
        }
        let meta = Meta {
            key: *key,
            binding: message.binding,
            expires: message.expires,
            authenticated: message.authenticated,
            kind: Kind::Session,
            note: message.note,
            origin: Origin::Elsewhere,
        };
        Some((meta, message.value))
    }

    /// Takes a session that another node made into this node's store.
    pub(in crate::engine) fn adopt_session(
        &self,
        meta: &Meta,
        value: &[u8],
        now: UnixMillis,
        patience: Duration,
    ) {
        match self.store.accept(meta, value, now, patience) {
            Ok(evicted) => self.note_evicted(evicted),
            // It is here already, or was removed.
            Err(NotInserted::Present) => {}
            Err(NotInserted::Busy | NotInserted::TooLong) => {
                self.counters().count(Counter::TransportDropped);
            }
        }
    }
}

fn message(meta: &Meta, value: &Zeroizing<Vec<u8>>) -> SessionMessage {
    SessionMessage {
        binding: meta.binding,
        expires: meta.expires,
        authenticated: meta.authenticated,
        note: meta.note,
        value: value.clone(),
    }
}
