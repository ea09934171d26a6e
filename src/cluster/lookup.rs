//! Look-ups of single sessions in Redis, for handshakes that cannot go on without (pull, single use).
//!
//! Owns: one thread and one connection of this process, the requests of its handshakes, the circuit breaker. Called by:
//! `engine`, from handshakes. Threads: a handshake only ever waits for an answer, and never longer than it says; the
//! socket is the look-up thread's. With `agent = "external"` there is no such thread, and the handshake itself asks.
//! Forks: a child begins anew at its first look-up. Failure: [`Answer::Unavailable`], at once while the breaker is open.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::{Condvar, Mutex, MutexGuard};

use super::breaker::{Breaker, Change};
use super::redis::{Link, Remote};
use crate::{clock, sys};

/// What a session is looked up by.
pub type Key = [u8; 24];

/// Most requests that wait for the thread at a time; with more, Redis is too slow anyway.
const MOST_WAITING: usize = 1024;

/// Most requests in one exchange with Redis.
const BATCH: usize = 64;

/// An absent session is asked for this often: the node that made it may be about to write it.
const TRIES: u32 = 3;

/// How long the thread waits for Redis when no handshake waits any more.
const LINK_LIMIT: Duration = Duration::from_millis(250);

/// An idle process gives its connection back.
const IDLE: Duration = Duration::from_secs(300);

/// What became of a look-up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The sealed session.
    Found(Vec<u8>),
    /// Redis has no such session.
    Absent,
    /// Redis did not answer in time.
    Unavailable,
    /// Redis was not asked: it did not answer others.
    Refused,
}

/// A process's access to the sessions in Redis.
pub struct Lookups {
    remote: Arc<Remote>,
    /// Longest wait of a handshake.
    budget: Duration,
    /// Whether this library may start threads.
    threads: bool,
    desk: ArcSwap<Desk>,
}

/// What this process's handshakes and its thread have in common.
struct Desk {
    generation: u32,
    state: Mutex<State>,
    /// A request came, or the end.
    called: Condvar,
    /// Requests were answered.
    answered: Condvar,
}

struct State {
    requests: HashMap<(Key, bool), Request>,
    breaker: Breaker,
    thread: Thread,
    over: bool,
    /// Used where there is no thread.
    link: Option<Link>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Thread {
    None,
    Running,
    /// The system refused one; not before this time again.
    RefusedUntil(Duration),
}

/// One key that is being looked up.
struct Request {
    /// How many handshakes wait.
    waiting: usize,
    /// When the thread may ask (again).
    due: Duration,
    /// When the last of those who wait gives up.
    deadline: Duration,
    asked: u32,
    taken_up: bool,
    answer: Option<Answer>,
}

impl Lookups {
    /// `threads`: whether a thread may be started; else handshakes do the asking.
    pub fn new(remote: Arc<Remote>, budget: Duration, threads: bool) -> Self {
        Lookups { remote, budget, threads, desk: ArcSwap::from_pointee(Desk::new()) }
    }

    /// The session of that key, waited for at most the budget. A session that is taken is there for nobody else; who
    /// asks for one that is being taken here is told that it is absent.
    pub fn fetch(&self, key: &Key, take: bool) -> Answer {
        let now = clock::since_boot();
        let deadline = now + self.budget;
        let desk = self.desk();
        let Some(mut state) = desk.state.try_lock_for(self.budget) else {
            return Answer::Unavailable;
        };
        let may_probe = !self.threads && state.breaker.probe_due(now);
        if !state.breaker.allows() && !may_probe {
            return Answer::Refused;
        }
        if !self.threads {
            return self.ask_oneself(&mut state, key, take);
        }
        if !self.ensure_thread(&desk, &mut state, now) {
            return Answer::Unavailable;
        }
        let id = (*key, take);
        if !state.enter(id, now, deadline) {
            return if take { Answer::Absent } else { Answer::Unavailable };
        }
        desk.called.notify_one();
        desk.wait_for(state, id, deadline)
    }

    /// Has the connection made before it is needed.
    pub fn warm_up(&self) {
        let desk = self.desk();
        if let (true, Some(mut state)) = (self.threads, desk.state.try_lock()) {
            self.ensure_thread(&desk, &mut state, clock::since_boot());
        }
    }

