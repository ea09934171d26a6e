//! Requests, waits and what is said, without Redis and without time passing.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::answer::{Answer, Key};
use super::circuit::Circuit;
use super::requests::{BATCH, Entered, Id, MOST_WAITING, Requests, TRIES};
use super::wait::Wait;
use crate::cluster::breaker::FAILURES;
use crate::trouble::Say;

const PAUSE: Duration = Duration::from_millis(2);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn key(number: usize) -> Key {
    let mut key = [0; 24];
    key[..8].copy_from_slice(&number.to_le_bytes());
    key
}

fn entered(requests: &mut Requests, id: Id, now: u64, deadline: u64) -> Arc<Wait> {
    let wait = Wait::until(ms(deadline));
    assert_eq!(requests.enter(id, &wait, ms(now)), Entered::Waits);
    wait
}

fn found() -> Answer {
    Answer::Found(b"sealed".to_vec())
}

#[test]
fn handshakes_that_want_one_session_are_one_request() {
    let (mut requests, id) = (Requests::default(), (key(1), false));
    let waits = [entered(&mut requests, id, 0, 10), entered(&mut requests, id, 1, 11)];
    assert_eq!(requests.take_up(ms(1)), [id]);
    let late = entered(&mut requests, id, 2, 12);
    assert_eq!(requests.take_up(ms(2)), [], "it is under way");
    requests.answer(&[id], vec![Some(b"sealed".to_vec())], ms(3), PAUSE);
    assert!(waits.iter().chain([&late]).all(|wait| wait.told() == Some(found())));
    assert!(requests.is_empty());
}

#[test]
fn a_session_that_is_being_taken_is_given_to_one() {
    let (mut requests, id) = (Requests::default(), (key(1), true));
    let first = entered(&mut requests, id, 0, 10);
    assert_eq!(requests.enter(id, &Wait::until(ms(10)), ms(0)), Entered::Taken);
    entered(&mut requests, (key(1), false), 0, 10);
    assert_eq!(requests.take_up(ms(0)).len(), 2);
    requests.answer(&[id], vec![Some(b"sealed".to_vec())], ms(1), PAUSE);
    assert_eq!(first.told(), Some(found()));
}

#[test]
fn a_request_that_was_left_while_it_was_asked_serves_who_enters_before_the_answer() {
    let (mut requests, id) = (Requests::default(), (key(1), false));
    let gone = entered(&mut requests, id, 0, 10);
    assert_eq!(requests.take_up(ms(0)), [id]);
    assert!(!requests.leave(&id, &gone, ms(0)));
    assert!(!requests.leave(&id, &gone, ms(0)), "twice is as once");
    let next = entered(&mut requests, id, 20, 30);
    assert_eq!(requests.take_up(ms(20)), [], "it is under way");
    requests.answer(&[id], vec![Some(b"sealed".to_vec())], ms(21), PAUSE);
    assert_eq!((gone.told(), next.told()), (None, Some(found())));
    assert!(requests.is_empty());
}

#[test]
fn an_old_answer_is_told_to_nobody_who_asks_later() {
    let (mut requests, id) = (Requests::default(), (key(1), false));
    let slow = entered(&mut requests, id, 0, 10);
    requests.take_up(ms(0));
    requests.fail(&[id]);
    // It has not fetched its answer yet.
    let next = entered(&mut requests, id, 1, 11);
    assert_eq!(requests.take_up(ms(1)), [id], "asked for anew");
    assert!(!requests.leave(&id, &slow, ms(1)), "and it takes nobody else's place with it");
    requests.answer(&[id], vec![Some(b"sealed".to_vec())], ms(2), PAUSE);
    assert_eq!((slow.told(), next.told()), (Some(Answer::Unavailable), Some(found())));
}

