//! The agent as a service manager sees it.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::Command;
use std::time::Duration;

use crate::support::Place;
use tlsresume::clock;
use tlsresume_testkit::Process;

/// Much longer than a healthy machine needs.
const PATIENT: Duration = Duration::from_secs(20);

pub(crate) fn started(command: Command) -> Process {
    let agent = Process::start(command, "libtlsresume").expect("the tool starts");
    let ready = |text: &str| text.contains("agent: serving realm default at ").then_some(());
    agent.wait_for("its line", PATIENT, |said| ready(&said.to_string())).expect("it is ready");
    agent
}

/// How long an agent takes to end, with 0.
fn time_to_end(signal: libc::c_int) -> Duration {
    let place = Place::new();
    let mut agent = started(place.command(&["agent"]));
    let asked = clock::since_boot();
    agent.signal(signal).expect("it runs");
    let ended = agent.wait_end(PATIENT).expect("it ends");
    assert_eq!(ended.code(), Some(0), "after signal {signal}");
    clock::since_boot() - asked
}

#[test]
fn the_agent_ends_on_sigterm_with_0() {
    for signal in [libc::SIGTERM, libc::SIGINT] {
        // Other tests keep the machine busy: one quick end in a few shows that nothing is waited for.
        let mut times = (0..10).map(|_| time_to_end(signal));
        assert!(times.any(|time| time < Duration::from_millis(100)), "after signal {signal}");
    }
}

#[test]
fn the_agent_may_come_before_the_servers_and_they_find_its_keys() {
    let place = Place::new();
    let agent = started(place.command(&["agent"]));
    let listed = place.run(&["--json", "keys", "list"]).json();
    let first = listed[0]["name"].as_str().expect("there are keys").to_owned();
    let mut config = place.config();
    config.memory.size = 16 << 20;
    let server = tlsresume::engine::Engine::new(config).expect("the agent's memory");
    let keys = server.keys(clock::now());
    assert!(keys.iter().any(|key| key.name.to_string() == first));
    drop(agent);
}

#[test]
fn the_agent_works_in_no_memory_but_the_one_at_the_path() {
    let place = Place::new();
    let mut command = place.command(&["agent"]);
    command.env("TLSRESUME_MEMORY_PATH", "/proc/no/such/directory/memory");
    let said = crate::support::run(&mut command).complaint();
    assert!(said.contains("/proc/no/such/directory/memory: open: "), "{said}");
}

#[test]
fn the_agent_leaves_a_servers_memory_in_place_although_its_own_size_is_another() {
    let place = Place::new();
    let server = place.server();
    let mut command = place.command(&["agent"]);
    command.env("TLSRESUME_MEMORY_SIZE", "1MiB");
    let _agent = started(command);
    place.run(&["keys", "rotate"]).printed();
    let listed = place.run(&["--json", "keys", "list"]).json();
    let keys = server.keys(clock::now());
    assert_eq!(listed.as_array().map(Vec::len), Some(keys.len()), "the same memory");
}

#[test]
fn the_service_manager_learns_that_the_agent_is_ready() {
    let place = Place::new();
    let path = place.path("notify");
    let name = format!("tlsresumectl-test-{}", std::process::id());
    let sockets = [
        (UnixDatagram::bind(&path), path.to_str().expect("UTF-8").to_owned()),
        (
            SocketAddr::from_abstract_name(&name).and_then(|at| UnixDatagram::bind_addr(&at)),
            format!("@{name}"),
        ),
    ];
    for (socket, name) in sockets {
        let socket = socket.expect("a socket");
        socket.set_read_timeout(Some(PATIENT)).expect("a time limit");
        let mut command = place.command(&["agent"]);
        command.env("NOTIFY_SOCKET", &name);
        let _agent = started(command);
        let mut message = [0; 64];
        let length = socket.recv(&mut message).expect("a message");
        assert_eq!(&message[..length], b"READY=1\n", "{name}");
    }
}

#[test]
fn a_service_manager_that_does_not_listen_keeps_no_agent_from_serving() {
    let place = Place::new();
    let mut command = place.command(&["agent"]);
    command.env("NOTIFY_SOCKET", place.path("nobody"));
    let mut agent = started(command);
    agent.signal(libc::SIGTERM).expect("it runs");
    assert_eq!(agent.wait_end(PATIENT).expect("it ends").code(), Some(0));
    assert!(agent.transcript().to_string().contains("NOTIFY_SOCKET: "));
}
