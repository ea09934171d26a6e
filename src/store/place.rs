//! The file at `memory.path`: found, made, or replaced.
//!
//! A file of this build's layout is used as it is, whatever its size. One of another layout, or a damaged one, is
//! replaced: a new file is made beside it, takes over its ring where that can be read, and is renamed into its place.
//! Before that the old one is marked as superseded, so that processes that have it mapped go on with the new one's
//! ring.
//!
//! All of it happens under a lock on the file that is at the path, so no two processes make files there at the same
//! time. What a killed process has left beside it is removed. Those who find a file that is whole share the lock.
//!
//! Owns: the file until it is open; nothing after that. Called by: the store, when an instance is made, and while one has
//! no file. Threads and forks:
//! any; the lock is on the file, and others wait for who makes the file, the longer the larger it is. Failure: an
//! error, after which the instance works in anonymous memory until the file can be had; a file that was there stays,
//! unless it was empty.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::holds::{BootClock, NOBODY, RING_HOLD};
use super::home::Home;
use super::layout::{FIRST_WITH_ROOT, MAGIC, ROOT_BYTES, WORD, word};
use super::lease::Lease;
use super::mapping::Mapping;
use super::private::{check_owner, io_error, unusable};
use super::region::{Region, is_on_disk};
use super::sync::Ordering;
use crate::clock;
use crate::error::{Error, Result};
use crate::sys::{self, FileLock};

/// Longest wait for another process that is making the file: for any file, and for each [`BYTES_A_SECOND`] of it.
const CREATION_PATIENCE: Duration = Duration::from_secs(2);

/// What the slowest machine allocates in a second.
const BYTES_A_SECOND: usize = 128 << 20;

/// The first pause of who waits for the lock, and the longest. Many who look often would keep the processors from who
/// makes the file.
const PAUSES: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(20));

/// Longest wait for a process that is changing the ring of a file that is replaced: longer than one may have it.
const RING_PATIENCE: Duration = Duration::from_millis(1500);

/// What keeps whoever only looks from looking.
const NOT_THERE: &str = "is not there yet; start a server with this memory.path first";
const NOT_OURS: &str = "belongs to another user; run this as the user of the server";

/// What keeps whoever would share from sharing.
const TAKEN: &str = "belongs to another user; remove it or choose another memory.path";

/// How a file came to be used, for the log.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Opened {
    /// It did not exist.
    Created,
    /// It was there.
    Found,
    /// It was there and did not fit, for this reason; a new one took its place.
    Replaced(&'static str),
}

/// The file at `path`, made with `size` bytes if need be.
pub(super) fn open(path: &Path, size: usize) -> Result<(Region, Home, Opened)> {
    let give_up = clock::since_boot() + patience(size);
    let found = {
        let locked = open_locked(path, sys::lock_shared, give_up)?;
        warn_of_disk(locked.file(), path);
        find(locked.file(), path)?
    };
    match found {
        Some((region, home)) => Ok((region, home, Opened::Found)),
        None => make_or_mend(path, size, give_up),
    }
}

/// The file, where nothing has to be done about it. Any number may find it at the same time.
fn find(file: &File, path: &Path) -> Result<Option<(Region, Home)>> {
    let len = length(file, path)?;
    if len == 0 || leftovers(path).next().is_some() {
        return Ok(None);
    }
    check_magic(file, path)?;
    let region = Region::found(file, len).map_err(io_error(path, "map"))?.ok();
    let Some(region) = region.filter(|region| !region.is_superseded()) else { return Ok(None) };
    Ok(Some((region, Home::new(path, file).map_err(io_error(path, "examine"))?)))
}

/// The same with whatever has to be done, for which nobody else may be at the file.
fn make_or_mend(path: &Path, size: usize, give_up: Duration) -> Result<(Region, Home, Opened)> {
    let locked = open_locked(path, sys::lock_alone, give_up)?;
    let file = locked.file();
    remove_leftovers(path);
    let len = length(file, path)?;
    if len == 0 {
        // Made beside it: who is killed in between leaves an empty file, which the next one replaces.
        let (region, home) = replace(path, size, None).inspect_err(|_| take_away(file, path))?;
        return Ok((region, home, Opened::Created));
    }
    check_magic(file, path)?;
    match Region::found(file, len).map_err(io_error(path, "map"))? {
        Ok(region) => {
            // Who was about to replace it was killed: it is in its place, and nobody else is at it.
            region.set_superseded(false);
            let home = Home::new(path, file).map_err(io_error(path, "examine"))?;
            Ok((region, home, Opened::Found))
        }
        Err(problem) => {
            let old = Old::of(file, len).map_err(io_error(path, "map"))?;
            let (region, home) = replace(path, size, old.as_ref())?;
            Ok((region, home, Opened::Replaced(problem)))
        }
    }
}

