//! Where lines of log go, whatever they say: never to a client, and nowhere at level "off".

use std::fs;
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::building::{Build, preload, preloaded, preloaded_from};

/// A program that has something to say, of each kind: without the library, before and after its configuration is read.
/// The file of the log belongs in `folder`.
fn talkative(folder: &Path) -> Vec<(&'static str, Command)> {
    let alone = folder.join("libtlsresume_preload.so");
    fs::copy(preload(), &alone).expect("a copy");
    let with = |name: &'static str, value: &str| {
        let mut command = preloaded(Build::Plain, "serves");
        command.env(name, value);
        (name, command)
    };
    let on_disk = Path::new(env!("CARGO_TARGET_TMPDIR")).join("a log's memory");
    vec![
        ("no library", preloaded_from(&alone, Build::Plain, "serves")),
        with("TLSRESUME_CONFIG", "/nowhere/tlsresume.toml"),
        with("TLSRESUME_MEMORY_SIZE", "little"),
        with("TLSRESUME_MEMORY_PATHS", "/dev/shm/mistyped"),
        with("TLSRESUME_MEMORY_PATH", "/nowhere/memory"),
        with("TLSRESUME_MEMORY_PATH", on_disk.to_str().expect("UTF-8")),
    ]
}

fn runs(name: &str, command: &mut Command) {
    let status = command.stdout(Stdio::null()).status().expect("runs");
    assert!(status.success(), "{name}: {status}");
}

/// What a program writes to standard error where that is this socket.
fn written(name: &str, command: &mut Command, end: OwnedFd, mut other: impl Read) -> String {
    runs(name, command.stderr(end));
    // The program is gone; its end of the socket is the command's too.
    command.stderr(Stdio::null()).stdin(Stdio::null());
    let mut text = String::new();
    other.read_to_string(&mut text).expect("readable");
    text
}

fn connection() -> (OwnedFd, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let client = TcpStream::connect(listener.local_addr().expect("an address")).expect("connects");
    (listener.accept().expect("a connection").0.into(), client)
}

#[test]
fn nothing_is_written_to_a_client_whose_connection_is_standard_error() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    for (name, mut command) in talkative(folder.path()) {
        let (server, client) = connection();
        assert_eq!(written(name, &mut command, server, client), "", "{name}: a connection");
        let (server, client) = UnixStream::pair().expect("a pair");
        command.stdin(OwnedFd::from(server.try_clone().expect("a copy")));
        assert_eq!(written(name, &mut command, server.into(), client), "", "{name}: a local one");
    }
}

#[test]
fn a_service_manager_reads_standard_error_from_a_socket() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    for (name, mut command) in talkative(folder.path()) {
        let (server, manager) = UnixStream::pair().expect("a pair");
        let said = written(name, &mut command, server.into(), manager);
        assert!(said.starts_with("tlsresume: ") && said.lines().count() == 1, "{name}: {said:?}");
    }
}

#[test]
fn at_level_off_nothing_is_said() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    for (name, mut command) in talkative(folder.path()) {
        let output = command.env("TLSRESUME_LOG_LEVEL", "off").output().expect("runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{name}: {said}");
    }
}

#[test]
fn a_file_gets_every_line_and_standard_error_none() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    for (nth, (name, mut command)) in talkative(folder.path()).into_iter().enumerate() {
        let log = folder.path().join(format!("log {nth}"));
        let output = command.env("TLSRESUME_LOG_TARGET", &log).output().expect("runs");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{name}");
        let said = fs::read_to_string(&log).unwrap_or_default();
        assert!(said.contains("tlsresume") && said.lines().count() == 1, "{name}: {said:?}");
    }
}

#[test]
fn a_file_that_cannot_be_written_leaves_the_line_to_standard_error() {
    let mut command = preloaded(Build::Plain, "serves");
    let output = command
        .env("TLSRESUME_LOG_TARGET", "/nowhere/log")
        .env("TLSRESUME_MEMORY_SIZE", "little")
        .output()
        .expect("runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.starts_with("tlsresume: error: preload: TLSRESUME_MEMORY_SIZE"), "{said}");
}

#[test]
fn the_log_of_a_configuration_with_a_mistake_is_where_it_says() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let (file, log) = (folder.path().join("tlsresume.toml"), folder.path().join("log"));
    let text = format!("[log]\ntarget = \"{}\"\n[memory]\nsize = \"little\"\n", log.display());
    fs::write(&file, text).expect("a file");
    let mut command = preloaded(Build::Plain, "serves");
    let output = command.env("TLSRESUME_CONFIG", &file).output().expect("runs");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    let said = fs::read_to_string(&log).expect("a log");
    assert!(said.contains("memory.size") && said.lines().count() == 1, "{said}");
}
