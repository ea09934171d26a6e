//! Where handshakes leave their questions, and the thread that takes them to the vault.
//!
//! Owns: the [`State`], with the requests and the breaker; the thread owns the connection. Called by: [`super::Lookups`]. Threads: the lock
//! is never held while anybody waits for an answer or logs. The thread has descriptors of its own. Forks:
//! a desk is of the process that made it. Unanswered: what fails counts for the breaker once, however many wait for it,
//! and only the thread says so: that a handshake gave up shows no more than that this host is busy. A panic ends the
//! thread, and the next look-up starts another one.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use super::answer::Answer;
use super::circuit::announce;
use super::direct::Direct;
use super::line::{Batch, Lateness, Line, Outcome, Unanswered};
use super::locks::{contained, locked, waited};
use super::requests::{Answers, Entered, Id};
use super::state::State;
use super::thread::Thread;
use super::wait::Wait;
use super::waker::Waker;
use crate::cluster::transport::{Failure, Transport};
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
    transport: Arc<dyn Transport>,
    /// Longest wait of a handshake.
    budget: Duration,
    state: Mutex<State>,
    /// A request came, or the end.
    called: Condvar,
    waker: Arc<Waker>,
    direct: Direct,
    /// How long the last answer took, in microseconds.
    round_trip: AtomicU64,
}

impl Desk {
    pub(super) fn new(transport: Arc<dyn Transport>, budget: Duration) -> Arc<Self> {
        Arc::new(Desk {
            generation: sys::fork_generation(),
            transport,
            budget,
            state: Mutex::default(),
            called: Condvar::new(),
            waker: Arc::default(),
            direct: Direct::default(),
            round_trip: AtomicU64::new(0),
        })
    }

    pub(super) fn is_of_this_process(&self) -> bool {
        self.generation == sys::fork_generation()
    }

    pub(super) fn direct(&self) -> &Direct {
        &self.direct
    }

    /// How long the last answer took.
    pub(super) fn round_trip(&self) -> Duration {
        Duration::from_micros(self.round_trip.load(Ordering::Relaxed))
    }

    /// Leaves a question for the thread: the wait for its answer, or what there is to say at once.
    pub(super) fn ask(self: &Arc<Self>, id: Id, longest: Duration) -> Result<Arc<Wait>, Answer> {
        // Also while the breaker is open: the thread is who finds out that the transport is well again.
        let has_thread = self.ensure_thread();
        let now = clock::since_boot();
        let mut state = locked(&self.state);
        if !state.circuit.breaker().allows() {
            return Err(Answer::Refused);
        }
        if !has_thread || state.over || state.connects_for_long(now, self.budget) {
            return Err(Answer::Unavailable);
        }
        let wait = Wait::new(now + longest, longest < self.budget / 2);
        let entered = state.requests.enter(id, &wait, now);
        state.is_asked |= entered == Entered::Waits;
        drop(state);
        match entered {
            Entered::Waits => {
                self.called.notify_one();
                Ok(wait)
            }
            Entered::Taken | Entered::Absent => Err(Answer::Absent),
            Entered::Full => Err(Answer::Unavailable),
        }
    }

