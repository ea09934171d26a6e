//! A server that only tests its configuration, or sends a signal, leaves the memory of running ones as it is.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use tlsresume_testkit::installed::{Installed, Program, Visits, preload_library};
use tlsresume_testkit::{Folder, Mode, Result};

/// Servers with the arguments that have them test or print something.
const DRY_RUNS: [(Program, &[&[&str]]); 6] = [
    (Program::Nginx, &[&["-t"], &["-T"], &["-v"], &["-s", "reopen"]]),
    (Program::Haproxy, &[&["-c"], &["-c", "-q"], &["-vv"]]),
    (Program::Apache, &[&["-t"], &["-S"], &["-M"], &["-V"]]),
    (Program::Hitch, &[&["--test"], &["-t"]]),
    (Program::Lighttpd, &[&["-t"], &["-tt"], &["-p"]]),
    (Program::H2o, &[&["-t"], &["--mode", "test"]]),
];

/// The server's own command under with-tlsresume.
fn dry_run(server: &Installed, arguments: &[&str], memory: &Path, size: &str) -> Result<()> {
    let original = server.command()?;
    let mut command = Command::new(preload_library()?.with_file_name("with-tlsresume"));
    command.arg(original.get_program()).args(original.get_args()).args(arguments);
    command.current_dir(server.folder().path());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TLSRESUME_") {
            command.env_remove(name);
        }
    }
    command.env("TLSRESUME_MEMORY_PATH", memory).env("TLSRESUME_MEMORY_SIZE", size);
    let output = command.output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{} {arguments:?}: {said}", server.program());
    assert!(!said.contains("tlsresume: warn"), "{} {arguments:?}: {said}", server.program());
    Ok(())
}

#[test]
fn no_dry_run_of_a_server_touches_the_memory() -> Result<()> {
    for (program, dry_runs) in DRY_RUNS {
        let memory = Folder::in_memory()?;
        let path = memory.file("sessions");
        let settings = program.settings().preload(preload_library()?);
        let server = settings.env("TLSRESUME_MEMORY_PATH", &path).start()?;
        let mut visits = Visits::start()?;
        let first = visits.visit(&server, Mode::Tls13, None)?.session;
        visits.close()?;
        let state =
            || (fs::metadata(&path).expect("it is there").ino(), fs::read(&path).expect("it"));
        let before = state();
        for arguments in dry_runs {
            for (other, size) in [("sessions", "16MiB"), ("sessions", "4MiB"), ("missing", "4MiB")]
            {
                dry_run(&server, arguments, &memory.file(other), size)?;
                assert!(state() == before, "{program} {arguments:?} changed the memory");
                let names: Vec<_> = fs::read_dir(memory.path()).expect("readable").collect();
                assert_eq!(names.len(), 1, "{program} {arguments:?}: {names:?}");
            }
        }
        assert!(visits.visit(&server, Mode::Tls13, first)?.reused, "{program}");
    }
    Ok(())
}
