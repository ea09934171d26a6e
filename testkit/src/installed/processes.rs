//! Who owns a connection, and who descends from whom: read from `/proc`.

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use libc::c_int;

use super::sockets;
use crate::error::Doing;
use crate::process::{send_signal, send_signal_to_group};
use crate::{DEADLINE, Error, Result, wait_until};

/// The pids of `root` and of all that descend from it.
pub(super) fn tree(root: u32) -> Vec<u32> {
    let processes: Vec<(u32, u32)> =
        all().filter_map(|pid| Some((pid, stat(pid)?.parent))).collect();
    let mut found = vec![root];
    let mut next = 0;
    while let Some(&pid) = found.get(next) {
        found.extend(processes.iter().filter(|(_, parent)| *parent == pid).map(|(child, _)| child));
        next += 1;
    }
    found
}

/// The one of `pids` that has accepted the connection from `client` to `server`.
pub(super) fn owner(pids: &[u32], client: SocketAddr, server: SocketAddr) -> Option<u32> {
    let inode = sockets::inode(client, server)?;
    let socket = format!("socket:[{inode}]");
    let owns = |pid: &u32| {
        let Ok(files) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
        files.flatten().any(|it| fs::read_link(it.path()).is_ok_and(|to| to == Path::new(&socket)))
    };
    pids.iter().copied().find(owns)
}

/// A process that does not run until the value is dropped: others take its connections meanwhile.
#[derive(Debug)]
pub struct Paused(u32);

impl Paused {
    pub(super) fn new(pid: u32) -> Result<Paused> {
        let paused = Paused(pid);
        send_signal(pid, libc::SIGSTOP)?;
        await_stopped(pid)?;
        Ok(paused)
    }
}

/// Waits until a process that got SIGSTOP does not run any more.
pub(crate) fn await_stopped(pid: u32) -> Result<()> {
    wait_until(format!("process {pid} to stop"), DEADLINE, || {
        stat(pid).is_some_and(|it| it.state == 'T')
    })
}

impl Drop for Paused {
    fn drop(&mut self) {
        // If it is gone, it needs no waking.
        let _ = send_signal(self.0, libc::SIGCONT);
    }
}

/// Kills a process group when this process ends, however it ends; workers of a server outlive their
/// master otherwise.
#[derive(Debug)]
pub(super) struct Guard {
    group: u32,
    watch: Child,
}

impl Guard {
    /// Watches the group whose leader is `group`.
    pub(super) fn over(group: u32) -> Result<Guard> {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "read -r over || kill -s KILL -- \"-$0\"", &group.to_string()]);
        // In a group of its own, so that ^C on the terminal does not end it first.
        command.process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let watch = command.spawn().doing("starting /bin/sh")?;
        Ok(Guard { group, watch })
    }

    /// Sends the whole group a signal; nothing happens when it is gone.
    pub(super) fn signal(&self, signal: c_int) {
        // Fails only if nobody is left.
        let _ = send_signal_to_group(self.group, signal);
    }

    /// Whether somebody of the group is left. Whoever has ended is not, even if nobody has asked
    /// how yet.
    pub(super) fn has_members(&self) -> bool {
        all().filter_map(stat).any(|it| it.group == self.group && it.state != 'Z')
    }
}

impl Drop for Guard {
    /// The group is over: it must not be killed once its number is somebody else's.
    fn drop(&mut self) {
        if self.has_members() {
            self.signal(libc::SIGKILL);
        }
        if let Some(mut input) = self.watch.stdin.take() {
            // It can only have ended already.
            let _ = input.write_all(b"over\n");
        }
        let _ = self.watch.wait();
    }
}

/// Sets who owns the files below `path`, itself included.
pub(super) fn give(path: &Path, (uid, gid): (u32, u32)) -> Result<()> {
    std::os::unix::fs::chown(path, Some(uid), Some(gid))
        .doing(format!("giving away {}", path.display()))?;
    if path.is_dir() {
        for entry in fs::read_dir(path).doing("reading a folder")? {
            give(&entry.doing("reading a folder")?.path(), (uid, gid))?;
        }
    }
    Ok(())
}

/// User and group id of a user of this system.
pub(super) fn ids_of(user: &str, package: &'static str) -> Result<(u32, u32)> {
    let text = fs::read_to_string("/etc/passwd").doing("reading /etc/passwd")?;
    let ids = |line: &str| match line.split(':').collect::<Vec<_>>()[..] {
        [name, _, uid, gid, ..] if name == user => Some((uid.parse().ok()?, gid.parse().ok()?)),
        _ => None,
    };
    let missing = || Error::MissingProgram { program: format!("user {user}"), package };
    text.lines().find_map(ids).ok_or_else(missing)
}

/// Whether this process may do everything.
pub fn is_root() -> bool {
    // SAFETY: geteuid takes nothing, touches no memory and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

fn all() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The start of `/proc/PID/stat`, after the name.
struct Stat {
    state: char,
    parent: u32,
    group: u32,
}

/// What follows the name, which is in parentheses and may hold any character.
fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut words = text.rsplit_once(") ")?.1.split(' ');
    let (state, parent, group) = (words.next()?, words.next()?, words.next()?);
    let state = state.chars().next()?;
    Some(Stat { state, parent: parent.parse().ok()?, group: group.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn the_owner_of_a_connection_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let me = std::process::id();
        let (from, to) = (client.local_addr().unwrap(), accepted.local_addr().unwrap());
        assert_eq!(owner(&tree(me), from, to), Some(me));
        assert_eq!(owner(&[1], from, to), None);
    }

    #[test]
    fn a_group_is_killed_when_nobody_is_left_to_guard_it() {
        let mut command = Command::new("/bin/cat");
        let mut child = command.process_group(0).stdin(Stdio::piped()).spawn().unwrap();
        let mut guard = Guard::over(child.id()).unwrap();
        // As when the kernel closes it.
        drop(guard.watch.stdin.take());
        guard.watch.wait().unwrap();
        assert!(!child.wait().unwrap().success());
    }

    #[test]
    fn the_tree_of_a_process_has_its_children() {
        let mut child = Command::new("/bin/cat").stdin(Stdio::piped()).spawn().unwrap();
        let tree = tree(std::process::id());
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(tree.contains(&child.id()), "{tree:?}");
    }
}
