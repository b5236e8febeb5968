//! One request and its answer, from the first byte to the last.

use super::answer::{Piece, Reading, Usage};
use super::failure::{self, Trouble};
use super::input::Question;
use super::provider::{OnBreak, Provider};
use super::stream;
use crate::job::limits::RESULT_BYTES_MAX;
use crate::job::{Failure, Metrics, Progress};
use crate::worker::Context;
use bytes::Bytes;
use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, Response};
use serde_json::{Map, Value, json};
use std::time::Duration;
use tokio::time::Instant;

/// Bytes of an answer, whatever it says: a million tokens as the most talkative servers wrap them.
const ANSWER_BYTES_MAX: usize = 512 << 20;
/// Bytes of an error that are read.
const ERROR_BYTES_MAX: usize = 64 << 10;
/// How often progress is told.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);
/// How long an error's own text is waited for: its status says enough.
const ERROR_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of a name that a provider gives.
const NAME_BYTES_MAX: usize = 256;

/// An attempt to answer a question.
pub struct Attempt<'a> {
    provider: &'a Provider,
    context: &'a Context,
    cap: Option<u64>,
    asked: Instant,
    /// When the first token came.
    first: Option<Instant>,
    /// Where it says something else, when it last did.
    told: Option<Instant>,
    reading: Option<Reading>,
    /// Pieces with something in them, which are about as many tokens.
    pieces: u64,
    text: String,
    /// The text is longer than a result may be, and is in the output alone.
    is_long: bool,
    model: Option<String>,
    usage: Option<Usage>,
    finish: Option<String>,
}

impl<'a> Attempt<'a> {
    /// Asks, writes down what comes, and returns the job's result.
    pub async fn run(
        client: &Client,
        provider: &'a Provider,
        context: &'a Context,
        question: Question,
    ) -> Result<Bytes, Trouble> {
        let mut attempt = Self {
            provider,
            context,
            cap: question.cap,
            asked: Instant::now(),
            first: None,
            told: None,
            reading: None,
            pieces: 0,
            text: String::new(),
            is_long: false,
            model: question.model,
            usage: None,
            finish: None,
        };
        let response = attempt.ask(client, &question.body).await?;
        attempt.take(response).await?;
        attempt.conclude()
    }

    /// Sends the request; what comes back is the beginning of an answer.
    async fn ask(&self, client: &Client, body: &Map<String, Value>) -> Result<Response, Trouble> {
        let body = serde_json::to_vec(body).expect("JSON can be written");
        let request = self.provider.request(client).header(CONTENT_TYPE, "application/json").body(body);
        let limit = self.provider.first_token_timeout;
        // The request does not wait until it is written down that it waits.
        let (response, stage) = tokio::join!(
            tokio::time::timeout(limit, request.send()),
            self.context.stage("Waiting for the provider")
        );
        stage?;
        let response = match response {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Err(self.unreachable(error).into()),
            Err(_) => return Err(self.late(limit).into()),
        };
        if response.status() == reqwest::StatusCode::OK {
            return Ok(response);
        }
        let (status, headers) = (response.status(), response.headers().clone());
        let body = tokio::time::timeout(ERROR_TIMEOUT, beginning(response)).await.unwrap_or_default();
        Err(failure::of_status(self.provider, status, &headers, &body, self.context.now()))
    }

    /// Reads the answer to its end.
    async fn take(&mut self, mut response: Response) -> Result<(), Trouble> {
        let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let is_whole = kind.is_some_and(|kind| kind.starts_with("application/json"));
        let (mut reader, mut whole) = (stream::Reader::default(), Vec::new());
        let (mut events, mut bytes) = (Vec::new(), 0);
        let mut deadline = self.asked + self.provider.first_token_timeout;
        loop {
            let chunk = match tokio::time::timeout_at(deadline, response.chunk()).await {
                Ok(Ok(Some(chunk))) => chunk,
                Ok(Ok(None)) => break,
                Ok(Err(error)) => return Err(self.broken(&told(error)).into()),
                Err(_) if self.first.is_none() => {
                    return Err(self.late(self.provider.first_token_timeout).into());
                }
                Err(_) => {
                    let what = format!("no token has come for {:?}", self.provider.idle_timeout);
                    return Err(self.broken(&what).into());
                }
            };
            bytes += chunk.len();
            let limit = if is_whole { stream::EVENT_BYTES_MAX } else { ANSWER_BYTES_MAX };
            if bytes > limit {
                return Err(self.malformed(&format!("the answer is more than {limit} bytes")).into());
            }
            if is_whole {
                whole.extend_from_slice(&chunk);
                continue;
            }
            reader.read(&chunk, &mut events).map_err(|error| self.malformed(&error.to_string()))?;
            // Comments show that somebody is there, and not that anything is done.
            if !events.is_empty() {
                for event in events.drain(..) {
                    if event == b"[DONE]" {
                        return Ok(());
                    }
                    self.take_piece(&event).await?;
                }
                match (self.first, self.reading) {
                    (Some(_), _) => deadline = Instant::now() + self.provider.idle_timeout,
                    (None, Some(_)) => deadline = Instant::now() + self.provider.first_token_timeout,
                    (None, None) => {}
                }
            }
        }
        let rest = if is_whole {
            Some(whole)
        } else {
            reader.finish().map_err(|error| self.malformed(&error.to_string()))?
        };
        match rest {
            Some(rest) if rest != b"[DONE]" => self.take_piece(&rest).await,
            _ => Ok(()),
        }
    }

