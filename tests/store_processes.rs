//! The store under processes that race, stop and are killed.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(clippy::cast_possible_truncation, reason = "small numbers made here")]

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use siphasher::sip::SipHasher13;
use tempfile::TempDir;
use tlsresume::clock::{UnixMillis, now, since_boot};
use tlsresume::stats::Counter;
use tlsresume::store::{Key, Kind, Meta, NotInserted, Origin, Served, Store};
use zeroize::Zeroizing;

const NOW: UnixMillis = UnixMillis::from_secs(1_700_000_000);
const LATER: u32 = 1_700_100_000;

/// One shard, so that all meet in it.
const SMALL: usize = 512 * 1024;

/// Much longer than a healthy machine needs: tests that wait for it fail.
const PATIENT: Duration = Duration::from_secs(20);

/// How long strikes count.
const WINDOW: Duration = Duration::from_secs(20);

/// What a handshake waits for a shard.
const HANDSHAKE: Duration = Duration::from_millis(1);

/// A forked process; killed, if it still runs, when dropped.
struct Child(libc::pid_t);

impl Child {
    /// Runs `work` in a child, which succeeds if that neither panics nor returns false.
    fn new(work: impl FnOnce() -> bool) -> Self {
        // SAFETY: the child has one thread, uses memory, the store and the file system alone, and ends by _exit.
        match unsafe { libc::fork() } {
            0 => {
                let done = catch_unwind(AssertUnwindSafe(work)).unwrap_or(false);
                // SAFETY: no precondition; nothing of the parent's runs at this exit.
                unsafe { libc::_exit(i32::from(!done)) }
            }
            pid => {
                assert!(pid > 0, "{}", std::io::Error::last_os_error());
                Child(pid)
            }
        }
    }

    fn signal(&self, signal: i32) {
        // SAFETY: a child of ours that was not waited for, so the number is still its.
        assert_eq!(unsafe { libc::kill(self.0, signal) }, 0);
    }

    fn wait(&mut self) -> i32 {
        let mut status = 0;
        // SAFETY: as above; the status is an int that the call writes.
        assert_eq!(unsafe { libc::waitpid(self.0, &raw mut status, 0) }, self.0);
        self.0 = 0;
        status
    }

    fn succeed(mut self) {
        assert_eq!(self.wait(), 0, "a child failed: its message is above");
    }

    fn is_running(&self) -> bool {
        // SAFETY: as above; nothing is written, and who has ended stays to be waited for.
        unsafe {
            let mut info = std::mem::zeroed::<libc::siginfo_t>();
            let how = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
            let id = self.0.cast_unsigned();
            assert_eq!(libc::waitid(libc::P_PID, id, &raw mut info, how), 0);
            info.si_pid() == 0
        }
    }

    fn kill(mut self) {
        self.signal(libc::SIGKILL);
        self.wait();
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.0 != 0 {
            self.signal(libc::SIGKILL);
            self.wait();
        }
    }
}

fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(0x1234_5678_9abc);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed ^ mixed >> 31
}

fn key(number: u64) -> Key {
    let mut key = [0; 24];
    for (part, index) in key.chunks_mut(8).zip(1..) {
        part.copy_from_slice(&mix(number ^ index << 56).to_le_bytes());
    }
    key
}

fn session(number: u64) -> Meta {
    Meta {
        key: key(number),
        binding: mix(number ^ 1),
        expires: LATER,
        authenticated: number as u32,
        kind: Kind::Session,
        origin: Origin::Here,
        note: number as u8,
    }
}

fn len(number: u64) -> usize {
    mix(number) as usize % 3000
}

fn value(number: u64, len: usize) -> Vec<u8> {
    let words = (0..len.div_ceil(8) as u64).flat_map(|at| mix(number ^ at << 40).to_le_bytes());
    words.take(len).collect()
}

fn insert(store: &Store, number: u64, patience: Duration) -> Result<(), NotInserted> {
    store.insert(&session(number), &value(number, len(number)), NOW, patience).map(|_| ())
}

