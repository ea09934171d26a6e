//! The tables of the documentation are those of the code: settings, metrics, functions, tests,
//! dependencies.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use tlsresume::clock;
use tlsresume::config::{CONFIG_VARIABLE, Config, ENVIRONMENT};
use tlsresume::engine::Engine;

#[test]
fn configuration_md_has_every_setting_as_the_code_has_it_and_no_other() {
    let documented: Vec<_> = settings()
        .into_iter()
        .map(|it| format!("{} | {} | {}", it.key, it.variable, it.allowed))
        .collect();
    let real: Vec<_> = ENVIRONMENT
        .iter()
        .map(|it| format!("{} | `{}` | {}", it.key, it.name, it.allowed))
        .collect();
    assert_eq!(documented, real, "left: docs/configuration.md; right: ENVIRONMENT, in its order");
}

#[test]
fn the_defaults_in_configuration_md_are_the_defaults() {
    for Setting { key, default, .. } in settings() {
        let text = format!("{key} = {}", default.trim_matches('`'));
        let accepted = Config::from_toml(&text, &key, &|_| None).map_err(|error| error.to_string());
        assert_eq!(accepted, Ok(Config::default()), "{text}");
    }
}

/// An empty value counts as not set, so only settings without a default may show one.
#[test]
fn empty_defaults_in_configuration_md_are_those_of_files_and_addresses() {
    let is_optional = |it: &&Setting| {
        ["path", "file", "files", "url", "servers", "members", "listen", "multicast", "interface"]
            .iter()
            .any(|end| it.key.ends_with(end))
    };
    let all = settings();
    let empty: Vec<_> =
        all.iter().filter(|it| ["`\"\"`", "`[]`"].contains(&it.default.as_str())).collect();
    let optional: Vec<_> = all.iter().filter(is_optional).collect();
    let keys = |settings: &[&Setting]| settings.iter().map(|it| it.key.clone()).collect::<Vec<_>>();
    assert_eq!(keys(&empty), keys(&optional));
}

#[test]
fn documents_name_only_variables_and_constants_that_exist() {
    let header = read("include/tlsresume.h");
    let exists = |word: &str| {
        word == CONFIG_VARIABLE
            || ENVIRONMENT.iter().any(|it| it.name == word)
            || words(&header).any(|it| it == word)
    };
    let wrong = words_of_documents(|word| {
        word.strip_prefix("TLSRESUME_").is_some_and(|rest| !rest.is_empty()) && !exists(word)
    });
    assert_none(&wrong, "no such variable or constant");
}

#[test]
fn documents_name_only_functions_and_metrics_that_exist() {
    let functions = read("abi/symbols.txt");
    let metrics = node_metrics();
    let others = ["tlsresume_h", "tlsresume_st", "tlsresume_testkit", "tlsresume_status"];
    let exists = |word: &str| {
        functions.lines().any(|it| it == word)
            || words(&metrics).any(|it| it == word)
            || others.contains(&word)
    };
    let wrong = words_of_documents(|word| {
        // A word that ends in "_" is a family, written with a star.
        word.starts_with("tlsresume_") && !word.ends_with('_') && !exists(word)
    });
    assert_none(&wrong, "no such function or metric");
}

#[test]
fn c_api_md_names_every_function() {
    let guide = read("docs/c-api.md");
    let functions = read("abi/symbols.txt");
    let missing: Vec<_> = functions
        .lines()
        .filter(|function| !words(&guide).any(|word| word == *function))
        .map(str::to_owned)
        .collect();
    assert_none(&missing, "not in docs/c-api.md");
}

#[test]
fn metrics_md_has_every_series_with_its_type_and_no_other() {
    let metrics = node_metrics();
    let kind_of = |series: &str| {
        let series = series.split('{').next().unwrap_or(series);
        let name = HISTOGRAM_ENDS.iter().find_map(|end| series.strip_suffix(end)).unwrap_or(series);
        let start = format!("# TYPE {name} ");
        let kind = metrics.lines().find_map(|line| line.strip_prefix(&start));
        kind.unwrap_or_else(|| panic!("{name} has no type")).to_owned()
    };
    let real: Vec<_> = metrics
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.rsplit_once(' '))
        .map(|(series, _)| (series.to_owned(), kind_of(series)))
        .collect();
    let documented: Vec<_> = metric_rows().into_iter().map(|it| (it.series, it.kind)).collect();
    assert_eq!(documented, real, "left: docs/metrics.md; right: Engine::metrics, in its order");
}

#[test]
fn metrics_md_has_every_field_of_the_structure_in_its_order_and_no_other() {
    let documented: Vec<_> = metric_rows().into_iter().filter_map(|it| it.field).collect();
    assert_eq!(documented, structure_fields(), "left: docs/metrics.md; right: TLSRESUME_STATS");
}

