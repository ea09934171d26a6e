//! The mapping itself: made, found again, checked, given back.
//!
//! A file at the configured path is used when its header is whole and as this build and configuration would make it;
//! else a new file takes its place, and the ring of the old one moves over when it can be read. Processes that have the
//! old file go on with it. Only this file and `sys` touch raw memory.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::time::Duration;

use siphasher::sip::SipHasher13;

use super::layout::{Geometry, MAGIC, PAGE, VERSION, WORD, word};
use super::sync::{AtomicU32, AtomicU64, Ordering};
use crate::clock::{self, UnixMillis};
use crate::error::{Error, Result};
use crate::sys::{self, FileLock};

/// Longest wait for another process that is making the file.
const CREATION_PATIENCE: Duration = Duration::from_secs(2);

/// What keeps whoever only looks from looking.
const NOT_THERE: &str = "is not there yet; start a server with this memory.path first";
const NOT_OURS: &str = "belongs to another user; run this as the user of the server";

/// What keeps whoever would share from sharing.
const TAKEN: &str = "belongs to another user; remove it or choose another memory.path";

/// Shared memory of a known geometry.
pub(super) struct Region {
    base: NonNull<u8>,
    geometry: Geometry,
    /// The memory is a file that may come back after a crash as it was some time before.
    pub(super) on_disk: bool,
}

// SAFETY: the memory belongs to no thread, and every access goes through atomics.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: base and size are those of the mapping that `new` took over; borrows of it end with self.
        unsafe { sys::unmap(self.base, self.geometry.size) };
    }
}

/// How a file came to be used, for the log.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Opened {
    /// It did not exist.
    Created,
    /// It was there, and fits.
    Found,
    /// It was there and did not fit, for this reason; a new one took its place.
    Replaced(&'static str),
}

impl Region {
    /// Memory that only this process and its future children have.
    pub(super) fn anonymous(size: usize) -> Result<Self> {
        let failed =
            |source| Error::Io { path: PathBuf::from("anonymous memory"), action: "map", source };
        let region = Self::new(None, size).map_err(failed)?;
        region.write_header(clock::now());
        Ok(region)
    }

    /// The file at `path`, made if need be. What `take_over` copies from a file that is replaced, nobody sees missing.
    pub(super) fn open(
        path: &Path,
        size: usize,
        take_over: impl FnOnce(&Self, &Self),
    ) -> Result<(Self, Opened)> {
        let locked = open_locked(path)?;
        let file = locked.file();
        if is_on_disk(file) {
            log::warn!(
                "{}: is on a disk: keys outlive their time there, and early data is refused, for after a crash the file \
                 may come back as it was before; use /dev/shm or /run/tlsresume",
                path.display()
            );
        }
        let found = file.metadata().map_err(io_error(path, "examine"))?.len();
        if found == 0 {
            // Made beside it: who is killed in between leaves an empty file, which the next one replaces.
            let region = replace(path, size, |_| ()).inspect_err(|_| give_up(file, path))?;
            return Ok((region, Opened::Created));
        }
        check_magic(file, path)?;
        let old = Self::find(file, found, size).map_err(io_error(path, "map"))?;
        let problem = old.as_ref().map_or(Some("is cut short"), |old| old.misfit(size));
        match (problem, old) {
            (None, Some(old)) => Ok((old, Opened::Found)),
            (problem, old) => {
                let old = old.filter(Self::header_is_whole);
                let region = replace(path, size, |fresh| {
                    if let Some(old) = &old {
                        take_over(old, fresh);
                    }
                })?;
                Ok((region, Opened::Replaced(problem.unwrap_or("cannot be used"))))
            }
        }
    }