/// Whether the session is there; it is then what was inserted.
fn finds(store: &Store, number: u64) -> bool {
    store.lookup(&key(number)).is_some_and(|(meta, found)| {
        assert_eq!(meta, session(number));
        assert_eq!(*found, value(number, len(number)), "the value of another");
        true
    })
}

fn look_at_all(store: &Store) {
    for number in 0..50 {
        finds(store, number);
    }
}

fn counter(store: &Store) -> &AtomicU64 {
    &store.counters().0[Counter::SessionsStored as usize]
}

/// Waits until `condition` holds.
fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let give_up = since_boot() + PATIENT;
    while !condition() {
        assert!(since_boot() < give_up, "{what}: not in time");
        std::thread::yield_now();
    }
}

#[test]
fn lookups_among_the_inserts_of_processes_never_give_a_wrong_value() {
    const KEYS: u64 = 800;
    let store = Store::anonymous(SMALL).unwrap();
    let writers: Vec<_> = (0..2u64)
        .map(|writer| {
            Child::new(|| {
                (0..6000).for_each(|round| {
                    let number = mix(round << 1 | writer) % KEYS;
                    let _ = insert(&store, number, PATIENT);
                });
                true
            })
        })
        .collect();
    let reader = Child::new(|| {
        for round in 0..30_000 {
            finds(&store, mix(round) % KEYS);
        }
        true
    });
    let found = (0..30_000).filter(|round| finds(&store, mix(*round ^ 7) % KEYS)).count();
    reader.succeed();
    writers.into_iter().for_each(Child::succeed);
    let found_after = (0..KEYS).filter(|number| finds(&store, *number)).count();
    assert!(found_after > 100, "{found} and {found_after} found");
}

#[test]
fn of_processes_that_remove_or_claim_a_key_one_is_first() {
    const KEYS: u64 = 500;
    const CHILDREN: u64 = 4;
    let store = Store::anonymous(SMALL).unwrap();
    let complete = now() + WINDOW * 100;
    let counters = store.counters();
    for number in 0..KEYS {
        store.insert(&session(number), &[], NOW, PATIENT).unwrap();
    }
    let children: Vec<_> = (0..CHILDREN)
        .map(|_| {
            Child::new(|| {
                let arrived = &counters.0[Counter::SessionsAbsent as usize];
                for number in 0..KEYS {
                    // Side by side, or the first would be done before the second starts.
                    arrived.fetch_add(1, Ordering::Relaxed);
                    until("the others", || {
                        arrived.load(Ordering::Relaxed) >= (number + 1) * CHILDREN
                    });
                    if store.remove(&key(number)) {
                        counters.count(Counter::SessionsHit);
                    }
                    if store.strike(&key(number), WINDOW, complete) {
                        counters.count(Counter::EarlyDataAllowed);
                    }
                }
                true
            })
        })
        .collect();
    children.into_iter().for_each(Child::succeed);
    assert_eq!(counters.value(Counter::SessionsHit), KEYS);
    let first = counters.value(Counter::EarlyDataAllowed);
    // Of two in the same instant both may be refused; nobody is first twice.
    assert!(first <= KEYS && first > KEYS / 2, "{first} of {KEYS}");
}

#[test]
fn writers_killed_at_random_moments_cost_the_others_nothing_but_their_record() {
    let store = Store::anonymous(SMALL).unwrap();
    let mut left_locked = 0;
    for round in 0..200u64 {
        let before = counter(&store).load(Ordering::Relaxed);
        let long = value(round, 50_000);
        let child = Child::new(|| {
            for number in 0.. {
                if number % 3 == 0 {
                    let _ = insert(&store, number % 50, PATIENT);
                } else {
                    // Long ones, so that most are killed in the midst.
                    let _ = store.insert(&session(1000 + number % 9), &long, NOW, PATIENT);
                }
                counter(&store).fetch_add(1, Ordering::Relaxed);
            }
            true
        });
        let progress = before + 1 + mix(round) % 12;
        until("the child inserts", || counter(&store).load(Ordering::Relaxed) >= progress);
        child.kill();
        let own = 1_000_000 + round;
        left_locked += u64::from(insert(&store, own, Duration::ZERO) == Err(NotInserted::Busy));
        // A holder has a shard for 10 ms at most.
        assert_eq!(insert(&store, own, Duration::from_millis(20)), Ok(()), "round {round}");
        assert!(finds(&store, own), "round {round}");
        look_at_all(&store);
    }
    assert!(left_locked > 0, "no child was killed in the midst: the test tests nothing");
}

