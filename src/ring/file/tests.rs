//! Every format against a file written out by hand, then its mistakes, then hostile bytes.
//!
//! The bytes of a key count up from a0 (its name), 10 (AES) and 60 (HMAC), so that no two fields
//! have a byte in common and a swapped layout cannot pass.

use proptest::prelude::*;

use super::*;
use crate::ring::key::Digest;
use crate::secret::Secret;

const VALID: (UnixMillis, UnixMillis) =
    (UnixMillis::from_secs(1_700_000_000), UnixMillis::from_secs(1_700_003_600));

const A_NAME: &str = "a0a1a2a3a4a5a6a7a8a9aaabacadaeaf";
const B_NAME: &str = "b0b1b2b3b4b5b6b7b8b9babbbcbdbebf";

const NAME_AES16_MAC16: &str = "a0a1a2a3a4a5a6a7a8a9aaabacadaeaf \
                                101112131415161718191a1b1c1d1e1f \
                                606162636465666768696a6b6c6d6e6f";

const NAME_MAC16_AES16: &str = "a0a1a2a3a4a5a6a7a8a9aaabacadaeaf \
                                606162636465666768696a6b6c6d6e6f \
                                101112131415161718191a1b1c1d1e1f";

const NAME_AES32_MAC32: &str = "a0a1a2a3a4a5a6a7a8a9aaabacadaeaf \
                                101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f \
                                606162636465666768696a6b6c6d6e6f707172737475767778797a7b7c7d7e7f";

const NAME_MAC32_AES32: &str = "a0a1a2a3a4a5a6a7a8a9aaabacadaeaf \
                                606162636465666768696a6b6c6d6e6f707172737475767778797a7b7c7d7e7f \
                                101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f";

/// Names from b0, c0 and a0; AES-128.
const HAPROXY_48: &str = "\
sLGys7S1tre4ubq7vL2+vxAREhMUFRYXGBkaGxwdHh9gYWJjZGVmZ2hpamtsbW5v
oKGio6SlpqeoqaqrrK2urxAREhMUFRYXGBkaGxwdHh9gYWJjZGVmZ2hpamtsbW5v
wMHCw8TFxsfIycrLzM3OzxAREhMUFRYXGBkaGxwdHh9gYWJjZGVmZ2hpamtsbW5v
";

/// Names from b0, a0 and c0; AES-256.
const HAPROXY_80: &str = "\
sLGys7S1tre4ubq7vL2+vxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vYGFiY2RlZmdoaWprbG1ub3BxcnN0dXZ3eHl6e3x9fn8=
oKGio6SlpqeoqaqrrK2urxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vYGFiY2RlZmdoaWprbG1ub3BxcnN0dXZ3eHl6e3x9fn8=
wMHCw8TFxsfIycrLzM3OzxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vYGFiY2RlZmdoaWprbG1ub3BxcnN0dXZ3eHl6e3x9fn8=
";

/// As H2O writes it: the second key began last.
const H2O: &str = "\
- name: b0b1b2b3b4b5b6b7b8b9babbbcbdbebf
  cipher: AES-128-CBC
  hash: SHA1
  key: 101112131415161718191a1b1c1d1e1f606162636465666768696a6b6c6d6e6f707172737475767778797a7b7c7d7e7f808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f
  not_before: 1699999999
  not_after: 1700003600
- name: a0a1a2a3a4a5a6a7a8a9aaabacadaeaf
  cipher: AES-256-CBC
  hash: SHA256
  key: 101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f606162636465666768696a6b6c6d6e6f707172737475767778797a7b7c7d7e7f808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f
  not_before: 1700000000
  not_after: 1700003600
";

#[test]
fn nginx_puts_the_cipher_key_first_in_48_bytes_and_the_hmac_key_first_in_80() {
    assert_eq!(only_key(Format::Nginx, NAME_AES16_MAC16), key(0xa0, 16, 16));
    assert_eq!(only_key(Format::Nginx, NAME_MAC32_AES32), key(0xa0, 32, 32));
}

