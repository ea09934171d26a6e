//! The file at `memory.path`: found again, replaced, refused.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

use siphasher::sip::SipHasher13;
use tempfile::TempDir;
use zeroize::Zeroizing;

use super::records::SMALL;
use super::support::*;
use crate::clock::since_boot;
use crate::store::{Store, layout, word};

/// A directory in memory, so that no test warns of a disk.
pub(super) fn directory() -> (TempDir, PathBuf) {
    let directory = TempDir::new_in("/dev/shm").unwrap();
    let path = directory.path().join("store");
    (directory, path)
}

/// Changes words of the header, as another release might have written them.
pub(super) fn forge(path: &Path, words: &[(usize, u64)]) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    for (word, bits) in words {
        file.write_all_at(&bits.to_le_bytes(), *word as u64 * 8).unwrap();
    }
    let mut fixed = [0; word::CHECK * 8];
    file.read_exact_at(&mut fixed, 0).unwrap();
    let check = SipHasher13::new().hash(&fixed);
    file.write_all_at(&check.to_le_bytes(), word::CHECK as u64 * 8).unwrap();
}

/// How many other files are in the directory of a file.
pub(super) fn left_beside(path: &Path) -> usize {
    fs::read_dir(path.parent().unwrap()).unwrap().count() - 1
}

pub(super) fn with_contents(path: &Path) -> Store {
    let store = Store::open(path, SMALL).unwrap();
    assert!(store.update_ring(PATIENT, |_| Some(Zeroizing::new(value(1, 300)))));
    insert(&store, 1, TYPICAL).unwrap();
    store
}

pub(super) fn has_ring(store: &Store) -> bool {
    store.read_ring().1.is_some_and(|bytes| *bytes == value(1, 300))
}

