//! Memory that another release has replaced, and those who have it mapped.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use zeroize::Zeroizing;

use super::files::{directory, forge, has_ring, left_beside, with_contents};
use super::records::SMALL;
use super::support::*;
use crate::clock;
use crate::store::{Kind, NotInserted, Origin, Store, layout, word};

/// What another release does that starts: the file is of its layout now.
fn replaced(path: &Path) -> Store {
    forge(path, &[(word::VERSION, layout::VERSION + 1)]);
    Store::open(path, SMALL).unwrap()
}

fn put(store: &Store, number: u64) -> bool {
    store.update_ring(PATIENT, |_| Some(Zeroizing::new(value(number, 500))))
}

fn ring_is(store: &Store, number: u64) -> bool {
    store.read_ring().1.is_some_and(|bytes| *bytes == value(number, 500))
}

/// Has it looked again, as it would after five seconds.
fn look_again(store: &Store) {
    store.home.as_ref().unwrap().forget_failure();
}

#[test]
fn a_superseded_process_goes_on_with_the_ring_of_the_new_file() {
    let (_directory, path) = directory();
    let old = with_contents(&path);
    let before = old.ring_generation();
    let new = replaced(&path);
    assert!(old.is_superseded() && !new.is_superseded());
    assert!(has_ring(&new) && has_ring(&old));
    assert_ne!(old.ring_generation(), before, "the change is noticed");
    assert!(put(&new, 5) && ring_is(&old, 5), "what is revoked there is revoked here");
    assert!(put(&old, 6) && ring_is(&new, 6), "and the other way round");
    assert_eq!(old.ring_generation(), new.ring_generation());
    assert_eq!(left_beside(&path), 0);
}

#[test]
fn a_superseded_process_neither_finds_nor_keeps_sessions_and_allows_no_early_data() {
    let (_directory, path) = directory();
    let old = with_contents(&path);
    let now = clock::now() + Duration::from_secs(3600);
    let window = Duration::from_secs(20);
    assert!(finds(&old, 1, TYPICAL) && old.strike(&key(1), window, now));
    let new = replaced(&path);
    assert!(old.lookup(&key(1)).is_none());
    assert_eq!(insert(&old, 2, TYPICAL), Err(NotInserted::Busy));
    assert!(!old.strike(&key(2), window, now));
    insert(&new, 2, TYPICAL).unwrap();
    assert!(finds(&new, 2, TYPICAL) && old.lookup(&key(2)).is_none());
}

#[test]
fn a_superseded_process_still_tells_other_nodes_of_removals() {
    let (_directory, path) = directory();
    let old = with_contents(&path);
    let from = old.tail(0, 0, 100).next;
    let _new = replaced(&path);
    let until = NOW + Duration::from_secs(100);
    old.remove_for_all(&key(1), until, Origin::Here, NOW, PATIENT).unwrap();
    let sent = old.tail(0, from, 100).records;
    assert_eq!(
        sent.iter().map(|(meta, _)| (meta.key, meta.kind)).collect::<Vec<_>>(),
        [(key(1), Kind::Removal)]
    );
}

#[test]
fn a_new_file_that_is_replaced_again_is_followed() {
    let (_directory, path) = directory();
    let first = with_contents(&path);
    let second = replaced(&path);
    assert!(ring_is(&first, 1) || has_ring(&first));
    let third = replaced(&path);
    assert!(put(&third, 7));
    assert!(ring_is(&first, 7) && ring_is(&second, 7));
    assert!(second.is_superseded() && !third.is_superseded());
}

#[test]
fn without_a_new_file_to_go_by_there_is_no_ring_until_there_is_one() {
    type Spoil = fn(&Path, &Store);
    let spoil: [(&str, Spoil); 6] = [
        ("gone", |path, _| fs::remove_file(path).unwrap()),
        ("short", |path, _| fs::write(path, b"TLSRESUM").unwrap()),
        ("open to others", |path, _| {
            fs::set_permissions(path, Permissions::from_mode(0o644)).unwrap()
        }),
        ("of another realm", |_, new| new.region.word(word::REALM).store(9, Ordering::Relaxed)),
        ("damaged", |_, new| new.region.word(word::SEED).store(7, Ordering::Relaxed)),
        ("of another root", |path, _| forge(path, &[(word::ROOT_VERSION, 2)])),
    ];
    for (what, spoil) in spoil {
        let (_directory, path) = directory();
        let old = with_contents(&path);
        let new = replaced(&path);
        spoil(&path, &new);
        assert_eq!(old.ring_generation(), Store::NO_RING, "{what}");
        assert_eq!(old.read_ring(), (Store::NO_RING, None), "{what}");
        assert!(!old.update_ring(PATIENT, |_| panic!("there is no ring to change")), "{what}");
        let _ = fs::remove_file(&path);
        let third = Store::open(&path, SMALL).unwrap();
        assert!(put(&third, 8));
        assert_eq!(old.ring_generation(), Store::NO_RING, "{what}: not looked again at once");
        look_again(&old);
        assert!(ring_is(&old, 8), "{what}");
    }
}

