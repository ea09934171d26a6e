//! Requests made on a host whose clock is wrong by less than what makes them fail.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use tlsresume_testkit::client::{OpenSsl, OpenSslVisitor};
use tlsresume_testkit::redis::RedisServer;
use tlsresume_testkit::{FakeClock, Mode, Server, wait_until};

use crate::support::{Place, Ran, run};

const LIMIT: Duration = Duration::from_secs(30);
const MINUTE: i64 = 60;

/// How many clients of each kind there are.
const CLIENTS: usize = 10;

/// A node of a cluster: a server, and the tool on its memory, by one clock.
struct Node {
    server: Server,
    place: Place,
    variables: Vec<(&'static str, String)>,
}

impl Node {
    fn start(redis: &RedisServer, clock: Option<&FakeClock>) -> Node {
        let place = Place::new();
        let secret = place.file("secret", "of this test alone, 32 bytes or more\n");
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).expect("ours");
        let mut variables = vec![
            ("TLSRESUME_MEMORY_PATH", place.memory().display().to_string()),
            ("TLSRESUME_MEMORY_SIZE", "512KiB".to_owned()),
            ("TLSRESUME_CLUSTER_SECRET_FILE", secret.display().to_string()),
            ("TLSRESUME_REDIS_URL", redis.url()),
        ];
        variables.extend(clock.into_iter().flat_map(FakeClock::environment));
        let settings = Server::example().expect("make all").args(["--workers", "1"]);
        let set = |settings: tlsresume_testkit::server::Settings, (name, value): &(_, String)| {
            settings.env(*name, value.clone())
        };
        let server = variables.iter().fold(settings, set).start().expect("it starts");
        Node { server, place, variables }
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        let mut command = self.place.command(arguments);
        run(command.envs(self.variables.iter().map(|(name, value)| (name, value))))
    }

    fn first_visit(&self) -> OpenSslVisitor {
        OpenSsl::new().first_visit(self.server.address(), Mode::Tls12Id).expect("served")
    }

    fn resumes(&self, visitor: &OpenSslVisitor) -> bool {
        let back = visitor.come_back_as(&OpenSsl::new(), self.server.address());
        back.expect("served").resumed()
    }
}

/// Clients who were at each node and whose sessions all nodes know.
fn clients(nodes: &[Node; 2]) -> Vec<OpenSslVisitor> {
    let visitors: Vec<_> = nodes
        .iter()
        .flat_map(|node| (0..CLIENTS).map(|_| node.first_visit()).collect::<Vec<_>>())
        .collect();
    for visitor in &visitors {
        for node in nodes {
            wait_until("a session on a node", LIMIT, || node.resumes(visitor)).expect("in time");
        }
    }
    visitors
}

/// A flush on a host whose clock is off: two nodes, of which the first has that clock.
fn a_flush_covers_what_was_made_before_and_nothing_after(minutes: i64) {
    let redis = RedisServer::start().expect("redis");
    let clock = FakeClock::new().expect("libfaketime");
    clock.set(minutes * MINUTE).expect("set");
    let nodes = [Node::start(&redis, Some(&clock)), Node::start(&redis, None)];
    let before = clients(&nodes);
    let flushed = nodes[0].run(&["sessions", "flush"]);
    assert_eq!(flushed.status, Some(0), "{}{}", flushed.out, flushed.err);
    for node in &nodes {
        let survivors = before.iter().filter(|visitor| node.resumes(visitor)).count();
        assert_eq!(survivors, 0, "sessions from before the flush");
        // The first connection of a process after a flush may be one from before it.
        node.first_visit();
    }
    let after = clients(&nodes);
    // The next one covers what this one let pass, whichever clock it goes by.
    let flushed = nodes[1].run(&["sessions", "flush"]);
    assert_eq!(flushed.status, Some(0), "{}{}", flushed.out, flushed.err);
    for node in &nodes {
        let survivors = after.iter().filter(|visitor| node.resumes(visitor)).count();
        assert_eq!(survivors, 0, "sessions from before the second flush");
    }
}

#[test]
fn a_flush_by_a_clock_that_is_ahead_covers_what_was_made_before_and_nothing_after() {
    a_flush_covers_what_was_made_before_and_nothing_after(25);
}

#[test]
fn a_flush_by_a_clock_that_is_behind_covers_what_was_made_before_and_nothing_after() {
    a_flush_covers_what_was_made_before_and_nothing_after(-25);
}
