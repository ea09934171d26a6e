//! The shared library exports the names in `abi/symbols.txt` and no other, under the soname that
//! stands for them.

mod support;

use std::fs;
use std::process::Command;

use support::{output_of, release_library, repository};

#[test]
fn exports_are_exactly_the_reviewed_list() {
    let symbols =
        output_of(Command::new("nm").args(["-D", "--defined-only"]).arg(release_library()));
    let mut exported: Vec<_> =
        symbols.lines().filter_map(|line| line.split_whitespace().last()).collect();
    exported.sort_unstable();

    let reviewed =
        fs::read_to_string(repository().join("abi/symbols.txt")).expect("abi/symbols.txt");
    assert_eq!(
        exported,
        reviewed.lines().collect::<Vec<_>>(),
        "left: exported; right: abi/symbols.txt, in alphabetical order"
    );
}

#[test]
fn soname_carries_the_major_version_only() {
    let soname = concat!("Library soname: [libtlsresume.so.", env!("CARGO_PKG_VERSION_MAJOR"), "]");
    let dynamic = dynamic_section();
    assert!(dynamic.contains(soname), "no \"{soname}\" in:\n{dynamic}");
}

#[test]
fn library_stays_loaded_after_dlclose() {
    let dynamic = dynamic_section();
    assert!(dynamic.contains("NODELETE"), "no NODELETE flag in:\n{dynamic}");
}

fn dynamic_section() -> String {
    output_of(Command::new("readelf").args(["--dynamic", "--wide"]).arg(release_library()))
}
