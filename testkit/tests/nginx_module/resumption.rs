//! Sessions resume in every worker and at every server of one memory; nginx's own settings are
//! no obstacle.

use std::fs;
use std::net::SocketAddr;

use tlsresume_testkit::client::{OpenSsl, OpenSslVisitor};
use tlsresume_testkit::installed::preload_library;
use tlsresume_testkit::{
    DEADLINE, Folder, Mode, Result, Stats, Traffic, Visitor, free_port, wait_until,
};

use crate::nginx::{
    Blocks, Site, address, assert_all_resumed, pid_of, server, shared, site_on, with_status,
};

/// What nginx itself may be told to do about sessions.
const OWN_CACHES: [&str; 3] = [
    "",
    "ssl_session_cache shared:SSL:1m; ssl_session_timeout 1m;",
    "ssl_session_cache off; ssl_session_tickets on; ssl_session_ticket_key ticket.key;",
];

#[test]
fn two_servers_on_one_memory_resume_each_others_sessions_also_after_a_restart() -> Result<()> {
    for cache in OWN_CACHES {
        let memory = Folder::in_memory()?;
        let path = memory.file("sessions");
        let ports = [free_port()?, free_port()?];
        let [site_a, site_b] = ports.map(|port| site_on(&path, port, 2, cache));
        let (site_a, site_b) = (site_a?, site_b?);
        // One certificate: nginx ties sessions to it.
        for file in ["server.crt", "server.key"] {
            fs::copy(site_a.file(file), site_b.file(file)).expect("the folders are ours");
        }
        let (a, b) = (site_a.start()?, site_b.start()?);
        let client = OpenSsl::new();
        let visit = |mode: Mode| client.first_visit(address(ports[0]), mode);
        let visitors = Mode::ALL.into_iter().map(visit).collect::<Result<Vec<_>>>()?;
        let return_to = |port: u16, when: &str| -> Result<()> {
            for (mode, visitor) in Mode::ALL.into_iter().zip(&visitors) {
                assert!(!visitor.first().resumed());
                let back = visitor.come_back_as(&client, address(port))?;
                assert!(back.resumed(), "{mode}, {when}, {cache:?}: {back:?}\n{}", a.log());
            }
            Ok(())
        };

        return_to(ports[1], "at the other server")?;
        for mode in Mode::ALL {
            let report = Traffic::to(ports.map(address), mode).connections(200, DEADLINE)?;
            assert_all_resumed(&format!("{mode}, {cache:?}"), &report);
        }

        // Both are gone before the first of them starts again.
        let (log, site_a, site_b) = (a.log(), a.stop()?, b.stop()?);
        let _running = (site_a.start()?, site_b.start()?);
        for (mode, visitor) in Mode::ALL.into_iter().zip(&visitors) {
            for port in ports {
                let back = visitor.come_back_as(&client, address(port))?;
                assert!(back.resumed(), "{mode}, after restart, {cache:?}: {back:?}\n{log}");
            }
        }
    }
    Ok(())
}

/// Comes back until every one of `count` workers has answered.
fn assert_resumes_in_workers(visitor: &OpenSslVisitor, at: SocketAddr, count: usize) -> Result<()> {
    let client = OpenSsl::new();
    let mut pids = Vec::new();
    wait_until(format!("an answer of {count} workers"), DEADLINE, || {
        let back = visitor.come_back_as(&client, at).expect("it serves");
        assert!(back.resumed(), "{back:?}");
        pids.push(pid_of(&back));
        pids.sort_unstable();
        pids.dedup();
        pids.len() >= count
    })
}

