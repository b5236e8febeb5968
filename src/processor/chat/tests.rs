//! The handler against a provider that answers by a script.

mod batches;

use super::*;
use crate::job::Progress;
use crate::worker::fake::{Fake, Said};
use crate::worker::{Pool, Registry};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

pub(super) const SECRET: &str = "sk-very-secret";

/// A provider that gives each of these answers once, byte for byte, and remembers what it was asked.
struct Stub {
    url: String,
    asked: tokio::sync::mpsc::UnboundedReceiver<String>,
}

impl Stub {
    async fn answering(answers: Vec<Vec<String>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let (sender, asked) = tokio::sync::mpsc::unbounded_channel();
        tokio::spawn(async move {
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                sender.send(request(&mut stream).await).unwrap();
                for part in answer {
                    stream.write_all(part.as_bytes()).await.unwrap();
                    stream.flush().await.unwrap();
                    tokio::task::yield_now().await;
                }
            }
        });
        Self { url, asked }
    }
}

/// Reads one request, whole.
pub(super) async fn request(stream: &mut TcpStream) -> String {
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
            if body.len() >= length.parse::<usize>().unwrap() {
                return text;
            }
        }
        let count = stream.read(&mut buffer).await.unwrap();
        assert!(count > 0, "the request broke off: {text}");
        bytes.extend_from_slice(&buffer[..count]);
    }
}

pub(super) fn provider(url: &str) -> Provider {
    Provider {
        kind: KIND.into(),
        url: url.to_owned(),
        key: Key::new(SECRET),
        models: vec!["small".into(), "large".into()],
        defaults: Map::new(),
        extra: Map::new(),
        max_tokens: None,
        max_tokens_limit: Some(100),
        max_tokens_field: "max_tokens".into(),
        max_concurrent: 1,
        batch_concurrent: 1,
        connect_timeout: Duration::from_secs(10),
        first_token_timeout: Duration::from_secs(10),
        idle_timeout: Duration::from_secs(10),
        on_break: OnBreak::Retry,
        prices: BTreeMap::from([("small".into(), Prices { input: 1.0, cached_input: None, output: 2.0 })]),
    }
}

/// What is said of a job with this input.
async fn said_by(provider: Provider, input: &str) -> Vec<Said> {
    let (source, gate) = (Fake::default(), Gate::default());
    let registry = Registry::default().with(KIND, Chat::new(Arc::new(provider), gate.clone()).unwrap());
    let _orders = source.offer(KIND, input, 1);
    let _pool = Pool::start_behind(gate, source.clone(), registry, 1);
    source.end().await;
    source.said()
}

fn streamed(events: &str) -> Vec<String> {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
    vec![head.to_owned(), events.to_owned()]
}

fn refused(status: &str, headers: &str, body: &str) -> Vec<String> {
    vec![format!(
        "HTTP/1.1 {status}\r\n{headers}connection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )]
}

/// What is said where a provider answers so.
async fn said_of(answer: Vec<String>) -> Vec<Said> {
    let stub = Stub::answering(vec![answer]).await;
    said_by(provider(&stub.url), r#"{"prompt": "Hi", "max_tokens": 10}"#).await
}

pub(super) fn output(said: &[Said], channel: &str) -> String {
    let text = |said: &Said| match said {
        Said::Output(into, text) if into == channel => Some(text.clone()),
        _ => None,
    };
    said.iter().filter_map(text).collect()
}

fn result(said: &[Said]) -> Value {
    match said.last() {
        Some(Said::Completed(result)) => serde_json::from_str(result).unwrap(),
        other => panic!("it ended with {other:?}"),
    }
}

fn failure(said: &[Said]) -> Failure {
    match said.last() {
        Some(Said::Failed(failure)) => failure.clone(),
        other => panic!("it ended with {other:?}"),
    }
}

const ANSWER: &str = concat!(
    ": hello\n\n",
    "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":null}}]}\n\n",
    "data: {\"model\":\"small\",\"choices\":[{\"delta\":{\"reasoning_content\":\"hm\"}}]}\r\n\r\n",
    "data: {\"choices\":[{\"delta\":{\"content\":\"Grüß\"}}]}\n\n",
    "data: {\"choices\":[{\"delta\":{\"content\":\" dich\"},\"finish_reason\":\"stop\"}]}\n\n",
    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":1000,\"completion_tokens\":500,\"prompt_tokens_details\":null}}\n\n",
    "data: [DONE]\n\n",
);

