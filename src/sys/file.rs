//! Files that processes share: how they are opened and named, their lock, and the storage behind them.
//!
//! Owns: nothing. Called by: `store`. Threads: any. Forks: a child has the same open files, and with them the
//! locks. Failure: an [`io::Error`].

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use super::outcome::cvt;

/// Opens a file for reading and writing that others cannot read, without following a symbolic link at its end.
pub(crate) fn open_private(path: &Path, exclusive: bool) -> io::Result<File> {
    File::options()
        .read(true)
        .write(true)
        .create(!exclusive)
        .create_new(exclusive)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NOCTTY | libc::O_NONBLOCK)
        .open(path)
}

/// The same for a file that is there; nothing is made.
pub(crate) fn open_private_existing(path: &Path) -> io::Result<File> {
    File::options()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NOCTTY | libc::O_NONBLOCK)
        .open(path)
}

/// Makes a file of the same kind that has no name yet, and is gone with the process unless it gets one. Not every file
/// system has such files.
pub(crate) fn open_nameless(directory: &Path) -> io::Result<File> {
    File::options()
        .read(true)
        .write(true)
        .mode(0o600)
        .custom_flags(libc::O_TMPFILE | libc::O_CLOEXEC)
        .open(directory)
}

/// Gives a file of [`open_nameless`] its name, which nothing has yet.
pub(crate) fn name(file: &File, path: &Path) -> io::Result<()> {
    let to = CString::new(path.as_os_str().as_bytes())?;
    let by_descriptor = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    // SAFETY: C strings that live through the calls, and a descriptor that is open for as long as `file` lives.
    let direct = cvt(unsafe {
        libc::linkat(
            file.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_FDCWD,
            to.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    });
    direct.or_else(|_| {
        // Kernels before 6.10 allow the first way to root alone.
        // SAFETY: as above.
        cvt(unsafe {
            let (here, follow) = (libc::AT_FDCWD, libc::AT_SYMLINK_FOLLOW);
            libc::linkat(here, by_descriptor.as_ptr(), here, to.as_ptr(), follow)
        })
    })
}

/// Whether a file lives in memory only (tmpfs, ramfs).
pub(crate) fn in_memory(file: &File) -> io::Result<bool> {
    const TMPFS: i64 = 0x0102_1994;
    const RAMFS: i64 = 0x8584_58f6;
    // SAFETY: statfs is plain data, written by the call before it is read.
    let kind = unsafe {
        let mut stat = std::mem::zeroed::<libc::statfs>();
        cvt(libc::fstatfs(file.as_raw_fd(), &raw mut stat))?;
        stat.f_type
    };
    #[allow(clippy::unnecessary_cast, reason = "f_type is i64 here and i32 or u32 elsewhere")]
    let kind = kind as i64;
    Ok(kind == TMPFS || kind == RAMFS)
}

/// The number of a file that tells whether a path still leads to it.
pub(crate) fn same_file(file: &File, path: &Path) -> io::Result<bool> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: stat is plain data, written by the calls before it is read; the path is a C string.
    unsafe {
        let mut open = std::mem::zeroed::<libc::stat>();
        let mut named = std::mem::zeroed::<libc::stat>();
        cvt(libc::fstat(file.as_raw_fd(), &raw mut open))?;
        cvt(libc::lstat(path.as_ptr(), &raw mut named))?;
        Ok((open.st_dev, open.st_ino) == (named.st_dev, named.st_ino))
    }
}

/// The advisory lock on a whole file, given back when dropped. Closing the file would not do: a mapping of it keeps the
/// open file, and with it the lock, alive.
pub(crate) struct FileLock(File);

/// Takes the lock if nobody has it.
pub(crate) fn lock_alone(file: File) -> io::Result<FileLock> {
    lock(file, libc::LOCK_EX)
}

/// Takes the lock if nobody has it alone.
pub(crate) fn lock_shared(file: File) -> io::Result<FileLock> {
    lock(file, libc::LOCK_SH)
}

fn lock(file: File, how: libc::c_int) -> io::Result<FileLock> {
    // SAFETY: the descriptor is open for as long as `file` lives.
    cvt(unsafe { libc::flock(file.as_raw_fd(), how | libc::LOCK_NB) })?;
    Ok(FileLock(file))
}

impl FileLock {
    /// The locked file.
    pub(crate) fn file(&self) -> &File {
        &self.0
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        // SAFETY: the descriptor is open until the file is dropped, after this.
        unsafe { libc::flock(self.0.as_raw_fd(), libc::LOCK_UN) };
    }
}

