//! The table of `docs/servers.md`: which sessions an installed server resumes, where.

use std::env;
use std::fmt;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::{Installed, Program, Session, Visit, Visits, Workers};
use crate::error::Doing;
use crate::{Mode, Result, net};

/// Set to 1, it has [`Row::check`] write the document instead of comparing it.
pub const UPDATE_VARIABLE: &str = "TLSRESUME_UPDATE_DOCS";

/// How many clients return in a cell, for each kind of session.
pub const VISITS: usize = 6;

/// How often a client tries to reach another worker. With two of them, chance fails it once in
/// 2^64 times.
const RETURNS: usize = 64;

const START: &str = "<!-- table: made by make servers-table -->\n";
const END: &str = "<!-- end -->";
const HEAD: &str = "\
| server | libtlsresume | another worker | another instance | after a reload | after a restart of both |
|---|---|---|---|---|---|
";

/// One server, with or without the library.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    program: Program,
    library: &'static str,
    /// Another process of the same server.
    pub other_worker: Cell,
    /// Another server with the same certificate and the same port.
    pub other_instance: Cell,
    /// The same server, after it has read its configuration anew.
    pub after_reload: Cell,
    /// The same server, after both servers had ended.
    pub after_restart: Cell,
}

/// What came of the returns to one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cell {
    /// How many clients resumed, of each kind of session, of [`VISITS`].
    Resumed(Vec<(Mode, usize)>),
    /// There is no such place.
    NoSuch(&'static str),
}

impl Cell {
    /// Whether every client resumed, where there is such a place.
    pub fn is_all(&self) -> bool {
        match self {
            Cell::Resumed(counts) => counts.iter().all(|(_, count)| *count == VISITS),
            Cell::NoSuch(_) => true,
        }
    }

    /// Whether no client resumed.
    pub fn is_none(&self) -> bool {
        match self {
            Cell::Resumed(counts) => counts.iter().all(|(_, count)| *count == 0),
            Cell::NoSuch(_) => true,
        }
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cell::NoSuch(reason) => f.write_str(reason),
            _ if self.is_all() => f.write_str("all"),
            _ if self.is_none() => f.write_str("none"),
            Cell::Resumed(counts) => {
                let kinds = counts.iter().filter(|(_, count)| *count > 0);
                let text = kinds.map(|(mode, count)| match count {
                    &VISITS => mode.to_string(),
                    _ => format!("{mode} ({count} of {VISITS})"),
                });
                f.write_str(&text.collect::<Vec<_>>().join(", "))
            }
        }
    }
}

impl Row {
    /// Starts two instances with `start` and sends clients to all places. `library` is what the
    /// table says about how they were started.
    pub fn measure(
        program: Program,
        library: &'static str,
        start: impl Fn(SocketAddr) -> Result<Installed>,
    ) -> Result<Row> {
        let [one, other] = net::one_port_of_two_addresses()?;
        let (mut one, mut other) = (start(one)?, start(other)?);
        let mut clients = Visits::start()?;
        // Contexts without a certificate of their own (lighttpd's) have rules: there, the first visit to an address
        // makes its name known to the node.
        for server in [&one, &other] {
            clients.visit(server, Mode::Tls12Id, None)?;
        }

        let other_worker = other_worker(&mut clients, &one)?;
        let homes = first_visits(&mut clients, &one)?;
        let other_instance = returns(&mut clients, &other, &homes)?;

        let after_reload = if one.can_reload() {
            let homes = first_visits(&mut clients, &one)?;
            one.reload()?;
            returns(&mut clients, &one, &homes)?
        } else {
            Cell::NoSuch("cannot reload")
        };

        let homes = first_visits(&mut clients, &one)?;
        // Both are gone before the first of them starts again: nothing lives on in a process.
        one.stop()?;
        other.stop()?;
        one.start_again()?;
        other.start_again()?;
        let after_restart = returns(&mut clients, &one, &homes)?;
        Ok(Row { program, library, other_worker, other_instance, after_reload, after_restart })
    }

