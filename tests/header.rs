//! `include/tlsresume.h` is what `src/ffi` says, compiles alone in every language that may include
//! it, carries the version of the package, and explains everything that it declares.

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use support::{output_of, release_library, repository, target_dir};

const STRICT: [&str; 4] = ["-Wall", "-Wextra", "-Wpedantic", "-Werror"];

#[test]
fn committed_header_is_the_generated_one() {
    let generated = fs::read_to_string(concat!(env!("OUT_DIR"), "/tlsresume.h"))
        .expect("build.rs made no header: its warning says why");
    assert!(committed_header() == generated, "src/ffi has changed: run make header");
}

#[test]
fn header_compiles_alone_as_c99() {
    compile_alone("gcc", "c", "c99");
}

#[test]
fn header_compiles_alone_as_c11() {
    compile_alone("gcc", "c", "c11");
}

#[test]
fn header_compiles_alone_as_cxx17() {
    compile_alone("g++", "c++", "c++17");
}

/// Twice, because the second time must be empty; the functions, because the macros of the same
/// name must not get in the way.
const USES_ONLY_THE_HEADER: &str = r"
#include <tlsresume.h>
#include <tlsresume.h>
int use(TLSRESUME *tr, SSL_CTX *ctx);
int use(TLSRESUME *tr, SSL_CTX *ctx)
{
    TLSRESUME_STATS stats;
    int (*plain)(SSL_CTX *) = tlsresume_install;
    return plain(ctx) && (tlsresume_attach)(tr, ctx) && tlsresume_install(ctx)
        && tlsresume_attach(tr, ctx) && tlsresume_stats(tr, &stats, sizeof stats);
}
";

fn compile_alone(compiler: &str, language: &str, standard: &str) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let source = directory.path().join("use");
    fs::write(&source, USES_ONLY_THE_HEADER).expect("writable");
    output_of(
        Command::new(compiler)
            .args(["-x", language, &format!("-std={standard}"), "-fsyntax-only"])
            .args(STRICT)
            .arg(include_path())
            .args(openssl("--cflags"))
            .arg(&source),
    );
}

/// The derived macro too, and as C sees them: a slip in a macro shows only when it is expanded.
#[test]
fn header_and_library_have_the_version_of_the_package() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (source, program) = (directory.path().join("version.c"), directory.path().join("version"));
    fs::write(
        &source,
        r#"
        #include <stdio.h>
        #include <tlsresume.h>
        int main(void)
        {
            printf("%s %d.%d.%d %#x %s", TLSRESUME_VERSION, TLSRESUME_VERSION_MAJOR,
                   TLSRESUME_VERSION_MINOR, TLSRESUME_VERSION_PATCH,
                   (unsigned)TLSRESUME_VERSION_NUMBER, tlsresume_version());
            return 0;
        }
        "#,
    )
    .expect("writable");
    output_of(
        Command::new("gcc")
            .arg("-std=c99")
            .args(STRICT)
            .arg(include_path())
            .args(openssl("--cflags"))
            .args([Path::new("-o"), &program, &source, &release_library()])
            .args(openssl("--libs")),
    );

    let version = env!("CARGO_PKG_VERSION");
    let number = version
        .split('.')
        .map(|part| part.parse::<u32>().expect("a number"))
        .fold(0, |number, part| number << 8 | part);
    assert_eq!(
        output_of(Command::new(program).env("LD_LIBRARY_PATH", target_dir().join("release"))),
        format!("{version} {version} {number:#x} {version}")
    );
}

/// The entry points for libtlsresume_preload.so, which is built from this tree and needs no header.
const FOR_THE_PRELOAD: [&str; 2] = ["tlsresume_interpose", "tlsresume_prepare"];

/// cbindgen leaves out what it does not understand, functions made by a macro among it.
#[test]
fn every_exported_function_is_declared() {
    let header = committed_header();
    let exported =
        fs::read_to_string(repository().join("abi/symbols.txt")).expect("abi/symbols.txt");
    let undeclared: Vec<_> = exported
        .lines()
        .filter(|name| !FOR_THE_PRELOAD.contains(name))
        .filter(|name| !header.contains(&format!("{name}(")))
        .collect();
    assert!(undeclared.is_empty(), "not in the header: {undeclared:?}");
}

#[test]
fn every_declaration_is_documented() {
    let header = committed_header();
    let lines: Vec<_> = header.lines().collect();
    let undocumented: Vec<_> = (1..lines.len())
        .filter(|&at| is_declaration(lines[at]) && !is_introduced_by(lines[at - 1]))
        .map(|at| format!("line {}: {}", at + 1, lines[at]))
        .collect();
    assert!(undocumented.is_empty(), "no comment in front of\n{}", undocumented.join("\n"));
}

/// Functions, types and macros start at the margin, members of a struct at the first indent.
fn is_declaration(line: &str) -> bool {
    let line = line.strip_prefix("    ").unwrap_or(line);
    line.starts_with("#define ") || line.starts_with(|c: char| c.is_ascii_alphabetic())
}

/// By the end of a comment; by the attribute of a function too long for one line; by the macro in
/// front, of a group that has one comment.
fn is_introduced_by(before: &str) -> bool {
    before.ends_with("*/") || before == "TLSRESUME_NODISCARD" || before.starts_with('#')
}

fn committed_header() -> String {
    fs::read_to_string(repository().join("include/tlsresume.h")).expect("run make header")
}

fn include_path() -> String {
    format!("-I{}", repository().join("include").display())
}

fn openssl(what: &str) -> Vec<String> {
    output_of(Command::new("pkg-config").args([what, "openssl"]))
        .split_whitespace()
        .map(str::to_owned)
        .collect()
}
