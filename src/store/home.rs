//! Which ring this process uses: the one in its own memory, or the one in the file that has replaced it.
//!
//! A file that is replaced is marked as superseded. One that an administrator removes is not, and another server makes
//! it anew; so once a second a process looks whether its file is still the one at the path. Where another one is there,
//! its own counts as superseded from then on. A path where nothing is changes nothing: nobody else has another ring.
//!
//! Processes that have a superseded file mapped map the root of the file that is at the path now, and go on with the
//! ring there: what is revoked there is revoked for them. Where that cannot be had, they cannot know what was revoked,
//! and use no ring at all.
//!
//! Owns: [`Home`], one for memory that is mapped from a file; the mapping of the successor's root. Called by: the
//! store. Threads: nobody waits; several threads that look at the same time open and map the file each. Forks: a child
//! inherits what its parent has found, and looks for itself from then on. Failure: [`Ring::None`], with one line in the
//! log, and another look after 5 s.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use super::layout::{ROOT_BYTES, word};
use super::mapping::Mapping;
use super::private::check_owner;
use super::sync::Ordering;
use crate::clock::{self, UnixMillis};
use crate::error::Error;
use crate::sys;
use crate::sys::shared::Shared;

/// After a look that found nothing to go by, the next one.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// How often a process looks which file is at the path.
const LOOK_AT_PATH: Duration = Duration::from_secs(1);

/// What a process that has a file mapped knows of the one in its place.
pub(super) struct Home {
    path: PathBuf,
    own: FileId,
    /// Whose the file is.
    owner: u32,
    /// The file that took the place.
    successor: Shared<Successor>,
    /// Another file was seen at the path.
    is_elsewhere: AtomicBool,
    /// When somebody last looked at the path: wall-clock time, in milliseconds.
    looked: AtomicU64,
    /// Time since boot, in milliseconds, before which nobody looks again.
    look_after: AtomicU64,
    /// The two states were logged: going on with another ring, and with none.
    told: [AtomicBool; 2],
}

/// The file that took the place of another one.
pub(super) struct Successor {
    pub(super) root: Mapping,
    id: FileId,
}

/// The ring that counts.
pub(super) enum Ring {
    /// The one in the memory of this process.
    Own,
    /// The one in the file that took the place.
    Successor(Arc<Successor>),
    /// What was revoked cannot be known.
    None,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct FileId(u64, u64);

impl FileId {
    fn of(meta: &Metadata) -> Self {
        FileId(meta.dev(), meta.ino())
    }
}

impl Home {
    /// For memory that is mapped from the file at `path`.
    pub(super) fn new(path: &Path, own: &File) -> io::Result<Self> {
        let meta = own.metadata()?;
        Ok(Home {
            path: path.to_path_buf(),
            own: FileId::of(&meta),
            owner: meta.uid(),
            is_elsewhere: AtomicBool::new(false),
            looked: AtomicU64::new(0),
            successor: Shared::empty(),
            look_after: AtomicU64::new(0),
            told: [AtomicBool::new(false), AtomicBool::new(false)],
        })
    }

    /// Looks which file is at the path, unless somebody of this process did within the last second.
    pub(super) fn attend(&self, now: UnixMillis) {
        let last = self.looked.load(Ordering::Relaxed);
        // A clock that was put back does not stop it.
        if u128::from(now.0.abs_diff(last)) >= LOOK_AT_PATH.as_millis() {
            self.look_at_path(last, now);
        }
    }

    #[cold]
    fn look_at_path(&self, last: u64, now: UnixMillis) {
        let mine = self.looked.compare_exchange(last, now.0, Ordering::Relaxed, Ordering::Relaxed);
        let Some(there) = mine.ok().and_then(|_| self.at_path()) else { return };
        match &self.successor.load() {
            Some(successor) if successor.id != there => {
                self.successor.store(None);
                self.look_after.store(0, Ordering::Relaxed);
            }
            Some(_) => {}
            None if there == self.own => {}
            None => self.is_elsewhere.store(true, Ordering::Relaxed),
        }
    }

    /// The file at the path, if it can be one that a server of this user has made: neither a stranger's, nor one that
    /// is being made.
    fn at_path(&self) -> Option<FileId> {
        let meta = fs::symlink_metadata(&self.path).ok()?;
        let is_whole = meta.is_file() && meta.len() >= ROOT_BYTES as u64;
        (is_whole && meta.uid() == self.owner).then(|| FileId::of(&meta))
    }

    /// Whether another file was seen at the path.
    pub(super) fn is_elsewhere(&self) -> bool {
        self.is_elsewhere.load(Ordering::Relaxed)
    }

    /// For who has seen that `own` is superseded.
    #[cold]
    pub(super) fn ring(&self, own: &Mapping) -> Ring {
        let known = self.successor.load();
        if let Some(successor) = known.filter(|it| !it.root.is_superseded()) {
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
    fn look(&self, own: &Mapping) -> Result<Option<Successor>, String> {
        let path = &self.path;
        let file = sys::open_private_existing(path).map_err(|error| format!("open: {error}"))?;
        let meta = file.metadata().map_err(|error| format!("examine: {error}"))?;
        let id = FileId::of(&meta);
        if id == self.own {
            return Ok(None);
        }
        check_owner(&file, path, "belongs to another user").map_err(|error| match error {
            // The line begins with the path.
            Error::Io { source, .. } => source.to_string(),
            other => other.to_string(),
        })?;
        let len = meta.len();
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
            () => Ok(Some(Successor { root, id })),
        }
    }

    #[cfg(all(test, not(loom)))]
    pub(super) fn forget_failure(&self) {
        self.look_after.store(0, Ordering::Relaxed);
    }

    fn tell_new_ring(&self) {
        if !self.told[0].swap(true, Ordering::Relaxed) {
            log::warn!(
                "{}: a new file was put in place, by another release, or because this one was damaged or removed; \
                 tickets go on with the keys there, stored sessions and early data are refused by this process; \
                 restart this server",
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
