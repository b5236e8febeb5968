//! What workers report under their leases.

use super::emission::Frame;
use super::hub::Change;
use super::leases::{Directive, Order};
use super::output::Trailer;
use super::sent::SentCheckpoint;
use super::{Engine, Error};
use crate::job::{Command, Failure, LeaseEnd, LeaseToken, LogLine, Metrics, Progress, Refusal, State};
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

impl Engine {
    /// Renews a lease, accepts it where it is provisional, and takes a report with it. A progress that names another stage
    /// than the last one enters that stage. What its holder is to do is said by [`directive`](Self::directive).
    ///
    /// What it commits is queued at once, in the order of the calls, and what is reported of one lease is shown in that order
    /// where the futures are polled so.
    pub fn renew(&self, report: Report) -> impl Future<Output = Result<(), Error>> + Send + use<> {
        let Report { token, progress, metrics } = report;
        let engine = self.clone();
        let stage = progress.as_ref().map(|progress| progress.stage.as_str()).unwrap_or_default();
        let beat = self.shared().leases.beat(&token, stage, self.now());
        let queued = beat.map(|number| {
            let command = match stage.is_empty() {
                true => Command::Accept { lease: token },
                false => Command::EnterStage { lease: token, name: stage.to_owned() },
            };
            number.map(|number| (number, self.apply(&token, command)))
        });
        async move {
            if let Some((number, applied)) = queued? {
                let applied = applied.await;
                engine.shared().leases.beaten(&token, number, applied.is_ok(), engine.now());
                applied?;
            }
            match progress.is_some() || !metrics.is_empty() {
                true => engine.report(&token, progress, metrics),
                false => Ok(()),
            }
        }
    }

    /// What the holder of a lease is to do as of now.
    pub fn directive(&self, token: &LeaseToken) -> Result<Directive, Error> {
        self.shared().leases.directive(token, self.now())
    }

    /// Accepts a provisional lease: the attempt begins. Nothing, where it has begun: that is no sign of life.
    pub async fn accept(&self, token: &LeaseToken) -> Result<(), Error> {
        match self.shared().leases.is_accepted(token)? {
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

    /// Takes the next bytes of an attempt's main output and records where it is, behind that and all else that it has sent; waits
    /// until all of it is durable, which the last of those bytes and the record become in one commit.
    pub async fn checkpoint(
        &self,
        token: &LeaseToken,
        output: Bytes,
        data: Bytes,
        output_bytes: u64,
    ) -> Result<(), Error> {
        let shared = self.shared();
        let sent = shared.leases.output(token, shared.clock.now())?;
        {
            let _turn = sent.turn().await;
            let present = sent.next("")?.0 + output.len() as u64;
            let checkpoint = sent.admit(SentCheckpoint { number: None, output_bytes, data }, present)?;
            let behind = Trailer { checkpoint, ..Default::default() };
            sent.append(shared.committer(), token, "", output, behind).await?;
        }
        sent.flush().await
    }

    /// Takes the next bytes of an attempt's output. Waits only where too much of it is not durable yet.
    pub async fn append_output(&self, token: &LeaseToken, channel: &str, data: Bytes) -> Result<(), Error> {
        let shared = self.shared();
        let output = shared.leases.output(token, shared.clock.now())?;
        output.append(shared.committer(), token, channel, data, Trailer::default()).await
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
        let live = self.shared().leases.take_last(token, metrics);
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
                biased;
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
        let live = self.shared().leases.take_last(token, Metrics::new());
        let jitter = self.shared().jitter();
        self.apply(token, Command::Fail { lease: *token, failure, retry_delay, live, jitter }).await
    }

    /// Gives the job back; the attempt does not count.
    pub async fn release(&self, token: &LeaseToken, reason: String, delay: Duration) -> Result<State, Error> {
        let live = self.shared().leases.take_last(token, Metrics::new());
        self.apply(token, Command::Release { lease: *token, reason, delay, live }).await
    }

    /// Ends an attempt because its process, which is this one, is about to stop; it does not count.
    pub async fn interrupt(&self, token: &LeaseToken) -> Result<State, Error> {
        let shared = self.shared();
        let live = shared.leases.take_last(token, Metrics::new());
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
