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

/// `src/tls/functions.rs` has the one list; the compiler sees to it that the library fills each place of it.
#[test]
fn every_function_of_the_preloads_table_is_found_and_interposed_under_its_own_name() {
    let read = |path: &str| fs::read_to_string(repository().join(path)).expect(path);
    let table = read("src/tls/functions.rs");
    let (found, hooks, exported) = (
        read("preload/src/libssl.rs"),
        read("preload/src/hooks.rs"),
        read("abi/preload-symbols.txt"),
    );
    let fields = table.lines().filter_map(|line| line.trim().strip_prefix("pub ")?.split_once(':'));
    let mut count = 0;
    for (field, _) in fields.filter(|(field, _)| !field.contains(' ')) {
        let name = openssl_name(field);
        let is_found = ["find", "find_or_absent"]
            .iter()
            .any(|find| found.contains(&format!("{field}: {find}(h, c\"{name}\")")));
        assert!(is_found, "preload/src/libssl.rs: {field} is not {name}");
        assert!(hooks.contains(&format!("fn {name}(")), "preload/src/hooks.rs: no {name}");
        assert!(exported.contains(&format!("exports {name}\n")), "not exported: {name}");
        count += 1;
    }
    assert!(count > 30, "how does the table look now? {count}");
}

/// The names of the table are OpenSSL's without `SSL_`, in small letters, one of them shorter.
fn openssl_name(field: &str) -> String {
    let name = match field {
        "set_ssl_ctx" => "set_SSL_CTX".to_owned(),
        "ctx_set_ticket_key_evp_cb" => "CTX_set_tlsext_ticket_key_evp_cb".to_owned(),
        _ => match field.strip_prefix("ctx_") {
            Some(rest) => format!("CTX_{rest}"),
            None => field.to_owned(),
        },
    };
    format!("SSL_{name}")
}
