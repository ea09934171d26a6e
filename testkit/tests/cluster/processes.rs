//! What of the cluster is seen in a node's processes: one connection, and an agent that others
//! follow when it dies.

use std::fs;
use std::time::Duration;

use tlsresume_testkit::matrix::Kind;
use tlsresume_testkit::{
    DEADLINE, RedisServer, Result, Server, Stats, Traffic, alone, say, wait_until,
};

use crate::nodes::{Cluster, Sharing};

const WORKERS: u32 = 8;

/// A process that died as the agent has a successor after so long.
const TAKEOVER: Duration = Duration::from_secs(3);

/// The processes of `server` that have a thread of this name.
fn workers_with(server: &Server, thread: &str) -> Vec<u32> {
    let has = |pid: &u32| {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        let names = tasks.filter_map(|task| fs::read_to_string(task.path().join("comm")).ok());
        names.into_iter().any(|name| name.trim() == thread)
    };
    server.loops().into_iter().map(|it| it.pid).filter(has).collect()
}

#[test]
fn all_workers_of_a_node_have_one_connection_in_push_and_none_before_the_first_handshake()
-> Result<()> {
    let _alone = alone();
    let redis = RedisServer::start()?;
    let node = Cluster::at(redis.url(), Sharing::Push, Kind::Tls12Id)?.workers(WORKERS).node()?;
    assert_eq!(redis.client_count()?, 0);
    assert!(workers_with(&node, AGENT).is_empty());

    let workers = node.loops().into_iter().map(|it| it.address);
    let traffic = Traffic::to(workers, Kind::Tls12Id.client_mode());
    let report = traffic.connections(20 * WORKERS, DEADLINE)?;
    assert_eq!(report.failed, 0, "{report:?}");
    assert_eq!(redis.client_count()?, 1, "{}", redis.command(&["CLIENT", "LIST"])?);
    assert_eq!(workers_with(&node, AGENT).len(), 1);
    assert!(workers_with(&node, "tlsresume-lookup").is_empty());
    Ok(())
}

#[test]
fn another_worker_takes_over_within_three_seconds_when_the_agent_is_killed() -> Result<()> {
    let _alone = alone();
    let redis = RedisServer::start()?;
    let mut node =
        Cluster::at(redis.url(), Sharing::Push, Kind::Tls12Id)?.workers(WORKERS).node()?;
    let workers: Vec<_> = node.loops().into_iter().map(|it| it.address).collect();
    let traffic = Traffic::to(workers, Kind::Tls12Id.client_mode()).start()?;

    for takeover in 1..=3 {
        let what = format!("agent {takeover}");
        wait_until(&*what, DEADLINE, || workers_with(&node, AGENT).len() == 1)?;
        let agent = workers_with(&node, AGENT)[0];
        let worker = node.loops().into_iter().find(|it| it.pid == agent).expect("it serves").worker;
        node.kill_worker(worker)?;

        let began = std::time::Instant::now();
        wait_until(format!("{what}'s successor"), TAKEOVER, || {
            let clients = redis.client_count().expect("Redis answers");
            assert!(clients <= 1, "{clients} connections");
            clients == 1 && workers_with(&node, AGENT).len() == 1
        })?;
        say(&format!("{what}'s successor took over after {:?}", began.elapsed()));
    }
    let report = traffic.stop()?;
    assert_eq!(report.failed, 0, "{report:?}");
    let stats = Stats::of(node.address())?;
    assert_eq!(stats.get("transport_up{transport=\"redis\"}"), 1, "{stats:?}");
    Ok(())
}

/// The name of the agent's thread.
const AGENT: &str = "tlsresume-agent";