#[test]
fn a_stopped_writer_costs_an_insert_its_patience_and_lookups_nothing() {
    let store = Store::anonymous(SMALL).unwrap();
    let long = value(1, 60_000);
    let child = Child::new(|| {
        for number in 0.. {
            let _ = store.insert(&session(1000 + number % 3), &long, NOW, PATIENT);
            counter(&store).fetch_add(1, Ordering::Relaxed);
        }
        true
    });
    let (mut seen, mut shortest) = (0, PATIENT);
    for round in 0..20 {
        let own = 1_000_000 + round;
        let mut waited = Duration::ZERO;
        until("a stop in the midst of an insert", || {
            until("the child goes on", || counter(&store).load(Ordering::Relaxed) > seen);
            child.signal(libc::SIGSTOP);
            let before = since_boot();
            let result = insert(&store, own, HANDSHAKE);
            waited = since_boot() - before;
            if result.is_ok() {
                seen = counter(&store).load(Ordering::Relaxed);
                child.signal(libc::SIGCONT);
            }
            result == Err(NotInserted::Busy)
        });
        shortest = shortest.min(waited);
        look_at_all(&store);
        assert_eq!(
            insert(&store, own, Duration::from_millis(20)),
            Ok(()),
            "taken over after 10 ms"
        );
        assert!(finds(&store, own));
        // It wakes up late, and finds out.
        seen = counter(&store).load(Ordering::Relaxed);
        child.signal(libc::SIGCONT);
        until("the child goes on", || counter(&store).load(Ordering::Relaxed) > seen + 3);
        assert_eq!(insert(&store, own, PATIENT), Ok(()));
    }
    // Each was told Busy; the processors are others' too, so the shortest wait of all is what counts.
    assert!(HANDSHAKE <= shortest && shortest < Duration::from_millis(50), "{shortest:?}");
    child.kill();
}

#[test]
fn a_process_that_is_stopped_anywhere_makes_no_id_be_allowed_twice() {
    const IDS: u64 = 40;
    let store = Store::anonymous(SMALL).unwrap();
    // What the child was allowed, and how far it has come.
    let allowed = Store::anonymous(4 << 20).unwrap();
    let complete = now() + WINDOW * 100;
    let long = value(1, 60_000);
    let child = Child::new(|| {
        for number in 0.. {
            // Between its claims it does what took other strikes away once: it writes long sessions.
            if number % IDS == 0 {
                let _ = store.insert(&session(number % 7), &long, NOW, PATIENT);
            }
            // A word that is over is the first of its bucket: each id finds room.
            let at = complete + WINDOW * 2 * (number / IDS) as u32;
            if store.strike(&key(number), WINDOW, at) {
                allowed.insert(&session(number % (1 << 20)), &[], NOW, PATIENT).unwrap();
            }
            counter(&store).store(number + 1, Ordering::Release);
        }
        true
    });
    let (mut from, mut both_claimed) = (0, 0);
    for round in 0..300 {
        until("the child goes on", || {
            counter(&store).load(Ordering::Acquire) > from + mix(round) % 9
        });
        child.signal(libc::SIGSTOP);
        // It may be in the midst of the next one. The others of its time are claimed before it comes to them.
        let next = counter(&store).load(Ordering::Acquire);
        let ids = next..(next / IDS + 1) * IDS;
        let at = complete + WINDOW * 2 * (next / IDS) as u32;
        let mine: Vec<_> = ids.clone().filter(|id| store.strike(&key(*id), WINDOW, at)).collect();
        from = next + 1;
        child.signal(libc::SIGCONT);
        until("the child goes on", || counter(&store).load(Ordering::Acquire) >= ids.end);
        for id in ids {
            let by_child = allowed.lookup(&key(id % (1 << 20))).is_some();
            assert!(!(by_child && mine.contains(&id)), "round {round}: {id} was allowed twice");
            both_claimed += 1;
        }
        from = from.max(counter(&store).load(Ordering::Acquire));
    }
    assert!(both_claimed > 1000, "{both_claimed}: the test tests nothing");
    child.kill();
}

