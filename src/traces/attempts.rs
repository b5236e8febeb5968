//! The attempts of recorded jobs, from their claim to their end: one entry for each lease of such a job, and one for each that waits
//! for its next.
//!
//! All of it can be thrown away: what is held is told again after a restart.

use super::context::{self, Context, Key};
use super::span::Span;
use crate::job::{Body, Event, Job, JobId, LeaseToken, Snapshot, State, StateChange, Timestamp};
use opentelemetry::KeyValue;
use opentelemetry::trace::SpanKind;
use std::borrow::Cow;
use std::collections::HashMap;
use std::time::Duration;

/// How many jobs between two attempts are known; of more it is not told how long they waited.
const WAITING_MAX: usize = 10_000;

/// What is known of recorded jobs.
#[derive(Debug)]
pub struct Attempts {
    key: Key,
    held: HashMap<JobId, Held>,
    /// Jobs that have been held, and since when they wait for a worker; none while they wait for their time.
    waiting: HashMap<JobId, Option<Timestamp>>,
}

/// A lease of a recorded job.
#[derive(Debug)]
struct Held {
    token: LeaseToken,
    /// The call that started the job.
    started: Context,
    kind: String,
    worker: String,
    in_process: bool,
    claimed: Timestamp,
    /// The number of the attempt, and when it began.
    begun: Option<(u32, Timestamp)>,
}

/// How a lease has ended.
struct End {
    time: Timestamp,
    outcome: &'static str,
    reason: Cow<'static, str>,
    error: Option<Cow<'static, str>>,
}

impl Attempts {
    /// None yet, of jobs that this key tells are recorded.
    pub fn new(key: Key) -> Self {
        Self { key, held: HashMap::new(), waiting: HashMap::new() }
    }

    /// Whether no recorded job is held or waits for its next attempt.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty() && self.waiting.is_empty()
    }

    /// A worker has the job, and is told that it is in its attempt's span; returns the spans that have ended so.
    pub fn leased(&mut self, snapshot: &mut Snapshot, now: Timestamp, chance: impl Fn() -> u64) -> Vec<Span> {
        let Some(held) = Held::of(snapshot, &self.key, now) else { return Vec::new() };
        let job = &snapshot.job;
        snapshot.trace = Some(held.started.with(context::attempt(job.id, job.epoch)).told());
        let since = match self.waiting.remove(&job.id) {
            Some(since) => since,
            // Pending but once, so all the time that it was is this.
            None if job.epoch == 1 => {
                let queued = held.begun.map(|(_, begin)| before(begin, job.queue_duration));
                job.pending_time.or(queued)
            }
            None => job.pending_time,
        };
        let queue = since.map(|since| Span {
            end: held.claimed,
            attributes: vec![KeyValue::new("job.id", job.id.to_string())],
            ..Span::below(&held.started, held.started.by_chance(chance()).span, "queue", since)
        });
        let unknown = self.held.insert(job.id, held).map(|held| held.end(job.id, End::unknown(now)));
        queue.into_iter().chain(unknown).collect()
    }

    /// A worker has had the job since before this process knew of it.
    pub fn adopted(&mut self, snapshot: &Snapshot, now: Timestamp) {
        if let Some(held) = Held::of(snapshot, &self.key, now) {
            self.held.entry(snapshot.job.id).or_insert(held);
        }
    }

    /// The job is as it now is; returns the spans that have ended so.
    pub fn moved(
        &mut self,
        job: &Job,
        events: &[Event],
        now: Timestamp,
        chance: impl Fn() -> u64,
    ) -> Vec<Span> {
        let mut spans = Vec::new();
        for event in events {
            let Body::StateChanged(change) = &event.body else { continue };
            match change.state {
                State::Running => spans.extend(self.begun(job, event, chance())),
                State::Cancelling => {}
                _ => spans.extend(self.ended(job, event, change)),
            }
        }
        if job.lease.is_none()
            && let Some(held) = self.held.remove(&job.id)
        {
            spans.push(held.end(job.id, End::lapsed(now)));
            self.wait(job.id, Some(now));
        }
        spans
    }

    /// A lease has ended, and nobody knows how.
    pub fn lost(&mut self, token: &LeaseToken, now: Timestamp) -> Option<Span> {
        self.held.get(&token.job).filter(|held| held.token.epoch == token.epoch)?;
        self.held.remove(&token.job).map(|held| held.end(token.job, End::unknown(now)))
    }

    /// Forgets leases that are not kept. Nothing is recorded of them: who has seen the end has done that.
    pub fn keep(&mut self, is_kept: impl Fn(&LeaseToken) -> bool) {
        self.held.retain(|_, held| is_kept(&held.token));
    }

    /// The attempt has begun; where that took its worker a moment, that is a span of its own.
    fn begun(&mut self, job: &Job, event: &Event, chance: u64) -> Option<Span> {
        let held = self.held.get_mut(&job.id).filter(|held| held.token.epoch == job.epoch)?;
        held.begun = Some((event.attempt, event.time));
        let claim = Span::below(&held.started, held.started.by_chance(chance).span, "claim", held.claimed);
        Some(Span { end: event.time, attributes: held.attributes(job.id), ..claim })
    }

    fn ended(&mut self, job: &Job, event: &Event, change: &StateChange) -> Option<Span> {
        let ended = self.held.remove(&job.id).map(|held| held.end(job.id, End::of(event, change)));
        if ended.is_some() || self.waiting.contains_key(&job.id) {
            match change.state {
                State::Pending => self.wait(job.id, Some(event.time)),
                State::Scheduled | State::Retrying => self.wait(job.id, None),
                _ => drop(self.waiting.remove(&job.id)),
            }
        }
        ended
    }

    fn wait(&mut self, job: JobId, since: Option<Timestamp>) {
        if self.waiting.len() < WAITING_MAX || self.waiting.contains_key(&job) {
            self.waiting.insert(job, since);
        }
    }
}