#[test]
fn nghttpx_puts_the_cipher_key_before_the_hmac_key() {
    assert_eq!(only_key(Format::Nghttpx, NAME_AES16_MAC16), key(0xa0, 16, 16));
    assert_eq!(only_key(Format::Nghttpx, NAME_AES32_MAC32), key(0xa0, 32, 32));
}

#[test]
fn apache_puts_the_hmac_key_before_the_cipher_key() {
    assert_eq!(only_key(Format::Apache, NAME_MAC16_AES16), key(0xa0, 16, 16));
}

#[test]
fn openssl_puts_the_hmac_key_before_the_cipher_key() {
    assert_eq!(only_key(Format::Openssl, NAME_MAC16_AES16), key(0xa0, 16, 16));
    assert_eq!(only_key(Format::Openssl, NAME_MAC32_AES32), key(0xa0, 32, 32));
}

#[test]
fn ats_puts_the_hmac_key_before_the_cipher_key_and_encrypts_with_the_first() {
    assert_eq!(only_key(Format::Ats, NAME_MAC16_AES16), key(0xa0, 16, 16));

    let second = NAME_MAC16_AES16.replace(A_NAME, B_NAME);
    let file = parsed(Format::Ats, &bytes(&(NAME_MAC16_AES16.to_owned() + &second)));
    assert_eq!(file.encrypts, 0);
    assert_eq!(file.keys[0].key, key(0xa0, 16, 16));
    assert_eq!(file.keys[1].key.name(), name(0xb0));
}

#[test]
fn dnsdist_puts_the_cipher_key_before_the_hmac_key_and_encrypts_with_the_last() {
    let first = NAME_AES32_MAC32.replace(A_NAME, B_NAME);
    let file = parsed(Format::Dnsdist, &bytes(&(first + NAME_AES32_MAC32)));
    assert_eq!(file.encrypts, 1);
    assert_eq!(file.keys[0].key.name(), name(0xb0));
    assert_eq!(file.keys[1].key, key(0xa0, 32, 32));
}

#[test]
fn haproxy_puts_the_cipher_key_before_the_hmac_key_and_encrypts_with_the_last_but_one() {
    for (text, len) in [(HAPROXY_48, 16), (HAPROXY_80, 32)] {
        let file = parsed(Format::Haproxy, text.as_bytes());
        assert_eq!(file.encrypts, 1);
        let found: Vec<_> = file.keys.into_iter().map(|entry| entry.key).collect();
        assert_eq!(found, [key(0xb0, len, len), key(0xa0, len, len), key(0xc0, len, len)]);
    }
}

#[test]
fn haproxy_lines_may_end_as_on_windows_and_the_last_not_at_all() {
    let windows = HAPROXY_48.replace('\n', "\r\n");
    let unended = HAPROXY_48.trim_end();
    let expected = parsed(Format::Haproxy, HAPROXY_48.as_bytes());
    assert_eq!(parsed(Format::Haproxy, windows.as_bytes()), expected);
    assert_eq!(parsed(Format::Haproxy, unended.as_bytes()), expected);
}

#[test]
fn h2o_puts_the_cipher_key_before_an_hmac_key_of_the_block_size_and_encrypts_with_the_newest() {
    let file = parsed(Format::H2o, H2O.as_bytes());
    assert_eq!(file.encrypts, 1);

    let entry = &file.keys[1];
    assert_eq!(entry.key, key(0xa0, 32, 64));
    assert_eq!(entry.valid, Some(VALID));

    let older = &file.keys[0].key;
    assert_eq!((older.name(), older.digest()), (name(0xb0), Digest::Sha1));
    assert_eq!((older.aes(), older.mac()), (&counting(0x10, 16), &counting(0x60, 64)));
}

