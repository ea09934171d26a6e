//! Where handshakes leave their questions, and the thread that takes them to Redis.
//!
//! Owns: the requests and the breaker; the thread owns the connection. Called by: [`super::Lookups`]. Threads: the lock
//! is never held while anybody waits for Redis or logs. The thread has descriptors of its own. Forks:
//! a desk is of the process that made it. Failure: what fails counts for the breaker once, however many wait for it,
//! and only the thread says so: that a handshake gave up shows no more than that this host is busy. A panic ends the
//! thread, and the next look-up starts another one.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use super::circuit::{Circuit, announce};
use super::direct::Direct;
use super::line::{Exchange, Failure, Lateness, Line, Outcome};
use super::requests::{Answers, Entered, Id, Requests};
use super::wait::{Inquiry, Wait, is_current};
use super::waker::Waker;
use super::{Answer, Asked, Key, contained, locked, waited};
use crate::cluster::redis::{Remote, Trouble};
use crate::cluster::{THREAD_RETRY, say_thread_refused};
use crate::trouble::Say;
use crate::{clock, sys};

/// How soon the thread sees a new question while answers to others are under way. It cannot wait for both at once: the
/// handshakes have no descriptor of its table to write to.
const SLICE: Duration = Duration::from_micros(500);

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
    /// What Redis took last for an answer, in microseconds.
    round_trip: AtomicU64,
}

#[derive(Default)]
struct State {
    requests: Requests,
    circuit: Circuit,
    /// The last session that was looked up was taken.
    took: bool,
    thread: Thread,
    over: bool,
    /// Since when the thread has been making a connection.
    connecting: Option<Duration>,
    /// Since when and until when what failed last had gone on.
    failed: (Duration, Duration),
    /// Somebody asked since then.
    is_asked: bool,
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
            round_trip: AtomicU64::new(0),
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

    /// What Redis took last for an answer.
    pub(super) fn round_trip(&self) -> Duration {
        Duration::from_micros(self.round_trip.load(Ordering::Relaxed))
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
        if !has_thread || state.over || state.connects_for_long(now, self.budget) {
            return Asked::Answered(Answer::Unavailable);
        }
        let wait = Wait::new(now + longest, longest < self.budget / 2);
        let entered = state.requests.enter(id, &wait, now);
        state.is_asked |= entered == Entered::Waits;
        drop(state);
        match entered {
            Entered::Waits => {
                self.called.notify_one();
                Asked::Waits(Inquiry::new(Arc::clone(self), id, wait))
            }
            Entered::Taken | Entered::Absent => Asked::Answered(Answer::Absent),
            Entered::Full => Asked::Answered(Answer::Unavailable),
        }
    }

    /// A handshake has waited for as long as it may: what it is told instead of an answer, unless that came just now.
    pub(super) fn give_up(&self, id: &Id, wait: &Arc<Wait>) -> Answer {
        // Redis may have said that it is not there; what it says next is waited for no longer.
        if locked(&self.state).requests.leave(id, wait, clock::since_boot()) {
            return Answer::Absent;
        }
        wait.told().unwrap_or(Answer::Unavailable)
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
        state.connecting = None;
        let now = clock::since_boot();
        let say = if is_sound { Say::Nothing } else { state.note_failure(now, now, self.budget) };
        drop(state);
        announce(say);
        self.waker.look();
    }

    fn serve(&self, remote: &Remote) {
        let mut line = Line::new(remote, self.budget);
        // Before anybody waits for it; that it cannot be made shows when somebody does.
        let _ = self.connect(&mut line);
        while self.await_work(&mut line) {
            if let Err(failure) = self.ask_what_is_due(&mut line) {
                self.conclude_failure(failure);
                continue;
            }
            match line.fetch(SLICE) {
                Outcome::Answered(exchange, answers) => self.conclude(exchange, answers),
                Outcome::Failed(failure) => self.conclude_failure(failure),
                Outcome::Silence => {}
                Outcome::Late(lateness) => self.note_late(&lateness),
            }
        }
    }

    fn ask_what_is_due(&self, line: &mut Line<'_>) -> Result<(), Failure> {
        let begun = clock::since_boot();
        if !line.is_connected()
            && let Err(trouble) = self.connect(line)
        {
            let mut state = locked(&self.state);
            let say = state.note_failure(begun, clock::since_boot(), self.budget);
            state.requests.fail_all();
            drop(state);
            self.told(say, &trouble);
            return Ok(());
        }
        if line.is_full() {
            return Ok(());
        }
        let batch = locked(&self.state).take_up(clock::since_boot(), line.is_idle());
        if batch.is_empty() { Ok(()) } else { line.ask(batch) }
    }