    /// The file at `path` as it is, of whatever size: nothing is made, nothing is replaced.
    pub(super) fn open_existing(path: &Path) -> Result<Self> {
        let file = sys::open_private_existing(path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => unusable(path, NOT_THERE),
            io::ErrorKind::PermissionDenied => unusable(path, NOT_OURS),
            _ => io_error(path, "open")(source),
        })?;
        check_owner(&file, path, NOT_OURS)?;
        let len = file.metadata().map_err(io_error(path, "examine"))?.len();
        if len == 0 {
            return Err(unusable(path, NOT_THERE));
        }
        check_magic(&file, path)?;
        let size = usize::try_from(len).unwrap_or(usize::MAX);
        let found = Self::find(&file, len, size).map_err(io_error(path, "map"))?;
        let replaced_soon = |problem| {
            unusable(path, &format!("{problem}; the next server that starts replaces it"))
        };
        let region = found.ok_or_else(|| replaced_soon("is cut short"))?;
        region.misfit(size).map_or(Ok(region), |problem| Err(replaced_soon(problem)))
    }

    /// Maps a file of ours as it is; `None` when it is too short to be whole.
    fn find(file: &File, len: u64, wanted: usize) -> io::Result<Option<Self>> {
        let Some(geometry) = usize::try_from(len).ok().and_then(Geometry::of) else {
            return Ok(None);
        };
        if geometry.size == wanted {
            // A copy may have holes, which cannot be filled later if the file system is full by then.
            sys::allocate(file, len)?;
        }
        Self::new(Some(file), geometry.size).map(Some)
    }

    pub(super) fn geometry(&self) -> &Geometry {
        &self.geometry
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
        assert!(at.is_multiple_of(WORD) && at + len * WORD <= self.geometry.size);
        #[allow(
            clippy::disallowed_methods,
            reason = "a pointer that is never null, into memory of ours"
        )]
        // SAFETY:
        // - the range lies in the mapping (asserted), which lives as long as self;
        // - the mapping starts on a page, so the address is aligned (asserted for `at`);
        // - every bit pattern is a valid atomic, and every access by any process that follows this layout is atomic and
        //   of this size: header page, slots and logs are used as 8-byte units only, indexes and the header's bell as
        //   4-byte entries only.
        unsafe {
            std::slice::from_raw_parts(self.base.as_ptr().add(at).cast(), len)
        }
    }

    /// `len` entries of 4 bytes from byte `at` on, which is a multiple of 4.
    pub(super) fn entries(&self, at: usize, len: usize) -> &[AtomicU32] {
        assert!(at.is_multiple_of(4) && at + len * 4 <= self.geometry.size);
        #[allow(
            clippy::disallowed_methods,
            reason = "a pointer that is never null, into memory of ours"
        )]
        // SAFETY: as in `units`.
        unsafe {
            std::slice::from_raw_parts(self.base.as_ptr().add(at).cast(), len)
        }
    }

    fn new(file: Option<&File>, size: usize) -> io::Result<Self> {
        let geometry =
            Geometry::of(size).ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))?;
        let base = sys::map(file, size)?;
        sys::exclude_from_dumps(base, size);
        Ok(Region { base, geometry, on_disk: file.is_some_and(is_on_disk) })
    }

    fn create(file: &File, size: usize) -> io::Result<Self> {
        sys::allocate(file, size as u64)?;
        let region = Self::new(Some(file), size)?;
        region.write_header(clock::now());
        Ok(region)
    }

    pub(super) fn lock(&self) -> io::Result<()> {
        sys::lock_memory(self.base, self.geometry.size)
    }

    fn write_header(&self, now: UnixMillis) {
        let mut seed = [0; 16];
        let mut node_id = [0; 8];
        // Without randomness there are no keys, so there is nothing that nodes could share.
        let _ = sys::random(&mut node_id);
        // A seed of zeros still finds damage by accident, and who can write this memory knows the seed anyway.
        let _ = sys::random(&mut seed);
        let [seed_low, seed_high] = words_of(u128::from_le_bytes(seed));
        let [boot_low, boot_high] = words_of(sys::boot_id());
        let words = [
            (word::MAGIC, MAGIC),
            (word::VERSION, VERSION),
            (word::SIZE, self.geometry.size as u64),
            (word::BOOT_ID, boot_low),
            (word::BOOT_ID + 1, boot_high),
            (word::SEED, seed_low),
            (word::SEED + 1, seed_high),
            (word::CREATED, now.0),
        ];
        words.iter().for_each(|(index, value)| self.word(*index).store(*value, Ordering::Relaxed));
        self.word(word::NODE_ID).store(u64::from_le_bytes(node_id), Ordering::Relaxed);
        self.word(word::CHECK).store(self.header_check(), Ordering::Release);
    }

    pub(super) fn header_check(&self) -> u64 {
        let words = (0..word::CHECK)
            .flat_map(|index| self.word(index).load(Ordering::Relaxed).to_le_bytes());
        SipHasher13::new().hash(&words.collect::<Vec<u8>>())
    }

    fn header_is_whole(&self) -> bool {
        let at = |index| self.word(index).load(Ordering::Relaxed);
        at(word::MAGIC) == MAGIC
            && at(word::VERSION) == VERSION
            && at(word::SIZE) == self.geometry.size as u64
            && at(word::CHECK) == self.header_check()
    }

    /// Why this memory cannot be used, if it cannot.
    fn misfit(&self, size: usize) -> Option<&'static str> {
        let at = |index| self.word(index).load(Ordering::Relaxed);
        let boot = [word::BOOT_ID, word::BOOT_ID + 1].map(at);
        match () {
            () if at(word::VERSION) != VERSION => Some("has the layout of another version"),
            () if !self.header_is_whole() => Some("is damaged"),
            () if self.geometry.size != size => Some("has another size than memory.size"),
            () if boot != words_of(sys::boot_id()) => Some("is from before the last boot"),
            () => None,
        }
    }
}

