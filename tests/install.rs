//! What `make install` puts down is enough to build and run a program, and `make uninstall` takes
//! all of it away.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::{output_of, release_library, repository, target_dir};

#[test]
fn examples_build_and_run_against_the_installed_tree_alone() {
    release_library();
    let stage = tempfile::tempdir().expect("a temporary directory");
    let root = stage.path().join("root");
    repository_make("install", &root);

    // A copy, so that nothing of the source tree is within reach.
    let examples = stage.path().join("examples");
    copy_files(&repository().join("examples"), &examples);
    let lib = root.join("usr/lib");
    output_of(
        make()
            .current_dir(&examples)
            .env("PKG_CONFIG_PATH", lib.join("pkgconfig"))
            .env("PKG_CONFIG_SYSROOT_DIR", &root),
    );
    let usage = output_of(
        Command::new(examples.join("prefork_server")).arg("--help").env("LD_LIBRARY_PATH", lib),
    );
    assert!(usage.contains("prefork_server"), "{usage}");

    repository_make("uninstall", &root);
    assert_eq!(files_below(&root), Vec::<PathBuf>::new(), "left behind by make uninstall");
}

fn repository_make(target: &str, destination: &Path) {
    output_of(
        make()
            .current_dir(repository())
            .args([target, "PREFIX=/usr"])
            .arg(format!("DESTDIR={}", destination.display()))
            .arg(format!("CARGO_TARGET_DIR={}", target_dir().display())),
    );
}

/// A make that knows nothing of the one which runs this test: the variables of its command line
/// would arrive here too.
fn make() -> Command {
    let mut make = Command::new("make");
    make.env_remove("MAKEFLAGS").env_remove("MAKELEVEL").env_remove("MFLAGS");
    make
}

fn copy_files(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a new directory");
    for file in entries(from).iter().filter(|path| path.is_file()) {
        let name = file.file_name().expect("an entry has a name");
        fs::copy(file, to.join(name)).expect("a copy");
    }
}

/// Everything that is not a directory; links count, also dangling ones.
fn files_below(directory: &Path) -> Vec<PathBuf> {
    let (directories, files): (Vec<_>, Vec<_>) =
        entries(directory).into_iter().partition(|path| path.is_dir() && !path.is_symlink());
    directories.iter().flat_map(|below| files_below(below)).chain(files).collect()
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).expect("a readable directory");
    entries.map(|entry| entry.expect("a readable entry").path()).collect()
}
