//! The testkit's own control: servers are replaced, restarted and ended as they should.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tlsresume_testkit::client::OpenSsl;
use tlsresume_testkit::{Client, Error, Mode, Process, Result, Server, wait_until};

fn is_running(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

#[test]
fn a_killed_worker_is_replaced_and_keeps_its_port() -> Result<()> {
    let mut server = Server::example()?.args(["--plain", "--direct"]).start()?;
    let before = server.loops();
    server.kill_worker(1)?;
    let after = server.loops();
    assert_eq!(before[0], after[0]);
    assert_ne!(before[1].pid, after[1].pid);
    assert_eq!(before[1].address, after[1].address);
    OpenSsl::new().visit(after[1].address, Mode::Tls13).map(drop)
}

#[test]
fn a_restarted_server_keeps_its_address() -> Result<()> {
    let mut server = Server::example()?.arg("--plain").start()?;
    let (pid, address) = (server.pid(), server.address());
    server.restart()?;
    assert_ne!(server.pid(), pid);
    assert_eq!(server.address(), address);
    OpenSsl::new().visit(address, Mode::Tls13).map(drop)
}

#[test]
fn workers_die_with_a_killed_parent() -> Result<()> {
    let mut server = Server::example()?.args(["--plain", "--workers", "3"]).start()?;
    let workers: Vec<u32> = server.loops().iter().map(|it| it.pid).collect();
    server.kill()?;
    wait_until("the end of all workers", Duration::from_secs(5), || {
        !workers.iter().any(|pid| is_running(*pid))
    })
}

#[test]
fn dropping_a_server_leaves_nothing_behind() -> Result<()> {
    let server = Server::example()?.arg("--plain").start()?;
    let (pid, folder) = (server.pid(), server.folder().path().to_owned());
    drop(server);
    assert!(!is_running(pid));
    assert!(!Path::exists(&folder));
    Ok(())
}

#[test]
fn a_wrong_option_fails_with_what_the_server_said() {
    let error = Server::example().unwrap().arg("--wrong").start().unwrap_err();
    assert!(error.to_string().contains("usage: prefork_server"), "{error}");
}

#[test]
fn a_missing_program_names_its_package() {
    let error = Process::start(Command::new("no-such-program"), "its-package").unwrap_err();
    assert!(matches!(error, Error::MissingProgram { .. }));
    assert!(error.to_string().contains("apt-get install its-package"), "{error}");
}