#[test]
fn a_key_is_one_that_can_be_taken_out_of_what_is_said() {
    for text in ["", " ", "two words", "a\"b", "a\\b", "schlüssel"] {
        assert!(Key::new(text).is_none(), "{text}");
    }
    let key = Key::new(" sk-1\n").unwrap();

    assert_eq!(key.scrubbed(r#"{"wrong": "sk-1"}"#), r#"{"wrong": "[key]"}"#);
}

#[tokio::test]
async fn tokens_become_output_and_usage_becomes_measurements() {
    let said = said_of(streamed(ANSWER)).await;

    assert_eq!((output(&said, "").as_str(), output(&said, "reasoning").as_str()), ("Grüß dich", "hm"));
    let result = result(&said);
    assert_eq!(result["text"], "Grüß dich");
    assert_eq!((&result["finish_reason"], &result["truncated"]), (&"stop".into(), &false.into()));
    assert_eq!(result["usage"]["output_tokens"], 500);
    assert_eq!(result["cost"], 0.002);
    let stages: Vec<_> = said
        .iter()
        .filter_map(|said| if let Said::Stage(name) = said { Some(name.as_str()) } else { None })
        .collect();
    assert_eq!(stages, ["Waiting for the provider", "Writing"]);
    let told =
        |said: &Said| matches!(said, Said::Progress(Progress { estimated: true, fraction: Some(0.1), .. }));
    assert!(said.iter().any(told), "{said:?}");
}

#[tokio::test]
async fn a_request_has_what_was_asked_and_what_the_server_sets() {
    let mut stub = Stub::answering(vec![streamed(ANSWER)]).await;
    let mut provider = provider(&stub.url);
    provider.defaults = Map::from_iter([("temperature".into(), 0.5.into()), ("top_p".into(), 0.5.into())]);
    provider.extra = Map::from_iter([("return_progress".into(), true.into())]);

    said_by(
        provider,
        r#"{"messages": [{"role": "user", "content": "Hi"}], "temperature": 0.1, "model": "large"}"#,
    )
    .await;

    let request = stub.asked.recv().await.unwrap();
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("POST /v1/chat/completions HTTP/1.1"), "{head}");
    assert!(head.contains(&format!("authorization: Bearer {SECRET}")), "{head}");
    let body: Value = serde_json::from_str(body).unwrap();
    assert_eq!(
        (&body["temperature"], &body["top_p"], &body["model"]),
        (&0.1.into(), &0.5.into(), &"large".into())
    );
    assert_eq!((&body["return_progress"], &body["max_tokens"]), (&true.into(), &100.into()));
    assert_eq!(body["stream_options"]["include_usage"], true);
}

#[tokio::test]
async fn an_answer_in_one_piece_is_one_too() {
    let body = r#"{"model":"small","choices":[{"message":{"content":"Yes","reasoning":"why"},"finish_reason":"length"}],"usage":null}"#;

    let said = said_of(refused("200 OK", "content-type: application/json\r\n", body)).await;

    assert_eq!((output(&said, "").as_str(), output(&said, "reasoning").as_str()), ("Yes", "why"));
    assert_eq!(result(&said)["truncated"], true);
}

#[tokio::test]
async fn what_the_server_tells_of_reading_is_shown() {
    let events = format!(
        "data: {{\"choices\":[],\"prompt_progress\":{{\"total\":10,\"processed\":5,\"cache\":0}}}}\n\n{ANSWER}"
    );

    let said = said_of(streamed(&events)).await;

    let reading = |said: &Said| matches!(said, Said::Progress(progress) if progress.stage == "Reading the prompt" && progress.fraction == Some(0.25) && progress.total == Some(10));
    assert!(said.iter().any(reading), "{said:?}");
}

#[tokio::test]
async fn an_answer_that_just_ends_is_no_success() {
    let (whole, _) = ANSWER.split_once("data: {\"choices\":[{\"delta\":{\"content\":\" dich").unwrap();

    for (on_break, permanent) in [(OnBreak::Retry, false), (OnBreak::Fail, true)] {
        let stub = Stub::answering(vec![streamed(whole)]).await;
        let said = said_by(Provider { on_break, ..provider(&stub.url) }, r#"{"prompt": "Hi"}"#).await;

        let failure = failure(&said);
        assert_eq!((failure.reason.as_ref(), failure.permanent), ("ANSWER_BROKEN", permanent));
    }
}

#[rstest::rstest]
#[case::bad_request(
    "400 Bad Request",
    r#"{"error":{"message":"too long","code":400}}"#,
    "PROVIDER_REFUSED",
    true
)]
#[case::bad_key(
    "401 Unauthorized",
    r#"{"error":{"message":"wrong key sk-very-secret"}}"#,
    "PROVIDER_REFUSED",
    true
)]
#[case::no_model("404 Not Found", "sk-very-secret", "PROVIDER_REFUSED", true)]
#[case::redirect("302 Found", "", "PROVIDER_REFUSED", true)]
#[case::quota(
    "429 Too Many Requests",
    r#"{"error":{"message":"pay","code":"insufficient_quota"}}"#,
    "PROVIDER_QUOTA",
    true
)]
#[case::accident("500 Internal Server Error", "oh", "PROVIDER_ERROR", false)]
#[case::gateway("502 Bad Gateway", "<html>", "PROVIDER_ERROR", false)]
#[tokio::test]
async fn a_status_decides_whether_another_attempt_helps(
    #[case] status: &str,
    #[case] body: &str,
    #[case] reason: &str,
    #[case] permanent: bool,
) {
    let said = said_of(refused(status, "location: http://127.0.0.1:1/\r\n", body)).await;

    let failure = failure(&said);
    assert_eq!((failure.reason.as_ref(), failure.permanent), (reason, permanent), "{failure:?}");
    let details: Value = serde_json::from_slice(failure.details.as_ref().unwrap()).unwrap();
    assert_eq!(
        (&details["provider"], details["status"].to_string().as_str()),
        (&"chat".into(), &status[..3])
    );
    assert!(!format!("{said:?}{details}").contains(SECRET), "{said:?}");
}