    /// Ends the thread; look-ups are unavailable from now on.
    pub fn stop(&self) {
        let desk = self.desk.load();
        if desk.generation == sys::fork_generation()
            && let Some(mut state) = desk.state.try_lock_for(self.budget)
        {
            state.over = true;
            desk.called.notify_all();
        }
    }

    /// This process's desk.
    fn desk(&self) -> Arc<Desk> {
        let desk = self.desk.load_full();
        if desk.generation == sys::fork_generation() {
            return desk;
        }
        // Whoever comes second finds the first one's.
        self.desk.compare_and_swap(&desk, Arc::new(Desk::new()));
        self.desk.load_full()
    }

    fn ensure_thread(&self, desk: &Arc<Desk>, state: &mut State, now: Duration) -> bool {
        match state.thread {
            Thread::Running => return !state.over,
            Thread::RefusedUntil(time) if now < time => return false,
            Thread::None | Thread::RefusedUntil(_) => {}
        }
        let (remote, budget) = (Arc::clone(&self.remote), self.budget);
        let served = Arc::clone(desk);
        let started = sys::spawn("tlsresume-lookup", move || served.serve(&remote, budget));
        state.thread = match &started {
            Ok(()) => Thread::Running,
            Err(error) => {
                super::say_thread_refused(error);
                Thread::RefusedUntil(now + super::THREAD_RETRY)
            }
        };
        started.is_ok()
    }

    /// The way without a thread: the handshake has the connection while it asks.
    fn ask_oneself(&self, state: &mut State, key: &Key, take: bool) -> Answer {
        let begun = clock::since_boot();
        let link = state.link.take().map_or_else(|| self.remote.connect(self.budget), Ok);
        let asked = link.and_then(|mut link| {
            let left = self.budget.saturating_sub(clock::since_boot().saturating_sub(begun));
            link.limit(left)?;
            Ok((link.sessions(&[(*key, take)])?, link))
        });
        let now = clock::since_boot();
        match asked {
            Ok((mut answers, link)) => {
                state.link = Some(link);
                announce(state.breaker.success());
                answers.pop().flatten().map_or(Answer::Absent, Answer::Found)
            }
            Err(trouble) => {
                log::debug!("redis: look-up: {trouble}");
                announce(state.breaker.failure(now));
                Answer::Unavailable
            }
        }
    }
}

impl Drop for Lookups {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Desk {
    fn new() -> Self {
        let state = State {
            requests: HashMap::new(),
            breaker: Breaker::new(),
            thread: Thread::None,
            over: false,
            link: None,
        };
        Desk {
            generation: sys::fork_generation(),
            state: Mutex::new(state),
            called: Condvar::new(),
            answered: Condvar::new(),
        }
    }

    /// A handshake's wait.
    fn wait_for(
        &self,
        mut state: MutexGuard<'_, State>,
        id: (Key, bool),
        deadline: Duration,
    ) -> Answer {
        loop {
            if let Some(answer) = state.requests.get(&id).and_then(|request| request.answer.clone())
            {
                state.leave(id);
                return answer;
            }
            let left = deadline.saturating_sub(clock::since_boot());
            if left.is_zero() {
                let asked = state.requests.get(&id).is_some_and(|request| request.asked > 0);
                state.leave(id);
                // Redis did say that it is not there; what it says next is waited for no longer.
                if asked {
                    return Answer::Absent;
                }
                announce(state.breaker.failure(clock::since_boot()));
                return Answer::Unavailable;
            }
            self.answered.wait_for(&mut state, left);
        }
    }

    /// The thread: asks Redis what is asked here, until the end.
    fn serve(&self, remote: &Remote, budget: Duration) {
        sys::separate_descriptors();
        let mut link = remote.connect(LINK_LIMIT).ok();
        let mut idle_since = clock::since_boot();
        let mut state = self.state.lock();
        while !state.over {
            let now = clock::since_boot();
            let batch = state.take_up(now);
            let probe = batch.is_empty() && state.breaker.probe_due(now);
            if batch.is_empty() && !probe {
                if now.saturating_sub(idle_since) > IDLE {
                    link = None;
                }
                let wait = state.next_due(now).min(IDLE);
                self.called.wait_for(&mut state, wait);
                continue;
            }
            idle_since = now;
            let answers = MutexGuard::unlocked(&mut state, || exchange(&mut link, remote, &batch));
            let took = clock::since_boot().saturating_sub(now);
            state.note_outcome(
                answers.is_some() && (!probe || took <= budget),
                probe,
                took <= budget,
            );
            state.answer(&batch, answers, budget);
            self.answered.notify_all();
        }
    }
}

impl State {
    /// Enters a request; `false` when there are too many, or for a session that is being taken already.
    fn enter(&mut self, id: (Key, bool), now: Duration, deadline: Duration) -> bool {
        if let Some(request) = self.requests.get_mut(&id) {
            let (_, take) = id;
            request.waiting += usize::from(!take);
            request.deadline = request.deadline.max(deadline);
            return !take;
        }
        if self.requests.len() >= MOST_WAITING {
            return false;
        }
        let request =
            Request { waiting: 1, due: now, deadline, asked: 0, taken_up: false, answer: None };
        self.requests.insert(id, request);
        true
    }

