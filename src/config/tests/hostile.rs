//! Files, and text that nobody meant as a configuration.

#![forbid(unsafe_code)]

use std::fs;

use proptest::prelude::*;

use super::*;

#[test]
fn the_file_is_the_named_one_or_else_that_of_the_variable_or_else_none() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| {
        let path = dir.path().join(name);
        fs::write(&path, format!("realm = '{name}'")).unwrap();
        path
    };
    let (argument, named) = (file("argument"), file("variable"));
    let env = |name: &str| (name == CONFIG_VARIABLE).then(|| named.display().to_string());
    let empty = |name: &str| (name == CONFIG_VARIABLE).then(String::new);

    assert_eq!(Config::load(Some(&argument), &env).unwrap().realm, "argument");
    assert_eq!(Config::load(None, &env).unwrap().realm, "variable");
    assert_eq!(Config::load(None, &empty).unwrap(), Config::default());
    assert_eq!(Config::load(None, &unset).unwrap(), Config::default());
}

#[test]
fn a_file_that_cannot_be_a_configuration_is_refused_by_its_path() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &[u8]| {
        let path = dir.path().join(name);
        fs::write(&path, content).unwrap();
        path
    };
    // The cut at the limit goes through a character, which must not be taken for bad UTF-8.
    let long = format!("#{}", "ä".repeat(MAX_CONFIG_SIZE / 2));
    for (path, problem) in [
        (file("long.toml", long.as_bytes()), "is longer than 1 MiB"),
        (file("latin1.toml", b"realm = '\xe4'"), "is not UTF-8 text"),
        (dir.path().to_owned(), "is not a regular file"),
        (PathBuf::from("/dev/null"), "is not a regular file"),
        (
            dir.path().join("absent.toml"),
            "open the configuration: No such file or directory (os error 2)",
        ),
    ] {
        let expected = format!("{}: {problem}", path.display());
        assert_eq!(message(Config::load(Some(&path), &unset)), expected);
    }
    let bad = file("bad.toml", b"[log]\nlevel = 3");
    let expected =
        format!("{}:2: log.level: 3 is not a string; allowed: {}", bad.display(), Level::ALLOWED);
    assert_eq!(message(Config::load(Some(Path::new(&bad)), &unset)), expected);
}

#[test]
fn one_mebibyte_is_the_longest_that_is_read() {
    let comment = format!("#{}", "x".repeat(MAX_CONFIG_SIZE - 1));
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), &comment).unwrap();

    assert_eq!(Config::load(Some(file.path()), &unset).unwrap(), Config::default());
    assert_eq!(toml(&comment).unwrap(), Config::default());
    let too_long = toml(&format!("{comment}x"));
    assert_eq!(message(too_long), "t.toml: is longer than 1 MiB");
}

#[test]
fn a_line_break_in_the_name_of_the_origin_breaks_no_line() {
    let result = Config::from_toml("realm = 1", "a\nb", &unset);
    assert!(message(result).starts_with("a b:1: realm: 1 is not a string"));
}

#[test]
fn deep_nesting_is_an_error_and_no_stack_overflow() {
    for (before, nested, after) in [
        ("x = ", "[", ""),
        ("x = ", "{a=", ""),
        ("", "[", "a]"),
        ("", "a.", "a = 1"),
        ("[", "a.", "a]"),
        ("x = {", "a.", "a = 1}"),
    ] {
        let result = toml(&format!("{before}{}{after}", nested.repeat(300_000)));
        assert!(result.is_err() && is_civil(result), "{before}{nested}");
    }
}

/// Whether a result is a configuration or one printable line of bearable length.
fn is_civil(result: Result<Config>) -> bool {
    let text = message(result);
    text.chars().count() < 1000 && !text.contains(char::is_control)
}

/// A piece of a configuration file, so that arbitrary sequences of them come past the tokenizer.
fn piece() -> impl Strategy<Value = String> {
    let keys: Vec<_> = ENVIRONMENT.iter().map(|setting| setting.key.to_owned()).collect();
    let sections = keys
        .iter()
        .filter_map(|key| key.split_once('.').map(|(s, _)| format!("[{s}]\n")))
        .collect::<Vec<_>>();
    prop_oneof![
        prop::sample::select(keys),
        prop::sample::select(sections),
        prop::sample::select(SAMPLES.map(|(_, _, value)| format!("{value}\n")).to_vec()),
        prop::sample::select(vec![
            " = ", "\n", "[", "]", "{", "}", ",", "'", "\"\"\"", ".", "-1", "9e9"
        ])
        .prop_map(str::to_owned),
        any::<String>(),
    ]
}

proptest! {
    #[test]
    fn arbitrary_text_gives_a_configuration_or_one_line(text in any::<String>()) {
        prop_assert!(is_civil(toml(&text)));
    }

    #[test]
    fn shuffled_pieces_of_a_configuration_give_a_configuration_or_one_line(
        pieces in prop::collection::vec(piece(), 0..20),
    ) {
        prop_assert!(is_civil(toml(&pieces.concat())));
    }

    #[test]
    fn arbitrary_values_give_a_configuration_or_one_line(
        setting in 0..ENVIRONMENT.len(),
        value in prop_oneof![
            any::<String>(),
            "[0-9]{1,25} ?[a-zA-Z]{0,5}",
            "[a-z+]{0,8}:/{0,2}[a-z:@,/0-9]{0,20}",
        ],
    ) {
        prop_assert!(is_civil(variable(ENVIRONMENT[setting].name, &value)));
    }

    #[test]
    fn arbitrary_bytes_in_the_file_give_a_configuration_or_one_line(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), bytes).unwrap();
        prop_assert!(is_civil(Config::load(Some(file.path()), &unset)));
    }
}

#[test]
fn nesting_needs_little_stack() {
    let dotted = "a.".repeat(300_000);
    let texts = [
        format!("realm = {}", "[".repeat(65_000)),
        format!("realm = {}", "{a=".repeat(65_000)),
        format!("realm = {}1{}", "[".repeat(32), "]".repeat(32)),
        format!("{dotted}a = 1"),
        format!("[{dotted}a]"),
        format!("realm = {{ {dotted}a = 1 }}"),
    ];
    for text in texts {
        let start = text[..20].to_owned();
        let read = move || message(toml(&text));
        // A thread of a server may have 64 KiB; a build without optimization needs more.
        let reader = std::thread::Builder::new().stack_size(192 * 1024);
        let said = reader.spawn(read).unwrap().join().unwrap();
        assert!(said.starts_with("t.toml:1"), "{start}: {said}");
    }
}
