//! What the session callbacks ask: an id for a session, a place to keep it, a session by its id.
//!
//! Owns: nothing; sessions are the store's. Called by: `tls`, and `ffi` for removals. Threads and forks: any. A look-up
//! in the store waits for nobody; one in the cluster waits for `cluster.lookup_budget` at most, and for no longer than
//! this thread may wait for all its handshakes together; keeping or removing a session waits for the patience that is
//! given or named here. Failure: no session, or one that is not kept; counted by
//! reason.

use std::time::Duration;

use zeroize::Zeroizing;

use super::{Engine, Policy, Visit};
use crate::clock::{self, UnixMillis};
use crate::cluster::lookup::{Answer, Asked, Asking, Inquiry, Lookups, allowance};
use crate::cluster::seal::Label;
use crate::error::Error;
use crate::ring::session_id::{SESSION_ID_LEN, SESSION_KEY_LEN, SessionKey, session_key};
use crate::ring::{Family, IdKey};
use crate::stats::Counter;
use crate::store::{Kind, Meta, NotInserted, Origin, Store};
use crate::sys::{self, memory};

/// A session to keep.
#[derive(Clone, Copy, Debug)]
pub struct NewSession<'a> {
    /// Its id, as [`Engine::new_session_id`] made it.
    pub id: &'a [u8],
    /// The server name that it is tied to, as the client sent it.
    pub name: &'a [u8],
    /// The policy that served.
    pub policy: Policy,
    /// When its connection began: all keys may have been revoked since.
    pub began: UnixMillis,
    /// When its full handshake took place; `None`: on this connection.
    pub authenticated: Option<UnixMillis>,
    /// When it ends.
    pub expires: UnixMillis,
    /// What is kept.
    pub value: &'a [u8],
    /// A number below 128 kept with it.
    pub note: u8,
}

/// A session that was kept.
#[derive(Debug)]
pub struct StoredSession {
    /// What was kept.
    pub value: Zeroizing<Vec<u8>>,
    /// The number kept with it.
    pub note: u8,
    /// When its full handshake took place, to the second.
    pub authenticated: UnixMillis,
    /// The policy that it was made under.
    pub policy: Policy,
    /// The full handshake that it goes back to.
    pub family: Family,
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
    /// A new family, of a full handshake that takes place now.
    pub fn new_family(&self, now: UnixMillis) -> Family {
        let mut number = [0; 4];
        // Without randomness no session gets an id of ours, and no ticket a key.
        let _ = sys::random(&mut number);
        Family::new(now + self.config.resumption.lifetime, u32::from_le_bytes(number))
    }

    /// A fresh session id of that family that this realm will know as its own. `None` without a key or randomness.
    pub fn new_session_id(&self, family: Family, now: UnixMillis) -> Option<[u8; SESSION_ID_LEN]> {
        let mut random = [0; SESSION_KEY_LEN];
        let sound = sys::random(&mut random);
        let view = self.view(now);
        let id_key = view.ring.id_key(now)?;
        sound.then(|| id_key.session_id(&family.session_key(id_key.mask(), &random)))
    }

    /// Keeps a session, if it fits and the store is free within `patience`. Sessions whose id is not ours are not kept.
    pub fn keep_session(&self, session: &NewSession<'_>, now: UnixMillis, patience: Duration) {
        let view = self.view(now);
        let own = own_id(session.id).and_then(|id| Some((id, view.ring.maker_of(id, now)?)));
        let Some((id, maker)) = own.filter(|_| !view.has_ended_all_since(session.began)) else {
            return self.counters().count(Counter::SessionsDropped);
        };
        let prefixed;
        let (value, note) = if session.policy.is_public() {
            (session.value, session.note)
        } else {
            let Some(both) = with_policy(session.policy, session.value) else {
                return self.counters().count(Counter::SessionsDropped);
            };
            prefixed = both;
            (prefixed.as_slice(), session.note | HAS_POLICY)
        };
        let meta = Meta {
            key: *session_key(id),
            binding: maker.bind(&self.binding(session.name, session.policy).0),
            expires: seconds(session.expires),
            authenticated: seconds(
                session.authenticated.unwrap_or_else(|| view.ring.authenticating(session.began)),
            ),
            kind: Kind::Session,
            origin: Origin::Here,
            note,
        };
        match self.store.insert(&meta, value, now, patience) {
            Ok(evicted) => {
                self.counters().count(Counter::SessionsStored);
                self.note_evicted(evicted);
            }
            Err(NotInserted::Busy | NotInserted::TooLong | NotInserted::Present) => {
                self.counters().count(Counter::SessionsDropped);
            }
        }
    }

