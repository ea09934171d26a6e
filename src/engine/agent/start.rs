//! When a process of the server becomes the agent, and when it stops being it.
//!
//! No thread is started before a fork: the first callback of a process that finds no agent starts one, and only after
//! the process has lived for a while, lest short-lived children take turns; unless the node has no ring of the
//! cluster's yet.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::state::State;
use crate::clock::{self, UnixMillis};
use crate::config;
use crate::engine::Engine;
use crate::sys::shared::Shared;
use crate::trouble::Teller;
use crate::{cluster, sys};

/// How often a process looks whether the node has an agent.
const LOOK: Duration = Duration::from_millis(250);

/// How long a process lives before it becomes the agent.
const SETTLED: Duration = Duration::from_secs(2);

/// How long the first handshake of a node waits for the ring of the others.
const FIRST_COPY: Duration = Duration::from_millis(500);
const FIRST_COPY_LOOK: Duration = Duration::from_millis(1);

/// How long an exiting process waits for its agents.
const EXIT: Duration = Duration::from_millis(100);

/// What a process knows of its own part as agent.
pub(in crate::engine) struct Upkeep {
    /// Wall-clock time of the last look.
    looked: AtomicU64,
    /// Nobody needs to wait for the first copy any more.
    is_settled: AtomicBool,
    process: Shared<Process>,
}

/// One process: a child begins with nothing, not even its parent's locks.
#[derive(Default)]
pub(super) struct Process {
    generation: u32,
    part: Mutex<Part>,
    /// What was told of the transport, by all agents that the process had.
    pub(super) teller: Mutex<Teller<State>>,
}

#[derive(Default)]
struct Part {
    /// Boot-clock time of its first callback.
    born: Option<Duration>,
    running: Option<Arc<Running>>,
    /// A thread was refused: not before this time again.
    refused_until: Duration,
}

/// An agent's thread, as those see it who stop it.
struct Running {
    generation: u32,
    stop: AtomicBool,
    done: AtomicBool,
}

/// The agents of this process, for its exit.
static RUNNING: Mutex<Vec<Arc<Running>>> = Mutex::new(Vec::new());

impl Engine {
    /// Sees to it that the node has an agent and, before its first handshake, the ring of the cluster. Costs a
    /// comparison of times but for a few times a second.
    pub(in crate::engine) fn attend_agent(&self, now: UnixMillis) {
        if self.shared.get().is_none() {
            // No server: whoever this is waits for nothing and starts nothing.
            return;
        }
        let since_look = now.0.wrapping_sub(self.upkeep.looked.load(Ordering::Relaxed));
        let is_settled = self.upkeep.is_settled.load(Ordering::Relaxed);
        if is_settled && u128::from(since_look) < LOOK.as_millis() {
            return;
        }
        self.upkeep.looked.store(now.0, Ordering::Relaxed);
        self.start_agent(false);
        if !is_settled {
            self.await_first_copy();
        }
    }

    /// Whether this node has an agent that lives.
    pub fn has_agent(&self) -> bool {
        self.store.agent_lives()
    }

    /// Starts the agent now, if the node has none and this library may start threads.
    pub fn start_agent_now(&self) {
        if self.cluster.is_some() {
            self.start_agent(true);
        }
    }

    #[cold]
    fn start_agent(&self, at_once: bool) {
        let Some(cluster) = &self.cluster else { return };
        let Some(shared) = self.shared.get().and_then(std::sync::Weak::upgrade) else { return };
        if let Some(lookups) = &cluster.lookups {
            lookups.warm_up();
        }
        if self.config.cluster.agent == config::Agent::External {
            return;
        }
        let process = self.upkeep.this_process();
        // Held by another thread now.
        let Some(mut part) = process.part.try_lock() else { return };
        let now = clock::since_boot();
        // Also while there is an agent: whoever has lived for long enough when it dies follows at once.
        let born = *part.born.get_or_insert(now);
        if self.store.agent_lives() {
            return;
        }
        let is_settled = at_once || !self.store.has_first_copy() || now >= born + SETTLED;
        if !is_settled || part.is_running() || now < part.refused_until {
            return;
        }
        match start_thread(shared) {
            Ok(running) => part.running = Some(running),
            Err(error) => {
                part.refused_until = now + cluster::THREAD_RETRY;
                drop(part);
                cluster::say_thread_refused(&error);
                // Nobody brings the ring of the others.
                self.store.note_first_copy();
            }
        }
    }

