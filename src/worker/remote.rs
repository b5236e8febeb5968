//! Jobs of a server elsewhere, over `WorkerService`: one `Work` stream, one `Emit` stream, each made anew whenever it ends.
//!
//! What is to be said of a job is kept in the `book` until the server has said that it is durable, so that a connection
//! that breaks costs nothing but time.

mod book;
mod messages;
mod output;
mod streams;

use super::source::{Error, JobSource, LeasedJob};
use crate::job::{Failure, LeaseToken, LogLine, Metrics, Progress};
use crate::proto::complete_job_request::Outcome;
use crate::proto::worker_service_client::WorkerServiceClient;
use crate::proto::{self, work_request::Message};
use async_trait::async_trait;
use book::Book;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tokio_util::sync::DropGuard;
use tonic::transport::Channel;

/// The largest message that is taken: an assignment has an input of 1 MiB at most.
const MESSAGE_BYTES_MAX: usize = 8 << 20;

/// Who a worker is.
#[derive(Clone, Debug, Default)]
pub struct Identity {
    /// Its own name, for people and for the history.
    pub worker_id: String,
    /// The kinds that it can run.
    pub kinds: Vec<String>,
    /// Its own tags, for people.
    pub labels: BTreeMap<String, String>,
}

/// A server elsewhere as a source of jobs, for as long as this lives.
#[derive(Debug)]
pub struct RemoteSource {
    book: Arc<Book>,
    _running: DropGuard,
}

impl RemoteSource {
    /// Takes jobs from the server behind `channel`, which may still be to come. Must be called in a tokio runtime.
    pub fn start(channel: Channel, identity: Identity) -> Self {
        let book = Arc::new(Book::new(identity));
        let client = WorkerServiceClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let running = CancellationToken::new();
        tokio::spawn(
            running.clone().run_until_cancelled_owned(streams::work(Arc::clone(&book), client.clone())),
        );
        tokio::spawn(running.clone().run_until_cancelled_owned(streams::emit(Arc::clone(&book), client)));
        Self { book, _running: running.drop_guard() }
    }
}

#[async_trait]
impl JobSource for RemoteSource {
    /// The kinds are those that the worker has introduced itself with.
    async fn lease(&self, _: &Arc<[String]>, count: usize) -> Result<Vec<LeasedJob>, Error> {
        self.book.lease(count).await
    }

    fn report(&self, token: &LeaseToken, progress: Option<Progress>, metrics: Metrics) -> Result<(), Error> {
        self.book.report(token, progress, metrics)
    }

    async fn enter_stage(&self, token: &LeaseToken, name: String) -> Result<(), Error> {
        self.book.enter_stage(token, name)
    }

    async fn append_output(&self, token: &LeaseToken, channel: &str, data: Bytes) -> Result<(), Error> {
        self.book.append(token, |output| output.push(channel, &data)).await
    }

    async fn append_log(&self, token: &LeaseToken, _: u64, lines: Vec<LogLine>) -> Result<(), Error> {
        self.book.append(token, |output| output.push_lines(&lines)).await
    }

    async fn complete(&self, token: &LeaseToken, result: Bytes) -> Result<(), Error> {
        // The server waits for output that is still on its way; lines of the log it does not count.
        let output_bytes = self.book.flushed(token, |output| !output.has_lines()).await?;
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
        let _ = self.book.flushed(token, |output| output.is_empty()).await;
        let failure = failure.map(messages::failure);
        let fail = proto::FailJobRequest { lease_token: token.to_string(), failure, retry_delay: None };
        self.book.end(token, Message::Fail(fail)).await
    }

    async fn interrupt(&self, token: &LeaseToken) -> Result<(), Error> {
        let reason = "the worker stops".to_owned();
        let release = proto::ReleaseJobRequest { lease_token: token.to_string(), reason, delay: None };
        self.book.end(token, Message::Release(release)).await
    }

    fn drain(&self) {
        self.book.drain();
    }
}
