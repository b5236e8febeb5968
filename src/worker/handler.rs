//! What runs a job of one kind, and what it can see and say of it.

use super::source::{Assignment, Error, JobSource};
use crate::job::limits::*;
use crate::job::{Failure, LeaseToken, LogLevel, LogLine, Metrics, Progress, Timestamp, reason};
use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use serde::de::{Deserialize, DeserializeOwned, Deserializer};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Runs jobs of one kind.
///
/// A handler in the server's process is trusted: a panic ends its job only, but one that blocks its thread blocks others as
/// well, and cannot be stopped.
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    /// Does the job; returns its result as JSON text.
    ///
    /// It is dropped, at any await, when its lease is lost: its job was cancelled and it did not stop in time, an attempt
    /// took too long or was silent for too long.
    async fn run(&self, context: &Context) -> Result<Bytes, Failure>;

    /// How long an attempt may be silent, for jobs that do not say so themselves.
    fn progress_timeout(&self) -> Option<Duration> {
        None
    }
}

/// Handlers by kind.
#[derive(Clone, Default)]
pub struct Registry(BTreeMap<String, Arc<dyn Handler>>);

impl Registry {
    /// Lets `handler` run the jobs of `kind`, in place of another that did so.
    pub fn with(mut self, kind: impl Into<String>, handler: impl Handler) -> Self {
        self.0.insert(kind.into(), Arc::new(handler));
        self
    }

    /// The handler of a kind.
    pub fn get(&self, kind: &str) -> Option<&Arc<dyn Handler>> {
        self.0.get(kind)
    }

    /// The kinds that have one.
    pub fn kinds(&self) -> Arc<[String]> {
        self.0.keys().cloned().collect()
    }

    /// How long attempts may be silent, by kind, where a handler says so.
    pub fn progress_timeouts(&self) -> impl Iterator<Item = (String, Duration)> + '_ {
        self.0.iter().filter_map(|(kind, handler)| Some((kind.clone(), handler.progress_timeout()?)))
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.0.keys()).finish()
    }
}

/// What a handler knows of its job, and what it can say of it.
///
/// Each method that says something fails when the lease is lost; the handler may as well go on, since it is stopped anyway.
pub struct Context {
    /// What is to be done.
    pub assignment: Assignment,
    token: LeaseToken,
    source: Arc<dyn JobSource>,
    cancelled: CancellationToken,
    /// How long the job may take to stop; set when it is cancelled.
    grace: OnceLock<Duration>,
    log_lines: Mutex<u64>,
    /// How much main output there is, that of earlier attempts which stays valid included.
    output_bytes: AtomicU64,
    /// The job is to be given back, not to be leased again before this has passed.
    return_delay: OnceLock<Duration>,
}

impl Context {
    /// The context of one attempt.
    pub fn new(assignment: Assignment, token: LeaseToken, source: Arc<dyn JobSource>) -> Self {
        Self {
            output_bytes: AtomicU64::new(assignment.output_offset),
            assignment,
            token,
            source,
            cancelled: CancellationToken::new(),
            grace: OnceLock::new(),
            log_lines: Mutex::new(0),
            return_delay: OnceLock::new(),
        }
    }

    /// Lets the handler know that its job is to stop, within `grace`.
    pub fn cancel(&self, grace: Duration) {
        // The first one stands: the time has begun with it.
        let _ = self.grace.set(grace);
        self.cancelled.cancel();
    }

    /// Turns true when the job is to stop; what is returned after that does not count.
    pub fn cancelled(&self) -> &CancellationToken {
        &self.cancelled
    }

    /// How long a job that was cancelled may take to stop, from then on; zero for one that was not.
    pub fn grace(&self) -> Duration {
        self.grace.get().copied().unwrap_or_default()
    }

    /// Has the job given back when the handler returns the failure that this returns: the attempt does not count, and the
    /// next one does not begin before `delay` is over. For work that could not be done now through no fault of the job.
    pub fn give_back(&self, failure: Failure, delay: Duration) -> Failure {
        let _ = self.return_delay.set(delay);
        failure
    }

