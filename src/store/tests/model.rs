//! The store beside a map: it may lose what is old, and never gives what is wrong.

use std::collections::HashMap;

use proptest::prelude::*;

use super::records::SMALL;
use super::support::*;
use crate::store::{MAX_VALUE, Meta, Store};

#[derive(Clone, Debug)]
enum Step {
    Insert(u64, usize),
    Accept(u64, usize),
    Lookup(u64),
    Remove(u64),
    Clear,
}

/// Few keys, so that they meet again; all lengths, so that the log goes round.
fn arb_step() -> impl Strategy<Value = Step> {
    let number = || prop_oneof![0u64..12, 0u64..400];
    let len = || prop_oneof![8 => 0usize..400, 2 => 0usize..20_000, 1 => MAX_VALUE - 9..=MAX_VALUE];
    prop_oneof![
        40 => (number(), len()).prop_map(|(number, len)| Step::Insert(number, len)),
        5 => (number(), len()).prop_map(|(number, len)| Step::Accept(number, len)),
        30 => number().prop_map(Step::Lookup),
        10 => number().prop_map(Step::Remove),
        1 => Just(Step::Clear),
    ]
}

/// Bytes that may lie in the log before the oldest goes: less than the log, for records do not wrap.
const SURELY_KEPT: usize = 200 * 1024;

#[derive(Default)]
struct Model {
    /// Key to length, binding and age: bytes that were inserted after it.
    present: HashMap<u64, (usize, u64)>,
    written: u64,
}

impl Model {
    fn meta(&self, number: u64) -> Meta {
        Meta { binding: self.present[&number].1, ..session(number) }
    }

    fn is_young(&self, number: u64) -> bool {
        (self.written - self.present[&number].1) < SURELY_KEPT as u64
    }
}

proptest! {
    #[test]
    fn what_is_found_is_what_was_inserted_last_and_what_is_young_is_found(
        steps in prop::collection::vec(arb_step(), 1..400),
    ) {
        let store = Store::anonymous(SMALL).unwrap();
        let mut model = Model::default();
        for step in steps {
            match step {
                Step::Insert(number, len) | Step::Accept(number, len) => {
                    let meta = Meta { binding: model.written, ..session(number) };
                    let bytes = value(number ^ model.written, len);
                    let inserted = match step {
                        Step::Insert(..) => store.insert(&meta, &bytes, NOW, PATIENT),
                        _ => store.accept(&meta, &bytes, NOW, PATIENT),
                    };
                    if inserted.is_ok() {
                        model.present.insert(number, (len, model.written));
                        model.written += len as u64 + 56;
                    } else {
                        prop_assert!(matches!(step, Step::Accept(..)));
                        prop_assert!(model.present.contains_key(&number), "{inserted:?}");
                    }
                }
                Step::Lookup(number) => match (store.lookup(&key(number)), model.present.get(&number)) {
                    (Some((meta, bytes)), Some((len, written))) => {
                        prop_assert_eq!(meta, model.meta(number));
                        prop_assert_eq!(&*bytes, &value(number ^ written, *len));
                    }
                    (found, None) => prop_assert!(found.is_none(), "{number} was removed"),
                    (None, Some(_)) => {
                        prop_assert!(!model.is_young(number), "{number} is lost");
                    }
                },
                Step::Remove(number) => {
                    let removed = store.remove(&key(number));
                    match model.present.contains_key(&number) {
                        true => prop_assert!(removed || !model.is_young(number)),
                        false => prop_assert!(!removed),
                    }
                    model.present.remove(&number);
                }
                Step::Clear => {
                    store.clear();
                    model.present.clear();
                }
            }
        }
        let found = model.present.keys().filter(|number| store.lookup(&key(**number)).is_some());
        prop_assert_eq!(store.live(NOW), found.count() as u64);
    }
}
