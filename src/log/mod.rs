//! The library's few lines of log: to standard error, the system's log or a file, or to the application's callback.
//!
//! Owns: the sink, the target and the level. Called by: every module, through the macros of the `log` crate. Threads: lines from
//! several threads do not mix. Forks: nothing is locked while a line is written. Failure: a line that cannot be written
//! is lost; no signal is raised, errno stays as it was.

#![forbid(unsafe_code)]

mod target;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use log::{Level, LevelFilter, Log, Metadata, Record};
use parking_lot::Mutex;

use crate::sys::shared::Shared;
use crate::sys::thread_word::ThreadWord;
use crate::{clock, sys};

pub use target::Target;

/// Where lines go instead of the target: level and text, without a newline.
pub(crate) type Sink = Box<dyn Fn(Level, &str) + Send + Sync>;

static SINK: Shared<Sink> = Shared::empty();

/// Where lines go; standard error as long as no instance says otherwise.
static TARGET: Shared<Target> = Shared::empty();

/// Lines of the agent's, or from before root was given up, with their time, that wait for a thread of the application.
static DEFERRED: Mutex<Vec<(Level, String)>> = Mutex::new(Vec::new());
static ANY_DEFERRED: AtomicBool = AtomicBool::new(false);

const DEFER_PATIENCE: Duration = Duration::from_millis(10);

/// Most lines that wait; of more, the later ones are lost.
const MOST_DEFERRED: usize = 64;

/// Not zero in a thread whose lines are deferred.
static DEFERS: ThreadWord = ThreadWord::new();

struct Logger;

/// Makes the macros of the `log` crate work, at `level` and below. Of several instances in a process, the most talkative
/// one decides on the level, and the first with a target of its own on that.
pub(crate) fn enable(level: LevelFilter, target: &Target) {
    sys::remember_stdio();
    // A second call finds the logger installed already, which is what it wants.
    let _ = log::set_logger(&Logger);
    log::set_max_level(log::max_level().max(level));
    if *target != Target::Stderr && TARGET.load().is_none() {
        TARGET.store(Some(Arc::new(target.clone())));
    }
}

/// Sends lines to `sink` from now on; `None` sends them to the target again.
pub(crate) fn set_sink(sink: Option<Sink>) {
    SINK.store(sink.map(Arc::new));
}

/// From now on nothing is written on this thread, which has descriptors of its own (what lines go to is not among
/// them), but on the next of the application's that makes a handshake. Waits where there is no memory to remember it.
pub(crate) fn defer_lines() {
    while !DEFERS.set(1) {
        sys::pause(DEFER_PATIENCE);
    }
}

/// Calls `f`, whose lines wait as those of [`defer_lines`] do.
pub(crate) fn deferring<R>(f: impl FnOnce() -> R) -> R {
    let before = DEFERS.get();
    DEFERS.set(1);
    let result = f();
    DEFERS.set(before);
    result
}

/// Hands over what was deferred, unless this is one that defers.
pub(crate) fn deliver() {
    if !ANY_DEFERRED.load(Ordering::Relaxed) || DEFERS.get() != 0 {
        return;
    }
    // Held by the agent now, or at a fork: the next handshake tries again.
    let Some(mut deferred) = DEFERRED.try_lock() else { return };
    let lines = std::mem::take(&mut *deferred);
    ANY_DEFERRED.store(false, Ordering::Relaxed);
    drop(deferred);
    lines.iter().for_each(|(level, line)| write(*level, line));
}

fn write(level: Level, line: &str) {
    match SINK.load() {
        Some(sink) => sink(level, line),
        None => TARGET.load().as_deref().unwrap_or(&Target::Stderr).write(level, line),
    }
}

fn defer(level: Level, line: &str) {
    let line = format!("[{}] {line}", target::time(clock::now()));
    // A fork may have left it locked: then the line is lost.
    let Some(mut deferred) = DEFERRED.try_lock_for(DEFER_PATIENCE) else { return };
    if deferred.len() < MOST_DEFERRED {
        deferred.push((level, line));
        ANY_DEFERRED.store(true, Ordering::Relaxed);
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with(env!("CARGO_CRATE_NAME"))
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let _errno = sys::ErrnoGuard::new();
        let line = record.args().to_string();
        if DEFERS.get() != 0 {
            defer(record.level(), &line);
        } else {
            write(record.level(), &line);
        }
    }

    fn flush(&self) {}
}

/// Says something once in the life of a process.
pub(crate) struct Once(AtomicBool);

impl Once {
    pub(crate) const fn new() -> Self {
        Once(AtomicBool::new(false))
    }

    /// True for the first caller.
    pub(crate) fn first(&self) -> bool {
        !self.0.swap(true, Ordering::Relaxed)
    }
}
