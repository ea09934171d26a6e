//! Memory, disks, configurations and terminals that are not as they should be: the server serves,
//! or says what is wrong and where; it never crashes, hangs or accepts.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tlsresume_testkit::client::OpenSsl;
use tlsresume_testkit::matrix::Kind;
use tlsresume_testkit::memory::ROOT_BYTES;
use tlsresume_testkit::server::{Settings, example, library};
use tlsresume_testkit::{
    DEADLINE, Folder, Process, Random, Result, Server, Traffic, alone, say, wait_until,
};

fn settings(memory: &Path, kind: Kind) -> Result<Settings> {
    Ok(Server::example()?
        .args(["--handle", "--direct", "--workers", "2"])
        .env("TLSRESUME_MEMORY_PATH", memory)
        .env("TLSRESUME_RESUMPTION_MODE", kind.server_mode()))
}

/// The server says `expected`; its lines come by another way than its being ready.
fn says(server: &Server, expected: &str) -> Result<()> {
    wait_until(format!("{expected:?}"), DEADLINE, || server.log().contains(expected))
        .inspect_err(|_| say(&server.log()))
}

/// A client resumes a session of worker `0` of one server at worker `1` of another, or of the same.
fn assert_resumes(kind: Kind, from: &Server, to: &Server) -> Result<()> {
    let client = OpenSsl::new();
    // Memory that is damaged may say that somebody verifies clients: then the first visit to an address is a full one.
    client.first_visit(to.direct(1, 0)?, kind.client_mode())?;
    let visitor = client.first_visit(from.direct(0, 0)?, kind.client_mode())?;
    let back = visitor.come_back_as(&client, to.direct(1, 0)?)?;
    assert!(back.resumed(), "{kind}: {back:?}\n{}", to.log());
    Ok(())
}

// ---- damage while servers run ----

fn random_bytes_fail_nothing(kinds: &[Kind]) -> Result<()> {
    const WRITES: u64 = 3000;
    /// Header, ring, and the start of the table of names: every second write goes there.
    const HEAD: u64 = ROOT_BYTES + 4096;

    let _alone = alone();
    let (mut random, folder) = (Random::new(), Folder::in_memory()?);
    let memory = folder.file("sessions");
    let servers = [settings(&memory, kinds[0])?.start()?, settings(&memory, kinds[0])?.start()?];
    let pids =
        || servers.each_ref().map(|it| it.loops().iter().map(|it| it.pid).collect::<Vec<_>>());
    let (before, file) = (pids(), File::options().write(true).open(&memory).expect("it is there"));
    let size = file.metadata().expect("it is open").len();
    let addresses: Vec<_> = servers.iter().flat_map(|it| it.loops()).map(|it| it.address).collect();
    let traffic = kinds
        .iter()
        .map(|kind| Ok((*kind, Traffic::to(addresses.clone(), kind.client_mode()).start()?)))
        .collect::<Result<Vec<_>>>()?;

    for _ in 0..WRITES {
        random.moment(Duration::from_millis(2));
        let end = if random.below(2) == 0 { HEAD } else { size - 64 };
        let bytes: Vec<u8> =
            (0..1 + random.below(64)).map(|_| random.number().to_le_bytes()[0]).collect();
        file.write_all_at(&bytes, random.below(end)).expect("tmpfs takes it");
    }
    for (kind, traffic) in traffic {
        let report = traffic.stop()?;
        say(&format!("{kind}: {report:?}"));
        assert_eq!((report.failed, report.reset), (0, 0), "{kind}: {report:?}");
        assert!(report.handshakes > 0, "{kind}: {report:?}");
    }
    // A worker that crashed would have a successor.
    assert_eq!(pids(), before);
    for server in &servers {
        assert!(!server.log().contains("panic"), "{}", server.log());
        for kind in kinds {
            assert_resumes(*kind, server, server)?;
        }
    }
    // Who comes new finds the damage, and serves all the same.
    let next = settings(&memory, kinds[0])?.start()?;
    kinds.iter().try_for_each(|kind| assert_resumes(*kind, &next, &next))
}

#[test]
fn random_bytes_in_the_memory_file_fail_no_stateless_handshake() -> Result<()> {
    random_bytes_fail_nothing(&[Kind::Tls12Id, Kind::Tls12Ticket, Kind::Tls13Stateless])
}

