//! Which files of `src` use which others.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::{is_word, read, root, rust_files, without_comments};

/// The names that lead from the root of the crate to a file.
type Module = Vec<String>;

/// The files that each file uses, but for its own module's and those around that. What only tests use does not count.
pub(super) struct Uses(BTreeMap<Module, BTreeSet<Module>>);

impl Uses {
    pub(super) fn of_the_library() -> Self {
        let files: BTreeMap<Module, String> = rust_files(&root())
            .iter()
            .map(|path| (module_of(path), without_tests(&without_comments(&read(path)))))
            .filter(|(module, _)| !module.iter().any(|name| name.ends_with("tests")))
            .collect();
        let modules: BTreeSet<&Module> = files.keys().collect();
        let used = |(module, code): (&Module, &String)| {
            let paths = paths_in(code).into_iter().filter_map(|path| absolute(module, &path));
            let used = paths.filter_map(|path| file_of(&modules, path));
            // A module's own file has what its children have in common.
            let used = used.filter(|it| !module.starts_with(it));
            (module.clone(), used.collect())
        };
        Uses(files.iter().map(used).collect())
    }

    /// The files that are used by what they use, directly or not.
    pub(super) fn in_circles(&self) -> BTreeSet<String> {
        let is_in_one = |module: &&Module| self.reachable_from(module).contains(*module);
        self.0.keys().filter(is_in_one).map(|module| module.join("::")).collect()
    }

    fn reachable_from(&self, module: &Module) -> BTreeSet<&Module> {
        let mut reached = BTreeSet::new();
        let mut next: Vec<&Module> = self.0[module].iter().collect();
        while let Some(module) = next.pop() {
            if reached.insert(module) {
                next.extend(&self.0[module]);
            }
        }
        reached
    }
}

fn module_of(path: &Path) -> Module {
    let inside = path.strip_prefix(root()).expect("found below the root").with_extension("");
    let names = inside.iter().map(|name| name.to_str().expect("UTF-8").to_owned());
    names.filter(|name| name != "mod" && name != "lib").collect()
}

fn without_tests(code: &str) -> String {
    code.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_owned()
}

/// All paths in `use` declarations, and those that name their beginning in the code.
pub(super) fn paths_in(code: &str) -> Vec<Vec<String>> {
    let mut paths = Vec::new();
    let mut declarations = code.split("use ").skip(1).filter_map(|text| text.split(';').next());
    declarations.by_ref().for_each(|tree| expand(&[], tree, &mut paths));
    for beginning in ["crate::", "super::"] {
        let found = code.match_indices(beginning);
        let is_begun = |at: usize| !code[..at].ends_with(|c| is_word(c) || c == ':');
        let named = found.filter(|(at, _)| is_begun(*at)).map(|(at, _)| names_of(&code[at..]));
        // What a group follows is in a declaration.
        paths.extend(
            named.filter(|path| path.iter().any(|name| name != "crate" && name != "super")),
        );
    }
    paths
}

fn names_of(text: &str) -> Vec<String> {
    let end = text.find(|c| !is_word(c) && c != ':').unwrap_or(text.len());
    text[..end].split("::").filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// Adds the paths of a tree such as `a::{self, b::c}`.
fn expand(before: &[String], tree: &str, paths: &mut Vec<Vec<String>>) {
    let tree = tree.trim();
    if let Some(group) = tree.strip_prefix('{') {
        return branches(group).into_iter().for_each(|branch| expand(before, branch, paths));
    }
    let name: String = tree.chars().take_while(|&c| is_word(c)).collect();
    let path = [before, std::slice::from_ref(&name)].concat();
    match tree[name.len()..].trim_start().strip_prefix("::") {
        Some(rest) => expand(&path, rest, paths),
        None if name == "self" => paths.push(before.to_vec()),
        None => paths.push(path),
    }
}

/// The parts of a group whose opening brace was read.
fn branches(group: &str) -> Vec<&str> {
    let (mut depth, mut begin, mut parts) = (0, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            ',' | '}' if depth == 0 => {
                parts.push(&group[begin..at]);
                begin = at + 1;
                if c == '}' {
                    break;
                }
            }
            '}' => depth -= 1,
            _ => {}
        }
    }
    parts.into_iter().filter(|part| !part.trim().is_empty()).collect()
}

/// A path from the root of the crate; `None` for one of another crate.
fn absolute(module: &Module, path: &[String]) -> Option<Vec<String>> {
    let ups = path.iter().take_while(|name| *name == "super").count();
    match path.first()?.as_str() {
        "crate" => Some(path[1..].to_vec()),
        "self" => Some([module, &path[1..]].concat()),
        "super" => Some([&module[..module.len().checked_sub(ups)?], &path[ups..]].concat()),
        // A module's own child.
        _ => Some([module, path].concat()),
    }
}

/// The file that has what a path leads to.
fn file_of(modules: &BTreeSet<&Module>, mut path: Vec<String>) -> Option<Module> {
    while !path.is_empty() && !modules.contains(&path) {
        path.pop();
    }
    (!path.is_empty()).then_some(path)
}
