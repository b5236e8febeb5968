//! What workers report under their leases.

use super::emission::Frame;
use super::hub::Change;
use super::leases::Order;
use super::{Engine, Error};
use crate::job::{
    Command, Failure, LeaseEnd, LeaseToken, LogLine, Metrics, Progress, Refusal, State, Timestamp,
};
use bytes::Bytes;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// How long a completion waits for output that is still on its way on another stream.
const OUTPUT_WAIT: Duration = Duration::from_secs(10);

/// What a worker elsewhere reports about one lease when it renews it.
#[derive(Clone, Debug)]
pub struct Report {
    /// The lease.
    pub token: LeaseToken,
    /// How far the attempt has come, where that has changed.
    pub progress: Option<Progress>,
    /// What it measured; those of other names stay as they are.
    pub metrics: Metrics,
}

/// What the server wants of the holder of a lease that goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Directive {
    /// What to do.
    pub order: Order,
    /// When the lease ends unless it is renewed.
    pub expire_time: Timestamp,
}

impl Engine {
    /// Renews a lease, accepts it where it is provisional, and takes a report with it. A progress that names another stage
    /// than the last one enters that stage.
    ///
    /// What it commits is queued at once, in the order of the calls.
    pub fn renew(&self, report: Report) -> impl Future<Output = Result<Directive, Error>> + Send + use<> {
        let Report { token, progress, metrics } = report;
        let engine = self.clone();
        let renewed = self.shared().leases.renew(&token, self.now());
        let stage = progress.as_ref().map(|progress| progress.stage.as_str()).unwrap_or_default();
        let is_new = |live: &crate::job::Live| live.progress.stage != stage;
        let queued = match &renewed {
            Ok(_) if !stage.is_empty() && self.shared().leases.live(&token).as_ref().is_some_and(is_new) => {
                Some(self.apply(&token, Command::EnterStage { lease: token, name: stage.to_owned() }))
            }
            Ok(renewal) if !renewal.accepted => Some(self.apply(&token, Command::Accept { lease: token })),
            Ok(_) | Err(_) => None,
        };
        async move {
            renewed?;
            if let Some(queued) = queued {
                queued.await?;
            }
            if progress.is_some() || !metrics.is_empty() {
                engine.report(&token, progress, metrics)?;
            }
            // Its acceptance has given it a whole term.
            let renewal = engine.shared().leases.renew(&token, engine.now())?;
            Ok(Directive { order: renewal.order, expire_time: renewal.expire_time })
        }
    }

    /// Accepts a provisional lease: the attempt begins. Nothing, where it has begun.
    pub async fn accept(&self, token: &LeaseToken) -> Result<(), Error> {
        match self.shared().leases.renew(token, self.now())?.accepted {
            true => Ok(()),
            false => self.apply(token, Command::Accept { lease: *token }).await.map(drop),
        }
    }

    /// Whether this lease goes on.
    pub fn is_held(&self, token: &LeaseToken) -> bool {
        self.shared().leases.has(token)
    }

    /// What the holder of a lease is to do, from now on.
    pub fn orders(&self, token: &LeaseToken) -> Option<watch::Receiver<Order>> {
        self.shared().leases.orders(token).map(|(orders, _)| orders)
    }

    /// Reports how far an attempt has come, and what it measured. Latest wins: it is shown at once and kept later.
    pub fn report(
        &self,
        token: &LeaseToken,
        progress: Option<Progress>,
        metrics: Metrics,
    ) -> Result<(), Error> {
        let shared = self.shared();
        let now = shared.clock.now();
        let change = Change { progress: progress.is_some(), metrics: !metrics.is_empty() };
        let (attempt, live) = shared.leases.report(token, progress, metrics, now)?;
        shared.hub.publish_live(token.job, attempt, &live, change, now);
        shared.changes.progressed(token.job);
        Ok(())
    }

    /// Records that an attempt has entered another stage, and shows it in its progress from then on.
    pub async fn enter_stage(&self, token: &LeaseToken, name: String) -> Result<(), Error> {
        self.flush(token).await?;
        let live = self.shared().leases.live(token).ok_or(Error::Refused(Refusal::LeaseLost))?;
        self.apply(token, Command::EnterStage { lease: *token, name: name.clone() }).await?;
        self.report(token, Some(Progress { stage: name, ..live.progress }), Metrics::new())
    }

    /// Takes the next bytes of an attempt's output. Waits only where too much of it is not durable yet.
    pub async fn append_output(&self, token: &LeaseToken, channel: &str, data: Bytes) -> Result<(), Error> {
        let shared = self.shared();
        let output = shared.leases.output(token, shared.clock.now())?;
        output.append(shared.committer(), token, channel, data).await
    }

