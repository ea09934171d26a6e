//! Whatever is wrong with the library or its configuration: the program serves, and one line says what it is.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output};

use crate::building::{Build, libraries, preload, preloaded, preloaded_from, program};
use crate::{NOT_SHARED, SHARED};

/// The program served without the library, and said why in one line.
fn serves_and_says(command: &mut Command, words: &[&str]) {
    serves(command, NOT_SHARED, words);
}

fn serves(command: &mut Command, sessions: &str, words: &[&str]) {
    let output = command.output().expect("runs");
    let (stdout, stderr) = texts(&output);
    assert!(output.status.success() && stdout == sessions, "{}\n{stdout}{stderr}", output.status);
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    for word in words {
        assert!(stderr.contains(word), "no {word:?} in: {stderr}");
    }
    let output = command.arg("quietly").output().expect("runs");
    assert!(output.status.success(), "errno or the error queue: {}", texts(&output).1);
}

fn texts(output: &Output) -> (String, String) {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

const ASIDE: &str = "; the program runs without the library\n";

#[test]
fn where_all_is_well_nothing_is_left_behind() {
    let output = preloaded(Build::Plain, "serves").arg("quietly").output().expect("runs");
    assert!(output.status.success(), "{}", texts(&output).1);
}

#[test]
fn a_library_that_is_missing() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let alone = folder.path().join("libtlsresume_preload.so");
    fs::copy(preload(), &alone).expect("a copy");
    let said = "tlsresume: error: preload: cannot load libtlsresume.so: libtlsresume.so.0: cannot \
                open shared object file";
    serves_and_says(&mut preloaded_from(&alone, Build::Plain, "serves"), &[said, ASIDE]);
}

#[test]
fn a_library_of_another_release() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let preload = beside(folder.path(), &program(Build::Plain, "another.so"));
    let said = "tlsresume: error: preload: libtlsresume.so is of another release: ";
    let command = &mut preloaded_from(&preload, Build::Plain, "serves");
    serves_and_says(command, &[said, "tlsresume_interpose", ASIDE]);
}

#[test]
fn a_library_that_is_none() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let text = folder.path().join("text");
    fs::write(&text, "no library at all").expect("a file");
    let preload = beside(folder.path(), &text);
    let said = "tlsresume: error: preload: cannot load libtlsresume.so: ";
    let command = &mut preloaded_from(&preload, Build::Plain, "serves");
    serves_and_says(command, &[said, "libtlsresume.so.0: ", ASIDE]);
}

/// The preload with this file in the place of the library.
fn beside(folder: &Path, library: &Path) -> std::path::PathBuf {
    fs::copy(library, folder.join("libtlsresume.so.0")).expect("a copy");
    let copy = folder.join("libtlsresume_preload.so");
    fs::copy(preload(), &copy).expect("a copy");
    copy
}

#[test]
fn the_library_is_found_beside_the_preload() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let preload = beside(folder.path(), &libraries().join("libtlsresume.so"));
    let output = preloaded_from(&preload, Build::Plain, "serves").output().expect("runs");
    assert_eq!(texts(&output), (SHARED.to_owned(), String::new()));
}

#[test]
fn a_configuration_with_a_mistake() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let file = folder.path().join("tlsresume.toml");
    fs::write(&file, "realm = \"x\"\n[resumption]\nmode = \"statefull\"\n").expect("a file");
    let command = &mut preloaded(Build::Plain, "serves");
    let path = file.display().to_string();
    let said = "tlsresume: error: preload: ";
    serves_and_says(command.env("TLSRESUME_CONFIG", &file), &[said, &path, "mode", "3", ASIDE]);
}

#[test]
fn a_configuration_that_is_missing() {
    let command = &mut preloaded(Build::Plain, "serves");
    let command = command.env("TLSRESUME_CONFIG", "/nowhere/tlsresume.toml");
    let said = "tlsresume: error: preload: ";
    serves_and_says(command, &[said, "/nowhere/tlsresume.toml", ASIDE]);
}

