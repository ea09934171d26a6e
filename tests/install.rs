//! What `make install` puts down is enough to build and run a program, takes nothing away from programs that run, and
//! `make uninstall` takes all of it away.

#[path = "install/replacement.rs"]
mod replacement;
mod support;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use support::{output_of, release_library, repository, target_dir};
use tlsresume_testkit::wait_until;

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

    let page = root.join("usr/share/man/man1/tlsresumectl.1");
    assert!(page.exists(), "{} is missing", page.display());
    let file = stage.path().join("empty.toml");
    fs::write(&file, "").expect("writable");
    let tool = root.join("usr/bin/tlsresumectl");
    let said = output_of(Command::new(tool).args(["config", "check"]).arg(file));
    assert!(said.starts_with("ok\n"), "{said}");

    repository_make("uninstall", &root);
    assert_eq!(files_below(&root), Vec::<PathBuf>::new(), "left behind by make uninstall");
}

/// A server's package would start it: while packages are installed, a file says no, and a file that
/// stays would keep the administrator's next server down.
#[test]
fn set_up_takes_its_policy_back_however_it_ends() {
    for ending in [Some(libc::SIGINT), Some(libc::SIGTERM), Some(libc::SIGHUP), None] {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let policy = folder.path().join("policy-rc.d");
        let tool = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("a file");
            fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("ours");
        };
        tool("dpkg-query", "echo not-installed");
        tool("sudo", "exec \"$@\"");
        // Fails at once, or runs until something ends it.
        tool("apt-get", if ending.is_some() { "exec sleep 60" } else { "exit 100" });
        let path =
            format!("{}:{}", folder.path().display(), std::env::var("PATH").expect("a path"));
        // Whoever runs this in the background ignores some of these signals, and so would the script.
        let mut set_up = Command::new("/usr/bin/env")
            .arg("--default-signal")
            .arg(repository().join("scripts/install-deps.sh"))
            .env("PATH", path)
            .env("POLICY_RC_D", &policy)
            .process_group(0)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the script starts");
        if let Some(signal) = ending {
            wait_until("the policy", Duration::from_secs(20), || policy.exists())
                .expect("it is made");
            let group = libc::pid_t::try_from(set_up.id()).expect("a pid");
            // SAFETY: kill takes two integers and touches no memory of ours.
            assert_eq!(unsafe { libc::kill(-group, signal) }, 0);
        }
        assert!(!set_up.wait().expect("it ends").success());
        assert!(!policy.exists(), "left behind after {ending:?}");
    }
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
