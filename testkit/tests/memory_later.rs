//! Processes that cannot have the file at `memory.path` when they start share it once they can.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tlsresume_testkit::client::OpenSsl;
use tlsresume_testkit::matrix::Kind;
use tlsresume_testkit::{DEADLINE, Folder, Result, Server, alone, say, wait_until};

const SERVERS: usize = 8;
const KINDS: [Kind; 2] = [Kind::Tls12Id, Kind::Tls13Stateless];

fn start(memory: &Path) -> Result<Server> {
    let settings = Server::example()?.args(["--workers", "1"]);
    let settings = settings.env("TLSRESUME_MEMORY_PATH", memory);
    settings.env("TLSRESUME_MEMORY_SIZE", "1MiB").start()
}

/// Eight servers that have memory of their own each, for that reason.
fn start_apart(memory: &Path, reason: &str) -> Result<Vec<Server>> {
    let servers = (0..SERVERS).map(|_| start(memory)).collect::<Result<Vec<_>>>()?;
    for server in &servers {
        let line = "using memory that only this server's own processes share";
        wait_until("its line", DEADLINE, || server.log().contains(line))?;
        assert!(server.log().contains(reason), "{}", server.log());
    }
    let [one, other] = [&servers[0], &servers[1]];
    assert!(!KINDS.iter().any(|kind| resumes(*kind, one, other).unwrap_or(true)));
    Ok(servers)
}

fn resumes(kind: Kind, from: &Server, to: &Server) -> Result<bool> {
    let client = OpenSsl::new();
    let visitor = client.first_visit(from.address(), kind.client_mode())?;
    Ok(visitor.come_back_as(&client, to.address())?.resumed())
}

/// Waits until clients of each resume at the next.
fn all_share(servers: &[Server]) -> Result<()> {
    for (nth, from) in servers.iter().enumerate() {
        let to = &servers[(nth + 1) % servers.len()];
        for kind in KINDS {
            let shares = || resumes(kind, from, to).is_ok_and(|it| it);
            wait_until(format!("{kind} of {nth} at the next"), DEADLINE, shares)
                .inspect_err(|_| say(&to.log()))?;
        }
    }
    Ok(())
}

/// A process that has the file's lock until it is dropped.
struct Lock(Child);

impl Lock {
    fn of(memory: &Path) -> Lock {
        let mut command = Command::new("flock");
        command.arg(memory).args(["sh", "-c", "echo held; cat"]);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = child.expect("flock (util-linux) runs");
        let mut line = String::new();
        let output = BufReader::new(child.stdout.as_mut().expect("piped")).read_line(&mut line);
        assert!(output.is_ok() && line == "held\n", "{line}");
        Lock(child)
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

#[test]
fn eight_servers_that_waited_in_vain_for_a_lock_share_the_file_once_it_is_free() -> Result<()> {
    let _alone = alone();
    let folder = Folder::in_memory()?;
    let memory = folder.file("sessions");
    let mut servers = vec![start(&memory)?];
    let lock = Lock::of(&memory);
    servers.extend(start_apart(&memory, "lock: ")?);
    drop(lock);
    all_share(&servers)
}

#[test]
fn eight_servers_without_the_directory_share_the_file_that_another_makes_later() -> Result<()> {
    let _alone = alone();
    let folder = Folder::in_memory()?;
    let directory = folder.file("missing");
    let memory = directory.join("sessions");
    let mut servers = start_apart(&memory, "open: ")?;
    fs::create_dir(&directory).expect("the folder is writable");
    servers.push(start(&memory)?);
    all_share(&servers)
}

#[test]
fn eight_servers_that_found_wrong_permissions_share_the_file_once_they_are_right() -> Result<()> {
    let _alone = alone();
    let folder = Folder::in_memory()?;
    let memory = folder.file("sessions");
    let first = start(&memory)?;
    fs::set_permissions(&memory, Permissions::from_mode(0o644)).expect("ours");
    let mut servers = start_apart(&memory, "can be opened by others; chmod 600 it")?;
    fs::set_permissions(&memory, Permissions::from_mode(0o600)).expect("ours");
    servers.push(first);
    all_share(&servers)
}
