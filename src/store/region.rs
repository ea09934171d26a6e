//! Memory of this build's layout: made, and checked before it is used.

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::path::PathBuf;

use super::layout::{Geometry, ROOT_VERSION, VERSION, word};
use super::mapping::Mapping;
use super::sync::Ordering;
use crate::clock::{self, UnixMillis};
use crate::error::{Error, Result};
use crate::sys;

/// Shared memory of a known geometry.
pub(super) struct Region {
    mapping: Mapping,
    geometry: Geometry,
    /// The memory is a file that may come back after a crash as it was some time before.
    pub(super) on_disk: bool,
}

impl Deref for Region {
    type Target = Mapping;

    fn deref(&self) -> &Mapping {
        &self.mapping
    }
}

impl Region {
    /// Memory that only this process and its future children have.
    pub(super) fn anonymous(size: usize) -> Result<Self> {
        let failed =
            |source| Error::Io { path: PathBuf::from("anonymous memory"), action: "map", source };
        let region = Self::map(None, size).map_err(failed)?;
        region.write_header(clock::now());
        Ok(region)
    }

    /// Gives a new file its size and its header.
    pub(super) fn create(file: &File, size: usize) -> io::Result<Self> {
        sys::allocate(file, size as u64)?;
        let region = Self::map(Some(file), size)?;
        region.write_header(clock::now());
        Ok(region)
    }

    /// A file of that length as it is, of whatever size; or why it cannot be used.
    pub(super) fn found(
        file: &File,
        len: u64,
    ) -> io::Result<std::result::Result<Self, &'static str>> {
        let Some(geometry) = usize::try_from(len).ok().and_then(Geometry::of) else {
            return Ok(Err("is cut short"));
        };
        let region = Self::map(Some(file), geometry.size)?;
        if let Some(problem) = region.misfit() {
            return Ok(Err(problem));
        }
        // A copy may have holes, which cannot be filled later if the file system is full by then. Any number may do it
        // at the same time.
        if !sys::is_allocated(file)? {
            sys::allocate(file, len)?;
        }
        Ok(Ok(region))
    }

    pub(super) fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    fn map(file: Option<&File>, size: usize) -> io::Result<Self> {
        let geometry =
            Geometry::of(size).ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))?;
        let mapping = Mapping::new(file, size)?;
        Ok(Region { mapping, geometry, on_disk: file.is_some_and(is_on_disk) })
    }

    fn write_header(&self, now: UnixMillis) {
        let mut random = [0; 24];
        // Without randomness there are no keys, so there is nothing that nodes could share. A seed of zeros still finds
        // damage by accident, and who can write this memory knows the seed anyway.
        let _ = sys::random(&mut random);
        let [seed_low, seed_high, node_id] =
            [0, 8, 16].map(|at| random[at..].first_chunk().copied().map_or(0, u64::from_le_bytes));
        let words = [
            (word::MAGIC, super::layout::MAGIC),
            (word::VERSION, VERSION),
            (word::SIZE, self.geometry.size as u64),
            (word::ROOT_VERSION, ROOT_VERSION),
            (word::SEED, seed_low),
            (word::SEED + 1, seed_high),
            (word::CREATED, now.0),
            (word::NODE_ID, node_id),
        ];
        words.iter().for_each(|(index, value)| self.word(*index).store(*value, Ordering::Relaxed));
        self.word(word::CHECK).store(self.root_check(), Ordering::Release);
    }

    /// Why this memory cannot be used, if it cannot.
    fn misfit(&self) -> Option<&'static str> {
        match self.word(word::VERSION).load(Ordering::Relaxed) {
            VERSION if self.has_root(self.geometry.size as u64) => None,
            VERSION => Some("is damaged"),
            _ => Some("has the layout of another version"),
        }
    }
}

/// Whether a file is on a disk, as far as the system tells.
pub(super) fn is_on_disk(file: &File) -> bool {
    !sys::in_memory(file).unwrap_or(false)
}
