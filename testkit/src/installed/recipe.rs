//! How each program is started, told to reload and ended. In all texts `@name@` is a placeholder
//! that [`Settings`](super::Settings) fills.

use std::path::{Path, PathBuf};
use std::{env, fs};

use libc::c_int;

use super::Program;
use crate::{Error, Result};

/// Everything that differs from program to program.
#[derive(Debug)]
pub(super) struct Recipe {
    /// Its name, and the name of its executable.
    pub(super) name: &'static str,
    pub(super) executable: &'static str,
    /// The Debian package that has it.
    pub(super) package: &'static str,
    /// The configuration that it is started with.
    pub(super) config: &'static str,
    pub(super) args: &'static [&'static str],
    pub(super) reload: Reload,
    /// The signal that ends it without waiting for clients.
    pub(super) stop: c_int,
    /// What gives up root, if root has to say what becomes of the workers.
    pub(super) user: &'static str,
    pub(super) workers: Workers,
    /// Needs a server without TLS behind it.
    pub(super) needs_backend: bool,
    /// What clients speak once the TLS handshake is over.
    pub(super) speaks: Speaks,
}

/// What a program does to read its configuration anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reload {
    /// On this signal it replaces its workers.
    Workers(c_int),
    /// On this signal the process reads it and logs this text.
    Logged(c_int, &'static str),
    /// It cannot.
    No,
}

/// Which of its processes serve clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workers {
    /// One process, perhaps with threads.
    None,
    /// Several, and whichever is free takes the next connection.
    Share,
    /// One for each connection.
    Each,
    /// Several, and the kernel deals connections out to their listeners.
    Listen,
}

/// What is inside TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    /// HTTP/1.1.
    Http,
    /// PostgreSQL's protocol, which asks for TLS first.
    Postgres,
}

const TEMPLATE: Recipe = Recipe {
    name: "",
    executable: "",
    package: "",
    config: "",
    args: &[],
    reload: Reload::No,
    stop: libc::SIGTERM,
    user: "",
    workers: Workers::Share,
    needs_backend: false,
    speaks: Speaks::Http,
};

const NGINX: Recipe = Recipe {
    name: "nginx",
    executable: "nginx",
    package: "nginx",
    config: include_str!("../../servers/nginx.conf"),
    args: &["-e", "stderr", "-p", "@folder@", "-c", "@config@"],
    reload: Reload::Workers(libc::SIGHUP),
    user: "user root;",
    ..TEMPLATE
};

const HITCH: Recipe = Recipe {
    name: "Hitch",
    executable: "hitch",
    package: "hitch",
    config: include_str!("../../servers/hitch.conf"),
    args: &["--config=@config@"],
    reload: Reload::Workers(libc::SIGHUP),
    user: "user = \"_hitch\"\ngroup = \"_hitch\"",
    workers: Workers::Listen,
    needs_backend: true,
    ..TEMPLATE
};

const HAPROXY: Recipe = Recipe {
    name: "HAProxy",
    executable: "haproxy",
    package: "haproxy",
    config: include_str!("../../servers/haproxy.cfg"),
    args: &["-W", "-db", "-f", "@config@"],
    reload: Reload::Workers(libc::SIGUSR2),
    needs_backend: true,
    workers: Workers::None,
    ..TEMPLATE
};

const APACHE: Recipe = Recipe {
    name: "Apache",
    executable: "apache2",
    package: "apache2",
    config: include_str!("../../servers/apache.conf"),
    args: &["-d", "@folder@", "-f", "@config@", "-DFOREGROUND"],
    reload: Reload::Workers(libc::SIGUSR1),
    user: "User www-data\nGroup www-data",
    ..TEMPLATE
};

const STUNNEL: Recipe = Recipe {
    name: "stunnel",
    executable: "stunnel4",
    package: "stunnel4",
    config: include_str!("../../servers/stunnel.conf"),
    args: &["@config@"],
    reload: Reload::Logged(libc::SIGHUP, "Configuration successful"),
    needs_backend: true,
    workers: Workers::None,
    ..TEMPLATE
};

const LIGHTTPD: Recipe = Recipe {
    name: "lighttpd",
    executable: "lighttpd",
    package: "lighttpd and lighttpd-mod-openssl",
    config: include_str!("../../servers/lighttpd.conf"),
    args: &["-D", "-f", "@config@"],
    reload: Reload::Workers(libc::SIGUSR1),
    ..TEMPLATE
};

const H2O: Recipe = Recipe {
    name: "H2O",
    executable: "h2o",
    package: "h2o",
    config: include_str!("../../servers/h2o.yaml"),
    args: &["-m", "master", "-c", "@config@"],
    reload: Reload::Workers(libc::SIGHUP),
    user: "user: root",
    workers: Workers::None,
    ..TEMPLATE
};

const POSTGRES: Recipe = Recipe {
    name: "PostgreSQL",
    executable: "postgres",
    package: "postgresql",
    config: include_str!("../../servers/postgresql.conf"),
    args: &["-D", "@folder@/data", "-c", "config_file=@config@"],
    reload: Reload::Logged(libc::SIGHUP, "received SIGHUP, reloading configuration files"),
    stop: libc::SIGINT,
    workers: Workers::Each,
    speaks: Speaks::Postgres,
    ..TEMPLATE
};

const PYTHON: Recipe = Recipe {
    name: "Python",
    executable: "python3",
    package: "python3",
    config: include_str!("../../servers/python_server.py"),
    args: &["-I", "@config@", "@host@", "@port@", "@certificate@", "@key@", "@workers@"],
    ..TEMPLATE
};

impl Program {
    pub(super) fn recipe(self) -> &'static Recipe {
        match self {
            Program::Nginx => &NGINX,
            Program::Hitch => &HITCH,
            Program::Haproxy => &HAPROXY,
            Program::Apache => &APACHE,
            Program::Stunnel => &STUNNEL,
            Program::Lighttpd => &LIGHTTPD,
            Program::H2o => &H2O,
            Program::Postgres => &POSTGRES,
            Program::Python => &PYTHON,
        }
    }
}

impl Recipe {
    /// Its executable, also where an ordinary user's `PATH` does not lead.
    pub(super) fn find(&self) -> Result<PathBuf> {
        self.find_beside(self.executable)
    }

    /// Another executable of its package.
    pub(super) fn find_beside(&self, executable: &str) -> Result<PathBuf> {
        let path = env::var_os("PATH").unwrap_or_default();
        let folders = env::split_paths(&path)
            .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
            .chain(newest_postgres());
        folders.map(|folder| folder.join(executable)).find(|path| path.is_file()).ok_or_else(|| {
            Error::MissingProgram { program: executable.into(), package: self.package }
        })
    }
}

/// Debian keeps the programs of each version apart.
fn newest_postgres() -> Option<PathBuf> {
    let versions = fs::read_dir(Path::new("/usr/lib/postgresql")).ok()?;
    let number = |path: &PathBuf| path.file_name()?.to_str()?.parse::<u32>().ok();
    let newest = versions.filter_map(|it| Some(it.ok()?.path())).max_by_key(number)?;
    Some(newest.join("bin"))
}