#[test]
fn every_worker_resumes_what_another_one_gave_without_any_path() -> Result<()> {
    for cache in OWN_CACHES {
        let (site, port) = (Site::new()?, free_port()?);
        site.write("ticket.key", &"k".repeat(80));
        // With reuseport the kernel spreads connections over the workers, idle or not.
        let server = server(port, cache).replace(" ssl;", " ssl reuseport;");
        let http = format!("tlsresume on; {server}");
        site.configure("", &Blocks { workers: 4, http: &http, ..Blocks::default() })?;
        let _nginx = site.start()?;
        for mode in Mode::ALL {
            let visitor = OpenSsl::new().first_visit(address(port), mode)?;
            assert_resumes_in_workers(&visitor, address(port), 4)?;
        }
    }
    Ok(())
}

#[test]
fn stream_servers_resume_across_workers_servers_and_restarts() -> Result<()> {
    let memory = Folder::in_memory()?;
    let (site, ports) = (Site::new()?, [free_port()?, free_port()?]);
    site.write("tlsresume.toml", &shared(&memory.file("sessions"), "stateless"));
    let servers = ports.map(|port| {
        format!("server {{ listen 127.0.0.1:{port} ssl reuseport; return '$ssl_session_reused'; }}")
    });
    let stream = format!("tlsresume tlsresume.toml; {}", servers.join("\n"));
    site.configure("", &Blocks { workers: 4, stream: &stream, ..Blocks::default() })?;
    let nginx = site.start()?;
    let client = OpenSsl::new();
    let mut visitors = Vec::new();
    for mode in Mode::ALL {
        visitors.push(client.first_visit(address(ports[0]), mode)?);
        let report = Traffic::to(ports.map(address), mode).connections(200, DEADLINE)?;
        assert_all_resumed(&format!("{mode}"), &report);
    }
    let nginx = nginx.restart()?;
    for (mode, visitor) in Mode::ALL.into_iter().zip(&visitors) {
        assert!(!visitor.first().reused);
        let back = visitor.come_back_as(&client, address(ports[1]))?;
        assert!(back.reused, "{mode}: {back:?}\n{}", nginx.log());
    }
    Ok(())
}

#[test]
fn one_file_is_one_memory_for_http_and_stream() -> Result<()> {
    let (site, ports) = (Site::new()?, [free_port()?, free_port()?]);
    let http = format!("tlsresume on; {}", with_status(&server(ports[0], "")));
    let stream =
        format!("tlsresume on; server {{ listen 127.0.0.1:{} ssl; return ok; }}", ports[1]);
    site.configure("", &Blocks { http: &http, stream: &stream, ..Blocks::default() })?;
    let _nginx = site.start()?;
    let issued = || Stats::of(address(ports[0])).map(|stats| stats.get("tickets_issued_total"));
    let before = issued()?;
    OpenSsl::new().first_visit(address(ports[1]), Mode::Tls12Ticket)?;
    // The one that asks gets tickets too: two, since it is TLS 1.3.
    assert_eq!(issued()?, before + 1 + 2);
    Ok(())
}

#[test]
fn a_server_that_was_preloaded_as_well_resumes_as_ever() -> Result<()> {
    let memory = Folder::in_memory()?;
    let port = free_port()?;
    let preload = preload_library()?;
    let start = |site: Site| {
        let mut command = site.command(&["-g", "daemon off;"]);
        command.env("LD_PRELOAD", &preload);
        site.start_by(command)
    };
    let nginx = start(site_on(&memory.file("sessions"), port, 2, "")?)?;
    assert_eq!(nginx.lines_with("tlsresume: attached server"), 1, "{}", nginx.log());
    let client = OpenSsl::new();
    let mut visitors = Vec::new();
    for mode in Mode::ALL {
        visitors.push(client.first_visit(address(port), mode)?);
        let report = Traffic::to([address(port)], mode).connections(100, DEADLINE)?;
        assert_all_resumed(&mode.to_string(), &report);
    }
    // It was the module that attached: its memory is at a path, the preload's is not.
    let log = nginx.log();
    let _nginx = start(nginx.stop()?)?;
    for (mode, visitor) in Mode::ALL.into_iter().zip(&visitors) {
        assert!(visitor.come_back_as(&client, address(port))?.resumed(), "{mode}\n{log}");
    }
    Ok(())
}
