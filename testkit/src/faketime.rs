//! Programs whose wall clock the test steps, by libfaketime.

use std::fs;
use std::path::PathBuf;

use crate::error::Doing;
use crate::{Error, Folder, Result};

/// Where Debian has it, below the folder of the architecture.
const LIBRARY: &str = "faketime/libfaketimeMT.so.1";

/// A wall clock that stands apart from the real one by what the test says. Monotonic clocks of the
/// programs that live by it stay as they are.
#[derive(Debug)]
pub struct FakeClock {
    library: PathBuf,
    folder: Folder,
}

impl FakeClock {
    /// One that shows the real time.
    pub fn new() -> Result<FakeClock> {
        let clock = FakeClock { library: library()?, folder: Folder::new()? };
        clock.set(0)?;
        Ok(clock)
    }

    /// Sets it to the real time and so many seconds, for all who live by it, at once.
    pub fn set(&self, seconds: i64) -> Result<()> {
        // The programs read the file whenever they look at the clock: they never see half of it.
        let fresh = self.folder.file("next");
        fs::write(&fresh, format!("{seconds:+}\n")).doing("writing the time")?;
        fs::rename(&fresh, self.folder.file("time")).doing("writing the time")
    }

    /// The variables that have a program live by it.
    pub fn environment(&self) -> [(&'static str, String); 4] {
        let text = |path: PathBuf| path.display().to_string();
        [
            ("LD_PRELOAD", text(self.library.clone())),
            ("FAKETIME_TIMESTAMP_FILE", text(self.folder.file("time"))),
            ("FAKETIME_NO_CACHE", "1".into()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
        ]
    }
}

fn library() -> Result<PathBuf> {
    let folders = fs::read_dir("/usr/lib").doing("looking for libfaketime")?;
    folders
        .filter_map(|folder| Some(folder.ok()?.path().join(LIBRARY)))
        .find(|path| path.is_file())
        .ok_or(Error::MissingProgram { program: "libfaketime".into(), package: "faketime" })
}