    async fn take_piece(&mut self, data: &[u8]) -> Result<(), Trouble> {
        let piece: Piece = serde_json::from_slice(data).map_err(|error| {
            self.malformed(&format!("a part of the answer is no JSON as it should be: {error}"))
        })?;
        if let Some(error) = piece.error.filter(|error| !error.is_null()) {
            return Err(match failure::of_error(self.provider, &error) {
                // What came before the error is paid for.
                Trouble::Failed(failure) if !failure.permanent => self.after_break(failure).into(),
                Trouble::Busy(failure, _) if self.first.is_some() => self.after_break(failure).into(),
                trouble => trouble,
            });
        }
        if let Some(model) = piece.model.filter(|model| !model.is_empty()) {
            self.model = Some(self.provider.quoted(&model, NAME_BYTES_MAX));
        }
        if piece.usage.is_some() {
            self.usage = piece.usage;
        }
        if let Some(reading) = piece.prompt_progress {
            self.read(reading).await?;
        }
        let Some(choice) = piece.choices.unwrap_or_default().into_iter().next() else { return Ok(()) };
        if let Some(text) = choice.delta.or(choice.message) {
            if let Some(thought) = text.thought() {
                self.write("reasoning", thought).await?;
            }
            if let Some(said) = text.said() {
                self.keep(said);
                self.write("", said).await?;
            }
        }
        if let Some(finish) = choice.finish_reason.filter(|finish| !finish.is_empty()) {
            self.finish = Some(self.provider.quoted(&finish, NAME_BYTES_MAX));
        }
        Ok(())
    }

    /// The provider reads the prompt, and has come so far.
    async fn read(&mut self, reading: Reading) -> Result<(), Failure> {
        if self.reading.replace(reading).is_none() {
            self.context.stage("Reading the prompt").await?;
        }
        // With a cap it is a part of the whole, and without one nobody knows of what.
        let fraction = self.cap.map(|cap| share(reading.processed, reading.total.saturating_add(cap)));
        self.context.progress(Progress {
            fraction,
            estimated: fraction.is_some(),
            stage: "Reading the prompt".to_owned(),
            completed: reading.processed as i64,
            total: Some(reading.total as i64),
            unit: "tokens".to_owned(),
            ..Default::default()
        })
    }

    /// Something is written.
    async fn write(&mut self, channel: &str, text: &str) -> Result<(), Failure> {
        self.pieces += 1;
        let output = self.context.output_to(channel, text.to_owned());
        if self.first.is_none() {
            let now = Instant::now();
            self.first = Some(now);
            // Both go into one commit.
            tokio::try_join!(self.context.stage("Writing"), output)?;
            let waited = now.duration_since(self.asked).as_secs_f64();
            self.context.metrics(Metrics::from([("seconds_to_first_token".to_owned(), waited)]))?;
        } else {
            output.await?;
        }
        if self.told.is_some_and(|told| told.elapsed() < PROGRESS_INTERVAL) {
            return Ok(());
        }
        self.told = Some(Instant::now());
        let read = self.reading.map_or(0, |reading| reading.total);
        let fraction = self.cap.map(|cap| share(read + self.pieces, read.saturating_add(cap)));
        self.context.progress(Progress {
            fraction,
            estimated: true,
            stage: "Writing".to_owned(),
            completed: self.pieces as i64,
            total: self.cap.map(|cap| cap as i64),
            unit: "tokens".to_owned(),
            ..Default::default()
        })
    }

    fn keep(&mut self, text: &str) {
        self.is_long |= self.text.len() + text.len() > RESULT_BYTES_MAX;
        if !self.is_long {
            self.text.push_str(text);
        }
    }