/// The file at `path` as it is: nothing is made, nothing is replaced.
pub(super) fn open_existing(path: &Path) -> Result<(Region, Home)> {
    let file = sys::open_private_existing(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => unusable(path, NOT_THERE),
        io::ErrorKind::PermissionDenied => unusable(path, NOT_OURS),
        _ => io_error(path, "open")(source),
    })?;
    check_owner(&file, path, NOT_OURS)?;
    let len = length(&file, path)?;
    if len == 0 {
        return Err(unusable(path, NOT_THERE));
    }
    check_magic(&file, path)?;
    let region = Region::found(&file, len).map_err(io_error(path, "map"))?.map_err(|problem| {
        unusable(path, &format!("{problem}; the next server that starts replaces it"))
    })?;
    Ok((region, Home::new(path, &file).map_err(io_error(path, "examine"))?))
}

/// The file at `path`, if nothing has to be done about it and nobody is at it.
pub(super) fn open_now(path: &Path) -> Option<(Region, Home)> {
    let file = sys::open_private_existing(path).ok()?;
    check_owner(&file, path, TAKEN).ok()?;
    let locked = sys::lock_shared(file).ok()?;
    // To allocate what is missing would take long.
    let is_whole = sys::same_file(locked.file(), path).unwrap_or(false)
        && sys::is_allocated(locked.file()).unwrap_or(false);
    if is_whole { find(locked.file(), path).ok()? } else { None }
}

/// A file that is replaced, as far as its root goes.
struct Old {
    root: Mapping,
    /// The ring in it can be believed.
    is_whole: bool,
}

impl Old {
    /// `None` when it is too short to have a root, or from before there was one.
    fn of(file: &File, len: u64) -> io::Result<Option<Self>> {
        if len < ROOT_BYTES as u64 {
            return Ok(None);
        }
        let root = Mapping::new(Some(file), ROOT_BYTES)?;
        let version = root.word(word::VERSION).load(Ordering::Relaxed);
        let is_whole = root.has_root(len);
        Ok((version >= FIRST_WITH_ROOT).then_some(Old { root, is_whole }))
    }

    /// Puts its ring, and whose it is, into the file that takes its place, which nobody else has seen yet.
    fn pass_on(&self, fresh: &Region) {
        let realm = self.root.word(word::REALM).load(Ordering::Relaxed);
        fresh.word(word::REALM).store(realm, Ordering::Relaxed);
        if let Some(bytes) = self.root.slots().read().1 {
            fresh.slots().publish(0, NOBODY, &bytes);
        }
    }
}

/// Makes a new file beside `path` and puts it in its place, so that nobody ever sees one half made.
fn replace(path: &Path, size: usize, old: Option<&Old>) -> Result<(Region, Home)> {
    let beside = beside(path);
    let nameless = sys::open_nameless(path.parent().unwrap_or(Path::new("/")));
    let made = match nameless
        .and_then(|file| make(&file, path, size, old, || sys::name(&file, &beside)))
    {
        Err(error) if !is_for_want_of_room(&error) => {
            // Not every file system has files without a name, and not every process may name them.
            sys::open_private(&beside, true)
                .and_then(|file| make(&file, path, size, old, || Ok(())))
        }
        made => made,
    };
    let (region, home) = made
        .inspect_err(|_| {
            // What cannot be removed is removed by the next one.
            let _ = fs::remove_file(&beside);
        })
        .map_err(io_error(path, "allocate"))?;
    Ok((by_name(path, size).unwrap_or(region), home))
}

/// The file that was just made, mapped anew. A mapping that was made before the file had its name goes without one in
/// /proc/PID/maps, where others look for who has the file; it would do otherwise.
fn by_name(path: &Path, size: usize) -> Option<Region> {
    let file = sys::open_private_existing(path).ok()?;
    Region::found(&file, size as u64).ok()?.ok()
}

/// Fills a new file, has it named as [`beside`] says, and moves it to `path`.
fn make(
    file: &File,
    path: &Path,
    size: usize,
    old: Option<&Old>,
    name: impl FnOnce() -> io::Result<()>,
) -> io::Result<(Region, Home)> {
    let region = Region::create(file, size)?;
    let whole = old.filter(|old| old.is_whole);
    // Nobody changes the ring between the copy and the mark. Who holds it for too long was stopped.
    let lease = whole.and_then(|old| {
        let word = old.root.word(word::RING_LEASE);
        Lease::acquire(word, RING_HOLD, RING_PATIENCE, &BootClock::default())
    });
    if let Some(old) = whole {
        if lease.as_ref().is_some_and(Lease::was_taken_over) {
            old.root.slots().shut_out_others();
        }
        old.pass_on(&region);
    }
    name()?;
    let mark = |superseded| {
        if let Some(old) = old {
            old.root.set_superseded(superseded);
        }
    };
    let home = Home::new(path, file)?;
    mark(true);
    // Who was stopped for so long that others took the ring may have missed what they changed.
    let undisturbed = lease.as_ref().is_none_or(Lease::still_held);
    let moved = if undisturbed { fs::rename(beside(path), path) } else { Err(interrupted()) };
    moved.inspect_err(|_| mark(false))?;
    Ok((region, home))
}