#[test]
fn a_mark_on_a_name_is_seen_by_all_processes_while_they_write_and_are_killed() {
    const NAMES: u64 = 300;
    let keep = Duration::from_secs(86_400);
    let store = Store::anonymous(SMALL).unwrap();
    let hash = |name: u64| store.name_hash(&[&name.to_le_bytes()]);
    let is_marked = |name| store.served(hash(name), NOW) == Served::Mixed;
    let marked = counter(&store);
    let writer = || {
        Child::new(|| {
            for round in 0.. {
                // Around the names that are marked, and over them.
                let name = mix(round) % (2 * NAMES);
                store.note_served(hash(name), (round % 3) as u16, NOW, keep);
                let so_far = marked.load(Ordering::Acquire);
                assert!(so_far == 0 || is_marked(mix(round) % so_far), "round {round}");
            }
            true
        })
    };
    let writers = [writer(), writer()];
    let mut killed = Some(writer());
    for name in 0..NAMES {
        store.note_mixed(hash(name), NOW, keep);
        marked.store(name + 1, Ordering::Release);
        if name == NAMES / 2 {
            killed.take().unwrap().kill();
        }
        assert!((0..=name).all(is_marked));
    }
    for writer in writers {
        assert!(writer.is_running(), "a writer missed a mark: its message is above");
        writer.kill();
    }
    assert!((0..NAMES).all(is_marked));
}

#[test]
fn a_ring_is_whole_whenever_its_writer_is_killed() {
    let store = Store::anonymous(SMALL).unwrap();
    // All bytes of a ring are the same.
    let put = |byte: u8| {
        let len = 5000 + usize::from(byte) * 100;
        store.update_ring(PATIENT, |_| Some(Zeroizing::new(vec![byte; len])))
    };
    let check = |written_now: bool| {
        let before = store.ring_generation();
        let (_, ring) = store.read_ring();
        let Some(ring) = ring else {
            // Overtaken twice while it was read: the reader keeps what it has and reads again.
            assert!(
                written_now && store.ring_generation() != before,
                "there is always a whole one"
            );
            return;
        };
        assert!(ring.iter().all(|byte| *byte == ring[0]), "a mix");
        assert_eq!(ring.len(), 5000 + usize::from(ring[0]) * 100);
    };
    assert!(put(1));
    // How many rings there were.
    let count = || store.ring_generation() >> 32;
    let mut rings = count();
    for round in 0..15 {
        // It first takes over, after a second, the lease that its predecessor may have left.
        let child = Child::new(|| (0u8..=255).cycle().all(put));
        let progress = rings + 1 + mix(round) % 5;
        until("the child writes", || {
            check(true);
            count() >= progress
        });
        child.kill();
        check(false);
        rings = count();
    }
    assert!(put(7), "taken over at last");
    check(false);
}

