//! `c-tests/policies`: the matrix of attackers and of honest clients, as one C program that is built twice.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::error::Doing;
use crate::installed::preload_library;
use crate::{Error, Folder, Process, Result, say};

/// Compiling takes a second or two, where nobody else needs the processors.
const BUILDING: Duration = Duration::from_secs(120);

/// How long a table may take: in depth it is a few times longer.
const EVERYDAY: Duration = Duration::from_secs(300);
const DEEP: Duration = Duration::from_secs(3600);

/// How the library gets into the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policies {
    /// It calls `tlsresume_install()`.
    ThroughTheApi,
    /// By `LD_PRELOAD`.
    Preloaded,
}

impl Policies {
    /// Runs the program until it ends, with these arguments and variables; what it counted is said. Fails when a cell
    /// is not as it must be.
    pub fn hold<'a>(
        self,
        words: &[&str],
        envs: impl IntoIterator<Item = (&'a str, String)>,
    ) -> Result<()> {
        let folder = Folder::in_memory()?;
        let mut command = Command::new(self.program()?);
        command.arg(folder.path()).args(words);
        for (name, _) in env::vars_os() {
            if name.to_string_lossy().starts_with("TLSRESUME_") && name != "TLSRESUME_DEEP" {
                command.env_remove(name);
            }
        }
        if self == Policies::Preloaded {
            command.env("LD_PRELOAD", preload_library()?);
        }
        command.envs(envs);
        let limit = if env::var_os("TLSRESUME_DEEP").is_some() { DEEP } else { EVERYDAY };
        let mut process = Process::start(command, "gcc")?;
        let ended = process.wait_end(limit)?;
        if !ended.success() {
            return Err(process.unexpected("cells are not as they must be"));
        }
        process.transcript().stdout().for_each(say);
        Ok(())
    }

    fn program(self) -> Result<PathBuf> {
        let directory = built()?;
        Ok(directory.join(match self {
            Policies::ThroughTheApi => "policies",
            Policies::Preloaded => "policies-preloaded",
        }))
    }
}

/// The directory of both programs, built when they are asked for first.
fn built() -> Result<PathBuf> {
    static BUILT: Mutex<Option<PathBuf>> = Mutex::new(None);
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(directory) = &*built {
        return Ok(directory.clone());
    }
    Ok(built.insert(build()?).clone())
}

fn build() -> Result<PathBuf> {
    let libraries = preload_library()?.parent().expect("it is in a directory").to_owned();
    let directory = libraries.with_file_name("c-tests");
    std::fs::create_dir_all(&directory).doing("making a directory")?;
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../c-tests");
    let mut make = Command::new("make");
    // A make that knows nothing of the one which runs this test.
    for name in ["MAKEFLAGS", "MAKELEVEL", "MFLAGS"] {
        make.env_remove(name);
    }
    make.arg("-C").arg(sources).args(["CC=gcc", "policies"]);
    make.arg(format!("OUT={}", directory.display()));
    make.arg(format!("LIBDIR={}", libraries.display()));
    let mut process = Process::start(make, "make")?;
    if process.wait_end(BUILDING)?.success() {
        Ok(directory)
    } else {
        Err(Error::Unexpected {
            program: "make policies".into(),
            reason: "failed".into(),
            log: process.transcript().to_string(),
        })
    }
}
