//! How an installed server is started.

use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::certs::{self, Certificate, Files};
use super::processes::{self, Guard};
use super::{Backend, Installed, Program};
use crate::error::Doing;
use crate::{DEADLINE, Folder, Process, Result, net};

/// How to start an [`Installed`]. In configuration that is added, `@name@` stands for `address`,
/// `host`, `port`, `folder`, `certificate`, `key`, `pem` (both in one file), `workers` and, where
/// there is one, `backend_host` and `backend_port`.
#[derive(Debug, Clone)]
pub struct Settings {
    pub(super) program: Program,
    /// Nothing listens there before [`start`](Settings::start).
    pub(super) address: SocketAddr,
    is_address_chosen: bool,
    workers: u32,
    envs: Vec<(OsString, OsString)>,
    certificate: Option<Certificate>,
    files: Vec<(String, String)>,
    config: Option<String>,
    top: String,
    http: String,
    server: String,
}

impl Settings {
    pub(super) fn new(program: Program) -> Settings {
        Settings {
            program,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            is_address_chosen: false,
            workers: 2,
            envs: Vec::new(),
            certificate: None,
            files: Vec::new(),
            config: None,
            top: String::new(),
            http: String::new(),
            server: String::new(),
        }
    }

    /// Where to listen; else it is a free port of a loopback address.
    #[must_use]
    pub fn at(mut self, address: SocketAddr) -> Settings {
        (self.address, self.is_address_chosen) = (address, true);
        self
    }

    /// How many workers, or threads where workers are threads; two if not set.
    #[must_use]
    pub fn workers(mut self, number: u32) -> Settings {
        self.workers = number;
        self
    }

