//! Processes that end while their agent is busy end as soon as others, and in order.

use std::time::{Duration, Instant};

use tlsresume_testkit::matrix::Kind;
use tlsresume_testkit::server::Settings;
use tlsresume_testkit::{
    DEADLINE, Folder, RedisServer, Result, Server, Traffic, alone, children, say,
};

use crate::nodes::{Cluster, Sharing, addresses};

const KIND: Kind = Kind::Tls13Stateful;
const WORKERS: usize = 2;

/// How long an exit waits for the agent, and how late it may wake up from that.
const AGENT_GETS: Duration = Duration::from_millis(100 + 20);

/// Starts a server, has it serve clients, ends it while it does, and says how long that took. Each
/// of its processes ends with status 0.
fn end_under_load(settings: Settings) -> Result<Duration> {
    let mut server = settings.start()?;
    // As many as it takes for an agent to have something to do.
    let traffic = Traffic::to([server.address()], KIND.client_mode());
    let report = traffic.connections(12, DEADLINE)?;
    assert_eq!((report.failed, report.reset), (0, 0), "{report:?}");

    let began = Instant::now();
    server.signal(libc::SIGTERM)?;
    let status = server.wait_end(DEADLINE)?;
    let took = began.elapsed();
    assert_eq!(status.code(), Some(0), "{}", server.log());
    let log = server.log();
    assert_eq!(log.matches(children::ENDED).count(), WORKERS, "{log}");
    assert_eq!(log.matches(children::IN_ORDER).count(), WORKERS, "{log}");
    Ok(took)
}

/// Servers with the library, in a cluster and not.
struct Exits {
    cluster: Cluster,
    reporter: std::path::PathBuf,
    _folder: Folder,
}

impl Exits {
    fn new(redis: &RedisServer) -> Result<Exits> {
        let folder = Folder::new()?;
        let reporter = children::reporter(&folder)?;
        let cluster = Cluster::at(redis.url(), Sharing::Push, KIND)?;
        Ok(Exits { cluster, reporter, _folder: folder })
    }

    fn of_a_node(&self) -> Result<Duration> {
        end_under_load(self.cluster.settings()?.env("LD_PRELOAD", &self.reporter))
    }

    fn of_a_server_alone(&self) -> Result<Duration> {
        let settings = Server::example()?
            .args(["--workers", &WORKERS.to_string()])
            .env("TLSRESUME_RESUMPTION_MODE", KIND.server_mode());
        end_under_load(settings.env("LD_PRELOAD", &self.reporter))
    }

    /// So many of a node, and every few times one alone beside it.
    fn compare(&self, count: usize) -> Result<()> {
        const EVERY: usize = 4;
        let (mut nodes, mut alone) = (Vec::new(), Vec::new());
        for round in 0..count {
            nodes.push(self.of_a_node()?);
            if round % EVERY == 0 {
                alone.push(self.of_a_server_alone()?);
            }
        }
        let (node, alone) = (median(&mut nodes), median(&mut alone));
        let slowest = nodes.last().expect("there are some");
        say(&format!("{count} ends of a node: {node:?}, at most {slowest:?}; alone: {alone:?}"));
        assert!(node <= alone + AGENT_GETS, "{node:?} and {alone:?}");
        Ok(())
    }
}

/// Sorts them.
fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

#[test]
fn a_hundred_nodes_end_in_order_while_their_agents_are_busy() -> Result<()> {
    let _alone = alone();
    let redis = RedisServer::start()?;
    let exits = Exits::new(&redis)?;
    let others = exits.cluster.nodes(2)?;
    // What they make is what the agent of the third one takes in.
    let _traffic = Traffic::to(addresses(&others), KIND.client_mode()).start()?;
    exits.compare(100)
}

#[test]
fn nodes_whose_agents_wait_for_a_stopped_redis_end_in_order() -> Result<()> {
    let _alone = alone();
    let mut redis = RedisServer::start()?;
    let exits = Exits::new(&redis)?;
    redis.stop()?;
    exits.compare(12)
}