#[test]
fn a_writer_that_is_stopped_in_the_midst_undoes_no_revocation_when_it_goes_on() {
    let store = Store::anonymous(SMALL).unwrap();
    // All bytes of a ring are the number of the last revocation.
    let revoke =
        |number: u8| store.update_ring(PATIENT, |_| Some(Zeroizing::new(vec![number; 40_000])));
    let check = |number: u8| {
        let mut ring = None;
        // One who writes all the time may overtake a reader.
        until("a ring", || {
            ring = store.read_ring().1;
            ring.is_some()
        });
        let ring = ring.unwrap();
        assert!(ring.iter().all(|byte| *byte == number), "{} after revocation {number}", ring[0]);
    };
    assert!(revoke(0));
    let mut goes_on = 0;
    for round in 1..=8u8 {
        // It keeps what it finds revoked, and changes the ring all the time.
        let child = Child::new(|| {
            loop {
                store.update_ring(PATIENT, |ring| ring.map(|ring| Zeroizing::new(ring.to_vec())));
                counter(&store).fetch_add(1, Ordering::Release);
            }
        });
        until("a stop in the midst of a change", || {
            until("the child goes on", || counter(&store).load(Ordering::Acquire) > goes_on);
            child.signal(libc::SIGSTOP);
            let held = !store.update_ring(Duration::ZERO, |_| None);
            if !held {
                goes_on = counter(&store).load(Ordering::Acquire);
                child.signal(libc::SIGCONT);
            }
            held
        });
        assert!(revoke(round), "taken over after a second");
        check(round);
        goes_on = counter(&store).load(Ordering::Acquire);
        if round % 2 == 0 {
            child.signal(libc::SIGCONT);
            until("the child goes on", || {
                check(round);
                counter(&store).load(Ordering::Acquire) > goes_on + 2
            });
        }
        child.kill();
        check(round);
        goes_on = counter(&store).load(Ordering::Acquire);
    }
}

fn in_memory() -> TempDir {
    TempDir::new_in("/dev/shm").unwrap()
}

/// Several processes open `path` at the same moment, and each inserts a session of its own.
fn open_together(path: &Path, size: usize, many: u64, check: impl Fn(&Store) -> bool) {
    let line = Store::anonymous(SMALL).unwrap();
    let children: Vec<_> = (0..many)
        .map(|number| {
            Child::new(|| {
                counter(&line).fetch_add(1, Ordering::Relaxed);
                until("the others", || counter(&line).load(Ordering::Relaxed) == many);
                let store = Store::open(path, size).unwrap();
                insert(&store, number, PATIENT).unwrap();
                check(&store)
            })
        })
        .collect();
    children.into_iter().for_each(Child::succeed);
    let store = Store::open(path, size).unwrap();
    assert!((0..many).all(|number| finds(&store, number)), "all share one file");
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing is left over");
}

/// Makes a file one of another release: of the layout after ours, with the same root.
fn forge_another_layout(path: &Path) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut fixed = [0; 64];
    file.read_exact_at(&mut fixed, 0).unwrap();
    fixed[8] = 99;
    file.write_all_at(&fixed, 0).unwrap();
    file.write_all_at(&SipHasher13::new().hash(&fixed).to_le_bytes(), 64).unwrap();
}

#[test]
fn processes_with_different_sizes_use_one_file_and_see_each_others_ring() {
    let directory = in_memory();
    let path = directory.path().join("store");
    let store = Store::open(&path, SMALL).unwrap();
    let put =
        |store: &Store, byte| store.update_ring(PATIENT, |_| Some(Zeroizing::new(vec![byte; 9])));
    let has = |store: &Store, byte| store.read_ring().1.is_some_and(|ring| *ring == [byte; 9]);
    assert!(put(&store, 1));
    for size in [SMALL * 2, SMALL + 8, SMALL * 100] {
        Child::new(|| {
            let other = Store::open(&path, size).unwrap();
            has(&other, 1) && put(&other, 2) && other.size() == SMALL as u64
        })
        .succeed();
        assert!(has(&store, 2) && put(&store, 1));
    }
}

#[test]
fn no_change_of_the_ring_is_lost_while_the_file_is_replaced() {
    const EACH: u64 = 300;
    let directory = in_memory();
    let path = directory.path().join("store");
    let number = |ring: Option<&[u8]>| {
        ring.and_then(|ring| ring.first_chunk().copied()).map_or(0, u64::from_le_bytes)
    };
    let first = Store::open(&path, SMALL).unwrap();
    let add = |store: &Store| {
        store.update_ring(PATIENT, |ring| {
            Some(Zeroizing::new((number(ring) + 1).to_le_bytes().to_vec()))
        })
    };
    assert!(add(&first));
    let line = Store::anonymous(SMALL).unwrap();
    let old: Vec<_> = (0..2)
        .map(|_| {
            Child::new(|| {
                for _ in 0..EACH {
                    until("a change", || add(&first));
                    counter(&line).fetch_add(1, Ordering::Relaxed);
                }
                true
            })
        })
        .collect();
    // Each replacement takes place among changes, by processes that have the first file or a later one.
    for replacement in 1..=5 {
        until("changes", || counter(&line).load(Ordering::Relaxed) >= replacement * EACH / 4);
        forge_another_layout(&path);
        let next = Store::open(&path, SMALL).unwrap();
        until("a change", || add(&next));
    }
    old.into_iter().for_each(Child::succeed);
    let last = Store::open(&path, SMALL).unwrap();
    assert_eq!(number(last.read_ring().1.as_ref().map(|ring| ring.as_slice())), 1 + 2 * EACH + 5);
    assert_eq!(number(first.read_ring().1.as_ref().map(|ring| ring.as_slice())), 1 + 2 * EACH + 5);
}

