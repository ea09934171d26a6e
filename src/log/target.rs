//! Where lines go: standard error, the system's log, or a file.
//!
//! Nothing stays open between two lines: servers close descriptors that they do not know, and log files are rotated.

use std::fmt::{self, Write as _};
use std::fs::OpenOptions;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process;
use std::time::{Duration, UNIX_EPOCH};

use log::Level;

use crate::clock::{self, UnixMillis};
use crate::sys;

/// Where the library's lines go, unless the application has a log callback.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Target {
    /// Standard error, unless that is a client's connection.
    #[default]
    Stderr,
    /// syslog(3), as a daemon. Where the system has no log, standard error.
    Syslog,
    /// Appended to this file. Where that is not possible, standard error.
    File(PathBuf),
}

/// The socket of syslog.
const SYSLOG: &str = "/dev/log";

/// `LOG_DAEMON` of syslog(3).
const DAEMON: u8 = 3 << 3;

/// Who may read a file that is made: the server's user and group.
const MODE: u32 = 0o640;

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Stderr => f.write_str("stderr"),
            Target::Syslog => f.write_str("syslog"),
            Target::File(path) => path.display().fmt(f),
        }
    }
}

impl Target {
    pub(super) fn write(&self, level: Level, line: &str) {
        let written = match self {
            Target::Stderr => Err(io::ErrorKind::Unsupported.into()),
            Target::Syslog => send(Path::new(SYSLOG), level, line),
            Target::File(path) => append(path, level, line),
        };
        if written.is_err() {
            sys::write_stderr(format!("tlsresume: {}: {line}\n", Name(level)).as_bytes());
        }
    }
}

fn send(socket_path: &Path, level: Level, line: &str) -> io::Result<()> {
    let severity = match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    let (priority, id) = (DAEMON | severity, process::id());
    let message = format!("<{priority}>tlsresume[{id}]: {}: {line}", Name(level));
    socket.send_to(message.as_bytes(), socket_path).map(drop)
}

fn append(path: &Path, level: Level, line: &str) -> io::Result<()> {
    // A pipe that nobody reads must not make us wait, nor a terminal become the process's.
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(MODE)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)?;
    let (time, id) = (time(clock::now()), process::id());
    let line = format!("{time} tlsresume[{id}]: {}: {line}\n", Name(level));
    sys::write_quietly(file.as_raw_fd(), line.as_bytes());
    Ok(())
}

/// A time as RFC 3339 has it.
pub(super) fn time(at: UnixMillis) -> String {
    let time = UNIX_EPOCH.checked_add(Duration::from_millis(at.0)).unwrap_or(UNIX_EPOCH);
    let mut text = String::new();
    // Fails for years of five digits.
    let _ = write!(text, "{}", humantime::format_rfc3339_seconds(time));
    text
}

/// A level as users write it.
struct Name(Level);

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.as_str().to_lowercase())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_line_in_a_file_has_its_time_process_and_level() {
        let folder = tempfile::tempdir().expect("it works");
        let path = folder.path().join("log");
        let target = Target::File(path.clone());
        target.write(Level::Warn, "one");
        target.write(Level::Error, "two");
        let text = fs::read_to_string(&path).expect("it works");
        let id = process::id();
        let lines: Vec<_> =
            text.lines().map(|line| line.split_once(' ').expect("it works")).collect();
        assert_eq!(lines[0].1, format!("tlsresume[{id}]: warn: one"));
        assert_eq!(lines[1].1, format!("tlsresume[{id}]: error: two"));
        assert!(humantime::parse_rfc3339(lines[0].0).is_ok(), "{text}");
    }

    #[test]
    fn syslog_gets_priority_process_and_level() {
        let folder = tempfile::tempdir().expect("it works");
        let path = folder.path().join("log");
        assert!(send(&path, Level::Warn, "nobody listens").is_err());
        let syslog = UnixDatagram::bind(&path).expect("it works");
        send(&path, Level::Warn, "a line").expect("it works");
        let mut message = [0; 100];
        let len = syslog.recv(&mut message).expect("it works");
        let expected = format!("<28>tlsresume[{}]: warn: a line", process::id());
        assert_eq!(str::from_utf8(&message[..len]), Ok(&expected[..]));
    }

    #[test]
    fn any_time_has_a_text() {
        assert_eq!(time(UnixMillis(0)), "1970-01-01T00:00:00Z");
        time(UnixMillis(u64::MAX));
    }
}
