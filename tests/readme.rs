//! What the documentation shows is so: commands run, C compiles, configurations are accepted, links
//! lead somewhere.

mod support;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::{output_of, release_library, repository, target_dir};
use tlsresume::config::Config;

/// The two commands that the README is about. `make test` runs this very test, so it is not run
/// from here; both stand alone in their blocks, so that nothing else is skipped with them.
const DEMO: &str = "make demo";
const TEST: &str = "make test";

/// What a block may be. Commands that are not meant to be tried as they stand are `console`.
const LANGUAGES: [&str; 9] = ["sh", "c", "rust", "toml", "console", "ini", "text", "nginx", "diff"];

#[test]
fn every_block_says_what_it_is() {
    let unknown: Vec<_> = blocks()
        .into_iter()
        .filter(|block| !LANGUAGES.contains(&block.language.as_str()))
        .map(|block| format!("{}: {:?}", block.place, block.language))
        .collect();
    assert_none(&unknown, "blocks of no known language");
}

#[test]
fn every_shell_block_runs() {
    release_library();
    let scripts = blocks_in("sh").into_iter().filter(|block| !is_own_command(block));
    for script in scripts {
        let tree = tree_with_this_target();
        // The place is what bash calls itself in its messages.
        output_of(
            in_clean_environment("timeout")
                .args(["120", "bash", "-eu", "-o", "pipefail", "-c", &script.text, &script.place])
                .current_dir(tree.path()),
        );
    }
}

#[test]
fn make_demo_resumes_every_client() {
    assert_eq!(readme_blocks_of(DEMO), 1, "blocks of README.md that are exactly {DEMO}");
    release_library();
    let table = output_of(
        in_clean_environment("timeout")
            .args(["300", "make", "demo"])
            .env("CARGO_TARGET_DIR", target_dir())
            .current_dir(repository()),
    );
    assert!(table.contains("With the library every client was resumed."), "{table}");
}

#[test]
fn make_test_is_a_target() {
    assert_eq!(readme_blocks_of(TEST), 1, "blocks of README.md that are exactly {TEST}");
    let makefile = read(&repository().join("Makefile"));
    assert!(makefile.lines().any(|line| line.starts_with("test:")), "no target test in Makefile");
}

#[test]
fn every_c_block_compiles_without_a_warning() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let openssl = output_of(Command::new("pkg-config").args(["--cflags", "openssl"]));
    for block in blocks_in("c") {
        // The compiler's messages tell the place.
        let source = directory.path().join(block.place.replace(['/', ':'], "-") + ".c");
        fs::write(&source, as_source(&block.text)).expect("writable");
        output_of(
            Command::new("gcc")
                .args(["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only"])
                .arg(format!("-I{}", repository().join("include").display()))
                .args(openssl.split_whitespace())
                .arg(&source),
        );
    }
}

/// The compiler sees the example in the documentation of `Realm`.
#[test]
fn every_rust_block_is_part_of_an_example_that_compiles() {
    let realm = read(&repository().join("src/realm.rs"));
    let compiled: Vec<_> = realm.lines().filter_map(|line| line.strip_prefix("/// ")).collect();
    for block in blocks_in("rust") {
        let strange: Vec<_> =
            block.text.lines().filter(|line| !compiled.contains(line)).map(str::to_owned).collect();
        assert_none(&strange, &format!("{}: not in the example of src/realm.rs", block.place));
    }
}

#[test]
fn every_configuration_is_accepted() {
    for block in blocks_in("toml") {
        Config::from_toml(&block.text, &block.place, &|_| None)
            .unwrap_or_else(|error| panic!("{error}"));
    }
}

