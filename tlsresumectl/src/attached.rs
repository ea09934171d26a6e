//! Which processes have the memory mapped, as the kernel tells: nothing in the memory itself names a process.
//!
//! Owns nothing. Called by `reach`. What is read is hostile: a process chooses the names of the files that it maps.
//! Failure: a process that ends meanwhile, or that may not be looked at, is skipped; `None` where /proc does not tell.

use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Processes that have a file of one path mapped, without this one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Attached {
    /// They have the file that this process has.
    pub(crate) current: usize,
    /// They have another file of that path: an older one that was removed or replaced, as a rule.
    pub(crate) other: usize,
    /// The file's owner runs them, and this process may not look at them: they may have it, too.
    pub(crate) unreadable: usize,
}

/// Who else has the memory at `path`, which this process has mapped. `None`: /proc does not tell.
pub(crate) fn to(path: &Path) -> Option<Attached> {
    look(Path::new("/proc"), path)
}

fn look(proc: &Path, path: &Path) -> Option<Attached> {
    let memory = own_mapping(proc, path)?;
    let user = fs::metadata(path).ok()?.uid();
    let own = fs::read_link(proc.join("self")).ok()?;
    let mut attached = Attached::default();
    for process in processes(proc)?.filter(|process| process.file_name() != Some(own.as_os_str())) {
        match fs::read(process.join("maps")) {
            Ok(maps) => match memory.relation(&maps) {
                Some(Relation::Same) => attached.current += 1,
                Some(Relation::Other) => attached.other += 1,
                None => {}
            },
            // Nobody but the owner of the memory's file opens it.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                attached.unreadable += usize::from(runs_as(&process, user));
            }
            Err(_) => {}
        }
    }
    // Where init is hidden (hidepid of proc(5)), other processes may be.
    let is_told = attached.current + attached.other > 0 || proc.join("1").exists();
    is_told.then_some(attached)
}

fn processes(proc: &Path) -> Option<impl Iterator<Item = PathBuf>> {
    let is_number = |name: &OsStr| name.as_bytes().iter().all(u8::is_ascii_digit);
    let entries = fs::read_dir(proc).ok()?.flatten();
    Some(entries.filter(move |entry| is_number(&entry.file_name())).map(|entry| entry.path()))
}

/// Whether a process, which may not be looked at, has that effective user.
fn runs_as(process: &Path, user: u32) -> bool {
    let status = fs::read_to_string(process.join("status")).unwrap_or_default();
    let users = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    users.and_then(|users| users.split_whitespace().nth(1)?.parse().ok()) == Some(user)
}

/// The memory as the kernel calls it. Its device is taken from here: stat(2) names another one on some file systems.
fn own_mapping(proc: &Path, path: &Path) -> Option<Memory> {
    let name = escaped(fs::canonicalize(path).ok()?.as_os_str().as_bytes());
    let maps = fs::read(proc.join("self/maps")).ok()?;
    let mut mappings = maps.split(|byte| *byte == b'\n').filter_map(Mapping::parse);
    let file = mappings.find(|mapping| mapping.shared && mapping.is_at(&name))?.file;
    Some(Memory { name, file })
}

/// A file, and the path that led to it.
struct Memory {
    name: Vec<u8>,
    file: FileId,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Relation {
    /// The same file is mapped.
    Same,
    /// Another file of that path is mapped, and not this one.
    Other,
}

impl Memory {
    /// What a process with these mappings has to do with the memory.
    fn relation(&self, maps: &[u8]) -> Option<Relation> {
        let mappings = || maps.split(|byte| *byte == b'\n').filter_map(Mapping::parse);
        let mut shared = mappings().filter(|mapping| mapping.shared);
        if shared.any(|mapping| mapping.file == self.file) {
            return Some(Relation::Same);
        }
        let is_other = mappings().any(|mapping| mapping.shared && mapping.is_at(&self.name));
        is_other.then_some(Relation::Other)
    }
}

/// What tells files apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileId {
    major: u32,
    minor: u32,
    inode: u64,
}

