//! Folders of one test, gone with the value.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::Result;
use crate::error::Doing;

/// A new, empty folder that is removed, with what is in it, when dropped.
#[derive(Debug)]
pub struct Folder(TempDir);

impl Folder {
    /// A folder for ordinary files.
    pub fn new() -> Result<Folder> {
        builder().tempdir().map(Folder).doing("making a temporary folder")
    }

    /// A folder on tmpfs, for memory paths.
    pub fn in_memory() -> Result<Folder> {
        builder().tempdir_in("/dev/shm").map(Folder).doing("making a folder in /dev/shm")
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// The path of `name` in it.
    pub fn file(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path().join(name)
    }

    /// Writes a file that nobody else can read, and returns its path.
    pub fn write_private(&self, name: &str, content: impl AsRef<[u8]>) -> Result<PathBuf> {
        let path = self.file(name);
        let options =
            File::options().write(true).create(true).truncate(true).mode(0o600).open(&path);
        let written = options.and_then(|mut file| file.write_all(content.as_ref()));
        written.doing("writing a private file").map(|()| path)
    }
}

fn builder() -> tempfile::Builder<'static, 'static> {
    let mut builder = tempfile::Builder::new();
    builder.prefix("tlsresume-");
    builder
}
