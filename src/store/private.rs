//! What makes a file one of this user's alone, and how it is said when it is not.

#![forbid(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use crate::error::{Error, Result};
use crate::sys;

/// Refuses a file that is not private to this user; `of_another` is said of another user's.
pub(super) fn check_owner(file: &File, path: &Path, of_another: &str) -> Result<()> {
    let meta = file.metadata().map_err(io_error(path, "examine"))?;
    let problem = match () {
        () if !meta.is_file() => "is not a regular file; choose another memory.path",
        () if meta.uid() != sys::effective_user() => of_another,
        () if meta.permissions().mode() & 0o077 != 0 => "can be opened by others; chmod 600 it",
        () => return Ok(()),
    };
    Err(unusable(path, problem))
}

pub(super) fn unusable(path: &Path, problem: &str) -> Error {
    let source = io::Error::new(io::ErrorKind::PermissionDenied, problem);
    Error::Io { path: path.into(), action: "use", source }
}

pub(super) fn io_error(path: &Path, action: &'static str) -> impl Fn(io::Error) -> Error {
    let path = path.to_path_buf();
    move |source| Error::Io { path: path.clone(), action, source }
}
