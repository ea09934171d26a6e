//! What the session callbacks ask: an id for a session, a place to keep it, a session by its id.

use std::time::Duration;

use zeroize::Zeroizing;

use super::cluster::Exchange;
use super::{Binding, Engine};
use crate::clock::{self, UnixMillis};
use crate::cluster::lookup::{Answer, Asked, Asking, Inquiry, Lookups};
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

/// How far a search has come.
#[derive(Debug)]
pub enum Search {
    /// To its end: the session, or `None` when there is none, counted by reason.
    Over(Option<StoredSession>),
    /// The cluster was asked.
    Asked(Question),
}

/// How long one handshake has waited for the cluster: all its searches together may wait for `cluster.lookup_budget`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Waited(Duration);

/// A question to the cluster.
#[derive(Debug)]
pub struct Question {
    /// What the answer is waited for by.
    pub inquiry: Inquiry,
    begun: Duration,
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
                self.note_evicted(evicted);
            }
            Err(NotInserted::Busy | NotInserted::TooLong | NotInserted::Present) => {
                self.counters().count(Counter::SessionsDropped);
            }
        }
    }

    /// The session of that id, if it is ours, alive and tied to `binding`; else `None`, counted by reason. Waits for the
    /// cluster where only that knows.
    pub fn find_session(
        &self,
        id: &[u8],
        binding: &Binding,
        lookup: Lookup,
        now: UnixMillis,
    ) -> Option<StoredSession> {
        let waited = &mut Waited::default();
        match self.begin_search(id, binding, lookup, Asking::Anyone, waited, now) {
            Search::Over(found) => found,
            Search::Asked(question) => self.end_search(question, id, binding, lookup, waited, now),
        }
    }

    /// As [`Engine::find_session`], but leaves the waiting to the caller, who goes on with [`Engine::end_search`]. What
    /// nobody may ask the cluster for, by `asking`, is absent, and so is what there is no time left to ask for.
    pub fn begin_search(
        &self,
        id: &[u8],
        binding: &Binding,
        lookup: Lookup,
        asking: Asking,
        waited: &mut Waited,
        now: UnixMillis,
    ) -> Search {
        let found = match self.find_here(id, binding, lookup, now) {
            Ok(Here::Found(session)) => Ok(session),
            Ok(Here::Elsewhere(lookups, _)) if !lookups.may_ask(asking) => {
                Err(Counter::SessionsAbsent)
            }
            Ok(Here::Elsewhere(lookups, key)) => {
                let begun = clock::since_boot();
                match lookups.ask(key, lookup == Lookup::Consume, waited.0) {
                    Asked::Waits(inquiry) => return Search::Asked(Question { inquiry, begun }),
                    Asked::Answered(Answer::OutOfTime) => Err(Counter::SessionsOverLimit),
                    Asked::Answered(answer) => {
                        self.count_lookup(&answer, begun, waited);
                        self.open_answer(answer, id, binding, lookup, now)
                    }
                }
            }
            Err(reason) => Err(reason),
        };
        Search::Over(self.counted(found))
    }

    /// The rest of a search, with the same arguments: waits for the answer for as long as the budget lasts.
    pub fn end_search(
        &self,
        question: Question,
        id: &[u8],
        binding: &Binding,
        lookup: Lookup,
        waited: &mut Waited,
        now: UnixMillis,
    ) -> Option<StoredSession> {
        let answer = question.inquiry.answer();
        self.count_lookup(&answer, question.begun, waited);
        self.counted(self.open_answer(answer, id, binding, lookup, now))
    }

    fn counted(&self, found: Result<StoredSession, Counter>) -> Option<StoredSession> {
        found.map_err(|reason| self.counters().count(reason)).ok()
    }

    /// Forgets the session of that id, on every node that shares it. Whether it was in this node's store.
    pub fn forget_session(&self, id: &[u8], now: UnixMillis) -> bool {
        let Some(id) = own_id(id) else { return false };
        let was_here = self.store.remove(session_key(id));
        let shares =
            self.cluster.as_ref().is_some_and(|cluster| cluster.exchange != Exchange::None);
        if shares && self.current(now).ring.maker_of(id, now).is_some() {
            self.forget_everywhere(session_key(id), now);
        }
        was_here
    }

    /// The session may be at other nodes, or on its way: for as long as it could live it is not taken in again.
    fn forget_everywhere(&self, key: &SessionKey, now: UnixMillis) {
        let until = now + self.config.resumption.lifetime;
        match self.store.remove_for_all(key, until, Origin::Here, now, FORGET_PATIENCE) {
            Ok(evicted) => self.note_evicted(evicted),
            Err(_) => self.counters().count(Counter::TransportDropped),
        }
    }

    /// What this node knows of a session. Who is the first to use one, only the cluster knows.
    fn find_here<'a>(
        &'a self,
        id: &'a [u8],
        binding: &Binding,
        lookup: Lookup,
        now: UnixMillis,
    ) -> Result<Here<'a>, Counter> {
        let id = own_id(id).ok_or(Counter::SessionsForgedId)?;
        // Nothing is looked up anywhere for an id that is not ours.
        let view = self.view(now);
        view.ring.maker_of(id, now).ok_or(Counter::SessionsForgedId)?;
        let key = session_key(id);
        let stored = self.store.lookup(key);
        if stored.as_ref().is_some_and(|(meta, _)| meta.kind != Kind::Session) {
            return Err(Counter::SessionsAbsent);
        }
        let found = stored.map(|found| self.admissible(id, binding, found, now)).transpose()?;
        match (found, self.lookups()) {
            (Some(found), Some(_)) if lookup == Lookup::Keep => Ok(Here::Found(found)),
            (_, Some(lookups)) => Ok(Here::Elsewhere(lookups, key)),
            (Some(found), None) if lookup == Lookup::Keep || self.store.remove(key) => {
                Ok(Here::Found(found))
            }
            (_, None) => Err(Counter::SessionsAbsent),
        }
    }

    /// What the cluster knows.
    fn open_answer(
        &self,
        answer: Answer,
        id: &[u8],
        binding: &Binding,
        lookup: Lookup,
        now: UnixMillis,
    ) -> Result<StoredSession, Counter> {
        let id = own_id(id).ok_or(Counter::SessionsForgedId)?;
        let key = session_key(id);
        let (Answer::Found(sealed), Some(cluster)) = (answer, &self.cluster) else {
            return Err(Counter::SessionsAbsent);
        };
        let plain = self.open_sealed(cluster, Label::Lookup, key, &sealed);
        let admitted = plain.and_then(|plain| self.admit_session(key, &plain, now));
        let (meta, value) = admitted.ok_or(Counter::SessionsAbsent)?;
        if lookup == Lookup::Consume {
            self.note_used(key, &meta, now);
        } else {
            self.adopt_session(&meta, &value, now, ADOPT_PATIENCE);
        }
        self.admissible(id, binding, (meta, value), now)
    }

    /// It was taken out of Redis, where who has that could put it back: here at least it stays used.
    fn note_used(&self, key: &SessionKey, meta: &Meta, now: UnixMillis) {
        let until = UnixMillis::from_secs(meta.expires.into());
        let noted = self.store.remove_for_all(key, until, Origin::Elsewhere, now, FORGET_PATIENCE);
        if let Ok(evicted) = noted {
            self.note_evicted(evicted);
        }
    }

    /// A session that was found, if it is alive and tied to `binding`.
    fn admissible(
        &self,
        id: &[u8; SESSION_ID_LEN],
        binding: &Binding,
        (meta, value): (Meta, Zeroizing<Vec<u8>>),
        now: UnixMillis,
    ) -> Result<StoredSession, Counter> {
        let view = self.view(now);
        let maker = view.ring.maker_of(id, now).ok_or(Counter::SessionsForgedId)?;
        let authenticated = UnixMillis::from_secs(meta.authenticated.into());
        // Its last second counts, as for OpenSSL.
        if u64::from(meta.expires) < now.secs() || authenticated < view.ring.sessions_since() {
            return Err(Counter::SessionsExpired);
        }
        if meta.binding != maker.bind(&binding.0) {
            return Err(Counter::SessionsBinding);
        }
        Ok(StoredSession { value, note: meta.note, authenticated })
    }

    fn lookups(&self) -> Option<&Lookups> {
        self.cluster.as_ref().and_then(|cluster| cluster.lookups.as_ref())
    }

    fn count_lookup(&self, answer: &Answer, begun: Duration, waited: &mut Waited) {
        let took = clock::since_boot().saturating_sub(begun);
        waited.0 += took;
        if *answer == Answer::Refused {
            return self.counters().count(Counter::LookupsRefused);
        }
        if matches!(answer, Answer::Found(_)) {
            self.counters().count(Counter::LookupsFound);
        }
        self.counters().count_lookup(took);
    }
}

/// What this node knows of a session.
enum Here<'a> {
    Found(StoredSession),
    /// The cluster is to be asked.
    Elsewhere(&'a Lookups, &'a SessionKey),
}

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