#[test]
fn series_and_fields_of_a_row_have_the_same_name() {
    for row in metric_rows() {
        let Some(field) = row.field else {
            // The parts of a histogram but their count.
            assert!(HISTOGRAM_ENDS.iter().any(|end| row.series.contains(end)), "{}", row.series);
            continue;
        };
        let (name, label) = row.series.split_once('{').unwrap_or((&row.series, ""));
        let stem = name.trim_start_matches("tlsresume_").trim_end_matches("_total");
        let stem = stem.replace("_seconds_count", "s");
        let value = label.split('"').nth(1).map(|value| format!("_{value}"));
        assert_eq!(field, format!("{stem}{}", value.unwrap_or_default()));
    }
}

#[test]
fn shm_format_md_has_the_numbers_of_the_layout() {
    let layout = read("src/store/layout.rs");
    let value = |name: &str| {
        let start = format!("const {name}: usize = ");
        let (_, rest) = layout.split_once(&start).unwrap_or_else(|| panic!("no {name}"));
        let (factors, _) = rest.split_once(';').expect("constants end");
        let number = |factor: &str| factor.trim().replace('_', "").parse::<u64>();
        factors.split('*').map(|it| number(it).expect("a product of numbers")).product::<u64>()
    };
    // As `Geometry::of` computes it.
    let (header, bucket) = (value("SHARD_HEADER"), value("BUCKET") * 4);
    let tables_at = value("PAGE") + 2 * value("SLOT_BYTES");
    let table = |share: u64| ((16u64 << 20) / share).min(value("LARGEST_TABLE")) / value("WORD");
    let (names, strikes) = (table(16), table(32));
    let removals = ((16u64 << 20) / 64).min(value("LARGEST_REMOVALS")) / value("WORD");
    let room = (16 << 20) - tables_at - (names + strikes + removals) * value("WORD");
    let shards = room.div_ceil(value("LARGEST_SHARD"));
    let shard_bytes = room / shards / header * header;
    let per_bucket = bucket + value("LOG_PER_BUCKET");
    let buckets = (shard_bytes - header) / per_bucket;
    let log_units = (shard_bytes - header - buckets * bucket) / value("WORD");

    let page = read("docs/shm-format.md");
    let missing: Vec<_> = [
        format!("2 MiB at most; / 8 | {} |\n| strikes |", grouped(names)),
        format!("2 MiB at most; / 8 | {} |\n| removals |", grouped(strikes)),
        format!("1 MiB at most; / 8 | {} |\n| room |", grouped(removals)),
        format!(
            "| room | size - {} - (names + strikes + removals) x 8 | {} |",
            grouped(tables_at),
            grouped(room)
        ),
        format!("| {shards} |\n| shard_bytes |"),
        format!("| {} |\n| buckets of a shard |", grouped(shard_bytes)),
        format!("/ {}, rounded down | {} |", grouped(per_bucket), grouped(buckets)),
        format!("| {} |\n", grouped(log_units)),
        format!("{}  table of names", grouped(tables_at)),
        format!("layout **version {}**", value_of_version(&layout)),
    ]
    .into_iter()
    .filter(|text| !page.contains(text))
    .collect();
    assert_none(&missing, "not in docs/shm-format.md");
}

#[test]
fn architecture_md_says_of_every_dependency_why_it_is_there() {
    let manifests = ["Cargo.toml", "tlsresumectl/Cargo.toml"].map(read);
    let mut wanted: BTreeSet<_> = manifests.iter().flat_map(|text| dependencies(text)).collect();
    assert!(wanted.remove("tlsresume"), "the tool uses the library");
    let text = read("ARCHITECTURE.md");
    let explained: BTreeSet<_> = section(&text, "## Dependencies")
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(name, _)| name)
        .collect();
    assert_eq!(explained, wanted, "left: ARCHITECTURE.md; right: the manifests");
}

#[test]
fn architecture_md_names_tests_that_exist_for_what_the_host_is_asked_for() {
    let (text, mut tested, mut missing) = (read("ARCHITECTURE.md"), String::new(), Vec::new());
    let rows = section(&text, "## What the host process is asked for").lines().skip(4);
    for row in rows.filter(|row| row.starts_with('|')) {
        let shown_by = cells(row).pop().unwrap_or_default();
        assert!(shown_by.contains('`'), "nothing shows: {row}");
        for name in shown_by.split('`').skip(1).step_by(2) {
            match name.rsplit_once('.') {
                Some((_, "rs")) => tested = read(name),
                Some((_, "c")) => tested = read(&format!("c-tests/{}", file_name(name))),
                _ if words(&tested).any(|word| word == name) => {}
                _ => missing.push(name.to_owned()),
            }
        }
    }
    assert_none(&missing, "no such test");
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

#[test]
fn tests_readme_names_every_test_program() {
    let readme = read("tests/README.md");
    let missing: Vec<_> = files("tests")
        .into_iter()
        .filter(|path| path.extension() == Some("rs".as_ref()))
        .filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()))
        .filter(|name| !readme.contains(&format!("`{name}`")))
        .collect();
    assert_none(&missing, "not in tests/README.md");
}

