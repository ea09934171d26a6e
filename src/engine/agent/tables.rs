//! Reading the tables that all nodes write to: what is ours is kept, what is not is taken out, a little at a time.
//!
//! Both belong to the library alone. Somebody who fills them with something else
//! keeps no node from finding what is in them; it costs each pass of the agent a bounded number of pages.

use super::reading::{FIELDS, Fields, Reading};
use super::{Agent, Left, Pass};
use crate::cluster::seal::Label;
use crate::cluster::transport::{Failure, LONGEST_VALUE, Table};
use crate::ring::sharing::Field;
use crate::stats::Counter;

/// Most pages in one pass: sessions wait meanwhile.
const PAGES_AT_ONCE: usize = 8;

/// Most pages of one table: about a million fields.
const PAGES: usize = 16384;

impl Agent<'_> {
    /// What is in a table; `None` while pages are left, which the next pass goes on with. Everything else in it is taken
    /// out and counted.
    pub(super) fn read(&mut self, table: Table, reading: &mut Reading) -> Pass<Option<Fields>> {
        for _ in 0..PAGES_AT_ONCE {
            let page = self.channel()?.page(table, reading.next)?;
            let strange = self.sort(table, page.fields, &mut reading.fields);
            let taken = if strange.is_empty() { 0 } else { self.take_out(table, &strange)? };
            self.engine.counters().add(Counter::TransportRejectedFormat, page.dropped + taken);
            (reading.next, reading.pages) = (page.next, reading.pages + 1);
            if reading.next == 0 {
                return Ok(Some(std::mem::take(reading).fields));
            }
            if reading.pages >= PAGES || reading.fields.len() > 2 * FIELDS {
                *reading = Reading::default();
                return Err(Left::Failed(Failure::Refused("a table of ours has no end".into())));
            }
        }
        Ok(None)
    }

    /// Keeps the fields that are ours; the names of the others.
    fn sort(
        &self,
        table: Table,
        page: Vec<(Vec<u8>, Vec<u8>)>,
        fields: &mut Fields,
    ) -> Vec<Vec<u8>> {
        let mut strange = Vec::new();
        for (name, value) in page {
            let is_known = fields.len() < FIELDS || fields.contains_key(&name);
            if is_ours(table, &name, &value) && (is_known || self.opens(table, &name, &value)) {
                fields.insert(name, value);
            } else {
                strange.push(name);
            }
        }
        strange
    }

    fn opens(&self, table: Table, name: &[u8], value: &[u8]) -> bool {
        let label = match table {
            Table::Ring => Label::Ring,
            Table::Nodes => Label::Control,
        };
        self.cluster.sealer.open(label, name, value).is_ok()
    }

    /// How many were taken out. Without permission they stay: they are passed over at the next reading too.
    pub(super) fn take_out(&mut self, table: Table, fields: &[Vec<u8>]) -> Pass<u64> {
        match self.channel()?.take_out(table, fields) {
            Err(failure) if failure.is_refusal() => Ok(0),
            taken => Ok(taken?),
        }
    }
}

/// Whether a field has a name and a length that we give.
fn is_ours(table: Table, name: &[u8], value: &[u8]) -> bool {
    match table {
        Table::Ring => Field::parse(name)
            .is_some_and(|field| field == Field::Revocations || value.len() <= LONGEST_VALUE),
        Table::Nodes => {
            let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
            name.len() == 16 && name.iter().all(is_digit) && value.len() <= LONGEST_VALUE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::message::{MAX_HOST, MAX_VERSION};
    use crate::cluster::seal::MAX_OVERHEAD;

    const _: () = assert!(MAX_OVERHEAD + MAX_HOST + MAX_VERSION + 64 < LONGEST_VALUE);

    #[test]
    fn fields_of_ours_have_names_and_lengths_that_no_others_have() {
        let key = [&b"k"[..], &[0xff; 16]].concat();
        assert!(
            is_ours(Table::Ring, &key, &[0; LONGEST_VALUE])
                && is_ours(Table::Ring, b"r", &[0; 9000])
        );
        assert!(is_ours(Table::Nodes, b"0123456789abcdef", &[0; LONGEST_VALUE]));
        for name in [&b""[..], b"x", b"rr", &key[1..], b"0123456789ABCDEF", b"0123456789abcdef0"] {
            assert!(!is_ours(Table::Ring, name, b"") && !is_ours(Table::Nodes, name, b""));
        }
        assert!(!is_ours(Table::Ring, &key, &[0; LONGEST_VALUE + 1]));
    }
}
