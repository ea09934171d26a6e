//! Workers that are killed or frozen, at any moment, cost their own clients a connection and
//! others next to nothing.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use tlsresume_testkit::client::OpenSsl;
use tlsresume_testkit::load::{LoadReport, TrafficSettings};
use tlsresume_testkit::matrix::Kind;
use tlsresume_testkit::memory::{RING_LEASE_AT, shard_lease_at};
use tlsresume_testkit::{
    DEADLINE, Folder, Mode, Random, Result, Server, Stats, Traffic, alone, say,
};

const KILLS: u64 = 250;
const WORKERS: u32 = 3;

/// A prefork server with a store that is one shard, so that all its processes meet at one lock.
fn server(memory: &Folder, kind: Kind) -> Result<Server> {
    Server::example()?
        .args(["--handle", "--direct", "--workers", &WORKERS.to_string()])
        .args(["--vhost", "a.example", "--vhost", "b.example"])
        .env("TLSRESUME_MEMORY_PATH", memory.file("sessions"))
        .env("TLSRESUME_MEMORY_SIZE", "512KiB")
        .env("TLSRESUME_RESUMPTION_MODE", kind.server_mode())
        .env("TLSRESUME_RESUMPTION_TICKETS", "16")
        .env("TLSRESUME_KEYS_ACTIVATION_DELAY", "0s")
        .start()
}

fn kills_cost_no_more_than_their_connections(kinds: &[Kind]) -> Result<()> {
    let _alone = alone();
    let (mut random, memory) = (Random::new(), Folder::in_memory()?);
    let mut server = server(&memory, kinds[0])?;
    let addresses: Vec<_> = server.loops().iter().map(|it| it.address).collect();

    // Clients of two names: a session that came to the wrong one would end in a TLS failure.
    let mut traffic = Vec::new();
    for kind in kinds {
        for name in ["a.example", "b.example"] {
            let settings = Traffic::to(addresses.clone(), kind.client_mode()).sni(name);
            traffic.push((*kind, settings.start()?));
        }
    }
    for _ in 0..KILLS {
        random.moment(Duration::from_millis(20));
        let worker = u32::try_from(random.below(WORKERS.into())).expect("it is below WORKERS");
        server.kill_worker(worker)?;
    }

    let reports = traffic
        .into_iter()
        .map(|(kind, traffic)| Ok((kind, traffic.stop()?)))
        .collect::<Result<Vec<_>>>()?;
    let (stats, mut total) = (Stats::of(addresses[0])?, LoadReport::default());
    for (kind, report) in reports {
        say(&format!("{kind}: {report:?}"));
        assert_eq!(report.failed, 0, "{kind}: {report:?}");
        assert!(report.resumed > KILLS, "{kind}: {report:?}");
        // A worker has one connection at a time, and a client one for each of its two threads.
        assert!(report.reset <= KILLS, "{kind}: {report:?}");
        total.add(&report);
    }
    // OpenSSL spoils a client's session when its connection is cut off: then it has none to offer.
    let refused = stats.sum("tickets_rejected_total") + stats.sum("sessions_missed_total");
    assert!(total.not_resumed_after_first <= total.reset + refused, "{total:?} {stats:?}");
    // Tickets are lost by nobody. Of stored sessions the record that was being written is, and what
    // others gave up to write in the time until they could be sure that its writer was gone.
    assert_eq!(stats.sum("tickets_rejected_total"), 0, "{stats:?}");
    assert!(stats.sum("sessions_missed_total") <= KILLS, "{stats:?}");

    let client = OpenSsl::new();
    for kind in kinds {
        for (from, to) in [(0, 1), (1, 2), (2, 0)] {
            let visitor = client.first_visit(addresses[from], kind.client_mode())?;
            let back = visitor.come_back_as(&client, addresses[to])?;
            assert!(back.resumed(), "{kind}, after all kills: {back:?}");
        }
    }
    Ok(())
}

#[test]
fn two_hundred_and_fifty_kills_cost_stateless_clients_only_their_connections() -> Result<()> {
    kills_cost_no_more_than_their_connections(&[
        Kind::Tls12Id,
        Kind::Tls12Ticket,
        Kind::Tls13Stateless,
    ])
}