/// A line of /proc/PID/maps (proc_pid_maps(5)) that has a file.
#[derive(Debug, PartialEq, Eq)]
struct Mapping<'a> {
    shared: bool,
    file: FileId,
    /// As the kernel writes it: a newline is `\012`, and what was removed ends with ` (deleted)`.
    path: &'a [u8],
}

impl<'a> Mapping<'a> {
    /// `address permissions offset device inode path`; of these the path alone may have spaces.
    fn parse(line: &'a [u8]) -> Option<Self> {
        let mut rest = line;
        let [_address, permissions, _offset, device, inode] =
            [(); 5].map(|()| next_field(&mut rest));
        let inode = decimal(inode?)?;
        let (major, minor) = str::from_utf8(device?).ok()?.split_once(':')?;
        let number = |text| u32::from_str_radix(text, 16).ok();
        Some(Mapping {
            shared: *permissions?.get(3)? == b's',
            file: FileId { major: number(major)?, minor: number(minor)?, inode },
            path: rest.trim_ascii_start(),
        })
        .filter(|mapping| mapping.file.inode != 0 && mapping.path.starts_with(b"/"))
    }

    /// Whether this is, or was, the file of that path.
    fn is_at(&self, name: &[u8]) -> bool {
        self.path == name || self.path.strip_suffix(b" (deleted)") == Some(name)
    }
}

fn next_field<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let line = *rest;
    let end = line.iter().position(|byte| *byte == b' ').unwrap_or(line.len());
    let (field, after) = line.split_at(end);
    *rest = after.get(1..).unwrap_or_default();
    (!field.is_empty()).then_some(field)
}

fn decimal(text: &[u8]) -> Option<u64> {
    let digits = text.iter().all(u8::is_ascii_digit);
    digits.then(|| str::from_utf8(text).ok()?.parse().ok()).flatten()
}

