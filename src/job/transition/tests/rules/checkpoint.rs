//! Checkpoints: what they keep for the next attempt, and when they are no more.

use crate::job::transition::tests::life::*;
use crate::job::*;
use rstest::rstest;
use std::time::Duration;

/// A job whose attempt has written ten bytes and recorded a checkpoint behind six of them.
fn recorded() -> Life {
    let mut life = Life::running(options());
    life.outputs("", None, 0, "0123456789").unwrap();
    life.outputs("reasoning", None, 0, "hm").unwrap();
    life.checkpoints(1, 6, "six").unwrap();
    life
}

/// The resets among what happened after the first `events`.
fn resets(life: &Life, events: usize) -> Vec<(String, u64)> {
    let resets = life.events[events..].iter().filter_map(|event| match &event.body {
        Body::OutputReset { channel, kept_bytes } => Some((channel.clone(), *kept_bytes)),
        _ => None,
    });
    resets.collect()
}

fn bytes(life: &Life, wanted: &str) -> u64 {
    life.job.emitted.channels.iter().find(|channel| channel.name == wanted).map_or(0, |channel| channel.bytes)
}

fn fail(life: &mut Life) {
    life.fails_with(Some(Failure::new(reason::HANDLER_ERROR, "no")), None).unwrap();
    life.wait(HOUR).advance();
}

fn release(life: &mut Life) {
    life.releases(Duration::ZERO).unwrap();
}

fn expire(life: &mut Life) {
    life.ends(LeaseEnd::Expired).unwrap();
}

fn stall(life: &mut Life) {
    life.ends(LeaseEnd::Stalled).unwrap();
    life.wait(HOUR).advance();
}

fn restart(life: &mut Life) {
    life.ends(LeaseEnd::Restarted).unwrap();
}

#[rstest]
#[case(fail)]
#[case(release)]
#[case(expire)]
#[case(stall)]
#[case(restart)]
fn the_next_attempt_goes_on_from_it_whatever_ended_the_last(#[case] end: fn(&mut Life)) {
    let mut life = recorded();

    end(&mut life);
    let before = life.events.len();
    life.begin();

    assert_eq!(resets(&life, before), [(String::new(), 6), ("reasoning".to_owned(), 0)]);
    assert_eq!((life.job.checkpoint(), bytes(&life, ""), bytes(&life, "reasoning")), (Some(6), 6, 0));
    life.outputs("", None, 6, "more").unwrap();
    assert_eq!(bytes(&life, ""), 10);
}

#[test]
fn it_outlives_attempts_that_record_none() {
    let mut life = recorded();

    for _ in 0..2 {
        release(&mut life);
        life.begin();
        life.outputs("", None, 6, "again").unwrap();
    }
    release(&mut life);
    life.begin();

    assert_eq!((life.job.checkpoint(), bytes(&life, "")), (Some(6), 6));
}

#[test]
fn a_later_one_takes_its_place_wholly() {
    let mut life = recorded();

    life.checkpoints(2, 3, "three").unwrap();

    assert_eq!(life.job.checkpoint(), Some(3));
}

#[test]
fn one_that_was_recorded_before_does_nothing() {
    let mut life = recorded();
    life.checkpoints(4, 8, "eight").unwrap();

    for number in [1, 3, 4] {
        life.checkpoints(number, 2, "late").unwrap();
        // Not even where what it kept is void by now.
        life.checkpoints(number, 99, "late").unwrap();
    }

    assert_eq!(life.job.checkpoint(), Some(8));
}

#[test]
fn numbers_begin_anew_with_each_attempt() {
    let mut life = recorded();
    life.checkpoints(9, 8, "eight").unwrap();
    release(&mut life);
    life.begin();

    life.checkpoints(1, 4, "four").unwrap();

    assert_eq!(life.job.checkpoint(), Some(4));
}

#[test]
fn it_cannot_keep_more_output_than_there_is() {
    let mut life = recorded();

    let refused = life.checkpoints(2, 11, "eleven");

    assert_eq!(refused, Err(Refusal::CheckpointAhead { output_bytes: 11, present: 10 }));
    assert_eq!(life.job.checkpoint(), Some(6));
}

#[test]
fn a_reset_below_what_it_keeps_voids_it_and_one_behind_it_does_not() {
    let mut life = recorded();

    life.outputs("", Some(6), 6, "x").unwrap();
    assert_eq!(life.job.checkpoint(), Some(6));
    life.outputs("reasoning", Some(0), 0, "x").unwrap();
    assert_eq!(life.job.checkpoint(), Some(6));
    life.outputs("", Some(5), 5, "x").unwrap();

    assert_eq!(life.job.checkpoint(), None);
    life.checkpoints(1, 6, "repeated").unwrap();
    assert_eq!(life.job.checkpoint(), None);
    life.checkpoints(2, 6, "six").unwrap();
    assert_eq!(life.job.checkpoint(), Some(6));
}

#[test]
fn an_empty_one_lets_the_next_attempt_begin_anew() {
    let mut life = recorded();

    life.checkpoints(2, 0, "").unwrap();
    release(&mut life);
    let before = life.events.len();
    life.begin();

    assert_eq!(life.job.checkpoint(), None);
    assert_eq!(resets(&life, before), [(String::new(), 0), ("reasoning".to_owned(), 0)]);
}

#[test]
fn a_success_needs_it_no_more_and_every_other_end_keeps_it() {
    let mut succeeded = recorded();
    let (mut failed, mut cancelled) = (recorded(), recorded());

    succeeded.completes().unwrap();
    failed.fails(Failure::new(reason::HANDLER_ERROR, "no").permanent()).unwrap();
    cancelled.cancel(SECOND).unwrap();
    cancelled.fails_with(None, None).unwrap();

    assert_eq!((succeeded.job.state, succeeded.job.emitted.checkpoint), (State::Succeeded, None));
    assert_eq!((failed.job.state, failed.job.checkpoint()), (State::Failed, Some(6)));
    assert_eq!((cancelled.job.state, cancelled.job.checkpoint()), (State::Cancelled, Some(6)));
}
