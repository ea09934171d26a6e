//! Where the ring is that this process goes by: in its own memory, or in the file that has taken the place of its own.
//!
//! A file that is replaced is marked as superseded. Processes that have it mapped see the mark, map the root of the file
//! that is at the path now, and go on with the ring there: what is revoked there is revoked for them. Where that cannot be
//! had, they cannot know what was revoked, and go by no ring at all. Nobody waits for anybody: who looks opens a file and
//! maps it, and others that look at the same time do the same.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use arc_swap::ArcSwapOption;

use super::layout::{ROOT_BYTES, word};
use super::mapping::Mapping;
use super::private::check_owner;
use super::sync::Ordering;
use crate::clock;
use crate::error::Error;
use crate::sys;

/// After a look that found nothing to go by, the next one.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// What a process that has a file mapped knows of the one in its place.
pub(super) struct Home {
    path: PathBuf,
    own: FileId,
    /// The root of the file that took the place.
    successor: ArcSwapOption<Mapping>,
    /// Time since boot, in milliseconds, before which nobody looks again.
    look_after: AtomicU64,
    /// The two states were logged: going on with another ring, and with none.
    told: [AtomicBool; 2],
}

/// The ring that counts.
pub(super) enum Ring {
    /// The one in the memory of this process.
    Own,
    /// The one in the file that took the place.
    Successor(Arc<Mapping>),
    /// What was revoked cannot be known.
    None,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct FileId(u64, u64);

impl FileId {
    fn of(file: &File) -> io::Result<Self> {
        file.metadata().map(|meta| FileId(meta.dev(), meta.ino()))
    }
}

impl Home {
    /// For memory that is mapped from the file at `path`.
    pub(super) fn new(path: &Path, own: &File) -> io::Result<Self> {
        Ok(Home {
            path: path.to_path_buf(),
            own: FileId::of(own)?,
            successor: ArcSwapOption::empty(),
            look_after: AtomicU64::new(0),
            told: [AtomicBool::new(false), AtomicBool::new(false)],
        })
    }

    /// For who has seen that `own` is superseded.
    #[cold]
    pub(super) fn ring(&self, own: &Mapping) -> Ring {
        let known = self.successor.load_full();
        if let Some(successor) = known.filter(|successor| !successor.is_superseded()) {
            return Ring::Successor(successor);
        }
        let now = u64::try_from(clock::since_boot().as_millis()).unwrap_or(u64::MAX);
        if now < self.look_after.load(Ordering::Relaxed) {
            return Ring::None;
        }
        match self.look(own) {
            // About to be replaced, or who was about to was killed: nobody else has another ring.
            Ok(None) => Ring::Own,
            Ok(Some(successor)) => {
                let successor = Arc::new(successor);
                self.successor.store(Some(successor.clone()));
                self.tell_new_ring();
                Ring::Successor(successor)
            }
            Err(problem) => {
                let later = u64::try_from(LOOK_AGAIN.as_millis()).unwrap_or(u64::MAX);
                self.look_after.store(now.saturating_add(later), Ordering::Relaxed);
                self.tell_no_ring(&problem);
                Ring::None
            }
        }
    }

    /// The root of the file at the path; `None` when that is the one that this process has.
    fn look(&self, own: &Mapping) -> Result<Option<Mapping>, String> {
        let path = &self.path;
        let file = sys::open_private_existing(path).map_err(|error| format!("open: {error}"))?;
        if FileId::of(&file).is_ok_and(|there| there == self.own) {
            return Ok(None);
        }
        check_owner(&file, path, "belongs to another user").map_err(|error| match error {
            // The line begins with the path.
            Error::Io { source, .. } => source.to_string(),
            other => other.to_string(),
        })?;
        let len = file.metadata().map_or(0, |meta| meta.len());
        if len < ROOT_BYTES as u64 {
            return Err("is too short".into());
        }
        let root =
            Mapping::new(Some(&file), ROOT_BYTES).map_err(|error| format!("map: {error}"))?;
        let realm = |of: &Mapping| of.word(word::REALM).load(Ordering::Relaxed);
        match () {
            () if !root.has_root(len) => {
                Err("is damaged, or its ring is in a form of another release".into())
            }
            () if realm(&root) != realm(own) => Err("belongs to another realm".into()),
            () if root.is_superseded() => Err("is about to be replaced".into()),
            () => Ok(Some(root)),
        }
    }

    #[cfg(all(test, not(loom)))]
    pub(super) fn forget_failure(&self) {
        self.look_after.store(0, Ordering::Relaxed);
    }

    fn tell_new_ring(&self) {
        if !self.told[0].swap(true, Ordering::Relaxed) {
            log::warn!(
                "{}: a new file was put in place, by another release or because this one was damaged; tickets go on \
                 with the keys there, stored sessions and early data are refused by this process; restart this server",
                self.path.display()
            );
        }
    }

    fn tell_no_ring(&self, problem: &str) {
        if !self.told[1].swap(true, Ordering::Relaxed) {
            log::warn!(
                "{}: a new file was put in place, and it cannot be used ({problem}); this process cannot know what is \
                 revoked there, and makes full handshakes only; restart this server",
                self.path.display()
            );
        }
    }
}
