//! Ticket key files of other servers: bytes to keys, and keys to bytes.
//!
//! Owns: the eight formats and the mistakes that are often made with them. Called by: `engine` (key
//! files and imported data) and tlsresumectl (generated files); they do the reading and writing and
//! wipe the bytes they hand in. No state, no I/O, no clock. Failure: [`Error::KeyFile`] with the
//! origin, what was found and what was expected. The bytes are hostile and secret, so everything is
//! bounded and no message quotes them; only lengths, line numbers and key names are told.

#![forbid(unsafe_code)]

mod binary;
mod h2o;
mod haproxy;
#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;

use zeroize::Zeroizing;

use crate::clock::UnixMillis;
use crate::error::{Error, Result};
use crate::ring::key::{KeyName, TicketKey};

/// Longest file that is looked at: more than [`MAX_KEYS`] keys need in any format.
const MAX_BYTES: usize = 64 * 1024;

/// Most keys that a file may hold.
const MAX_KEYS: usize = 128;

/// Whose key file it is: this decides the layout, and which key encrypts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Format {
    /// nginx's `ssl_session_ticket_key`: one key of 48 or 80 bytes.
    Nginx = 1,
    /// HAProxy's `tls-ticket-keys`: lines of base64, the last but one encrypts.
    Haproxy = 2,
    /// Apache's `SSLSessionTicketKeyFile`: one key of 48 bytes.
    Apache = 3,
    /// Traffic Server's `ssl_ticket_key.filename`: keys of 48 bytes, the first encrypts.
    Ats = 4,
    /// nghttpx's `tls-ticket-key-file`: one key of 48 or 80 bytes.
    Nghttpx = 5,
    /// H2O's `ticket-file`: a YAML list in which keys have times.
    H2o = 6,
    /// What OpenSSL's `SSL_CTX_set_tlsext_ticket_keys` takes: 80 bytes, 48 before OpenSSL 1.1.0.
    Openssl = 7,
    /// dnsdist's `ticketKeysFile`, with OpenSSL: keys of 80 bytes, the last encrypts.
    Dnsdist = 8,
}

impl Format {
    /// Every format, by code.
    pub const ALL: [Format; 8] = [
        Format::Nginx,
        Format::Haproxy,
        Format::Apache,
        Format::Ats,
        Format::Nghttpx,
        Format::H2o,
        Format::Openssl,
        Format::Dnsdist,
    ];

    /// The format whose constant `TLSRESUME_KEYS_*` is `code`.
    pub fn from_code(code: i32) -> Option<Format> {
        Format::ALL.into_iter().find(|format| format.code() == code)
    }

    /// The value of the constant `TLSRESUME_KEYS_*`: part of the ABI, never renumbered.
    pub fn code(self) -> i32 {
        self as i32
    }

    fn name(self) -> &'static str {
        match self {
            Format::Nginx => "nginx",
            Format::Haproxy => "haproxy",
            Format::Apache => "apache",
            Format::Ats => "ats",
            Format::Nghttpx => "nghttpx",
            Format::H2o => "h2o",
            Format::Openssl => "openssl",
            Format::Dnsdist => "dnsdist",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Format {
    type Err = Error;

    fn from_str(name: &str) -> Result<Format> {
        Format::ALL.into_iter().find(|format| format.name() == name).ok_or_else(|| {
            let names = Format::ALL.map(Format::name).join(", ");
            Error::Config(format!("unknown key file format {name:?}; it is one of {names}"))
        })
    }
}

/// One key of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileKey {
    /// The key.
    pub key: TicketKey,
    /// When the file says that the key may be used, from the first time to the second. Only H2O's
    /// files say so.
    pub valid: Option<(UnixMillis, UnixMillis)>,
}

/// What a file holds: 1 to 128 keys with different names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFile {
    /// The keys, in the order of the file.
    pub keys: Vec<FileKey>,
    /// Index of the key that encrypts by the rules of the format. In H2O's the time counts too:
    /// this is the key with the greatest `not_before`, which may lie ahead.
    pub encrypts: usize,
}

/// A result whose error is the `problem` of an [`Error::KeyFile`].
type Checked<T> = std::result::Result<T, String>;