#[test]
fn random_bytes_in_the_memory_file_fail_no_stateful_handshake() -> Result<()> {
    random_bytes_fail_nothing(&[Kind::Tls13Stateful])
}

// ---- files that are there already ----

/// Servers that find `content` say `expected`, and share a new file in its place.
fn is_replaced(content: &[u8], expected: &str) -> Result<()> {
    let folder = Folder::in_memory()?;
    let memory = folder.file("sessions");
    fs::write(&memory, content).expect("the folder is writable");
    fs::set_permissions(&memory, Permissions::from_mode(0o600)).expect("it is ours");
    let one = settings(&memory, Kind::Tls13Stateful)?.start()?;
    let mut other = settings(&memory, Kind::Tls13Stateful)?.start()?;
    says(&one, expected)?;
    assert_resumes(Kind::Tls13Stateful, &one, &other)?;
    other.stop()?;
    assert!(!other.log().contains("tlsresume:"), "{}", other.log());
    Ok(())
}

/// A file that something else made stays as it is, and the server says what to do about it.
fn is_left_alone(content: &[u8]) -> Result<()> {
    let folder = Folder::in_memory()?;
    let memory = folder.file("sessions");
    fs::write(&memory, content).expect("the folder is writable");
    fs::set_permissions(&memory, Permissions::from_mode(0o600)).expect("it is ours");
    let server = settings(&memory, Kind::Tls12Id)?.start()?;
    serves_alone(
        &server,
        "sessions: use: is not a libtlsresume file; remove it or choose another memory.path",
    )?;
    assert!(fs::read(&memory).expect("it is ours") == content);
    Ok(())
}

#[test]
fn a_small_foreign_file_is_left_alone() -> Result<()> {
    is_left_alone(b"#!/bin/sh\n")
}

#[test]
fn a_large_foreign_file_is_left_alone() -> Result<()> {
    is_left_alone(&vec![b'x'; 16 << 20])
}

/// What a server leaves that ran and ended.
fn used_memory_file() -> Result<Vec<u8>> {
    let folder = Folder::in_memory()?;
    let memory = folder.file("sessions");
    let mut server = settings(&memory, Kind::Tls13Stateful)?.start()?;
    assert_resumes(Kind::Tls13Stateful, &server, &server)?;
    server.stop()?;
    Ok(fs::read(&memory).expect("it is ours"))
}

#[test]
fn a_file_that_was_cut_short_is_replaced() -> Result<()> {
    let mut content = used_memory_file()?;
    content.truncate(1 << 20);
    is_replaced(&content, "sessions: is damaged; a new file takes its place")
}

#[test]
fn a_file_that_was_cut_to_its_header_is_replaced() -> Result<()> {
    let mut content = used_memory_file()?;
    content.truncate(4096);
    is_replaced(&content, "sessions: is cut short; a new file takes its place")
}

#[test]
fn a_file_with_a_damaged_header_is_replaced() -> Result<()> {
    let mut content = used_memory_file()?;
    content[40] ^= 1;
    is_replaced(&content, "sessions: is damaged; a new file takes its place")
}

#[test]
fn an_empty_file_is_used() -> Result<()> {
    let folder = Folder::in_memory()?;
    let memory = folder.file("sessions");
    fs::write(&memory, b"").expect("the folder is writable");
    fs::set_permissions(&memory, Permissions::from_mode(0o600)).expect("it is ours");
    let mut one = settings(&memory, Kind::Tls13Stateful)?.start()?;
    let other = settings(&memory, Kind::Tls13Stateful)?.start()?;
    assert_resumes(Kind::Tls13Stateful, &one, &other)?;
    one.stop()?;
    assert!(!one.log().contains("tlsresume:"), "{}", one.log());
    Ok(())
}

// ---- places where no file can be ----

/// A server that cannot have its file says `expected`, and its own workers share memory all the same.
fn serves_alone(server: &Server, expected: &str) -> Result<()> {
    says(server, expected)?;
    says(server, "using memory that only this server's own processes share")?;
    assert_resumes(Kind::Tls12Id, server, server)?;
    assert_resumes(Kind::Tls13Stateless, server, server)
}

