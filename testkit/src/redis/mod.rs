//! Redis servers as the distribution has them: one, a group with sentinels, a cluster.
//!
//! A [`RedisServer`] works in a folder of its own and is killed when dropped, also when it was
//! stopped or the test panicked. Test and clients do not get into each other's way: the test asks
//! its own questions over a Unix socket, and what they cost is not counted.
//!
//! ```no_run
//! use tlsresume_testkit::redis::RedisServer;
//!
//! # fn main() -> tlsresume_testkit::Result<()> {
//! let mut redis = RedisServer::settings().password("secret").start()?;
//! let url = redis.url(); // redis://:secret@127.0.0.1:4567
//! redis.stop()?; // nobody is answered now
//! redis.cont()?;
//! assert_eq!(redis.command(&["DBSIZE"])?, "0");
//! # Ok(())
//! # }
//! ```

mod cluster;
mod monitor;
mod resp;
mod sentinel;
mod settings;

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

pub use cluster::{Migration, RedisCluster, key_slot};
pub use monitor::Monitor;
pub use resp::{Reply, RespClient};
pub use sentinel::SentinelGroup;
pub use settings::RedisSettings;

use crate::error::Doing;
use crate::installed::processes;
use crate::net::ReservedPort;
use crate::process::say;
use crate::{DEADLINE, Error, Folder, Process, Result, wait_until};

/// The name, and the ACL user, of connections that ask the test's own questions.
const CONTROL: &str = "testkit";

const DUMP: &str = "dump.rdb";
const APPEND_ONLY_FOLDER: &str = "appendonlydir";

/// A running Redis server, killed when dropped.
#[derive(Debug)]
pub struct RedisServer {
    settings: RedisSettings,
    port: ReservedPort,
    process: Process,
    /// How many commands of the test it has processed since it was started.
    own_commands: AtomicU64,
    // Last, so that the process has ended when its folder goes.
    folder: Folder,
}

impl RedisServer {
    /// Settings for a server without passwords or limits.
    pub fn settings() -> RedisSettings {
        RedisSettings::default()
    }

    /// Starts a server without passwords or limits.
    pub fn start() -> Result<RedisServer> {
        RedisServer::settings().start()
    }

    fn with(settings: RedisSettings) -> Result<RedisServer> {
        let (folder, port) = (Folder::new()?, ReservedPort::new()?);
        let process = settings.spawn(&folder, &port)?;
        let own_commands = AtomicU64::new(0);
        let server = RedisServer { settings, port, process, own_commands, folder };
        server.await_ready()?;
        Ok(server)
    }

    /// Where clients find it, with the credentials of the user that was added first.
    pub fn url(&self) -> String {
        self.settings.url(&self.folder, &self.port)
    }

    /// The same for its Unix socket.
    pub fn socket_url(&self) -> String {
        self.settings.socket_url(&self.folder)
    }

    /// Its port, where nobody listens if there is [only a socket](RedisSettings::unix_socket).
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Its Unix socket.
    pub fn socket_path(&self) -> PathBuf {
        settings::socket(&self.folder)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Its working directory.
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// What it has said since it was last started.
    pub fn log(&self) -> String {
        self.process.transcript().to_string()
    }

    /// Stops it from running (SIGSTOP): connections stay open and nobody is answered.
    pub fn stop(&mut self) -> Result<()> {
        self.process.signal(libc::SIGSTOP)?;
        processes::await_stopped(self.pid())
    }

    /// Lets it go on (SIGCONT).
    pub fn cont(&mut self) -> Result<()> {
        self.process.signal(libc::SIGCONT)
    }

    /// Kills it (SIGKILL). Its port refuses connections until it is started again.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()
    }

    /// Starts it at the same port with nothing in it, after [`kill`](RedisServer::kill) or instead.
    pub fn restart_empty(&mut self) -> Result<()> {
        self.kill()?;
        self.forget()?;
        self.start_again()
    }

    /// Starts it at the same port with what an earlier [`dump`](RedisServer::dump) holds.
    pub fn restore(&mut self, dump: &[u8]) -> Result<()> {
        self.kill()?;
        self.forget()?;
        self.put_back(dump)?;
        self.start_again()
    }

    /// Everything that it holds, as it would be written to disk (RDB).
    pub fn dump(&self) -> Result<Vec<u8>> {
        self.command(&["SAVE"])?;
        fs::read(self.folder.file(DUMP)).doing("reading a dump")
    }

    /// Every command that changed something, as written to disk (AOF); needs
    /// [`append_only`](RedisSettings::append_only).
    pub fn append_only_file(&self) -> Result<Vec<u8>> {
        let mut all = Vec::new();
        let folder = self.folder.file(APPEND_ONLY_FOLDER);
        let files = fs::read_dir(&folder).doing("reading the append-only files")?;
        let mut paths: Vec<_> = files.flatten().map(|file| file.path()).collect();
        paths.sort();
        for path in paths {
            all.extend(fs::read(path).doing("reading an append-only file")?);
        }
        Ok(all)
    }

