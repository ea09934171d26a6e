//! How many sessions fit.

#![allow(clippy::print_stdout, reason = "the number is what the test is for")]

use super::support::*;
use crate::store::Store;

const MIB: u64 = 16;
const PER_MIB: u64 = 4_850;

#[test]
fn the_default_memory_keeps_4850_typical_sessions_per_mib_and_finds_every_one() {
    // Several sets of keys: none of them is lucky.
    for set in 0..4 {
        let store = Store::anonymous((MIB << 20) as usize).unwrap();
        let (first, enough) = (set << 40, MIB * PER_MIB);
        let mut kept = 0;
        // Until the first live session has to make room for another.
        while insert(&store, first + kept, TYPICAL).unwrap().sessions == 0 {
            kept += 1;
            if kept == enough {
                assert!((first..first + kept).all(|number| finds(&store, number, TYPICAL)));
                assert_eq!(store.live(NOW), kept);
            }
        }
        println!("{} sessions of 168 bytes per MiB before the first makes room", kept / MIB);
        assert!(kept >= enough, "{} per MiB", kept / MIB);
        let usage = store.usage();
        assert_eq!(usage.used + usage.free + usage.overhead, MIB << 20);
        assert!(usage.overhead * 7 < MIB << 20, "{usage:?}");
    }
}

#[test]
fn a_full_memory_goes_on_with_the_newest_sessions() {
    let store = Store::anonymous((MIB << 20) as usize).unwrap();
    let total = MIB * PER_MIB * 3 / 2;
    for number in 0..total {
        insert(&store, number, TYPICAL).unwrap();
    }
    let newest = total - MIB * 4_500..total;
    let lost = newest.clone().filter(|number| !finds(&store, *number, TYPICAL)).count() as u64;
    println!("{lost} of the newest {} sessions lost", newest.end - newest.start);
    // An index bucket may overflow before the log does.
    assert!(lost * 1000 < newest.end - newest.start, "{lost} lost");
}