#[test]
fn an_absent_session_is_asked_for_less_and_less_often_and_only_while_somebody_waits() {
    let (mut requests, id) = (Requests::default(), (key(1), false));
    let wait = entered(&mut requests, id, 0, 10_000);
    let mut now = ms(0);
    for round in 0..TRIES {
        assert_eq!(wait.told(), None);
        assert_eq!(requests.next_due(now), Some(now));
        assert_eq!(requests.take_up(now), [id]);
        requests.answer(&[id], vec![None], now, PAUSE);
        now += PAUSE * 2u32.pow(round);
    }
    assert_eq!(wait.told(), Some(Answer::Absent));
    let id = (key(2), false);
    let short = entered(&mut requests, id, 0, 1);
    requests.take_up(ms(0));
    requests.answer(&[id], vec![None], ms(0), PAUSE);
    assert_eq!(short.told(), Some(Answer::Absent), "it would be gone by then");
}

#[test]
fn who_gives_up_knows_whether_redis_had_said_no() {
    let (mut requests, id) = (Requests::default(), (key(1), false));
    let wait = entered(&mut requests, id, 0, 10);
    requests.take_up(ms(0));
    requests.answer(&[id], vec![None], ms(1), PAUSE);
    assert!(requests.leave(&id, &wait, ms(10)));
    assert!(requests.is_empty());
}

/// One look-up of a session that Redis does not have; whether it was asked for again.
fn asks_again(requests: &mut Requests, number: usize, now: u64) -> bool {
    let id = (key(number), false);
    let wait = entered(requests, id, now, now + 10);
    assert_eq!(requests.take_up(ms(now)), [id]);
    requests.answer(&[id], vec![None], ms(now), PAUSE);
    let again = wait.told().is_none();
    requests.leave(&id, &wait, ms(now + 10));
    again
}

#[test]
fn where_asking_again_does_not_help_it_is_tried_once_a_second_until_it_does() {
    let mut requests = Requests::default();
    for number in 0..3 {
        assert!(asks_again(&mut requests, number, 0), "{number}");
    }
    let tries = |requests: &mut Requests, from| {
        let number = |now| usize::try_from(now).unwrap() + 100;
        (from..from + 10_000).filter(|now| asks_again(requests, number(*now), *now)).count()
    };
    let count = tries(&mut requests, 20);
    assert!((8..=12).contains(&count), "{count} in 10 s");
    // What Redis has at once does not show that asking again would help.
    let id = (key(10), false);
    entered(&mut requests, id, 10_050, 10_060);
    requests.take_up(ms(10_050));
    requests.answer(&[id], vec![Some(b"sealed".to_vec())], ms(10_050), PAUSE);
    assert!(tries(&mut requests, 10_051) <= 12);
    // The next probe finds its session.
    let (id, now) = ((key(11), true), 30_000);
    entered(&mut requests, id, now, now + 10);
    requests.take_up(ms(now));
    requests.answer(&[id], vec![None], ms(now), PAUSE);
    assert_eq!(requests.take_up(ms(now + 2)), [id]);
    requests.answer(&[id], vec![Some(b"sealed".to_vec())], ms(now + 2), PAUSE);
    assert!((0..3).all(|number| asks_again(&mut requests, number, now + 3)));
}

#[test]
fn a_session_that_redis_does_not_have_is_not_asked_for_again_for_a_second() {
    let (mut requests, id) = (Requests::default(), (key(1), false));
    let first = entered(&mut requests, id, 0, 10);
    requests.take_up(ms(0));
    requests.answer(&[id], vec![None], ms(0), PAUSE);
    let second = entered(&mut requests, id, 1, 10);
    requests.answer(&[id], vec![None], ms(20), PAUSE);
    assert_eq!((first.told(), second.told()), (Some(Answer::Absent), Some(Answer::Absent)));
    for take in [false, true] {
        let late = Wait::until(ms(2000));
        assert_eq!(requests.enter((key(1), take), &late, ms(1019)), Entered::Absent);
    }
    assert!(requests.is_empty());
    entered(&mut requests, (key(2), false), 21, 30);
    entered(&mut requests, id, 1020, 1030);
}

