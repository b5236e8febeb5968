//! Jobs of many questions.

use super::*;

/// What is said of a batch of which so much is finished.
async fn said_after(
    checkpoint: &str,
    output_offset: u64,
    input: &str,
    answers: Vec<Vec<String>>,
) -> Vec<Said> {
    let stub = Stub::answering(answers).await;
    let (source, gate) = (Fake::default(), Gate::default());
    let chat = Chat::new(Arc::new(provider(&stub.url)), gate.clone()).unwrap();
    let _orders = source.offer_from(KIND, input, 2, checkpoint, output_offset);
    let _pool = Pool::start_behind(gate, source.clone(), Registry::default().with(KIND, chat), 1);
    source.end().await;
    source.said()
}

fn checkpoints(said: &[Said]) -> Vec<(Value, u64)> {
    let checkpoint = |said: &Said| match said {
        Said::Checkpoint(data, kept) => Some((serde_json::from_str(data).unwrap(), *kept)),
        _ => None,
    };
    said.iter().filter_map(checkpoint).collect()
}

#[tokio::test]
async fn behind_each_line_is_a_checkpoint_with_all_that_is_finished() {
    let input = r#"{"items": ["a", "b"]}"#;

    let said = said_after("", 0, input, vec![streamed(ANSWER), streamed(ANSWER)]).await;

    let output = output(&said, "");
    let ends: Vec<u64> = output.match_indices('\n').map(|(at, _)| at as u64 + 1).collect();
    let found = checkpoints(&said);
    assert_eq!(found.iter().map(|(_, kept)| *kept).collect::<Vec<_>>(), ends);
    assert_eq!((&found[0].0["finished"], &found[1].0["finished"]), (&json!([1]), &json!([3])));
    assert_eq!(result(&said)["usage"]["output_tokens"], 1000);
    assert_eq!(result(&said)["cost"], 0.004);
}

