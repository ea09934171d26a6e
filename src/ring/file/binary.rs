//! Keys as records of fixed size: a name of 16 bytes, then two secrets of equal length.
//!
//! Which secret comes first differs between servers, and in nginx between its two sizes. A record
//! read in the wrong order is no error, only tickets that no other server opens: the constants
//! below are the one place that knows.

use zeroize::Zeroizing;

use super::{Checked, FileKey};
use crate::ring::key::{Digest, KeyName, TicketKey};
use crate::secret::Secret;

/// Bytes of a key with AES-128 and an HMAC key of 16 bytes.
const SHORT: usize = 48;

/// Bytes of a key with AES-256 and an HMAC key of 32 bytes.
pub(super) const LONG: usize = 80;

/// Which secret follows the name.
#[derive(Clone, Copy)]
enum Order {
    AesFirst,
    MacFirst,
}

/// How one server lays out its keys.
pub(super) struct Layout {
    /// The sizes that a record can have, and the order that goes with each.
    records: &'static [(usize, Order)],
    /// Whether a file may hold several records.
    several: bool,
    /// What a right file has, for errors.
    pub(super) expects: &'static str,
}

pub(super) const NGINX: Layout = Layout {
    records: &[(SHORT, Order::AesFirst), (LONG, Order::MacFirst)],
    several: false,
    expects: "an nginx ticket key file has 48 or 80 random bytes",
};

pub(super) const HAPROXY: Layout = Layout {
    records: &[(SHORT, Order::AesFirst), (LONG, Order::AesFirst)],
    several: true,
    expects: "a haproxy ticket key file has at least 3 lines, each with the base64 of a key of 48 \
              bytes (64 characters) or 80 (108 characters)",
};

pub(super) const APACHE: Layout = Layout {
    records: &[(SHORT, Order::MacFirst)],
    several: false,
    expects: "an apache ticket key file has 48 random bytes",
};

pub(super) const ATS: Layout = Layout {
    records: &[(SHORT, Order::MacFirst)],
    several: true,
    expects: "an ats ticket key file has 48 random bytes for each key",
};

pub(super) const NGHTTPX: Layout = Layout {
    records: &[(SHORT, Order::AesFirst), (LONG, Order::AesFirst)],
    several: false,
    expects: "an nghttpx ticket key file has 48 or 80 random bytes",
};

pub(super) const OPENSSL: Layout = Layout {
    records: &[(SHORT, Order::MacFirst), (LONG, Order::MacFirst)],
    several: false,
    expects: "an openssl ticket key file has 80 random bytes, or 48 from before OpenSSL 1.1.0",
};

pub(super) const DNSDIST: Layout = Layout {
    records: &[(LONG, Order::AesFirst)],
    several: true,
    expects: "a dnsdist ticket key file has 80 random bytes for each key",
};

/// The keys of a file that is nothing but records.
pub(super) fn read(layout: &Layout, data: &[u8]) -> Checked<Vec<FileKey>> {
    if is_text(data) {
        return Err(format!("{} bytes of text; {}{}", data.len(), layout.expects, text_hint(data)));
    }
    records(layout, data).ok_or_else(|| {
        format!("{} bytes; {}{}", data.len(), layout.expects, length_hint(layout, data))
    })
}

/// The file that is the records of `keys`.
pub(super) fn write<'a>(
    layout: &Layout,
    keys: impl ExactSizeIterator<Item = &'a TicketKey>,
) -> Checked<Zeroizing<Vec<u8>>> {
    if !layout.several && keys.len() != 1 {
        return Err(format!("{} keys; the format has one key a file", keys.len()));
    }
    let mut out = Zeroizing::new(Vec::with_capacity(keys.len() * LONG));
    for key in keys {
        pack(layout, key, &mut out)?;
    }
    Ok(out)
}

