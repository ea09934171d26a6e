//! The circuit breaker.

use std::time::Duration;

use proptest::prelude::*;

use crate::cluster::breaker::{Breaker, FAILURES, LONGEST_PAUSE};

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

fn apply(breaker: &mut Breaker, event: Event, now: Duration) {
    match event {
        Success => breaker.success(),
        Failure => breaker.failure(now),
        ProbeFailed => breaker.probe_failed(now),
        Nothing => {}
    }
}

/// Plays (time in ms, event, allowed afterwards, probe due afterwards) to a new breaker.
fn play(story: &[(u64, Event, bool, bool)]) {
    let mut breaker = Breaker::new();
    assert!(breaker.allows());
    for (step, &(at, event, allows, probe_due)) in story.iter().enumerate() {
        apply(&mut breaker, event, ms(at));
        let seen = (breaker.allows(), breaker.probe_due(ms(at)));
        assert_eq!(seen, (allows, probe_due), "step {step}: {event:?} at {at} ms");
    }
}

#[test]
fn three_failures_in_a_row_open_it_and_a_success_in_between_counts_from_the_start() {
    play(&[
        (10, Failure, true, false),
        (11, Failure, true, false),
        (12, Success, true, false),
        (13, Failure, true, false),
        (14, Failure, true, false),
        (15, Failure, false, false),
    ]);
}

#[test]
fn probes_are_due_after_250_ms_then_after_pauses_that_double_to_a_second() {
    play(&[
        (0, Failure, true, false),
        (0, Failure, true, false),
        (1000, Failure, false, false),
        (1249, Nothing, false, false),
        (1250, Nothing, false, true),
        (1300, ProbeFailed, false, false),
        (1799, Nothing, false, false),
        (1800, ProbeFailed, false, false),
        (2799, Nothing, false, false),
        (2800, ProbeFailed, false, false),
        (3799, Nothing, false, false),
        (3800, Nothing, false, true),
        (3801, Success, true, false),
    ]);
}

#[test]
fn late_failures_of_look_ups_neither_open_it_twice_nor_put_off_the_probe() {
    play(&[
        (0, Failure, true, false),
        (0, Failure, true, false),
        (0, Failure, false, false),
        (200, Failure, false, false),
        (250, Failure, false, true),
    ]);
}

#[test]
fn a_closed_one_starts_over_and_a_probe_that_fails_too_late_is_not_counted() {
    play(&[
        (0, Failure, true, false),
        (0, Failure, true, false),
        (0, Failure, false, false),
        (250, ProbeFailed, false, false),
        (750, Success, true, false),
        (751, ProbeFailed, true, false),
        (752, Failure, true, false),
        (753, Failure, true, false),
        (754, Failure, false, false),
        (1004, Nothing, false, true),
    ]);
}

#[test]
fn the_end_of_time_does_not_panic() {
    let mut breaker = Breaker::new();
    for _ in 0..FAILURES {
        breaker.failure(Duration::MAX);
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
            apply(&mut breaker, event, now);
            match event {
                Success => in_a_row = 0,
                Failure => in_a_row += 1,
                ProbeFailed | Nothing => {}
            }
            let open = in_a_row >= FAILURES;
            prop_assert_eq!(breaker.allows(), !open);
            prop_assert_eq!(breaker.probe_due(now + LONGEST_PAUSE), open);
        }
    }
}