impl Held {
    /// The lease that a job is under, where the job is recorded.
    fn of(snapshot: &Snapshot, key: &Key, now: Timestamp) -> Option<Self> {
        let job = &snapshot.job;
        let lease = job.lease.as_ref()?;
        let started = snapshot.trace.as_ref().and_then(Context::of)?;
        if !started.is_recorded(key) {
            return None;
        }
        let begin = job.attempt_start_time.filter(|_| lease.accepted);
        Some(Self {
            token: job.lease_token()?,
            started,
            kind: job.kind.clone(),
            worker: lease.worker.clone(),
            in_process: lease.in_process,
            claimed: begin.unwrap_or(now),
            begun: begin.map(|begin| (job.attempt, begin)),
        })
    }

    fn attributes(&self, job: JobId) -> Vec<KeyValue> {
        vec![
            KeyValue::new("job.id", job.to_string()),
            KeyValue::new("job.kind", self.kind.clone()),
            KeyValue::new("worker.id", self.worker.clone()),
        ]
    }

    /// The span that the worker was told of: the attempt, or where that never began, the claim.
    fn end(self, job: JobId, end: End) -> Span {
        let mut attributes = self.attributes(job);
        attributes.push(KeyValue::new("job.outcome", end.outcome));
        attributes.push(KeyValue::new("job.reason", end.reason));
        let (name, start) = match self.begun {
            Some((attempt, begin)) => {
                attributes.push(KeyValue::new("job.attempt", i64::from(attempt)));
                (Cow::Owned(format!("attempt {attempt}")), begin)
            }
            None => (Cow::Borrowed("claim"), self.claimed),
        };
        // Seen from here a worker elsewhere was asked to do something, and this is until it was done.
        let kind = if self.in_process { SpanKind::Internal } else { SpanKind::Client };
        let span = Span::below(&self.started, context::attempt(job, self.token.epoch), name, start);
        Span { end: end.time, kind, attributes, error: end.error, ..span }
    }
}

fn before(time: Timestamp, duration: Duration) -> Timestamp {
    let micros = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
    Timestamp::from_micros(time.as_micros().saturating_sub(micros))
}

impl End {
    fn of(event: &Event, change: &StateChange) -> Self {
        Self {
            time: event.time,
            outcome: change.state.name(),
            reason: change.reason.clone(),
            error: change.failure.as_ref().map(|failure| failure.reason.clone()),
        }
    }

    /// The claim was taken back, or given back, before the attempt began.
    fn lapsed(time: Timestamp) -> Self {
        Self { time, outcome: "LAPSED", reason: "LAPSED".into(), error: Some("LAPSED".into()) }
    }

    /// A commit has ended it whose outcome never came.
    fn unknown(time: Timestamp) -> Self {
        Self { time, outcome: "UNKNOWN", reason: "UNKNOWN".into(), error: None }
    }
}