    /// Sets a variable. Of the caller's `TLSRESUME_*` variables the server sees none.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Settings {
        self.envs.push((name.into(), value.into()));
        self
    }

    /// Has the loader load this library first, for this server alone.
    #[must_use]
    pub fn preload(self, library: impl AsRef<Path>) -> Settings {
        let library = library.as_ref().as_os_str().to_owned();
        self.env("LD_PRELOAD", library)
    }

    /// Its certificate; [`certs::localhost`] if not set.
    #[must_use]
    pub fn certificate(mut self, certificate: Certificate) -> Settings {
        self.certificate = Some(certificate);
        self
    }

    /// Puts a file into its folder: `@folder@/NAME`.
    #[must_use]
    pub fn file(mut self, name: impl Into<String>, text: impl Into<String>) -> Settings {
        self.files.push((name.into(), text.into()));
        self
    }

    /// Adds configuration that concerns the whole program: nginx's main context, HAProxy's global
    /// section, stunnel's global options; the only kind that Hitch, lighttpd and PostgreSQL have.
    #[must_use]
    pub fn top(mut self, lines: &str) -> Settings {
        add(&mut self.top, lines);
        self
    }

    /// Adds configuration that stands beside that of the server: nginx's http context, with whole
    /// server blocks; further sections of HAProxy and stunnel; further virtual hosts of Apache.
    #[must_use]
    pub fn http(mut self, lines: &str) -> Settings {
        add(&mut self.http, lines);
        self
    }

    /// Adds configuration of the server itself: nginx's server block, Apache's virtual host,
    /// HAProxy's frontend, stunnel's service, H2O's `ssl`.
    #[must_use]
    pub fn server(mut self, lines: &str) -> Settings {
        add(&mut self.server, lines);
        self
    }

    /// Takes this configuration in place of the one of `testkit/servers`.
    #[must_use]
    pub fn config(mut self, text: impl Into<String>) -> Settings {
        self.config = Some(text.into());
        self
    }

    /// Starts the server and waits until it accepts connections.
    pub fn start(mut self) -> Result<Installed> {
        if !self.is_address_chosen {
            [self.address, _] = net::one_port_of_two_addresses()?;
        }
        let backend = self.program.recipe().needs_backend.then(Backend::start).transpose()?;
        let folder = Folder::new()?;
        self.prepare(&folder, backend.as_ref())?;
        let (process, guard) = self.spawn(&folder)?;
        let server = Installed { settings: self, process, guard, backend, folder };
        server.await_ready()?;
        Ok(server)
    }

    /// Starts the program in a folder that is prepared.
    pub(super) fn spawn(&self, folder: &Folder) -> Result<(Process, Guard)> {
        let mut command = self.command(folder)?;
        // lighttpd, for one, sends its whole process group the signal that ends it.
        command.process_group(0);
        let process = Process::start(command, self.program.recipe().package)?;
        let guard = Guard::over(process.pid())?;
        Ok((process, guard))
    }

    /// The program with its arguments, in a folder that is prepared.
    pub(super) fn command(&self, folder: &Folder) -> Result<Command> {
        let recipe = self.program.recipe();
        let mut command = Command::new(recipe.find()?);
        let values = self.values(folder, &files_of(folder), None);
        command.args(recipe.args.iter().map(|arg| fill(arg, &values)));
        command.current_dir(folder.path());
        if let Some((uid, gid)) = self.program.other_user()? {
            command.uid(uid).gid(gid);
        }
        for (name, _) in std::env::vars_os() {
            if name == "LD_PRELOAD" || name.to_string_lossy().starts_with("TLSRESUME_") {
                command.env_remove(name);
            }
        }
        command.envs(self.envs.iter().map(|(name, value)| (name, value)));
        Ok(command)
    }

    /// Writes what the program reads.
    fn prepare(&self, folder: &Folder, backend: Option<&Backend>) -> Result<()> {
        // Missing programs are told before anything else fails for want of them.
        self.program.recipe().find()?;
        let certificate = self.certificate.clone().map_or_else(certs::localhost, Ok)?;
        let files = certificate.write_to(folder, CERTIFICATE)?;
        let values = self.values(folder, &files, backend);
        for (name, text) in &self.files {
            fs::write(folder.file(name), fill(text, &values)).doing("writing a file")?;
        }
        let template = self.config.as_deref().unwrap_or(self.program.recipe().config);
        // Twice: what fills a placeholder may hold some.
        let config = fill(&fill(template, &values), &values);
        fs::write(folder.file(CONFIG), config).doing("writing a configuration")?;
        self.program.give(folder)?;
        if self.program == Program::Postgres {
            self.make_cluster(folder)?;
        }
        Ok(())
    }

    fn make_cluster(&self, folder: &Folder) -> Result<()> {
        let recipe = self.program.recipe();
        let mut command = Command::new(recipe.find_beside("initdb")?);
        command.args(["-A", "trust", "-U", "postgres", "-N", "--no-instructions", "-E", "UTF8"]);
        command.args(["--locale", "C", "-D"]).arg(folder.file("data"));
        command.current_dir(folder.path());
        if let Some((uid, gid)) = self.program.other_user()? {
            command.uid(uid).gid(gid);
        }
        let mut process = Process::start(command, recipe.package)?;
        if process.wait_end(DEADLINE)?.success() {
            Ok(())
        } else {
            Err(process.unexpected("makes no cluster"))
        }
    }

    /// What the placeholders stand for.
    fn values(
        &self,
        folder: &Folder,
        files: &Files,
        backend: Option<&Backend>,
    ) -> Vec<(&'static str, String)> {
        let text = |path: &PathBuf| path.display().to_string();
        let user = if processes::is_root() { self.program.recipe().user } else { "" };
        let mut values = vec![
            ("top", self.top.clone()),
            ("http", self.http.clone()),
            ("server", self.server.clone()),
            ("address", self.address.to_string()),
            ("host", self.address.ip().to_string()),
            ("port", self.address.port().to_string()),
            ("folder", folder.path().display().to_string()),
            ("config", text(&folder.file(CONFIG))),
            ("certificate", text(&files.certificate)),
            ("key", text(&files.key)),
            ("pem", text(&files.pem)),
            ("workers", self.workers.to_string()),
            // Apache's threads, of which each worker has four.
            ("threads", (self.workers * 4).to_string()),
            ("user", user.to_owned()),
        ];
        if let Some(backend) = backend {
            values.push(("backend_host", backend.address().ip().to_string()));
            values.push(("backend_port", backend.address().port().to_string()));
        }
        values
    }
}

const CERTIFICATE: &str = "server";
const CONFIG: &str = "server.conf";

/// Where [`Settings::prepare`] put the certificate.
fn files_of(folder: &Folder) -> Files {
    let file = |ending: &str| folder.file(format!("{CERTIFICATE}.{ending}"));
    Files { certificate: file("crt"), key: file("key"), pem: file("pem") }
}

fn add(text: &mut String, lines: &str) {
    if !text.is_empty() {
        text.push('\n');
    }
    text.push_str(lines);
}

fn fill(text: &str, values: &[(&'static str, String)]) -> String {
    let put =
        |text: String, (name, value): &(&str, String)| text.replace(&format!("@{name}@"), value);
    values.iter().fold(text.to_owned(), put)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_filled_and_others_stay() {
        let values = [("host", "127.0.0.1".to_owned()), ("port", "4433".to_owned())];
        assert_eq!(fill("@host@:@port@ a@b @no@", &values), "127.0.0.1:4433 a@b @no@");
    }
}
