//! Jobs of the engine in this very process.

use super::source::{Assignment, Error, JobSource, LeasedJob};
use crate::engine::{Engine, Leased, Place, Worker};
use crate::job::{Failure, LeaseToken, LogLine, Metrics, Progress, Timestamp};
use crate::mutants::{self, Mutant};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::FutureExt as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;

/// The engine as a source of jobs.
#[derive(Debug)]
pub struct LocalSource {
    engine: Engine,
    name: String,
    seat: Mutex<Seat>,
}

/// Where it waits for jobs.
#[derive(Debug, Default)]
enum Seat {
    /// It has not waited yet.
    #[default]
    Free,
    /// Kept from one call to the next: of many jobs that come at once, those that were claimed behind the first lie ready here.
    Taken(Place),
    /// It wants no more. A call that comes on top of that must not take a place that nobody would ever give back.
    Left,
}

impl LocalSource {
    /// Leases jobs from `engine` under this name.
    pub fn new(engine: Engine, name: impl Into<String>) -> Self {
        Self { engine, name: name.into(), seat: Mutex::default() }
    }
}

#[async_trait]
impl JobSource for LocalSource {
    async fn lease(&self, kinds: &Arc<[String]>, count: usize) -> Result<Vec<LeasedJob>, Error> {
        let mut seat = self.seat.lock().await;
        if let Seat::Free = *seat {
            let (name, kinds) = (self.name.clone(), Arc::clone(kinds));
            *seat = Seat::Taken(self.engine.enlist(&Worker { name, kinds, in_process: true, term: None }));
        }
        let Seat::Taken(place) = &mut *seat else {
            // Whoever drains ends this wait, too.
            drop(seat);
            return std::future::pending().await;
        };
        let leased = place.lease(count).await?;
        if mutants::is(Mutant::PlaceLeft) {
            *seat = Seat::Free;
        }
        Ok(leased.into_iter().map(leased_job).collect())
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

    async fn checkpoint(
        &self,
        token: &LeaseToken,
        output: Bytes,
        data: Bytes,
        output_bytes: u64,
    ) -> Result<(), Error> {
        Ok(self.engine.checkpoint(token, output, data, output_bytes).await?)
    }

    async fn complete(&self, token: &LeaseToken, result: Bytes) -> Result<(), Error> {
        self.engine.complete(token, result, Metrics::new(), None).await?;
        Ok(())
    }

    async fn fail(&self, token: &LeaseToken, failure: Option<Failure>) -> Result<(), Error> {
        self.engine.fail(token, failure, Option::<Duration>::None).await?;
        Ok(())
    }

    async fn release(&self, token: &LeaseToken, why: String, delay: Duration) -> Result<(), Error> {
        self.engine.release(token, why, delay).await?;
        Ok(())
    }

    fn chance(&self) -> u64 {
        self.engine.chance()
    }

    fn now(&self) -> Timestamp {
        self.engine.now()
    }

    async fn rest(&self) {
        let mut seat = self.seat.lock().await;
        let Seat::Taken(place) = &mut *seat else { return };
        place.offer(0);
        // What was being claimed comes still. Dropped with the place it would count as a stop of this process, of which a job
        // may see few; given back it may be as often as it takes.
        let _ = place.looked().await;
        while let Some(Ok(leased)) = place.next().now_or_never() {
            let released =
                self.engine.release(&leased.token, "no jobs are wanted now".to_owned(), Duration::ZERO);
            if let Err(error) = released.await {
                tracing::warn!(%error, job = %leased.token.job, "a job that is not wanted now stays leased");
            }
        }
        *seat = Seat::Free;
    }

    async fn drain(&self) {
        *self.seat.lock().await = Seat::Left;
    }

    async fn interrupt(&self, token: &LeaseToken) -> Result<(), Error> {
        self.engine.interrupt(token).await?;
        Ok(())
    }
}

fn leased_job(leased: Leased) -> LeasedJob {
    let Leased { snapshot, token, orders, checkpoint, .. } = leased;
    let assignment = Assignment {
        id: snapshot.job.id,
        attempt: snapshot.job.attempt,
        trace: snapshot.trace,
        checkpoint,
        output_offset: snapshot.job.checkpoint().unwrap_or(0),
        deadline: snapshot.job.attempt_deadline(),
        kind: snapshot.job.kind,
        input: snapshot.input.unwrap_or_default(),
    };
    LeasedJob { assignment, token, orders }
}
