//! What a worker elsewhere knows: which leases it holds, and what is still to be said of each.
//!
//! Nothing is queued but the names of leases that have something to say, each once; what that is is looked up when the
//! stream takes it. So what is here is bounded by the leases, however long a server does not read.

mod emit;
mod said;
mod work;

use super::output::Output;
use super::{Identity, messages};
use crate::engine::Order;
use crate::job::limits::METRICS_MAX;
use crate::job::{LeaseToken, Metrics, Progress};
use crate::proto::work_request::Message;
use crate::worker::source::{Error, LeasedJob};
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use tokio::sync::{Notify, oneshot, watch};

/// How many stages of an attempt wait to be recorded; whoever enters more waits.
const STAGES_WAITING_MAX: usize = 16;

/// The book; what changes it is called from the loop, from handlers and from the streams.
#[derive(Debug)]
pub struct Book {
    identity: Identity,
    pages: Mutex<Pages>,
    /// Something is to be said on `Work`.
    to_say: Notify,
    /// Something is to be sent on `Emit`.
    to_emit: Notify,
    /// Progress has changed.
    reported: Notify,
    /// Jobs have come.
    arrived: Notify,
    /// Output has become durable, a stage was recorded, or a lease has ended.
    moved: Notify,
}

#[derive(Debug, Default)]
struct Pages {
    /// Numbers the streams: one that is not the last says nothing more.
    work: u64,
    emit: u64,
    /// What is wanted, once something is.
    kinds: Option<Arc<[String]>>,
    /// How many jobs are wanted, and whether the server is to be told.
    wanted: usize,
    credit_due: bool,
    /// How many the present stream has brought.
    received: i64,
    /// No jobs are wanted until some are asked for again.
    resting: bool,
    draining: bool,
    drain_due: bool,
    arrived: VecDeque<LeasedJob>,
    held: BTreeMap<LeaseToken, Held>,
    /// Leases of which something is to be said on their own.
    speaking: VecDeque<LeaseToken>,
    /// Leases that a heartbeat has still to name, and whether there is to be one without any.
    beating: VecDeque<LeaseToken>,
    idle_beat_due: bool,
    /// Leases with output that is to be sent.
    unsent: VecDeque<LeaseToken>,
}

/// A lease, while it lasts.
#[derive(Debug)]
struct Held {
    /// Open for as long as somebody works under the lease.
    orders: watch::Sender<Order>,
    /// It came and was not taken, so the book itself gives it back.
    untaken: bool,
    accept_due: bool,
    progress: Progress,
    metrics: Metrics,
    /// These have changed since the last report.
    changed: bool,
    /// Stages that are not known to be recorded.
    stages: VecDeque<String>,
    reports: Reports,
    /// It is in `speaking`, `beating`, `unsent`.
    speaks: bool,
    beats: bool,
    emits: bool,
    output: Output,
    /// How often a gap was found before output that was sent anew, with none of it durable in between.
    gaps: u32,
    /// Why no more output is taken.
    refused: Option<Error>,
    /// The server had less output than was announced, though it had time.
    missed: bool,
    end: Option<End>,
}

/// The reports about a lease that were not answered on the present stream.
#[derive(Debug, Default)]
struct Reports {
    /// How many.
    asked: u32,
    /// One of them has progress or measurements.
    carrying: bool,
    /// One of them has the first of the stages, and so many heartbeats were sent since.
    stage: Option<u32>,
}

/// How an attempt has ended, until the server has answered.
#[derive(Debug)]
struct End {
    message: Message,
    sent: bool,
    /// Whoever waits for the answer; nobody, where the book itself gives the job back.
    waiter: Option<oneshot::Sender<Result<(), Error>>>,
}

fn lost() -> Error {
    Error::Lost("the lease has ended".to_owned())
}

impl Book {
    /// Knows of no lease.
    pub fn new(identity: Identity) -> Self {
        Self {
            identity,
            pages: Mutex::default(),
            to_say: Notify::new(),
            to_emit: Notify::new(),
            reported: Notify::new(),
            arrived: Notify::new(),
            moved: Notify::new(),
        }
    }

    /// Wants so many jobs, and waits until there is one. Cancel safe: what comes meanwhile is there the next time.
    pub async fn lease(&self, kinds: &Arc<[String]>, count: usize) -> Result<Vec<LeasedJob>, Error> {
        {
            let mut pages = self.pages.lock();
            if pages.kinds.as_ref() != Some(kinds) {
                pages.kinds = Some(Arc::clone(kinds));
                // A stream is introduced once: for other kinds, there has to be another.
                pages.work += 1;
            }
            // Those that have come and were not taken have a place of their own.
            pages.wanted = count.saturating_sub(pages.arrived.len());
            pages.resting = false;
            pages.credit_due = true;
        }
        self.to_say.notify_one();
        loop {
            let arrived = self.arrived.notified();
            let leased: Vec<LeasedJob> = {
                let mut pages = self.pages.lock();
                let taken = count.min(pages.arrived.len());
                pages.arrived.drain(..taken).collect()
            };
            if !leased.is_empty() {
                return Ok(leased);
            }
            arrived.await;
        }
    }