    /// How long the job is to be left alone after it is given back, where it is to be.
    pub(super) fn return_delay(&self) -> Option<Duration> {
        self.return_delay.get().copied()
    }

    /// What time it is, as the job's server knows it.
    pub fn now(&self) -> Timestamp {
        self.source.now()
    }

    /// Another 64 random bits.
    pub fn chance(&self) -> u64 {
        self.source.chance()
    }

    /// Reads the input; what is wrong with it is a permanent failure that names the field.
    pub fn parse_input<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        parse_json(&mut serde_json::Deserializer::from_slice(&self.assignment.input))
    }

    /// Shows how far the attempt has come.
    pub fn progress(&self, progress: Progress) -> Result<(), Failure> {
        let progress = Progress {
            fraction: progress.fraction.filter(|fraction| !fraction.is_nan()),
            stage: truncated(progress.stage, STAGE_CHARACTERS_MAX),
            completed: progress.completed.max(0),
            total: progress.total.map(|total| total.max(0)),
            unit: truncated(progress.unit, NAME_CHARACTERS_MAX),
            ..progress
        };
        self.source.report(&self.token, Some(progress), Metrics::new()).map_err(failure_of)
    }

    /// The moment that is so far away, for what is expected to end then.
    pub fn expected_time(&self, left: Duration) -> Timestamp {
        self.source.now().after(left)
    }

    /// Shows measurements; those of other names stay as they are. At most 64 names are kept, and no value that is no number.
    pub fn metrics(&self, mut metrics: Metrics) -> Result<(), Failure> {
        metrics.retain(|_, value| value.is_finite());
        let is_name = |name: &String| (1..=NAME_CHARACTERS_MAX).contains(&name.chars().count());
        if metrics.len() > METRICS_MAX || !metrics.keys().all(is_name) {
            let text =
                format!("at most {METRICS_MAX} metrics with names of 1 to {NAME_CHARACTERS_MAX} characters");
            return Err(Failure::new(reason::HANDLER_ERROR, text).permanent());
        }
        self.source.report(&self.token, None, metrics).map_err(failure_of)
    }

    /// Enters another stage, which becomes part of the job's history.
    pub async fn stage(&self, name: &str) -> Result<(), Failure> {
        let name = truncated(name.to_owned(), STAGE_CHARACTERS_MAX);
        self.source.enter_stage(&self.token, name).await.map_err(failure_of)
    }

    /// Writes to the main output.
    pub async fn output(&self, text: impl Into<Bytes>) -> Result<(), Failure> {
        self.output_to("", text).await
    }

    /// Writes to a channel of the output; the empty one is the main output.
    pub async fn output_to(&self, channel: &str, data: impl Into<Bytes>) -> Result<(), Failure> {
        if channel.chars().count() > CHANNEL_CHARACTERS_MAX {
            let text = format!("a channel's name has at most {CHANNEL_CHARACTERS_MAX} characters");
            return Err(Failure::new(reason::HANDLER_ERROR, text).permanent());
        }
        let data = data.into();
        let bytes = if channel.is_empty() { data.len() as u64 } else { 0 };
        self.source.append_output(&self.token, channel, data).await.map_err(failure_of)?;
        self.output_bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// How much main output there is: what the checkpoint of an earlier attempt has kept, and all that was written since.
    pub fn output_bytes(&self) -> u64 {
        self.output_bytes.load(Ordering::Relaxed)
    }

    /// The last checkpoint of the attempts before, from which this one goes on.
    pub fn last_checkpoint(&self) -> Option<&Bytes> {
        let Assignment { checkpoint, output_offset, .. } = &self.assignment;
        (!checkpoint.is_empty() || *output_offset > 0).then_some(checkpoint)
    }

    /// Records where the attempt is, behind all that was written before, and waits until that is durable. The next attempt, if
    /// there is one, is given `data`, of at most 256 KiB, and goes on behind the first `output_bytes` of the main output, which are
    /// at most [as many as there are](Self::output_bytes); they end with a whole character. A later checkpoint takes its place.
    pub async fn checkpoint(&self, data: impl Into<Bytes>, output_bytes: u64) -> Result<(), Failure> {
        let present = self.output_bytes();
        if output_bytes > present {
            let text = format!("a checkpoint keeps {output_bytes} bytes of output; there are {present}");
            return Err(Failure::new(reason::HANDLER_ERROR, text).permanent());
        }
        self.record(Bytes::new(), data.into(), output_bytes).await
    }

    /// Writes to the main output and records where the attempt is behind that, both in one commit as far as the source can: so
    /// nobody sees output that the next attempt does not know of. All output is kept.
    pub async fn output_with_checkpoint(
        &self,
        text: impl Into<Bytes>,
        data: impl Into<Bytes>,
    ) -> Result<(), Failure> {
        let text = text.into();
        let present = self.output_bytes() + text.len() as u64;
        self.record(text, data.into(), present).await?;
        self.output_bytes.store(present, Ordering::Relaxed);
        Ok(())
    }

    async fn record(&self, output: Bytes, data: Bytes, output_bytes: u64) -> Result<(), Failure> {
        if data.len() > CHECKPOINT_BYTES_MAX {
            let text = format!("a checkpoint is {} bytes; the limit is {CHECKPOINT_BYTES_MAX}", data.len());
            return Err(Failure::new(reason::HANDLER_ERROR, text).permanent());
        }
        self.source.checkpoint(&self.token, output, data, output_bytes).await.map_err(failure_of)
    }

    /// Writes a line to the job's log; a longer one than 8 KiB is cut.
    pub async fn log(&self, level: LogLevel, message: impl Into<String>) -> Result<(), Failure> {
        self.log_lines(vec![LogLine { level, message: message.into() }]).await
    }

    /// Writes lines to the job's log likewise. What is beyond the 10,000 lines of a job is not kept, and no failure.
    pub async fn log_lines(&self, mut lines: Vec<LogLine>) -> Result<(), Failure> {
        for LogLine { message, .. } in &mut lines {
            message.truncate(message.floor_char_boundary(LOG_LINE_BYTES_MAX));
        }
        let offset = {
            let mut written = self.log_lines.lock();
            *written += lines.len() as u64;
            *written - lines.len() as u64
        };
        self.source.append_log(&self.token, offset, lines).await.map_err(failure_of)
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Context").field("token", &self.token).finish_non_exhaustive()
    }
}

