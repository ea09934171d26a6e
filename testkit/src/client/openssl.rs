//! `openssl s_client`, one process for each connection; the session is kept in a file.

use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use super::{Answer, Client, Connection, Mode, Visitor};
use crate::error::Doing;
use crate::process::Transcript;
use crate::{DEADLINE, Folder, Process, Result};

/// The client; more options can be added to each of its connections.
#[derive(Debug, Clone, Default)]
pub struct OpenSsl {
    args: Vec<OsString>,
    envs: Vec<(OsString, OsString)>,
}

/// An [`OpenSsl`] that was at a server.
#[derive(Debug)]
pub struct OpenSslVisitor {
    client: OpenSsl,
    mode: Mode,
    first: Connection,
    // Holds the session.
    folder: Folder,
}

impl OpenSsl {
    /// One without further options.
    pub fn new() -> OpenSsl {
        OpenSsl::default()
    }

    /// Adds options of `s_client`, such as `-servername` or `-cert`.
    #[must_use]
    pub fn args(mut self, args: impl IntoIterator<Item: Into<OsString>>) -> OpenSsl {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets a variable of the client.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> OpenSsl {
        self.envs.push((name.into(), value.into()));
        self
    }

    /// Connects for the first time and keeps the session.
    pub fn first_visit(&self, at: SocketAddr, mode: Mode) -> Result<OpenSslVisitor> {
        let folder = Folder::new()?;
        let first = self.connect(at, mode, "-sess_out", &folder.file(SESSION))?;
        Ok(OpenSslVisitor { client: self.clone(), mode, first, folder })
    }

    /// Requests `path` and returns the whole response, for instance of `/stats`.
    pub fn get(&self, at: SocketAddr, path: &str) -> Result<String> {
        let transcript = self.run(at, &["-quiet"], &format!("GET {path} HTTP/1.0\r\n\r\n"))?;
        Ok(transcript.stdout().collect::<Vec<_>>().join("\n"))
    }

    /// The name, in hexadecimal, of the key that a server encrypts its TLS 1.2 tickets with.
    /// It is in the clear at the start of each ticket. `None`: the server sent no ticket.
    pub fn ticket_key_name(&self, at: SocketAddr) -> Result<Option<String>> {
        let transcript = self.run(at, &["-tls1_2"], REQUEST)?;
        Ok(key_name(&transcript))
    }

    /// The secrets of a visit: of its traffic, from OpenSSL's key log, and of the sessions that it
    /// brought, master secrets in TLS 1.2 and pre-shared keys in TLS 1.3.
    pub fn secrets(&self, at: SocketAddr, mode: Mode) -> Result<Vec<Vec<u8>>> {
        let folder = Folder::new()?;
        let file = folder.file("keys.log");
        let path = file.to_string_lossy();
        let mut args = vec!["-keylogfile", &path];
        args.extend(mode_options(mode));
        let transcript = self.run(at, &args, REQUEST)?;

        let log = fs::read_to_string(&file).doing("reading a key log")?;
        let logged = log.lines().filter_map(|line| line.rsplit_once(' ')?.1.into());
        let printed = transcript.stdout().filter_map(|line| {
            let (name, value) = line.trim().split_once(": ")?;
            ["Master-Key", "Resumption PSK"].contains(&name).then_some(value)
        });
        Ok(logged.chain(printed).filter_map(from_hex).collect())
    }

    fn connect(
        &self,
        at: SocketAddr,
        mode: Mode,
        session_option: &str,
        session_file: &Path,
    ) -> Result<Connection> {
        let file = session_file.to_string_lossy();
        let mut args = vec![session_option, &file];
        args.extend(mode_options(mode));
        let transcript = self.run(at, &args, REQUEST)?;
        Ok(Connection {
            reused: transcript.stdout().any(|line| line.starts_with("Reused, ")),
            answer: Answer::find_in(&transcript),
        })
    }

    fn run(&self, at: SocketAddr, args: &[&str], request: &str) -> Result<Transcript> {
        let mut command = Command::new("openssl");
        command.args(["s_client", "-ign_eof", "-connect", &at.to_string()]);
        command.args(args).args(&self.args);
        command.envs(self.envs.iter().map(|(name, value)| (name, value)));

        let mut process = Process::start(command, "openssl")?;
        process.write(request)?;
        process.close_input();
        if !process.wait_end(DEADLINE)?.success() {
            return Err(process.unexpected(format!("cannot talk to {at}")));
        }
        Ok(process.transcript())
    }
}

impl Client for OpenSsl {
    fn name(&self) -> &'static str {
        "openssl"
    }

    fn visit(&self, at: SocketAddr, mode: Mode) -> Result<Box<dyn Visitor>> {
        Ok(Box::new(self.first_visit(at, mode)?))
    }
}

impl OpenSslVisitor {
    /// Comes back with this session as another client, for instance one that asks for another
    /// server name; as often as one likes.
    pub fn come_back_as(&self, client: &OpenSsl, to: SocketAddr) -> Result<Connection> {
        let session = self.folder.file(SESSION);
        // The program writes no file when the server gave no session: there is nothing to offer.
        let option = if session.exists() { "-sess_in" } else { "-sess_out" };
        client.connect(to, self.mode, option, &session)
    }
}

impl Visitor for OpenSslVisitor {
    fn first(&self) -> &Connection {
        &self.first
    }

    fn come_back(self: Box<Self>, to: SocketAddr) -> Result<Connection> {
        self.come_back_as(&self.client, to)
    }
}

const SESSION: &str = "session.pem";
const REQUEST: &str = "GET / HTTP/1.0\r\n\r\n";

fn mode_options(mode: Mode) -> &'static [&'static str] {
    match mode {
        Mode::Tls12Id => &["-tls1_2", "-no_ticket"],
        Mode::Tls12Ticket => &["-tls1_2"],
        Mode::Tls13 => &["-tls1_3"],
    }
}

/// The first line of the dump below `TLS session ticket:`, "0000 - 0a 1b … 78-89 … ff   text".
fn key_name(transcript: &Transcript) -> Option<String> {
    let mut lines = transcript.stdout().map(str::trim);
    lines.find(|line| *line == "TLS session ticket:")?;
    let (_, dump) = lines.next()?.split_once("- ")?;
    Some(dump.get(..16 * 3 - 1)?.replace([' ', '-'], ""))
}

/// Nothing for what is no number of whole bytes.
fn from_hex(text: &str) -> Option<Vec<u8>> {
    let byte = |at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
    (!text.is_empty()).then(|| (0..text.len()).step_by(2).map(byte).collect())?
}