#[test]
fn two_hundred_and_fifty_kills_cost_stateful_clients_only_their_connections() -> Result<()> {
    kills_cost_no_more_than_their_connections(&[Kind::Tls13Stateful])
}

// ---- frozen workers ----

/// What a handshake waits at most for a lock that somebody else holds.
const LOCK_BUDGET_US: u64 = 1000;

/// How many rounds are measured in one test, how often a process is frozen before each in the hope
/// that it has the lock in question, and how often it must for the test to mean something.
const ROUNDS: u64 = 40;
const ATTEMPTS: u64 = 200;
const LEAST_HELD: usize = 5;

/// Handshakes that are measured in each round: their 99th percentile is the second slowest.
const MEASURED: u32 = 50;

/// 99th percentiles of handshakes, in microseconds, each of one round.
#[derive(Debug, Default)]
struct Rounds {
    /// Nobody was frozen.
    healthy: Vec<u64>,
    /// Somebody was, without the lock in question.
    frozen: Vec<u64>,
    /// Somebody was, and had it.
    held: Vec<u64>,
    /// Of all of them.
    total: LoadReport,
}

impl Rounds {
    fn with_frozen(&mut self, load: &TrafficSettings, freeze: Freeze<'_>) -> Result<()> {
        let held = freeze.lease.is_held();
        let report = load.connections(MEASURED, DEADLINE)?;
        drop(freeze);
        let rounds = if held { &mut self.held } else { &mut self.frozen };
        rounds.push(report.latency_us.p99);
        self.total.add(&report);
        Ok(())
    }

    fn without(&mut self, load: &TrafficSettings) -> Result<()> {
        let report = load.connections(MEASURED, DEADLINE)?;
        self.healthy.push(report.latency_us.p99);
        self.total.add(&report);
        Ok(())
    }

    /// The typical round with somebody frozen is slower than one without by the lock budget at most.
    /// What healthy rounds differ among themselves is noise: from the median to the 9th decile.
    fn check(&mut self) {
        self.healthy.sort_unstable();
        self.frozen.sort_unstable();
        self.held.sort_unstable();
        let healthy = median(&self.healthy);
        let noise = self.healthy[self.healthy.len() * 9 / 10] - healthy;
        say(&format!(
            "p99 in us: healthy {healthy} (noise {noise}), frozen {} ({} times), frozen with the lock \
             {} ({} times)); {:?}",
            median(&self.frozen),
            self.frozen.len(),
            median(&self.held),
            self.held.len(),
            self.total,
        ));
        assert!(self.held.len() >= LEAST_HELD, "the lock was held {} times", self.held.len());
        for rounds in [&self.frozen, &self.held] {
            assert!(median(rounds) <= healthy + LOCK_BUDGET_US + noise, "{self:?}");
        }
        assert_eq!((self.total.failed, self.total.reset), (0, 0), "{:?}", self.total);
    }
}

/// Of sorted values; 0 for none.
fn median(sorted: &[u64]) -> u64 {
    sorted.get(sorted.len() / 2).copied().unwrap_or(0)
}

/// A lease in the memory file.
struct Lease {
    file: File,
    at: u64,
}

impl Lease {
    fn new(memory: &Path, at: u64) -> Lease {
        Lease { file: File::open(memory).expect("the server made it"), at }
    }

    /// Whether somebody has it: holders of good health have given it back by the second look.
    fn is_held(&self) -> bool {
        let look = || {
            let mut word = [0; 8];
            self.file.read_exact_at(&mut word, self.at).expect("the file is whole");
            u64::from_le_bytes(word)
        };
        let first = look();
        let end = Instant::now() + Duration::from_micros(200);
        while Instant::now() < end {
            std::hint::spin_loop();
        }
        first != 0 && first == look()
    }
}

/// A process that stands still until this goes.
struct Freeze<'a> {
    pid: i32,
    lease: &'a Lease,
}