fn refusal(path: &Path) -> String {
    match Store::open(path, SMALL) {
        Ok(_) => panic!("{} was used", path.display()),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_file_opened_again_has_its_sessions_and_its_ring() {
    let (_directory, path) = directory();
    let first = with_contents(&path);
    let second = Store::open(&path, SMALL).unwrap();
    assert!(finds(&second, 1, TYPICAL) && has_ring(&second));
    insert(&second, 2, TYPICAL).unwrap();
    assert!(finds(&first, 2, TYPICAL), "both are the same memory");
    drop((first, second));
    let third = Store::open(&path, SMALL).unwrap();
    assert!(finds(&third, 1, TYPICAL) && finds(&third, 2, TYPICAL) && has_ring(&third));
}

#[test]
fn a_new_file_is_private_allocated_and_not_empty() {
    let (_directory, path) = directory();
    let _store = with_contents(&path);
    let meta = fs::metadata(&path).unwrap();
    assert_eq!(meta.permissions().mode() & 0o7777, 0o600);
    assert_eq!(meta.len(), SMALL as u64);
    assert!(meta.blocks() * 512 >= SMALL as u64, "every byte has its storage");
}

#[test]
fn a_copy_with_holes_is_given_the_storage_that_it_lacks() {
    let (_directory, path) = directory();
    drop(with_contents(&path));
    let contents = fs::read(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let copy = File::create(&path).unwrap();
    copy.set_permissions(Permissions::from_mode(0o600)).unwrap();
    copy.set_len(SMALL as u64).unwrap();
    copy.write_all_at(&contents[..layout::ROOT_BYTES], 0).unwrap();
    assert!(copy.metadata().unwrap().blocks() * 512 < SMALL as u64);
    assert!(has_ring(&Store::open(&path, SMALL).unwrap()));
    assert!(copy.metadata().unwrap().blocks() * 512 >= SMALL as u64);
}

#[test]
fn a_file_of_another_size_is_used_as_it_is() {
    let (_directory, path) = directory();
    let first = with_contents(&path);
    for size in [SMALL * 2, SMALL - 4096, 1 << 46, SMALL] {
        let other = Store::open(&path, size).unwrap();
        assert_eq!(other.size(), SMALL as u64);
        assert!(has_ring(&other) && finds(&other, 1, TYPICAL));
        assert!(other.update_ring(PATIENT, |_| Some(Zeroizing::new(value(2, 100)))));
        assert!(first.update_ring(PATIENT, |ring| {
            assert_eq!(ring, Some(&value(2, 100)[..]), "both have the same ring");
            Some(Zeroizing::new(value(1, 300)))
        }));
    }
    assert_eq!(fs::metadata(&path).unwrap().len(), SMALL as u64);
    assert!(!first.is_superseded());
}

#[test]
fn a_lease_from_before_the_last_boot_holds_nobody_up() {
    // The boot clock has started over: the lease ended long ago, or is longer than any lease.
    let now = since_boot();
    for until in
        [Duration::from_nanos(1), now + Duration::from_secs(11), Duration::from_secs(1 << 32)]
    {
        let (_directory, path) = directory();
        let store = with_contents(&path);
        let lease = u64::try_from(until.as_nanos()).unwrap();
        store.shard(0).0.store(lease, Ordering::Relaxed);
        store.region.word(word::RING_LEASE).store(lease, Ordering::Relaxed);
        let again = Store::open(&path, SMALL).unwrap();
        assert!(again.update_ring(Duration::ZERO, |_| Some(Zeroizing::new(value(2, 100)))));
        again.insert(&session(2), &[], NOW, Duration::ZERO).unwrap();
    }
}

#[test]
fn a_flipped_bit_in_any_word_of_the_header_is_noticed() {
    for index in (0..word::CHECK).filter(|index| *index != word::MAGIC).chain([word::CHECK]) {
        for bit in [0, 13, 63] {
            let (_directory, path) = directory();
            let store = with_contents(&path);
            let word = store.region.word(index);
            word.fetch_xor(1 << bit, Ordering::Relaxed);
            let new = Store::open(&path, SMALL).unwrap();
            assert!(new.lookup(&key(1)).is_none(), "word {index}, bit {bit}: used");
            assert!(new.read_ring().1.is_none(), "word {index}, bit {bit}: nothing is believed");
            insert(&new, 2, TYPICAL).unwrap();
            let again = Store::open(&path, SMALL).unwrap();
            assert!(finds(&again, 2, TYPICAL), "the new one is sound");
        }
    }
}

#[test]
fn a_file_of_something_else_is_refused_and_left_as_it_was() {
    let (_directory, path) = directory();
    for contents in [vec![b'#'; 10], vec![0; SMALL], value(3, SMALL), value(3, 40_000)] {
        fs::write(&path, &contents).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        let error = refusal(&path);
        assert!(error.contains("is not a libtlsresume file"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), contents);
    }
}

#[test]
fn an_empty_file_is_filled() {
    let (_directory, path) = directory();
    File::create(&path).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    let store = with_contents(&path);
    assert!(finds(&store, 1, TYPICAL));
    assert_eq!(fs::metadata(&path).unwrap().len(), SMALL as u64);
}

#[test]
fn a_file_cut_short_or_grown_is_replaced() {
    for len in [8, 64, layout::PAGE as u64, SMALL as u64 / 2, SMALL as u64 - 8, SMALL as u64 + 8] {
        let (_directory, path) = directory();
        drop(with_contents(&path));
        File::options().write(true).open(&path).unwrap().set_len(len).unwrap();
        let store = Store::open(&path, SMALL).unwrap();
        assert!(store.lookup(&key(1)).is_none(), "{len} bytes");
        insert(&store, 2, TYPICAL).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), SMALL as u64);
    }
}

#[test]
fn a_file_of_another_layout_is_replaced_and_its_ring_kept_when_its_root_is_ours() {
    let next = layout::VERSION + 1;
    for (version, root, keeps) in [(next, 1, true), (99, 1, true), (2, 1, true), (next, 2, false)] {
        let (_directory, path) = directory();
        drop(with_contents(&path));
        forge(&path, &[(word::VERSION, version), (word::ROOT_VERSION, root)]);
        let store = Store::open(&path, SMALL * 2).unwrap();
        assert_eq!(store.size(), SMALL as u64 * 2, "made by memory.size");
        assert!(store.lookup(&key(1)).is_none(), "sessions stay behind");
        assert_eq!(has_ring(&store), keeps && version > 2, "layout {version}, root {root}");
        assert_eq!(left_beside(&path), 0);
    }
}

#[test]
fn symbolic_links_are_not_followed() {
    let (_directory, path) = directory();
    drop(with_contents(&path));
    let link = path.with_extension("link");
    symlink(&path, &link).unwrap();
    refusal(&link);
    let dangling = path.with_extension("dangling");
    let target = path.with_extension("target");
    symlink(&target, &dangling).unwrap();
    refusal(&dangling);
    assert!(!target.exists());
}

#[test]
fn what_is_no_file_is_refused_at_once() {
    let (directory, path) = directory();
    refusal(directory.path());
    let name = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
    // SAFETY: a C string that lives through the call.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
    let error = refusal(&path);
    assert!(error.contains("is not a regular file"), "{error}");
    refusal(Path::new("/dev/null"));
    refusal(&path.join("below"));
    refusal(&directory.path().join("missing").join("store"));
}

#[test]
fn a_file_that_others_can_open_is_refused() {
    let (_directory, path) = directory();
    drop(with_contents(&path));
    for mode in [0o644, 0o640, 0o604, 0o620, 0o602, 0o611] {
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        let error = refusal(&path);
        assert!(error.contains("chmod 600"), "{mode:o}: {error}");
    }
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    assert!(finds(&Store::open(&path, SMALL).unwrap(), 1, TYPICAL));
}

#[test]
fn a_file_of_another_user_is_refused() {
    // Only root can give a file away; others find one that is not theirs.
    if crate::sys::effective_user() != 0 {
        refusal(Path::new("/etc/passwd"));
        return;
    }
    let (_directory, path) = directory();
    drop(with_contents(&path));
    std::os::unix::fs::chown(&path, Some(65_534), None).unwrap();
    let error = refusal(&path);
    assert!(error.contains("belongs to another user"), "{error}");
}

#[test]
fn sizes_that_cannot_be_had_are_refused_and_leave_no_file() {
    let (directory, path) = directory();
    // Many times what any machine has; less than a mapping may be.
    assert!(Store::open(&path, 1 << 46).is_err());
    assert!(Store::open(&path, SMALL - 1).is_err(), "too small");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    drop(with_contents(&path));
    forge(&path, &[(word::VERSION, layout::VERSION + 1)]);
    let old = fs::read(&path).unwrap();
    assert!(Store::open(&path, 1 << 46).is_err());
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    assert_eq!(fs::read(&path).unwrap(), old, "what cannot be replaced stays");
}

fn refusal_to_look(path: &Path) -> String {
    match Store::open_existing(path) {
        Ok(_) => panic!("{} was used", path.display()),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_file_that_is_there_is_opened_at_its_own_size() {
    let (_directory, path) = directory();
    for size in [SMALL, SMALL * 3] {
        let _ = fs::remove_file(&path);
        drop(Store::open(&path, size).unwrap());
        let found = Store::open_existing(&path).unwrap();
        assert_eq!(found.size(), size as u64);
    }
    fs::remove_file(&path).unwrap();
    let store = with_contents(&path);
    insert(&Store::open_existing(&path).unwrap(), 2, TYPICAL).unwrap();
    assert!(finds(&store, 2, TYPICAL), "it is the same memory");
}

#[test]
fn who_looks_makes_and_replaces_nothing_and_is_told_what_to_do() {
    let (directory, path) = directory();
    assert!(refusal_to_look(&path).contains("start a server"));
    refusal_to_look(&path.join("below"));
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    let store = with_contents(&path);
    let link = path.with_extension("link");
    symlink(&path, &link).unwrap();
    refusal_to_look(&link);
    refusal_to_look(directory.path());
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    assert!(refusal_to_look(&path).contains("chmod 600"));
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();

    store.region.word(word::SEED).fetch_xor(1, Ordering::Relaxed);
    assert!(refusal_to_look(&path).contains("is damaged; the next server that starts"));
    store.region.word(word::VERSION).fetch_xor(1, Ordering::Relaxed);
    assert!(refusal_to_look(&path).contains("has the layout of another version; the next server"));
    store.region.word(word::MAGIC).fetch_xor(1, Ordering::Relaxed);
    assert!(refusal_to_look(&path).contains("is not a libtlsresume file"));
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2, "nothing was put in its place");
    // Only root can give a file away.
    if crate::sys::effective_user() == 0 {
        std::os::unix::fs::chown(&path, Some(65_534), None).unwrap();
        assert!(refusal_to_look(&path).contains("run this as the user of the server"));
    }
}
