//! Nodes of one cluster: servers with memory of their own each, a Redis and a secret in common.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use tlsresume_testkit::client::OpenSsl;
use tlsresume_testkit::load::LoadReport;
use tlsresume_testkit::matrix::Kind;
use tlsresume_testkit::server::Settings;
use tlsresume_testkit::{Connection, Folder, Result, Server, wait_until};

/// How sessions get from node to node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sharing {
    /// Each node has copies of all.
    Push,
    /// Each node looks up what it has not.
    Pull,
}

impl Sharing {
    pub(crate) const ALL: [Sharing; 2] = [Sharing::Push, Sharing::Pull];
}

impl fmt::Display for Sharing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Sharing::Push => "push",
            Sharing::Pull => "pull",
        })
    }
}

/// What the nodes of a cluster are like.
#[derive(Debug)]
pub(crate) struct Cluster {
    // Holds the secret, for as long as nodes start.
    folder: Folder,
    url: String,
    workers: u32,
    threads: u32,
    envs: Vec<(&'static str, String)>,
}

impl Cluster {
    /// Nodes with two workers each that meet at the Redis of that URL.
    pub(crate) fn at(url: impl Into<String>, sharing: Sharing, kind: Kind) -> Result<Cluster> {
        let folder = Folder::new()?;
        folder.write_private("secret", "of this test alone, 32 bytes or more\n")?;
        let envs = vec![
            ("TLSRESUME_CLUSTER_SESSIONS", sharing.to_string()),
            ("TLSRESUME_RESUMPTION_MODE", kind.server_mode().into()),
        ];
        // A thread may wait for Redis for a share of its time only, and clients of tests are always back at once.
        let threads = if sharing == Sharing::Pull { 8 } else { 1 };
        Ok(Cluster { folder, url: url.into(), workers: 2, threads, envs })
    }

    pub(crate) fn workers(mut self, count: u32) -> Cluster {
        self.workers = count;
        self
    }

    pub(crate) fn env(mut self, name: &'static str, value: impl Into<String>) -> Cluster {
        self.envs.push((name, value.into()));
        self
    }

    /// A handshake waits for Redis as long as it must: for tests that are about what is found, on
    /// machines that have more to do.
    pub(crate) fn patient(self) -> Cluster {
        self.env("TLSRESUME_CLUSTER_LOOKUP_BUDGET", "200ms")
    }

    /// A new key every so often; sessions live for longer than any test.
    pub(crate) fn rotating(self, period: Duration) -> Cluster {
        self.env("TLSRESUME_KEYS_ROTATE", format!("{}s", period.as_secs()))
            .env("TLSRESUME_KEYS_AHEAD", "12")
            .env("TLSRESUME_KEYS_ACTIVATION_DELAY", "200ms")
            .env("TLSRESUME_RESUMPTION_LIFETIME", "3m")
    }

    /// Starts one more node.
    pub(crate) fn node(&self) -> Result<Server> {
        self.settings()?.start()
    }

    /// Starts one more node, which finds the Redis elsewhere.
    pub(crate) fn node_at(&self, url: &str) -> Result<Server> {
        // Of two values the later one counts.
        self.settings()?.env("TLSRESUME_REDIS_URL", url).start()
    }

    pub(crate) fn nodes(&self, count: usize) -> Result<Vec<Server>> {
        (0..count).map(|_| self.node()).collect()
    }

    /// How a node is started.
    pub(crate) fn settings(&self) -> Result<Settings> {
        let settings = Server::example()?;
        let [workers, threads] = [self.workers, self.threads].map(|count| count.to_string());
        let settings = settings.args(["--handle", "--direct"]);
        let settings = settings.args(["--workers", &workers, "--threads", &threads]);
        Ok(self.environment().into_iter().fold(settings, |it, (name, value)| it.env(name, value)))
    }

    /// What makes any server with the library one of its nodes.
    pub(crate) fn environment(&self) -> Vec<(&'static str, String)> {
        let mut all = self.envs.clone();
        let secret = self.folder.file("secret").display().to_string();
        all.push(("TLSRESUME_CLUSTER_SECRET_FILE", secret));
        all.push(("TLSRESUME_REDIS_URL", self.url.clone()));
        all
    }
}

/// Where clients find the nodes.
pub(crate) fn addresses(nodes: &[Server]) -> Vec<SocketAddr> {
    nodes.iter().map(Server::address).collect()
}

/// Everybody was served, and all but `first_visits` resumed.
pub(crate) fn assert_all_resumed(what: &str, report: &LoadReport, first_visits: u64) {
    assert_all_served(what, report);
    assert_eq!(report.not_resumed_after_first, 0, "{what}: {report:?}");
    assert_eq!(report.handshakes, report.resumed + first_visits, "{what}: {report:?}");
}

pub(crate) fn assert_all_served(what: &str, report: &LoadReport) {
    assert_eq!((report.failed, report.reset), (0, 0), "{what}: {report:?}");
    assert!(report.handshakes > 0, "{what}: {report:?}");
}

/// A first visit to one node and a return to another, as soon as it can resume there; at most
/// `limit` later.
pub(crate) fn moves(kind: Kind, from: &Server, to: &Server, limit: Duration) -> Result<Connection> {
    let client = OpenSsl::new();
    let visitor = client.first_visit(from.address(), kind.client_mode())?;
    let mut back = visitor.come_back_as(&client, to.address())?;
    wait_until(format!("{kind}: a return that resumes"), limit, || {
        let is_over = back.resumed();
        if let (false, Ok(next)) = (is_over, visitor.come_back_as(&client, to.address())) {
            back = next;
        }
        is_over
    })?;
    Ok(back)
}