impl<'a> Freeze<'a> {
    /// Freezes a process at random moments after `provoke`, until it has the lock or was lucky too
    /// often.
    fn catch(
        pid: u32,
        lease: &'a Lease,
        mut provoke: impl FnMut() -> Result<()>,
        mut moment: impl FnMut(),
    ) -> Result<Freeze<'a>> {
        let mut attempts = 1;
        loop {
            provoke()?;
            moment();
            let freeze = Freeze::new(pid, lease);
            if attempts == ATTEMPTS || lease.is_held() {
                return Ok(freeze);
            }
            attempts += 1;
        }
    }

    fn new(pid: u32, lease: &'a Lease) -> Freeze<'a> {
        let pid = i32::try_from(pid).expect("a process id");
        let freeze = Freeze { pid, lease };
        // SAFETY: kill takes two integers and touches no memory of ours.
        let result = unsafe { libc::kill(pid, libc::SIGSTOP) };
        assert_eq!(result, 0, "cannot stop {pid}");
        // Stopping takes microseconds; a look every few milliseconds would miss the lock.
        let end = Instant::now() + DEADLINE;
        while !fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|it| it.contains(") T ")) {
            assert!(Instant::now() < end, "{pid} does not stop");
        }
        freeze
    }
}

impl Drop for Freeze<'_> {
    fn drop(&mut self) {
        // SAFETY: as above. One that is gone meanwhile needs no signal.
        unsafe { libc::kill(self.pid, libc::SIGCONT) };
    }
}

#[test]
fn a_worker_frozen_with_the_store_locked_costs_others_a_millisecond() -> Result<()> {
    let _alone = alone();
    let (mut random, memory) = (Random::new(), Folder::in_memory()?);
    let server = server(&memory, Kind::Tls13Stateful)?;
    let lease = Lease::new(&memory.file("sessions"), shard_lease_at(&memory.file("sessions")));
    let loops = server.loops();
    let others = loops[1..].iter().map(|it| it.address);
    let measured = Traffic::to(others, Mode::Tls13).threads(1);
    // First visits only, which put sixteen sessions each into the store.
    let busy = Traffic::to([loops[0].address], Mode::Tls13).threads(96);

    let (mut rounds, mut own) = (Rounds::default(), LoadReport::default());
    for _ in 0..ROUNDS {
        let report = thread::scope(|scope| {
            let clients = scope.spawn(|| busy.connections(96, DEADLINE));
            let moment = || random.moment(Duration::from_micros(500));
            let freeze = Freeze::catch(loops[0].pid, &lease, || Ok(()), moment)?;
            rounds.with_frozen(&measured, freeze)?;
            clients.join().expect("it does not panic")
        })?;
        own.add(&report);
        rounds.without(&measured)?;
    }
    say(&format!("the frozen one's own clients: {own:?}"));
    assert_eq!(own.failed, 0, "{own:?}");
    // The example server takes EINTR, which a read with a time limit fails with after SIGCONT
    // (signal(7)), for the end of its connection, of which it has one at a time.
    assert!(own.reset <= ROUNDS * ATTEMPTS, "{own:?}");
    rounds.check();
    Ok(())
}

#[test]
fn a_process_frozen_with_the_ring_locked_costs_others_a_millisecond() -> Result<()> {
    let _alone = alone();
    let (mut random, memory) = (Random::new(), Folder::in_memory()?);
    let mut server = server(&memory, Kind::Tls13Stateless)?;
    let lease = Lease::new(&memory.file("sessions"), RING_LEASE_AT);
    let addresses: Vec<_> = server.loops().iter().map(|it| it.address).collect();
    let measured = Traffic::to(addresses, Mode::Tls13).threads(1);

    let mut rounds = Rounds::default();
    for _ in 0..ROUNDS {
        let moment = || random.moment(Duration::from_micros(300));
        let pid = server.pid();
        let freeze = Freeze::catch(pid, &lease, || server.hang_up(), moment)?;
        rounds.with_frozen(&measured, freeze)?;
        rounds.without(&measured)?;
    }
    rounds.check();
    assert_eq!(rounds.total.handshakes, rounds.total.resumed + 2 * ROUNDS);
    Ok(())
}