    /// Whether a server's first handshake is still to come, which waits for the ring of the cluster before it makes
    /// keys.
    pub(in crate::engine) fn awaits_first_copy(&self) -> bool {
        self.cluster.is_some() && self.shared.get().is_some() && !self.store.has_first_copy()
    }

    /// Waits for the ring of the cluster, once in the life of the shared memory.
    fn await_first_copy(&self) {
        let give_up = clock::since_boot() + FIRST_COPY;
        while !self.store.has_first_copy() && clock::since_boot() < give_up {
            sys::pause(FIRST_COPY_LOOK);
        }
        self.store.note_first_copy();
        self.upkeep.is_settled.store(true, Ordering::Relaxed);
    }
}

impl Default for Upkeep {
    fn default() -> Self {
        Upkeep {
            looked: AtomicU64::default(),
            is_settled: AtomicBool::default(),
            process: Shared::new(Process::default()),
        }
    }
}

impl Upkeep {
    pub(super) fn this_process(&self) -> Arc<Process> {
        let process = self.process.load().unwrap_or_default();
        let generation = sys::fork_generation();
        if process.generation == generation {
            return process;
        }
        // Whoever comes second finds the first one's.
        let begun = Process { generation, ..Process::default() };
        self.process.replace(&process, Arc::new(begun));
        self.process.load().unwrap_or_default()
    }
}

impl Part {
    fn is_running(&self) -> bool {
        self.running.as_ref().is_some_and(|running| !running.done.load(Ordering::Acquire))
    }
}

fn start_thread(engine: Arc<Engine>) -> std::io::Result<Arc<Running>> {
    let running = Arc::new(Running {
        generation: sys::fork_generation(),
        stop: AtomicBool::new(false),
        done: AtomicBool::new(false),
    });
    let own = Done(Arc::clone(&running));
    sys::spawn("tlsresume-agent", move || {
        crate::log::defer_lines();
        // The thread itself has it once.
        let served = catch_unwind(AssertUnwindSafe(|| engine.serve_if_free(1, &own.0.stop)));
        if served.is_err() {
            log::error!(
                "a panic was caught in the agent (please report it); another one will be started"
            );
        }
        drop(engine);
    })?;
    stop_at_exit(Arc::clone(&running));
    Ok(running)
}

/// Says that the thread has ended, however it did.
struct Done(Arc<Running>);

impl Drop for Done {
    fn drop(&mut self) {
        self.0.done.store(true, Ordering::Release);
    }
}

fn stop_at_exit(running: Arc<Running>) {
    static REGISTERED: AtomicBool = AtomicBool::new(false);
    if !REGISTERED.swap(true, Ordering::Relaxed) {
        sys::at_exit(stop_all);
    }
    // A thread of the parent's may have held it at the fork: then this exit waits for nobody.
    let Some(mut all) = RUNNING.try_lock_for(EXIT) else { return };
    all.retain(|other| !other.done.load(Ordering::Relaxed));
    all.push(running);
}

/// An orderly exit: agents are asked to end, and waited for a little.
extern "C" fn stop_all() {
    let Some(all) = RUNNING.try_lock() else { return };
    let generation = sys::fork_generation();
    let own = || all.iter().filter(|running| running.generation == generation);
    own().for_each(|running| running.stop.store(true, Ordering::Release));
    let give_up = clock::since_boot() + EXIT;
    while own().any(|running| !running.done.load(Ordering::Acquire))
        && clock::since_boot() < give_up
    {
        sys::pause(Duration::from_millis(1));
    }
    crate::log::deliver();
}
