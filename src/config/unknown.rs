//! What to say about a key that does not exist.

#![forbid(unsafe_code)]

use super::env::ENVIRONMENT;
use super::input::shortened;

/// The keys that `section` has (the top level is the empty section), and the one that was probably meant.
pub(super) fn unknown_key(section: &str, name: &str) -> String {
    let found = dotted(section, &as_written(name));
    if section.is_empty() && names_in(section).contains(&name) {
        return format!("{found}: is a section; write [{found}] and its keys below");
    }
    let allowed = names_in(section).join(", ");
    let hint = meant(section, name).map_or(String::new(), |key| format!("; did you mean {key}?"));
    format!("{found}: unknown key; allowed: {allowed}{hint}")
}

/// The names at the top level are those of the sections and of the keys outside them.
fn names_in(section: &str) -> Vec<&'static str> {
    let mut names: Vec<_> = ENVIRONMENT
        .iter()
        .map(|setting| setting.path())
        .filter_map(|path| match path {
            ("", key) if section.is_empty() => Some(key),
            (other, _) if section.is_empty() => Some(other),
            (other, key) if other == section => Some(key),
            _ => None,
        })
        .collect();
    names.dedup();
    names
}

/// A similar name in this section, or else the same name in another.
fn meant(section: &str, name: &str) -> Option<String> {
    let similar = names_in(section)
        .into_iter()
        .map(|candidate| (edits(name, candidate), candidate))
        .filter(|(edits, candidate)| *edits <= 1 + candidate.len() / 4)
        .min()
        .map(|(_, candidate)| dotted(section, candidate));
    let elsewhere = || {
        let moved = ENVIRONMENT.iter().find(|setting| setting.path().1 == name);
        moved.map(|setting| setting.key.to_owned())
    };
    similar.or_else(elsewhere)
}

/// A name that is not made of letters, digits, `_` and `-` stands in quotes.
fn as_written(name: &str) -> String {
    let is_bare = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    match shortened(name) {
        name if !name.is_empty() && name.bytes().all(is_bare) => name,
        name => format!("{name:?}"),
    }
}

fn dotted(section: &str, name: &str) -> String {
    if section.is_empty() { name.to_owned() } else { format!("{section}.{name}") }
}

/// How many characters to insert, delete or replace to make `to` of `from`; none where `from` only stops early.
fn edits(from: &str, to: &str) -> usize {
    if from.len() > 2 && to.starts_with(from) {
        return 0;
    }
    // Row of the Levenshtein matrix: distances from the characters seen so far to every beginning of `to`.
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for character in from.chars() {
        let mut diagonal = row[0];
        row[0] += 1;
        for (column, other) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(character != *other);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[to.len()]
}
