//! The strike register.

use super::support::*;
use crate::clock::UnixMillis;
use crate::engine::Engine;
use crate::stats::Counter;

const WINDOW: u64 = 20;

fn asks(engine: &Engine, id: &[u8], now: UnixMillis) -> bool {
    engine.early_data_allowed(id, true, now)
}

/// When a register that was made just now is complete.
fn complete() -> UnixMillis {
    now() + seconds(WINDOW + 1)
}

#[test]
fn the_first_use_of_a_ticket_is_allowed_and_no_other() {
    let (place, now) = (Place::new(), complete());
    let engine = place.engine();
    let now = now + seconds(1);
    assert!(asks(&engine, &[1; 32], now));
    for later in [0, 1, WINDOW - 1, WINDOW] {
        assert!(!asks(&engine, &[1; 32], now + seconds(later)), "{later} s later");
    }
    assert!(asks(&engine, &[2; 32], now));
    assert!(!asks(&place.engine(), &[2; 32], now), "neither in another process");
    drop(engine);
    assert!(!asks(&place.engine(), &[1; 32], now), "nor after a restart");
    let counters = place.engine();
    let counted = |counter| counters.counters().value(counter);
    assert_eq!(counted(Counter::EarlyDataAllowed), 2);
    assert_eq!(counted(Counter::EarlyDataRefused), 6);
}

#[test]
fn nothing_is_allowed_for_a_window_after_the_register_was_made() {
    let before = now();
    let engine = Engine::new(alone()).unwrap();
    for later in [0, 1, WINDOW - 1] {
        assert!(!asks(&engine, &[1; 32], before + seconds(later)), "{later} s later");
    }
    assert!(!asks(&engine, &[1; 32], before + seconds(WINDOW) - seconds(1)));
    assert!(asks(&engine, &[1; 32], now() + seconds(WINDOW)));
    let back = UnixMillis(before.0 - 3_600_000);
    assert!(!asks(&engine, &[2; 32], back), "a clock put back is no proof");
}

#[test]
fn what_is_no_id_of_a_ticket_is_refused() {
    let (engine, now) = (Engine::new(alone()).unwrap(), complete());
    for length in [0, 1, 31, 33, 64] {
        assert!(!asks(&engine, &vec![1; length], now + seconds(1)));
    }
}

#[test]
fn sessions_take_no_room_from_strikes() {
    let engine = Engine::new(alone()).unwrap();
    let now = complete() + seconds(1);
    assert!(asks(&engine, &[1; 32], now));
    for _ in 0..20 {
        let id = engine.new_session_id(engine.new_family(now), now).unwrap();
        engine.keep_session(&session(&id, &[7; 60_000], now), now, PATIENT);
    }
    assert!(engine.counters().value(Counter::SessionsEvicted) > 0);
    assert!(!asks(&engine, &[1; 32], now), "the replay");
    assert!(asks(&engine, &[3; 32], now), "and others are allowed");
}

#[test]
fn a_flush_allows_no_replay() {
    let engine = Engine::new(alone()).unwrap();
    let now = complete() + seconds(1);
    assert!(asks(&engine, &[1; 32], now));
    engine.flush_sessions().unwrap();
    for later in [0, 1, WINDOW] {
        assert!(!asks(&engine, &[1; 32], now + seconds(later)), "{later} s later");
    }
    assert!(asks(&engine, &[2; 32], now), "others are allowed at once");
}

#[test]
fn strikes_and_sessions_of_one_id_do_not_meet() {
    let engine = Engine::new(alone()).unwrap();
    let now = complete() + seconds(1);
    let id = engine.new_session_id(engine.new_family(now), now).unwrap();
    assert!(asks(&engine, &id, now));
    let lookup = crate::engine::Lookup::Consume;
    assert!(engine.find_session(&id, &SHOP, lookup, now).is_none());
    assert!(!engine.forget_session(&id, now).unwrap());
    assert!(!asks(&engine, &id, now), "and the strike is still there");
    assert_eq!(engine.report(now).sessions_live, 0);
}
