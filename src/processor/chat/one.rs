//! A job that is one question: whoever watches it reads along.

use super::answer::{Answer, Reading};
use super::caller::Caller;
use super::exchange::Audience;
use super::failure::Trouble;
use super::input::Question;
use crate::job::limits::RESULT_BYTES_MAX;
use crate::job::{Failure, Metrics, Progress, Timestamp};
use crate::worker::Context;
use bytes::Bytes;
use futures_util::FutureExt as _;
use std::time::Duration;
use tokio::time::Instant;

/// How often progress is told.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// Asks, writes down what comes, and returns the job's result.
pub async fn run(caller: &Caller, context: &Context, question: Question) -> Result<Bytes, Trouble> {
    let place = match caller.place().now_or_never() {
        Some(place) => place?,
        // A batch has them all, or the provider wants quiet.
        None => {
            context.stage("Waiting for a place").await?;
            caller.place().await?
        }
    };
    let mut watchers = Watchers::new(context, question.cap);
    let answer = caller.ask(place, question, &mut watchers).await?;
    watchers.measure(&answer)?;
    Ok(result(answer))
}

/// What the job returns.
fn result(mut answer: Answer) -> Bytes {
    let written = |answer: &Answer| serde_json::to_vec(answer).expect("an answer can be written");
    let whole = written(&answer);
    if whole.len() <= RESULT_BYTES_MAX {
        return whole.into();
    }
    // The output has it in any case.
    answer.text = None;
    written(&answer).into()
}

/// The watchers of the job.
struct Watchers<'a> {
    context: &'a Context,
    /// The most tokens that may be written.
    cap: Option<u64>,
    asked: Instant,
    /// When the first token came.
    first: Option<Instant>,
    /// When they were last told how far it has come.
    told: Option<Instant>,
    reading: Option<Reading>,
    /// Pieces with something in them, which are about as many tokens.
    pieces: u64,
}

impl<'a> Watchers<'a> {
    fn new(context: &'a Context, cap: Option<u64>) -> Self {
        Self { context, cap, asked: Instant::now(), first: None, told: None, reading: None, pieces: 0 }
    }

    /// Tells what was measured.
    fn measure(&self, answer: &Answer) -> Result<(), Failure> {
        let Some(tokens) = answer.usage else { return Ok(()) };
        let mut metrics = tokens.metrics();
        let writing = self.first.map_or(0.0, |first| first.elapsed().as_secs_f64());
        if writing > 0.0 {
            metrics.insert("tokens_per_second".to_owned(), tokens.output as f64 / writing);
        }
        if let Some(cost) = answer.cost {
            metrics.insert("cost".to_owned(), cost);
        }
        self.context.metrics(metrics)
    }
}

impl Audience for Watchers<'_> {
    fn now(&self) -> Timestamp {
        self.context.now()
    }

    async fn asked(&mut self) -> Result<(), Failure> {
        self.asked = Instant::now();
        self.context.stage("Waiting for the provider").await
    }

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
            completed: shown(reading.processed),
            total: Some(shown(reading.total)),
            unit: "tokens".to_owned(),
            ..Default::default()
        })
    }

    async fn written(&mut self, channel: &str, text: &str) -> Result<(), Failure> {
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
        let fraction = self.cap.map(|cap| share(read.saturating_add(self.pieces), read.saturating_add(cap)));
        self.context.progress(Progress {
            fraction,
            estimated: true,
            stage: "Writing".to_owned(),
            completed: shown(self.pieces),
            total: self.cap.map(shown),
            unit: "tokens".to_owned(),
            ..Default::default()
        })
    }
}

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// A count of tokens as progress has it; a provider may name any.
fn shown(tokens: u64) -> i64 {
    tokens.try_into().unwrap_or(i64::MAX)
}