#[tokio::test]
async fn what_is_finished_is_not_asked_again_and_counts() {
    let checkpoint = r#"{"finished":[5],"answered":1,"failed":1,"usage":{"input_tokens":1,"cached_tokens":2,"output_tokens":3},"cost":0.5}"#;

    let said = said_after(checkpoint, 70, r#"{"items": ["a", "b", "c"]}"#, vec![streamed(ANSWER)]).await;

    let output = output(&said, "");
    assert_eq!(serde_json::from_str::<Value>(&output).unwrap()["index"], 1);
    assert_eq!(checkpoints(&said)[0].1, 70 + output.len() as u64);
    let result = result(&said);
    assert_eq!((&result["answered"], &result["failed"]), (&2.into(), &1.into()));
    assert_eq!((&result["usage"]["output_tokens"], &result["cost"]), (&503.into(), &0.502.into()));
    let begins = |said: &Said| matches!(said, Said::Progress(progress) if progress.completed == 2);
    assert!(said.iter().any(begins), "the bar begins where it was: {said:?}");
}

#[tokio::test]
async fn a_checkpoint_that_is_none_of_a_batch_ends_the_job_before_anything_is_paid() {
    let said = said_after("cursor 7", 0, r#"{"items": ["a"]}"#, Vec::new()).await;

    let failure = failure(&said);
    assert_eq!((failure.reason.as_ref(), failure.permanent), ("UNKNOWN_CHECKPOINT", true));
}

#[tokio::test]
async fn what_was_asked_in_vain_is_known_to_the_next_attempt_and_asked_last() {
    let oh = || refused("500 Internal Server Error", "", "oh");
    let said = said_after("", 0, r#"{"items": ["a", "b", "c", "d"]}"#, vec![oh(), oh(), oh(), oh()]).await;
    let (left, kept) = checkpoints(&said).remove(0);

    let answers = vec![streamed(ANSWER), oh(), oh(), oh(), oh()];
    let next = said_after(&left.to_string(), kept, r#"{"items": ["a", "b", "c", "d", "e"]}"#, answers).await;

    assert_eq!(failure(&said).reason, "PROVIDER_ERROR");
    assert_eq!(left["tried"], json!({"0": [1, 0], "1": [1, 0], "2": [1, 0], "3": [1, 0]}));
    assert!(output(&next, "").starts_with(r#"{"index":4,"#), "{next:?}");
}

#[tokio::test(start_paused = true)]
async fn a_request_waits_for_a_short_quiet_and_not_for_a_long_one() {
    let gate = Gate::default();
    let caller = Caller::new(Arc::new(provider("http://127.0.0.1:1")), gate.clone()).unwrap();
    let start = tokio::time::Instant::now();

    gate.close(Duration::from_secs(5));
    assert!(caller.place().await.is_ok());
    gate.close(Duration::from_secs(60));
    let refused = caller.place().await;

    assert_eq!(start.elapsed(), Duration::from_secs(5));
    assert!(matches!(refused, Err(Trouble::Busy(_, Some(left))) if left == Duration::from_secs(60)));
}

#[tokio::test(start_paused = true)]
async fn refusals_of_what_was_asked_at_once_are_one() {
    let caller = Caller::new(Arc::new(provider("http://127.0.0.1:1")), Gate::default()).unwrap();

    let counts = [(); 8].map(|()| caller.leave_alone(Some(Duration::from_secs(1)), 0).1);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let later = caller.leave_alone(None, u64::MAX);

    assert_eq!((counts, later), ([1; 8], (Duration::from_secs(2), 2)));
}

#[rstest::rstest]
#[case(r#"{"items": []}"#, "there are 0 items")]
#[case(r#"{"items": {}}"#, "items: ")]
#[case(r#"{"items": ["a", 7]}"#, "items[1]: it must be a prompt, or an object")]
#[case(r#"{"items": ["a", " "]}"#, "items[1]: prompt is empty")]
#[case(r#"{"items": ["a"], "prompt": "b"}"#, "prompt stands beside items")]
#[case(r#"{"items": ["a"], "temperature": 3}"#, "temperature is 3")]
#[case(r#"{"items": ["a"], "url": "http://evil"}"#, "url")]
#[case(r#"{"items": ["a", {"prompt": "b", "top_p": "x"}]}"#, "items[1]: top_p: invalid type")]
#[case(r#"{"items": ["a", {"prompt": "b", "max_tokens": 101}]}"#, "items[1]: max_tokens is 101")]
#[case(r#"{"items": [{"prompt": "b", "items": ["a"]}]}"#, "items[0]: items: unknown field")]
#[case(r#"{"items": [{"prompt": "b", "id": 7}]}"#, "items[0]: id must be a text")]
#[tokio::test]
async fn what_is_wrong_with_an_item_is_told_before_any_is_asked(#[case] input: &str, #[case] expected: &str) {
    let failure = failure(&said_by(provider("http://127.0.0.1:1"), input).await);

    assert_eq!((failure.reason.as_ref(), failure.permanent), ("INVALID_INPUT", true));
    assert!(failure.message.contains(expected), "{}", failure.message);
}

#[tokio::test]
async fn an_item_replaces_what_is_shared_but_for_the_messages_before_it() {
    let input = r#"{"items": [{"prompt": "b", "max_completion_tokens": 5, "temperature": 1}],
        "messages": [{"role": "system", "content": "a"}], "max_tokens": 9, "temperature": 0, "seed": 3}"#;
    let mut stub = Stub::answering(vec![streamed(ANSWER)]).await;

    said_by(provider(&stub.url), input).await;

    let request = stub.asked.recv().await.unwrap();
    let body: Value = serde_json::from_str(request.split_once("\r\n\r\n").unwrap().1).unwrap();
    let message = |role: &str, content: &str| json!({"role": role, "content": content});
    assert_eq!(body["messages"], json!([message("system", "a"), message("user", "b")]));
    assert_eq!(
        (&body["max_tokens"], &body["temperature"], &body["seed"]),
        (&5.into(), &1.0.into(), &3.into())
    );
}
