//! H2O's key list, in the small part of YAML that H2O itself writes.
//!
//! A list of maps of six scalars, a line each; quotes, comments, blank lines and the order are
//! free. Everything else that YAML has is refused with the number of its line: a reader that
//! understood more would be a parser of hostile input of ten times the size.

use zeroize::Zeroizing;

use super::{Checked, FileKey};
use crate::clock::UnixMillis;
use crate::ring::key::{Digest, KeyName, TicketKey};
use crate::secret::Secret;

const EXPECTS: &str = "an h2o ticket key file is a YAML list of keys, each with name, cipher, \
                       hash, key, not_before and not_after";

/// What every key has, in the order in which H2O writes it.
const ATTRIBUTES: [&str; 6] = ["name", "cipher", "hash", "key", "not_before", "not_after"];

/// OpenSSL's names, as H2O writes them; it reads them in either case.
const AES_128: &str = "AES-128-CBC";
const AES_256: &str = "AES-256-CBC";
const SHA256: &str = "SHA256";
const SHA1: &str = "SHA1";

/// H2O's HMAC keys fill a block of the hash, which is this long for both.
const BLOCK: usize = TicketKey::MAX_MAC_LEN;

/// Seconds of a time that no key begins at (in the year 5138), but every time in milliseconds since
/// 1973 is greater.
const NEVER: u64 = 100_000_000_000;

/// More bytes than an entry can have.
const MAX_ENTRY: usize = 384;

pub(super) fn read(data: &[u8]) -> Checked<Vec<FileKey>> {
    let text = std::str::from_utf8(data)
        .map_err(|_| format!("{} bytes that are not text; {EXPECTS}", data.len()))?;
    let mut entries = Vec::new();
    for (line, number) in text.lines().zip(1..) {
        if let Some(field) = field(line).map_err(|problem| at(number, problem))? {
            add(&mut entries, field, number).map_err(|problem| at(number, problem))?;
        }
    }
    entries.iter().map(key).collect()
}

pub(super) fn write(
    keys: &[TicketKey],
    (not_before, not_after): (UnixMillis, UnixMillis),
) -> Checked<Zeroizing<Vec<u8>>> {
    if not_after < not_before {
        return Err("not_after is before not_before".into());
    }
    let mut out = Zeroizing::new(Vec::with_capacity(keys.len() * MAX_ENTRY));
    for (key, earlier) in keys.iter().zip(0..) {
        // H2O encrypts with the key that began last.
        let not_before = not_before.secs().saturating_sub(earlier);
        append(&mut out, key, not_before, not_after.secs());
    }
    Ok(out)
}

/// One line with something in it.
struct Field<'a> {
    /// Column of the dash that begins a new key.
    dash: Option<usize>,
    /// Column of the attribute: all of a key stand below each other.
    column: usize,
    attribute: &'a str,
    value: &'a str,
}

/// One key of the list, unread.
struct Entry<'a> {
    line: usize,
    dash: usize,
    column: usize,
    values: [Option<Scalar<'a>>; ATTRIBUTES.len()],
}

/// The text of a value, and where it stands.
#[derive(Clone, Copy)]
struct Scalar<'a> {
    line: usize,
    text: &'a str,
}

/// Takes a line apart; `None` when it is blank or a comment.
fn field(line: &str) -> Result<Option<Field<'_>>, &'static str> {
    let content = line.trim_start_matches(' ');
    if content.is_empty() || content.starts_with('#') {
        return Ok(None);
    }
    let after_dash = content.strip_prefix("- ");
    let pair = after_dash.unwrap_or(content).trim_start_matches(' ');
    let (attribute, value) = pair.split_once(": ").ok_or("not an attribute with a value")?;
    Ok(Some(Field {
        dash: after_dash.map(|_| line.len() - content.len()),
        column: line.len() - pair.len(),
        attribute,
        value: scalar(value)
            .ok_or("a value must be letters, digits and dashes, in quotes or not")?,
    }))
}

/// The value without its quotes and the comment behind it.
fn scalar(value: &str) -> Option<&str> {
    let value = value.split_once(" #").map_or(value, |(before, _)| before).trim();
    let quoted = |quote| value.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
    let text = quoted('"').or_else(|| quoted('\'')).unwrap_or(value);
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    (!text.is_empty() && text.bytes().all(plain)).then_some(text)
}

/// Puts `field` into the entry that it belongs to.
fn add<'a>(
    entries: &mut Vec<Entry<'a>>,
    field: Field<'a>,
    line: usize,
) -> Result<(), &'static str> {
    if let Some(dash) = field.dash {
        if entries.first().is_some_and(|first| first.dash != dash) {
            return Err("not indented like the first key");
        }
        entries.push(Entry { line, dash, column: field.column, values: Default::default() });
    }
    let entry = entries.last_mut().ok_or("not in a list: a key begins with a dash and a space")?;
    if entry.column != field.column {
        return Err("not indented like the other attributes of the key");
    }
    let value = ATTRIBUTES
        .iter()
        .zip(&mut entry.values)
        .find_map(|(name, value)| (*name == field.attribute).then_some(value))
        .ok_or("unknown attribute; it is name, cipher, hash, key, not_before or not_after")?;
    let text = field.value;
    match value.replace(Scalar { line, text }) {
        Some(_) => Err("the key has this attribute already"),
        None => Ok(()),
    }
}

