//! What a worker elsewhere knows: which leases it holds, and what is still to be said of each.

use super::output::Output;
use super::{Identity, messages};
use crate::engine::Order;
use crate::job::{LeaseToken, Metrics, Progress};
use crate::proto::{self, directive::Action, work_request, work_request::Message, work_response};
use crate::worker::source::{Error, LeasedJob};
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::time::Duration;
use tokio::sync::{Notify, oneshot, watch};

/// How many leases one heartbeat renews.
const REPORTS_MAX: usize = 1_000;

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
    /// Output has become durable, or a lease has ended.
    moved: Notify,
}

#[derive(Debug, Default)]
struct Pages {
    /// Numbers the streams: one that is not the last says nothing more.
    work: u64,
    emit: u64,
    /// How many jobs are wanted, and whether the server is to be told.
    wanted: usize,
    credit_due: bool,
    /// How many the present stream has brought.
    received: i64,
    draining: bool,
    outgoing: VecDeque<Message>,
    arrived: VecDeque<LeasedJob>,
    held: HashMap<LeaseToken, Held>,
    /// Leases with output that is to be sent.
    unsent: VecDeque<LeaseToken>,
}

/// A lease, while it lasts.
#[derive(Debug)]
struct Held {
    orders: watch::Sender<Order>,
    progress: Progress,
    metrics: Metrics,
    /// These have changed since the last report.
    changed: bool,
    output: Output,
    /// Why no more output is taken.
    refused: Option<Error>,
    /// How the attempt ended, until the server has answered.
    end: Option<(Message, oneshot::Sender<Result<(), Error>>)>,
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
    pub async fn lease(&self, count: usize) -> Result<Vec<LeasedJob>, Error> {
        {
            let mut pages = self.pages.lock();
            // Those that have come and were not taken have a place of their own.
            pages.wanted = count.saturating_sub(pages.arrived.len());
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

    /// Wants no more jobs; gives back those that have come and were not taken.
    pub fn drain(&self) {
        let mut pages = self.pages.lock();
        pages.draining = true;
        pages.outgoing.push_back(Message::Drain(work_request::Drain {}));
        for job in std::mem::take(&mut pages.arrived) {
            pages.held.remove(&job.token);
            pages.outgoing.push_back(released(&job.token));
        }
        drop(pages);
        self.to_say.notify_one();
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
            held.metrics.extend(metrics);
            held.changed = true;
        })?;
        self.reported.notify_one();
        Ok(())
    }

    /// Reports another stage, at once: none is left out.
    pub fn enter_stage(&self, token: &LeaseToken, name: String) -> Result<(), Error> {
        {
            let mut pages = self.pages.lock();
            let held = pages.held.get_mut(token).ok_or_else(lost)?;
            held.progress.stage = name;
            let reports = vec![held.report(token)];
            pages.outgoing.push_back(Message::Heartbeat(proto::HeartbeatRequest { reports }));
        }
        self.to_say.notify_one();
        Ok(())
    }

    /// Takes output, and waits while too much of it is not durable.
    pub async fn append(&self, token: &LeaseToken, push: impl Fn(&mut Output)) -> Result<(), Error> {
        loop {
            let moved = self.moved.notified();
            let pushed = {
                let mut pages = self.pages.lock();
                let held = pages.held.get_mut(token).ok_or_else(lost)?;
                held.refused.clone().map_or(Ok(()), Err)?;
                let has_room = held.output.has_room();
                if has_room {
                    push(&mut held.output);
                    if !pages.unsent.contains(token) {
                        pages.unsent.push_back(*token);
                    }
                }
                has_room
            };
            if pushed {
                self.to_emit.notify_one();
                return Ok(());
            }
            moved.await;
        }
    }

    /// Waits until an attempt's output is as `done` wants it; returns how much there is.
    pub async fn flushed(&self, token: &LeaseToken, done: impl Fn(&Output) -> bool) -> Result<u64, Error> {
        loop {
            let moved = self.moved.notified();
            {
                let pages = self.pages.lock();
                let held = pages.held.get(token).ok_or_else(lost)?;
                if done(&held.output) {
                    return Ok(held.output.total());
                }
                held.refused.clone().map_or(Ok(()), Err)?;
            }
            moved.await;
        }
    }

    /// What an attempt has measured.
    pub fn metrics(&self, token: &LeaseToken) -> Metrics {
        self.with(token, |held| held.metrics.clone()).unwrap_or_default()
    }

    /// Reports the end of an attempt, on this stream and on every later one until the server answers.
    pub async fn end(&self, token: &LeaseToken, end: Message) -> Result<(), Error> {
        let (answer, answered) = oneshot::channel();
        {
            let mut pages = self.pages.lock();
            let Pages { held, outgoing, .. } = &mut *pages;
            let held = held.get_mut(token).ok_or_else(lost)?;
            if held.changed {
                // The last that it reported is not to come too late.
                let reports = vec![held.report(token)];
                outgoing.push_back(Message::Heartbeat(proto::HeartbeatRequest { reports }));
            }
            outgoing.push_back(end.clone());
            held.end = Some((end, answer));
        }
        self.to_say.notify_one();
        answered.await.unwrap_or_else(|_| Err(lost()))
    }