#[test]
fn a_variable_with_a_mistake() {
    let command = &mut preloaded(Build::Plain, "serves");
    let said = "tlsresume: error: preload: TLSRESUME_RESUMPTION_TICKETS";
    serves_and_says(command.env("TLSRESUME_RESUMPTION_TICKETS", "many"), &[said, ASIDE]);
}

#[test]
fn a_memory_that_cannot_be_made() {
    let command = &mut preloaded(Build::Plain, "serves");
    let said = "using memory that only this server's own processes share";
    let command = command.env("TLSRESUME_MEMORY_PATH", "/nowhere/memory");
    serves(command, SHARED, &["tlsresume: warn: ", "/nowhere/memory", said]);
}

/// Node gives the workers of a cluster the same ticket keys.
#[test]
fn a_worker_of_nodes_cluster_runs_without_the_library_unless_it_shares_its_keys() {
    let worker = |number: &str| {
        let mut command = preloaded(Build::Plain, "serves");
        command.env("NODE_UNIQUE_ID", number);
        command
    };
    serves_and_says(
        &mut worker("1"),
        &["workers of Node's cluster are executed", "memory.path", ASIDE],
    );
    let output = worker("2").output().expect("runs");
    assert_eq!(texts(&output), (NOT_SHARED.to_owned(), String::new()), "said once");

    let folder = tempfile::tempdir_in("/dev/shm").expect("a temporary directory");
    let path = folder.path().join("memory");
    let output = worker("1").env("TLSRESUME_MEMORY_PATH", path).output().expect("runs");
    assert_eq!(texts(&output), (SHARED.to_owned(), String::new()));
}

// ---- with-tlsresume ----

fn with_tlsresume() -> Command {
    let mut command = Command::new(libraries().join("with-tlsresume"));
    command.env_remove("LD_PRELOAD");
    command
}

#[test]
fn the_wrapper_runs_a_program_with_the_library() {
    let output = with_tlsresume().arg(program(Build::Plain, "serves")).output().expect("runs");
    assert_eq!(texts(&output), (SHARED.to_owned(), String::new()));
}

#[test]
fn the_wrapper_passes_arguments_and_status_on() {
    let output = with_tlsresume()
        .args(["sh", "-c", "printf '%s|' \"$@\"; exit 7", "x", "a b", "", "*"])
        .output()
        .expect("runs");
    assert_eq!(texts(&output).0, "a b||*|");
    assert_eq!(output.status.code(), Some(7));
}

#[test]
fn the_wrapper_without_a_command_says_how_to_use_it() {
    let output = with_tlsresume().output().expect("runs");
    let (stdout, stderr) = texts(&output);
    assert_eq!((stdout.as_str(), output.status.code()), ("", Some(2)));
    assert_eq!(stderr, "usage: with-tlsresume COMMAND [ARGUMENT...]\n");
}

#[test]
fn the_wrapper_keeps_what_is_preloaded_already() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let other = folder.path().join("other.so");
    symlink(program(Build::Plain, "plugin.so"), &other).expect("a link");
    let output = with_tlsresume()
        .args(["sh", "-c", "printf %s \"$LD_PRELOAD\""])
        .env("LD_PRELOAD", &other)
        .output()
        .expect("runs");
    let expected = format!("libtlsresume_preload.so:{}", other.display());
    assert!(texts(&output).0.ends_with(&expected), "{output:?}");
}

#[test]
fn the_wrapper_without_a_library_says_so_and_runs_the_program() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let script = fs::read_to_string(libraries().join("with-tlsresume")).expect("a script");
    let installed = libraries().join("libtlsresume_preload.so").display().to_string();
    let missing = folder.path().join("libtlsresume_preload.so").display().to_string();
    assert!(script.contains(&installed), "{script}");
    let moved = folder.path().join("with-tlsresume");
    fs::write(&moved, script.replace(&installed, &missing)).expect("a script");
    let mut command = Command::new("sh");
    let said = format!("with-tlsresume: {missing} is missing: is libtlsresume installed? Running ");
    let command = command.arg(moved).arg(program(Build::Plain, "serves"));
    serves_and_says(command, &[&said, " without it."]);
}
