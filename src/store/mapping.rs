//! Mapped memory, and the part of it that is the same in every version of the layout: the *root*.
//!
//! The root is the header page's fixed words and the two ring slots. Who can read nothing else of a file can still go
//! by its ring. Only this file and `sys` touch raw memory.

use std::fs::File;
use std::hash::Hasher;
use std::io;
use std::ptr::NonNull;

use siphasher::sip::SipHasher13;

use super::layout::{Geometry, MAGIC, PAGE, REPLACED, ROOT_VERSION, SLOT_BYTES, WORD, word};
use super::slots::Slots;
use super::sync::{AtomicU32, AtomicU64, Ordering};
use crate::sys;

/// Memory that is shared with other processes, or will be.
pub(super) struct Mapping {
    base: NonNull<u8>,
    size: usize,
}

// SAFETY: the memory belongs to no thread, and every access goes through atomics.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: base and size are those of the mapping that `new` made; borrows of it end with self.
        unsafe { sys::unmap(self.base, self.size) };
    }
}

impl Mapping {
    /// The first `size` bytes of a file, or memory without one.
    pub(super) fn new(file: Option<&File>, size: usize) -> io::Result<Self> {
        let base = sys::map(file, size)?;
        sys::exclude_from_dumps(base, size);
        Ok(Mapping { base, size })
    }

    pub(super) fn lock(&self) -> io::Result<()> {
        sys::lock_memory(self.base, self.size)
    }

    /// A word of the header page, except the bell's.
    pub(super) fn word(&self, index: usize) -> &AtomicU64 {
        debug_assert_ne!(index, word::BELL, "is used in halves: see `bell`");
        &self.units(0, PAGE / WORD)[index]
    }

    /// The sequence of the bell: the first half of its word, for the kernel waits on 4 bytes. Nobody uses both halves.
    pub(super) fn bell(&self) -> &AtomicU32 {
        &self.entries(word::BELL * WORD, 1)[0]
    }

    /// The key of all checks in this memory.
    pub(super) fn seed(&self) -> [u64; 2] {
        [word::SEED, word::SEED + 1].map(|index| self.word(index).load(Ordering::Relaxed))
    }

    /// `len` units of 8 bytes from byte `at` on, which is a multiple of 8.
    pub(super) fn units(&self, at: usize, len: usize) -> &[AtomicU64] {
        assert!(at.is_multiple_of(WORD) && at + len * WORD <= self.size);
        #[allow(
            clippy::disallowed_methods,
            reason = "a pointer that is never null, into memory of ours"
        )]
        // SAFETY:
        // - the range lies in the mapping (asserted), which lives as long as self;
        // - the mapping starts on a page, so the address is aligned (asserted for `at`);
        // - every bit pattern is a valid atomic, and every access by any process that follows this layout is atomic and
        //   of this size: header page, slots, tables and logs are used as 8-byte units only, indexes and the header's
        //   bell as 4-byte entries only.
        unsafe {
            std::slice::from_raw_parts(self.base.as_ptr().add(at).cast(), len)
        }
    }

    /// `len` entries of 4 bytes from byte `at` on, which is a multiple of 4.
    pub(super) fn entries(&self, at: usize, len: usize) -> &[AtomicU32] {
        assert!(at.is_multiple_of(4) && at + len * 4 <= self.size);
        #[allow(
            clippy::disallowed_methods,
            reason = "a pointer that is never null, into memory of ours"
        )]
        // SAFETY: as in `units`.
        unsafe {
            std::slice::from_raw_parts(self.base.as_ptr().add(at).cast(), len)
        }
    }

    /// Where the ring lies.
    pub(super) fn slots(&self) -> Slots<'_> {
        let slot = |index| self.units(Geometry::slot_at(index), SLOT_BYTES / WORD);
        Slots { word: self.word(word::RING), slots: [slot(0), slot(1)], seed: self.seed() }
    }

    /// What [`word::CHECK`] holds when the fixed words are whole.
    pub(super) fn root_check(&self) -> u64 {
        let mut hasher = SipHasher13::new();
        for index in 0..word::CHECK {
            hasher.write(&self.word(index).load(Ordering::Relaxed).to_le_bytes());
        }
        hasher.finish()
    }

    /// Whether this is the beginning of a whole file of that length, of whatever layout with this root.
    pub(super) fn has_root(&self, len: u64) -> bool {
        let at = |index| self.word(index).load(Ordering::Relaxed);
        at(word::MAGIC) == MAGIC
            && at(word::ROOT_VERSION) == ROOT_VERSION
            && at(word::SIZE) == len
            && at(word::CHECK) == self.root_check()
    }

    /// Whether another file has taken the place of this one, or is about to.
    pub(super) fn is_superseded(&self) -> bool {
        self.word(word::SUPERSEDED).load(Ordering::Relaxed) == REPLACED
    }

    pub(super) fn set_superseded(&self, superseded: bool) {
        let mark = if superseded { REPLACED } else { 0 };
        self.word(word::SUPERSEDED).store(mark, Ordering::Release);
    }
}
