//! What the session callbacks ask: an id for a session, a place to keep it, a session by its id.

use std::time::Duration;

use zeroize::Zeroizing;

use super::cluster::Exchange;
use super::{Binding, Engine};
use crate::clock::{self, UnixMillis};
use crate::cluster::lookup::{Answer, Lookups};
use crate::cluster::seal::Label;
use crate::ring::session_id::{SESSION_ID_LEN, SESSION_KEY_LEN, SessionKey, session_key};
use crate::stats::Counter;
use crate::store::{Kind, Meta, NotInserted, Origin};
use crate::sys;

/// A session to keep.
#[derive(Clone, Copy, Debug)]
pub struct NewSession<'a> {
    /// Its id, as [`Engine::new_session_id`] made it.
    pub id: &'a [u8],
    /// What it is tied to.
    pub binding: &'a Binding,
    /// When its full handshake took place.
    pub authenticated: UnixMillis,
    /// When it ends.
    pub expires: UnixMillis,
    /// What is kept.
    pub value: &'a [u8],
    /// A byte kept with it.
    pub note: u8,
}

/// A session that was kept.
#[derive(Debug)]
pub struct StoredSession {
    /// What was kept.
    pub value: Zeroizing<Vec<u8>>,
    /// The byte kept with it.
    pub note: u8,
    /// When its full handshake took place, to the second.
    pub authenticated: UnixMillis,
}

/// Whether finding a session leaves it there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// It may be found again.
    Keep,
    /// Of all who look for it, one gets it.
    Consume,
}

impl Engine {
    /// A fresh session id that this realm will know as its own. `None` without a key or randomness.
    pub fn new_session_id(&self, now: UnixMillis) -> Option<[u8; SESSION_ID_LEN]> {
        let mut key = [0; SESSION_KEY_LEN];
        let sound = sys::random(&mut key);
        let view = self.view(now);
        let id_key = view.ring.id_key(now)?;
        sound.then(|| id_key.session_id(&key))
    }

    /// Keeps a session, if it fits and the store is free within `patience`. Sessions whose id is not ours are not kept.
    pub fn keep_session(&self, session: &NewSession<'_>, now: UnixMillis, patience: Duration) {
        let view = self.view(now);
        let own = own_id(session.id).and_then(|id| Some((id, view.ring.maker_of(id, now)?)));
        let Some((id, maker)) = own else {
            return self.counters().count(Counter::SessionsDropped);
        };
        let meta = Meta {
            key: *session_key(id),
            binding: maker.bind(&session.binding.0),
            expires: seconds(session.expires),
            authenticated: seconds(session.authenticated),
            kind: Kind::Session,
            origin: Origin::Here,
            note: session.note,
        };
        match self.store.insert(&meta, session.value, now, patience) {
            Ok(evicted) => {
                self.counters().count(Counter::SessionsStored);
                self.note_evicted(evicted, now);
            }
            Err(NotInserted::Busy | NotInserted::TooLong | NotInserted::Present) => {
                self.counters().count(Counter::SessionsDropped);
            }
        }
    }

    /// The session of that id, if it is ours, alive and tied to `binding`; else `None`, counted by reason.
    pub fn find_session(
        &self,
        id: &[u8],
        binding: &Binding,
        lookup: Lookup,
        now: UnixMillis,
    ) -> Option<StoredSession> {
        match self.find(id, binding, lookup, now) {
            Ok(session) => Some(session),
            Err(reason) => {
                self.counters().count(reason);
                None
            }
        }
    }

    /// Forgets the session of that id, on every node that shares it. Whether it was in this node's store.
    pub fn forget_session(&self, id: &[u8], now: UnixMillis) -> bool {
        let Some(id) = own_id(id) else { return false };
        let was_here = self.store.remove(session_key(id));
        let shares =
            self.cluster.as_ref().is_some_and(|cluster| cluster.exchange != Exchange::None);
        if shares && self.view(now).ring.maker_of(id, now).is_some() {
            self.forget_everywhere(session_key(id), now);
        }
        was_here
    }

