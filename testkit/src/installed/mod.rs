//! Servers as the distribution has them: nginx, Apache, PostgreSQL and others, unmodified.
//!
//! An [`Installed`] is one running instance, with a folder, a certificate and an address of its
//! own; [`Settings`] say how it is started and with which library preloaded. [`Visits`] are its
//! clients: they stay connected, so that [`Installed::worker_of`] can find in `/proc` which process
//! serves them, whatever the server.
//!
//! All of it works for root and for an ordinary user. The texts of the configurations are in
//! `testkit/servers`.
//!
//! ```no_run
//! use tlsresume_testkit::installed::{Program, Visits, preload_library};
//! use tlsresume_testkit::{Folder, Mode, net};
//!
//! # fn main() -> tlsresume_testkit::Result<()> {
//! let memory = Folder::in_memory()?;
//! let start = |address| {
//!     let settings = Program::Nginx.settings().at(address).preload(preload_library()?);
//!     settings.env("TLSRESUME_MEMORY_PATH", memory.file("sessions")).start()
//! };
//! let [one, other] = net::one_port_of_two_addresses()?;
//! let (one, other) = (start(one)?, start(other)?);
//! let mut client = Visits::start()?;
//! let first = client.visit(&one, Mode::Tls13, None)?;
//! assert!(client.visit(&other, Mode::Tls13, first.session)?.reused);
//! # Ok(())
//! # }
//! ```

mod backend;
pub mod certs;
pub(crate) mod processes;
mod recipe;
mod settings;
mod sockets;
pub mod table;
mod visits;

use std::fmt;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::Duration;

pub use backend::Backend;
pub use processes::{Paused, is_root};
pub use recipe::{Speaks, Workers};
pub use settings::Settings;
pub use visits::{Call, Session, Visit, Visits};

use crate::process::say;
use crate::server::example;
use crate::{DEADLINE, Error, Folder, Process, Result, wait_until};
use processes::Guard;
use recipe::{Recipe, Reload};

/// A server that Debian packages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// nginx: a master and workers.
    Nginx,
    /// Hitch: a parent and workers that end TLS for a server behind it.
    Hitch,
    /// HAProxy: a master and one worker with threads.
    Haproxy,
    /// Apache with its event MPM: a parent and children with threads.
    Apache,
    /// stunnel: one process with threads that ends TLS for a server behind it.
    Stunnel,
    /// lighttpd: a watcher and workers.
    Lighttpd,
    /// H2O: one process with threads, and a script that replaces it.
    H2o,
    /// PostgreSQL: a process for each connection.
    Postgres,
    /// A server on Python's `ssl` module, `testkit/servers/python_server.py`: workers.
    Python,
}

/// A running server, stopped with all its processes when dropped.
#[derive(Debug)]
pub struct Installed {
    settings: Settings,
    process: Process,
    guard: Guard,
    backend: Option<Backend>,
    // Last, so that the processes have ended when their folder goes.
    folder: Folder,
}

impl Program {
    /// All of them.
    pub const ALL: [Program; 9] = [
        Program::Nginx,
        Program::Hitch,
        Program::Haproxy,
        Program::Apache,
        Program::Stunnel,
        Program::Lighttpd,
        Program::H2o,
        Program::Postgres,
        Program::Python,
    ];

    /// Settings for an instance of it.
    pub fn settings(self) -> Settings {
        Settings::new(self)
    }

    /// What its clients speak.
    pub fn speaks(self) -> Speaks {
        self.recipe().speaks
    }

    /// Which of its processes serve clients.
    pub fn workers(self) -> Workers {
        self.recipe().workers
    }

    /// Makes `folder` the property of the user that this server runs as.
    pub fn give(self, folder: &Folder) -> Result<()> {
        match self.other_user()? {
            Some(ids) => processes::give(folder.path(), ids),
            None => Ok(()),
        }
    }

    /// PostgreSQL refuses to be root.
    fn other_user(self) -> Result<Option<(u32, u32)>> {
        let needs_one = self == Program::Postgres && is_root();
        needs_one.then(|| processes::ids_of("postgres", self.recipe().package)).transpose()
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.recipe().name)
    }
}

impl Installed {
    /// Which server it is.
    pub fn program(&self) -> Program {
        self.settings.program
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.settings.address
    }

    /// Process id of the process that was started: the master, where there is one.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Its working directory.
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// The server without TLS behind it, where it needs one.
    pub fn backend(&self) -> Option<&Backend> {
        self.backend.as_ref()
    }

    /// The program with the arguments and variables that it was started with; more may be added.
    pub fn command(&self) -> Result<Command> {
        self.settings.command(&self.folder)
    }

    /// What it has said since it was last started, and what is in its log files.
    pub fn log(&self) -> String {
        format!("{}{}", self.process.transcript(), self.log_files())
    }

    /// The processes that descend from the one that was started.
    pub fn workers(&self) -> Vec<u32> {
        let mut tree = processes::tree(self.pid());
        tree.remove(0);
        tree
    }