#[test]
fn what_redis_did_not_say_is_asked_for_again_at_once() {
    let (mut requests, id) = (Requests::default(), (key(1), false));
    entered(&mut requests, id, 0, 10);
    requests.take_up(ms(0));
    requests.fail(&[id]);
    entered(&mut requests, id, 1, 11);
    requests.take_up(ms(1));
    requests.put_back(&[id]);
    assert_eq!(requests.take_up(ms(1)), [id]);
}

#[test]
fn a_session_that_comes_while_one_waits_for_it_is_known_from_then_on() {
    let (mut requests, id) = (Requests::default(), (key(1), false));
    let first = entered(&mut requests, id, 0, 10);
    requests.take_up(ms(0));
    requests.answer(&[id], vec![None], ms(0), PAUSE);
    requests.take_up(ms(2));
    requests.answer(&[id], vec![Some(b"sealed".to_vec())], ms(2), PAUSE);
    assert_eq!(first.told(), Some(found()));
    entered(&mut requests, id, 3, 13);
}

#[test]
fn who_could_not_wait_for_long_does_not_show_that_waiting_is_in_vain() {
    let mut requests = Requests::default();
    for number in 0..9 {
        let id = (key(number), false);
        let short = Wait::new(ms(10), true);
        assert_eq!(requests.enter(id, &short, ms(0)), Entered::Waits);
        requests.take_up(ms(0));
        requests.answer(&[id], vec![None], ms(0), PAUSE);
        assert!(requests.leave(&id, &short, ms(4)));
    }
    assert!(asks_again(&mut requests, 10, 20));
}

#[test]
fn what_nobody_waits_for_is_not_asked() {
    let (mut requests, id) = (Requests::default(), (key(1), true));
    let wait = entered(&mut requests, id, 0, 10);
    assert_eq!(requests.next_due(ms(10)), None, "its time is over");
    assert_eq!(requests.take_up(ms(10)), [], "taking it would lose it");
    requests.leave(&id, &wait, ms(20));
    assert!(requests.is_empty());
    let wait = entered(&mut requests, id, 20, 30);
    requests.take_up(ms(20));
    requests.leave(&id, &wait, ms(20));
    requests.put_back(&[id]);
    assert!(requests.is_empty(), "Redis could not be asked, and need not be again");
}

#[test]
fn a_batch_is_bounded_and_the_eldest_go_first() {
    let mut requests = Requests::default();
    for number in (0..3 * BATCH).rev() {
        entered(&mut requests, (key(number), false), number as u64, 10_000);
    }
    for round in 0..3 {
        let mut batch = requests.take_up(ms(1000));
        batch.sort_unstable();
        let mut expected: Vec<_> = (round * BATCH..(round + 1) * BATCH).map(key).collect();
        expected.sort_unstable();
        assert_eq!(batch.iter().map(|(key, _)| *key).collect::<Vec<_>>(), expected);
        requests.put_back(&[]);
    }
    assert_eq!(requests.take_up(ms(1000)), []);
    requests.fail_all();
    assert!(requests.is_empty());
}

#[test]
fn no_more_wait_than_are_allowed() {
    let mut requests = Requests::default();
    let waits: Vec<_> =
        (0..MOST_WAITING).map(|it| entered(&mut requests, (key(it % 3), false), 0, 10)).collect();
    let one_more = Wait::until(ms(10));
    assert_eq!(requests.enter((key(1), false), &one_more, ms(0)), Entered::Full);
    requests.leave(&(key(0), false), &waits[0], ms(0));
    assert_eq!(requests.enter((key(1), false), &one_more, ms(0)), Entered::Waits);
}

/// What is said when Redis does not answer from then on.
fn fails(circuit: &mut Circuit, now: u64) -> Say<()> {
    for _ in 1..FAILURES {
        assert_eq!(circuit.note(ms(now), |breaker| breaker.failure(ms(now))), Say::Nothing);
    }
    circuit.note(ms(now), |breaker| breaker.failure(ms(now)))
}