#[test]
fn h2o_keys_may_have_quotes_comments_blank_lines_any_order_and_times_without_end() {
    let text = H2O
        .replace("  cipher: AES-256-CBC\n", "")
        .replace(
            "  hash: SHA256",
            "# from cron\n\n  hash: \"sha256\" # or sha1\n  cipher: 'aes-256-cbc'",
        )
        .replace("1700003600", "18446744073709551615");
    let file = parsed(Format::H2o, text.as_bytes());
    assert_eq!(file.keys[1].key, key(0xa0, 32, 64));
    assert_eq!(file.keys[1].valid, Some((VALID.0, UnixMillis::MAX)));

    let indented = H2O.replace("- ", "  -  ").replace("\n  ", "\n     ").replace("     -", "  -");
    assert_eq!(parsed(Format::H2o, indented.as_bytes()), parsed(Format::H2o, H2O.as_bytes()));
}

#[test]
fn of_h2o_keys_that_began_together_the_first_encrypts() {
    let text = H2O.replace("1699999999", "1700000000");
    assert_eq!(parsed(Format::H2o, text.as_bytes()).encrypts, 0);
}

#[test]
fn what_is_written_is_what_the_server_itself_would_have_written() {
    let short = [key(0xa0, 16, 16)];
    let long = [key(0xa0, 32, 32)];
    for (format, keys, expected) in [
        (Format::Nginx, &short, NAME_AES16_MAC16),
        (Format::Nginx, &long, NAME_MAC32_AES32),
        (Format::Nghttpx, &short, NAME_AES16_MAC16),
        (Format::Nghttpx, &long, NAME_AES32_MAC32),
        (Format::Apache, &short, NAME_MAC16_AES16),
        (Format::Ats, &short, NAME_MAC16_AES16),
        (Format::Openssl, &short, NAME_MAC16_AES16),
        (Format::Openssl, &long, NAME_MAC32_AES32),
        (Format::Dnsdist, &long, NAME_AES32_MAC32),
    ] {
        assert_eq!(written(format, keys), bytes(expected), "{format}");
    }
    let current_next_old = [key(0xa0, 16, 16), key(0xc0, 16, 16), key(0xb0, 16, 16)];
    assert_eq!(written(Format::Haproxy, &current_next_old), HAPROXY_48.as_bytes());
    let current_next_old = [key(0xa0, 32, 32), key(0xc0, 32, 32), key(0xb0, 32, 32)];
    assert_eq!(written(Format::Haproxy, &current_next_old), HAPROXY_80.as_bytes());

    let (newer, older) = H2O.split_at(H2O.rfind("- name").expect("two keys"));
    let h2o = [key(0xa0, 32, 64), sha1_key()];
    assert_eq!(written(Format::H2o, &h2o), (older.to_owned() + newer).as_bytes());
}

#[test]
fn what_is_written_reads_back_with_the_first_key_encrypting() {
    for (format, count, aes, mac) in [
        (Format::Nginx, 1, 16, 16),
        (Format::Nginx, 1, 32, 32),
        (Format::Haproxy, 5, 16, 16),
        (Format::Haproxy, 128, 32, 32),
        (Format::Apache, 1, 16, 16),
        (Format::Ats, 128, 16, 16),
        (Format::Nghttpx, 1, 16, 16),
        (Format::Nghttpx, 1, 32, 32),
        (Format::H2o, 128, 16, 64),
        (Format::H2o, 128, 32, 64),
        (Format::Openssl, 1, 16, 16),
        (Format::Openssl, 1, 32, 32),
        (Format::Dnsdist, 128, 32, 32),
    ] {
        let keys: Vec<_> = (0..count).map(|first| key(first, aes, mac)).collect();
        let file = parsed(format, &written(format, &keys));
        assert_eq!(file.keys[file.encrypts].key, keys[0], "{format}");
        let found: Vec<_> = file.keys.into_iter().map(|entry| entry.key).collect();
        assert_eq!(found.len(), keys.len(), "{format}");
        assert!(keys.iter().all(|key| found.contains(key)), "{format}");
    }
}