#[test]
fn every_link_leads_somewhere() {
    let mut dead = Vec::new();
    for document in documents() {
        let text = without_blocks(&read(&document));
        for link in links(&text).filter(|link| !link.contains("://")) {
            let (path, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = match path {
                "" => document.clone(),
                path => document.parent().expect("a file is in a directory").join(path),
            };
            let found = target.exists()
                && (heading.is_empty() || anchors(&read(&target)).any(|it| it == heading));
            if !found {
                dead.push(format!("{}: {link}", name(&document)));
            }
        }
    }
    assert_none(&dead, "dead links");
}

/// A block between fences.
struct Block {
    /// File and line, for messages.
    place: String,
    language: String,
    text: String,
}

fn blocks() -> Vec<Block> {
    documents().iter().flat_map(|document| blocks_of(&name(document), &read(document))).collect()
}

fn blocks_in(language: &str) -> Vec<Block> {
    let found: Vec<_> = blocks().into_iter().filter(|block| block.language == language).collect();
    assert!(!found.is_empty(), "no block of {language} was found");
    found
}

fn blocks_of(document: &str, text: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut is_inside = false;
    for (line, number) in text.lines().zip(1..) {
        match (line.strip_prefix("```"), blocks.last_mut().filter(|_| is_inside)) {
            (Some(_), Some(_)) => is_inside = false,
            (Some(language), None) => {
                let place = format!("{document}:{number}");
                blocks.push(Block { place, language: language.into(), text: String::new() });
                is_inside = true;
            }
            (None, Some(block)) => block.text.extend([line, "\n"]),
            (None, None) => {}
        }
    }
    assert!(!is_inside, "{document}: a block does not end");
    blocks
}

fn is_own_command(block: &Block) -> bool {
    let is_own = |line: &str| [DEMO, TEST].contains(&line.trim());
    let has_own = block.text.lines().any(is_own);
    let alone = block.text.lines().count() == 1;
    assert!(!has_own || alone, "{}: {DEMO} and {TEST} stand alone", block.place);
    has_own
}

fn readme_blocks_of(command: &str) -> usize {
    let readme = blocks_of("README.md", &read(&repository().join("README.md")));
    readme.iter().filter(|block| block.language == "sh" && block.text.trim() == command).count()
}

/// The tree as its reader sees it, wherever cargo builds: `target` is where this test was built.
fn tree_with_this_target() -> tempfile::TempDir {
    let tree = tempfile::tempdir().expect("a temporary directory");
    let link = |to: &Path, name: &str| symlink(to, tree.path().join(name)).expect("a link");
    for path in entries(repository()) {
        match path.file_name().and_then(|name| name.to_str()).expect("UTF-8") {
            "target" => {}
            name => link(&path, name),
        }
    }
    link(target_dir(), "target");
    tree
}

/// Neither the make that runs this test nor the caller's settings shine through.
fn in_clean_environment(program: &str) -> Command {
    let mut command = Command::new(program);
    let ours = std::env::vars_os()
        .map(|(name, _)| name)
        .filter(|name| name.to_string_lossy().starts_with("TLSRESUME_"));
    for name in ours.chain(["MAKEFLAGS", "MAKELEVEL", "MFLAGS", "CARGO_TARGET_DIR"].map(Into::into))
    {
        command.env_remove(name);
    }
    command
}

/// Blocks with includes are whole files; the others are statements of a function.
fn as_source(text: &str) -> String {
    if text.contains("#include") {
        return text.to_owned();
    }
    let head = "void block(TLSRESUME *tr, SSL_CTX *ctx, SSL *ssl)";
    format!(
        "#include <openssl/err.h>\n#include <openssl/ssl.h>\n#include <stdio.h>\n\
         #include <stdlib.h>\n#include <tlsresume.h>\n\
         {head};\n{head}\n{{\n(void)tr;\n(void)ctx;\n(void)ssl;\n{text}}}\n"
    )
}

fn without_blocks(text: &str) -> String {
    let mut is_inside = false;
    let outside = text.lines().filter(|line| {
        let is_fence = line.starts_with("```");
        is_inside ^= is_fence;
        !is_inside && !is_fence
    });
    outside.collect::<Vec<_>>().join("\n")
}

fn links(text: &str) -> impl Iterator<Item = &str> {
    text.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0))
}

/// What headings are called in links: letters and digits in lower case, `-` for a space.
fn anchors(text: &str) -> impl Iterator<Item = String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let headings = headings.map(|line| line.trim_start_matches('#').trim().to_lowercase());
    let anchor = |heading: String| -> String {
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings.map(anchor).collect::<Vec<_>>().into_iter()
}

/// Everything that is written for readers of this release.
fn documents() -> Vec<PathBuf> {
    let root = repository();
    let mut found =
        ["README.md", "ARCHITECTURE.md", "tests/README.md"].map(|name| root.join(name)).to_vec();
    for folder in ["docs", "docs/adr"] {
        let files = entries(&root.join(folder));
        found.extend(files.into_iter().filter(|path| path.extension() == Some("md".as_ref())));
    }
    found
}

fn name(document: &Path) -> String {
    document.strip_prefix(repository()).expect("below the root").display().to_string()
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let entries =
        fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("a readable entry").path()).collect();
    paths.sort();
    paths
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn assert_none(wrong: &[String], claim: &str) {
    assert!(wrong.is_empty(), "{claim}:\n{}", wrong.join("\n"));
}