/// The names in every section of a manifest that lists dependencies.
fn dependencies(manifest: &str) -> Vec<&str> {
    let mut names = Vec::new();
    let mut is_inside = false;
    for line in manifest.lines() {
        match line.strip_prefix('[') {
            Some(section) => is_inside = section.trim_end_matches(']').ends_with("dependencies"),
            None if is_inside => names.extend(line.split_once('=').map(|(name, _)| name.trim())),
            None => {}
        }
    }
    names
}

/// One setting as docs/configuration.md has it: a heading with its key, then a table of one row.
struct Setting {
    key: String,
    variable: String,
    allowed: String,
    default: String,
}

fn settings() -> Vec<Setting> {
    let text = read("docs/configuration.md");
    let sections = text.split("\n### `").skip(1);
    sections
        .map(|section| {
            let (key, body) = section.split_once('`').expect("a key ends with `");
            let row = body.lines().find(|line| line.starts_with("| `TLSRESUME_"));
            match &cells(row.unwrap_or_else(|| panic!("{key} has no row")))[..] {
                [variable, allowed, default] => Setting {
                    key: key.into(),
                    variable: variable.clone(),
                    allowed: allowed.clone(),
                    default: default.clone(),
                },
                other => panic!("{key}: variable, allowed and default, not {other:?}"),
            }
        })
        .collect()
}

/// One row of docs/metrics.md: series, type, member of TLSRESUME_STATS, meaning.
struct MetricRow {
    series: String,
    kind: String,
    field: Option<String>,
}

/// What the names of a histogram's series have after its own.
const HISTOGRAM_ENDS: [&str; 3] = ["_bucket", "_sum", "_count"];

fn metric_rows() -> Vec<MetricRow> {
    let text = read("docs/metrics.md");
    text.lines()
        .filter(|line| line.starts_with("| `tlsresume_"))
        .map(|line| match &cells(line)[..] {
            [series, kind, field, _meaning] => MetricRow {
                series: series.trim_matches('`').into(),
                kind: kind.clone(),
                field: (field != "-").then(|| field.trim_matches('`').into()),
            },
            other => panic!("series, type, member and meaning, not {other:?}"),
        })
        .collect()
}

fn structure_fields() -> Vec<String> {
    let header = read("include/tlsresume.h");
    let (_, structure) = header.split_once("struct TLSRESUME_STATS {").expect("the structure");
    let (members, _) = structure.split_once("} TLSRESUME_STATS;").expect("its end");
    let members = members.lines().filter_map(|line| line.trim().strip_prefix("uint64_t "));
    members.map(|member| member.trim_end_matches(';').to_owned()).collect()
}

/// The metrics of a node that has done nothing yet.
fn node_metrics() -> String {
    Engine::new(Config::default()).expect("anonymous memory").metrics(clock::now())
}

fn cells(row: &str) -> Vec<String> {
    row.trim().trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect()
}

fn value_of_version(layout: &str) -> &str {
    let (_, rest) = layout.split_once("const VERSION: u64 = ").expect("the layout has a version");
    rest.split(';').next().unwrap_or_default()
}

/// With a comma between thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// From a heading to the next one of its level.
fn section<'a>(text: &'a str, heading: &str) -> &'a str {
    let (_, rest) = text.split_once(heading).unwrap_or_else(|| panic!("no {heading}"));
    rest.split_once("\n## ").map_or(rest, |(section, _)| section)
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
}

fn words_of_documents(is_wrong: impl Fn(&str) -> bool) -> Vec<String> {
    let mut wrong = Vec::new();
    for document in documents() {
        let text = fs::read_to_string(&document).expect("readable");
        let found = words(&text).filter(|word| is_wrong(word));
        wrong.extend(found.map(|word| format!("{}: {word}", document.display())));
    }
    wrong
}

fn documents() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let pages = ["README.md", "ARCHITECTURE.md", "tests/README.md"].map(|name| root.join(name));
    let folders = ["docs", "docs/adr", "man"].into_iter().flat_map(files);
    pages.into_iter().chain(folders.filter(|path| path.is_file())).collect()
}

fn files(directory: &str) -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(directory);
    let entries =
        fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    entries.map(|entry| entry.expect("a readable entry").path()).collect()
}

fn read(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn assert_none(wrong: &[String], claim: &str) {
    assert!(wrong.is_empty(), "{claim}:\n{}", wrong.join("\n"));
}