    /// Wants no jobs until some are asked for again; gives back those that have come and were not taken, and those that are on
    /// their way.
    pub fn rest(&self) {
        let mut pages = self.pages.lock();
        pages.resting = true;
        pages.wanted = 0;
        pages.credit_due = pages.kinds.is_some();
        pages.give_back_arrived();
        drop(pages);
        self.to_say.notify_one();
    }

    /// Wants no more jobs; gives back those that have come and were not taken.
    pub fn drain(&self) {
        let mut pages = self.pages.lock();
        pages.draining = true;
        pages.drain_due = true;
        pages.give_back_arrived();
        drop(pages);
        self.to_say.notify_one();
    }

    /// Waits until what was not taken is given back.
    pub async fn given_back(&self) {
        loop {
            let moved = self.moved.notified();
            if !self.pages.lock().held.values().any(|held| held.untaken) {
                return;
            }
            moved.await;
        }
    }

    /// Takes note of progress, which is reported soon.
    pub fn report(
        &self,
        token: &LeaseToken,
        progress: Option<Progress>,
        metrics: Metrics,
    ) -> Result<(), Error> {
        self.with(token, |held| {
            if let Some(progress) = progress {
                held.progress = progress;
            }
            for (name, value) in metrics {
                if held.metrics.len() < METRICS_MAX || held.metrics.contains_key(&name) {
                    held.metrics.insert(name, value);
                }
            }
            held.changed = true;
        })?;
        self.reported.notify_one();
        Ok(())
    }

    /// Reports another stage, at once: none is left out. Waits where too many are not recorded yet.
    pub async fn enter_stage(&self, token: &LeaseToken, name: String) -> Result<(), Error> {
        loop {
            let moved = self.moved.notified();
            {
                let mut pages = self.pages.lock();
                let held = pages.held.get_mut(token).ok_or_else(lost)?;
                if held.stages.len() < STAGES_WAITING_MAX {
                    held.progress.stage.clone_from(&name);
                    held.stages.push_back(name);
                    pages.speak(token);
                    break;
                }
            }
            moved.await;
        }
        self.to_say.notify_one();
        Ok(())
    }

    /// What an attempt has measured.
    pub fn metrics(&self, token: &LeaseToken) -> Metrics {
        self.with(token, |held| held.metrics.clone()).unwrap_or_default()
    }

    /// Reports the end of an attempt, on this stream and on every later one until the server answers.
    pub async fn end(&self, token: &LeaseToken, message: Message) -> Result<(), Error> {
        let (answer, answered) = oneshot::channel();
        {
            let mut pages = self.pages.lock();
            let held = pages.held.get_mut(token).ok_or_else(lost)?;
            held.end = Some(End { message, sent: false, waiter: Some(answer) });
            pages.speak(token);
        }
        self.to_say.notify_one();
        answered.await.unwrap_or_else(|_| Err(lost()))
    }

    fn with<T>(&self, token: &LeaseToken, act: impl FnOnce(&mut Held) -> T) -> Result<T, Error> {
        self.pages.lock().held.get_mut(token).map(act).ok_or_else(lost)
    }
}

impl Pages {
    /// Something is to be said of this lease, which is held.
    fn speak(&mut self, token: &LeaseToken) {
        if let Some(held) = self.held.get_mut(token)
            && !std::mem::replace(&mut held.speaks, true)
        {
            self.speaking.push_back(*token);
        }
    }

    /// Gives back the jobs that have come and were not taken.
    fn give_back_arrived(&mut self) {
        for job in std::mem::take(&mut self.arrived) {
            self.give_back(&job.token);
        }
    }

    /// Gives back a job that nobody has taken.
    fn give_back(&mut self, token: &LeaseToken) {
        let message = match self.draining {
            true => messages::released(token),
            false => messages::given_back(token, "no jobs are wanted now".to_owned(), None),
        };
        if let Some(held) = self.held.get_mut(token) {
            held.untaken = true;
            held.end = Some(End { message, sent: false, waiter: None });
        }
        self.speak(token);
    }
}

impl Held {
    fn new(orders: watch::Sender<Order>, output_offset: u64) -> Self {
        Self {
            orders,
            untaken: false,
            accept_due: true,
            progress: Progress::default(),
            metrics: Metrics::new(),
            changed: false,
            stages: VecDeque::new(),
            reports: Reports::default(),
            speaks: false,
            beats: false,
            emits: false,
            output: Output::beginning_at(output_offset),
            gaps: 0,
            refused: None,
            missed: false,
            end: None,
        }
    }
}

/// What a refusal on a stream means here.
fn refused(reason: &str, message: String) -> Error {
    match reason {
        "LEASE_LOST" | "JOB_NOT_FOUND" => Error::Lost(message),
        "JOB_CANCELLED" => Error::Cancelled(message),
        "OUTPUT_LIMIT" | "CHANNEL_LIMIT" => Error::OutputLimit(message),
        "OUTPUT_CONFLICT" => Error::OutputConflict(message),
        "UNAVAILABLE" | "OUTCOME_UNKNOWN" => Error::Transient(message),
        _ => Error::Refused(message),
    }
}
