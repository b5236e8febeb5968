//! Output: joined before it is numbered, whole, in order, and once.

use crate::hostile::Fault;
use crate::lab::*;
use longhaul::job::*;
use longhaul::store::Operation;

fn is_output(operation: &Operation) -> bool {
    matches!(operation, Operation::Apply(_, command) if matches!(**command, Command::AppendOutput { .. }))
}

/// The pieces of a channel's output, as they were numbered.
fn pieces(history: &[Event], wanted: &str) -> Vec<String> {
    let piece = |event: &Event| match &event.body {
        Body::OutputAppended { channel, data, .. } if channel == wanted => {
            Some(String::from_utf8(data.to_vec()).expect("no character is split"))
        }
        _ => None,
    };
    history.iter().filter_map(piece).collect()
}

#[tokio::test]
async fn the_first_piece_is_not_late_and_what_follows_closely_is_one_event() {
    let lab = Lab::new().await;
    let leased = lab.start_and_run(plain()).await;
    let mut watch = lab.watch(leased.token.job, 2).await;

    within(lab.engine.append_output(&leased.token, "", "first".into())).await.unwrap();
    // Nothing else comes, and still it is told.
    while within(watch.next()).await.unwrap().map(|message| kept(&message)).unwrap().is_none() {}
    for word in ["a ", "b ", "c ", "d "] {
        within(lab.engine.append_output(&leased.token, "", word.into())).await.unwrap();
    }
    within(lab.engine.complete(&leased.token, "{}".into())).await.unwrap();

    let pieces = pieces(&lab.history(leased.token.job).await, "");
    assert_eq!(pieces.concat(), "firsta b c d ");
    assert_eq!(pieces[0], "first");
    assert!(pieces.len() <= 3, "{pieces:?}");
}

#[tokio::test]
async fn a_character_that_comes_in_parts_is_put_together() {
    let lab = Lab::new().await;
    let leased = lab.start_and_run(plain()).await;
    let text = "naïve 😀 text";

    for byte in text.as_bytes() {
        within(lab.engine.append_output(&leased.token, "", vec![*byte].into())).await.unwrap();
    }
    within(lab.engine.complete(&leased.token, "{}".into())).await.unwrap();

    assert_eq!(pieces(&lab.history(leased.token.job).await, "").concat(), text);
}

#[tokio::test]
async fn a_completion_waits_for_the_output_and_comes_after_it() {
    let lab = Lab::new().await;
    let leased = lab.start_and_run(plain()).await;

    within(lab.engine.append_output(&leased.token, "", "main".into())).await.unwrap();
    within(lab.engine.append_output(&leased.token, "reasoning", "aside".into())).await.unwrap();
    within(lab.engine.complete(&leased.token, "{}".into())).await.unwrap();

    let history = lab.history(leased.token.job).await;
    assert_eq!(pieces(&history, ""), ["main"]);
    assert_eq!(pieces(&history, "reasoning"), ["aside"]);
    assert!(matches!(history.last().unwrap().body, Body::StateChanged(_)));
}

#[tokio::test]
async fn output_of_a_commit_that_nobody_heard_of_is_there_once() {
    let lab = Lab::new().await;
    let leased = lab.start_and_run(plain()).await;
    lab.store.fail(Fault::Unknown, is_output);
    lab.store.fail(Fault::Unavailable, is_output);

    for word in ["once ", "and ", "only ", "once"] {
        within(lab.engine.append_output(&leased.token, "", word.into())).await.unwrap();
    }
    within(lab.engine.complete(&leased.token, "{}".into())).await.unwrap();

    assert_eq!(pieces(&lab.history(leased.token.job).await, "").concat(), "once and only once");
}

#[tokio::test]
async fn whoever_writes_faster_than_the_disk_waits() {
    let lab = Lab::new().await;
    let leased = lab.start_and_run(plain()).await;
    lab.store.block();

    let flood = tokio::spawn({
        let (engine, token) = (lab.engine.clone(), leased.token);
        async move {
            for _ in 0..64 {
                engine.append_output(&token, "", vec![b'x'; 64 << 10].into()).await.unwrap();
            }
        }
    });
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    assert!(!flood.is_finished(), "4 MiB were taken in while nothing is durable");
    lab.store.unblock();

    within(flood).await.unwrap();
    within(lab.engine.complete(&leased.token, "{}".into())).await.unwrap();
    assert_eq!(pieces(&lab.history(leased.token.job).await, "").concat().len(), 4 << 20);
}
