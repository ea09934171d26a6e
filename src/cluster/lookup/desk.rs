//! Where handshakes leave their questions, and the thread that takes them to Redis.
//!
//! Owns: the requests and the breaker; the thread owns the connection. Called by: [`super::Lookups`]. Threads: the lock
//! is never held while anybody waits for Redis or logs. The thread has descriptors of its own. Forks:
//! a desk is of the process that made it. Failure: a look-up that fails counts for the breaker once, be it by the
//! handshakes that did not get their answer in time or by the thread. A panic ends the thread, and the next look-up
//! starts another one.

use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use super::circuit::{Circuit, announce};
use super::direct::Direct;
use super::requests::{Answers, Entered, Id, Requests};
use super::wait::{Inquiry, Wait, is_current};
use super::waker::Waker;
use super::{Answer, Asked, Key, contained, locked, waited};
use crate::cluster::redis::{Link, Remote, Trouble};
use crate::cluster::{THREAD_RETRY, say_thread_refused};
use crate::trouble::Say;
use crate::{clock, sys};

/// How long the thread waits: for a connection, and at least for an answer. Handshakes may wait less; but an answer
/// that comes late costs no new connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(1);
const LEAST_LIMIT: Duration = Duration::from_millis(250);

/// How soon an absent session is asked for again.
const FIRST_PAUSE: Duration = Duration::from_millis(1);

/// An idle process gives its connection back.
const IDLE: Duration = Duration::from_secs(300);

/// What this process's handshakes and its threads have in common.
pub(super) struct Desk {
    generation: u32,
    /// Longest wait of a handshake.
    budget: Duration,
    state: Mutex<State>,
    /// A request came, or the end.
    called: Condvar,
    waker: Waker,
    direct: Direct,
}

#[derive(Default)]
struct State {
    requests: Requests,
    circuit: Circuit,
    /// The last session that was looked up was taken.
    took: bool,
    thread: Thread,
    over: bool,
    /// When handshakes that gave up last counted as a failure.
    gave_up: Duration,
    /// What the thread does now has counted as a failure already.
    is_counted: bool,
}

/// A thread of ours.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Thread {
    #[default]
    None,
    Running,
    /// The system refused one; not before this time again.
    RefusedUntil(Duration),
}

impl Thread {
    /// Whether there is one, or one may be tried.
    pub(super) fn may_run(self, now: Duration) -> bool {
        !matches!(self, Thread::RefusedUntil(time) if now < time)
    }

    /// Notes that there is one from now on; whether the caller is to start it.
    pub(super) fn starts(&mut self) -> bool {
        std::mem::replace(self, Thread::Running) != Thread::Running
    }
}

impl Desk {
    pub(super) fn new(budget: Duration) -> Arc<Self> {
        Arc::new(Desk {
            generation: sys::fork_generation(),
            budget,
            state: Mutex::default(),
            called: Condvar::new(),
            waker: Waker::default(),
            direct: Direct::default(),
        })
    }

    pub(super) fn is_of_this_process(&self) -> bool {
        is_current(self.generation)
    }

    pub(super) fn direct(&self) -> &Direct {
        &self.direct
    }

    pub(super) fn waker(&self) -> &Waker {
        &self.waker
    }

    /// Leaves a question for the thread.
    pub(super) fn ask(self: &Arc<Self>, remote: &Arc<Remote>, id: Id, longest: Duration) -> Asked {
        // Also while the breaker is open: the thread is who finds out that Redis is well again.
        let has_thread = self.ensure_thread(remote);
        let now = clock::since_boot();
        let mut state = locked(&self.state);
        if !state.circuit.breaker().allows() {
            return Asked::Answered(Answer::Refused);
        }
        if !has_thread || state.over {
            return Asked::Answered(Answer::Unavailable);
        }
        let wait = Wait::until(now + longest);
        let entered = state.requests.enter(id, &wait, now);
        drop(state);
        match entered {
            Entered::Waits => {
                self.called.notify_one();
                let is_fair = longest >= self.budget / 2;
                Asked::Waits(Inquiry::new(Arc::clone(self), id, wait, is_fair))
            }
            Entered::Taken => Asked::Answered(Answer::Absent),
            Entered::Full => Asked::Answered(Answer::Unavailable),
        }
    }

    /// A handshake has waited for as long as it may; unless that `is_fair`, too short for Redis to be blamed. What it
    /// is told instead of an answer, unless that came just now.
    pub(super) fn give_up(&self, id: &Id, wait: &Arc<Wait>, is_fair: bool) -> Answer {
        let now = clock::since_boot();
        let mut state = locked(&self.state);
        // Redis did say that it is not there; what it says next is waited for no longer.
        if state.requests.leave(id, wait, now) {
            return Answer::Absent;
        }
        if let Some(answer) = wait.told() {
            return answer;
        }
        if !is_fair {
            return Answer::Unavailable;
        }
        let say = state.note_given_up(now, self.budget);
        drop(state);
        // Once the breaker is open, a probe is due some time.
        self.called.notify_one();
        announce(say);
        Answer::Unavailable
    }