    /// A handshake has waited for as long as it may: what it is told instead of an answer, unless that came just now.
    pub(super) fn give_up(&self, id: &Id, wait: &Arc<Wait>) -> Answer {
        // The vault may have said that it is not there; what it says next is waited for no longer.
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
    pub(super) fn watch(&self, wait: &Arc<Wait>) -> bool {
        self.waker.watch(wait)
    }

    pub(super) fn stop(&self) {
        locked(&self.state).over = true;
        self.called.notify_one();
        self.waker.stop();
    }

    /// Whether the thread runs; starts it if need be.
    pub(super) fn ensure_thread(self: &Arc<Self>) -> bool {
        let now = clock::since_boot();
        let mut state = locked(&self.state);
        if state.over || !state.thread.may_run(now) {
            return false;
        }
        if !state.thread.starts() {
            return true;
        }
        let desk = Arc::clone(self);
        // Under the lock, for some 50 microseconds: who is told that there is a thread leaves a question, and waits for
        // its whole budget if there turns out to be none.
        let started = sys::spawn("tlsresume-lookup", move || desk.run());
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
    fn run(&self) {
        sys::separate_descriptors();
        crate::log::defer_lines();
        let is_sound = contained(|| self.serve());
        let mut state = locked(&self.state);
        state.thread = Thread::None;
        state.requests.fail_all();
        state.connecting = None;
        let now = clock::since_boot();
        let say = if is_sound { Say::Nothing } else { state.note_failure(now, now, self.budget) };
        drop(state);
        self.announce(say);
        self.waker.look();
    }

    fn serve(&self) {
        let mut line = Line::new(&*self.transport, self.budget);
        // Before anybody waits for it; that it cannot be made shows when somebody does.
        let _ = self.connect(&mut line);
        while self.await_work(&mut line) {
            if let Err(unanswered) = self.ask_what_is_due(&mut line) {
                self.conclude_unanswered(unanswered);
                continue;
            }
            match line.fetch(SLICE) {
                Outcome::Answered(batch, answers) => self.conclude(batch, answers),
                Outcome::Failed(unanswered) => self.conclude_unanswered(unanswered),
                Outcome::Silence => {}
                Outcome::Late(lateness) => self.note_late(&lateness),
            }
        }
    }

    fn ask_what_is_due(&self, line: &mut Line<'_>) -> Result<(), Unanswered> {
        let begun = clock::since_boot();
        if !line.is_connected()
            && let Err(failure) = self.connect(line)
        {
            let mut state = locked(&self.state);
            let say = state.note_failure(begun, clock::since_boot(), self.budget);
            state.requests.fail_all();
            drop(state);
            self.told(say, &failure);
            return Ok(());
        }
        if line.is_full() {
            return Ok(());
        }
        let batch = locked(&self.state).take_up(clock::since_boot(), line.is_idle());
        if batch.is_empty() { Ok(()) } else { line.ask(batch) }
    }

    fn connect(&self, line: &mut Line<'_>) -> Result<(), Failure> {
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

    /// An answer came. Too late helps nobody: only an answer within the budget shows that the transport is well.
    fn conclude(&self, batch: Batch, answers: Answers) {
        let now = clock::since_boot();
        self.note_round_trip(batch.sent, now);
        let mut state = locked(&self.state);
        state.requests.answer(&batch.ids, answers, now, FIRST_PAUSE.min(self.budget / 8));
        let say = match batch.is_late() {
            true => state.note_failure(batch.sent, now, self.budget),
            false => state.circuit.note(now, |breaker| breaker.success()),
        };
        drop(state);
        self.announce(say);
        self.waker.look();
    }

    /// There was silence for a budget, or for one more in which others asked. Those who wait go on waiting, unless the
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
        self.announce(say);
        self.waker.look();
    }

    fn conclude_unanswered(&self, unanswered: Unanswered) {
        let Unanswered { failure, batches, may_be_old } = unanswered;
        let mut state = locked(&self.state);
        let mut say = Say::Nothing;
        for Batch { ids, sent, .. } in batches {
            if may_be_old {
                // The connection was lost while nobody used it; a new one tells more.
                state.requests.put_back(&ids);
            } else {
                state.requests.fail(&ids);
                let noted = state.note_failure(sent, clock::since_boot(), self.budget);
                say = if noted == Say::Nothing { say } else { noted };
            }
        }
        drop(state);
        self.told(say, &failure);
    }

    fn told(&self, say: Say<()>, failure: &Failure) {
        log::debug!("{}: look-up: {failure}", self.transport.name());
        self.announce(say);
        self.waker.look();
    }

    fn announce(&self, say: Say<()>) {
        announce(self.transport.name(), say);
    }

    fn note_round_trip(&self, sent: Duration, now: Duration) {
        let micros = u64::try_from(now.saturating_sub(sent).as_micros()).unwrap_or(u64::MAX);
        self.round_trip.store(micros, Ordering::Relaxed);
    }
}

#[cfg(test)]
impl Desk {
    pub(super) fn of_another_process(transport: Arc<dyn Transport>, budget: Duration) -> Arc<Self> {
        let desk = Arc::into_inner(Desk::new(transport, budget)).expect("the only one");
        Arc::new(Desk { generation: desk.generation + 1, ..desk })
    }

    /// As a thread of that process had it at the fork.
    pub(super) fn lock_for_ever(&self) {
        std::mem::forget(locked(&self.state));
    }
}
