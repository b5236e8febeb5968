//! Jobs of a server elsewhere, over `WorkerService`: one `Work` stream, one `Emit` stream, each made anew whenever it ends.
//!
//! What is to be said of a job is kept in the `book` until the server has said that it is durable, so that a connection
//! that breaks costs nothing but time.

mod book;
mod connection;
mod messages;
mod output;
mod streams;

use super::source::{Error, JobSource, LeasedJob};
use crate::clock::{Clock, SystemClock};
use crate::engine::Chance;
use crate::job::{Failure, LeaseToken, LogLine, Metrics, Progress, Timestamp};
use crate::proto::complete_job_request::Outcome;
use crate::proto::{self, work_request::Message};
use async_trait::async_trait;
use book::Book;
use bytes::Bytes;
pub use connection::Channel;
use connection::Connection;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::sync::DropGuard;
use tonic::transport::Endpoint;

/// How long a server has to take back jobs that nobody has taken.
const GIVE_BACK_TIME: Duration = Duration::from_secs(3);
/// How often a connection that was left is looked at until it is gone.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// Who a worker is.
#[derive(Clone, Debug, Default)]
pub struct Identity {
    /// Its own name, for people and for the history.
    pub worker_id: String,
    /// Its own tags, for people.
    pub labels: BTreeMap<String, String>,
}

/// A server elsewhere as a source of jobs, for as long as this lives.
pub struct RemoteSource {
    book: Arc<Book>,
    clock: Arc<dyn Clock>,
    chance: Chance,
    _running: DropGuard,
}

impl RemoteSource {
    /// Takes jobs from the server at `endpoint`, which may still be to come. Must be called in a tokio runtime.
    ///
    /// An endpoint and not a connection, since one over which nothing comes any more is left for another.
    pub fn start(endpoint: Endpoint, identity: Identity) -> Self {
        let endpoint = endpoint.http2_keep_alive_interval(KEEPALIVE);
        let dial = move || connection::by_tonic(endpoint.connect_lazy());
        Self::over(dial, identity, Arc::new(SystemClock::new()), Arc::new(rand::random))
    }

    /// Takes jobs from the server that is reached by `dial`, each time over a connection of its own, in a time and with a chance
    /// that are somebody else's.
    pub fn over(
        dial: impl Fn() -> Channel + Send + Sync + 'static,
        identity: Identity,
        clock: Arc<dyn Clock>,
        chance: Chance,
    ) -> Self {
        let book = Arc::new(Book::new(identity));
        let connection = Arc::new(Connection::new(dial));
        let running = CancellationToken::new();
        let until = running.clone();
        let work = streams::work(Arc::clone(&book), Arc::clone(&connection), Arc::clone(&chance));
        tokio::spawn(until.run_until_cancelled_owned(work));
        let until = running.clone();
        let emit = streams::emit(Arc::clone(&book), connection, Arc::clone(&chance));
        tokio::spawn(until.run_until_cancelled_owned(emit));
        Self { book, clock, chance, _running: running.drop_guard() }
    }
}

impl fmt::Debug for RemoteSource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("RemoteSource").field("book", &self.book).finish_non_exhaustive()
    }
}

#[async_trait]
impl JobSource for RemoteSource {
    async fn lease(&self, kinds: &Arc<[String]>, count: usize) -> Result<Vec<LeasedJob>, Error> {
        self.book.lease(kinds, count).await
    }

    fn report(&self, token: &LeaseToken, progress: Option<Progress>, metrics: Metrics) -> Result<(), Error> {
        self.book.report(token, progress, metrics)
    }

    async fn enter_stage(&self, token: &LeaseToken, name: String) -> Result<(), Error> {
        self.book.enter_stage(token, name).await
    }

    async fn append_output(&self, token: &LeaseToken, channel: &str, data: Bytes) -> Result<(), Error> {
        self.book.append(token, |output| output.push(channel, &data)).await
    }

    async fn append_log(&self, token: &LeaseToken, _: u64, lines: Vec<LogLine>) -> Result<(), Error> {
        self.book.append(token, |output| output.push_lines(&lines)).await
    }

    async fn checkpoint(
        &self,
        token: &LeaseToken,
        output: Bytes,
        data: Bytes,
        output_bytes: u64,
    ) -> Result<(), Error> {
        if !output.is_empty() {
            self.append_output(token, "", output).await?;
        }
        self.book.checkpoint(token, data, output_bytes).await
    }

    async fn complete(&self, token: &LeaseToken, result: Bytes) -> Result<(), Error> {
        // The server waits for output that is still on its way; lines of the log it does not count.
        let output_bytes = self.book.completed(token).await?;
        let complete = proto::CompleteJobRequest {
            lease_token: token.to_string(),
            outcome: Some(Outcome::ResultJson(String::from_utf8_lossy(&result).into_owned())),
            metrics: self.book.metrics(token),
            output_bytes: Some(output_bytes as i64),
        };
        self.book.end(token, Message::Complete(complete)).await
    }

    async fn fail(&self, token: &LeaseToken, failure: Option<Failure>) -> Result<(), Error> {
        // Output that could not be recorded may well be what the attempt failed of.
        let _ = self.book.emitted(token).await;
        let failure = failure.map(messages::failure);
        let fail = proto::FailJobRequest { lease_token: token.to_string(), failure, retry_delay: None };
        self.book.end(token, Message::Fail(fail)).await
    }

    async fn release(&self, token: &LeaseToken, why: String, delay: Duration) -> Result<(), Error> {
        let _ = self.book.emitted(token).await;
        self.book.end(token, messages::given_back(token, why, Some(delay))).await
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn chance(&self) -> u64 {
        (self.chance)()
    }

    async fn interrupt(&self, token: &LeaseToken) -> Result<(), Error> {
        self.book.end(token, messages::released(token)).await
    }

    async fn rest(&self) {
        self.book.rest();
    }

    async fn drain(&self) {
        self.book.drain();
        // What is not taken back by then is when its lease ends.
        let _ = tokio::time::timeout(GIVE_BACK_TIME, self.book.given_back()).await;
    }
}

#[cfg(test)]
mod tests;
