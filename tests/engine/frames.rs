//! Output that says where it belongs: what becomes of frames whose sender goes away, of resets, and of completions that wait
//! for either.
//!
//! What broke: a reset was committed by the call that brought it. Where that was dropped before the answer, bytes that were
//! void counted as durable; and nobody who waited for output heard of one.

use crate::bench::*;
use crate::hostile::*;
use bytes::Bytes;
use longhaul::engine::{Durable, Error, Frame};
use longhaul::job::*;
use std::time::Duration;

const MILLISECOND: Duration = Duration::from_millis(1);

pub fn frame(offset: u64, data: impl Into<Bytes>) -> Frame {
    Frame { offset, data: data.into(), ..Default::default() }
}

pub fn reset(to: u64, data: impl Into<Bytes>) -> Frame {
    Frame { reset_to: Some(to), ..frame(to, data) }
}

pub async fn send(bench: &Bench, token: &LeaseToken, frame: Frame) -> Result<Durable, Error> {
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
pub async fn valid(bench: &Bench, job: JobId) -> String {
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