/// The keys in `data`. `origin` names it in errors: a path, or "imported data".
pub fn parse(format: Format, data: &[u8], origin: &str) -> Result<KeyFile> {
    read(format, data).map_err(|problem| Error::KeyFile { origin: origin.to_owned(), problem })
}

/// A file with `keys`, of which the first encrypts.
///
/// HAProxy keeps the next key in its last line and only uses the last three: there `keys` are the
/// current key, the next one, then older ones from young to old. `valid` is written into H2O's
/// files alone, where each key begins a second before the one that goes before it.
///
/// # Errors
/// When the format has no room for a key's length or hash, or for that number of keys.
pub fn write(
    format: Format,
    keys: &[TicketKey],
    valid: (UnixMillis, UnixMillis),
) -> Result<Zeroizing<Vec<u8>>> {
    compose(format, keys, valid)
        .map_err(|problem| Error::KeyFile { origin: format!("{format} ticket key file"), problem })
}

fn read(format: Format, data: &[u8]) -> Checked<KeyFile> {
    if data.len() > MAX_BYTES {
        return Err(format!("{} bytes; a ticket key file has at most {MAX_BYTES}", data.len()));
    }
    let keys = match format {
        Format::Nginx => binary::read(&binary::NGINX, data),
        Format::Haproxy => haproxy::read(data),
        Format::Apache => binary::read(&binary::APACHE, data),
        Format::Ats => binary::read(&binary::ATS, data),
        Format::Nghttpx => binary::read(&binary::NGHTTPX, data),
        Format::H2o => h2o::read(data),
        Format::Openssl => binary::read(&binary::OPENSSL, data),
        Format::Dnsdist => binary::read(&binary::DNSDIST, data),
    }?;
    let names: Vec<_> = keys.iter().map(|entry| entry.key.name()).collect();
    check_names(&names)?;
    let encrypts = encrypting(format, &keys);
    Ok(KeyFile { keys, encrypts })
}

fn compose(
    format: Format,
    keys: &[TicketKey],
    valid: (UnixMillis, UnixMillis),
) -> Checked<Zeroizing<Vec<u8>>> {
    let names: Vec<_> = keys.iter().map(TicketKey::name).collect();
    check_names(&names)?;
    match format {
        Format::Nginx => binary::write(&binary::NGINX, keys.iter()),
        Format::Haproxy => haproxy::write(keys),
        Format::Apache => binary::write(&binary::APACHE, keys.iter()),
        Format::Ats => binary::write(&binary::ATS, keys.iter()),
        Format::Nghttpx => binary::write(&binary::NGHTTPX, keys.iter()),
        Format::H2o => h2o::write(keys, valid),
        Format::Openssl => binary::write(&binary::OPENSSL, keys.iter()),
        Format::Dnsdist => binary::write(&binary::DNSDIST, keys.iter().rev()),
    }
}

/// Which of `keys`, in the order of their file, encrypts.
fn encrypting(format: Format, keys: &[FileKey]) -> usize {
    match format {
        Format::Haproxy => keys.len().saturating_sub(2),
        Format::Dnsdist => keys.len().saturating_sub(1),
        Format::H2o => newest(keys),
        Format::Nginx | Format::Apache | Format::Ats | Format::Nghttpx | Format::Openssl => 0,
    }
}

/// Index of the first key with the greatest `not_before`.
fn newest(keys: &[FileKey]) -> usize {
    let begins = |entry: &FileKey| entry.valid.map(|(not_before, _)| not_before);
    let greatest = keys.iter().map(begins).max();
    keys.iter().position(|entry| Some(begins(entry)) == greatest).unwrap_or(0)
}

/// Refuses no keys, too many, and two of one name: a ticket could not say which of them it needs.
fn check_names(names: &[KeyName]) -> Checked<()> {
    if names.is_empty() {
        return Err("no keys; a ticket key file has at least one".into());
    }
    if names.len() > MAX_KEYS {
        return Err(format!("{} keys; a ticket key file has at most {MAX_KEYS}", names.len()));
    }
    for (second, name) in names.iter().enumerate() {
        let mut earlier = names.iter().take(second);
        if let Some(first) = earlier.position(|other| other == name) {
            return Err(format!(
                "keys {} and {} have the same name, {name}; every key needs a name of its own",
                first + 1,
                second + 1
            ));
        }
    }
    Ok(())
}