    fn connect(&self, line: &mut Line<'_>) -> Result<(), Trouble> {
        locked(&self.state).connecting = Some(clock::since_boot());
        let connected = line.connect();
        locked(&self.state).connecting = None;
        connected
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
            if !line.is_idle() || state.has_work(now) {
                return true;
            }
            if now.saturating_sub(idle_since) >= IDLE {
                line.disconnect();
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
    fn conclude(&self, exchange: Exchange, answers: Answers) {
        let now = clock::since_boot();
        self.note_round_trip(exchange.sent, now);
        let mut state = locked(&self.state);
        state.requests.answer(&exchange.batch, answers, now, FIRST_PAUSE.min(self.budget / 8));
        let say = match exchange.is_late() {
            true => state.note_failure(exchange.sent, now, self.budget),
            false => state.circuit.note(now, |breaker| breaker.success()),
        };
        drop(state);
        announce(say);
        self.waker.look();
    }

    /// Redis has been silent for a budget, or for one more in which others asked. Those who wait go on waiting, unless the
    /// breaker opens.
    fn note_late(&self, lateness: &Lateness) {
        let now = clock::since_boot();
        self.note_round_trip(lateness.since, now);
        let mut state = locked(&self.state);
        if !lateness.is_new && !state.is_asked {
            return;
        }
        let say = state.note_failure(lateness.since, now, self.budget);
        drop(state);
        announce(say);
        self.waker.look();
    }

    fn conclude_failure(&self, failure: Failure) {
        let Failure { trouble, exchanges, may_be_old } = failure;
        let mut state = locked(&self.state);
        let mut say = Say::Nothing;
        for Exchange { batch, sent, .. } in exchanges {
            if may_be_old {
                // The connection was lost while nobody used it; a new one tells more.
                state.requests.put_back(&batch);
            } else {
                state.requests.fail(&batch);
                let noted = state.note_failure(sent, clock::since_boot(), self.budget);
                say = if noted == Say::Nothing { say } else { noted };
            }
        }
        drop(state);
        self.told(say, &trouble);
    }

    fn told(&self, say: Say<()>, trouble: &Trouble) {
        log::debug!("redis: look-up: {trouble}");
        announce(say);
        self.waker.look();
    }

    fn note_round_trip(&self, sent: Duration, now: Duration) {
        let micros = u64::try_from(now.saturating_sub(sent).as_micros()).unwrap_or(u64::MAX);
        self.round_trip.store(micros, Ordering::Relaxed);
    }
}

impl State {
    fn has_work(&self, now: Duration) -> bool {
        self.requests.next_due(now).is_some_and(|due| due <= now)
            || self.circuit.breaker().probe_due(now)
    }

    /// What is to be asked; probes one at a time, when nothing else is under way.
    fn take_up(&mut self, now: Duration, is_idle: bool) -> Vec<Id> {
        let batch = self.requests.take_up(now);
        if let Some((_, take)) = batch.last() {
            self.took = *take;
        } else if is_idle && self.circuit.breaker().probe_due(now) {
            return vec![probe(self.took)];
        }
        batch
    }

    /// Who asks while a connection takes longer than that would wait in vain.
    fn connects_for_long(&self, now: Duration, budget: Duration) -> bool {
        self.connecting.is_some_and(|since| now > since + budget)
    }

    /// What was begun at `since` failed. Questions that meet the same silence count once: those that were asked during
    /// most of a budget, as long as it was not noticed.
    fn note_failure(&mut self, since: Duration, now: Duration, budget: Duration) -> Say<()> {
        let (begun, noticed) = self.failed;
        if since < noticed.min(begun + budget * 3 / 4) {
            return Say::Nothing;
        }
        (self.failed, self.is_asked) = ((since, now), false);
        let say = self.circuit.note(now, |breaker| {
            breaker.probe_failed(now);
            breaker.failure(now);
        });
        if !self.circuit.breaker().allows() {
            // Nobody waits any more.
            self.requests.fail_all();
        }
        say
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

#[cfg(test)]
mod tests {
    use super::*;

    const BUDGET: Duration = Duration::from_millis(5);
    const AMPLE: Duration = Duration::from_secs(60);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(1_000_000 + ms)
    }

    #[test]
    fn a_silence_counts_once_however_many_questions_it_meets() {
        let mut state = State::default();
        let mut fail = |since, now| state.note_failure(ms(since), ms(now), BUDGET);
        assert_eq!(fail(0, 5), Say::Nothing);
        for sent in 0..3 {
            assert_eq!(fail(sent, 6), Say::Nothing);
        }
        assert_eq!(fail(4, 9), Say::Nothing, "the second: a budget later, or nearly");
        assert_eq!(fail(7, 12), Say::Nothing);
        assert_eq!(fail(9, 14), Say::Trouble(0), "the third");
    }

    #[test]
    fn failures_that_come_at_once_count_one_after_the_other() {
        let mut state = State::default();
        let says = [0, 1, 2].map(|now| state.note_failure(ms(now), ms(now), BUDGET));
        assert_eq!(says, [Say::Nothing, Say::Nothing, Say::Trouble(0)]);
    }

    #[test]
    fn who_comes_while_a_connection_takes_long_does_not_wait() {
        let mut state = State::default();
        assert!(!state.connects_for_long(ms(0), BUDGET));
        state.connecting = Some(ms(0));
        assert!(!state.connects_for_long(ms(5), BUDGET) && state.connects_for_long(ms(6), BUDGET));
    }

    #[test]
    fn what_another_process_asked_is_answered_without_its_locks() {
        let inherited = Arc::into_inner(Desk::new(BUDGET)).expect("the only one");
        let desk = Arc::new(Desk { generation: inherited.generation + 1, ..inherited });
        let wait = Wait::until(Duration::ZERO);
        // As a thread of that process had it at the fork.
        let _state = locked(&desk.state);
        let inquiry = Inquiry::new(Arc::clone(&desk), ([0; 24], false), wait);
        assert!(inquiry.is_over());
        assert_eq!(inquiry.answer(AMPLE), Answer::Unavailable);
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
