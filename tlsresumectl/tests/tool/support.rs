//! A server's memory in a directory of its own, and the tool at work on it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;
use tlsresume::config::{Config, Memory};
use tlsresume::engine::Engine;

/// What the tool did.
pub(crate) struct Ran {
    pub(crate) status: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    fn of(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("the tool writes UTF-8");
        Ran { status: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }

    /// What it printed; it must have succeeded without a complaint.
    pub(crate) fn printed(self) -> String {
        assert_eq!((self.status, self.err.as_str()), (Some(0), ""), "{}", self.out);
        self.out
    }

    /// Its complaint, one line; it must have refused, without a result.
    pub(crate) fn complaint(self) -> String {
        self.complaint_with(1)
    }

    /// The same with another exit status.
    pub(crate) fn complaint_with(self, status: i32) -> String {
        assert_eq!((self.status, self.out.as_str()), (Some(status), ""), "{}", self.err);
        assert!(self.err.starts_with("tlsresumectl: ") && self.err.ends_with('\n'), "{}", self.err);
        assert_eq!(self.err.lines().count(), 1, "{}", self.err);
        self.err
    }

    pub(crate) fn json(self) -> Value {
        serde_json::from_str(&self.printed()).expect("JSON")
    }
}

/// A directory in memory, gone at the end of the test.
pub(crate) struct Place(TempDir);

impl Place {
    pub(crate) fn new() -> Self {
        Place(TempDir::new_in("/dev/shm").expect("a temporary directory"))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn memory(&self) -> PathBuf {
        self.path("memory")
    }

    pub(crate) fn file(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        std::fs::write(self.path(name), text).expect("writable");
        self.path(name)
    }

    pub(crate) fn config(&self) -> Config {
        let memory = Memory { path: Some(self.memory()), size: 512 * 1024, lock: false };
        Config { memory, ..Config::default() }
    }

    /// A server, as far as memory and keys go.
    pub(crate) fn server(&self) -> Engine {
        Engine::new(self.config()).expect("memory in /dev/shm")
    }

    /// The tool, told of this memory alone.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = tool();
        command.env("TLSRESUME_MEMORY_PATH", self.memory()).args(arguments);
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        run(&mut self.command(arguments))
    }

    /// Names in the directory.
    pub(crate) fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.0.path()).expect("readable");
        let names = entries.map(|entry| entry.expect("an entry").file_name());
        let mut names: Vec<_> = names.map(|name| name.to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

/// The tool without any setting of the caller's environment.
pub(crate) fn tool() -> Command {
    let mut command = Command::new(Path::new(env!("CARGO_BIN_EXE_tlsresumectl")));
    let set = std::env::vars_os().map(|(name, _)| name);
    let ours = |name: &std::ffi::OsString| name.to_string_lossy().starts_with("TLSRESUME_");
    for name in set.filter(ours).chain(["NOTIFY_SOCKET".into()]) {
        command.env_remove(name);
    }
    command
}

pub(crate) fn run(command: &mut Command) -> Ran {
    Ran::of(command.output().expect("the tool starts"))
}
