//! Sessions and service go on over reloads, upgrades and changes of the configuration.

use std::fs;
use std::path::Path;

use tlsresume_testkit::client::OpenSsl;
use tlsresume_testkit::{
    DEADLINE, Folder, Mode, Result, Traffic, Visitor, alone, free_port, wait_until,
};

use crate::nginx::{Blocks, Site, address, assert_all_resumed, pid_of, server, site_on};

#[test]
fn reloads_under_load_fail_no_handshake_and_lose_no_session() -> Result<()> {
    const RELOADS: usize = 8;

    let _alone = alone();
    let (site, port) = (Site::new()?, free_port()?);
    // In anonymous memory: what lives on does so in the master process.
    let http = format!("tlsresume on; {}", server(port, ""));
    site.configure("", &Blocks { workers: 4, http: &http, ..Blocks::default() })?;
    let nginx = site.start()?;
    let client = OpenSsl::new();
    let visit = |mode: Mode| client.first_visit(address(port), mode);
    let visitors = Mode::ALL.into_iter().map(visit).collect::<Result<Vec<_>>>()?;
    let first_pid = pid_of(visitors[0].first());
    let start = |mode: Mode| Traffic::to([address(port)], mode).start();
    let traffic = Mode::ALL.into_iter().map(start).collect::<Result<Vec<_>>>()?;

    for reload in 1..=RELOADS {
        nginx.reload()?;
        // The last worker of the generation before has finished its clients.
        wait_until(format!("the end of generation {reload}"), DEADLINE, || {
            nginx.lines_with("exited with code 0") >= 4 * reload
        })?;
    }
    for (mode, traffic) in Mode::ALL.into_iter().zip(traffic) {
        let report = traffic.stop()?;
        assert_all_resumed(&mode.to_string(), &report);
        assert_eq!(report.reset, 0, "{mode}: {report:?}");
    }
    for (mode, visitor) in Mode::ALL.into_iter().zip(&visitors) {
        let back = visitor.come_back_as(&client, address(port))?;
        assert!(back.resumed(), "{mode}: a session from before the first reload: {back:?}");
        assert_ne!(pid_of(&back), first_pid);
    }
    assert_eq!(nginx.lines_with("[alert]") + nginx.lines_with("[emerg]"), 0, "{}", nginx.log());
    Ok(())
}

#[test]
fn a_binary_upgrade_under_load_fails_no_handshake_and_loses_no_session() -> Result<()> {
    let _alone = alone();
    let memory = Folder::in_memory()?;
    let port = free_port()?;
    let nginx = site_on(&memory.file("sessions"), port, 2, "")?.start_daemon()?;
    let client = OpenSsl::new();
    let visit = |mode: Mode| client.first_visit(address(port), mode);
    let visitors = Mode::ALL.into_iter().map(visit).collect::<Result<Vec<_>>>()?;
    let start = |mode: Mode| Traffic::to([address(port)], mode).start();
    let traffic = Mode::ALL.into_iter().map(start).collect::<Result<Vec<_>>>()?;

    let old = nginx.signal("nginx.pid", libc::SIGUSR2);
    wait_until("the new master", DEADLINE, || {
        nginx.pid_in("nginx.pid.oldbin") == Some(old)
            && nginx.pid_in("nginx.pid").is_some_and(|pid| pid != old)
    })?;
    nginx.wait_for_lines("start worker processes", 2)?;
    nginx.signal("nginx.pid.oldbin", libc::SIGQUIT);
    wait_until("the end of the old master", DEADLINE, || {
        !Path::new("/proc").join(old.to_string()).exists()
    })?;

    for (mode, traffic) in Mode::ALL.into_iter().zip(traffic) {
        let report = traffic.stop()?;
        assert_all_resumed(&mode.to_string(), &report);
        assert_eq!(report.reset, 0, "{mode}: {report:?}");
    }
    for (mode, visitor) in Mode::ALL.into_iter().zip(&visitors) {
        let back = visitor.come_back_as(&client, address(port))?;
        assert!(back.resumed(), "{mode}: a session of the old program: {back:?}\n{}", nginx.log());
    }
    Ok(())
}

