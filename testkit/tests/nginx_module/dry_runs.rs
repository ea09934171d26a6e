//! Who only checks a configuration, or sends a signal, makes, replaces and changes no file.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use tlsresume_testkit::{DEADLINE, Folder, Mode, Result, Traffic, free_port};

use crate::nginx::{Site, address, shared, site_on};

/// Every file of a folder: its inode and its bytes.
type Files = BTreeMap<OsString, (u64, Vec<u8>)>;

fn files(folder: &Path) -> Files {
    let entries = fs::read_dir(folder).expect("readable").map(|entry| entry.expect("an entry"));
    entries
        .map(|entry| {
            let inode = entry.metadata().expect("it is there").ino();
            (entry.file_name(), (inode, fs::read(entry.path()).expect("a file")))
        })
        .collect()
}

/// Tests the configuration in all ways that read it.
fn dry_runs(site: &Site) {
    for arguments in [&["-t"][..], &["-T"], &["-tq"], &["-s", "reopen"]] {
        let output = site.command(arguments).output().expect("nginx is installed");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said}");
    }
}

#[test]
fn no_dry_run_touches_the_memory_of_running_servers() -> Result<()> {
    let memory = Folder::in_memory()?;
    let (path, port) = (memory.file("sessions"), free_port()?);
    let nginx = site_on(&path, port, 1, "")?.start()?;
    Traffic::to([address(port)], Mode::Tls13).connections(10, DEADLINE)?;
    let before = files(memory.path());
    assert_eq!(before.keys().collect::<Vec<_>>(), ["sessions"]);
    let settings = shared(&path, "stateless");
    for changed in [
        settings.clone(),
        settings.replace("2MiB", "4MiB"),
        settings.replace("sessions", "other"),
        format!("realm = \"other\"\n{settings}"),
    ] {
        nginx.site.write("tlsresume.toml", &changed);
        dry_runs(&nginx.site);
        assert!(files(memory.path()) == before, "changed by a dry run with\n{changed}");
    }
    Ok(())
}

#[test]
fn a_dry_run_still_finds_what_is_wrong_with_the_files_that_are_named() -> Result<()> {
    let memory = Folder::in_memory()?;
    let site = site_on(&memory.file("sessions"), free_port()?, 1, "")?;
    let settings = shared(&memory.file("sessions"), "stateless");
    let keys = "keys.source = \"files\"\nkeys.files = [\"/no/such/key\"]\n";
    site.write("tlsresume.toml", &format!("{settings}{keys}"));
    let (passed, said) = site.test();
    assert!(!passed && said.contains("/no/such/key"), "{said}");
    assert!(files(memory.path()).is_empty());
    Ok(())
}