/// The example server with a small tmpfs of its own below `folder`, mounted with `options`.
fn with_mount(folder: &Folder, options: &str) -> Result<(Settings, PathBuf)> {
    let (script, mount) = (folder.file("server"), folder.file("mount"));
    fs::create_dir(&mount).expect("the folder is writable");
    let server = example("prefork_server")?;
    let text = format!(
        "#!/bin/sh\n\
         exec unshare --mount --propagation private sh -c '\n\
         mount -t tmpfs -o {options} tlsresume-test {mount} && exec {server} \"$@\"\n\
         echo \"cannot mount: this test needs root (CAP_SYS_ADMIN), unshare and mount\" >&2\n\
         exit 1' sh \"$@\"\n",
        mount = mount.display(),
        server = server.display(),
    );
    fs::write(&script, text).expect("the folder is writable");
    fs::set_permissions(&script, Permissions::from_mode(0o700)).expect("it is ours");
    let settings = Server::program(&script)
        .args(["--handle", "--direct", "--workers", "2"])
        .env("TLSRESUME_MEMORY_PATH", mount.join("sessions"));
    Ok((settings, mount))
}

#[test]
fn a_server_on_a_full_tmpfs_serves_from_memory_of_its_own() -> Result<()> {
    let folder = Folder::new()?;
    let (settings, _) = with_mount(&folder, "size=256k")?;
    serves_alone(&settings.start()?, "sessions: allocate: No space left on device")
}

#[test]
fn a_server_on_a_read_only_file_system_serves_from_memory_of_its_own() -> Result<()> {
    let folder = Folder::new()?;
    let (settings, _) = with_mount(&folder, "ro")?;
    serves_alone(&settings.start()?, "sessions: open: Read-only file system")
}

#[test]
fn a_server_without_the_folder_serves_from_memory_of_its_own() -> Result<()> {
    let folder = Folder::in_memory()?;
    let server = settings(&folder.file("absent/sessions"), Kind::Tls12Id)?.start()?;
    serves_alone(&server, "sessions: open: No such file or directory")
}

#[test]
fn a_server_with_a_folder_for_a_file_serves_from_memory_of_its_own() -> Result<()> {
    let folder = Folder::in_memory()?;
    let server = settings(folder.path(), Kind::Tls12Id)?.start()?;
    serves_alone(&server, ": open: Is a directory")
}

#[test]
fn a_server_with_a_symbolic_link_for_a_file_serves_from_memory_of_its_own() -> Result<()> {
    let folder = Folder::in_memory()?;
    let link = folder.file("sessions");
    std::os::unix::fs::symlink(folder.file("elsewhere"), &link).expect("the folder is writable");
    let server = settings(&link, Kind::Tls12Id)?.start()?;
    serves_alone(&server, "sessions: open: Too many levels of symbolic links")?;
    assert!(!folder.file("elsewhere").exists());
    Ok(())
}

#[test]
fn a_server_with_a_file_that_others_can_open_serves_from_memory_of_its_own() -> Result<()> {
    let folder = Folder::in_memory()?;
    let memory = folder.file("sessions");
    fs::write(&memory, b"").expect("the folder is writable");
    fs::set_permissions(&memory, Permissions::from_mode(0o644)).expect("it is ours");
    let server = settings(&memory, Kind::Tls12Id)?.start()?;
    serves_alone(&server, "sessions: use: can be opened by others; chmod 600 it")
}

// ---- configurations with mistakes ----

/// Blocks of TOML lines and variables, each followed by the indented message that they give, or
/// "fits".
const MISTAKES: &str = include_str!("../../src/config/tests/mistakes.txt");

#[test]
fn every_kind_of_configuration_mistake_ends_the_server_with_its_place_and_key() -> Result<()> {
    let folder = Folder::new()?;
    let file = folder.file("t.toml");
    let mut mistakes = 0;
    for (number, block) in MISTAKES.split("\n\n").enumerate() {
        let (input, expected) = block.trim_end().rsplit_once("\n    ").expect("a block");
        if expected == "fits" {
            continue;
        }
        let is_variable = |line: &&str| line.starts_with("TLSRESUME_");
        let (variables, text): (Vec<_>, Vec<_>) = input.lines().partition(is_variable);
        fs::write(&file, text.join("\n")).expect("the folder is writable");

        // One way after the other to make an instance.
        let way = if number.is_multiple_of(2) { "--handle" } else { "--direct" };
        let settings = Server::example()?.arg(way).env("TLSRESUME_CONFIG", &file);
        let pairs = variables.iter().filter_map(|line| line.split_once('='));
        let settings = pairs.fold(settings, |it, (name, value)| it.env(name, value));
        let (status, log) = settings.start_in_vain()?;
        let place = expected.replacen("t.toml", &file.display().to_string(), 1);
        assert_eq!(status.code(), Some(1), "{input}\n{log}");
        assert!(log.contains(&place), "{input}\nexpected: {place}\nfound: {log}");
        assert!(!log.contains("ready"), "{log}");
        mistakes += 1;
    }
    assert!(mistakes > 50, "{mistakes} mistakes");
    Ok(())
}