    /// A handshake is gone.
    pub(super) fn leave(&self, id: &Id, wait: &Arc<Wait>) {
        locked(&self.state).requests.leave(id, wait, clock::since_boot());
    }

    /// Has the bell of a wait rung when it is over; `false` without a thread to do so.
    pub(super) fn watch(desk: &Arc<Self>, wait: &Arc<Wait>) -> bool {
        desk.waker.watch(desk, wait)
    }

    pub(super) fn stop(&self) {
        locked(&self.state).over = true;
        self.called.notify_one();
        self.waker.stop();
    }

    /// Whether the thread runs; starts it if need be.
    pub(super) fn ensure_thread(self: &Arc<Self>, remote: &Arc<Remote>) -> bool {
        let now = clock::since_boot();
        let mut state = locked(&self.state);
        if state.over || !state.thread.may_run(now) {
            return false;
        }
        if !state.thread.starts() {
            return true;
        }
        let (desk, remote) = (Arc::clone(self), Arc::clone(remote));
        // Under the lock, for some 50 microseconds: who is told that there is a thread leaves a question, and waits for
        // its whole budget if there turns out to be none.
        let started = sys::spawn("tlsresume-lookup", move || desk.run(&remote));
        if started.is_err() {
            state.thread = Thread::RefusedUntil(now + THREAD_RETRY);
            state.requests.fail_all();
        }
        drop(state);
        if let Err(error) = &started {
            say_thread_refused(error);
        }
        started.is_ok()
    }

    /// The thread.
    fn run(&self, remote: &Remote) {
        sys::separate_descriptors();
        crate::log::defer_lines();
        let is_sound = contained(|| self.serve(remote));
        let mut state = locked(&self.state);
        state.thread = Thread::None;
        state.requests.fail_all();
        let say = if is_sound { Say::Nothing } else { state.note_failure(clock::since_boot()) };
        drop(state);
        announce(say);
        self.waker.look();
    }

    fn serve(&self, remote: &Remote) {
        let limit = self.budget.max(LEAST_LIMIT);
        let mut line = Line { remote, limit, link: None, has_served: false };
        // Before anybody waits for it; that it cannot be made shows when somebody does.
        let _ = line.connect();
        while self.await_work(&mut line) {
            if let Err(trouble) = line.connect() {
                self.conclude_failure(&trouble, None);
                continue;
            }
            let now = clock::since_boot();
            let batch = locked(&self.state).take_up(now);
            if batch.is_empty() {
                continue;
            }
            match line.exchange(&batch) {
                Ok(answers) => self.conclude(&batch, answers, now),
                // It was lost while nobody used it; a new one tells more.
                Err(Trouble::Lost(_)) if line.has_served && !self.is_late(now) => {
                    line.has_served = false;
                    locked(&self.state).requests.put_back(&batch);
                }
                Err(trouble) => self.conclude_failure(&trouble, Some(&batch)),
            }
        }
    }

    /// Waits until something is to do; `false` at the end.
    fn await_work(&self, line: &mut Line<'_>) -> bool {
        let idle_since = clock::since_boot();
        let mut state = locked(&self.state);
        loop {
            if state.over {
                return false;
            }
            let now = clock::since_boot();
            if state.has_work(now) {
                state.is_counted = false;
                return true;
            }
            if now.saturating_sub(idle_since) >= IDLE {
                line.link = None;
            }
            state = self.wait(state, now);
        }
    }

    fn wait<'a>(&'a self, state: MutexGuard<'a, State>, now: Duration) -> MutexGuard<'a, State> {
        let probe = state.circuit.breaker().next_probe();
        let next = state.requests.next_due(now).into_iter().chain(probe).min();
        let longest = next.map_or(IDLE, |due| due.saturating_sub(now).min(IDLE));
        waited(&self.called, state, longest)
    }

    /// Redis answered. Too late helps nobody: only an answer within the budget shows that it is well.
    fn conclude(&self, batch: &[Id], answers: Answers, asked: Duration) {
        let (now, is_late) = (clock::since_boot(), self.is_late(asked));
        let mut state = locked(&self.state);
        let say = state.circuit.note(now, |breaker| match is_late {
            true => breaker.probe_failed(now),
            false => breaker.success(),
        });
        state.requests.answer(batch, answers, now, FIRST_PAUSE.min(self.budget / 8));
        drop(state);
        announce(say);
        self.waker.look();
    }

    /// Redis failed those of `batch`; `None`: all.
    fn conclude_failure(&self, trouble: &Trouble, batch: Option<&[Id]>) {
        log::debug!("redis: look-up: {trouble}");
        let mut state = locked(&self.state);
        let say = state.note_failure(clock::since_boot());
        match batch {
            Some(batch) => state.requests.fail(batch),
            None => state.requests.fail_all(),
        }
        drop(state);
        announce(say);
        self.waker.look();
    }

