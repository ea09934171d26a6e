//! What the tests of the built and installed artefacts share.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The top of the source tree.
pub(crate) fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The shared library as users get it: `cargo test` alone builds only a debug one.
pub(crate) fn release_library() -> PathBuf {
    let library = target_dir().join("release/libtlsresume.so");
    assert!(library.exists(), "{} is missing: run make all first", library.display());
    library
}

/// Where cargo builds, also with `CARGO_TARGET_DIR` or a configured one.
pub(crate) fn target_dir() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("cargo's tmp is inside its target")
}

/// Runs `command` and gives what it wrote to standard output; fails with everything it wrote.
pub(crate) fn output_of(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{stdout}{stderr}", output.status);
    stdout.into_owned()
}