    /// Process id of the process that serves the connection which `client` has to [`address`]. Ask
    /// while it is open and after the server has said something.
    ///
    /// [`address`]: Installed::address
    pub fn worker_of(&self, client: SocketAddr) -> Result<u32> {
        self.worker_at(client, self.address())
    }

    /// The same for a connection to another address of this server.
    pub fn worker_at(&self, client: SocketAddr, server: SocketAddr) -> Result<u32> {
        let mut found = None;
        // Threads and forks move connections about; the owner is there as soon as they are done.
        let waited = wait_until("the worker", DEADLINE, || {
            found = processes::owner(&processes::tree(self.pid()), client, server);
            found.is_some()
        });
        waited.map_err(|_| self.unexpected(format!("no process has {client} - {server}")))?;
        found.ok_or_else(|| self.unexpected("no worker"))
    }

    /// Stops the process `pid`, a worker of this server, from running until the value is dropped.
    pub fn pause(&self, pid: u32) -> Result<Paused> {
        Paused::new(pid)
    }

    /// Whether [`reload`](Installed::reload) works.
    pub fn can_reload(&self) -> bool {
        self.recipe().reload != Reload::No
    }

    /// Has it read its configuration anew, and waits until that is done: where there are workers,
    /// until those from before are gone.
    pub fn reload(&mut self) -> Result<()> {
        match self.recipe().reload {
            Reload::Workers(signal) => {
                let before = self.workers();
                self.process.signal(signal)?;
                self.wait("replacing its workers", || {
                    let now = self.workers();
                    !now.is_empty() && !now.iter().any(|pid| before.contains(pid))
                })
            }
            Reload::Logged(signal, text) => {
                let times = |log: String| log.matches(text).count();
                let before = times(self.log());
                self.process.signal(signal)?;
                self.wait("reading its configuration", || times(self.log()) > before)
            }
            Reload::No => Err(self.unexpected("cannot reload")),
        }
    }

    /// Sends the process that was started a signal.
    pub fn signal(&mut self, signal: libc::c_int) -> Result<()> {
        self.process.signal(signal)
    }

    /// Ends it, and whatever it has started.
    pub fn stop(&mut self) -> Result<()> {
        self.process.signal(self.recipe().stop)?;
        let ended = self.process.wait_end(DEADLINE).and_then(|_| {
            wait_until("the end of all workers", DEADLINE, || !self.guard.has_members())
        });
        if ended.is_err() {
            self.guard.signal(libc::SIGKILL);
        }
        ended.map_err(|error| self.unexpected(format!("does not end: {error}")))
    }

    /// Starts it anew, after [`stop`](Installed::stop), in the same folder and at the same address.
    pub fn start_again(&mut self) -> Result<()> {
        let (process, guard) = self.settings.spawn(&self.folder)?;
        (self.process, self.guard) = (process, guard);
        self.await_ready()
    }

    /// Stops it and starts it again.
    pub fn restart(&mut self) -> Result<()> {
        self.stop()?;
        self.start_again()
    }

    /// An error that says `reason` and what the server has said.
    pub fn unexpected(&self, reason: impl Into<String>) -> Error {
        Error::Unexpected {
            program: self.program().to_string(),
            reason: reason.into(),
            log: self.log(),
        }
    }

    fn await_ready(&self) -> Result<()> {
        let timeout = Duration::from_secs(1);
        self.wait("accepting connections", || {
            TcpStream::connect_timeout(&self.address(), timeout).is_ok()
        })
    }

    /// Until `condition` holds, or the server has ended.
    fn wait(&self, what: &str, condition: impl Fn() -> bool) -> Result<()> {
        let mut has_ended = false;
        let waited = wait_until(what, DEADLINE, || {
            has_ended = self.process.has_ended();
            has_ended || condition()
        });
        if waited.is_err() {
            return Err(self.unexpected(format!("{what}: not within {DEADLINE:?}")));
        }
        if has_ended { Err(self.unexpected(format!("ended before: {what}"))) } else { Ok(()) }
    }

    fn log_files(&self) -> String {
        let files = std::fs::read_dir(self.folder.path()).into_iter().flatten().flatten();
        let logs = files.map(|it| it.path()).filter(|it| it.extension() == Some("log".as_ref()));
        logs.filter_map(|path| std::fs::read_to_string(path).ok()).collect()
    }

    fn recipe(&self) -> &'static Recipe {
        self.program().recipe()
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        if thread::panicking() {
            say(&format!("--- {} at {} ---\n{}", self.program(), self.address(), self.log_files()));
        }
        if let Err(error) = self.stop() {
            say(&error.to_string());
        }
    }
}

/// The library that is preloaded, which `make all` builds beside the examples.
pub fn preload_library() -> Result<PathBuf> {
    let name = "libtlsresume_preload.so";
    let path = example("prefork_server")?.with_file_name("../release").join(name);
    path.canonicalize().map_err(|_| Error::MissingLibrary { name: name.into() })
}