    fn is_late(&self, asked: Duration) -> bool {
        clock::since_boot().saturating_sub(asked) > self.budget
    }
}

impl State {
    fn has_work(&self, now: Duration) -> bool {
        self.requests.next_due(now).is_some_and(|due| due <= now)
            || self.circuit.breaker().probe_due(now)
    }

    /// What is to be asked.
    fn take_up(&mut self, now: Duration) -> Vec<Id> {
        let batch = self.requests.take_up(now);
        if let Some((_, take)) = batch.last() {
            self.took = *take;
        } else if self.circuit.breaker().probe_due(now) {
            return vec![probe(self.took)];
        }
        batch
    }

    /// What the thread did failed.
    fn note_failure(&mut self, now: Duration) -> Say<()> {
        let was_counted = std::mem::replace(&mut self.is_counted, true);
        self.circuit.note(now, |breaker| {
            breaker.probe_failed(now);
            if !was_counted {
                breaker.failure(now);
            }
        })
    }

    /// A handshake got no answer in time. Those that waited together count once, and again if it goes on.
    fn note_given_up(&mut self, now: Duration, budget: Duration) -> Say<()> {
        if now.saturating_sub(self.gave_up) < budget {
            return Say::Nothing;
        }
        (self.gave_up, self.is_counted) = (now, true);
        self.circuit.note(now, |breaker| breaker.failure(now))
    }
}

/// A session that nobody has, looked up as the last one was. Only that shows that look-ups are answered: a Redis that
/// answers otherwise may have none of the slots, load its data, or not permit them; and of one that refuses to write,
/// sessions may still be read, but not be taken.
fn probe(take: bool) -> Id {
    let mut key = Key::default();
    // Where the kernel refuses, one that is not random serves as well.
    let _ = sys::random(&mut key);
    (key, take)
}

/// The thread's connection.
struct Line<'a> {
    remote: &'a Remote,
    /// How long an answer is waited for.
    limit: Duration,
    link: Option<Link>,
    /// It has answered something: Redis may have ended it since.
    has_served: bool,
}

impl Line<'_> {
    fn connect(&mut self) -> Result<(), Trouble> {
        if self.link.is_none() {
            self.has_served = false;
            let mut link = self.remote.connect(CONNECT_LIMIT)?;
            link.limit(self.limit);
            self.link = Some(link);
        }
        Ok(())
    }

    fn exchange(&mut self, batch: &[Id]) -> Result<Answers, Trouble> {
        let Some(mut link) = self.link.take() else {
            return Err(Trouble::Lost("not connected".into()));
        };
        let answers = link.sessions(batch);
        if !matches!(answers, Err(Trouble::Lost(_))) {
            self.link = Some(link);
        }
        self.has_served |= answers.is_ok();
        answers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUDGET: Duration = Duration::from_millis(5);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(1_000_000 + ms)
    }

    #[test]
    fn a_question_that_fails_counts_once_whoever_notices() {
        let mut state = State::default();
        for _ in 0..10 {
            assert_eq!(state.note_given_up(ms(5), BUDGET), Say::Nothing);
        }
        assert_eq!(state.note_failure(ms(250)), Say::Nothing);
        assert_eq!(state.note_failure(ms(251)), Say::Nothing);
        // Then the thread does something else.
        state.is_counted = false;
        assert_eq!(state.note_failure(ms(300)), Say::Nothing);
        state.is_counted = false;
        assert_eq!(state.note_failure(ms(301)), Say::Trouble(0));
    }

    #[test]
    fn a_question_that_goes_on_and_on_opens_the_breaker_after_three_budgets() {
        let mut state = State::default();
        let opened = (1..100).find(|it| state.note_given_up(ms(*it), BUDGET) == Say::Trouble(0));
        assert_eq!(opened, Some(11), "in the first millisecond, and a budget after each");
    }

    #[test]
    fn what_another_process_asked_is_answered_without_its_locks() {
        let inherited = Arc::into_inner(Desk::new(BUDGET)).expect("the only one");
        let desk = Arc::new(Desk { generation: inherited.generation + 1, ..inherited });
        let wait = Wait::until(Duration::ZERO);
        // As a thread of that process had it at the fork.
        let _state = locked(&desk.state);
        let inquiry = Inquiry::new(Arc::clone(&desk), ([0; 24], false), wait, true);
        assert!(inquiry.is_over());
        assert_eq!(inquiry.answer(), Answer::Unavailable);
    }

    #[test]
    fn a_thread_that_was_refused_is_tried_again_later_and_one_that_ended_at_once() {
        let mut thread = Thread::RefusedUntil(ms(60));
        assert!(!thread.may_run(ms(59)) && thread.may_run(ms(60)));
        assert!(thread.starts() && !thread.starts());
        assert!(!contained(|| panic!("in a test")), "and this thread goes on");
        thread = Thread::None;
        assert!(thread.may_run(ms(0)) && thread.starts());
    }
}