    /// Compares the row with the one in `docs/servers.md`, or writes it there.
    ///
    /// # Panics
    /// When they differ.
    pub fn check(&self) -> Result<()> {
        // Tests of one program write one after the other.
        static DOCUMENT: Mutex<()> = Mutex::new(());
        let _alone = DOCUMENT.lock().unwrap_or_else(PoisonError::into_inner);

        let path = document();
        let text = fs::read_to_string(&path).doing("reading docs/servers.md")?;
        let (before, rest) = text.split_once(START).unwrap_or_else(|| panic!("no line {START}"));
        let (table, after) = rest.split_once(END).unwrap_or_else(|| panic!("no line {END}"));
        let row = self.to_string();
        if env::var_os(UPDATE_VARIABLE).is_none_or(|value| value != "1") {
            let documented = table.lines().find(|line| line.starts_with(&self.start()));
            let remedy = "docs/servers.md (left) is not what happened (right): make servers-table";
            assert_eq!(documented, Some(row.as_str()), "{remedy}");
            return Ok(());
        }

        let mut rows: Vec<&str> = table.lines().skip(2).collect();
        rows.retain(|line| !line.starts_with(&self.start()));
        rows.push(&row);
        rows.sort_by_key(|line| (Program::ALL.iter().position(|it| is_of(line, *it)), *line));
        let text = format!("{before}{START}{HEAD}{}\n{END}{after}", rows.join("\n"));
        fs::write(&path, text).doing("writing docs/servers.md")
    }

    /// What no other row starts with.
    fn start(&self) -> String {
        format!("| {} | {} |", self.program, self.library)
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cells = [&self.other_worker, &self.other_instance];
        write!(f, "{}", self.start())?;
        cells.iter().try_for_each(|cell| write!(f, " {cell} |"))?;
        write!(f, " {} | {} |", self.after_reload, self.after_restart)
    }
}

/// Clients that hold a session of each kind.
type Homes = Vec<(Mode, Vec<Option<Session>>)>;

fn first_visits(clients: &mut Visits, at: &Installed) -> Result<Homes> {
    let of_mode = |mode| {
        let visits = (0..VISITS).map(|_| {
            let visit = clients.visit(at, mode, None)?;
            assert!(!visit.reused, "a first visit cannot be a return");
            Ok(visit.session)
        });
        Ok((mode, visits.collect::<Result<_>>()?))
    };
    Mode::ALL.into_iter().map(of_mode).collect()
}

fn returns(clients: &mut Visits, to: &Installed, homes: &Homes) -> Result<Cell> {
    let of_mode = |(mode, sessions): &(Mode, Vec<Option<Session>>)| {
        let mut count = 0;
        for session in sessions {
            count += usize::from(clients.visit(to, *mode, *session)?.reused);
        }
        Ok((*mode, count))
    };
    Ok(Cell::Resumed(homes.iter().map(of_mode).collect::<Result<_>>()?))
}

fn other_worker(clients: &mut Visits, server: &Installed) -> Result<Cell> {
    if server.program().workers() == Workers::None {
        return Ok(Cell::NoSuch("one process"));
    }
    let mut counts = Vec::new();
    for mode in Mode::ALL {
        let mut count = 0;
        for _ in 0..VISITS {
            count += usize::from(return_to_other_worker(clients, server, mode)?.reused);
        }
        counts.push((mode, count));
    }
    Ok(Cell::Resumed(counts))
}

/// A client returns until it is at another worker than at first.
fn return_to_other_worker(clients: &mut Visits, server: &Installed, mode: Mode) -> Result<Visit> {
    let first = clients.visit(server, mode, None)?;
    // A worker that does not run takes no connection from the others, unless the kernel deals it one.
    let is_shared = server.program().workers() == Workers::Share;
    let _paused = is_shared.then(|| server.pause(first.worker)).transpose()?;
    for _ in 0..RETURNS {
        let back = clients.visit(server, mode, first.session)?;
        if back.worker != first.worker {
            return Ok(back);
        }
    }
    Err(server.unexpected(format!("{RETURNS} visits in a row by one worker")))
}

fn is_of(line: &str, program: Program) -> bool {
    line.starts_with(&format!("| {program} |"))
}

fn document() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/servers.md")
}
