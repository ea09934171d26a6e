//! The example server `prefork_server`, as a child process.

use std::env;
use std::ffi::{OsStr, OsString};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use crate::error::Doing;
use crate::process::{Transcript, send_signal, yielding};
use crate::{DEADLINE, Error, Folder, Process, Result};

/// Stands for the Debian package of programs that this tree builds.
pub(crate) const OURS: &str = "libtlsresume";

/// A running server, stopped when dropped. It works in a folder of its own.
#[derive(Debug)]
pub struct Server {
    settings: Settings,
    address: SocketAddr,
    process: Process,
    // Last, so that the process has ended when its folder goes.
    folder: Folder,
}

/// How to start a [`Server`].
#[derive(Debug, Clone)]
pub struct Settings {
    program: PathBuf,
    args: Vec<OsString>,
    envs: Vec<(OsString, OsString)>,
    yields: bool,
}

/// One serving loop of a server, as it announced itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServingLoop {
    /// Number of its worker process.
    pub worker: u32,
    /// Its number in the worker.
    pub thread: u32,
    /// Process id of the worker.
    pub pid: u32,
    /// Where it accepts: its own port with `--direct`, else the shared one.
    pub address: SocketAddr,
}

impl Server {
    /// Settings for any program that takes the options of `prefork_server` and announces its
    /// loops as that does.
    pub fn program(program: impl Into<PathBuf>) -> Settings {
        Settings { program: program.into(), args: Vec::new(), envs: Vec::new(), yields: false }
    }

    /// Settings for the `prefork_server` of this tree.
    pub fn example() -> Result<Settings> {
        Ok(Server::program(example("prefork_server")?))
    }

    /// The address that all its loops share.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address of one loop alone; needs `--direct`.
    pub fn direct(&self, worker: u32, thread: u32) -> Result<SocketAddr> {
        self.loops()
            .into_iter()
            .find(|it| (it.worker, it.thread) == (worker, thread))
            .map(|it| it.address)
            .ok_or_else(|| self.process.unexpected(format!("no loop {worker}.{thread}")))
    }

    /// Its loops as they are now, in the order of worker and thread.
    pub fn loops(&self) -> Vec<ServingLoop> {
        newest_loops(&self.process.transcript())
    }

    /// Process id of the parent.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Its working directory.
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// What it has printed since it was last started.
    pub fn log(&self) -> String {
        self.process.transcript().to_string()
    }

    /// Kills one worker and waits until another process has taken its place.
    pub fn kill_worker(&mut self, worker: u32) -> Result<()> {
        let of_worker = |transcript: &Transcript| {
            newest_loops(transcript).into_iter().filter(move |it| it.worker == worker)
        };
        let old = of_worker(&self.process.transcript())
            .next()
            .ok_or_else(|| self.process.unexpected(format!("no worker {worker}")))?;

        send_signal(old.pid, libc::SIGKILL)?;
        self.process.wait_for("the worker's successor", DEADLINE, |transcript| {
            of_worker(transcript).all(|it| it.pid != old.pid).then_some(())
        })
    }

    /// Sends a worker a signal and returns its process id.
    pub fn signal_worker(&mut self, worker: u32, signal: libc::c_int) -> Result<u32> {
        let found = self.loops().into_iter().find(|it| it.worker == worker);
        let pid = found.ok_or_else(|| self.process.unexpected(format!("no worker {worker}")))?.pid;
        send_signal(pid, signal)?;
        Ok(pid)
    }

    /// Sends the parent a signal.
    pub fn signal(&mut self, signal: libc::c_int) -> Result<()> {
        self.process.signal(signal)
    }

    /// Waits until it and its workers have ended, and returns how the parent did.
    pub fn wait_end(&mut self, limit: Duration) -> Result<ExitStatus> {
        self.process.wait_end(limit)
    }

    /// Sends SIGHUP: the server makes a new ticket key (needs `--handle`).
    pub fn hang_up(&mut self) -> Result<()> {
        self.process.signal(libc::SIGHUP)
    }

    /// Ends it in order: every loop finishes its client.
    pub fn stop(&mut self) -> Result<()> {
        self.process.stop()
    }

    /// Kills the parent; the workers die with it.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()
    }

    /// Starts it anew on the same shared address; direct addresses change.
    pub fn restart(&mut self) -> Result<()> {
        self.stop()?;
        self.process = self.settings.spawn(self.folder.path(), Some(self.address))?;
        self.settings.await_ready(&self.process)?;
        Ok(())
    }
}