#[test]
fn h2o_hmac_keys_are_filled_up_with_zeros_as_hmac_itself_does() {
    let file = parsed(Format::H2o, &written(Format::H2o, &[key(0xa0, 32, 32)]));
    let (mac, zeros) = file.keys[0].key.mac().expose().split_at(32);
    assert_eq!((mac, zeros), (counting(0x60, 32).expose(), [0; 32].as_slice()));
}

#[test]
fn a_file_of_another_length_is_told_what_was_expected_and_what_may_have_happened() {
    let binary = |len| vec![0xff; len];
    let ended = |len| [binary(len), b"\n".to_vec()].concat();
    for (format, data, expected) in [
        (Format::Nginx, binary(0), "0 bytes; an nginx ticket key file has 48 or 80 random bytes"),
        (Format::Nginx, binary(64), "64 bytes; an nginx ticket key file has 48 or 80 random bytes"),
        (
            Format::Nginx,
            ended(80),
            "81 bytes; an nginx ticket key file has 48 or 80 random bytes \
             (a newline too many: made with an editor or echo?)",
        ),
        (
            Format::Nginx,
            binary(144),
            "144 bytes; an nginx ticket key file has 48 or 80 random bytes \
             (several keys? this format has one key a file)",
        ),
        (Format::Apache, binary(80), "80 bytes; an apache ticket key file has 48 random bytes"),
        (
            Format::Ats,
            ended(96),
            "97 bytes; an ats ticket key file has 48 random bytes for each key \
             (a newline too many: made with an editor or echo?)",
        ),
        (
            Format::Nghttpx,
            binary(47),
            "47 bytes; an nghttpx ticket key file has 48 or 80 random bytes",
        ),
        (
            Format::Openssl,
            binary(79),
            "79 bytes; an openssl ticket key file has 80 random bytes, \
             or 48 from before OpenSSL 1.1.0",
        ),
        (
            Format::Dnsdist,
            binary(48),
            "48 bytes; a dnsdist ticket key file has 80 random bytes for each key",
        ),
        (Format::Ats, binary(65_537), "65537 bytes; a ticket key file has at most 65536"),
        (
            Format::Ats,
            binary(96),
            "keys 1 and 2 have the same name, ffffffffffffffffffffffffffffffff; \
             every key needs a name of its own",
        ),
        (Format::Ats, binary(48 * 129), "129 keys; a ticket key file has at most 128"),
    ] {
        assert_eq!(problem(format, &data), expected, "{format}, {} bytes", data.len());
    }
}

#[test]
fn text_in_place_of_random_bytes_is_refused_at_any_length() {
    for (text, expected) in [
        (
            "0123456789abcdef".repeat(3) + "\n",
            "49 bytes of text; an nginx ticket key file has 48 or 80 random bytes \
             (looks like hexadecimal: make bytes of it with xxd -r -p)",
        ),
        (
            "+sLGys7S1tre4ubq".repeat(3),
            "48 bytes of text; an nginx ticket key file has 48 or 80 random bytes \
             (looks like base64: is this a haproxy file?)",
        ),
        (
            H2O.to_owned(),
            "620 bytes of text; an nginx ticket key file has 48 or 80 random bytes \
             (looks like YAML: is this an h2o file?)",
        ),
        (
            "correct horse battery staple!".to_owned(),
            "29 bytes of text; an nginx ticket key file has 48 or 80 random bytes",
        ),
    ] {
        assert_eq!(problem(Format::Nginx, text.as_bytes()), expected);
    }
}

