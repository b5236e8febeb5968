//! Output that says where it belongs: what becomes of frames whose sender goes away, of resets, and of completions that wait
//! for either.
//!
//! What broke: a reset was committed by the call that brought it. Where that was dropped before the answer, bytes that were
//! void counted as durable; and nobody who waited for output heard of one.

use crate::bench::*;
use crate::hostile::*;
use bytes::Bytes;
use longhaul::engine::{Durable, Error, Frame, SentCheckpoint};
use longhaul::job::limits::CHECKPOINT_BYTES_MAX;
use longhaul::job::*;
use std::time::Duration;

const MILLISECOND: Duration = Duration::from_millis(1);

fn frame(offset: u64, data: impl Into<Bytes>) -> Frame {
    Frame { offset, data: data.into(), ..Default::default() }
}

fn reset(to: u64, data: impl Into<Bytes>) -> Frame {
    Frame { reset_to: Some(to), ..frame(to, data) }
}

async fn send(bench: &Bench, token: &LeaseToken, frame: Frame) -> Result<Durable, Error> {
    within(bench.engine.append_frame(token, frame)).await
}

/// Sends a frame whose sender goes away while it is committed.
async fn send_and_go(bench: &Bench, token: &LeaseToken, frame: Frame) {
    bench.store.block();
    {
        let mut sending = Box::pin(bench.engine.append_frame(token, frame));
        assert!(at_once(&mut sending).await.is_none());
    }
    bench.store.unblock();
    bench.settle().await;
    bench.pass(SECOND).await;
}

