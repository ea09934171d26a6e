//! Programs that run keep the files that they have mapped, while `make` and `make install` put new ones in their place.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::make;
use crate::support::{output_of, repository};

/// Shorter than what is there at first: written in place, the pages behind its end would be gone.
const OTHER: &[u8] = b"what the next build made";

#[test]
fn a_program_keeps_the_preload_library_that_make_replaces() {
    let build = Build::new();
    build.make(&["place-preload"]);
    let placed = ["libtlsresume_preload.so", "with-tlsresume"].map(|name| build.release(name));
    let mapped = Mapped::all(&placed);
    build.write("preload/release/libtlsresume_preload.so", OTHER);
    build.make(&["place-preload"]);
    assert_eq!(fs::read(&placed[0]).expect("readable"), OTHER);
    mapped.are_whole_and_replaced();
    build.has_no_leftovers();
}

#[test]
fn a_program_keeps_every_file_that_make_install_replaces() {
    let build = Build::new();
    let root = build.0.path().join("root");
    let destination = format!("DESTDIR={}", root.display());
    build.make(&["install", "PREFIX=/usr", &destination]);
    let installed = [
        "lib/libtlsresume.so.0",
        "lib/libtlsresume_preload.so",
        "lib/nginx/modules/ngx_http_tlsresume_module.so",
        "bin/tlsresumectl",
        "bin/with-tlsresume",
        "include/tlsresume.h",
        "lib/pkgconfig/tlsresume.pc",
    ]
    .map(|name| root.join("usr").join(name));
    let mapped = Mapped::all(&installed);
    BUILT.iter().for_each(|name| build.write(name, OTHER));
    build.make(&["install", "PREFIX=/usr", &destination]);
    for file in &installed[..4] {
        assert_eq!(fs::read(file).expect("readable"), OTHER, "{}", file.display());
    }
    mapped.are_whole_and_replaced();
    build.has_no_leftovers();
}

/// A library that does nothing, built as ours is.
#[test]
fn a_program_keeps_the_library_that_cargo_builds_anew() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let file = |name: &str, text: &str| {
        fs::write(folder.path().join(name), text).expect("the folder is ours");
    };
    file("lib.rs", "#[unsafe(no_mangle)] pub extern \"C\" fn answer() -> u8 { 1 }");
    file(
        "Cargo.toml",
        "[package]\nname = \"library\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[workspace]\n\
         [lib]\npath = \"lib.rs\"\ncrate-type = [\"cdylib\", \"rlib\"]\n",
    );
    let build = || {
        let target = folder.path().join("target");
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--release", "--offline"]).current_dir(folder.path());
        output_of(cargo.env("CARGO_TARGET_DIR", &target));
        target.join("release/liblibrary.so")
    };
    let mapped = Mapped::all(&[build()]);
    file("lib.rs", "#[unsafe(no_mangle)] pub extern \"C\" fn other() -> u8 { 2 }");
    build();
    mapped.are_whole_and_replaced();
}

/// What a build leaves in a target directory, as far as `make` copies and installs it.
struct Build(tempfile::TempDir);

const BUILT: [&str; 5] = [
    "release/libtlsresume.so",
    "release/libtlsresume_preload.so",
    "release/tlsresumectl",
    "preload/release/libtlsresume_preload.so",
    "nginx/install/ngx_http_tlsresume_module.so",
];

impl Build {
    fn new() -> Self {
        let build = Build(tempfile::tempdir().expect("a temporary directory"));
        BUILT.iter().for_each(|name| build.write(name, &[7; 3 << 14]));
        build
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        let file = self.0.path().join(name);
        fs::create_dir_all(file.parent().expect("a directory")).expect("the folder is ours");
        fs::write(&file, bytes).expect("the folder is ours");
    }

    fn make(&self, arguments: &[&str]) {
        let target = format!("CARGO_TARGET_DIR={}", self.0.path().display());
        output_of(make().current_dir(repository()).args(arguments).arg(target));
    }

    fn release(&self, name: &str) -> PathBuf {
        self.0.path().join("release").join(name)
    }

    fn has_no_leftovers(&self) {
        let found = output_of(Command::new("find").arg(self.0.path()).args(["-name", "*.new*"]));
        assert_eq!(found, "", "left behind");
    }
}

/// Another process that has these files mapped, every page of them touched.
struct Mapped {
    process: Child,
    files: Vec<(PathBuf, u64)>,
}

/// Reads every page again when a line comes, and says whether they are what they were.
const PROGRAM: &str = "
import mmap, sys
maps = []
for name in sys.argv[1:]:
    with open(name, 'rb') as file:
        maps.append(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
before = [bytes(each) for each in maps]
print('mapped', flush=True)
sys.stdin.readline()
print('whole' if [bytes(each) for each in maps] == before else 'changed', flush=True)
";

impl Mapped {
    fn all(files: &[PathBuf]) -> Self {
        let mut process = Command::new("python3")
            .args(["-c", PROGRAM])
            .args(files)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 starts");
        assert_eq!(next_line(&mut process), "mapped");
        let inodes = files.iter().map(|file| (file.clone(), inode(file)));
        Mapped { files: inodes.collect(), process }
    }

    fn are_whole_and_replaced(mut self) {
        for (file, before) in &self.files {
            assert_ne!(inode(file), *before, "{} was written in place", file.display());
        }
        self.process.stdin.take().expect("piped").write_all(b"\n").expect("it reads");
        assert_eq!(next_line(&mut self.process), "whole", "it died, or read something else");
        assert!(self.process.wait().expect("it ends").success());
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // Ended already, unless a test failed.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Empty when the process is gone.
fn next_line(process: &mut Child) -> String {
    let mut line = String::new();
    let out = process.stdout.as_mut().expect("piped");
    BufReader::with_capacity(1, out).read_line(&mut line).expect("text");
    line.trim_end().to_owned()
}

fn inode(file: &Path) -> u64 {
    fs::metadata(file).expect("it is there").ino()
}