#[test]
fn a_wrong_haproxy_line_is_told_by_number() {
    let expects = "; a haproxy ticket key file has at least 3 lines, each with the base64 of a key \
                   of 48 bytes (64 characters) or 80 (108 characters)";
    let line = HAPROXY_48.lines().next().expect("a line");
    let mixed = HAPROXY_80.replace(HAPROXY_80.lines().last().expect("a line"), line);
    for (data, expected) in [
        (String::new(), "0 keys".to_owned() + expects),
        (line.to_owned() + "\n", "1 keys".to_owned() + expects),
        (format!("{line}\n{line}A\n{line}\n"), "line 2: 65 base64 characters".to_owned() + expects),
        (format!("{line}AAAA\n"), "line 1: 68 base64 characters (51 bytes)".to_owned() + expects),
        (format!("{line}{line}\n"), "line 1: 128 base64 characters".to_owned() + expects),
        (format!("{HAPROXY_48}\n"), "line 4: 0 base64 characters (0 bytes)".to_owned() + expects),
        (format!("{HAPROXY_48}# old\n"), "line 4: not base64".to_owned() + expects),
        (H2O.to_owned(), "line 1: not base64".to_owned() + expects),
        (
            format!("{line}\n{line}\n{line}\n"),
            "keys 1 and 2 have the same name, b0b1b2b3b4b5b6b7b8b9babbbcbdbebf; \
             every key needs a name of its own"
                .to_owned(),
        ),
        (
            mixed.replacen("sLGy", "sLGx", 1),
            "keys 2 and 3 have different sizes; haproxy wants one size in a file".to_owned(),
        ),
    ] {
        assert_eq!(problem(Format::Haproxy, data.as_bytes()), expected);
    }
    assert_eq!(
        problem(Format::Haproxy, &[0xff; 80]),
        format!("80 bytes that are not text{expects} (binary: is this a file of another server?)")
    );
}

#[test]
fn a_wrong_h2o_line_is_told_by_number() {
    let indent = "not indented like the other attributes of the key";
    let value = "a value must be letters, digits and dashes, in quotes or not";
    for (right, wrong, expected) in [
        ("- name: b0", "name: b0", "line 1: not in a list: a key begins with a dash and a space"),
        ("- name: a0", " - name: a0", "line 7: not indented like the first key"),
        ("  hash: SHA256", "   hash: SHA256", &format!("line 9: {indent}")),
        ("  hash: SHA256", "hash: SHA256", &format!("line 9: {indent}")),
        ("  hash: SHA256", "  hash:SHA256", "line 9: not an attribute with a value"),
        ("  hash: SHA256", "  hash:", "line 9: not an attribute with a value"),
        ("- name: b0", "---\n- name: b0", "line 1: not an attribute with a value"),
        ("  hash: SHA256", "  hash: # none", &format!("line 9: {value}")),
        ("  hash: SHA256", "  hash: &a SHA256", &format!("line 9: {value}")),
        ("  hash: SHA256", "  hash: \"SHA256", &format!("line 9: {value}")),
        ("  hash: SHA256", "  hash: !!str SHA256", &format!("line 9: {value}")),
        ("  hash: SHA256", "  hash: md5", "line 9: unknown hash; it is sha1 or sha256"),
        ("AES-256-CBC", "aes-256-gcm", "line 8: unknown cipher; it is aes-128-cbc or aes-256-cbc"),
        (
            "  hash: SHA256",
            "  hmac: SHA256",
            "line 9: unknown attribute; it is name, cipher, hash, key, not_before or not_after",
        ),
        ("  hash: SHA256", "  cipher: AES-256-CBC", "line 9: the key has this attribute already"),
        ("  hash: SHA1\n", "", "line 1: the key that begins here has no hash"),
        ("  hash: SHA1\n  key: 10", "#", "line 1: the key that begins here has no hash, key"),
        ("name: a0", "name: ", "line 7: 30 characters; 32 hexadecimal digits are expected"),
        ("name: a0", "name: g0", "line 7: not hexadecimal"),
        (
            "AES-128-CBC",
            "AES-256-CBC",
            "line 4: 160 characters; 192 hexadecimal digits are expected: a cipher key of 32 bytes \
             and an HMAC key of 64, the hash's block",
        ),
        ("1699999999", "-1", "line 5: not a number of seconds since 1970"),
        (
            "1699999999",
            "1699999999000",
            "line 5: not_before is too late; h2o counts seconds, not milliseconds",
        ),
        ("1699999999", "1700003601", "line 6: not_after is before not_before"),
        (
            B_NAME,
            A_NAME,
            "keys 1 and 2 have the same name, a0a1a2a3a4a5a6a7a8a9aaabacadaeaf; \
             every key needs a name of its own",
        ),
        (H2O, "# empty\n", "no keys; a ticket key file has at least one"),
    ] {
        let text = H2O.replacen(right, wrong, 1);
        assert_ne!(text, H2O, "{right}");
        assert_eq!(problem(Format::H2o, text.as_bytes()), expected, "{wrong}");
    }
    assert_eq!(
        problem(Format::H2o, &[0xff; 80]),
        "80 bytes that are not text; an h2o ticket key file is a YAML list of keys, each with \
         name, cipher, hash, key, not_before and not_after"
    );
}

