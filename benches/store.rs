//! The session store by itself: operations a second with several processes on one memory path,
//! instructions of one operation, sessions that a MiB holds.

#[path = "support/callgrind.rs"]
mod callgrind;
mod support;

use std::env;
use std::fs;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::path::Path;
use std::ptr;
use std::thread;
use std::time::Duration;

use serde::Serialize;
use support::{Outcome, Spread, Table, progress, publish};
use tlsresume::clock;
use tlsresume::store::{Key, Kind, Meta, Origin, Store};
use tlsresume_testkit::Folder;

const MEMORY: usize = 16 << 20;

/// A session of 168 bytes without its id, which is the key: TLS 1.2 without client certificates.
const VALUE: [u8; 136] = [7; 136];

const PROCESSES: [u32; 4] = [1, 2, 4, 8];
const ROUNDS: usize = 9;

/// Operations of all processes in one run.
const OPERATIONS: u64 = 320_000;

/// How many of its newest sessions a process looks for. Those of 8 processes fill a third of the
/// memory, so none is overwritten.
const LIVE: u64 = 4096;

const PATIENCE: Duration = Duration::from_millis(1);

/// What nginx's shared cache holds of such sessions.
const NGINX_SESSIONS_PER_MIB: u64 = 2688;

/// Which operations a process makes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mix {
    /// One insertion for nine lookups.
    InsertAndLookup,
    LookupOnly,
}

/// One process's sessions: numbered, and never forgotten by others' insertions.
struct Sessions<'a> {
    store: &'a Store,
    process: u64,
    next: u64,
}

#[derive(Serialize)]
struct Rate {
    mix: &'static str,
    processes: u32,
    million_per_second: Spread,
    ratio_to_one: f64,
}

#[derive(Serialize)]
struct Results {
    cores: usize,
    instructions_per_lookup: u64,
    instructions_per_insert: u64,
    sessions_per_mib: u64,
    nginx_sessions_per_mib: u64,
    rates: Vec<Rate>,
}

fn main() -> Outcome<()> {
    // This program counts itself under valgrind.
    if let [_, flag, operation, count] = &env::args().collect::<Vec<_>>()[..]
        && flag == COUNT_FLAG
    {
        return make_operations(operation, count.parse()?);
    }
    let cores = thread::available_parallelism().map_or(0, usize::from);
    progress("store: instructions and density");
    let results = Results {
        cores,
        instructions_per_lookup: instructions_per("lookup")?,
        instructions_per_insert: instructions_per("insert")?,
        sessions_per_mib: density()?,
        nginx_sessions_per_mib: NGINX_SESSIONS_PER_MIB,
        rates: measure_rates()?,
    };
    publish("store", &results, &[rates_table(&results), single_table(&results)])
}

// ---- one operation ----

impl Mix {
    const ALL: [Mix; 2] = [Mix::LookupOnly, Mix::InsertAndLookup];

    fn name(self) -> &'static str {
        match self {
            Mix::LookupOnly => "lookups only",
            Mix::InsertAndLookup => "1 insertion : 9 lookups",
        }
    }
}