fn interrupted() -> io::Error {
    io::Error::other("stopped for too long while the file was replaced; start again")
}

/// Where a new file is until it is whole.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    PathBuf::from(name)
}

/// Removes what killed processes have left beside the file: with all keys in it. To be called with nobody else at it.
fn remove_leftovers(path: &Path) {
    // What cannot be removed shows when a new file is made.
    leftovers(path).for_each(|leftover| drop(fs::remove_file(leftover)));
}

/// What killed processes have left beside the file, as long as nobody makes one there.
fn leftovers(path: &Path) -> impl Iterator<Item = PathBuf> {
    let name = path.file_name().unwrap_or_default();
    let entries = path.parent().and_then(|directory| fs::read_dir(directory).ok());
    let old = entries.into_iter().flatten().flatten();
    let old = old.filter(|entry| is_leftover_of(name.as_bytes(), &entry.file_name()));
    old.map(|entry| entry.path()).chain([beside(path)]).filter(|leftover| {
        let meta = fs::symlink_metadata(leftover);
        meta.is_ok_and(|meta| meta.is_file() && meta.uid() == sys::effective_user())
    })
}

/// Whether a name is one that releases before 0.2 gave: a file's, a dot, 16 hexadecimal digits.
fn is_leftover_of(file: &[u8], name: &OsString) -> bool {
    let suffix = name.as_bytes().strip_prefix(file).and_then(|rest| rest.strip_prefix(b"."));
    suffix.is_some_and(|digits| digits.len() == 16 && digits.iter().all(u8::is_ascii_hexdigit))
}

fn is_for_want_of_room(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT | libc::EFBIG | libc::ENOMEM))
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

/// Opens the file at `path`, or makes an empty one, and holds its lock against others who are doing the same.
fn open_locked(
    path: &Path,
    lock: fn(File) -> io::Result<FileLock>,
    give_up: Duration,
) -> Result<FileLock> {
    let (mut pause, longest) = PAUSES;
    loop {
        let file = sys::open_private(path, false).map_err(io_error(path, "open"))?;
        check_owner(&file, path, TAKEN)?;
        let source = match lock(file) {
            // Somebody may have replaced it between our opening and our lock.
            Ok(locked) if sys::same_file(locked.file(), path).unwrap_or(false) => {
                return Ok(locked);
            }
            Ok(_) => io::Error::from_raw_os_error(libc::ESTALE),
            Err(source) => source,
        };
        if clock::since_boot() > give_up {
            return Err(Error::Io { path: path.into(), action: "lock", source });
        }
        sys::pause(pause);
        pause = (pause * 2).min(longest);
    }
}

/// How long others are waited for who make a file of that size.
fn patience(size: usize) -> Duration {
    CREATION_PATIENCE + Duration::from_secs((size / BYTES_A_SECOND) as u64)
}

fn warn_of_disk(file: &File, path: &Path) {
    if is_on_disk(file) {
        log::warn!(
            "{}: is on a disk: keys outlive their time there, and early data is refused, for after a crash the file \
             may come back as it was before; use /dev/shm or /run/tlsresume",
            path.display()
        );
    }
}

fn length(file: &File, path: &Path) -> Result<u64> {
    Ok(file.metadata().map_err(io_error(path, "examine"))?.len())
}

/// Takes away a file that could not be given its size, so that the next start tries again.
fn take_away(file: &File, path: &Path) {
    if sys::same_file(file, path).unwrap_or(false) {
        // The error that led here is the one that is reported.
        let _ = fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use super::*;

    #[test]
    fn who_loses_the_ring_while_it_replaces_the_file_puts_nothing_in_its_place() {
        let directory = tempfile::TempDir::new_in("/dev/shm").unwrap();
        let path = directory.path().join("store");
        let size = 512 * 1024;
        let (region, ..) = open(&path, size).unwrap();
        let file = File::options().read(true).write(true).open(&path).unwrap();
        let old = Old::of(&file, size as u64).unwrap().unwrap();
        let fresh = sys::open_private(&beside(&path), true).unwrap();
        let stopped_for_long = || {
            region.word(word::RING_LEASE).fetch_add(1, Ordering::Relaxed);
            Ok(())
        };
        assert!(make(&fresh, &path, size, Some(&old), stopped_for_long).is_err());
        assert!(!region.is_superseded());
        assert!(sys::same_file(&file, &path).unwrap(), "the old one is in its place");
    }
}