    /// The session of that id, if it is ours, alive and may be resumed by this visitor; else `None`, counted by reason.
    /// Waits for the cluster where only that knows.
    pub fn find_session(
        &self,
        id: &[u8],
        visit: &Visit<'_>,
        lookup: Lookup,
        now: UnixMillis,
    ) -> Option<StoredSession> {
        let waited = &mut Waited::default();
        match self.begin_search(id, visit, lookup, Asking::Anyone, waited, now) {
            Search::Over(found) => found,
            Search::Asked(question) => self.end_search(question, id, visit, lookup, waited, now),
        }
    }

    /// As [`Engine::find_session`], but leaves the waiting to the caller, who goes on with [`Engine::end_search`]. What
    /// nobody may ask the cluster for, by `asking`, is absent, and so is what this handshake or, unless it is paused
    /// meanwhile, this thread may not wait for any more.
    pub fn begin_search(
        &self,
        id: &[u8],
        visit: &Visit<'_>,
        lookup: Lookup,
        asking: Asking,
        waited: &mut Waited,
        now: UnixMillis,
    ) -> Search {
        let found = match self.find_here(id, visit, lookup, now) {
            Ok(Here::Found(session)) => Ok(session),
            Ok(Here::Elsewhere(lookups, _)) if !lookups.may_ask(asking) => {
                Err(Counter::SessionsAbsent)
            }
            Ok(Here::Elsewhere(lookups, key)) => {
                match self.longest_wait(lookups, asking, *waited) {
                    Ok(longest) => {
                        let begun = clock::since_boot();
                        match lookups.ask(key, lookup == Lookup::Consume, longest) {
                            Asked::Waits(inquiry) => {
                                return Search::Asked(Question { inquiry, begun });
                            }
                            Asked::Answered(answer) => {
                                self.count_lookup(&answer, begun, waited);
                                allowance::spend(begun, self.config.cluster.lookup_budget);
                                self.open_answer(answer, id, visit, lookup, now)
                            }
                        }
                    }
                    Err(reason) => Err(reason),
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
        visit: &Visit<'_>,
        lookup: Lookup,
        waited: &mut Waited,
        now: UnixMillis,
    ) -> Option<StoredSession> {
        let (begun, budget) = (clock::since_boot(), self.config.cluster.lookup_budget);
        // One that was paused has its answer, or its time is over; one that could not be paused waits here.
        let answer = question.inquiry.answer(allowance::left(budget));
        allowance::spend(begun, budget);
        self.count_lookup(&answer, question.begun, waited);
        self.counted(self.open_answer(answer, id, visit, lookup, now))
    }

    fn counted(&self, found: Result<StoredSession, Counter>) -> Option<StoredSession> {
        found.map_err(|reason| self.counters().count(reason)).ok()
    }

    /// Forgets the session of that id and every other session and ticket of its full handshake, on every node that
    /// shares them. Whether the session was in this node's store.
    ///
    /// # Errors
    /// Others kept the store for longer than a killed process can: it is forgotten here, and other nodes are not told.
    pub fn forget_session(&self, id: &[u8], now: UnixMillis) -> Result<bool, Error> {
        let Some(id) = own_id(id) else { return Ok(false) };
        let was_here = self.store.remove(session_key(id));
        if let Some(family) = self.family_of(id, now) {
            let forgotten = self.forget_everywhere(&family.removal_key(), family, now);
            if self.keeps_values_elsewhere() {
                self.forget_everywhere(session_key(id), family, now)?;
            }
            forgotten?;
        }
        Ok(was_here)
    }

    /// As [`Engine::forget_session`], but only if the session is in this node's store: a ticket that carries its
    /// session is not forgotten.
    ///
    /// # Errors
    /// As [`Engine::forget_session`].
    pub fn forget_stored_session(&self, id: &[u8], now: UnixMillis) -> Result<bool, Error> {
        let is_here = own_id(id).is_some_and(|id| self.store.lookup(session_key(id)).is_some());
        if is_here { self.forget_session(id, now) } else { Ok(false) }
    }

    /// Whether a family was forgotten.
    pub(super) fn is_removed(&self, family: Family, now: UnixMillis) -> bool {
        let removes = |store: &Store| {
            store.has_removals(now) && store.is_removed(&family.removal_key(), family.ends())
        };
        removes(&self.store) || self.store.before().is_some_and(removes)
    }

    /// The family of a session id, if this realm made it.
    pub fn family_of(&self, id: &[u8; SESSION_ID_LEN], now: UnixMillis) -> Option<Family> {
        let view = self.current(now);
        let maker = view.ring.maker_of(id, now)?;
        Some(Family::of_session_key(maker.mask(), session_key(id)))
    }

    /// Members may be at other nodes, or on their way: for as long as they could live none is accepted. The family may
    /// be from a node with a longer lifetime, or a clock that is ahead.
    fn forget_everywhere(
        &self,
        key: &SessionKey,
        family: Family,
        now: UnixMillis,
    ) -> Result<(), Error> {
        let until = family.ends().max(now + self.config.resumption.lifetime);
        match self.store.remove_for_all(key, until, Origin::Here, now, FORGET_PATIENCE) {
            Ok(evicted) => self.note_evicted(evicted),
            Err(_) if self.cluster.is_some() => return Err(STORE_WAS_BUSY),
            // Nobody else is to be told.
            Err(_) => {}
        }
        Ok(())
    }

    /// Whether sessions lie in the cluster under their own keys.
    fn keeps_values_elsewhere(&self) -> bool {
        self.lookups().is_some()
    }

    /// What this node knows of a session. Who is the first to use one, only the cluster knows.
    fn find_here<'a>(
        &'a self,
        id: &'a [u8],
        visit: &Visit<'_>,
        lookup: Lookup,
        now: UnixMillis,
    ) -> Result<Here<'a>, Counter> {
        let id = own_id(id).ok_or(Counter::SessionsForgedId)?;
        // Nothing is looked up anywhere for an id that is not ours.
        let view = self.view(now);
        let maker = view.ring.maker_of(id, now).ok_or(Counter::SessionsForgedId)?;
        let key = session_key(id);
        let stored = self.store.lookup(key);
        let is_removed = |(meta, _): &(Meta, _)| meta.kind != Kind::Session;
        let before = self.store.before().and_then(|before| before.lookup(key));
        if stored.as_ref().is_some_and(is_removed) || before.as_ref().is_some_and(is_removed) {
            return Err(Counter::SessionsAbsent);
        }
        let since = view.ring.sessions_since();
        let found =
            stored.map(|found| self.admissible(maker, since, visit, found, now)).transpose()?;
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
        visit: &Visit<'_>,
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
        let view = self.view(now);
        let maker = view.ring.maker_of(id, now).ok_or(Counter::SessionsForgedId)?;
        self.admissible(maker, view.ring.sessions_since(), visit, (meta, value), now)
    }

    /// It was taken out of the vault, where who has that could put it back: here at least it stays used.
    fn note_used(&self, key: &SessionKey, meta: &Meta, now: UnixMillis) {
        let until = UnixMillis::from_secs(meta.expires.into());
        let noted = self.store.remove_here(key, until, now, NOTE_PATIENCE);
        if let Ok(evicted) = noted {
            self.note_evicted(evicted);
        }
    }

    /// A session that was found, if it is alive, not older than `since`, and may be resumed by this visitor. `maker`
    /// made its id.
    fn admissible(
        &self,
        maker: &IdKey,
        since: UnixMillis,
        visit: &Visit<'_>,
        (meta, value): (Meta, Zeroizing<Vec<u8>>),
        now: UnixMillis,
    ) -> Result<StoredSession, Counter> {
        let authenticated = UnixMillis::from_secs(meta.authenticated.into());
        // Its last second counts, as for OpenSSL.
        if u64::from(meta.expires) < now.secs() || authenticated < since {
            return Err(Counter::SessionsExpired);
        }
        let (policy, value, note) = split_policy(value, meta.note).ok_or(Counter::SessionsParse)?;
        if meta.binding != maker.bind(&self.binding(visit.name, policy).0)
            || !self.may_resume(visit, policy, now)
        {
            return Err(Counter::SessionsBinding);
        }
        let family = Family::of_session_key(maker.mask(), &meta.key);
        if self.is_removed(family, now) {
            return Err(Counter::SessionsAbsent);
        }
        Ok(StoredSession { value, note, authenticated, policy, family })
    }

    fn lookups(&self) -> Option<&Lookups> {
        self.cluster.as_ref().and_then(|cluster| cluster.lookups.as_ref())
    }

    /// How long a handshake may wait for the cluster that has waited so long already.
    fn longest_wait(
        &self,
        lookups: &Lookups,
        asking: Asking,
        waited: Waited,
    ) -> Result<Duration, Counter> {
        let budget = self.config.cluster.lookup_budget;
        let own = budget.saturating_sub(waited.0);
        if own.is_zero() {
            return Err(Counter::SessionsOverLimit);
        }
        if asking == Asking::OnlyThreadsMeanwhile {
            return Ok(own);
        }
        let Some(left) = allowance::enough_for(lookups.round_trip(), budget) else {
            self.counters().count(Counter::LookupsSkipped);
            return Err(Counter::SessionsAbsent);
        };
        Ok(own.min(left))
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
const NOTE_PATIENCE: Duration = Duration::from_micros(800);

/// How long it is waited for when the application asks for a removal: longer than a process that was killed keeps it.
const FORGET_PATIENCE: Duration = Duration::from_millis(15);

const STORE_WAS_BUSY: Error = Error::OnThisNodeOnly(
    "the session and all others of its handshake are removed here, other nodes were not told: other processes kept the \
     store for too long; try again",
);

/// Set in the note of a session whose value begins with its policy. One that everybody may have has none.
const HAS_POLICY: u8 = 0x80;

/// `None` without memory.
fn with_policy(policy: Policy, value: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let mut prefixed = Zeroizing::new(memory::try_vec(Policy::LEN + value.len())?);
    prefixed.extend_from_slice(&policy.to_bytes());
    prefixed.extend_from_slice(value);
    Some(prefixed)
}

fn split_policy(
    mut value: Zeroizing<Vec<u8>>,
    note: u8,
) -> Option<(Policy, Zeroizing<Vec<u8>>, u8)> {
    if note & HAS_POLICY == 0 {
        return Some((Policy::PUBLIC, value, note));
    }
    let policy = Policy::from_bytes(*value.first_chunk()?);
    value.drain(..Policy::LEN);
    Some((policy, value, note & !HAS_POLICY))
}

fn own_id(id: &[u8]) -> Option<&[u8; SESSION_ID_LEN]> {
    id.try_into().ok()
}

/// Seconds as records hold them.
fn seconds(time: UnixMillis) -> u32 {
    u32::try_from(time.secs()).unwrap_or(u32::MAX)
}
