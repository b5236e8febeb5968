//! What a worker's loop needs of wherever its jobs come from.

use crate::engine::{Error, Order};
use crate::job::{Failure, JobId, LeaseToken, LogLine, Metrics, Progress, Timestamp};
use async_trait::async_trait;
use bytes::Bytes;
use std::sync::Arc;
use tokio::sync::watch;

/// A job that was leased to this worker.
#[derive(Debug)]
pub struct LeasedJob {
    /// What is to be done.
    pub assignment: Assignment,
    /// Names the lease.
    pub token: LeaseToken,
    /// What the server wants, from now on. Closed when the lease is over.
    pub orders: watch::Receiver<Order>,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The job.
    pub id: JobId,
    /// Its kind.
    pub kind: String,
    /// The number of this attempt, from 1.
    pub attempt: u32,
    /// JSON text, as the client sent it.
    pub input: Bytes,
    /// When the attempt must have ended, where that is limited.
    pub deadline: Option<Timestamp>,
}

/// Where jobs come from, and where reports about them go.
///
/// A transient error of a report means that it may be repeated as it is; any other, that it will never be accepted.
#[async_trait]
pub trait JobSource: Send + Sync + 'static {
    /// Leases up to `count` jobs, and waits until there is one. Cancel safe.
    async fn lease(&self, kinds: &Arc<[String]>, count: usize) -> Result<Vec<LeasedJob>, Error>;

    /// Reports progress and measurements. Latest wins.
    fn report(&self, token: &LeaseToken, progress: Option<Progress>, metrics: Metrics) -> Result<(), Error>;

    /// Records that the attempt has entered another stage.
    async fn enter_stage(&self, token: &LeaseToken, name: String) -> Result<(), Error>;

    /// Takes the next bytes of a channel's output; waits only where too much of it is on its way already.
    async fn append_output(&self, token: &LeaseToken, channel: &str, data: Bytes) -> Result<(), Error>;

    /// Records lines of the log, `offset` of which were sent before.
    async fn append_log(&self, token: &LeaseToken, offset: u64, lines: Vec<LogLine>) -> Result<(), Error>;

    /// Records success.
    async fn complete(&self, token: &LeaseToken, result: Bytes) -> Result<(), Error>;

    /// Records a failed attempt, or without a failure that it stopped as a cancellation asked.
    async fn fail(&self, token: &LeaseToken, failure: Option<Failure>) -> Result<(), Error>;

    /// Gives the job back because this worker's process is about to stop.
    async fn interrupt(&self, token: &LeaseToken) -> Result<(), Error>;
}