    /// Begins another `Work` stream: its number, and what it begins with.
    pub fn begin_work(&self) -> (u64, proto::WorkRequest) {
        let mut pages = self.pages.lock();
        pages.work += 1;
        pages.received = 0;
        pages.credit_due = true;
        pages.outgoing.clear();
        let going_on = pages.held.iter().filter(|(_, held)| held.end.is_none());
        let lease_tokens = going_on.map(|(token, _)| token.to_string()).collect();
        let Identity { worker_id, kinds, labels } = self.identity.clone();
        let hello = work_request::Hello { worker_id, kinds, lease_tokens, labels };
        (pages.work, proto::WorkRequest { message: Some(Message::Hello(hello)) })
    }

    /// Learns what has become of the leases, and repeats what was not answered.
    pub fn welcome(&self, directives: Vec<proto::Directive>) {
        directives.into_iter().for_each(|directive| self.direct(directive));
        let mut pages = self.pages.lock();
        let Pages { held, outgoing, draining, .. } = &mut *pages;
        outgoing.extend(held.values().filter_map(|held| Some(held.end.as_ref()?.0.clone())));
        if *draining {
            outgoing.push_back(Message::Drain(work_request::Drain {}));
        }
        drop(pages);
        self.to_say.notify_one();
    }

    /// The next message of a `Work` stream; none once there is a later one.
    pub async fn next_message(&self, stream: u64) -> Option<proto::WorkRequest> {
        loop {
            let to_say = self.to_say.notified();
            {
                let mut pages = self.pages.lock();
                if pages.work != stream {
                    return None;
                }
                if let Some(message) = pages.next_message() {
                    return Some(proto::WorkRequest { message: Some(message) });
                }
            }
            to_say.await;
        }
    }

    /// Puts down a heartbeat: for all leases, or for those whose progress has changed.
    pub fn beat(&self, all: bool) {
        let mut pages = self.pages.lock();
        let held = pages.held.iter_mut().filter(|(_, held)| held.end.is_none() && (all || held.changed));
        let reports: Vec<proto::Report> = held.map(|(token, held)| held.report(token)).collect();
        let beats = reports.chunks(REPORTS_MAX).map(|reports| reports.to_vec());
        let mut beats: Vec<Vec<proto::Report>> = beats.collect();
        if all && beats.is_empty() {
            // Also when idle, so that each side knows that the other is there.
            beats.push(Vec::new());
        }
        let messages =
            beats.into_iter().map(|reports| Message::Heartbeat(proto::HeartbeatRequest { reports }));
        pages.outgoing.extend(messages);
        drop(pages);
        self.to_say.notify_one();
    }

    /// Waits until progress has changed.
    pub async fn reported(&self) {
        self.reported.notified().await;
    }

