//! One request and its answer, from the first byte to the last.

use super::answer::{Answer, Ended, Piece, Reading, Usage};
use super::failure::{self, Trouble};
use super::input::Question;
use super::provider::{OnBreak, Provider};
use super::stream;
use crate::job::limits::RESULT_BYTES_MAX;
use crate::job::{Failure, Timestamp};
use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, Response};
use serde_json::{Map, Value};
use std::future::Future;
use std::time::Duration;
use tokio::time::Instant;

/// Bytes of an answer, whatever it says: a million tokens as the most talkative servers wrap them.
const ANSWER_BYTES_MAX: usize = 512 << 20;
/// Bytes of an error that are read.
const ERROR_BYTES_MAX: usize = 64 << 10;
/// How long an error's own text is waited for: its status says enough.
const ERROR_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the end of an answer may take behind its last word.
const END_TIMEOUT: Duration = Duration::from_secs(1);
/// Bytes of a name that a provider gives.
const NAME_BYTES_MAX: usize = 256;

/// Who hears an answer while it comes. What cannot be told ends it.
pub trait Audience: Send {
    /// What time it is there.
    fn now(&self) -> Timestamp;

    /// The request is on its way.
    fn asked(&mut self) -> impl Future<Output = Result<(), Failure>> + Send;

    /// The provider reads the question, and has come so far.
    fn read(&mut self, reading: Reading) -> impl Future<Output = Result<(), Failure>> + Send;

    /// More is written: of the answer, or of the thoughts that come before it in a channel of their own.
    fn written(&mut self, channel: &str, text: &str) -> impl Future<Output = Result<(), Failure>> + Send;
}

/// A request on its way to its answer.
pub struct Exchange<'a, A> {
    provider: &'a Provider,
    audience: &'a mut A,
    asked: Instant,
    /// The provider has told how much it has read.
    is_reading: bool,
    /// Something is written, and has to be paid.
    is_writing: bool,
    text: String,
    /// The text is longer than a result may be, and nobody has kept it.
    is_long: bool,
    model: Option<String>,
    usage: Option<Usage>,
    finish: Option<String>,
}

impl<'a, A: Audience> Exchange<'a, A> {
    /// Asks, and returns the answer once it has come to a good end.
    pub async fn run(
        client: &Client,
        provider: &'a Provider,
        question: Question,
        audience: &'a mut A,
    ) -> Result<Answer, Trouble> {
        let mut exchange = Self {
            provider,
            audience,
            asked: Instant::now(),
            is_reading: false,
            is_writing: false,
            text: String::new(),
            is_long: false,
            model: question.model,
            usage: None,
            finish: None,
        };
        let response = exchange.ask(client, &question.body).await?;
        exchange.take(response).await?;
        exchange.conclude()
    }

    /// Sends the request; what comes back is the beginning of an answer.
    async fn ask(&mut self, client: &Client, body: &Map<String, Value>) -> Result<Response, Trouble> {
        let body = serde_json::to_vec(body).expect("JSON can be written");
        let request = self.provider.request(client).header(CONTENT_TYPE, "application/json").body(body);
        let limit = self.provider.first_token_timeout;
        // The request does not wait until it is written down that it waits.
        let (response, told) =
            tokio::join!(tokio::time::timeout(limit, request.send()), self.audience.asked());
        told?;
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
        Err(failure::of_status(self.provider, status, &headers, &body, self.audience.now()))
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
                Err(_) if !self.is_writing => {
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
                        // Nobody waits for the end; but until it is read, the connection is of no use to the next question.
                        tokio::spawn(tokio::time::timeout(END_TIMEOUT, ended(response)));
                        return Ok(());
                    }
                    self.take_piece(&event).await?;
                }
                if self.is_writing {
                    deadline = Instant::now() + self.provider.idle_timeout;
                } else if self.is_reading {
                    deadline = Instant::now() + self.provider.first_token_timeout;
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
                Trouble::Busy(failure, _) if self.is_writing => self.after_break(failure).into(),
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
            self.is_reading = true;
            self.audience.read(reading).await?;
        }
        let Some(choice) = piece.choices.unwrap_or_default().into_iter().next() else { return Ok(()) };
        if let Some(text) = choice.delta.or(choice.message) {
            if let Some(thought) = text.thought() {
                self.is_writing = true;
                self.audience.written("reasoning", &thought).await?;
            }
            if let Some(said) = text.said() {
                self.is_writing = true;
                self.keep(&said);
                self.audience.written("", &said).await?;
            }
        }
        if let Some(finish) = choice.finish_reason.filter(|finish| !finish.is_empty()) {
            self.finish = Some(self.provider.quoted(&finish, NAME_BYTES_MAX));
        }
        Ok(())
    }

    fn keep(&mut self, text: &str) {
        self.is_long |= self.text.len() + text.len() > RESULT_BYTES_MAX;
        if !self.is_long {
            self.text.push_str(text);
        }
    }

    /// The answer, where it has come to a good end.
    fn conclude(self) -> Result<Answer, Trouble> {
        let finish_reason = match self.finish.as_deref() {
            Some("stop") => Ended::Stop,
            Some("length") => Ended::Length,
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
        let usage = self.usage.map(|usage| usage.tokens());
        let prices = self.model.as_ref().and_then(|model| self.provider.prices.get(model));
        let prices = prices.or_else(|| self.provider.prices.get(self.provider.models.first()?));
        let cost = prices.zip(usage).map(|(prices, tokens)| prices.cost(tokens));
        let text = if self.is_long { None } else { Some(self.text) };
        Ok(Answer {
            text,
            finish_reason,
            truncated: finish_reason == Ended::Length,
            model: self.model,
            usage,
            cost,
        })
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
            OnBreak::Fail if self.is_writing => failure.permanent(),
            OnBreak::Fail | OnBreak::Retry => failure,
        }
    }
}

/// Reads the end of an answer; where there is more instead, its connection is closed.
async fn ended(mut response: Response) {
    let _ = response.chunk().await;
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