#[test]
fn look_ups_that_fail_and_succeed_all_the_time_are_two_lines_a_minute() {
    let mut circuit = Circuit::default();
    let mut lines = Vec::new();
    for now in (0..180_000).step_by(1000) {
        lines.push(fails(&mut circuit, now));
        lines.push(circuit.note(ms(now + 250), |breaker| breaker.success()));
    }
    lines.retain(|say| *say != Say::Nothing);
    let pair = |untold| [Say::Trouble(untold), Say::Over((), ms(250))];
    assert_eq!(lines, [pair(0), pair(59), pair(59)].concat());
}

#[test]
fn look_ups_that_fail_again_and_stay_so_are_a_line_within_a_minute() {
    let mut circuit = Circuit::default();
    assert_eq!(fails(&mut circuit, 0), Say::Trouble(0));
    let well = circuit.note(ms(10_000), |breaker| breaker.success());
    assert_eq!(well, Say::Over((), ms(10_000)));
    assert_eq!(fails(&mut circuit, 20_000), Say::Nothing);
    let mut probe = |now| circuit.note(ms(now), |breaker| breaker.probe_failed(ms(now)));
    assert!((21_000..60_000).step_by(1000).all(|now| probe(now) == Say::Nothing));
    assert_eq!(probe(60_000), Say::Trouble(0));
}

#[derive(Clone, Debug)]
enum Step {
    Enter { number: usize, take: bool, patience: u64 },
    Leave(usize),
    TakeUp,
    Answer { found: bool },
    Fail,
    PutBack,
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..4usize, any::<bool>(), 0..20u64).prop_map(|(number, take, patience)| Step::Enter {
            number,
            take,
            patience
        }),
        any::<usize>().prop_map(Step::Leave),
        Just(Step::TakeUp),
        any::<bool>().prop_map(|found| Step::Answer { found }),
        Just(Step::Fail),
        Just(Step::PutBack),
        (0..10u64).prop_map(Step::Pass),
    ]
}

proptest! {
    /// Whatever comes in whatever order: nobody is told twice or after it left, nobody is forgotten, nothing stays.
    #[test]
    fn everyone_is_told_once_or_leaves(steps in prop::collection::vec(step(), 0..80)) {
        let (mut requests, mut now) = (Requests::default(), ms(0));
        let mut waits: Vec<(Id, Arc<Wait>)> = Vec::new();
        let mut batch: Vec<Id> = Vec::new();
        for step in steps {
            match step {
                Step::Enter { number, take, patience } => {
                    let (id, wait) = ((key(number), take), Wait::until(now + ms(patience)));
                    if requests.enter(id, &wait, now) == Entered::Waits {
                        waits.push((id, wait));
                    }
                }
                Step::Leave(which) if !waits.is_empty() => {
                    let (id, wait) = waits.swap_remove(which % waits.len());
                    requests.leave(&id, &wait, ms(20));
                    wait.told();
                    requests.leave(&id, &wait, ms(20));
                    prop_assert_eq!(wait.told(), None);
                }
                Step::TakeUp if batch.is_empty() => batch = requests.take_up(now),
                Step::Answer { found } => {
                    let answer = found.then(|| b"sealed".to_vec());
                    requests.answer(&batch, vec![answer; batch.len()], now, PAUSE);
                    if found {
                        for (id, wait) in waits.extract_if(.., |(id, _)| batch.contains(id)) {
                            prop_assert!(wait.told().is_some(), "{:?}", id);
                        }
                    }
                    batch.clear();
                }
                Step::Fail => {
                    requests.fail(&batch);
                    batch.clear();
                }
                Step::PutBack => {
                    requests.put_back(&batch);
                    batch.clear();
                }
                Step::Pass(time) => now += ms(time),
                Step::Leave(_) | Step::TakeUp => {}
            }
        }
        requests.put_back(&batch);
        for (id, wait) in &waits {
            requests.leave(id, wait, now);
        }
        prop_assert!(requests.is_empty());
    }
}