    /// The session may be at other nodes, or on its way: for as long as it could live it is not taken in again.
    fn forget_everywhere(&self, key: &SessionKey, now: UnixMillis) {
        let until = now + self.config.resumption.lifetime;
        match self.store.remove_for_all(key, until, Origin::Here, now, FORGET_PATIENCE) {
            Ok(evicted) => self.note_evicted(evicted, now),
            Err(_) => self.counters().count(Counter::TransportDropped),
        }
    }

    fn find(
        &self,
        id: &[u8],
        binding: &Binding,
        lookup: Lookup,
        now: UnixMillis,
    ) -> Result<StoredSession, Counter> {
        let view = self.view(now);
        let id = own_id(id).ok_or(Counter::SessionsForgedId)?;
        let maker = view.ring.maker_of(id, now).ok_or(Counter::SessionsForgedId)?;
        let key = session_key(id);
        let (meta, value) = self.session_of(key, lookup, now)?;
        let authenticated = UnixMillis::from_secs(meta.authenticated.into());
        // Its last second counts, as for OpenSSL.
        if u64::from(meta.expires) < now.secs() || authenticated < view.ring.sessions_since() {
            return Err(Counter::SessionsExpired);
        }
        if meta.binding != maker.bind(&binding.0) {
            return Err(Counter::SessionsBinding);
        }
        // Where Redis decides, it was this process alone that got it there.
        if lookup == Lookup::Consume && !self.store.remove(key) && self.lookups().is_none() {
            return Err(Counter::SessionsAbsent);
        }
        Ok(StoredSession { value, note: meta.note, authenticated })
    }

    /// The session of that key, from the store or from the cluster. Who is the first to use one, only the cluster knows.
    fn session_of(&self, key: &SessionKey, lookup: Lookup, now: UnixMillis) -> Found {
        let stored = self.store.lookup(key);
        if stored.as_ref().is_some_and(|(meta, _)| meta.kind != Kind::Session) {
            return Err(Counter::SessionsAbsent);
        }
        match (stored, self.lookups()) {
            (Some(found), None) => Ok(found),
            (Some(found), Some(_)) if lookup == Lookup::Keep => Ok(found),
            (_, Some(lookups)) => self.fetch_session(lookups, key, lookup, now),
            (None, None) => Err(Counter::SessionsAbsent),
        }
    }

    fn fetch_session(
        &self,
        lookups: &Lookups,
        key: &SessionKey,
        lookup: Lookup,
        now: UnixMillis,
    ) -> Found {
        let take = lookup == Lookup::Consume;
        let begun = clock::since_boot();
        let answer = lookups.fetch(key, take);
        self.count_lookup(&answer, clock::since_boot().saturating_sub(begun));
        let (Answer::Found(sealed), Some(cluster)) = (answer, &self.cluster) else {
            return Err(Counter::SessionsAbsent);
        };
        let plain = self.open_sealed(cluster, Label::Session, key, &sealed);
        let admitted = plain.and_then(|plain| self.admit_session(key, &plain, now));
        let (meta, value) = admitted.ok_or(Counter::SessionsAbsent)?;
        if !take {
            self.adopt_session(&meta, &value, now, ADOPT_PATIENCE);
        }
        Ok((meta, value))
    }

    fn lookups(&self) -> Option<&Lookups> {
        self.cluster.as_ref().and_then(|cluster| cluster.lookups.as_ref())
    }

    fn count_lookup(&self, answer: &Answer, took: Duration) {
        if *answer == Answer::Refused {
            return self.counters().count(Counter::LookupsRefused);
        }
        if matches!(answer, Answer::Found(_)) {
            self.counters().count(Counter::LookupsFound);
        }
        self.counters().count_lookup(took);
    }
}

type Found = Result<(Meta, Zeroizing<Vec<u8>>), Counter>;

/// How long a shard's lease is waited for: by a handshake that keeps what it fetched, and by who removes a session.
const ADOPT_PATIENCE: Duration = Duration::from_micros(200);
const FORGET_PATIENCE: Duration = Duration::from_micros(800);

fn own_id(id: &[u8]) -> Option<&[u8; SESSION_ID_LEN]> {
    id.try_into().ok()
}

/// Seconds as records hold them.
fn seconds(time: UnixMillis) -> u32 {
    u32::try_from(time.secs()).unwrap_or(u32::MAX)
}
