//! A server that forks while its agent is at work: neither its own descriptors nor those of its
//! children show the agent's connection.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use tlsresume_testkit::client::OpenSsl;
use tlsresume_testkit::installed::preload_library;
use tlsresume_testkit::matrix::Kind;
use tlsresume_testkit::{DEADLINE, Folder, Mode, Process, RedisServer, Result, alone, wait_until};

use crate::nodes::{Cluster, Sharing};

const SERVER: &str = include_str!("forking_server.py");
const CHILDREN: usize = 5;

/// A server on Python's `ssl` that forks for each connection but the first.
struct ForkingServer {
    process: Process,
    address: SocketAddr,
    // Holds certificate and key.
    _folder: Folder,
}

impl ForkingServer {
    fn start(cluster: &Cluster) -> Result<ForkingServer> {
        let folder = Folder::new()?;
        let [certificate, key] = self_signed(&folder)?;
        let mut command = Command::new("python3");
        command.args(["-I", "-c", SERVER]).args([certificate, key]);
        command.env("LD_PRELOAD", preload_library()?).envs(cluster.environment());
        let process = Process::start(command, "python3")?;
        let port: u16 = process.wait_for("its port", DEADLINE, |transcript| {
            transcript.stdout().find_map(|line| line.strip_prefix("port ")?.parse().ok())
        })?;
        Ok(ForkingServer { process, address: ([127, 0, 0, 1], port).into(), _folder: folder })
    }

    /// The processes that have served a connection, the parent first.
    fn served(&self, count: usize) -> Result<Vec<u32>> {
        self.process.wait_for("its processes", DEADLINE, |transcript| {
            let pid = |line: &str| line.strip_prefix("served by ")?.parse().ok();
            let pids: Vec<_> = transcript.stdout().filter_map(pid).collect();
            (pids.len() == count).then_some(pids)
        })
    }
}

impl Drop for ForkingServer {
    /// Lets the children go.
    fn drop(&mut self) {
        self.process.close_input();
    }
}

fn self_signed(folder: &Folder) -> Result<[PathBuf; 2]> {
    let files = [folder.file("server.crt"), folder.file("server.key")];
    let mut command = Command::new("openssl");
    command.args(["req", "-x509", "-nodes", "-subj", "/CN=localhost", "-days", "2"]);
    command.args(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]);
    command.arg("-out").arg(&files[0]).arg("-keyout").arg(&files[1]);
    let mut process = Process::start(command, "openssl")?;
    assert!(process.wait_end(DEADLINE)?.success(), "{}", process.transcript());
    Ok(files)
}

/// The sockets among the descriptors in such a folder of /proc.
fn sockets(folder: impl AsRef<Path>) -> BTreeSet<String> {
    let descriptors = fs::read_dir(folder).into_iter().flatten().flatten();
    let names = descriptors.filter_map(|it| fs::read_link(it.path()).ok());
    names.map(|it| it.display().to_string()).filter(|it| it.starts_with("socket:")).collect()
}

/// The sockets of the thread of `pid` with this name.
fn sockets_of_thread(pid: u32, name: &str) -> BTreeSet<String> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let is_named = |task: &PathBuf| {
        fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim() == name)
    };
    let task = tasks.map(|task| task.path()).find(is_named);
    task.map(|task| sockets(task.join("fd"))).unwrap_or_default()
}

/// The sockets that are connected to `port` of this machine.
fn connected_to(port: u16) -> BTreeSet<String> {
    let table = fs::read_to_string("/proc/net/tcp").expect("Linux has it");
    let end = format!(":{port:04X}");
    let inode = |line: &str| {
        let columns: Vec<_> = line.split_whitespace().collect();
        columns.get(2)?.ends_with(&end).then(|| format!("socket:[{}]", columns[9]))
    };
    table.lines().filter_map(inode).collect()
}

#[test]
fn children_of_a_process_with_an_agent_work_and_do_not_have_its_connection() -> Result<()> {
    let _alone = alone();
    let redis = RedisServer::start()?;
    let cluster = Cluster::at(redis.url(), Sharing::Push, Kind::Tls12Id)?;
    let server = ForkingServer::start(&cluster)?;
    let client = OpenSsl::new();
    let visitor = client.first_visit(server.address, Mode::Tls12Id)?;
    wait_until("the agent's connection", DEADLINE, || {
        redis.client_count().is_ok_and(|it| it == 1)
    })?;

    for child in 0..CHILDREN {
        let back = visitor.come_back_as(&client, server.address)?;
        assert!(back.reused, "child {child}: {back:?}");
        client.first_visit(server.address, Mode::Tls13)?;
    }
    let pids = server.served(1 + 2 * CHILDREN)?;
    assert_eq!(pids.iter().collect::<BTreeSet<_>>().len(), pids.len(), "one process each");
    assert_eq!(pids[0], server.process.pid());
    assert_eq!(redis.client_count()?, 1);

    let connection = connected_to(redis.address().port());
    let seen = |of: &BTreeSet<String>| of.intersection(&connection).count();
    assert_eq!(connection.len(), 1, "{connection:?}");
    assert_eq!(seen(&sockets_of_thread(pids[0], "tlsresume-agent")), 1);
    for pid in pids {
        let own = sockets(format!("/proc/{pid}/fd"));
        assert_eq!(seen(&own), 0, "{pid} has {own:?} of {connection:?}");
    }
    Ok(())
}
