//! Memory that holds what nobody wrote: never a panic, a hang or a wrong value.

use std::sync::atomic::Ordering;

use super::records::SMALL;
use super::support::*;
use crate::clock::{self, since_boot};
use crate::store::{Meta, Origin, Served, Store, layout};

fn words(store: &Store) -> usize {
    store.region.geometry().size / layout::WORD
}

fn overwrite(store: &Store, word: usize, bits: u64) {
    // The index is used in halves of words, by this thread alone here.
    store.region.units(word * layout::WORD, 1)[0].store(bits, Ordering::Relaxed);
}

/// Everything that a handshake or a report does; values are checked.
fn use_everything(store: &Store, numbers: std::ops::Range<u64>) {
    for number in numbers.clone() {
        let _ =
            store.insert(&session(number), &value(number, TYPICAL), NOW, std::time::Duration::ZERO);
        let _ = store.strike(&key(number), std::time::Duration::ZERO, clock::now());
    }
    for number in numbers {
        finds(store, number, TYPICAL);
        store.remove(&key(number / 2));
    }
    use_the_names(store);
    use_the_removals(store);
    use_what_the_agent_has(store);
    let _ = (store.live(NOW), store.usage(), store.read_ring());
    let _ = store.update_ring(std::time::Duration::ZERO, |ring| {
        ring.map(|ring| zeroize::Zeroizing::new(ring.to_vec()))
    });
}

fn use_the_names(store: &Store) {
    let keep = std::time::Duration::from_secs(3600);
    for number in 0..20u8 {
        let name = store.name_hash(&[&[number]]);
        store.note_served(name, number.into(), NOW, keep);
        store.note_mixed(name, NOW, keep);
        let served = store.served(name, NOW);
        assert!(matches!(served, Served::Mixed | Served::NoRoom), "{served:?}");
    }
    store.note_restricted();
    assert!(store.has_restricted());
}

fn use_the_removals(store: &Store) {
    let until = NOW + std::time::Duration::from_secs(100);
    for number in 1000..1020 {
        let none = std::time::Duration::ZERO;
        let _ = store.remove_for_all(&key(number), until, Origin::Elsewhere, NOW, none);
        assert!(store.is_removed(&key(number), until));
    }
}

fn use_what_the_agent_has(store: &Store) {
    let none = std::time::Duration::ZERO;
    for shard in 0..store.shards() {
        let tail = store.tail(shard, store.sent(shard), 30);
        for (meta, found) in tail.records {
            // Noise that passes the check is what was inserted.
            let number = u64::from(meta.authenticated);
            assert_eq!((meta, &*found), (session(number), &value(number, TYPICAL)));
        }
        store.advance_sent(shard, store.sent(shard), tail.next);
        let elsewhere = Meta { origin: Origin::Elsewhere, ..session(3) };
        let _ = store.accept(&elsewhere, &value(3, TYPICAL), NOW, none);
    }
    if let Some(mut lease) = store.hold_agent(PATIENT) {
        lease.renew(PATIENT);
    }
    let _ = (store.agent_lives(), store.stream_cursor(), store.has_first_copy(), store.node_id());
    store.wait_bell(store.rings(), none);
}

#[test]
fn random_words_anywhere_never_give_a_wrong_value_a_panic_or_a_hang() {
    let store = Store::anonymous(SMALL).unwrap();
    let started = since_boot();
    for round in 0..400u64 {
        use_everything(&store, round..round + 12);
        for spot in 0..40 {
            let chance = mix(round << 8 | spot);
            // Half of the spots are in the busy first part: header, ring, tables, shard header, index.
            let busy = store.region.geometry().log_at(0) / layout::WORD;
            let range = if spot % 2 == 0 { words(&store) } else { busy };
            overwrite(&store, chance as usize % range, mix(chance));
        }
    }
    assert!(since_boot() - started < PATIENT * 3, "no hang");
}

#[test]
fn the_worst_numbers_in_every_word_that_steers_are_survived() {
    let worst = |geometry: &layout::Geometry| {
        let log = geometry.log_units as u64;
        let near = |number: u64| [number.wrapping_sub(1), number, number.wrapping_add(1)];
        [0, log, log * 2, 1 << 20, 1 << 62, 1 << 63, u64::MAX - log, u64::MAX - 7, u64::MAX]
            .into_iter()
            .flat_map(near)
            .collect::<Vec<_>>()
    };
    let store = Store::anonymous(SMALL).unwrap();
    let geometry = *store.region.geometry();
    let shard = geometry.shard_at(0) / layout::WORD;
    let slots = [0, 1].map(|slot| layout::Geometry::slot_at(slot) / layout::WORD);
    let steering = [slots[0], slots[1], slots[0] + 1]
        .into_iter()
        .chain(shard..shard + 8)
        .chain(16..45)
        .collect::<Vec<_>>();
    for word in steering {
        for bits in worst(&geometry) {
            let store = Store::anonymous(SMALL).unwrap();
            use_everything(&store, 0..40);
            overwrite(&store, word, bits);
            use_everything(&store, 40..80);
            if word == shard + 1 {
                // A head from nowhere loses what was there, and the shard goes on.
                insert(&store, 7, TYPICAL).unwrap();
                assert!(finds(&store, 7, TYPICAL), "head {bits:#x}");
            }
        }
    }
}

#[test]
fn memory_full_of_ones_or_noise_is_used_again_by_the_next_writers() {
    for noise in [|_: usize| u64::MAX, |word: usize| mix(word as u64)] {
        let store = Store::anonymous(SMALL).unwrap();
        for word in 0..words(&store) {
            overwrite(&store, word, noise(word));
        }
        use_everything(&store, 0..200);
        // A lease far ahead counts as never written, so the shard is free.
        insert(&store, 9, TYPICAL).unwrap();
        assert!(finds(&store, 9, TYPICAL));
    }
}

#[test]
fn a_spoiled_record_is_a_miss_and_evictions_behind_it_are_still_counted() {
    let store = Store::anonymous(SMALL).unwrap();
    insert(&store, 0, TYPICAL).unwrap();
    let log = store.region.geometry().log_at(0) / layout::WORD;
    (0..8).for_each(|unit| overwrite(&store, log + unit, 0x5555_5555_5555_5555));
    assert!(!finds(&store, 0, TYPICAL));
    let total = 8000;
    let evicted: u64 =
        (1..total).map(|number| insert(&store, number, TYPICAL).unwrap().sessions).sum();
    let found = (1..total).filter(|number| finds(&store, *number, TYPICAL)).count() as u64;
    assert_eq!(evicted + found, total - 1);
}

#[test]
fn every_flipped_bit_of_a_record_makes_it_a_miss() {
    let store = Store::anonymous(SMALL).unwrap();
    insert(&store, 1, 20).unwrap();
    let log = store.region.units(store.region.geometry().log_at(0), 9);
    // The last unit has four bytes of padding, which are not part of the value.
    for bit in 0..8 * 64 + 32 {
        log[bit / 64].fetch_xor(1 << (bit % 64), Ordering::Relaxed);
        assert!(store.lookup(&key(1)).is_none(), "bit {bit}");
        log[bit / 64].fetch_xor(1 << (bit % 64), Ordering::Relaxed);
    }
    assert!(finds(&store, 1, 20));
}
