//! The circuit breaker.

use std::time::Duration;

use proptest::prelude::*;

use crate::cluster::breaker::{Breaker, Change, FAILURES, LONGEST_PAUSE};

#[derive(Clone, Copy, Debug)]
enum Event {
    Success,
    Failure,
    ProbeFailed,
    /// Time passes.
    Nothing,
}

use Event::{Failure, Nothing, ProbeFailed, Success};

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn apply(breaker: &mut Breaker, event: Event, now: Duration) -> Change {
    match event {
        Success => return breaker.success(),
        Failure => return breaker.failure(now),
        ProbeFailed => breaker.probe_failed(now),
        Nothing => {}
    }
    Change::None
}

/// Plays (time in ms, event, change, allowed afterwards, probe due afterwards) to a new breaker.
fn play(story: &[(u64, Event, Change, bool, bool)]) {
    let mut breaker = Breaker::new();
    assert!(breaker.allows());
    for (step, &(at, event, change, allows, probe_due)) in story.iter().enumerate() {
        let told = apply(&mut breaker, event, ms(at));
        let seen = (told, breaker.allows(), breaker.probe_due(ms(at)));
        assert_eq!(seen, (change, allows, probe_due), "step {step}: {event:?} at {at} ms");
    }
}

#[test]
fn three_failures_in_a_row_open_it_and_a_success_in_between_counts_from_the_start() {
    play(&[
        (10, Failure, Change::None, true, false),
        (11, Failure, Change::None, true, false),
        (12, Success, Change::None, true, false),
        (13, Failure, Change::None, true, false),
        (14, Failure, Change::None, true, false),
        (15, Failure, Change::Opened, false, false),
    ]);
}

#[test]
fn probes_are_due_after_250_ms_then_after_pauses_that_double_to_a_second() {
    play(&[
        (0, Failure, Change::None, true, false),
        (0, Failure, Change::None, true, false),
        (1000, Failure, Change::Opened, false, false),
        (1249, Nothing, Change::None, false, false),
        (1250, Nothing, Change::None, false, true),
        (1300, ProbeFailed, Change::None, false, false),
        (1799, Nothing, Change::None, false, false),
        (1800, ProbeFailed, Change::None, false, false),
        (2799, Nothing, Change::None, false, false),
        (2800, ProbeFailed, Change::None, false, false),
        (3799, Nothing, Change::None, false, false),
        (3800, Nothing, Change::None, false, true),
        (3801, Success, Change::Closed, true, false),
    ]);
}

#[test]
fn late_failures_of_look_ups_neither_open_it_twice_nor_put_off_the_probe() {
    play(&[
        (0, Failure, Change::None, true, false),
        (0, Failure, Change::None, true, false),
        (0, Failure, Change::Opened, false, false),
        (200, Failure, Change::None, false, false),
        (250, Failure, Change::None, false, true),
    ]);
}

#[test]
fn a_closed_one_starts_over_and_a_probe_that_fails_too_late_is_not_counted() {
    play(&[
        (0, Failure, Change::None, true, false),
        (0, Failure, Change::None, true, false),
        (0, Failure, Change::Opened, false, false),
        (250, ProbeFailed, Change::None, false, false),
        (750, Success, Change::Closed, true, false),
        (751, ProbeFailed, Change::None, true, false),
        (752, Failure, Change::None, true, false),
        (753, Failure, Change::None, true, false),
        (754, Failure, Change::Opened, false, false),
        (1004, Nothing, Change::None, false, true),
    ]);
}

#[test]
fn the_end_of_time_does_not_panic() {
    let mut breaker = Breaker::new();
    for _ in 0..FAILURES {
        let _ = breaker.failure(Duration::MAX);
    }
    breaker.probe_failed(Duration::MAX);
    assert!(breaker.probe_due(Duration::MAX));
}

proptest! {
    #[test]
    fn it_is_open_just_after_three_failures_in_a_row_until_a_success(
        events in prop::collection::vec(
            (prop::sample::select(&[Success, Failure, Failure, Failure, ProbeFailed, Nothing][..]), 0..2000u64),
            0..60,
        ),
    ) {
        let mut breaker = Breaker::new();
        let (mut now, mut in_a_row) = (Duration::ZERO, 0);
        for (event, pause) in events {
            now += ms(pause);
            let was_open = in_a_row >= FAILURES;
            let change = apply(&mut breaker, event, now);
            match event {
                Success => in_a_row = 0,
                Failure => in_a_row += 1,
                ProbeFailed | Nothing => {}
            }
            let open = in_a_row >= FAILURES;
            let expected = match (was_open, open) {
                (false, true) => Change::Opened,
                (true, false) => Change::Closed,
                _ => Change::None,
            };
            prop_assert_eq!(change, expected);
            prop_assert_eq!(breaker.allows(), !open);
            prop_assert_eq!(breaker.probe_due(now + LONGEST_PAUSE), open);
        }
    }
}