#[test]
fn a_process_that_is_killed_while_it_makes_or_replaces_the_file_leaves_nothing_after_the_next() {
    let directory = in_memory();
    let path = directory.path().join("store");
    let line = Store::anonymous(SMALL).unwrap();
    let mut left = 0;
    for round in 0..60u64 {
        let before = counter(&line).load(Ordering::Relaxed);
        let child = Child::new(|| {
            loop {
                let store = Store::open(&path, SMALL).unwrap();
                store.update_ring(PATIENT, |_| Some(Zeroizing::new(vec![1; 9])));
                forge_another_layout(&path);
                counter(&line).fetch_add(1, Ordering::Relaxed);
            }
        });
        until("the child makes files", || {
            counter(&line).load(Ordering::Relaxed) > before + mix(round) % 3
        });
        (0..mix(round) % 200_000).for_each(|_| std::hint::spin_loop());
        child.kill();
        left += fs::read_dir(directory.path()).unwrap().count() - 1;
        drop(Store::open(&path, SMALL).unwrap());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "round {round}");
        forge_another_layout(&path);
    }
    assert!(left < 30, "{left} of 60 left a file: its name comes last");
}

#[test]
fn processes_that_make_the_file_at_the_same_time_share_it() {
    for _ in 0..15 {
        let directory = in_memory();
        open_together(&directory.path().join("store"), SMALL, 6, |_| true);
    }
}

#[test]
fn many_processes_that_open_a_large_file_at_the_same_time_all_share_it() {
    let directory = in_memory();
    let path = directory.path().join("store");
    // Made by one of them, then found by all.
    open_together(&path, 32 << 20, 64, |_| true);
    open_together(&path, 32 << 20, 64, |_| true);
}

#[test]
fn who_finds_a_file_that_is_whole_shares_the_lock_and_allocates_nothing() {
    let directory = in_memory();
    let path = directory.path().join("store");
    insert(&Store::open(&path, SMALL).unwrap(), 1, PATIENT).unwrap();
    let file = File::open(&path).unwrap();
    // SAFETY: the descriptor is open to the end of the test.
    assert_eq!(unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_SH) }, 0);
    Child::new(|| {
        // To allocate what is there already would be refused.
        let limit = libc::rlimit { rlim_cur: 4096, rlim_max: 4096 };
        // SAFETY: plain data that lives through the call; the limit is this child's alone.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit) }, 0);
        finds(&Store::open(&path, SMALL).unwrap(), 1)
    })
    .succeed();
}

/// Sends this process a signal each millisecond, which it has a handler for that does nothing.
fn be_interrupted_all_the_time() {
    extern "C" fn ignore(_: libc::c_int) {}
    let millisecond = libc::timeval { tv_sec: 0, tv_usec: 1000 };
    let timer = libc::itimerval { it_interval: millisecond, it_value: millisecond };
    // SAFETY: plain data that lives through the calls; the handler touches nothing.
    unsafe {
        let mut action = std::mem::zeroed::<libc::sigaction>();
        action.sa_sigaction = ignore as extern "C" fn(libc::c_int) as usize;
        assert_eq!(libc::sigaction(libc::SIGALRM, &raw const action, std::ptr::null_mut()), 0);
        assert_eq!(libc::setitimer(libc::ITIMER_REAL, &raw const timer, std::ptr::null_mut()), 0);
    }
}