/// The key in one record, or `None` when the layout has no record of that length.
pub(super) fn unpack(layout: &Layout, record: &[u8]) -> Option<TicketKey> {
    let order = layout.order(record.len())?;
    let (name, secrets) = record.split_first_chunk::<{ KeyName::LEN }>()?;
    let (first, second) = secrets.split_at(secrets.len() / 2);
    let (aes, mac) = match order {
        Order::AesFirst => (first, second),
        Order::MacFirst => (second, first),
    };
    TicketKey::new(KeyName(*name), Secret::new(aes), Secret::new(mac), Digest::Sha256)
}

/// Appends the record of `key` to `out`, which has room: growing would leave copies behind.
pub(super) fn pack(layout: &Layout, key: &TicketKey, out: &mut Vec<u8>) -> Checked<()> {
    let (aes, mac) = (key.aes().expose(), key.mac().expose());
    let order = layout
        .order(KeyName::LEN + aes.len() + mac.len())
        .filter(|_| aes.len() == mac.len() && key.digest() == Digest::Sha256)
        .ok_or_else(|| misfit(layout, key))?;
    let (first, second) = match order {
        Order::AesFirst => (aes, mac),
        Order::MacFirst => (mac, aes),
    };
    out.extend_from_slice(&key.name().0);
    out.extend_from_slice(first);
    out.extend_from_slice(second);
    Ok(())
}

impl Layout {
    fn order(&self, record_len: usize) -> Option<Order> {
        self.records.iter().find(|(size, _)| *size == record_len).map(|(_, order)| *order)
    }
}

fn records(layout: &Layout, data: &[u8]) -> Option<Vec<FileKey>> {
    let size = layout
        .records
        .iter()
        .map(|(size, _)| *size)
        .find(|size| data.len() == *size || (layout.several && is_several(data, *size)))?;
    data.chunks_exact(size)
        .map(|record| unpack(layout, record).map(|key| FileKey { key, valid: None }))
        .collect()
}

/// Whether `data` could be more than one record of `size` bytes.
fn is_several(data: &[u8], size: usize) -> bool {
    data.len() > size && data.len().is_multiple_of(size)
}

/// Whether every byte is ASCII text, which 48 random bytes are once in 10^20 files.
fn is_text(data: &[u8]) -> bool {
    let text = |byte: &u8| byte.is_ascii_graphic() || byte.is_ascii_whitespace();
    !data.is_empty() && data.iter().all(text)
}

fn text_hint(text: &[u8]) -> &'static str {
    let made_of = |belongs: fn(&u8) -> bool| {
        text.iter().all(|byte| byte.is_ascii_whitespace() || belongs(byte))
    };
    if made_of(u8::is_ascii_hexdigit) {
        " (looks like hexadecimal: make bytes of it with xxd -r -p)"
    } else if made_of(is_base64) {
        " (looks like base64: is this a haproxy file?)"
    } else if text.windows(11).any(|word| word == b"not_before:") {
        " (looks like YAML: is this an h2o file?)"
    } else {
        ""
    }
}

/// Whether `byte` belongs to the base64 alphabet, padding included.
pub(super) fn is_base64(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"+/=".contains(byte)
}

fn length_hint(layout: &Layout, data: &[u8]) -> &'static str {
    if data.strip_suffix(b"\n").is_some_and(|rest| records(layout, rest).is_some()) {
        " (a newline too many: made with an editor or echo?)"
    } else if layout.records.iter().any(|(size, _)| is_several(data, *size)) {
        " (several keys? this format has one key a file)"
    } else {
        ""
    }
}

fn misfit(layout: &Layout, key: &TicketKey) -> String {
    let hash = match key.digest() {
        Digest::Sha256 => "SHA256",
        Digest::Sha1 => "SHA1",
    };
    let (aes, mac) = (key.aes().len(), key.mac().len());
    format!(
        "no room for key {}, with an AES key of {aes} bytes and an HMAC-{hash} key of {mac}; {}",
        key.name(),
        layout.expects
    )
}