#[rstest::rstest]
#[case::integer(r#"{"error":{"message":"slow","code":429}}"#, None)]
#[case::text(r#"{"error":{"message":"slow","code":"rate_limit_exceeded"}}"#, None)]
#[case::digits(r#"{"error":{"message":"slow","code":"503"}}"#, None)]
#[case::refused(r#"{"error":{"message":"no","code":400}}"#, Some(true))]
#[case::unknown(r#"{"error":"oh"}"#, Some(false))]
#[tokio::test]
async fn an_error_inside_an_answer_is_one_too(#[case] error: &str, #[case] permanent: Option<bool>) {
    let said = said_of(streamed(&format!("data: {error}\n\n"))).await;

    match (said.last().unwrap(), permanent) {
        (Said::Released(..), None) => {}
        (Said::Failed(failure), Some(permanent)) => assert_eq!(failure.permanent, permanent, "{failure:?}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_is_busy_is_left_alone_for_as_long_as_it_asks() {
    let busy = refused(
        "429 Too Many Requests",
        "retry-after: 7\r\n",
        r#"{"error":{"message":"slow sk-very-secret"}}"#,
    );
    let stub = Stub::answering(vec![busy]).await;
    let (source, gate) = (Fake::default(), Gate::default());
    let registry =
        Registry::default().with(KIND, Chat::new(Arc::new(provider(&stub.url)), gate.clone()).unwrap());
    let _orders = source.offer(KIND, r#"{"prompt": "Hi"}"#, 1);
    let _pool = Pool::start_behind(gate.clone(), source.clone(), registry, 2);

    let end = source.end().await;
    let start = tokio::time::Instant::now();
    gate.opened().await;

    let Said::Released(why, delay) = end else { panic!("{end:?}") };
    assert_eq!(
        (delay, why.as_str()),
        (Duration::from_secs(7), "again in 7.000 s; chat: status 429: slow [key]")
    );
    assert_eq!(start.elapsed().as_secs(), 7, "measured from the refusal on");
}

#[rstest::rstest]
#[case::before_the_answer("")]
#[case::amid_the_answer(
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: {\"choices\":[{\"delta\":{\"content\":\"One\"}}]}\n\n"
)]
#[tokio::test]
async fn a_job_that_is_cancelled_lets_go_of_its_connection(#[case] beginning: &str) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let source = Fake::default();
    let registry =
        Registry::default().with(KIND, Chat::new(Arc::new(provider(&url)), Gate::default()).unwrap());
    let orders = source.offer(KIND, r#"{"prompt": "Hi"}"#, 1);
    let _pool = Pool::start(source.clone(), registry, 1);
    let (mut stream, _) = listener.accept().await.unwrap();
    request(&mut stream).await;
    stream.write_all(beginning.as_bytes()).await.unwrap();
    while !beginning.is_empty() && output(&source.said(), "").is_empty() {
        tokio::task::yield_now().await;
    }

    orders.send(crate::engine::Order::Cancel { grace: Duration::from_secs(10) }).unwrap();

    assert_eq!(stream.read(&mut [0; 16]).await.unwrap(), 0, "the connection is closed");
    assert_eq!(source.end().await, Said::Stopped);
}

#[tokio::test]
async fn a_connection_outlives_an_answer_whose_end_is_late() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let source = Fake::default();
    let registry =
        Registry::default().with(KIND, Chat::new(Arc::new(provider(&url)), Gate::default()).unwrap());
    let _first = source.offer(KIND, r#"{"prompt": "Hi"}"#, 1);
    let _pool = Pool::start(source.clone(), registry, 1);
    let (mut stream, _) = listener.accept().await.unwrap();
    request(&mut stream).await;
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    let answer = format!("{head}{:x}\r\n{ANSWER}\r\n", ANSWER.len());
    stream.write_all(answer.as_bytes()).await.unwrap();
    source.end().await;

    stream.write_all(b"0\r\n\r\n").await.unwrap();
    let _second = source.offer(KIND, r#"{"prompt": "And you?"}"#, 1);
    // It may be asked over a new one, where the end has not come by then.
    let asked_elsewhere = async {
        let (mut other, _) = listener.accept().await.unwrap();
        request(&mut other).await
    };
    tokio::select! {
        _ = stream.readable() => {}
        _ = asked_elsewhere => {}
    }

    let read = stream.try_read(&mut [0; 16]);
    assert!(!matches!(read, Ok(0)), "the first connection is closed");
}

#[rstest::rstest]
#[case(r#"{}"#, "prompt or messages")]
#[case(r#"{"prompt": " "}"#, "prompt is empty")]
#[case(r#"{"prompt": "a", "messages": []}"#, "prompt or messages")]
#[case(r#"{"messages": []}"#, "0 messages")]
#[case(r#"{"messages": [{"role": "boss", "content": "a"}]}"#, "messages[0].role")]
#[case(r#"{"prompt": "a", "temperature": 3}"#, "temperature is 3; it must be from 0 to 2")]
#[case(r#"{"prompt": "a", "max_tokens": 101}"#, "max_tokens is 101; the limit of chat is 100")]
#[case(r#"{"prompt": "a", "max_tokens": 0}"#, "max_tokens is 0")]
#[case(r#"{"prompt": "a", "max_tokens": 1, "max_completion_tokens": 1}"#, "mean the same")]
#[case(r#"{"prompt": "a", "model": "other"}"#, "it must be one of small, large")]
#[case(r#"{"prompt": "a", "stop": ["a", "b", "c", "d", "e"]}"#, "at most 4")]
#[case(r#"{"prompt": "a", "response_format": {"type": "xml"}}"#, "response_format.type")]
#[case(r#"{"prompt": "a", "base_url": "http://evil"}"#, "base_url")]
#[tokio::test]
async fn what_is_wrong_with_an_input_is_told_by_name(#[case] input: &str, #[case] expected: &str) {
    let failure = failure(&said_by(provider("http://127.0.0.1:1"), input).await);

    assert_eq!((failure.reason.as_ref(), failure.permanent), ("INVALID_INPUT", true));
    assert!(failure.message.contains(expected), "{}", failure.message);
}