#[test]
fn a_process_that_is_interrupted_all_the_time_makes_a_large_file() {
    let directory = in_memory();
    let path = directory.path().join("store");
    let child = Child::new(|| {
        be_interrupted_all_the_time();
        insert(&Store::open(&path, 32 << 20).unwrap(), 1, PATIENT).is_ok()
    });
    until("the file is made", || !child.is_running());
    child.succeed();
    assert!(finds(&Store::open(&path, SMALL).unwrap(), 1));
}

/// How much memory of this process has storage, in MiB.
fn resident() -> u64 {
    let sizes = fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = sizes.split(' ').nth(1).unwrap().parse().unwrap();
    (pages * 4096) >> 20
}

#[test]
fn a_report_and_a_flush_of_few_sessions_use_little_of_a_large_memory() {
    let store = Store::anonymous(1 << 30).unwrap();
    Child::new(|| {
        (0..300).for_each(|number| insert(&store, number, PATIENT).unwrap());
        let before = resident();
        assert_eq!(store.live(NOW), 300);
        store.clear();
        assert_eq!((store.live(NOW), store.usage().used), (0, 0));
        let more = resident() - before;
        more < 8 || panic!("{more} MiB more")
    })
    .succeed();
}

#[test]
fn processes_that_replace_the_file_at_the_same_time_share_the_new_one_and_the_old_ring() {
    for _ in 0..15 {
        let directory = in_memory();
        let path = directory.path().join("store");
        let old = Store::open(&path, SMALL).unwrap();
        assert!(old.update_ring(PATIENT, |_| Some(Zeroizing::new(vec![9; 300]))));
        forge_another_layout(&path);
        let has_ring = |store: &Store| store.read_ring().1.is_some_and(|ring| *ring == [9; 300]);
        open_together(&path, SMALL, 6, has_ring);
    }
}

#[test]
fn a_full_memory_file_system_is_an_error_and_leaves_no_file() {
    let directory = in_memory();
    let name = std::ffi::CString::new(directory.path().to_str().unwrap()).unwrap();
    // In a mount namespace of its own, for which who is not root needs a user namespace too.
    let mut child = Child::new(|| {
        // SAFETY: C strings that live through the calls; the namespace is this child's alone.
        let mounted = unsafe {
            let (none, tmpfs) = (c"none".as_ptr(), c"tmpfs".as_ptr());
            let private = libc::MS_REC | libc::MS_PRIVATE;
            let user = if libc::geteuid() == 0 { 0 } else { libc::CLONE_NEWUSER };
            libc::unshare(libc::CLONE_NEWNS | user) == 0
                && libc::mount(none, c"/".as_ptr(), std::ptr::null(), private, std::ptr::null())
                    == 0
                && libc::mount(tmpfs, name.as_ptr(), tmpfs, 0, c"size=2m".as_ptr().cast()) == 0
        };
        if !mounted {
            // SAFETY: as in Child::new.
            unsafe { libc::_exit(77) }
        }
        let path = directory.path().join("store");
        let files = || fs::read_dir(directory.path()).unwrap().count();
        assert!(Store::open(&path, 4 << 20).is_err());
        assert_eq!(files(), 0);
        drop(Store::open(&path, 1 << 20).unwrap());
        forge_another_layout(&path);
        assert!(Store::open(&path, 3 << 19).is_err(), "no room for a second one beside it");
        assert_eq!(files(), 1);
        fs::remove_file(&path).unwrap();
        let store = Store::open(&path, 1 << 20).unwrap();
        // What is mapped is allocated: using all of it cannot fail now.
        (0..2000).for_each(|number| insert(&store, number, PATIENT).unwrap());
        finds(&Store::open(&path, 1 << 20).unwrap(), 1999)
    });
    let status = child.wait();
    assert_ne!(
        libc::WEXITSTATUS(status),
        77,
        "mount namespaces are refused here: run this test as root"
    );
    assert_eq!(status, 0, "the child failed");
}
