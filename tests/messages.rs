//! Every line of the log is in `docs/messages.md`, with what it means and what to do, and no other.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const PAGE: &str = "docs/messages.md";
const LEVELS: [&str; 4] = ["error", "warn", "info", "debug"];

/// Level and text, as the code has it.
type Line = (String, String);

#[test]
fn messages_md_has_every_line_of_the_log_and_no_other() {
    let (code, page) = (lines_of_the_code(), lines_of_the_page());
    assert!(code.len() > 40, "how do lines look now? {code:?}");
    let missing: Vec<_> = code.difference(&page).collect();
    assert!(missing.is_empty(), "not in {PAGE}: {missing:#?}");
    let left_over: Vec<_> = page.difference(&code).collect();
    assert!(left_over.is_empty(), "only in {PAGE}: {left_over:#?}");
}

#[test]
fn a_text_of_several_lines_is_one_line_of_the_log() {
    let code = "log::warn!(\n    \"the \\\"first\\\" \\\n     and {second}\",\n    1\n);\nlog::info!(\"x\")";
    let lines = lines_in(code);
    assert_eq!(lines, [line("warn", "the \"first\" and {second}"), line("info", "x")]);
}

fn line(level: &str, text: &str) -> Line {
    (level.into(), text.into())
}

fn lines_of_the_code() -> BTreeSet<Line> {
    let sources = rust_files(&root().join("src"));
    sources.iter().flat_map(|path| lines_in(&read(path))).collect()
}

/// The lines that the macros of the `log` crate are given in a source.
fn lines_in(code: &str) -> Vec<Line> {
    let calls = code.split("log::").skip(1);
    calls.filter_map(|call| LEVELS.iter().find_map(|level| line_of(call, level))).collect()
}

fn line_of(call: &str, level: &str) -> Option<Line> {
    let literal = call.strip_prefix(level)?.strip_prefix("!(")?.trim_start().strip_prefix('"')?;
    let (mut text, mut characters) = (String::new(), literal.chars());
    loop {
        match characters.next()? {
            '"' => return Some(line(level, &text)),
            '\\' => match characters.next()? {
                // The text goes on at the next word.
                '\n' => characters = characters.as_str().trim_start().chars(),
                escaped => text.push(escaped),
            },
            other => text.push(other),
        }
    }
}

fn lines_of_the_page() -> BTreeSet<Line> {
    let page = read(&root().join(PAGE));
    let rows = page.lines().filter_map(|row| row.strip_prefix("| "));
    let lines = rows.filter_map(|row| {
        let mut cells = row.split(" | ");
        let (level, text) = (cells.next()?, cells.next()?);
        let fence = text.len() - text.trim_start_matches('`').len();
        let text = text.get(fence..text.len() - fence)?;
        LEVELS.contains(&level).then(|| line(level, text.trim()))
    });
    lines.collect()
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder of sources");
    let paths = entries.map(|entry| entry.expect("a readable folder").path());
    let of = |path: PathBuf| match path.is_dir() {
        true => rust_files(&path),
        false => vec![path],
    };
    paths.flat_map(of).filter(|path| path.extension().is_some_and(|it| it == "rs")).collect()
}