#[test]
fn no_error_quotes_a_secret() {
    for format in Format::ALL {
        for data in [HAPROXY_48, H2O, NAME_AES16_MAC16] {
            let data = data.replace("key: 10", "kye: 10").replace("GBka", "GB!a");
            let error = parse(format, data.as_bytes(), "ticket.key").expect_err("a mistake");
            let text = format!("{error} {error:?}");
            assert!(!text.contains("1a1b") && !text.contains("xwdHh"), "{text}");
        }
    }
}

#[test]
fn an_error_begins_with_the_origin() {
    let error = parse(Format::Nginx, &[0xff; 64], "keys/ticket.key").expect_err("64 bytes");
    assert_eq!(
        error.to_string(),
        "keys/ticket.key: 64 bytes; an nginx ticket key file has 48 or 80 random bytes"
    );
}

#[test]
fn keys_that_a_format_has_no_room_for_are_not_written() {
    let misfit = |aes, mac, hash, expects| {
        format!(
            "no room for key a0a1a2a3a4a5a6a7a8a9aaabacadaeaf, with an AES key of {aes} bytes and \
             an HMAC-{hash} key of {mac}; {expects}"
        )
    };
    let nginx = "an nginx ticket key file has 48 or 80 random bytes";
    let apache = "an apache ticket key file has 48 random bytes";
    let two = vec![key(0xa0, 32, 32), key(0xb0, 32, 32)];
    let sizes = vec![key(0xa0, 32, 32), key(0xb0, 32, 32), key(0xc0, 16, 16)];
    for (format, keys, expected) in [
        (Format::Nginx, vec![], "no keys; a ticket key file has at least one".to_owned()),
        (Format::Nginx, two.clone(), "2 keys; the format has one key a file".to_owned()),
        (Format::Nginx, vec![key(0xa0, 32, 64)], misfit(32, 64, "SHA256", nginx)),
        (Format::Nginx, vec![key(0xa0, 16, 48)], misfit(16, 48, "SHA256", nginx)),
        (Format::Apache, vec![key(0xa0, 32, 32)], misfit(32, 32, "SHA256", apache)),
        (
            Format::Nginx,
            vec![with_digest(0xa0, 32, 32, Digest::Sha1)],
            misfit(32, 32, "SHA1", nginx),
        ),
        (
            Format::Haproxy,
            two,
            "2 keys; a haproxy ticket key file has at least 3 lines, each with the base64 of a key \
             of 48 bytes (64 characters) or 80 (108 characters)"
                .to_owned(),
        ),
        (
            Format::Haproxy,
            sizes,
            "keys 1 and 2 have different sizes; haproxy wants one size in a file".to_owned(),
        ),
        (
            Format::Dnsdist,
            vec![key(0xa0, 32, 32), key(0xa0, 32, 32)],
            "keys 1 and 2 have the same name, a0a1a2a3a4a5a6a7a8a9aaabacadaeaf; \
             every key needs a name of its own"
                .to_owned(),
        ),
    ] {
        let error = write(format, &keys, VALID).expect_err("does not fit").to_string();
        assert_eq!(error, format!("{format} ticket key file: {expected}"));
    }
    let backwards = write(Format::H2o, &[key(0xa0, 32, 32)], (VALID.1, VALID.0));
    assert_eq!(
        backwards.expect_err("ends before it begins").to_string(),
        "h2o ticket key file: not_after is before not_before"
    );
}