    /// What the job returns, where the answer has come to a good end.
    fn conclude(mut self) -> Result<Bytes, Trouble> {
        let truncated = match self.finish.as_deref() {
            Some("stop") => false,
            Some("length") => true,
            // It was not the model that ended it.
            Some("abort" | "error") => return Err(self.broken("the provider gave up").into()),
            None => return Err(self.broken("the answer ended without a reason to").into()),
            Some("content_filter") => {
                let what = "the provider withholds its answer: content_filter";
                return Err(failure::of(self.provider, "CONTENT_FILTERED", what).permanent().into());
            }
            Some(other) => {
                let what = format!("the answer ended with {other:?}, which is none that a text ends with");
                return Err(failure::of(self.provider, "UNKNOWN_FINISH", &what).permanent().into());
            }
        };
        let (usage, cost) = self.measure()?;
        let result = |text: Option<&str>| {
            let mut result = json!({
                "text": text,
                "finish_reason": self.finish,
                "truncated": truncated,
                "model": self.model,
                "usage": usage,
            });
            if let Some(cost) = cost {
                result["cost"] = json!(cost);
            }
            result.to_string()
        };
        let whole = if self.is_long { None } else { Some(result(Some(&self.text))) };
        // The output has it in any case.
        let result = whole.filter(|whole| whole.len() <= RESULT_BYTES_MAX).unwrap_or_else(|| result(None));
        self.text.clear();
        Ok(result.into())
    }

    /// Tells what was measured; returns the tokens as the result has them, and what they cost.
    fn measure(&self) -> Result<(Value, Option<f64>), Failure> {
        let Some(usage) = &self.usage else { return Ok((Value::Null, None)) };
        let (input, output) = (usage.prompt_tokens.unwrap_or(0), usage.completion_tokens.unwrap_or(0));
        let cached = usage.cached().unwrap_or(0);
        let prices = self.model.as_ref().and_then(|model| self.provider.prices.get(model));
        let prices = prices.or_else(|| self.provider.prices.get(self.provider.models.first()?));
        let cost = prices.map(|prices| prices.cost(input, cached, output));
        let mut metrics = Metrics::from([
            ("input_tokens".to_owned(), input as f64),
            ("cached_tokens".to_owned(), cached as f64),
            ("output_tokens".to_owned(), output as f64),
        ]);
        let writing = self.first.map_or(0.0, |first| first.elapsed().as_secs_f64());
        if writing > 0.0 {
            metrics.insert("tokens_per_second".to_owned(), output as f64 / writing);
        }
        if let Some(cost) = cost {
            metrics.insert("cost".to_owned(), cost);
        }
        self.context.metrics(metrics)?;
        Ok((json!({"input_tokens": input, "cached_tokens": cached, "output_tokens": output}), cost))
    }

    fn unreachable(&self, error: reqwest::Error) -> Failure {
        let reason = if error.is_connect() { "PROVIDER_UNREACHABLE" } else { "PROVIDER_ERROR" };
        failure::of(self.provider, reason, &self.provider.quoted(&told(error), NAME_BYTES_MAX))
    }

    fn late(&self, limit: Duration) -> Failure {
        failure::of(
            self.provider,
            "PROVIDER_TIMEOUT",
            &format!("it has not begun to answer within {limit:?}"),
        )
    }

    fn malformed(&self, what: &str) -> Failure {
        self.after_break(failure::of(
            self.provider,
            "MALFORMED_ANSWER",
            &self.provider.quoted(what, NAME_BYTES_MAX),
        ))
    }

    /// The answer has broken off.
    fn broken(&self, what: &str) -> Failure {
        self.after_break(failure::of(
            self.provider,
            "ANSWER_BROKEN",
            &self.provider.quoted(what, NAME_BYTES_MAX),
        ))
    }

    /// A failure in the middle of an answer, which may be for good, since it was paid for.
    fn after_break(&self, failure: Failure) -> Failure {
        match self.provider.on_break {
            OnBreak::Fail if self.first.is_some() => failure.permanent(),
            OnBreak::Fail | OnBreak::Retry => failure,
        }
    }
}

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// An error with its causes, and without the address, which the server's settings have.
fn told(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// The beginning of a body, as far as it comes.
async fn beginning(mut response: Response) -> Vec<u8> {
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        let left = ERROR_BYTES_MAX - body.len();
        body.extend_from_slice(&chunk[..chunk.len().min(left)]);
        if body.len() == ERROR_BYTES_MAX {
            break;
        }
    }
    body
}
