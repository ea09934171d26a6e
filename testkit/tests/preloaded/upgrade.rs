//! nginx replaces its program (USR2) and takes the library along, if its configuration names the
//! variables: nginx empties the environment of the new program.

use std::fs;

use tlsresume_testkit::installed::{Call, Installed, Program, Visits, preload_library};
use tlsresume_testkit::{DEADLINE, Folder, Mode, Result, wait_until};

/// Only a daemon can be replaced.
const CONFIG: &str = include_str!("../../servers/nginx.conf");

#[test]
fn sessions_survive_a_binary_upgrade_of_nginx() -> Result<()> {
    let memory = Folder::in_memory()?;
    let nginx = Program::Nginx
        .settings()
        .config(CONFIG.replace("daemon off;", "daemon on;"))
        .top("env LD_PRELOAD;\nenv TLSRESUME_MEMORY_PATH;")
        .preload(preload_library()?)
        .env("TLSRESUME_MEMORY_PATH", memory.file("sessions"))
        .start()?;
    let daemon = Daemon(&nginx);
    let mut visits = Visits::start()?;
    let mut visit = |mode, session| {
        let visit = visits.connect(&Call::to(nginx.address(), mode).with(session))?;
        visits.close().map(|()| visit)
    };
    let sessions = Mode::ALL
        .into_iter()
        .map(|mode| Ok((mode, visit(mode, None)?.session)))
        .collect::<Result<Vec<_>>>()?;

    let old = daemon.master("nginx.pid").expect("it serves");
    send(old, libc::SIGUSR2);
    wait_until("a new master", DEADLINE, || {
        daemon.master("nginx.pid").is_some_and(|pid| pid != old)
    })?;
    send(old, libc::SIGQUIT);
    wait_until("the end of the old program", DEADLINE, || {
        !fs::exists(format!("/proc/{old}")).unwrap_or(true)
    })?;

    for (mode, session) in sessions {
        let back = visit(mode, session)?;
        assert!(back.offered && back.reused, "{mode}: {back:?}\n{}", nginx.log());
    }
    Ok(())
}

/// A daemon is not the process that was started: it is ended here, before its folder goes.
struct Daemon<'a>(&'a Installed);

impl Daemon<'_> {
    fn master(&self, file: &str) -> Option<libc::pid_t> {
        fs::read_to_string(self.0.folder().file(file)).ok()?.trim().parse().ok()
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        for file in ["nginx.pid", "nginx.pid.oldbin"] {
            self.master(file).into_iter().for_each(|pid| send(pid, libc::SIGTERM));
        }
    }
}

fn send(pid: libc::pid_t, signal: libc::c_int) {
    // SAFETY: kill takes two integers and touches no memory of ours.
    unsafe { libc::kill(pid, signal) };
}
