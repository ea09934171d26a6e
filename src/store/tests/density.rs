//! How many sessions fit.

use super::support::*;
use crate::store::Store;

#[test]
fn zz_measure() {
    for seed in 0..12u64 {
        let store = Store::anonymous(16 << 20).unwrap();
        let n = 5400 * 16u64;
        let mut ev = 0;
        let mut first = None;
        for number in 0..n {
            let e = insert(&store, number | seed << 40, TYPICAL).unwrap();
            ev += e.sessions;
            if e.sessions > 0 && first.is_none() { first = Some(number as f64 / 16.0); }
        }
        let found = (0..n).filter(|number| finds(&store, number | seed << 40, TYPICAL)).count();
        println!("seed {seed}: found {found} of {n}, evicted {ev}, first at {first:?}/MiB");
    }
}
