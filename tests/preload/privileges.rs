//! Servers that give up their user and their root directory before they make a context, as login processes do; and what
//! it costs other programs that do so. These tests run as root.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output};

use crate::building::{Build, plain, preloaded, program};
use crate::support::output_of;
use crate::{NOT_SHARED, SHARED};

/// A directory that everybody may use, and one that is root's alone.
struct Places {
    open: tempfile::TempDir,
    closed: tempfile::TempDir,
}

impl Places {
    fn new() -> Self {
        let open = tempfile::tempdir().expect("a temporary directory");
        // On a disk, a memory has a line of its own.
        let closed = tempfile::tempdir_in("/dev/shm").expect("a temporary directory");
        let places = Places { open, closed };
        fs::set_permissions(places.open.path(), Permissions::from_mode(0o777)).expect("ours");
        places
    }

    fn memory(&self) -> PathBuf {
        self.closed.path().join("memory")
    }

    /// A server that has given up everything but the open directory.
    fn confined(&self, what: &str) -> Command {
        let mut command = preloaded(Build::Plain, "serves");
        command.arg(what).arg(self.open.path()).arg("confined");
        command
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_server_that_gives_up_root_and_user_before_its_first_context_shares_a_path() {
    for mode in ["stateless", "stateful"] {
        let places = Places::new();
        let visit = |what| {
            let mut command = places.confined(what);
            command.env("TLSRESUME_RESUMPTION_MODE", mode);
            output_of(command.env("TLSRESUME_MEMORY_PATH", places.memory()))
        };
        assert_eq!(visit("leave"), "");
        assert_eq!(visit("return"), SHARED, "{mode}");
        fs::remove_file(places.memory()).expect("a memory");
        assert_eq!(visit("return"), NOT_SHARED, "{mode}, without the memory");
    }
}

#[test]
fn its_configuration_and_its_secret_are_read_before() {
    let places = Places::new();
    let file = |name: &str, text: &str| {
        let path = places.closed.path().join(name);
        fs::write(&path, text).expect("a file");
        fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("ours");
        path
    };
    let secret = file("secret", &"7a".repeat(32));
    let text = format!(
        "[memory]\npath = \"{}\"\n[keys]\nsource = \"derived\"\n[cluster]\nsecret_file = \"{}\"\n",
        places.memory().display(),
        secret.display()
    );
    let configuration = file("tlsresume.toml", &text);
    let visit = |what| output_of(places.confined(what).env("TLSRESUME_CONFIG", &configuration));
    assert_eq!(visit("leave"), "");
    assert_eq!(visit("return"), SHARED);
}

#[test]
fn a_configuration_without_a_path_is_read_before_too() {
    let places = Places::new();
    let configuration = places.closed.path().join("tlsresume.toml");
    let said = |text: &str| {
        fs::write(&configuration, text).expect("a file");
        let mut command = places.confined("leave");
        let output = command.env("TLSRESUME_CONFIG", &configuration).output().expect("runs");
        assert!(output.status.success(), "{}", stderr(&output));
        stderr(&output)
    };
    assert_eq!(said("[resumption]\nmode = \"stateful\"\n"), "");
    assert_eq!(said("[log]\nlevel = \"off\"\n[memory]\nsize = \"little\"\n"), "");
    assert!(said("[memory]\nsize = \"little\"\n").contains("memory.size"));
}

#[test]
fn what_was_wrong_when_it_began_is_what_it_says() {
    let places = Places::new();
    let mistake = places.closed.path().join("tlsresume.toml");
    fs::write(&mistake, "[memory]\npath = \"/dev/shm/a\"\nsize = \"little\"\n").expect("a file");
    let others = places.closed.path().join("others");
    fs::write(&others, "").expect("a file");
    std::os::unix::fs::chown(&others, Some(65534), None).expect("this needs root");
    for (variable, value, said) in [
        ("TLSRESUME_CONFIG", &mistake, ":3: memory.size"),
        ("TLSRESUME_MEMORY_PATH", &others, "belongs to another user"),
    ] {
        let output = places.confined("leave").env(variable, value).output().expect("runs");
        let lines = stderr(&output);
        assert!(output.status.success() && lines.lines().count() == 1, "{lines}");
        assert!(lines.contains(said) && lines.contains(&value.display().to_string()), "{lines}");
    }
}

/// A plug-in that brings libssl serves in another root directory.
fn plugged(how: &str, places: &Places) -> Output {
    let mut command = preloaded(Build::Plain, "plugged");
    command.env("TLSRESUME_MEMORY_PATH", places.memory());
    command.arg(how).arg(places.open.path()).arg(program(Build::Plain, "plugin.so"));
    command.output().expect("runs")
}

#[test]
fn a_libssl_that_comes_later_is_there_in_time() {
    let places = Places::new();
    let output = plugged("into", &places);
    assert_eq!((stdout(&output).as_str(), stderr(&output)), (SHARED, String::new()));
    assert!(places.memory().exists());
}

#[test]
fn who_passes_the_c_library_by_is_told_that_the_library_is_out_of_reach() {
    let places = Places::new();
    let output = plugged("past", &places);
    assert_eq!(stdout(&output), NOT_SHARED);
    let said = "tlsresume: error: preload: cannot load libtlsresume.so: the program has changed its root directory \
                (chroot) since it began; ";
    assert!(stderr(&output).starts_with(said), "{}", stderr(&output));
    assert!(!places.memory().exists());
}

#[test]
fn a_program_without_libssl_that_gives_up_root_loads_nothing_and_opens_nothing() {
    let places = Places::new();
    let mut command = preloaded(Build::Plain, "bystander");
    let loaded = output_of(command.arg("down").env("TLSRESUME_MEMORY_PATH", places.memory()));
    assert!(loaded.contains("libtlsresume_preload.so"), "{loaded}");
    assert!(!loaded.contains("libtlsresume.so"), "{loaded}");
    assert!(!places.memory().exists());
}

/// It may have inherited a lock of the dynamic linker's or of malloc's that nobody opens again, and mostly executes
/// another program next.
#[test]
fn a_child_of_a_process_with_threads_that_gives_up_root_loads_nothing() {
    let places = Places::new();
    let mut command = preloaded(Build::Plain, "client_only");
    let loaded = output_of(command.arg("child").env("TLSRESUME_MEMORY_PATH", places.memory()));
    assert!(loaded.contains("libssl") && !loaded.contains("libtlsresume.so"), "{loaded}");
    assert!(!places.memory().exists());
}

/// Nobody serves there: what is wrong concerns nobody.
#[test]
fn a_client_that_gives_up_root_says_nothing() {
    for (variable, value) in [
        ("TLSRESUME_MEMORY_PATH", "/nowhere/memory"),
        ("TLSRESUME_CONFIG", "/nowhere/tlsresume.toml"),
    ] {
        let mut command = preloaded(Build::Plain, "client_only");
        command.arg("down").env("TLSRESUME_LOG_LEVEL", "debug").env(variable, value);
        let output = command.output().expect("runs");
        assert!(stdout(&output).contains("libtlsresume.so"), "{output:?}");
        assert!(output.status.success() && output.stderr.is_empty(), "{}", stderr(&output));
    }
}

#[test]
fn without_the_preload_a_confined_server_shares_nothing() {
    let places = Places::new();
    let visit = |what| {
        let mut command = plain("serves");
        output_of(command.arg(what).arg(places.open.path()).arg("confined"))
    };
    assert_eq!(visit("leave"), "");
    assert_eq!(visit("return"), NOT_SHARED);
}
