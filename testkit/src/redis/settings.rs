//! How a Redis server is started: its configuration file, and the URLs by which clients find it.

use std::fmt::Write;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::CONTROL;
use super::RedisServer;
use super::resp::RespClient;
use crate::error::Doing;
use crate::installed::certs::Mutual;
use crate::net::ReservedPort;
use crate::{DEADLINE, Folder, Process, Result};

/// What all servers are told. Dumps show the bytes of values, and nothing is written by itself.
const COMMON: &str = "bind 127.0.0.1
daemonize no
logfile \"\"
save \"\"
rdbcompression no
appendonly no
aof-use-rdb-preamble no
repl-diskless-sync-delay 0
";

/// How to start a [`RedisServer`].
#[derive(Debug, Clone, Default)]
pub struct RedisSettings {
    password: Option<String>,
    users: Vec<User>,
    tls: Option<Mutual>,
    unix_only: bool,
    args: Vec<&'static str>,
    lines: Vec<String>,
}

#[derive(Debug, Clone)]
struct User {
    name: String,
    password: String,
    rules: String,
}

impl RedisSettings {
    /// Clients have to know a password (`requirepass`).
    #[must_use]
    pub fn password(mut self, password: impl Into<String>) -> RedisSettings {
        self.password = Some(password.into());
        self
    }

    /// Adds a user with rules such as `~tlsresume:* +get +set`. Nobody gets in without a name then,
    /// unless there is a password too. The URL has the name that was added first.
    #[must_use]
    pub fn user(mut self, name: &str, password: &str, rules: &str) -> RedisSettings {
        let (name, password, rules) = (name.into(), password.into(), rules.into());
        self.users.push(User { name, password, rules });
        self
    }

    /// The port speaks TLS and asks clients for a certificate; so do other servers that it talks to.
    #[must_use]
    pub fn tls(mut self, certificates: &Mutual) -> RedisSettings {
        self.tls = Some(certificates.clone());
        self
    }

    /// Listens on no port, only on its Unix socket (which is there in any case).
    #[must_use]
    pub fn unix_socket(mut self) -> RedisSettings {
        self.unix_only = true;
        self
    }

    /// Limits its memory to, for example, `2mb`, and says what happens then, such as `noeviction`.
    #[must_use]
    pub fn max_memory(self, size: &str, policy: &str) -> RedisSettings {
        self.config(format!("maxmemory {size}")).config(format!("maxmemory-policy {policy}"))
    }

    /// Writes every command to the file that [`RedisServer::append_only_file`] reads.
    #[must_use]
    pub fn append_only(self) -> RedisSettings {
        self.config("appendonly yes")
    }

    /// Adds a line to its configuration.
    #[must_use]
    pub fn config(mut self, line: impl Into<String>) -> RedisSettings {
        self.lines.push(line.into());
        self
    }

    /// Starts it and waits until it answers.
    pub fn start(self) -> Result<RedisServer> {
        RedisServer::with(self)
    }

    /// Runs as a sentinel.
    pub(super) fn sentinel(mut self) -> RedisSettings {
        self.args.push("--sentinel");
        self
    }

    pub(super) fn is_append_only(&self) -> bool {
        self.lines.iter().any(|line| line == "appendonly yes")
    }

    pub(super) fn spawn(&self, folder: &Folder, port: &ReservedPort) -> Result<Process> {
        let config = folder.file("redis.conf");
        fs::write(&config, self.config_text(folder, port)).doing("writing redis.conf")?;
        if !self.users.is_empty() {
            fs::write(folder.file(ACL_FILE), self.acl_text()).doing("writing an ACL file")?;
        }
        let mut command = Command::new("redis-server");
        command.arg(config).args(&self.args).current_dir(folder.path());
        Process::start(command, "redis-server")
    }

    fn config_text(&self, folder: &Folder, port: &ReservedPort) -> String {
        let mut text = COMMON.to_owned();
        let mut line = |name: &str, value: &dyn std::fmt::Display| {
            writeln!(text, "{name} {value}").expect("a string takes everything");
        };
        line("dir", &folder.path().display());
        line("unixsocket", &socket(folder).display());
        let (plain, tls) = match (self.unix_only, &self.tls) {
            (true, _) => (0, 0),
            (false, None) => (port.number(), 0),
            (false, Some(_)) => (0, port.number()),
        };
        line("port", &plain);
        line("tls-port", &tls);
        if let Some(files) = &self.tls {
            line("tls-cert-file", &files.server.certificate.display());
            line("tls-key-file", &files.server.key.display());
            line("tls-ca-cert-file", &files.authority.display());
            line("tls-auth-clients", &"yes");
            line("tls-client-cert-file", &files.client.certificate.display());
            line("tls-client-key-file", &files.client.key.display());
            line("tls-cluster", &"yes");
            line("tls-replication", &"yes");
        }
        match &self.password {
            Some(password) if self.users.is_empty() => line("requirepass", password),
            _ => {}
        }
        if !self.users.is_empty() {
            line("aclfile", &folder.file(ACL_FILE).display());
        }
        text + &self.lines.join("\n") + "\n"
    }

    fn acl_text(&self) -> String {
        let default = match &self.password {
            Some(password) => format!("user default on >{password} ~* &* +@all\n"),
            None => "user default off\n".into(),
        };
        let control = format!("user {CONTROL} on >{CONTROL} ~* &* +@all\n");
        let users = self.users.iter().map(|User { name, password, rules }| {
            // Channels are refused by default.
            format!("user {name} on >{password} {rules}\n")
        });
        default + &control + &users.collect::<String>()
    }

    /// The URL of the port, or of the socket if there is no port.
    pub(super) fn url(&self, folder: &Folder, port: &ReservedPort) -> String {
        if self.unix_only {
            return self.socket_url(folder);
        }
        let scheme = if self.tls.is_some() { "rediss" } else { "redis" };
        let credentials = match self.credentials() {
            Some((name, password)) => format!("{}:{password}@", name.unwrap_or_default()),
            None => String::new(),
        };
        format!("{scheme}://{credentials}{}", port.address())
    }

    pub(super) fn socket_url(&self, folder: &Folder) -> String {
        let query = match self.credentials() {
            Some((Some(name), password)) => format!("?user={name}&pass={password}"),
            Some((None, password)) => format!("?pass={password}"),
            None => String::new(),
        };
        format!("redis+unix://{}{query}", socket(folder).display())
    }

    fn credentials(&self) -> Option<(Option<&str>, &str)> {
        let user = self.users.first().map(|user| (Some(user.name.as_str()), &*user.password));
        user.or_else(|| Some((None, self.password.as_deref()?)))
    }

    /// A connection for the test's own questions, which may do everything.
    pub(super) fn control(&self, folder: &Folder) -> Result<RespClient> {
        let mut client = RespClient::connect_unix(&socket(folder), DEADLINE)?;
        let mut hello = vec!["HELLO", "2"];
        match &self.password {
            _ if !self.users.is_empty() => hello.extend(["AUTH", CONTROL, CONTROL]),
            Some(password) => hello.extend(["AUTH", "default", password]),
            None => {}
        }
        hello.extend(["SETNAME", CONTROL]);
        client.ask(&hello)?;
        Ok(client)
    }
}

const ACL_FILE: &str = "users.acl";

/// Its Unix socket.
pub(super) fn socket(folder: &Folder) -> PathBuf {
    folder.file("redis.sock")
}
