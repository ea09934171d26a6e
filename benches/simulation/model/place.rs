//! The Redis of the model: a hash of fields with their real bytes, a token of change, the lease of who makes keys.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use tlsresume::ring::sharing::Field;
use tlsresume::ring::{KeyName, Ring, wire};

use super::{Millis, SETTLES};

/// What sealing adds to a field: nonce and tag of XChaCha20-Poly1305.
const SEAL: u64 = 24 + 16;

/// A command without its values: names, lengths, TCP and TLS.
pub(crate) const COMMAND: u64 = 120;

/// How long the maker of keys stays it without asking again.
pub(crate) const LEASE: Millis = 15_000;

pub(crate) type Copied = BTreeMap<Field, Ring>;

/// Contents, as a read or a dump takes them. The bytes are parsed once, when they are written, not by each reader.
#[derive(Clone, Debug, Default)]
pub(crate) struct Contents {
    pub(crate) token: u64,
    pub(crate) copy: Rc<Copied>,
    pub(crate) bytes: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Place {
    pub(crate) contents: Contents,
    lease: Option<(usize, Millis)>,
    dump: Contents,
    sizes: HashMap<Field, u64>,
    /// Since when each key has been there, and those that were there for long enough before the contents were lost.
    since: HashMap<KeyName, Millis>,
    settled: HashMap<KeyName, Millis>,
}

impl Place {
    /// Whether `node` is to make the keys for all.
    pub(crate) fn lease(&mut self, node: usize, now: Millis) -> bool {
        if self.lease.is_some_and(|(holder, until)| holder != node && now < until) {
            return false;
        }
        self.lease = Some((node, now + LEASE));
        true
    }

    pub(crate) fn holder(&self) -> Option<usize> {
        self.lease.map(|(holder, _)| holder)
    }

    /// Writes, then deletes; tells how many bytes came in. Only what is written moves the token.
    pub(crate) fn write(
        &mut self,
        publish: &[(Field, Ring)],
        superfluous: &[Field],
        token: u64,
        now: Millis,
    ) -> u64 {
        let mut came = COMMAND;
        let copy = Rc::make_mut(&mut self.contents.copy);
        for (field, part) in publish {
            let bytes = wire::encode(part);
            let size = size(*field, part);
            came += size;
            let before = self.sizes.insert(*field, size).unwrap_or_default();
            self.contents.bytes = self.contents.bytes + size - before;
            copy.insert(*field, wire::decode(&bytes).expect("what encode wrote"));
            if let Field::Key(name) = field {
                self.since.entry(*name).or_insert(now);
            }
            self.contents.token = token;
        }
        for field in superfluous {
            copy.remove(field);
            self.contents.bytes -= self.sizes.remove(field).unwrap_or_default();
            came += field.to_bytes().len() as u64;
        }
        came
    }

    pub(crate) fn take_dump(&mut self) {
        self.dump = self.contents.clone();
    }

    /// Everything is gone, or as it was at the last dump.
    pub(crate) fn lose(&mut self, restored: bool, now: Millis) {
        self.contents = if restored { self.dump.clone() } else { Contents::default() };
        self.lease = None;
        let copy = &self.contents.copy;
        self.sizes = copy.iter().map(|(field, part)| (*field, size(*field, part))).collect();
        let lost = self.since.extract_if(|name, _| !copy.contains_key(&Field::Key(*name)));
        self.settled.extend(lost.filter(|(_, since)| now - since >= SETTLES));
    }

    /// Whether the copy has or had the key for long enough that whoever can be reached knows it.
    pub(crate) fn has_settled(&self, name: &KeyName, now: Millis) -> bool {
        let since = self.since.get(name);
        self.settled.contains_key(name) || since.is_some_and(|since| now - since >= SETTLES)
    }
}

fn size(field: Field, part: &Ring) -> u64 {
    (field.to_bytes().len() + wire::encode(part).len()) as u64 + SEAL
}