#[test]
fn formats_are_known_by_name_and_by_code() {
    for (format, code) in Format::ALL.into_iter().zip(1..) {
        assert_eq!(format.code(), code);
        assert_eq!(Format::from_code(code), Some(format));
        assert_eq!(format.to_string().parse::<Format>().ok(), Some(format));
    }
    assert_eq!((Format::from_code(0), Format::from_code(9)), (None, None));
    assert_eq!(
        "Nginx".parse::<Format>().expect_err("capital letter").to_string(),
        "unknown key file format \"Nginx\"; it is one of \
         nginx, haproxy, apache, ats, nghttpx, h2o, openssl, dnsdist"
    );
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(data in proptest::collection::vec(any::<u8>(), 0..400)) {
        parse_in_every_format(&data);
    }

    #[test]
    fn arbitrary_text_never_panics(data in "([-#:'\"= \na-f0-9]|name: |- |key: |\r\n){0,200}") {
        parse_in_every_format(data.as_bytes());
    }

    #[test]
    fn a_damaged_file_never_panics(
        text in prop::sample::select(vec![HAPROXY_48, HAPROXY_80, H2O]),
        at in any::<prop::sample::Index>(),
        removed in 0_usize..40,
        inserted in proptest::collection::vec(any::<u8>(), 0..4),
    ) {
        let mut data = text.as_bytes().to_vec();
        let start = at.index(data.len());
        let end = data.len().min(start + removed);
        data.splice(start..end, inserted);
        parse_in_every_format(&data);
    }
}

fn parse_in_every_format(data: &[u8]) {
    for format in Format::ALL {
        if let Ok(file) = parse(format, data, "arbitrary") {
            assert!(file.encrypts < file.keys.len());
        }
    }
}

fn parsed(format: Format, data: &[u8]) -> KeyFile {
    parse(format, data, "test").unwrap_or_else(|error| panic!("{format}: {error}"))
}

fn problem(format: Format, data: &[u8]) -> String {
    match parse(format, data, "test") {
        Err(Error::KeyFile { problem, .. }) => problem,
        other => panic!("{format}: {other:?}"),
    }
}

fn only_key(format: Format, hexadecimal: &str) -> TicketKey {
    let file = parsed(format, &bytes(hexadecimal));
    assert_eq!((file.keys.len(), file.encrypts, file.keys[0].valid), (1, 0, None));
    file.keys[0].key.clone()
}

fn written(format: Format, keys: &[TicketKey]) -> Vec<u8> {
    write(format, keys, VALID).unwrap_or_else(|error| panic!("{error}")).to_vec()
}

fn bytes(hexadecimal: &str) -> Vec<u8> {
    hex::decode(hexadecimal.replace(' ', "")).expect("hexadecimal")
}

fn key(first: u8, aes: u8, mac: u8) -> TicketKey {
    with_digest(first, aes, mac, Digest::Sha256)
}

fn sha1_key() -> TicketKey {
    with_digest(0xb0, 16, 64, Digest::Sha1)
}

fn with_digest(first: u8, aes: u8, mac: u8, digest: Digest) -> TicketKey {
    let (aes, mac) = (counting(0x10, aes), counting(0x60, mac));
    TicketKey::new(name(first), aes, mac, digest).expect("lengths of a key")
}

fn name(first: u8) -> KeyName {
    KeyName(std::array::from_fn(|index| first + u8::try_from(index).expect("below 16")))
}

fn counting(first: u8, len: u8) -> Secret {
    Secret::new(&(first..first + len).collect::<Vec<_>>())
}
