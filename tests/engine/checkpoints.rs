//! Checkpoints on their way: durable with what they keep, once, and over a death of the server.

use crate::bench::*;
use crate::frames::{frame, reset, send, valid};
use crate::hostile::*;
use longhaul::engine::{Durable, Error, Frame, SentCheckpoint};
use longhaul::job::limits::CHECKPOINT_BYTES_MAX;
use longhaul::job::*;
use std::time::Duration;

fn recording(number: u64, output_bytes: u64, of: Frame) -> Frame {
    let checkpoint = SentCheckpoint { number: Some(number), output_bytes, data: number.to_string().into() };
    Frame { checkpoint: Some(checkpoint), ..of }
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_is_durable_with_the_output_that_it_keeps() {
    let bench = Bench::new().await;
    let token = bench.run().await.token;

    let durable = send(&bench, &token, recording(1, 3, frame(0, "one "))).await.unwrap();
    let ahead = send(&bench, &token, recording(2, 9, frame(4, "two "))).await;
    let late = send(&bench, &token, recording(1, 1, frame(0, ""))).await.unwrap();

    assert_eq!((durable.bytes, durable.checkpoints, late.checkpoints), (4, 1, 1));
    // Nothing of its frame is taken.
    assert_eq!(ahead, Err(Error::Refused(Refusal::CheckpointAhead { output_bytes: 9, present: 8 })));
    assert_eq!(valid(&bench, token.job).await, "one ");
    assert_eq!(bench.get(token.job).await.job.checkpoint(), Some(3));
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_of_unknown_outcome_is_recorded_once() {
    let bench = Bench::new().await;
    let token = bench.run().await.token;

    bench.store.fail(appends, Fault::Unknown);
    let sending = tokio::spawn({
        let engine = bench.engine.clone();
        async move { engine.append_frame(&token, recording(7, 4, frame(0, "one "))).await }
    });
    bench.pass(SECOND).await;
    let durable = within(sending).await.unwrap().unwrap();

    assert!(bench.store.has_failed());
    assert_eq!((durable.bytes, durable.checkpoints), (4, 7));
    assert_eq!(bench.get(token.job).await.job.checkpoint(), Some(4));
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_behind_a_reset_of_unknown_outcome_is_kept() {
    let bench = Bench::new().await;
    let token = bench.run().await.token;
    send(&bench, &token, frame(0, "one two")).await.unwrap();
    let checkpoint = SentCheckpoint { number: Some(1), output_bytes: 9, data: "at three".into() };

    bench.store.fail(appends, Fault::Unknown);
    let sending = tokio::spawn({
        let engine = bench.engine.clone();
        let frame = Frame { checkpoint: Some(checkpoint), ..reset(4, "three") };
        async move { engine.append_frame(&token, frame).await }
    });
    bench.pass(SECOND).await;
    let durable = within(sending).await.unwrap().unwrap();
    within(bench.engine.release(&token, String::new(), Duration::ZERO)).await.unwrap();
    let next = bench.lease().await;

    assert!(bench.store.has_failed());
    assert_eq!((durable.bytes, durable.checkpoints), (9, 1));
    assert_eq!((next.checkpoint, next.snapshot.job.checkpoint()), ("at three".into(), Some(9)));
    assert_eq!(valid(&bench, token.job).await, "one three");
}

#[tokio::test(start_paused = true)]
async fn checkpoints_that_come_faster_than_they_are_durable_are_joined_and_hold_up_nobody() {
    let bench = Bench::new().await;
    let token = bench.run().await.token;
    let emission = bench.engine.emission(&token).unwrap();
    let large = |number: u64| SentCheckpoint {
        number: Some(number),
        output_bytes: number,
        data: vec![number as u8; CHECKPOINT_BYTES_MAX].into(),
    };

    bench.store.block();
    for number in 1..=20 {
        let of = frame(number - 1, "x");
        within(emission.take(Frame { checkpoint: Some(large(number)), ..of })).await.unwrap();
    }
    let before = emission.durable("").unwrap();
    bench.store.unblock();
    within(emission.flush()).await.unwrap();

    let (nothing, all) = (Durable::default(), Durable { bytes: 20, lines: 0, checkpoints: 20 });
    assert_eq!((before, emission.durable("").unwrap()), ((nothing, false), (all, true)));
    // What was on its way, and the last of what came meanwhile.
    let recorded = bench.store.checkpoints();
    assert!(recorded <= 2, "{recorded} checkpoints");
    within(bench.engine.release(&token, String::new(), Duration::ZERO)).await.unwrap();
    let next = bench.lease().await;
    assert_eq!((next.checkpoint, next.snapshot.job.checkpoint()), (large(20).data, Some(20)));
}

#[tokio::test(start_paused = true)]
async fn what_an_earlier_attempt_has_left_can_be_sent_again_by_the_next() {
    let bench = Bench::new().await;
    let first = bench.run().await.token;
    send(&bench, &first, recording(1, 4, frame(0, "one two"))).await.unwrap();
    within(bench.engine.release(&first, String::new(), Duration::ZERO)).await.unwrap();

    let leased = bench.lease().await;
    let second = leased.token;
    let other = send(&bench, &second, frame(0, "two three")).await;
    let durable = send(&bench, &second, frame(0, "one three")).await.unwrap();

    assert_eq!(&leased.checkpoint[..], b"1");
    assert_eq!(other, Err(Error::Refused(Refusal::OutputConflict { offset: 0 })));
    assert_eq!((durable.bytes, durable.checkpoints), (9, 0));
    assert_eq!(valid(&bench, first.job).await, "one three");
}

#[tokio::test(start_paused = true)]
async fn what_an_attempt_sends_again_that_voided_its_checkpoint_is_known_after_a_death_of_the_server() {
    let mut bench = Bench::new().await;
    bench.start().await;
    let first = bench.lease_for(&remote()).await.token;
    send(&bench, &first, recording(1, 4, frame(0, "one two"))).await.unwrap();
    within(bench.engine.release(&first, String::new(), Duration::ZERO)).await.unwrap();
    let second = bench.lease_for(&remote()).await.token;
    send(&bench, &second, reset(2, "ce more")).await.unwrap();
    assert_eq!(bench.get(first.job).await.job.checkpoint(), None);
    let before = bench.history(first.job).await;

    bench.restart().await;
    // What it begins with was written by the first attempt.
    let repeated = send(&bench, &second, reset(2, "ce more")).await.unwrap();
    let whole = send(&bench, &second, frame(0, "once more")).await.unwrap();
    let other = send(&bench, &second, frame(0, "one")).await;

    assert_eq!((repeated.bytes, whole.bytes, whole.checkpoints), (9, 9, 0));
    assert_eq!(other, Err(Error::Refused(Refusal::OutputConflict { offset: 0 })));
    assert_eq!(bench.history(first.job).await, before, "nothing of it is recorded twice");
    assert_eq!(valid(&bench, first.job).await, "once more");
    let durable = send(&bench, &second, recording(1, 5, frame(9, " again"))).await.unwrap();
    assert_eq!((durable.bytes, durable.checkpoints), (15, 1));
    assert_eq!(bench.get(first.job).await.job.checkpoint(), Some(5));
}
