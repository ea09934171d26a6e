//! The secret file.

use proptest::prelude::*;

use crate::cluster::secrets::{MAX_LINES, MIN_LEN, Secrets};

const A: &str = "the first of the secrets of the test";
const B: &str = "the second of the secrets of the test";

fn lines(bytes: &[u8]) -> Vec<Vec<u8>> {
    Secrets::parse(bytes, "f").unwrap().iter().map(|secret| secret.expose().to_vec()).collect()
}

fn problem(bytes: &[u8]) -> String {
    Secrets::parse(bytes, "/etc/secret").unwrap_err().to_string()
}

#[test]
fn every_line_that_is_not_blank_is_a_secret_and_the_first_seals() {
    let both = [A.as_bytes().to_vec(), B.as_bytes().to_vec()];
    for file in
        [format!("{A}\n{B}"), format!("{A}\n{B}\n"), format!("\n\n  {A}\t\r\n \t \r\n{B}  \r\n\n")]
    {
        assert_eq!(lines(file.as_bytes()), both, "{file:?}");
        let secrets = Secrets::parse(file.as_bytes(), "f").unwrap();
        assert_eq!(secrets.first().expose(), A.as_bytes());
    }
}

#[test]
fn white_space_inside_and_a_hash_in_front_belong_to_the_secret() {
    let secret = "#  begins with a hash and has spaces inside";
    assert_eq!(lines(secret.as_bytes()), [secret.as_bytes()]);
}

#[test]
fn a_secret_may_be_any_bytes_and_stand_there_twice() {
    let binary = [0xff; MIN_LEN];
    let file = [&binary[..], b"\n", &binary].concat();
    assert_eq!(lines(&file), [binary, binary]);
}

#[test]
fn a_short_line_is_refused_by_its_number_wherever_it_stands() {
    let short = &A[..MIN_LEN - 1];
    assert_eq!(
        problem(format!("{A}\n\n{short}\n{B}\n").as_bytes()),
        "/etc/secret: line 3 has 31 bytes; every line is a secret of at least 32 bytes: make it longer on every node, \
         or delete it"
    );
    assert!(problem(short.as_bytes()).contains("line 1 has 31 bytes"));
    assert_eq!(lines(&[b'x'; MIN_LEN]), [[b'x'; MIN_LEN]]);
}

#[test]
fn a_file_without_secrets_is_refused() {
    for file in [&b""[..], b"\n", b" \r\n\t\n"] {
        assert_eq!(
            problem(file),
            "/etc/secret: line 1: no secret; write one of at least 32 random bytes as text"
        );
    }
}

#[test]
fn the_line_after_the_last_that_is_allowed_is_refused_by_its_number() {
    let full = format!("{A}\n").repeat(MAX_LINES);
    assert_eq!(lines(full.as_bytes()).len(), MAX_LINES);
    assert_eq!(
        problem(format!("\n{full}{B}\n").as_bytes()),
        "/etc/secret: line 18 is one secret too many; a file has at most 16: delete those that no node seals with any \
         more"
    );
}

#[test]
fn debug_output_tells_how_many_there_are_and_nothing_else() {
    let secrets = Secrets::parse(format!("{A}\n{B}\n").as_bytes(), "f").unwrap();
    assert_eq!(format!("{secrets:?}"), "Secrets(2)");
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic_and_no_message_quotes_them(
        bytes in prop::collection::vec(prop_oneof![4 => Just(b'~'), 1 => Just(b'\n'), 1 => any::<u8>()], 0..400),
    ) {
        match Secrets::parse(&bytes, "f") {
            Ok(secrets) => {
                prop_assert!((1..=MAX_LINES).contains(&secrets.iter().count()));
                prop_assert!(secrets.iter().all(|secret| secret.len() >= MIN_LEN));
            }
            Err(error) => prop_assert!(!error.to_string().contains('~')),
        }
    }
}
