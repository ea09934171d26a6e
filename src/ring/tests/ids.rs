//! Session ids: known everywhere, for as long as their sessions live.

use super::support::*;
use crate::ring::Schedule;

const DAY: u64 = 24 * 3600;

#[test]
fn ids_of_every_node_are_known_after_their_rings_merge() {
    let mut nodes: Vec<_> =
        (0..5).map(|seed| Node::started(HOURLY, seed, START + seconds(seed))).collect();
    let now = START + seconds(60);
    let ids: Vec<_> =
        nodes.iter().map(|node| node.ring.id_key(now).unwrap().session_id(&[9; 24])).collect();
    assert!(nodes[0].ring.maker_of(&ids[1], now).is_none(), "not before");
    let rings: Vec<_> = nodes.iter().map(|node| node.ring.clone()).collect();
    for node in &mut nodes {
        for ring in &rings {
            node.ring = node.ring.merge(ring);
        }
        for id in &ids {
            assert!(node.ring.maker_of(id, now).is_some_and(|key| key.made(id)));
        }
    }
    let keys: Vec<_> = nodes.iter().map(|node| node.ring.id_key(now).unwrap().name()).collect();
    assert!(keys.windows(2).all(|pair| pair[0] == pair[1]), "and all go on with one key");
}

#[test]
fn ids_stay_known_for_a_lifetime_while_their_key_rotates_weekly() {
    let schedule = Schedule { lifetime: seconds(7 * DAY), ..HOURLY };
    let mut node = Node::started(schedule, 1, START);
    let mut issued = Vec::new();
    let mut makers = std::collections::BTreeSet::new();
    for hour in 0..24 * 40 {
        let now = START + seconds(3600 * hour);
        node.keep_up(now);
        let key = node.ring.id_key(now).unwrap();
        makers.insert(key.name());
        issued.push((key.session_id(&[7; 24]), now));
        issued.retain(|(_, at)| now < *at + schedule.lifetime);
        assert!(issued.iter().all(|(id, _)| node.ring.maker_of(id, now).is_some()));
    }
    assert!((5..=7).contains(&makers.len()), "{} keys in 40 days", makers.len());
}

#[test]
fn ids_of_a_key_whose_time_is_over_are_foreign() {
    let mut node = Node::started(HOURLY, 1, START);
    let id = node.ring.id_key(START).unwrap().session_id(&[7; 24]);
    let end = node.ring.ids[0].accept_until;
    assert!(node.ring.maker_of(&id, end - seconds(1)).is_some());
    assert!(node.ring.maker_of(&id, end).is_none());
    node.keep_up(end + HOUR * 3);
    assert!(node.ring.maker_of(&id, end + HOUR * 3).is_none());
}

#[test]
fn invented_ids_are_foreign() {
    let node = Node::started(HOURLY, 1, START);
    let mut seed = 5;
    for _ in 0..10_000 {
        let mut id = [0; 32];
        random_from(&mut seed)(&mut id);
        assert!(node.ring.maker_of(&id, START).is_none());
    }
}