/// What is valid of the main output.
async fn valid(bench: &Bench, job: JobId) -> String {
    let mut text = Vec::new();
    for event in bench.history(job).await {
        match event.body {
            Body::OutputAppended { offset, data, .. } => {
                assert_eq!(offset as usize, text.len());
                text.extend_from_slice(&data);
            }
            Body::OutputReset { kept_bytes, .. } => text.truncate(kept_bytes as usize),
            Body::Logged(_) | Body::StageEntered { .. } | Body::StateChanged(_) => {}
        }
    }
    String::from_utf8(text).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_reset_whose_sender_goes_away_leaves_nothing_half_known() {
    let bench = Bench::new().await;
    let token = bench.run().await.token;
    send(&bench, &token, frame(0, "x".repeat(1_000))).await.unwrap();

    send_and_go(&bench, &token, reset(100, "y".repeat(20))).await;
    let behind = send(&bench, &token, frame(1_000, "z")).await;
    let durable = send(&bench, &token, frame(120, "x".repeat(880))).await.unwrap();

    assert_eq!(behind, Err(Error::Refused(Refusal::OutputGap { expected: 120 })));
    assert_eq!(durable.bytes, 1_000);
    assert_eq!(valid(&bench, token.job).await, ["x".repeat(100), "y".repeat(20), "x".repeat(880)].concat());
    assert_eq!(bench.complete(&token).await, State::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn a_reset_of_unknown_outcome_is_made_once() {
    let bench = Bench::new().await;
    let token = bench.run().await.token;
    send(&bench, &token, frame(0, "one two")).await.unwrap();

    bench.store.fail(appends, Fault::Unknown);
    let sending = tokio::spawn({
        let engine = bench.engine.clone();
        async move { engine.append_frame(&token, reset(4, "three")).await }
    });
    bench.pass(SECOND).await;
    let durable = within(sending).await.unwrap().unwrap();
    send(&bench, &token, reset(4, "three")).await.unwrap();

    assert!(bench.store.has_failed());
    assert_eq!(durable.bytes, 9);
    assert_eq!(valid(&bench, token.job).await, "one three");
    assert_eq!(bench.complete(&token).await, State::Succeeded);
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
async fn a_flush_that_was_given_up_hurries_nothing_later() {
    let bench = Bench::new().await;
    let token = bench.run().await.token;
    send_and_go(&bench, &token, frame(0, "first ")).await;

    let emission = bench.engine.emission(&token).unwrap();
    for (at, byte) in "wörd ".repeat(50).into_bytes().into_iter().enumerate() {
        within(emission.take(frame(6 + at as u64, vec![byte]))).await.unwrap();
        bench.pass(5 * MILLISECOND).await;
    }
    bench.complete(&token).await;

    // It panics where a piece is no text.
    let pieces = pieces(&bench.history(token.job).await, "");
    assert!(pieces.len() < 50, "{} pieces", pieces.len());
    assert_eq!(pieces.concat(), ["first ", &"wörd ".repeat(50)].concat());
}

#[tokio::test(start_paused = true)]
async fn a_flush_waits_for_what_was_sent_before_it_alone() {
    let bench = Bench::new().await;
    let token = bench.run().await.token;
    bench.write(&token, "first").await;
    let emission = bench.engine.emission(&token).unwrap();

    let mut flushing = Box::pin(emission.flush());
    assert!(at_once(&mut flushing).await.is_none());
    bench.settle().await;
    bench.write(&token, "held").await;

    assert_eq!(at_once(flushing).await, Some(Ok(())));
}

/// Completes in a task of its own.
fn completing(
    bench: &Bench,
    token: LeaseToken,
    output_bytes: u64,
) -> tokio::task::JoinHandle<Result<State, Error>> {
    let engine = bench.engine.clone();
    tokio::spawn(
        async move { engine.complete(&token, "{}".into(), Metrics::new(), Some(output_bytes)).await },
    )
}

#[tokio::test(start_paused = true)]
async fn a_completion_waits_for_a_reset_that_makes_its_output_more_or_less() {
    let bench = Bench::new().await;
    for (first, kept, more, announced) in [(100, 90, 60, 150), (200, 100, 20, 120)] {
        let token = bench.run().await.token;
        send(&bench, &token, frame(0, "x".repeat(first))).await.unwrap();
        let completing = completing(&bench, token, announced);
        bench.settle().await;
        assert!(!completing.is_finished());

        send(&bench, &token, reset(kept, "y".repeat(more))).await.unwrap();

        // No time goes by.
        assert_eq!(within(completing).await.unwrap(), Ok(State::Succeeded));
    }
}

#[tokio::test(start_paused = true)]
async fn a_completion_that_waits_is_answered_at_once_where_the_job_is_cancelled() {
    let bench = Bench::new().await;
    let token = bench.run().await.token;
    let completing = completing(&bench, token, 10);
    bench.settle().await;

    within(bench.engine.cancel(token.job, String::new(), None)).await.unwrap();

    assert_eq!(within(completing).await.unwrap(), Err(Error::Refused(Refusal::JobCancelled)));
}

#[tokio::test(start_paused = true)]
async fn a_completion_is_refused_with_how_it_stands_at_the_end() {
    let bench = Bench::new().await;
    let token = bench.run().await.token;
    send(&bench, &token, frame(0, "x")).await.unwrap();
    let completing = completing(&bench, token, 3);
    bench.settle().await;
    bench.pass(9 * SECOND).await;
    send(&bench, &token, frame(1, "x")).await.unwrap();
    assert!(!completing.is_finished());

    bench.pass(SECOND).await;

    let missing = Refusal::OutputMissing { present: 2, announced: 3 };
    assert_eq!(within(completing).await.unwrap(), Err(Error::Refused(missing)));
}

#[tokio::test(start_paused = true)]
async fn a_frame_that_is_refused_has_left_nothing() {
    let bench = Bench::new().await;
    let token = bench.run().await.token;

    let gap = Frame { line_offset: 5, lines: line("late"), ..frame(0, "data") };

    assert_eq!(send(&bench, &token, gap).await, Err(Error::Refused(Refusal::LogGap { expected: 0 })));
    assert_eq!(send(&bench, &token, frame(0, "")).await.unwrap().bytes, 0);
}

#[tokio::test(start_paused = true)]
async fn channels_of_earlier_attempts_count_and_one_too_many_costs_itself_only() {
    let bench = Bench::new().await;
    bench.start().await;
    let first = bench.lease_for(&remote()).await.token;
    let on = |channel: &str| Frame { channel: channel.to_owned(), ..frame(0, "x") };
    for channel in 0..8 {
        send(&bench, &first, on(&format!("a{channel}"))).await.unwrap();
    }
    within(bench.engine.release(&first, String::new(), Duration::ZERO)).await.unwrap();
    let second = bench.lease_for(&remote()).await.token;

    // Its lease is provisional still.
    let ninth = send(&bench, &second, on("ninth")).await;

    assert_eq!(ninth, Err(Error::Refused(Refusal::ChannelLimit)));
    assert_eq!(send(&bench, &second, on("a0")).await.unwrap().bytes, 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_sent_again_after_a_restart_is_looked_for_through_the_whole_history_once() {
    let mut bench = Bench::new().await;
    bench.start().await;
    let token = bench.lease_for(&remote()).await.token;
    let mebibyte = "0123456789abcdef".repeat(1 << 16);
    for n in 0..32 {
        send(&bench, &token, frame(n << 18, mebibyte[..1 << 18].to_owned())).await.unwrap();
    }
    bench.restart().await;
    bench.store.events_read();

    let mut read = Vec::new();
    for offset in [16, 7 << 20, 3 << 20, 16] {
        send(&bench, &token, frame(offset, mebibyte[..1 << 16].to_owned())).await.unwrap();
        read.push(bench.store.events_read());
    }

    assert!(read[0] >= 128, "{read:?}");
    assert!(read[1..].iter().all(|events| *events <= 40), "{read:?}");
}

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
