//! What the handler makes of the same streams: of the recorded ones what is written here, and of twisted ones nothing worse
//! than a failure.

use super::plain;
use super::trials::{recorded, seeds};
use super::twist::{split, twisted};
use crate::job::Failure;
use crate::processor::chat::answer::Piece;
use crate::processor::chat::tests::{SECRET, output, provider, request};
use crate::processor::chat::{Chat, KIND, Provider};
use crate::worker::fake::{Fake, Said};
use crate::worker::{Context, Gate, Handler, Pool, Registry};
use async_trait::async_trait;
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::Value;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// How many seeds are played unless somebody says otherwise.
const SEEDS: u64 = 100;
/// Far more than any answer takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// A handler with its provider, for many jobs.
struct Desk {
    provider: Arc<Provider>,
    chat: Shared,
    answers: mpsc::UnboundedSender<Vec<Bytes>>,
}

#[derive(Clone)]
struct Shared(Arc<Chat>);

impl Shared {
    fn asking(provider: &Arc<Provider>) -> Self {
        Self(Arc::new(Chat::new(Arc::clone(provider), Gate::default()).unwrap()))
    }
}

#[async_trait]
impl Handler for Shared {
    async fn run(&self, context: &Context) -> Result<Bytes, Failure> {
        self.0.run(context).await
    }
}

impl Desk {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let (answers, mut given) = mpsc::unbounded_channel::<Vec<Bytes>>();
        tokio::spawn(async move {
            while let Some(answer) = given.recv().await {
                let (mut stream, _) = listener.accept().await.unwrap();
                request(&mut stream).await;
                for part in answer {
                    // Who has heard enough hangs up.
                    if stream.write_all(&part).await.is_err() {
                        break;
                    }
                    tokio::task::yield_now().await;
                }
            }
        });
        let provider = Arc::new(provider(&url));
        Self { chat: Shared::asking(&provider), provider, answers }
    }

    /// What is said of a job to which the provider answers so.
    async fn said(&mut self, kind: &str, chunks: &[&[u8]]) -> Vec<Said> {
        let head = format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\nconnection: close\r\n\r\n");
        let parts = chunks.iter().map(|chunk| Bytes::copy_from_slice(chunk));
        self.answers.send(std::iter::once(head.into()).chain(parts).collect()).unwrap();
        let source = Fake::default();
        let pool = Pool::start(source.clone(), Registry::default().with(KIND, self.chat.clone()), 1);
        let _orders = source.offer(KIND, r#"{"prompt": "Hi", "max_tokens": 10}"#, 1);
        let end = tokio::time::timeout(PATIENCE, source.end()).await.expect("it ends");
        if matches!(end, Said::Released(..)) {
            // One that knows nothing of that need not wait.
            self.chat = Shared::asking(&self.provider);
        }
        pool.drain(PATIENCE).await;
        source.said()
    }
}

/// How a job ended: why it failed or was given back, or what it returned.
fn end(said: &[Said]) -> (String, String) {
    match said.last() {
        Some(Said::Completed(result)) => ("completed".to_owned(), result.clone()),
        Some(Said::Failed(failure)) => (failure.reason.to_string(), format!("{failure:?}")),
        // How long that is depends on the jobs before.
        Some(Said::Released(why, _)) => ("released".to_owned(), why.split_once("; ").unwrap().1.to_owned()),
        other => panic!("it ended with {other:?}"),
    }
}

/// Why the model ended an answer, as far as these events say it.
fn finish(events: &[Bytes]) -> Option<String> {
    let events = events.iter().take_while(|event| &event[..] != b"[DONE]");
    let pieces = events.filter_map(|event| serde_json::from_slice::<Piece>(event).ok());
    let finish = |piece: Piece| piece.choices?.into_iter().next()?.finish_reason;
    pieces.filter_map(finish).filter(|finish| !finish.is_empty()).last()
}