/// Bytes that are allocated in one step. Before Linux 6.18 a signal undoes the step that it interrupts, in memory. So
/// steps are short, and after one that was interrupted they are shorter, as far down as a page.
const LONGEST_STEP: u64 = 4 << 20;
const SHORTEST_STEP: u64 = 4096;

/// What the system counts the storage of a file in.
const BLOCK: u64 = 512;

/// Gives a file that size with every byte of it backed by storage, so that no later access can fail. Signals make it
/// take longer, however many there are.
pub(crate) fn allocate(file: &File, size: u64) -> io::Result<()> {
    // Beyond the limit on file sizes the kernel would not only refuse, but send SIGXFSZ, which ends the process.
    if size > file_size_limit() || libc::off_t::try_from(size).is_err() {
        return Err(io::Error::from_raw_os_error(libc::EFBIG));
    }
    if size > most_that_fits(file)? {
        return Err(io::Error::from_raw_os_error(libc::ENOSPC));
    }
    in_steps(size, |from, len| allocate_part(file, from, len))
}

/// Does something with all bytes up to `size`, part by part, however often a part is interrupted.
fn in_steps(size: u64, mut part: impl FnMut(u64, u64) -> io::Result<()>) -> io::Result<()> {
    let (mut done, mut step) = (0, LONGEST_STEP);
    while done < size {
        let len = step.min(size - done);
        match part(done, len) {
            Ok(()) => {
                done += len;
                step = (step * 2).min(LONGEST_STEP);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                step = (step / 2).max(SHORTEST_STEP);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// All of that part, or an error.
fn allocate_part(file: &File, from: u64, len: u64) -> io::Result<()> {
    let too_big = |_| io::Error::from_raw_os_error(libc::EFBIG);
    let from = libc::off_t::try_from(from).map_err(too_big)?;
    let len = libc::off_t::try_from(len).map_err(too_big)?;
    // SAFETY: the descriptor is open for as long as `file` lives.
    match unsafe { libc::posix_fallocate(file.as_raw_fd(), from, len) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// No file of more bytes can have storage. In memory that is known for this file; elsewhere it is the size of the file
/// system. In steps, one that does not fit would fill it up before that shows.
fn most_that_fits(file: &File) -> io::Result<u64> {
    // SAFETY: statvfs is plain data, written by the call before it is read.
    let system = unsafe {
        let mut system = std::mem::zeroed::<libc::statvfs>();
        cvt(libc::fstatvfs(file.as_raw_fd(), &raw mut system))?;
        system
    };
    if system.f_blocks == 0 {
        // It has no limit of its own.
        return Ok(u64::MAX);
    }
    if !in_memory(file)? {
        return Ok(system.f_blocks.saturating_mul(system.f_frsize));
    }
    let has = file.metadata()?.blocks() * BLOCK;
    Ok(system.f_bfree.saturating_mul(system.f_frsize).saturating_add(has))
}

/// Whether [`allocate`] has nothing to do, as far as that can be told at a glance: only in memory does the number of
/// blocks say how much of the file has storage.
pub(crate) fn is_allocated(file: &File) -> io::Result<bool> {
    let meta = file.metadata()?;
    Ok(in_memory(file)? && meta.blocks() >= meta.len().div_ceil(BLOCK))
}

/// `RLIMIT_FSIZE`, or no limit when it cannot be read.
fn file_size_limit() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: `limit` is an rlimit that the call may write.
    unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &raw mut limit) };
    limit.rlim_cur
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_of_signals_leaves_no_part_out_and_stops_nothing() {
        const SIZE: u64 = (64 << 20) + 5;
        // No step takes longer than until the next signal.
        for longest in [SHORTEST_STEP, 100_000, LONGEST_STEP] {
            let mut parts = Vec::new();
            let done = in_steps(SIZE, |from, len| {
                if len > longest {
                    return Err(io::ErrorKind::Interrupted.into());
                }
                parts.push(from..from + len);
                Ok(())
            });
            assert!(done.is_ok(), "{done:?}");
            assert!(parts.windows(2).all(|pair| pair[0].end == pair[1].start));
            assert_eq!((parts[0].start, parts[parts.len() - 1].end), (0, SIZE));
        }
    }

    #[test]
    fn what_is_no_signal_stops_it() {
        let full = in_steps(1, |_, _| Err(io::ErrorKind::StorageFull.into()));
        assert_eq!(full.map_err(|error| error.kind()), Err(io::ErrorKind::StorageFull));
    }
}