impl Settings {
    /// Adds an option.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Settings {
        self.args.push(arg.into());
        self
    }

    /// Adds options.
    #[must_use]
    pub fn args(mut self, args: impl IntoIterator<Item: Into<OsString>>) -> Settings {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets a variable. Of the caller's `TLSRESUME_*` variables the server sees none.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Settings {
        self.envs.push((name.into(), value.into()));
        self
    }

    /// Starts it with a lower priority than all else.
    #[must_use]
    pub fn yielding(mut self) -> Settings {
        self.yields = true;
        self
    }

    /// Starts the server and waits until it is ready.
    pub fn start(self) -> Result<Server> {
        let folder = Folder::new()?;
        let process = self.spawn(folder.path(), None)?;
        let address = self.await_ready(&process)?;
        Ok(Server { settings: self, address, process, folder })
    }

    /// Starts the server, which is expected to end by itself, and returns how it did and what it
    /// said.
    pub fn start_in_vain(self) -> Result<(ExitStatus, String)> {
        let folder = Folder::new()?;
        let mut process = self.spawn(folder.path(), None)?;
        let status = process.wait_end(DEADLINE)?;
        Ok((status, process.transcript().to_string()))
    }

    fn spawn(&self, folder: &Path, listen: Option<SocketAddr>) -> Result<Process> {
        let path = &self.program;
        let program = path.canonicalize().doing(format!("looking for {}", path.display()))?;
        let mut command = if self.yields { yielding(&program) } else { Command::new(program) };
        command.current_dir(folder).args(&self.args);
        if let Some(address) = listen {
            command.arg("--listen").arg(address.to_string());
        }
        for (name, _) in env::vars_os().filter(|(name, _)| is_ours(name)) {
            command.env_remove(name);
        }
        command.envs(self.envs.iter().map(|(name, value)| (name, value)));
        Process::start(command, OURS)
    }

    fn await_ready(&self, process: &Process) -> Result<SocketAddr> {
        process.wait_for("ready", DEADLINE, |transcript| {
            transcript.stdout().find_map(|line| line.strip_prefix("ready ")?.parse().ok())
        })
    }
}

impl ServingLoop {
    /// Reads `worker 0 thread 1 pid 123 listening 127.0.0.1:4567`.
    fn parse(line: &str) -> Option<ServingLoop> {
        let words: Vec<&str> = line.split(' ').collect();
        let ["worker", worker, "thread", thread, "pid", pid, "listening", address] = words[..]
        else {
            return None;
        };
        Some(ServingLoop {
            worker: worker.parse().ok()?,
            thread: thread.parse().ok()?,
            pid: pid.parse().ok()?,
            address: address.parse().ok()?,
        })
    }
}

/// Where `make examples` put the program `name`: the folder `examples` beside `debug` and `release`,
/// one of which this program runs from.
pub fn example(name: &str) -> Result<PathBuf> {
    let here = env::current_exe().doing("looking for the examples")?;
    here.ancestors()
        .map(|folder| folder.join("examples").join(name))
        .find(|path| path.is_file())
        .ok_or_else(|| Error::MissingExample { name: name.into() })
}

/// The last announcement of each loop: workers that died were replaced.
fn newest_loops(transcript: &Transcript) -> Vec<ServingLoop> {
    let mut loops: Vec<ServingLoop> = Vec::new();
    for new in transcript.stdout().filter_map(ServingLoop::parse) {
        loops.retain(|old| (old.worker, old.thread) != (new.worker, new.thread));
        loops.push(new);
    }
    loops.sort_by_key(|it| (it.worker, it.thread));
    loops
}

/// The library that `make library` built beside the examples.
pub fn library() -> Result<PathBuf> {
    let name = "libtlsresume.so";
    let path = example("prefork_server")?.with_file_name("../release").join(name);
    path.canonicalize().map_err(|_| Error::MissingExample { name: name.into() })
}

fn is_ours(variable: &OsStr) -> bool {
    variable.to_string_lossy().starts_with("TLSRESUME_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_is_what_its_announcement_says() {
        let line = "worker 1 thread 2 pid 345 listening 127.0.0.1:4567";
        let address = "127.0.0.1:4567".parse().unwrap();
        let expected = ServingLoop { worker: 1, thread: 2, pid: 345, address };
        assert_eq!(ServingLoop::parse(line), Some(expected));
        assert_eq!(ServingLoop::parse("ready 127.0.0.1:4567"), None);
    }
}
