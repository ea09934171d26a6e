//! Servers end in order, under load, and leave nothing but the memory file, which the next one
//! uses.

use std::path::PathBuf;

use tlsresume_testkit::client::OpenSsl;
use tlsresume_testkit::matrix::Kind;
use tlsresume_testkit::{DEADLINE, Folder, Result, Server, Traffic, alone, children, wait_until};

fn is_running(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

fn ends_in_order_under_load(kind: Kind) -> Result<()> {
    const WORKERS: usize = 3;
    let _alone = alone();
    let (memory, tools) = (Folder::in_memory()?, Folder::new()?);
    let preload = children::reporter(&tools)?;
    let start = |preload: Option<&PathBuf>| {
        let settings = Server::example()?
            .args(["--direct", "--workers", &WORKERS.to_string(), "--threads", "2"])
            .env("TLSRESUME_MEMORY_PATH", memory.file("sessions"))
            .env("TLSRESUME_RESUMPTION_MODE", kind.server_mode());
        preload.iter().fold(settings, |it, path| it.env("LD_PRELOAD", path)).start()
    };
    let mut server = start(Some(&preload))?;
    let addresses: Vec<_> = server.loops().iter().map(|it| it.address).collect();
    let mut pids: Vec<u32> = server.loops().iter().map(|it| it.pid).collect();
    pids.push(server.pid());

    let client = OpenSsl::new();
    let visitor = client.first_visit(addresses[0], kind.client_mode())?;
    let traffic = Traffic::to(addresses.clone(), kind.client_mode()).threads(4).start()?;
    // As soon as there is traffic.
    wait_until("the first return", DEADLINE, || {
        visitor.come_back_as(&client, addresses[3]).is_ok_and(|back| back.resumed())
    })?;
    server.signal(libc::SIGTERM)?;
    let status = server.wait_end(DEADLINE)?;
    let report = traffic.stop()?;

    assert_eq!(status.code(), Some(0), "{}", server.log());
    let children = server.log().matches(children::IN_ORDER).count();
    assert_eq!(children, WORKERS, "{}", server.log());
    assert!(!pids.iter().any(|pid| is_running(*pid)));
    assert_eq!(report.failed, 0, "{report:?}");
    assert!(report.handshakes > 0, "{report:?}");

    // One file, of the node's alone, which the next server takes as it is.
    let left: Vec<_> = std::fs::read_dir(memory.path())
        .expect("the folder is readable")
        .map(|entry| entry.expect("the folder is readable").file_name())
        .collect();
    assert_eq!(left, ["sessions"]);
    let next = start(None)?;
    let back = visitor.come_back_as(&client, next.direct(1, 0)?)?;
    assert!(back.resumed(), "{back:?}");
    Ok(())
}

#[test]
fn sigterm_under_load_ends_every_process_with_0_and_keeps_the_stateless_sessions() -> Result<()> {
    ends_in_order_under_load(Kind::Tls13Stateless)
}

#[test]
fn sigterm_under_load_ends_every_process_with_0_and_keeps_the_stateful_sessions() -> Result<()> {
    ends_in_order_under_load(Kind::Tls13Stateful)
}

#[test]
fn sigterm_under_load_ends_every_process_with_0_and_keeps_the_tls12_sessions() -> Result<()> {
    ends_in_order_under_load(Kind::Tls12Id)
}

#[test]
fn a_killed_server_leaves_a_memory_file_that_the_next_one_uses() -> Result<()> {
    let _alone = alone();
    let memory = Folder::in_memory()?;
    for kind in Kind::ALL {
        let start = || {
            Server::example()?
                .arg("--direct")
                .env("TLSRESUME_MEMORY_PATH", memory.file(kind.server_mode()))
                .env("TLSRESUME_RESUMPTION_MODE", kind.server_mode())
                .start()
        };
        let mut server = start()?;
        let addresses = [server.direct(0, 0)?, server.direct(1, 0)?];
        let client = OpenSsl::new();
        let visitor = client.first_visit(addresses[0], kind.client_mode())?;
        let traffic = Traffic::to(addresses, kind.client_mode()).start()?;
        visitor.come_back_as(&client, addresses[1])?;
        server.kill()?;
        let report = traffic.stop()?;
        assert_eq!(report.failed, 0, "{kind}: {report:?}");

        let next = start()?;
        let back = visitor.come_back_as(&client, next.direct(1, 0)?)?;
        assert!(back.resumed(), "{kind}: {back:?}");
    }
    Ok(())
}
