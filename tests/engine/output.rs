//! Output is joined, in order, and all there before the end, whatever the store does.

use crate::bench::*;
use crate::hostile::*;
use longhaul::engine::Order;
use longhaul::job::*;
use rstest::rstest;
use std::time::Duration;

/// For how long pieces are held to be joined.
const WINDOW: Duration = Duration::from_millis(50);

#[rstest]
#[tokio::test(start_paused = true)]
async fn the_first_piece_goes_at_once_and_the_others_together(
    #[values(Kept::Memory, Kept::Sqlite)] kept: Kept,
) {
    let bench = Bench::on(kept).await;
    let token = bench.run().await.token;

    bench.write(&token, "first").await;
    bench.settle().await;
    assert_eq!(pieces(&bench.history(token.job).await, ""), ["first"]);
    for n in 0..1_000 {
        bench.write(&token, format!("{} ", n % 10)).await;
    }
    bench.pass(WINDOW - Duration::from_millis(1)).await;
    assert_eq!(pieces(&bench.history(token.job).await, ""), ["first"]);
    bench.pass(Duration::from_millis(1)).await;

    assert_eq!(
        pieces(&bench.history(token.job).await, ""),
        ["first".into(), "0 1 2 3 4 5 6 7 8 9 ".repeat(100)]
    );
}

#[tokio::test(start_paused = true)]
async fn what_comes_after_a_silence_goes_at_once_again() {
    let bench = Bench::new().await;
    let token = bench.run().await.token;
    bench.write(&token, "first").await;
    bench.settle().await;
    bench.pass(3 * WINDOW).await;

    bench.write(&token, "second").await;
    bench.settle().await;

    assert_eq!(pieces(&bench.history(token.job).await, ""), ["first", "second"]);
}

#[rstest]
#[case::at_the_beginning("", "é", 1)]
#[case::a_long_one("", "😀", 2)]
#[case::in_the_middle("a", "é", 1)]
#[case::behind_others("a", "b😀c", 3)]
#[tokio::test(start_paused = true)]
async fn a_character_that_comes_in_two_parts_is_not_split(
    #[case] before: &'static str,
    #[case] text: &'static str,
    #[case] split: usize,
) {
    let bench = Bench::new().await;
    let token = bench.run().await.token;
    bench.write(&token, before).await;
    bench.settle().await;

    bench.write(&token, &text.as_bytes()[..split]).await;
    bench.settle().await;
    bench.pass(WINDOW / 2).await;
    bench.write(&token, &text.as_bytes()[split..]).await;
    bench.pass(2 * WINDOW).await;
    bench.complete(&token).await;

    // It panics where a piece is no text.
    assert_eq!(pieces(&bench.history(token.job).await, "").concat(), [before, text].concat());
}

#[tokio::test(start_paused = true)]
async fn bytes_that_never_become_a_character_are_not_held_for_long() {
    let bench = Bench::new().await;
    let token = bench.run().await.token;

    bench.write(&token, &b"\xf0\x9f"[..]).await;
    bench.settle().await;
    bench.pass(WINDOW).await;

    let history = bench.history(token.job).await;
    let Body::OutputAppended { data, .. } = &history.last().unwrap().body else { panic!("{history:?}") };
    assert_eq!(&data[..], b"\xf0\x9f");
}

#[tokio::test(start_paused = true)]
async fn a_completion_waits_until_all_output_is_durable() {
    let bench = Bench::new().await;
    let token = bench.run().await.token;
    let text: String = (0..200_000).map(|n| char::from(b'a' + (n % 26) as u8)).collect();
    for chunk in text.as_bytes().chunks(1_000) {
        bench.write(&token, chunk.to_vec()).await;
    }

    assert_eq!(bench.complete(&token).await, State::Succeeded);

    let history = bench.history(token.job).await;
    assert_eq!(pieces(&history, "").concat(), text);
    assert!(matches!(&history.last().unwrap().body, Body::StateChanged(change) if change.state.is_final()));
}

#[tokio::test(start_paused = true)]
async fn whoever_writes_too_much_waits() {
    let bench = Bench::new().await;
    let token = bench.run().await.token;
    bench.store.block();

    let mut much = Box::pin(bench.engine.append_output(&token, "", vec![b'x'; 1 << 20].into()));
    assert!(at_once(&mut much).await.is_none());
    bench.store.unblock();
    within(much).await.unwrap();
    bench.complete(&token).await;

    let length: usize = pieces(&bench.history(token.job).await, "").iter().map(String::len).sum();
    assert_eq!(length, 1 << 20);
}

#[tokio::test(start_paused = true)]
async fn what_an_attempt_says_in_different_ways_stays_in_order() {
    let bench = Bench::new().await;
    let token = bench.run().await.token;

    bench.write(&token, "one").await;
    bench.write(&token, "two").await;
    within(bench.engine.append_log(&token, 0, line("three"))).await.unwrap();
    within(bench.engine.append_output(&token, "thoughts", "four".into())).await.unwrap();
    within(bench.engine.enter_stage(&token, "five".into())).await.unwrap();
    bench.complete(&token).await;

    let said = bench.history(token.job).await.into_iter().filter_map(|event| match event.body {
        Body::OutputAppended { data, .. } => Some(String::from_utf8(data.to_vec()).unwrap()),
        Body::Logged(line) => Some(line.message),
        Body::StageEntered { name } => Some(name),
        Body::StateChanged(_) | Body::OutputReset { .. } => None,
    });
    assert_eq!(said.collect::<Vec<_>>().concat(), "onetwothreefourfive");
}

#[rstest]
#[tokio::test(start_paused = true)]
async fn output_of_a_commit_that_failed_is_there_once(
    #[values(Fault::Unavailable, Fault::Unknown)] fault: Fault,
    #[values(Kept::Memory, Kept::Sqlite)] kept: Kept,
) {
    let bench = Bench::on(kept).await;
    let leased = bench.run().await;
    let token = leased.token;
    let mut watch = bench.watch(token.job, None).await;

    bench.store.fail(applies, fault);
    bench.write(&token, "once").await;
    bench.pass(SECOND).await;
    bench.write(&token, " and again").await;
    bench.complete(&token).await;

    assert!(bench.store.has_failed());
    assert_eq!(pieces(&bench.history(token.job).await, "").concat(), "once and again");
    let mut seen = Vec::new();
    while let Some(message) = within(watch.next()).await {
        if let longhaul::engine::Message::Shared(event) = message.unwrap() {
            seen.push(event.sequence);
        }
    }
    assert!(seen.windows(2).all(|pair| pair[1] == pair[0] + 1), "{seen:?}");
    assert_eq!(*leased.orders.borrow(), Order::Lost);
}