impl<'a> Sessions<'a> {
    /// `live` sessions to look for.
    fn new(store: &'a Store, process: u32, live: u64) -> Sessions<'a> {
        let mut sessions = Sessions { store, process: process.into(), next: 0 };
        (0..live).for_each(|_| sessions.insert());
        sessions
    }

    fn insert(&mut self) {
        let now = clock::now();
        let meta = Meta {
            key: self.key(self.next),
            binding: 1,
            expires: u32::MAX,
            authenticated: 0,
            kind: Kind::Session,
            origin: Origin::Here,
            note: 15,
        };
        // A busy shard is part of what is measured: the server goes on without storing.
        let _ = self.store.insert(&meta, &VALUE, now, PATIENCE);
        self.next += 1;
    }

    /// Looks for one of the newest [`LIVE`] sessions.
    fn look_up(&self, turn: u64) {
        let age = scramble(turn) % LIVE;
        std::hint::black_box(self.store.lookup(&self.key(self.next.saturating_sub(1 + age))));
    }

    fn operate(&mut self, mix: Mix, operations: u64) {
        for turn in 0..operations {
            if mix == Mix::InsertAndLookup && turn % 10 == 0 {
                self.insert();
            } else {
                self.look_up(turn);
            }
        }
    }

    /// As random as the ids that the library makes.
    fn key(&self, number: u64) -> Key {
        let word = self.process << 48 | number;
        let mut key = [0; 24];
        for (part, salt) in key.as_chunks_mut::<8>().0.iter_mut().zip(0..) {
            *part = scramble(word << 2 | salt).to_le_bytes();
        }
        key
    }
}

/// Finalizer of SplitMix64: different numbers give different ones without a pattern.
fn scramble(number: u64) -> u64 {
    let mixed = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

// ---- instructions ----

const COUNT_FLAG: &str = "--count";

/// What [`instructions_per`] counts, in a process of its own.
fn make_operations(operation: &str, count: u64) -> Outcome<()> {
    let store = Store::anonymous(MEMORY)?;
    let mut sessions = Sessions::new(&store, 0, LIVE);
    match operation {
        "insert" => (0..count).for_each(|_| sessions.insert()),
        _ => (0..count).for_each(|turn| sessions.look_up(turn)),
    }
    Ok(())
}

/// The difference between many and few, so that what comes before them cancels out.
fn instructions_per(operation: &str) -> Outcome<u64> {
    let program = env::current_exe()?.to_string_lossy().into_owned();
    let total = |count: u64| {
        let count = count.to_string();
        callgrind::instructions(&[], [&program, COUNT_FLAG, operation, &count])
    };
    Ok((total(3000)? - total(1000)?) / 2000)
}

// ---- density ----

/// Sessions that are found in a memory into which more were put than it holds.
fn density() -> Outcome<u64> {
    let store = Store::anonymous(MEMORY)?;
    let mib = MEMORY as u64 >> 20;
    Sessions::new(&store, 0, 10_000 * mib);
    Ok(store.live(clock::now()) / mib)
}

// ---- several processes ----

fn measure_rates() -> Outcome<Vec<Rate>> {
    let folder = Folder::in_memory()?;
    let mut rates = Vec::new();
    for mix in Mix::ALL {
        progress(format_args!("store: {}", mix.name()));
        let mut samples = PROCESSES.map(|_| Vec::new());
        for round in 0..ROUNDS {
            for (processes, samples) in PROCESSES.into_iter().zip(&mut samples) {
                let path = folder.file(format!("{}-{round}-{processes}", mix as u8));
                samples.push(million_per_second(&path, mix, processes)?);
                fs::remove_file(path)?;
            }
        }
        rates.extend(rates_of(mix, samples));
    }
    Ok(rates)
}

fn rates_of(mix: Mix, samples: [Vec<f64>; PROCESSES.len()]) -> impl Iterator<Item = Rate> {
    let one = Spread::of(samples[0].iter().copied()).median;
    PROCESSES.into_iter().zip(samples).map(move |(processes, samples)| {
        let million_per_second = Spread::of(samples);
        let ratio_to_one = million_per_second.median / one;
        Rate { mix: mix.name(), processes, million_per_second, ratio_to_one }
    })
}

/// From the moment at which all processes are ready until the last is done.
fn million_per_second(path: &Path, mix: Mix, processes: u32) -> Outcome<f64> {
    let (start, starter) = io::pipe()?;
    let (mut reports, reporter) = io::pipe()?;
    let operations = OPERATIONS / u64::from(processes);
    for process in 0..processes {
        // SAFETY: this program has one thread, so the child may go on like any process.
        if unsafe { libc::fork() } == 0 {
            drop((starter, reports));
            let done = work(path, process, mix, operations, start, reporter);
            std::process::exit(i32::from(done.is_err()));
        }
    }
    drop((start, reporter));

    let mut ready = vec![0; processes as usize];
    reports.read_exact(&mut ready)?;
    let begin = clock::since_boot();
    drop(starter);
    let mut done = Vec::new();
    reports.read_to_end(&mut done)?;
    let elapsed = clock::since_boot() - begin;
    reap(processes);
    if done.len() != ready.len() {
        return Err("a process failed".into());
    }
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let total = (operations * u64::from(processes)) as f64;
    Ok(total / elapsed.as_secs_f64() / 1e6)
}

/// A child's life. Reports twice: when it is ready, and when it is done.
fn work(
    path: &Path,
    process: u32,
    mix: Mix,
    operations: u64,
    mut start: PipeReader,
    mut reporter: PipeWriter,
) -> Outcome<()> {
    let store = Store::open(path, MEMORY)?;
    let mut sessions = Sessions::new(&store, process, LIVE);
    reporter.write_all(b".")?;
    start.read_to_end(&mut Vec::new())?;
    sessions.operate(mix, operations);
    reporter.write_all(b".")?;
    Ok(())
}

fn reap(processes: u32) {
    for _ in 0..processes {
        // SAFETY: the status is not asked for, so nothing is written.
        unsafe { libc::waitpid(-1, ptr::null_mut(), 0) };
    }
}

// ---- tables ----

fn rates_table(results: &Results) -> Table {
    let mut table = Table::new(
        "Store operations a second, several processes on one memory path",
        &format!(
            "This machine has {} cores: more processes than that share them. {ROUNDS} alternating rounds, median \
             (min-max). Sessions of 168 bytes.",
            results.cores
        ),
        &["operations", "processes", "million/s", "ratio to 1 process"],
    );
    for rate in &results.rates {
        table.row([
            rate.mix.to_owned(),
            rate.processes.to_string(),
            rate.million_per_second.to_string(),
            format!("{:.2}", rate.ratio_to_one),
        ]);
    }
    table
}

fn single_table(results: &Results) -> Table {
    let mut table = Table::new(
        "Store operations one by one, and density",
        "Sessions of 168 bytes. Instructions: callgrind. nginx: its shared session cache.",
        &["instructions per lookup", "per insertion", "sessions per MiB", "nginx"],
    );
    let numbers = [
        results.instructions_per_lookup,
        results.instructions_per_insert,
        results.sessions_per_mib,
        results.nginx_sessions_per_mib,
    ];
    table.row(numbers.map(|number| number.to_string()));
    table
}