    /// Its answer to a command, as `redis-cli` would print it: `(nil)` for nothing, lists one
    /// element a line. A refusal is an error.
    pub fn command(&self, command: &[&str]) -> Result<String> {
        self.ask(command).map(|reply| reply.to_string())
    }

    /// Its answer to a command.
    pub fn ask<T: AsRef<[u8]>>(&self, command: &[T]) -> Result<Reply> {
        let mut control = self.settings.control(&self.folder)?;
        self.own_commands.fetch_add(1, Ordering::Relaxed);
        let reply = control.ask(command)?;
        self.own_commands.fetch_add(1, Ordering::Relaxed);
        Ok(reply)
    }

    /// How many connections it has, without those of the test. Replicas and sentinels have some.
    pub fn client_count(&self) -> Result<usize> {
        let own = format!("name={CONTROL}");
        let list = self.command(&["CLIENT", "LIST"])?;
        Ok(list.lines().filter(|line| !line.split(' ').any(|word| word == own)).count())
    }

    /// A number or text of `INFO`, such as `used_memory`.
    pub fn info(&self, section: &str, field: &str) -> Result<Option<String>> {
        let text = self.command(&["INFO", section])?;
        let value = |line: &str| Some(line.strip_prefix(field)?.strip_prefix(':')?.to_owned());
        Ok(text.lines().find_map(value))
    }

    /// Listens to every command from now on, whoever asks.
    pub fn monitor(&self) -> Result<Monitor> {
        // Its greeting, and that it listens.
        self.own_commands.fetch_add(2, Ordering::Relaxed);
        Monitor::start(self.settings.control(&self.folder)?)
    }

    /// How often it has processed a command such as `get` or `script|load`, whoever asked.
    pub fn info_commands(&self, command: &str) -> Result<u64> {
        let stats = self.info("commandstats", &format!("cmdstat_{command}"))?;
        let calls = |stats: &str| stats.strip_prefix("calls=")?.split(',').next()?.parse().ok();
        match stats {
            Some(stats) => calls(&stats).ok_or_else(|| self.unexpected(&stats)),
            None => Ok(0),
        }
    }

    /// How many commands it has processed since it was started, without those of the test (unless
    /// it refused them).
    pub fn commands_processed(&self) -> Result<u64> {
        // What is asked now is counted once it is answered, except for the greeting.
        let own = self.own_commands.load(Ordering::Relaxed) + 1;
        let total = self.info("stats", "total_commands_processed")?.unwrap_or_default();
        let total: u64 = total.parse().map_err(|_| self.unexpected(&total))?;
        Ok(total.saturating_sub(own))
    }

    /// An error that says `reason` and what the server has said.
    pub fn unexpected(&self, reason: &str) -> Error {
        self.process.unexpected(reason)
    }

    fn start_again(&mut self) -> Result<()> {
        self.process = self.settings.spawn(&self.folder, &self.port)?;
        self.own_commands = AtomicU64::new(0);
        self.await_ready()
    }

    fn await_ready(&self) -> Result<()> {
        let answers = || self.command(&["PING"]).is_ok_and(|reply| reply == "PONG");
        let waited = wait_until("an answer", DEADLINE, || self.process.has_ended() || answers());
        if waited.is_err() || self.process.has_ended() {
            return Err(self.unexpected("does not answer"));
        }
        Ok(())
    }

    /// Removes what it has written to disk.
    fn forget(&self) -> Result<()> {
        let (dump, folder) = (self.folder.file(DUMP), self.folder.file(APPEND_ONLY_FOLDER));
        if dump.exists() {
            fs::remove_file(dump).doing("removing a dump")?;
        }
        if folder.exists() {
            fs::remove_dir_all(folder).doing("removing append-only files")?;
        }
        Ok(())
    }

    /// Writes a dump where it looks for one: a server with append-only files reads nothing else.
    fn put_back(&self, dump: &[u8]) -> Result<()> {
        let doing = "writing a dump";
        if !self.settings.is_append_only() {
            return fs::write(self.folder.file(DUMP), dump).doing(doing);
        }
        let folder = self.folder.file(APPEND_ONLY_FOLDER);
        let base = "appendonly.aof.1.base.rdb";
        fs::create_dir(&folder).doing(doing)?;
        fs::write(folder.join(base), dump).doing(doing)?;
        let manifest = format!("file {base} seq 1 type b\n");
        fs::write(folder.join("appendonly.aof.manifest"), manifest).doing(doing)
    }
}

impl Drop for RedisServer {
    /// Nothing has to be written, and one that is stopped would not hear anything else.
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            say(&error.to_string());
        }
    }
}
