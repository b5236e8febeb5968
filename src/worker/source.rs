//! What a worker's loop needs of wherever its jobs come from.

use crate::engine::{self, Order};
use crate::job::{Failure, JobId, LeaseToken, LogLine, Metrics, Progress, Refusal, Timestamp, Trace};
use async_trait::async_trait;
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// A job that was leased to this worker.
#[derive(Debug)]
pub struct LeasedJob {
    /// What is to be done.
    pub assignment: Assignment,
    /// Names the lease.
    pub token: LeaseToken,
    /// What the server wants, from now on. Closed when the lease is over; whoever holds it works under the lease, which is
    /// renewed for as long.
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
    /// The trace that the job belongs to, where its client named one.
    pub trace: Option<Trace>,
    /// The last checkpoint of the attempts before; empty where there is none.
    pub checkpoint: Bytes,
    /// Where the main output goes on: what the checkpoint keeps of it.
    pub output_offset: u64,
}

/// Why a source did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It may be repeated as it is.
    #[error("{0}")]
    Transient(String),
    /// The lease is over: nothing can be recorded under it any more.
    #[error("{0}")]
    Lost(String),
    /// The job is being cancelled: all that can be said is that the work has stopped.
    #[error("{0}")]
    Cancelled(String),
    /// There is too much output, or there are too many channels.
    #[error("{0}")]
    OutputLimit(String),
    /// The output is not what was written: another attempt has to write it anew.
    #[error("{0}")]
    OutputConflict(String),
    /// It will never be accepted.
    #[error("{0}")]
    Refused(String),
}

impl From<engine::Error> for Error {
    fn from(error: engine::Error) -> Self {
        let message = error.to_string();
        match error {
            error if error.is_transient() => Self::Transient(message),
            engine::Error::NotFound | engine::Error::Refused(Refusal::LeaseLost | Refusal::OtherKeeper) => {
                Self::Lost(message)
            }
            engine::Error::Refused(Refusal::JobCancelled) => Self::Cancelled(message),
            engine::Error::Refused(Refusal::OutputLimit { .. } | Refusal::ChannelLimit) => {
                Self::OutputLimit(message)
            }
            engine::Error::Refused(Refusal::OutputConflict { .. }) => Self::OutputConflict(message),
            _ => Self::Refused(message),
        }
    }
}

/// Where jobs come from, and where reports about them go.
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

    /// Appends `output` to the main output and records where the attempt is, for the next one, behind that and all that was
    /// appended before; waits until it is durable. `output_bytes` of the main output stay valid then.
    async fn checkpoint(
        &self,
        token: &LeaseToken,
        output: Bytes,
        data: Bytes,
        output_bytes: u64,
    ) -> Result<(), Error>;

    /// Records success.
    async fn complete(&self, token: &LeaseToken, result: Bytes) -> Result<(), Error>;

    /// Records a failed attempt, or without a failure that it stopped as a cancellation asked.
    async fn fail(&self, token: &LeaseToken, failure: Option<Failure>) -> Result<(), Error>;

    /// Gives the job back: the attempt does not count, and another one does not begin before `delay` is over.
    async fn release(&self, token: &LeaseToken, why: String, delay: Duration) -> Result<(), Error>;

    /// Gives the job back because this worker's process is about to stop.
    async fn interrupt(&self, token: &LeaseToken) -> Result<(), Error>;

    /// What time it is, as this side knows it.
    fn now(&self) -> Timestamp;

    /// Another 64 random bits.
    fn chance(&self) -> u64;

    /// No jobs are wanted for a while. Those that were leased and not taken are given back.
    async fn rest(&self) {}

    /// No more jobs are wanted. Those that were leased and not taken are given back, which is waited for, but not for ever.
    async fn drain(&self) {}
}