    /// Takes a job that was assigned; it is accepted with that.
    pub fn assign(&self, assignment: proto::Assignment) -> Result<(), &'static str> {
        let token: LeaseToken =
            assignment.lease_token.parse().map_err(|_| "an assignment has no lease token")?;
        let (orders, receiver) = watch::channel(Order::Continue);
        let assignment = messages::assignment(assignment).ok_or("an assignment has no job")?;
        let mut pages = self.pages.lock();
        pages.received += 1;
        pages.wanted = pages.wanted.saturating_sub(1);
        if pages.draining {
            pages.outgoing.push_back(released(&token));
        } else {
            pages.held.insert(token, Held::new(orders));
            pages.arrived.push_back(LeasedJob { assignment, token, orders: receiver });
            let accept = work_request::Accept { lease_token: token.to_string() };
            pages.outgoing.push_back(Message::Accept(accept));
        }
        drop(pages);
        self.to_say.notify_one();
        self.arrived.notify_one();
        Ok(())
    }

    /// Does what the server wants of a lease.
    pub fn direct(&self, directive: proto::Directive) {
        let Ok(token) = directive.lease_token.parse::<LeaseToken>() else { return };
        let mut pages = self.pages.lock();
        let Some(held) = pages.held.get_mut(&token) else { return };
        match directive.action() {
            Action::Unspecified | Action::Renewed => {
                if !directive.reason.is_empty() {
                    tracing::warn!(job = %token.job, reason = directive.reason, "a report was not taken");
                }
            }
            Action::Cancel => {
                let grace = directive.grace.and_then(|grace| grace.try_into().ok());
                let grace = grace.unwrap_or(Duration::ZERO);
                held.orders.send_if_modified(|order| {
                    let continues = *order == Order::Continue;
                    if continues {
                        *order = Order::Cancel { grace };
                    }
                    continues
                });
            }
            // What has ended by its own report is told by the answer to that.
            Action::LeaseLost if held.end.is_some() => {}
            Action::LeaseLost => {
                held.orders.send_replace(Order::Lost);
                pages.held.remove(&token);
                drop(pages);
                self.moved.notify_waiters();
            }
        }
    }

    /// Takes the answer to the report of an end.
    pub fn acknowledge(&self, ack: work_response::Ack) {
        let Ok(token) = ack.lease_token.parse::<LeaseToken>() else { return };
        let answer = match ack.refusal.is_empty() {
            true => Ok(()),
            false => Err(refused(&ack.refusal, ack.message)),
        };
        let mut pages = self.pages.lock();
        let Some(held) = pages.held.get_mut(&token) else { return };
        let end = held.end.take();
        if matches!(answer, Ok(()) | Err(Error::Lost(_))) {
            pages.held.remove(&token);
        }
        drop(pages);
        self.moved.notify_waiters();
        if let Some((_, waiter)) = end {
            // Whoever asked may have been dropped.
            let _ = waiter.send(answer);
        }
    }

    /// Waits until there is output to send.
    pub async fn has_output(&self) {
        loop {
            let to_emit = self.to_emit.notified();
            if !self.pages.lock().unsent.is_empty() {
                return;
            }
            to_emit.await;
        }
    }

    /// Begins another `Emit` stream, which sends all that is not durable; its number.
    pub fn begin_emit(&self) -> u64 {
        let mut pages = self.pages.lock();
        pages.emit += 1;
        let Pages { held, unsent, .. } = &mut *pages;
        unsent.clear();
        for (token, held) in held.iter_mut() {
            held.output.rewind();
            if !held.output.is_empty() && held.refused.is_none() {
                unsent.push_back(*token);
            }
        }
        pages.emit
    }

    /// The next frame of an `Emit` stream; none once there is a later one.
    pub async fn next_frame(&self, stream: u64) -> Option<proto::AppendOutputRequest> {
        loop {
            let to_emit = self.to_emit.notified();
            {
                let mut pages = self.pages.lock();
                if pages.emit != stream {
                    return None;
                }
                if let Some(frame) = pages.next_frame() {
                    return Some(frame);
                }
            }
            to_emit.await;
        }
    }

    /// Takes note of what has become durable, or was refused.
    pub fn settle(&self, answer: proto::AppendOutputResponse) {
        let Ok(token) = answer.lease_token.parse::<LeaseToken>() else { return };
        let mut pages = self.pages.lock();
        let Some(held) = pages.held.get_mut(&token) else { return };
        if answer.refusal.is_empty() {
            held.output.settle(&answer);
        } else {
            match refused(&answer.refusal, answer.message) {
                // Whether the lease is lost is told on the other stream.
                Error::Transient(_) => {
                    held.output.rewind();
                    pages.unsent.push_back(token);
                    self.to_emit.notify_one();
                }
                error => held.refused = Some(error),
            }
        }
        drop(pages);
        self.moved.notify_waiters();
    }

    fn with<T>(&self, token: &LeaseToken, act: impl FnOnce(&mut Held) -> T) -> Result<T, Error> {
        self.pages.lock().held.get_mut(token).map(act).ok_or_else(lost)
    }
}

impl Pages {
    fn next_message(&mut self) -> Option<Message> {
        if let Some(message) = self.outgoing.pop_front() {
            return Some(message);
        }
        if std::mem::take(&mut self.credit_due) && !self.draining {
            let free_slots = i32::try_from(self.wanted).unwrap_or(i32::MAX);
            return Some(Message::Credit(work_request::Credit { free_slots, received: self.received }));
        }
        None
    }

    fn next_frame(&mut self) -> Option<proto::AppendOutputRequest> {
        while let Some(token) = self.unsent.pop_front() {
            let Some(held) = self.held.get_mut(&token) else { continue };
            if let Some(frame) = held.output.next_frame(&token.to_string()) {
                // Behind the others: each lease has its turn.
                self.unsent.push_back(token);
                return Some(frame);
            }
        }
        None
    }
}

impl Held {
    fn new(orders: watch::Sender<Order>) -> Self {
        Self {
            orders,
            progress: Progress::default(),
            metrics: Metrics::new(),
            changed: false,
            output: Output::default(),
            refused: None,
            end: None,
        }
    }

    fn report(&mut self, token: &LeaseToken) -> proto::Report {
        self.changed = false;
        let progress = (self.progress != Progress::default()).then(|| messages::progress(&self.progress));
        proto::Report { lease_token: token.to_string(), progress, metrics: self.metrics.clone() }
    }
}

fn released(token: &LeaseToken) -> Message {
    let reason = "the worker stops".to_owned();
    Message::Release(proto::ReleaseJobRequest { lease_token: token.to_string(), reason, delay: None })
}

/// What a refusal on a stream means here.
fn refused(reason: &str, message: String) -> Error {
    match reason {
        "LEASE_LOST" | "JOB_NOT_FOUND" => Error::Lost(message),
        "JOB_CANCELLED" => Error::Cancelled(message),
        "OUTPUT_LIMIT" | "CHANNEL_LIMIT" => Error::OutputLimit(message),
        "UNAVAILABLE" | "OUTCOME_UNKNOWN" | "OUTPUT_MISSING" | "OUTPUT_GAP" | "LOG_GAP" => {
            Error::Transient(message)
        }
        _ => Error::Refused(message),
    }
}
