//! Counting instructions with valgrind: the same on a busy machine as on an idle one.

use std::ffi::OsStr;
use std::fs;
use std::process::Command;

use tlsresume_testkit::Folder;

use super::Outcome;

/// Instructions that `command` executes, of those that `options` has callgrind count.
pub(crate) fn instructions(
    options: &[&str],
    command: impl IntoIterator<Item = impl AsRef<OsStr>>,
) -> Outcome<u64> {
    let folder = Folder::new()?;
    let profile = folder.file("profile");
    let run = Command::new("valgrind")
        .arg("--tool=callgrind")
        .arg(format!("--callgrind-out-file={}", profile.display()))
        .args(options)
        .args(command)
        .output()?;
    if !run.status.success() {
        return Err(String::from_utf8_lossy(&run.stderr).into());
    }
    // Not "totals": that has remains of what was counted before --zero-before.
    let profile = fs::read_to_string(profile)?;
    let summary = profile.lines().find_map(|line| line.strip_prefix("summary: "));
    Ok(summary.ok_or("callgrind wrote no summary")?.trim().parse()?)
}
