//! Gives the shared library its soname and link flags, tells the code which OpenSSL it is built
//! against, and writes the C header into `OUT_DIR`.
//!
//! It never writes the source tree: `include/tlsresume.h` is committed, `make header` copies it
//! there, and `tests/header.rs` fails when the two differ.

use std::env;
use std::fs;
use std::path::Path;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=cbindgen.toml");
    println!("cargo::rerun-if-changed=src/ffi");

    link_flags();
    openssl_version();
    if let Err(reason) = write_header() {
        // Whoever builds from a package has the committed header and needs no other. Somebody who
        // works on the library learns it from the drift test.
        println!("cargo::warning=no C header generated: {reason}");
    }
}

fn link_flags() {
    // The major version alone names the ABI.
    let major = cargo("CARGO_PKG_VERSION_MAJOR");
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libtlsresume.so.{major}");

    // OpenSSL keeps pointers to our callbacks in contexts and ex_data classes, which outlive a
    // dlclose() by whoever loaded us.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
}

/// Sets `ossl300` and `ossl330` where the OpenSSL headers found by `openssl-sys` are that new.
fn openssl_version() {
    println!("cargo::rustc-check-cfg=cfg(ossl300, ossl330)");

    let hex = env::var("DEP_OPENSSL_VERSION_NUMBER").expect("OpenSSL itself, not a fork of it");
    let found = u64::from_str_radix(&hex, 16).expect("openssl-sys reports a hexadecimal version");
    for (cfg, since) in [("ossl300", 0x3000_0000), ("ossl330", 0x3030_0000)] {
        if found >= since {
            println!("cargo::rustc-cfg={cfg}");
        }
    }
}

fn write_header() -> Result<(), Box<dyn std::error::Error>> {
    let header = Path::new(&cargo("OUT_DIR")).join("tlsresume.h");
    // What an earlier build left must not pass for the header of this source.
    if header.exists() {
        fs::remove_file(&header)?;
    }

    let mut config = cbindgen::Config::from_file("cbindgen.toml")?;
    config.after_includes = Some(version_macros() + config.after_includes.as_deref().unwrap_or(""));

    // Only `ffi`: constants of other modules are no part of the interface, and a single module
    // is parsed without asking cargo for the crate's metadata.
    cbindgen::Builder::new()
        .with_config(config)
        .with_src("src/ffi/mod.rs")
        .generate()?
        .write_to_file(header);
    Ok(())
}

/// Cargo.toml is the one place that knows the version.
fn version_macros() -> String {
    let [major, minor, patch] =
        ["MAJOR", "MINOR", "PATCH"].map(|part| cargo(&format!("CARGO_PKG_VERSION_{part}")));
    format!(
        r#"
/** The version of this header; tlsresume_version() is that of the loaded library. */
#define TLSRESUME_VERSION "{version}"
#define TLSRESUME_VERSION_MAJOR {major}
#define TLSRESUME_VERSION_MINOR {minor}
#define TLSRESUME_VERSION_PATCH {patch}
/** One number to compare with: 0xMMmmpp, two hexadecimal digits each. */
#define TLSRESUME_VERSION_NUMBER \
    ((TLSRESUME_VERSION_MAJOR << 16) | (TLSRESUME_VERSION_MINOR << 8) | TLSRESUME_VERSION_PATCH)
"#,
        version = cargo("CARGO_PKG_VERSION")
    )
}

/// A variable that cargo sets for every run of this script.
fn cargo(variable: &str) -> String {
    env::var(variable).unwrap_or_else(|_| panic!("{variable} is not set; is this run by cargo?"))
}