fn key(entry: &Entry<'_>) -> Checked<FileKey> {
    let [Some(name), Some(cipher), Some(hash), Some(key), Some(not_before), Some(not_after)] =
        entry.values
    else {
        return Err(missing(entry));
    };
    let (aes_len, digest) = (aes_len(cipher)?, digest(hash)?);
    let name = name.hex(KeyName::LEN, "")?;
    let secrets = key.hex(
        aes_len + BLOCK,
        &format!(": a cipher key of {aes_len} bytes and an HMAC key of {BLOCK}, the hash's block"),
    )?;
    let key = name
        .first_chunk()
        .zip(secrets.split_at_checked(aes_len))
        .and_then(|(name, (aes, mac))| {
            TicketKey::new(KeyName(*name), Secret::new(aes), Secret::new(mac), digest)
        })
        .ok_or_else(|| key.fail("not a key"))?;
    Ok(FileKey { key, valid: Some(validity(not_before, not_after)?) })
}

fn missing(entry: &Entry<'_>) -> String {
    let absent: Vec<&str> = ATTRIBUTES
        .into_iter()
        .zip(entry.values)
        .filter_map(|(name, value)| value.is_none().then_some(name))
        .collect();
    at(entry.line, &format!("the key that begins here has no {}", absent.join(", ")))
}

fn aes_len(cipher: Scalar<'_>) -> Checked<usize> {
    match cipher.text {
        text if text.eq_ignore_ascii_case(AES_128) => Ok(16),
        text if text.eq_ignore_ascii_case(AES_256) => Ok(32),
        _ => Err(cipher.fail("unknown cipher; it is aes-128-cbc or aes-256-cbc")),
    }
}

fn digest(hash: Scalar<'_>) -> Checked<Digest> {
    match hash.text {
        text if text.eq_ignore_ascii_case(SHA256) => Ok(Digest::Sha256),
        text if text.eq_ignore_ascii_case(SHA1) => Ok(Digest::Sha1),
        _ => Err(hash.fail("unknown hash; it is sha1 or sha256")),
    }
}

fn validity(not_before: Scalar<'_>, not_after: Scalar<'_>) -> Checked<(UnixMillis, UnixMillis)> {
    let (begin, end) = (not_before.seconds()?, not_after.seconds()?);
    if begin >= NEVER {
        return Err(not_before.fail("not_before is too late; h2o counts seconds, not milliseconds"));
    }
    if end < begin {
        return Err(not_after.fail("not_after is before not_before"));
    }
    Ok((UnixMillis::from_secs(begin), UnixMillis::from_secs(end)))
}

impl Scalar<'_> {
    /// The bytes that the text means in hexadecimal; `len` of them, `made_of` says why so many.
    fn hex(self, len: usize, made_of: &str) -> Checked<Zeroizing<Vec<u8>>> {
        let (found, expected) = (self.text.len(), 2 * len);
        if found != expected {
            return Err(self.fail(&format!(
                "{found} characters; {expected} hexadecimal digits are expected{made_of}"
            )));
        }
        let mut bytes = Zeroizing::new(Vec::with_capacity(len));
        for &[high, low] in self.text.as_bytes().as_chunks().0 {
            bytes.push(byte(high, low).ok_or_else(|| self.fail("not hexadecimal"))?);
        }
        Ok(bytes)
    }

    fn seconds(self) -> Checked<u64> {
        self.text.parse().map_err(|_| self.fail("not a number of seconds since 1970"))
    }

    fn fail(self, problem: &str) -> String {
        at(self.line, problem)
    }
}

/// The byte that two hexadecimal digits mean.
fn byte(high: u8, low: u8) -> Option<u8> {
    let digit = |character| char::from(character).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

fn at(line: usize, problem: &str) -> String {
    format!("line {line}: {problem}")
}

/// Appends one entry to `out`, which has room: growing would leave copies behind.
fn append(out: &mut Vec<u8>, key: &TicketKey, not_before: u64, not_after: u64) {
    let cipher = if key.aes().len() == 16 { AES_128 } else { AES_256 };
    let hash = match key.digest() {
        Digest::Sha256 => SHA256,
        Digest::Sha1 => SHA1,
    };
    let name = key.name();
    let head = format!("- name: {name}\n  cipher: {cipher}\n  hash: {hash}\n  key: ");
    out.extend_from_slice(head.as_bytes());
    // HMAC itself fills a shorter key up with zeros, so the tickets stay the same.
    let zeros = std::iter::repeat_n(&0, BLOCK.saturating_sub(key.mac().len()));
    let secrets = key.aes().expose().iter().chain(key.mac().expose());
    out.extend(secrets.chain(zeros).flat_map(digits));
    let tail = format!("\n  not_before: {not_before}\n  not_after: {not_after}\n");
    out.extend_from_slice(tail.as_bytes());
}

/// The two hexadecimal digits of a byte.
fn digits(byte: &u8) -> [u8; 2] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    [byte >> 4, byte & 15].map(|half| DIGITS[usize::from(half)])
}