/// What becomes of the stream of each name, with what the model says and thinks.
const ANSWERS: &[(&str, &str, &str, &str)] = &[
    ("absurd-counts", "completed", "This", ""),
    ("anthropic", "completed", "Hello", ""),
    ("azure", "CONTENT_FILTERED", "Yes", ""),
    ("byte-order-mark", "completed", "marked", ""),
    ("cr", "completed", "ab", ""),
    ("crlf", "completed", "Grüß Gott", ""),
    ("crlf-many-lines", "completed", "two lines", ""),
    ("deepseek", "completed", "Да", "Думаю"),
    ("empty-data", "completed", "still here", ""),
    ("error-field", "PROVIDER_ERROR", "Old", ""),
    ("fields", "completed", "named", ""),
    ("llama.cpp", "completed", "Hello! I", ""),
    ("llama.cpp-bytes", "completed", "日🦀ß", ""),
    ("llama.cpp-progress", "completed", "This", ""),
    ("llmock", "completed", "gpt-4o-mini mock reply: I saw 'Hi'.", ""),
    ("llmock-anthropic", "ANSWER_BROKEN", "", ""),
    ("llmock-malformed", "MALFORMED_ANSWER", "gpt-4o-mini mock ", ""),
    ("llmock-truncated", "ANSWER_BROKEN", "gpt-4o-mini mock ", ""),
    ("many-lines", "completed", "one", ""),
    ("mistral-parts", "completed", "Voilà", "Eh bien, oui"),
    ("mixed-ends", "completed", "ab", ""),
    ("named-error", "PROVIDER_UNAVAILABLE", "Some", ""),
    ("no-last-newline", "completed", "cut off", ""),
    ("ollama", "completed", "你好，世界", "Okay"),
    ("ollama-error", "PROVIDER_ERROR", "Half of", ""),
    ("openai", "completed", "Good day", ""),
    ("openai-refusal", "completed", "I cannot say.", ""),
    ("openrouter", "completed", "Done", "First"),
    ("openrouter-busy", "released", "", ""),
    ("openrouter-error", "PROVIDER_BUSY", "Par", ""),
    ("page", "ANSWER_BROKEN", "Then", ""),
    ("split-characters", "MALFORMED_ANSWER", "", ""),
    ("tool-calls", "UNKNOWN_FINISH", "", ""),
    ("vllm", "completed", "Na so", "Hm, so."),
    ("vllm-error", "PROVIDER_ERROR", "Begin", ""),
    ("whole", "completed", "All of it.\n\nAt once.", ""),
];

#[tokio::test]
async fn what_each_server_sends_is_understood() {
    let mut desk = Desk::new().await;

    let mut understood = Vec::new();
    for (name, bytes) in recorded() {
        let kind = if name == "whole" { "application/json" } else { "text/event-stream" };
        let said = desk.said(kind, &[&bytes]).await;
        understood.push((name, end(&said).0, output(&said, ""), output(&said, "reasoning")));
    }

    for (found, expected) in understood.iter().zip(ANSWERS) {
        let (name, end, text, thought) = found;
        assert_eq!((name.as_str(), end.as_str(), text.as_str(), thought.as_str()), *expected);
    }
    assert_eq!(understood.len(), ANSWERS.len());
}

#[tokio::test]
async fn counts_beyond_all_measure_are_the_most_that_can_be_shown() {
    let (_, bytes) = recorded().into_iter().find(|(name, _)| name == "absurd-counts").unwrap();

    let said = Desk::new().await.said("text/event-stream", &[&bytes]).await;

    let counts = said.iter().filter_map(|said| match said {
        Said::Progress(progress) if progress.stage == "Reading the prompt" => {
            Some((progress.completed, progress.total))
        }
        _ => None,
    });
    assert_eq!(counts.collect::<Vec<_>>(), [(i64::MAX, Some(44)), (i64::MAX, Some(i64::MAX))]);
}

#[tokio::test]
async fn no_answer_is_a_success_without_a_reason_and_none_harms_the_handler() {
    let streams: Vec<_> = recorded().into_iter().map(|(_, bytes)| bytes).collect();
    let (mut desk, began) = (Desk::new().await, Instant::now());

    let mut count = 0;
    for seed in seeds(SEEDS) {
        let mut chance = StdRng::seed_from_u64(seed);
        let bytes = twisted(&mut chance, &streams);
        let kind = if chance.random_ratio(1, 8) { "application/json" } else { "text/event-stream" };
        let said = desk.said(kind, &[&bytes]).await;
        let again = desk.said(kind, &split(&bytes, &mut chance)).await;

        let ((how, what), told) = (end(&said), format!("LONGHAUL_SEED={seed}: {}", bytes.escape_ascii()));
        assert_eq!((&how, &what), (&end(&again).0, &end(&again).1), "{told}");
        assert_eq!(output(&said, ""), output(&again, ""), "{told}");
        assert_eq!(output(&said, "reasoning"), output(&again, "reasoning"), "{told}");
        assert!(how != "PANIC", "{told}: {what}");
        if how == "completed" {
            let events =
                if kind == "application/json" { vec![bytes.into()] } else { plain::read(&bytes).events };
            assert!(matches!(finish(&events).as_deref(), Some("stop" | "length")), "{told}");
            let result: Value = serde_json::from_str(&what).unwrap();
            assert_eq!(result["text"], output(&said, ""), "{told}");
        } else {
            assert!(!what.contains(SECRET), "{told}: {what}");
        }
        count += 1;
    }

    println!("{count} answers in {:?}", began.elapsed());
}