#[test]
fn a_configuration_that_is_not_there_ends_the_server_with_its_name() -> Result<()> {
    let folder = Folder::new()?;
    let file = folder.file("absent.toml");
    let (status, log) = Server::example()?.env("TLSRESUME_CONFIG", &file).start_in_vain()?;
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains(&format!("{}: ", file.display())), "{log}");
    assert!(log.contains("No such file or directory"), "{log}");
    Ok(())
}

#[test]
fn a_transport_of_later_releases_ends_the_server_with_its_key() -> Result<()> {
    let folder = Folder::new()?;
    let secret = folder.file("secret");
    fs::write(&secret, "x".repeat(40)).expect("the folder is writable");
    let (status, log) = Server::example()?
        .env("TLSRESUME_CLUSTER_SECRET_FILE", &secret)
        .env("TLSRESUME_MEMCACHED_SERVERS", "127.0.0.1:1")
        .start_in_vain()?;
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("memcached.servers"), "{log}");
    Ok(())
}

// ---- nobody reads standard error ----

/// Closes the reading end of its standard error, then runs the program that its arguments name.
const WITHOUT_READER: &str = "
import os, sys
reading, writing = os.pipe()
os.close(reading)
os.dup2(writing, 2)
os.execv(sys.argv[1], sys.argv[1:])
";

/// Has the library log, on a broken standard error and with SIGPIPE as deadly as it is by default.
const LOG_WITHOUT_READER: &str = "
import ctypes, os, signal, sys
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
reading, writing = os.pipe()
os.close(reading)
os.dup2(writing, 2)
library = ctypes.CDLL(sys.argv[1])
library.tlsresume_new_from_string.restype = ctypes.c_void_p
text = b'log.level = \"trace\"\\nmemory.path = \"/absent/sessions\"'
print('made' if library.tlsresume_new_from_string(text) else 'not made')
pending = signal.sigpending()
print('SIGPIPE is pending' if signal.SIGPIPE in pending else 'nothing is pending')
";

#[test]
fn a_line_that_nobody_reads_raises_no_sigpipe() -> Result<()> {
    let mut command = Command::new("python3");
    command.args(["-I", "-c", LOG_WITHOUT_READER]).arg(library()?);
    let mut process = Process::start(command, "python3")?;
    let status = process.wait_end(DEADLINE)?;
    let transcript = process.transcript();
    let lines: Vec<_> = transcript.stdout().collect();
    assert_eq!(lines, ["made", "nothing is pending"], "{status} {transcript}");
    assert!(status.success(), "{status}");
    Ok(())
}

#[test]
fn a_server_whose_standard_error_nobody_reads_serves() -> Result<()> {
    let folder = Folder::in_memory()?;
    let wrapper = folder.file("server");
    let script = folder.file("without_reader.py");
    fs::write(&script, WITHOUT_READER).expect("the folder is writable");
    let text = format!(
        "#!/bin/sh\nexec python3 -I {} {} \"$@\"\n",
        script.display(),
        example("prefork_server")?.display()
    );
    fs::write(&wrapper, text).expect("the folder is writable");
    fs::set_permissions(&wrapper, Permissions::from_mode(0o700)).expect("it is ours");
    let server = Server::program(&wrapper)
        .args(["--handle", "--direct"])
        .env("TLSRESUME_MEMORY_PATH", "/absent/sessions")
        .env("TLSRESUME_LOG_LEVEL", "trace")
        .start()?;
    assert_resumes(Kind::Tls12Id, &server, &server)?;
    assert_resumes(Kind::Tls13Stateless, &server, &server)
}
