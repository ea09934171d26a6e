//! The secrets of the cluster: lines of one file, the same on every node.
//!
//! Owns: the form of that file. Called by: `engine`, which reads the file and wipes what it read. Threads and forks:
//! immutable once parsed. Failure: [`Error::KeyFile`] with the number of the line and the remedy; no message quotes a
//! line.
//!
//! Every line that is not blank is a secret; there are no comments, since `#` may begin a secret. The first seals and
//! all open, so that a secret is replaced without a moment at which nodes cannot read each other: append the new one
//! on every node, then move it to the top on every node, then delete the old one.

#![forbid(unsafe_code)]

use std::fmt;
use std::iter;

use crate::error::{Error, Result};
use crate::secret::Secret;

/// Shortest secret, in bytes.
pub const MIN_LEN: usize = 32;

/// Most lines: what does not open is tried with each of them at worst.
pub const MAX_LINES: usize = 16;

/// 1 to [`MAX_LINES`] secrets, of which the first seals and all open.
#[derive(Clone)]
pub struct Secrets {
    first: Secret,
    others: Vec<Secret>,
}

impl Secrets {
    /// The secrets in `bytes`, which the caller wipes. `origin` names the file in errors.
    ///
    /// # Errors
    /// There is none, there are too many, or one is too short.
    pub fn parse(bytes: &[u8], origin: &str) -> Result<Secrets> {
        read(bytes).map_err(|problem| Error::KeyFile { origin: origin.to_owned(), problem })
    }

    /// The one that seals.
    pub fn first(&self) -> &Secret {
        &self.first
    }

    /// Those that open: all of them, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = &Secret> {
        iter::once(&self.first).chain(&self.others)
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secrets({})", self.iter().count())
    }
}

/// The secrets, or what is wrong with the file and how to put it right.
fn read(bytes: &[u8]) -> std::result::Result<Secrets, String> {
    let mut secrets = Vec::new();
    for (line, number) in bytes.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).zip(1..) {
        if line.is_empty() {
            continue;
        }
        check(line, number, secrets.len())?;
        secrets.push(Secret::new(line));
    }
    let mut secrets = secrets.into_iter();
    let first = secrets.next().ok_or_else(|| {
        format!("line 1: no secret; write one of at least {MIN_LEN} random bytes as text")
    })?;
    Ok(Secrets { first, others: secrets.collect() })
}

fn check(line: &[u8], number: u32, before: usize) -> std::result::Result<(), String> {
    if line.len() < MIN_LEN {
        return Err(format!(
            "line {number} has {} bytes; every line is a secret of at least {MIN_LEN} bytes: make it longer on every \
             node, or delete it",
            line.len()
        ));
    }
    if before == MAX_LINES {
        return Err(format!(
            "line {number} is one secret too many; a file has at most {MAX_LINES}: delete those that no node seals \
             with any more"
        ));
    }
    Ok(())
}