/// The failure of a job whose input its handler cannot use.
pub fn invalid_input(message: impl Into<String>) -> Failure {
    Failure::new("INVALID_INPUT", message).permanent()
}

/// Reads an input or a part of one; what is wrong with it is a permanent failure that names the field.
pub fn parse_json<'de, T: Deserialize<'de>>(json: impl Deserializer<'de>) -> Result<T, Failure> {
    serde_path_to_error::deserialize(json).map_err(|error| {
        let path = error.path().to_string();
        let what = error.into_inner();
        // What is wrong with the whole of it, a missing field for one, has no path.
        invalid_input(if path == "." { what.to_string() } else { format!("{path}: {what}") })
    })
}

/// What a handler fails of when it cannot say something.
pub(super) fn failure_of(error: Error) -> Failure {
    match error {
        Error::OutputLimit(message) => Failure::new("OUTPUT_LIMIT", message).permanent(),
        Error::OutputConflict(message) => Failure::new("OUTPUT_CONFLICT", message),
        error @ (Error::Transient(_) | Error::Lost(_) | Error::Cancelled(_) | Error::Refused(_)) => {
            Failure::new(reason::HANDLER_ERROR, format!("a report was refused: {error}"))
        }
    }
}

fn truncated(text: String, characters: usize) -> String {
    match text.char_indices().nth(characters) {
        Some((end, _)) => text[..end].to_owned(),
        None => text,
    }
}
