//! The programs of `c-tests/preload`: how they are built and started.

use std::collections::BTreeSet;
use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::support::{output_of, release_library, repository, target_dir};

/// Seconds, for hangs: a busy machine needs ten times as long as an idle one.
const DEADLINE: &str = "1200";

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Build {
    Plain,
    Sanitized,
    /// The plain one, with fewer repetitions.
    UnderValgrind,
}

/// Where the libraries are.
pub(crate) fn libraries() -> PathBuf {
    release_library().parent().expect("a directory").to_owned()
}

/// The library that is tested.
pub(crate) fn preload() -> PathBuf {
    libraries().join("libtlsresume_preload.so")
}

/// A program without the library.
pub(crate) fn plain(name: &str) -> Command {
    command(Command::new("timeout"), Build::Plain, name)
}

/// A program with the library.
pub(crate) fn preloaded(build: Build, name: &str) -> Command {
    preloaded_from(&preload(), build, name)
}

/// A program with a preload library of the test's choice.
pub(crate) fn preloaded_from(preload: &Path, build: Build, name: &str) -> Command {
    assert!(preload.exists(), "{} is missing: run make all first", preload.display());
    let mut command = command(Command::new("timeout"), build, name);
    // The sanitizers are linked statically: they need not come first.
    command.env("LD_PRELOAD", preload);
    command
}

/// Untouched by what the environment says to the library.
fn command(mut command: Command, build: Build, name: &str) -> Command {
    let ours = |name: &str| name.starts_with("TLSRESUME_") || name.starts_with("CHECK_");
    env::vars().filter(|(name, _)| ours(name)).for_each(|(name, _)| {
        command.env_remove(name);
    });
    command.arg(DEADLINE);
    if build == Build::UnderValgrind {
        let suppressions = repository().join("c-tests/valgrind.supp");
        command.args(["valgrind", "--quiet", "--leak-check=full"]);
        command.args(["--show-leak-kinds=definite,indirect", "--error-exitcode=9"]);
        command.arg("--errors-for-leak-kinds=definite,indirect");
        command.arg(format!("--suppressions={}", suppressions.display()));
        command.env("CHECK_SCALE", "20");
    }
    command.env("ASAN_OPTIONS", "detect_leaks=1:strict_string_checks=1");
    command.env("UBSAN_OPTIONS", "print_stacktrace=1:halt_on_error=1");
    command.arg(program(build, name));
    command
}

/// A program of `c-tests/preload`, built with all others when the first one is asked for.
pub(crate) fn program(build: Build, name: &str) -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let folder = if build == Build::Sanitized { "sanitized" } else { "plain" };
    BUILT.get_or_init(build_all).join(folder).join(name)
}

/// The names of the C files.
pub(crate) fn programs_in_the_folder() -> BTreeSet<String> {
    fs::read_dir(sources())
        .expect("c-tests/preload")
        .map(|entry| entry.expect("a readable entry").path())
        .filter(|path| path.extension() == Some(OsStr::new("c")))
        .map(|path| path.file_stem().expect("a name").to_string_lossy().into_owned())
        .collect()
}

fn sources() -> PathBuf {
    repository().join("c-tests/preload")
}

fn build_all() -> PathBuf {
    let out = target_dir().join("c-tests/preload");
    fs::create_dir_all(out.join("plain")).expect("a directory");
    fs::create_dir_all(out.join("sanitized")).expect("a directory");
    build_libraries(&out.join("plain"));
    build_libraries(&out.join("sanitized"));
    for name in programs_in_the_folder() {
        if !["another", "plugin"].contains(&name.as_str()) {
            build(&out.join("plain"), &name, &[]);
        }
    }
    for name in ["setters", "clients", "early", "late", "vhosts", "threads", "several"] {
        let sanitizers = [
            "-fsanitize=address,undefined",
            "-fno-sanitize-recover=all",
            "-fno-omit-frame-pointer",
            "-static-libasan",
            "-static-libubsan",
        ];
        build(&out.join("sanitized"), name, &sanitizers);
    }
    out
}

fn gcc() -> Command {
    let mut gcc = Command::new("gcc");
    gcc.current_dir(sources());
    gcc.args(["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-O1", "-g", "-pthread"]);
    gcc.args(["-I..", "-I../../include"]);
    gcc
}

fn build(out: &Path, name: &str, flags: &[&str]) {
    let mut gcc = gcc();
    gcc.args(flags).arg("-o").arg(out.join(name)).arg(format!("{name}.c"));
    // A clock of the program's own is also the library's.
    gcc.arg("-rdynamic");
    match name {
        "bystander" | "plugged" => gcc.arg("-ldl"),
        _ => gcc.args(["../check.c", "-lssl", "-lcrypto", "-ldl"]),
    };
    if name == "several" {
        gcc.arg(out.join("another.so"));
    }
    output_of(&mut gcc);
}

fn build_libraries(out: &Path) {
    let another = out.join("another.so");
    output_of(gcc().args(["-shared", "-fPIC", "another.c", "-o"]).arg(another));
    build_plugin(&out.join("plugin.so"), &[OsStr::new("-lssl")]);
}

fn build_plugin(plugin: &Path, libssl: &[&OsStr]) {
    let mut gcc = gcc();
    gcc.args(["-shared", "-fPIC", "-fvisibility=hidden", "plugin.c", "../check.c", "-o"]);
    output_of(gcc.arg(plugin).args(libssl).arg("-lcrypto"));
}

/// The plug-in, linked with a copy of libssl of another name: as far as the dynamic linker is concerned another
/// version.
pub(crate) fn plugin_of_another_libssl() -> PathBuf {
    let folder = program(Build::Plain, "another-libssl");
    fs::create_dir_all(&folder).expect("a directory");
    let renamed = folder.join("libssl.so.9");
    fs::write(&renamed, with_other_name(&fs::read(system_libssl()).expect("libssl")))
        .expect("a copy");
    let plugin = folder.join("plugin.so");
    let found_there = format!("-Wl,-rpath,{}", folder.display());
    build_plugin(&plugin, &[renamed.as_os_str(), OsStr::new(&found_there)]);
    let linked = output_of(Command::new("readelf").args(["--dynamic", "--wide"]).arg(&plugin));
    assert!(linked.contains("[libssl.so.9]"), "{linked}");
    plugin
}

/// The libssl that programs find.
fn system_libssl() -> PathBuf {
    let libraries = output_of(Command::new("ldd").arg(program(Build::Plain, "serves")));
    let path = libraries.split_whitespace().find(|word| word.contains("/libssl.so"));
    PathBuf::from(path.expect("serves is linked with libssl"))
}

/// The last digit of the soname is another one.
fn with_other_name(library: &[u8]) -> Vec<u8> {
    const NAME: &[u8] = b"\0libssl.so.";
    let mut renamed = library.to_vec();
    let at = library.windows(NAME.len()).position(|part| part == NAME).expect("a soname");
    renamed[at + NAME.len()] = b'9';
    renamed
}
