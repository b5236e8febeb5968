use super::*;
use crate::engine::Order;
use crate::worker::fake::{Fake, Said};
use crate::worker::{Pool, Registry};
use serde_json::Value;
use std::time::Duration;

const TEXT: &str = "Apples are red. Apples and pears are fruit. Pears are green. Nobody came today.";

/// What a run says, and how it ends.
async fn play(input: Value) -> (Vec<Said>, Said) {
    let source = Fake::default();
    let _pool = Pool::start(source.clone(), Registry::default().with(KIND, Summarize), 1);
    source.offer(KIND, &input.to_string(), 1);
    let end = source.end().await;
    (source.said(), end)
}

fn output(said: &[Said]) -> String {
    let pieces = said.iter().filter_map(|said| match said {
        Said::Output(_, text) => Some(text.as_str()),
        _ => None,
    });
    pieces.collect()
}

#[tokio::test]
async fn the_summary_is_the_output_and_the_result() {
    let (said, end) = play(json!({"text": TEXT, "sentences": 2})).await;

    let Said::Completed(result) = end else { panic!("{end:?}") };
    let result: Value = serde_json::from_str(&result).unwrap();
    let sentences = result["sentences"].as_array().unwrap();
    assert_eq!(result["summary"], output(&said));
    assert_eq!((sentences.len(), &result["total_sentences"]), (2, &json!(4)));
    assert_eq!(result["method"], "lexrank");
    assert!(sentences.iter().any(|sentence| sentence["text"] == "Apples and pears are fruit."));
    assert!(sentences.iter().all(|sentence| TEXT.contains(sentence["text"].as_str().unwrap())));
    assert!(sentences.iter().all(|sentence| sentence["score"].as_f64().unwrap() > 0.0));
    assert!(sentences[0]["index"].as_u64() < sentences[1]["index"].as_u64());
}

#[tokio::test]
async fn sentences_are_parted_as_their_writing_does() {
    for (text, summary) in [
        ("One is here. “Two is there.” Three is here.", "One is here. “Two is there.” Three is here."),
        ("火车连接城市。他说：“去北京。”下雨了。", "火车连接城市。他说：“去北京。”下雨了。"),
    ] {
        let (said, _) = play(json!({"text": text})).await;

        assert_eq!(output(&said), summary);
    }
}

#[tokio::test]
async fn progress_counts_sentences_and_never_goes_back() {
    let text = "This is one of many sentences. ".repeat(500);

    let (said, _) = play(json!({"text": text})).await;

    let reports: Vec<&Progress> = said
        .iter()
        .filter_map(|said| match said {
            Said::Progress(progress) => Some(progress),
            _ => None,
        })
        .collect();
    assert!(reports.len() > 10, "{}", reports.len());
    assert!(reports.is_sorted_by_key(|progress| progress.fraction.unwrap()));
    assert!(reports.iter().all(|progress| progress.total == Some(500) && progress.unit == "sentences"));
    assert_eq!(reports.last().unwrap().completed, 500);
    let stages: Vec<_> = said.iter().filter(|said| matches!(said, Said::Stage(_))).collect();
    let expected = ["Reading", "Scoring", "Writing"].map(|name| Said::Stage(name.to_owned()));
    assert_eq!(stages, expected.iter().collect::<Vec<_>>());
}

#[tokio::test]
async fn a_short_text_is_its_own_summary() {
    let (said, end) = play(json!({"text": "Only this.", "sentences": 5})).await;

    assert_eq!(output(&said), "Only this.");
    assert!(matches!(end, Said::Completed(_)));
}

#[tokio::test]
async fn what_cannot_be_summarized_fails_for_good_and_says_why() {
    for (input, part) in [
        (json!({"text": " \n "}), "text is empty"),
        (json!({"text": "... !"}), "text has no word"),
        (json!({}), "missing field `text`"),
        (json!({"text": 1}), "text: invalid type: integer `1`"),
        (json!({"text": "A.", "sentences": -1}), "sentences is -1; it must be from 1 to 100"),
        (json!({"text": "A.", "sentences": 0}), "sentences is 0; it must be from 1 to 100"),
        (json!({"text": "A.", "sentences": 101}), "sentences is 101"),
        (json!({"text": "A.", "length": 3}), "unknown field `length`"),
    ] {
        let (_, end) = play(input).await;

        let Said::Failed(failure) = end else { panic!("{end:?}") };
        assert!(failure.permanent && failure.message.contains(part), "{}", failure.message);
        assert_eq!(failure.reason, "INVALID_INPUT");
    }
}

#[tokio::test]
async fn it_stops_when_it_is_told_to() {
    let source = Fake::default();
    let _pool = Pool::start(source.clone(), Registry::default().with(KIND, Summarize), 1);
    let text = "Every sentence is another one, number by number. ".repeat(20_000);
    let orders = source.offer(KIND, &json!({"text": text}).to_string(), 1);
    while !source.said().iter().any(|said| matches!(said, Said::Progress(_))) {
        tokio::task::yield_now().await;
    }

    orders.send(Order::Cancel { grace: Duration::from_secs(10) }).unwrap();
    let end = source.end().await;

    assert_eq!(end, Said::Stopped);
}
