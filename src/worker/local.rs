//! Jobs of the engine in this very process.

use super::source::{Assignment, Error, JobSource, LeasedJob};
use crate::engine::{Engine, Leased, Worker};
use crate::job::{Failure, LeaseToken, LogLine, Metrics, Progress, Timestamp};
use async_trait::async_trait;
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;

/// The engine as a source of jobs.
#[derive(Clone, Debug)]
pub struct LocalSource {
    engine: Engine,
    name: String,
}

impl LocalSource {
    /// Leases jobs from `engine` under this name.
    pub fn new(engine: Engine, name: impl Into<String>) -> Self {
        Self { engine, name: name.into() }
    }
}

#[async_trait]
impl JobSource for LocalSource {
    async fn lease(&self, kinds: &Arc<[String]>, count: usize) -> Result<Vec<LeasedJob>, Error> {
        let worker =
            Worker { name: self.name.clone(), kinds: Arc::clone(kinds), in_process: true, term: None };
        Ok(self.engine.lease(&worker, count).await?.into_iter().map(leased_job).collect())
    }

    fn report(&self, token: &LeaseToken, progress: Option<Progress>, metrics: Metrics) -> Result<(), Error> {
        Ok(self.engine.report(token, progress, metrics)?)
    }

    async fn enter_stage(&self, token: &LeaseToken, name: String) -> Result<(), Error> {
        Ok(self.engine.enter_stage(token, name).await?)
    }

    async fn append_output(&self, token: &LeaseToken, channel: &str, data: Bytes) -> Result<(), Error> {
        Ok(self.engine.append_output(token, channel, data).await?)
    }

    async fn append_log(&self, token: &LeaseToken, offset: u64, lines: Vec<LogLine>) -> Result<(), Error> {
        Ok(self.engine.append_log(token, offset, lines).await?)
    }

    async fn complete(&self, token: &LeaseToken, result: Bytes) -> Result<(), Error> {
        self.engine.complete(token, result, Metrics::new(), None).await?;
        Ok(())
    }

    async fn fail(&self, token: &LeaseToken, failure: Option<Failure>) -> Result<(), Error> {
        self.engine.fail(token, failure, Option::<Duration>::None).await?;
        Ok(())
    }

    fn chance(&self) -> u64 {
        self.engine.chance()
    }

    fn now(&self) -> Timestamp {
        self.engine.now()
    }

    async fn interrupt(&self, token: &LeaseToken) -> Result<(), Error> {
        self.engine.interrupt(token).await?;
        Ok(())
    }
}

fn leased_job(leased: Leased) -> LeasedJob {
    let Leased { snapshot, token, orders, .. } = leased;
    let assignment = Assignment {
        id: snapshot.job.id,
        attempt: snapshot.job.attempt,
        trace: snapshot.trace,
        deadline: snapshot.job.attempt_deadline(),
        kind: snapshot.job.kind,
        input: snapshot.input.unwrap_or_default(),
    };
    LeasedJob { assignment, token, orders }
}