#[test]
fn a_reload_with_a_mistake_changes_nothing() -> Result<()> {
    let (site, port) = (Site::new()?, free_port()?);
    site.write("tlsresume.toml", "");
    let http = format!("tlsresume tlsresume.toml; {}", server(port, ""));
    site.configure("", &Blocks { http: &http, ..Blocks::default() })?;
    let nginx = site.start()?;
    let client = OpenSsl::new();
    let visitor = client.first_visit(address(port), Mode::Tls12Id)?;

    nginx.site.write("tlsresume.toml", "resumption.mode = \"sometimes\"\n");
    nginx.signal("nginx.pid", libc::SIGHUP);
    nginx.wait_for_lines("[emerg]", 1)?;
    let back = visitor.come_back_as(&client, address(port))?;
    assert!(back.resumed(), "{back:?}\n{}", nginx.log());
    assert_eq!(pid_of(&back), pid_of(visitor.first()), "the same worker");

    // Also when it comes after nginx has taken the file, and the file is right again.
    nginx.site.write("tlsresume.toml", "");
    nginx.reload()?;
    assert!(visitor.come_back_as(&client, address(port))?.resumed(), "{}", nginx.log());
    Ok(())
}

#[test]
fn a_changed_file_counts_from_the_next_reload_and_what_it_costs_is_said_once() -> Result<()> {
    const LOSS: &str = "changed, and its memory with it";

    let (memory, client) = (Folder::in_memory()?, OpenSsl::new());
    let path = format!("memory.path = \"{}\"\n", memory.file("sessions").display());
    let anonymous = String::new();
    // What is the same before and after, what changes, and whether ids and tickets are lost.
    for (text, before, after, lost) in [
        (&path, "memory.size = \"2MiB\"", "memory.size = '2MiB'", [false, false]),
        (&path, "memory.size = \"2MiB\"", "memory.size = \"4MiB\"", [false, false]),
        (&anonymous, "memory.size = \"2MiB\"", "memory.size = '2MiB'", [true, true]),
    ] {
        let (site, port) = (Site::new()?, free_port()?);
        site.write("tlsresume.toml", &format!("{text}{before}\n"));
        let http = format!("tlsresume tlsresume.toml; {}", server(port, ""));
        site.configure("", &Blocks { http: &http, ..Blocks::default() })?;
        let nginx = site.start()?;
        let modes = [Mode::Tls12Id, Mode::Tls12Ticket];
        let visit = |mode: Mode| client.first_visit(address(port), mode);
        let visitors = modes.into_iter().map(visit).collect::<Result<Vec<_>>>()?;

        nginx.site.write("tlsresume.toml", &format!("{text}{after}\n"));
        nginx.reload()?;
        nginx.wait_for_lines("exited with code 0", 1)?;
        let said = usize::from(lost.contains(&true));
        for (visitor, lost) in visitors.iter().zip(lost) {
            let back = visitor.come_back_as(&client, address(port))?;
            assert_eq!(back.resumed(), !lost, "{text}{after}: {back:?}\n{}", nginx.log());
        }
        assert_eq!(nginx.lines_with(LOSS), said, "{}", nginx.log());

        // What is as it was loses nothing, and says nothing.
        let visitors = modes.into_iter().map(visit).collect::<Result<Vec<_>>>()?;
        nginx.reload()?;
        nginx.wait_for_lines("exited with code 0", 2)?;
        for visitor in visitors {
            assert!(visitor.come_back_as(&client, address(port))?.resumed(), "{}", nginx.log());
        }
        assert_eq!(nginx.lines_with(LOSS), said, "{}", nginx.log());
    }
    Ok(())
}

#[test]
fn modules_that_go_with_a_reload_leave_nothing_behind() -> Result<()> {
    let (site, port) = (Site::new()?, free_port()?);
    let blocks = |http| Blocks { http, ..Blocks::default() };
    let (with, without) = (format!("tlsresume on; {}", server(port, "")), server(port, ""));
    site.configure("", &blocks(&with))?;
    let nginx = site.start()?;
    let client = OpenSsl::new();
    for round in 1..=2 {
        nginx.site.configure("", &blocks(&without))?;
        let text = fs::read_to_string(nginx.site.file("nginx.conf")).expect("written above");
        let rest: Vec<_> = text.lines().filter(|line| !line.contains("tlsresume")).collect();
        nginx.site.write("nginx.conf", &rest.join("\n"));
        nginx.reload()?;
        nginx.wait_for_lines("exited with code 0", 2 * round - 1)?;
        client.first_visit(address(port), Mode::Tls13)?;

        nginx.site.configure("", &blocks(&with))?;
        nginx.reload()?;
        nginx.wait_for_lines("exited with code 0", 2 * round)?;
        let visitor = client.first_visit(address(port), Mode::Tls12Ticket)?;
        assert!(visitor.come_back_as(&client, address(port))?.resumed(), "{}", nginx.log());
    }
    assert_eq!(nginx.lines_with("signal 11"), 0, "{}", nginx.log());
    Ok(())
}