/// A path as the kernel writes it there: a newline would end the line.
fn escaped(path: &[u8]) -> Vec<u8> {
    let escape = |byte: &u8| match byte {
        b'\n' => b"\\012".to_vec(),
        byte => vec![*byte],
    };
    path.iter().flat_map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str =
        "7f3a5c000000-7f3a5d000000 rw-s 00000000 00:17 4711                       /run/a";

    fn mapping(line: &str) -> Option<Mapping<'_>> {
        Mapping::parse(line.as_bytes())
    }

    fn memory(name: &str, inode: u64) -> Memory {
        let file = FileId { major: 0, minor: 0x17, inode };
        Memory { name: escaped(name.as_bytes()), file }
    }

    /// A /proc with these processes, of which `self` is number 7.
    fn proc_with(processes: &[(&str, &str)]) -> tempfile::TempDir {
        let proc = tempfile::tempdir().expect("a temporary directory");
        for (process, maps) in processes {
            let folder = proc.path().join(process);
            fs::create_dir(&folder).expect("the folder is ours");
            fs::write(folder.join("maps"), maps).expect("the folder is ours");
        }
        std::os::unix::fs::symlink("7", proc.path().join("self")).expect("the folder is ours");
        proc
    }

    #[test]
    fn processes_are_counted_without_this_one_and_nobody_is_told_apart_from_unknown() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        let path = file.path().canonicalize().expect("it is there");
        let maps = LINE.replace("/run/a", path.to_str().expect("UTF-8"));
        let older = maps.replace("4711", "4710") + " (deleted)";
        let (own, init) = (("7", maps.as_str()), ("1", ""));
        let seen = |processes: &[(&str, &str)]| {
            let attached = look(proc_with(processes).path(), &path)?;
            Some((attached.current, attached.other))
        };
        assert_eq!(seen(&[own, init]), Some((0, 0)));
        assert_eq!(seen(&[own, init, ("8", &maps), ("9", &older), ("x", &maps)]), Some((1, 1)));
        assert_eq!(seen(&[own, ("8", &maps)]), Some((1, 0)), "others may be hidden");
        assert_eq!(seen(&[own]), None, "all may be hidden");
        assert_eq!(seen(&[init, ("7", "")]), None, "this process has it mapped");
        assert_eq!(look(Path::new("/nowhere"), &path), None);
    }

    #[test]
    fn a_line_has_a_file_and_whether_it_is_shared() {
        let file = FileId { major: 0, minor: 0x17, inode: 4711 };
        assert_eq!(mapping(LINE), Some(Mapping { shared: true, file, path: b"/run/a" }));
        let private = LINE.replace("rw-s", "r-xp").replace("00:17", "fd:100001");
        let found = mapping(&private).expect("a file");
        assert!(!found.shared);
        assert_eq!((found.file.major, found.file.minor), (0xfd, 0x10_0001));
    }

    #[test]
    fn what_has_no_file_is_no_mapping_of_one() {
        for line in [
            "7ffd0000-7ffd1000 rw-p 00000000 00:00 0                          [stack]",
            "7ffd0000-7ffd1000 rw-p 00000000 00:00 0 ",
            "7ffd0000-7ffd1000 rw-s 00000000 00:05 9                          anon_inode:[x]",
        ] {
            assert_eq!(mapping(line), None, "{line}");
        }
    }

    #[test]
    fn a_line_that_is_damaged_is_none() {
        let others = ["", " ", "\0", "a b c d e f", "0-1 rw 0 0:0 1 /a", "0-1 rw-s 0 0:0 +1 /a"];
        let cut = (0..LINE.len() - "/run/a".len()).map(|end| &LINE[..end]);
        for line in others.into_iter().chain(cut) {
            assert_eq!(mapping(line), None, "{line:?}");
        }
        for (good, bad) in [
            ("00:17", "0017"),
            ("00:17", "00:1x"),
            ("00:17", "00:123456789"),
            ("4711", "-1"),
            ("4711", "99999999999999999999"),
            ("4711", "47 11"),
        ] {
            assert_eq!(mapping(&LINE.replace(good, bad)), None, "{bad}");
        }
    }

    #[test]
    fn names_may_have_spaces_newlines_and_the_words_of_the_kernel() {
        for name in
            ["/run/two words", "/run/ ", "/run/a\nb", "/a (deleted)", "/run/0-1 rw-s 0 0:0 1 /b"]
        {
            let shown = name.replace('\n', "\\012");
            let maps = |suffix| LINE.replace("/run/a", &format!("{shown}{suffix}")) + "\n";
            let relation = |inode, suffix| memory(name, inode).relation(maps(suffix).as_bytes());
            assert_eq!(relation(4711, ""), Some(Relation::Same), "{name:?}");
            assert_eq!(relation(1, ""), Some(Relation::Other), "{name:?}");
            assert_eq!(relation(1, " (deleted)"), Some(Relation::Other), "{name:?}");
            assert_eq!(relation(1, "x"), None, "{name:?}");
        }
    }

    #[test]
    fn a_process_that_has_both_files_has_this_one() {
        let maps = format!("{LINE} (deleted)\n{}\n", LINE.replace("4711", "4712"));
        assert_eq!(memory("/run/a", 4712).relation(maps.as_bytes()), Some(Relation::Same));
        assert_eq!(memory("/run/a", 4713).relation(maps.as_bytes()), Some(Relation::Other));
        assert_eq!(memory("/run/b", 4713).relation(maps.as_bytes()), None);
    }

    #[test]
    fn who_only_reads_the_file_is_not_attached() {
        let maps = LINE.replace("rw-s", "r--p");
        assert_eq!(memory("/run/a", 4711).relation(maps.as_bytes()), None);
    }
}