    fn leave(&mut self, id: (Key, bool)) {
        if let Some(request) = self.requests.get_mut(&id) {
            request.waiting -= 1;
            if request.waiting == 0 && !request.taken_up {
                self.requests.remove(&id);
            }
        }
    }

    /// The requests that are to be asked for now.
    fn take_up(&mut self, now: Duration) -> Vec<(Key, bool)> {
        let due = self.requests.iter_mut().filter(|(_, request)| {
            request.answer.is_none() && !request.taken_up && request.due <= now
        });
        let taken = due.take(BATCH).map(|(id, request)| {
            request.taken_up = true;
            *id
        });
        taken.collect()
    }

    fn next_due(&self, now: Duration) -> Duration {
        let requests = self.requests.values().filter(|request| request.answer.is_none());
        let next = requests.map(|request| request.due).chain(self.breaker.next_probe()).min();
        next.map_or(IDLE, |due| due.saturating_sub(now).max(Duration::from_micros(100)))
    }

    /// An answer that comes too late helps nobody: only one within the budget shows that Redis is well.
    fn note_outcome(&mut self, answered: bool, probe: bool, in_time: bool) {
        let now = clock::since_boot();
        match (answered, probe) {
            (true, _) if in_time => announce(self.breaker.success()),
            (true, _) => {}
            (false, true) => self.breaker.probe_failed(now),
            (false, false) => announce(self.breaker.failure(now)),
        }
    }

    fn answer(
        &mut self,
        batch: &[(Key, bool)],
        answers: Option<Vec<Option<Vec<u8>>>>,
        budget: Duration,
    ) {
        let now = clock::since_boot();
        let mut answers = answers.map(Vec::into_iter);
        for id in batch {
            let answer = match answers.as_mut().map(|answers| answers.next().flatten()) {
                None => Answer::Unavailable,
                Some(None) => Answer::Absent,
                Some(Some(sealed)) => Answer::Found(sealed),
            };
            let Some(request) = self.requests.get_mut(id) else { continue };
            request.taken_up = false;
            request.asked += u32::from(answer != Answer::Unavailable);
            let again = now + budget / (TRIES + 1);
            if request.waiting == 0 {
                self.requests.remove(id);
            } else if answer == Answer::Absent && request.asked < TRIES && again < request.deadline
            {
                request.due = again;
            } else {
                request.answer = Some(answer);
            }
        }
    }
}

/// One exchange with Redis, on a connection that is made if need be. Nothing to ask: whether it answers.
fn exchange(
    link: &mut Option<Link>,
    remote: &Remote,
    batch: &[(Key, bool)],
) -> Option<Vec<Option<Vec<u8>>>> {
    let exchanged = match link.take().map_or_else(|| remote.connect(LINK_LIMIT), Ok) {
        Ok(mut connected) => {
            let answers = if batch.is_empty() {
                connected.ping().map(|()| Vec::new())
            } else {
                connected.sessions(batch)
            };
            answers.map(|answers| (answers, connected))
        }
        Err(trouble) => Err(trouble),
    };
    match exchanged {
        Ok((answers, connected)) => {
            *link = Some(connected);
            Some(answers)
        }
        Err(trouble) => {
            log::debug!("redis: look-up: {trouble}");
            None
        }
    }
}

/// One line for each change of state.
fn announce(change: Change) {
    match change {
        Change::None => {}
        Change::Opened => {
            log::warn!(
                "redis: look-ups go unanswered; handshakes do not wait for them until it answers again"
            );
        }
        Change::Closed => log::warn!("redis: answers look-ups again"),
    }
}
