//! The thread that wakes handshakes which were paused for an answer.
//!
//! Owns: the waits of paused handshakes. Called by: the desk. Threads: one, started with the first pause; the look-up
//! thread cannot do this, since it has descriptors of its own, among which those of the application are not (ADR 9).
//! Forks: a child begins anew. Failure: without the thread no handshake is paused.

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use super::answer::Answer;
use super::locks::{contained, locked, waited};
use super::thread::Thread;
use super::wait::Wait;
use crate::clock;
use crate::sys;

/// Nothing to wait for: however long.
const LONG: Duration = Duration::from_secs(3600);

#[derive(Default)]
pub(super) struct Waker {
    paused: Mutex<Paused>,
    called: Condvar,
}

#[derive(Default)]
struct Paused {
    waits: Vec<Arc<Wait>>,
    thread: Thread,
    over: bool,
}

impl Waker {
    /// Rings the bell of `wait` once it is over; `false` without a thread.
    pub(super) fn watch(self: &Arc<Self>, wait: &Arc<Wait>) -> bool {
        let now = clock::since_boot();
        let mut paused = locked(&self.paused);
        if !paused.thread.may_run(now) {
            return false;
        }
        paused.waits.push(Arc::clone(wait));
        let is_started = paused.thread.starts();
        drop(paused);
        self.called.notify_one();
        !is_started || self.start(wait, now)
    }

    /// Somebody was told.
    pub(super) fn look(&self) {
        let anybody = !locked(&self.paused).waits.is_empty();
        if anybody {
            self.called.notify_one();
        }
    }

    pub(super) fn stop(&self) {
        locked(&self.paused).over = true;
        self.called.notify_one();
    }

    fn start(self: &Arc<Self>, own: &Arc<Wait>, now: Duration) -> bool {
        let waker = Arc::clone(self);
        let started = sys::spawn("tlsresume-waker", move || waker.run());
        if let Err(error) = &started {
            crate::cluster::say_thread_refused(error);
            locked(&self.paused).waits.retain(|wait| !Arc::ptr_eq(wait, own));
            self.end(Thread::RefusedUntil(now + crate::cluster::THREAD_RETRY));
        }
        started.is_ok()
    }

    fn run(&self) {
        crate::log::defer_lines();
        contained(|| self.serve());
        self.end(Thread::None);
    }

    /// There is no thread (any more): whoever counts on it goes on without an answer.
    fn end(&self, thread: Thread) {
        let mut paused = locked(&self.paused);
        paused.thread = thread;
        let left = std::mem::take(&mut paused.waits);
        drop(paused);
        for wait in left {
            wait.tell(Answer::Unavailable);
            wait.ring();
        }
    }

    fn serve(&self) {
        let mut paused = locked(&self.paused);
        while !(paused.over && paused.waits.is_empty()) {
            let now = clock::since_boot();
            let (over, waits) = paused.waits.drain(..).partition(|wait| wait.is_done(now));
            paused.waits = waits;
            let over: Vec<Arc<Wait>> = over;
            if !over.is_empty() {
                drop(paused);
                over.iter().for_each(|wait| wait.ring());
                paused = locked(&self.paused);
                continue;
            }
            let next = paused.waits.iter().map(|wait| wait.deadline.saturating_sub(now)).min();
            paused = waited(&self.called, paused, next.unwrap_or(LONG));
        }
    }
}

impl Wait {
    /// Whether it is over, or its handshake has gone.
    fn is_done(&self, now: Duration) -> bool {
        self.is_over(now) || !self.has_bell()
    }
}
