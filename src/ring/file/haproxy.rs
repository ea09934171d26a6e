//! HAProxy's keys: the same records as elsewhere, one a line in base64, and one key size a file.
//!
//! The last line is the next key, the one before it encrypts, the others are older. A reload moves
//! the file on by a line, so a key is known everywhere before anybody encrypts with it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use zeroize::Zeroizing;

use super::binary::{HAPROXY, LONG, is_base64, pack, unpack};
use super::{Checked, FileKey};
use crate::ring::key::TicketKey;

/// Fewest lines that HAProxy starts with (its `TLS_TICKETS_NO`).
const MIN_KEYS: usize = 3;

/// Bytes of the longest line: a key of 80 bytes in base64, and the end of the line.
const MAX_LINE: usize = 109;

pub(super) fn read(data: &[u8]) -> Checked<Vec<FileKey>> {
    let text = std::str::from_utf8(data).map_err(|_| {
        format!(
            "{} bytes that are not text; {} (binary: is this a file of another server?)",
            data.len(),
            HAPROXY.expects
        )
    })?;
    let keys = text
        .lines()
        .zip(1..)
        .map(|(line, number)| {
            key(line).map_err(|found| format!("line {number}: {found}; {}", HAPROXY.expects))
        })
        .collect::<Checked<Vec<_>>>()?;
    let lines: Vec<_> = keys.iter().map(|entry| &entry.key).collect();
    check_set(&lines)?;
    Ok(keys)
}

pub(super) fn write(keys: &[TicketKey]) -> Checked<Zeroizing<Vec<u8>>> {
    let lines = in_file_order(keys);
    check_set(&lines)?;
    let mut out = Zeroizing::new(Vec::with_capacity(lines.len() * MAX_LINE));
    for key in lines {
        let mut record = Zeroizing::new(Vec::with_capacity(LONG));
        pack(&HAPROXY, key, &mut record)?;
        let line = Zeroizing::new(BASE64.encode(record.as_slice()));
        out.extend_from_slice(line.as_bytes());
        out.push(b'\n');
    }
    Ok(out)
}

/// The key in one line; the error is what was found instead.
fn key(line: &str) -> Checked<FileKey> {
    // Three bytes for each four characters of the longest right line, before the padding goes.
    let mut record = Zeroizing::new([0; LONG + 1]);
    let characters = line.len();
    let len = match BASE64.decode_slice(line, record.as_mut_slice()) {
        Ok(len) => len,
        Err(_) if line.bytes().all(|byte| is_base64(&byte)) => {
            return Err(format!("{characters} base64 characters"));
        }
        Err(_) => return Err("not base64".into()),
    };
    record
        .get(..len)
        .and_then(|record| unpack(&HAPROXY, record))
        .map(|key| FileKey { key, valid: None })
        .ok_or_else(|| format!("{characters} base64 characters ({len} bytes)"))
}

/// HAProxy takes neither fewer than three keys nor keys of two sizes.
fn check_set(keys: &[&TicketKey]) -> Checked<()> {
    if keys.len() < MIN_KEYS {
        return Err(format!("{} keys; {}", keys.len(), HAPROXY.expects));
    }
    let differ = |pair: &[&TicketKey]| matches!(pair, [a, b] if a.aes().len() != b.aes().len());
    match keys.windows(2).position(differ) {
        Some(first) => Err(format!(
            "keys {} and {} have different sizes; haproxy wants one size in a file",
            first + 1,
            first + 2
        )),
        None => Ok(()),
    }
}

/// Oldest first, the last two being the one that encrypts and the next one.
fn in_file_order(keys: &[TicketKey]) -> Vec<&TicketKey> {
    let mut lines: Vec<_> = keys.iter().rev().collect();
    if let [.., next, current] = lines.as_mut_slice() {
        std::mem::swap(next, current);
    }
    lines
}