#[test]
fn a_process_that_is_killed_before_it_replaces_the_file_takes_no_ring_away() {
    let (_directory, path) = directory();
    let old = with_contents(&path);
    old.region.set_superseded(true);
    assert!(has_ring(&old), "the file is in its place");
    assert!(put(&old, 5) && ring_is(&old, 5));
    let next = Store::open(&path, SMALL).unwrap();
    assert!(!old.is_superseded() && ring_is(&next, 5));
    assert!(finds(&old, 1, TYPICAL));
}

#[test]
fn what_a_killed_process_has_left_beside_the_file_is_removed_and_nothing_else_is() {
    let (directory, path) = directory();
    drop(with_contents(&path));
    let beside = |end: &str| {
        let path = directory.path().join(format!("store{end}"));
        fs::write(&path, b"keys").unwrap();
        path
    };
    let left = [".new", ".0123456789abcdef"].map(beside);
    let others = [".0123456789abcde", ".0123456789abcdeg", ".news", "0123456789abcdef"].map(beside);
    let folder = directory.path().join("store.ffffffffffffffff");
    fs::create_dir(&folder).unwrap();
    let store = Store::open(&path, SMALL).unwrap();
    assert!(finds(&store, 1, TYPICAL));
    assert!(left.iter().all(|path| !path.exists()));
    assert!(others.iter().all(|path| path.exists()) && folder.exists());
}

#[test]
fn a_change_of_the_ring_that_waits_for_the_replacement_is_made_in_the_new_file() {
    let (_directory, path) = directory();
    let old = with_contents(&path);
    let changing = std::sync::Barrier::new(2);
    std::thread::scope(|scope| {
        let replacer = scope.spawn(|| {
            changing.wait();
            replaced(&path)
        });
        // The replacement waits for this change, or this change is made in the new file.
        assert!(old.update_ring(PATIENT, |_| {
            changing.wait();
            Some(Zeroizing::new(value(5, 500)))
        }));
        let new = replacer.join().unwrap();
        assert!(ring_is(&new, 5) && ring_is(&old, 5));
    });
}

/// An administrator removes the file, and another server makes it anew.
fn made_anew(path: &Path) -> Store {
    fs::remove_file(path).unwrap();
    let new = Store::open(path, SMALL).unwrap();
    assert!(put(&new, 5));
    new
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_file_that_was_removed_and_made_anew_supersedes_the_old_one_within_a_second() {
    let (_directory, path) = directory();
    let old = with_contents(&path);
    old.attend_path(NOW);
    let new = made_anew(&path);
    old.attend_path(NOW + SECOND - Duration::from_millis(1));
    assert!(!old.is_superseded() && has_ring(&old), "looked a moment ago");
    old.attend_path(NOW + SECOND);
    assert!(old.is_superseded() && ring_is(&old, 5), "goes on with the ring there");
    assert!(put(&old, 6) && ring_is(&new, 6));
    assert!(old.lookup(&key(1)).is_none());
    assert_eq!(insert(&old, 2, TYPICAL), Err(NotInserted::Busy));
    let later = clock::now() + SECOND * 3600;
    assert!(!old.strike(&key(2), SECOND * 20, later));
    new.attend_path(NOW);
    assert!(!new.is_superseded());
}

#[test]
fn a_file_that_is_made_anew_again_is_followed() {
    let (_directory, path) = directory();
    let old = with_contents(&path);
    let second = made_anew(&path);
    old.attend_path(NOW);
    assert!(ring_is(&old, 5));
    let third = made_anew(&path);
    assert!(put(&third, 7));
    old.attend_path(NOW + SECOND);
    second.attend_path(NOW + SECOND);
    assert!(ring_is(&old, 7) && ring_is(&second, 7));
}

#[test]
fn a_clock_that_is_put_back_does_not_stop_the_looks() {
    let (_directory, path) = directory();
    let old = with_contents(&path);
    old.attend_path(NOW);
    let _new = made_anew(&path);
    old.attend_path(NOW - SECOND * 3600);
    assert!(old.is_superseded());
}

#[test]
fn what_no_server_of_this_user_has_made_changes_nothing_at_the_path() {
    type Put = fn(&Path);
    let puts: [(&str, Put); 4] = [
        ("nothing", |_| {}),
        ("a directory", |path| fs::create_dir(path).unwrap()),
        ("an empty file", |path| fs::write(path, b"").unwrap()),
        ("a symbolic link", |path| std::os::unix::fs::symlink("/dev/zero", path).unwrap()),
    ];
    for (what, put_there) in puts {
        let (_directory, path) = directory();
        let old = with_contents(&path);
        fs::remove_file(&path).unwrap();
        put_there(&path);
        old.attend_path(NOW);
        assert!(!old.is_superseded() && has_ring(&old) && finds(&old, 1, TYPICAL), "{what}");
        assert!(put(&old, 9) && ring_is(&old, 9), "{what}");
    }
}