    /// Records lines of an attempt's log, `offset` of which were sent before.
    pub async fn append_log(
        &self,
        token: &LeaseToken,
        offset: u64,
        lines: Vec<LogLine>,
    ) -> Result<(), Error> {
        let emission = self.emission(token)?;
        // Its own output is taken as it comes, so it is always where it belongs.
        emission.take(Frame { line_offset: offset, lines, ..Default::default() }).await?;
        emission.flush().await
    }

    /// Records success, after all output is durable: what was taken, and where the worker says how much there is, as much as
    /// that. More of it is waited for, and so is a reset that is to make it less.
    pub async fn complete(
        &self,
        token: &LeaseToken,
        result: Bytes,
        metrics: Metrics,
        output_bytes: Option<u64>,
    ) -> Result<State, Error> {
        let live = self.shared().leases.last_live(token, metrics);
        let complete = async || {
            let (result, live) = (result.clone(), live.clone());
            self.apply(token, Command::Complete { lease: *token, result, live, output_bytes }).await
        };
        let deadline = Instant::now() + OUTPUT_WAIT;
        let mut orders = self.orders(token);
        let mut output = self.shared().leases.known_output(token);
        loop {
            let over = Instant::now() >= deadline;
            let known = output.clone();
            if let Some(output) = &known {
                match output.flush().await {
                    // How a lease has ended is told by the completion itself.
                    Ok(()) | Err(Error::Refused(Refusal::LeaseLost)) => {}
                    Err(error) => return Err(error),
                }
            }
            let moved = known.as_ref().map(|output| output.moved());
            match complete().await {
                Err(Error::Refused(Refusal::OutputMissing { .. } | Refusal::OutputConflict { .. }))
                    if !over => {}
                other => return other,
            }
            let Some(moved) = moved else {
                // Nothing of it has come yet.
                output = Some(self.shared().leases.output(token, self.now())?);
                continue;
            };
            tokio::select! {
                () = moved => {}
                // A job that is to be cancelled cannot succeed any more.
                () = changed(&mut orders) => {}
                () = tokio::time::sleep_until(deadline) => {}
            }
        }
    }

    /// Records that the attempt failed, or without a failure that it stopped as a cancellation asked.
    pub async fn fail(
        &self,
        token: &LeaseToken,
        failure: Option<Failure>,
        retry_delay: Option<Duration>,
    ) -> Result<State, Error> {
        // Output that could not be recorded may well be what the attempt failed of.
        let _ = self.flush(token).await;
        let live = self.shared().leases.last_live(token, Metrics::new());
        let jitter = self.shared().jitter();
        self.apply(token, Command::Fail { lease: *token, failure, retry_delay, live, jitter }).await
    }

    /// Gives the job back; the attempt does not count.
    pub async fn release(&self, token: &LeaseToken, reason: String, delay: Duration) -> Result<State, Error> {
        let live = self.shared().leases.last_live(token, Metrics::new());
        self.apply(token, Command::Release { lease: *token, reason, delay, live }).await
    }

    /// Ends an attempt because its process, which is this one, is about to stop; it does not count.
    pub async fn interrupt(&self, token: &LeaseToken) -> Result<State, Error> {
        let shared = self.shared();
        let live = shared.leases.last_live(token, Metrics::new());
        let (keeper, jitter) = (shared.store.keeper(), shared.jitter());
        let cause = LeaseEnd::Restarted;
        self.apply(token, Command::EndLease { epoch: token.epoch, keeper, cause, live, jitter }).await
    }

    /// Lets the job carry out a command, which is queued at once.
    pub(super) fn apply(
        &self,
        token: &LeaseToken,
        command: Command,
    ) -> impl Future<Output = Result<State, Error>> + Send + use<> {
        let applied = self.shared().committer().apply(token.job, command);
        async move { Ok(applied.await?.answer) }
    }

    /// Waits until what was taken of the attempt's output is durable.
    async fn flush(&self, token: &LeaseToken) -> Result<(), Error> {
        match self.shared().leases.known_output(token) {
            Some(output) => output.flush().await,
            None => Ok(()),
        }
    }
}

/// Waits for other orders than those seen last.
async fn changed(orders: &mut Option<watch::Receiver<Order>>) {
    let changed = match orders {
        Some(orders) => orders.changed().await.is_ok(),
        None => false,
    };
    if !changed {
        std::future::pending().await
    }
}
