//! The arrows of the module graph point down, `unsafe` and OpenSSL stay in the modules that own
//! them, and no file outgrows what can be read at a sitting.

#[path = "layering/files.rs"]
mod files;

use std::fs;
use std::path::{Path, PathBuf};

use files::{Uses, paths_in};

/// From top to bottom. A module uses itself and layers below its own; neighbours in a layer do not
/// know each other.
const LAYERS: &[&[&str]] = &[
    &["ffi", "realm"],
    &["tls"],
    &["engine"],
    &["ring", "store", "cluster"],
    &["config"],
    &["stats", "secret", "recent", "trouble"],
    &["log"],
    &["clock"],
    &["sys"],
    &["error"],
];

const MAY_BE_UNSAFE: &[&str] = &["ffi", "tls", "store", "sys"];

/// Few files come near it; a file that passes it holds two things. Files of tests are lists, which
/// may be as long as they like.
const MOST_LINES: usize = 500;

#[test]
fn arrows_point_down() {
    let mut wrong = Vec::new();
    for source in sources() {
        for used in used_modules(&source.code) {
            if used != source.module && layer(&used) <= layer(&source.module) {
                wrong.push(format!("{}: uses crate::{used}", source.path.display()));
            }
        }
    }
    assert_none(&wrong, "these uses point up, or to a neighbour");
}

#[test]
fn files_do_not_use_each_other_in_a_circle() {
    let wrong: Vec<_> = Uses::of_the_library().in_circles().into_iter().collect();
    assert_none(&wrong, "these files use each other in a circle");
}

#[test]
fn every_form_of_use_is_seen() {
    let code = "use super::{a::{self, b}, c};\nuse crate::d::E;\nfn f() { super::g::h() }";
    let paths: Vec<_> = paths_in(code).iter().map(|path| path.join("::")).collect();
    for path in ["super::a", "super::a::b", "super::c", "crate::d::E", "super::g::h"] {
        assert!(paths.contains(&path.to_owned()), "{path}: {paths:?}");
    }
}

/// All else knows a transport by its traits.
#[test]
fn only_the_factory_names_a_transport() {
    let names_one = |word: &str| {
        let word = word.to_lowercase();
        // A field of the C structure, which is for good.
        word != "transport_up_redis"
            && ["redis", "memcached", "valkey"].iter().any(|it| word.contains(it))
    };
    let above = ["ffi", "realm", "tls", "engine", "ring", "store"];
    let wrong: Vec<_> = sources()
        .iter()
        .filter(|source| above.contains(&source.module.as_str()))
        .filter(|source| !source.path.ends_with("engine/transports.rs"))
        .filter(|source| !source.path.components().any(|part| part.as_os_str() == "tests"))
        .filter(|source| source.code.split(|c| !is_word(c)).any(names_one))
        .map(|source| source.path.display().to_string())
        .collect();
    assert_none(&wrong, "these name a transport; only src/engine/transports.rs does");
}

#[test]
fn unsafe_stays_where_it_is_needed() {
    let wrong = sources_outside(MAY_BE_UNSAFE, |word| word == "unsafe");
    assert_none(&wrong, "only these modules may be unsafe: ffi, tls, store, sys");
}

#[test]
fn only_tls_calls_ssl_functions() {
    let wrong = sources_outside(&["tls"], |word| {
        let name = word.strip_prefix("SSL_").map(|name| {
            name.trim_start_matches("CTX_").trim_start_matches("SESSION_").chars().next()
        });
        name.flatten().is_some_and(char::is_lowercase)
    });
    assert_none(&wrong, "these call SSL functions; only tls does");
}

#[test]
fn files_are_short() {
    let long: Vec<_> = rust_files(&root())
        .into_iter()
        .filter(|path| !path.ends_with("tests.rs") && read(path).lines().count() > MOST_LINES)
        .map(|path| path.display().to_string())
        .collect();
    assert_none(&long, "longer than 500 lines");
}

#[test]
fn every_form_of_path_is_seen() {
    let code = "use crate::{engine::{self, Engine}, error::Error};\nfn f() { crate::log::warn() }";
    assert_eq!(used_modules(code), ["engine", "error", "log"]);
}

/// One file of `src`, without its comments.
struct Source {
    path: PathBuf,
    /// The module of the first level that it belongs to.
    module: String,
    code: String,
}

/// All of `src` but `lib.rs`, which only names the modules.
fn sources() -> Vec<Source> {
    let root = root();
    rust_files(&root)
        .into_iter()
        .filter(|path| *path != root.join("lib.rs"))
        .map(|path| {
            let inside = path.strip_prefix(&root).expect("found below the root");
            let first = inside.iter().next().expect("a file has a name");
            let module = first.to_str().expect("UTF-8").trim_end_matches(".rs").to_owned();
            let code = without_comments(&read(&path));
            Source { path, module, code }
        })
        .collect()
}

/// The sources of other modules than `allowed` that contain a word like `is_meant`.
fn sources_outside(allowed: &[&str], is_meant: impl Fn(&str) -> bool) -> Vec<String> {
    sources()
        .iter()
        .filter(|source| !allowed.contains(&source.module.as_str()))
        .filter(|source| source.code.split(|c| !is_word(c)).any(&is_meant))
        .map(|source| source.path.display().to_string())
        .collect()
}

fn layer(module: &str) -> usize {
    LAYERS
        .iter()
        .position(|layer| layer.contains(&module))
        .unwrap_or_else(|| panic!("module {module} has no place in LAYERS"))
}

/// The first names of all paths that start with `crate::`, also in `use crate::{a::b, c}`.
fn used_modules(code: &str) -> Vec<String> {
    let mut used = Vec::new();
    for (at, found) in code.match_indices("crate::") {
        let path = &code[at + found.len()..];
        match path.strip_prefix('{') {
            Some(group) => used.extend(group_names(group)),
            None => used.push(first_word(path)),
        }
    }
    used
}

/// The first names of the paths in a group whose opening brace was read.
fn group_names(group: &str) -> Vec<String> {
    let mut depth = 1;
    let end = group.find(|c| {
        depth += i32::from(c == '{') - i32::from(c == '}');
        depth == 0
    });
    let mut depth = 0;
    group[..end.expect("groups are closed")]
        .split(|c| {
            depth += i32::from(c == '{') - i32::from(c == '}');
            c == ',' && depth == 0
        })
        .map(|path| first_word(path.trim()))
        .filter(|name| !name.is_empty())
        .collect()
}

fn first_word(text: &str) -> String {
    text.chars().take_while(|&c| is_word(c)).collect()
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Line comments, which are the only ones we write; the rest of a line after a URL goes with them.
fn without_comments(text: &str) -> String {
    text.lines().filter_map(|line| line.split("//").next()).collect::<Vec<_>>().join("\n")
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn rust_files(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).expect("a readable directory") {
        let path = entry.expect("a readable entry").path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn assert_none(wrong: &[String], claim: &str) {
    assert!(wrong.is_empty(), "{claim}:\n{}", wrong.join("\n"));
}