/// Refuses a file that something else made: putting ours in its place would destroy it.
fn check_magic(file: &File, path: &Path) -> Result<()> {
    let mut magic = [0; WORD];
    match file.read_exact_at(&mut magic, 0) {
        Ok(()) if u64::from_le_bytes(magic) == MAGIC => Ok(()),
        _ => Err(unusable(
            path,
            "is not a libtlsresume file; remove it or choose another memory.path",
        )),
    }
}

fn words_of(number: u128) -> [u64; 2] {
    let [low, high] = [number, number >> 64].map(|part| part & u128::from(u64::MAX));
    [low, high].map(|part| u64::try_from(part).unwrap_or(0))
}

/// Whether a file is on a disk, as far as the system tells.
fn is_on_disk(file: &File) -> bool {
    !sys::in_memory(file).unwrap_or(false)
}

/// Opens the file at `path`, or makes an empty one, and holds its lock against others who are doing the same.
fn open_locked(path: &Path) -> Result<FileLock> {
    let give_up = clock::since_boot() + CREATION_PATIENCE;
    loop {
        let file = sys::open_private(path, false).map_err(io_error(path, "open"))?;
        check_owner(&file, path, TAKEN)?;
        let locked = FileLock::try_new(file);
        match locked {
            // Somebody may have replaced it between our opening and our lock.
            Ok(locked) if sys::same_file(locked.file(), path).unwrap_or(false) => {
                return Ok(locked);
            }
            Err(source) if clock::since_boot() > give_up => {
                return Err(Error::Io { path: path.into(), action: "lock", source });
            }
            _ => sys::pause(Duration::from_millis(1)),
        }
    }
}

fn check_owner(file: &File, path: &Path, of_another: &str) -> Result<()> {
    let meta = file.metadata().map_err(io_error(path, "examine"))?;
    let problem = match () {
        () if !meta.is_file() => "is not a regular file; choose another memory.path",
        () if meta.uid() != sys::effective_user() => of_another,
        () if meta.permissions().mode() & 0o077 != 0 => "can be opened by others; chmod 600 it",
        () => return Ok(()),
    };
    Err(unusable(path, problem))
}

fn unusable(path: &Path, problem: &str) -> Error {
    let source = io::Error::new(io::ErrorKind::PermissionDenied, problem);
    Error::Io { path: path.into(), action: "use", source }
}

/// Makes a new file beside `path` and puts it in its place, so that nobody ever sees one half made.
fn replace(path: &Path, size: usize, fill: impl FnOnce(&Region)) -> Result<Region> {
    let mut suffix = [0; 8];
    let _ = sys::random(&mut suffix);
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{:016x}", u64::from_le_bytes(suffix)));
    let fresh = PathBuf::from(name);
    let file = sys::open_private(&fresh, true).map_err(io_error(path, "create"))?;
    let made = Region::create(&file, size).and_then(|region| {
        fill(&region);
        std::fs::rename(&fresh, path)?;
        Ok(region)
    });
    made.inspect_err(|_| {
        // What cannot be removed is an empty leftover beside the path that the error names.
        let _ = std::fs::remove_file(&fresh);
    })
    .map_err(io_error(path, "allocate"))
}

/// Takes away a file that could not be given its size, so that the next start tries again.
fn give_up(file: &File, path: &Path) {
    if sys::same_file(file, path).unwrap_or(false) {
        // The error that led here is the one that is reported.
        let _ = std::fs::remove_file(path);
    }
}

fn io_error(path: &Path, action: &'static str) -> impl Fn(io::Error) -> Error {
    let path = path.to_path_buf();
    move |source| Error::Io { path: path.clone(), action, source }
}
