//! The leases that this server keeps: deadlines, and what is latest-wins of their attempts.
//!
//! All of it is in memory and can be thrown away: after a restart every lease gets a fresh term. Heartbeats never touch the
//! disk.

use super::error::Error;
use super::output::Output;
use crate::job::{Job, JobId, LeaseEnd, LeaseToken, Live, Metrics, Progress, Refusal, State, Timestamp};
use crate::store::LiveUpdate;
use parking_lot::Mutex;
use std::collections::HashSet;
use std::collections::hash_map::{Entry, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// What the server wants of the holder of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Go on.
    Continue,
    /// Stop the work and say so, within `grace`.
    Cancel {
        /// How long that may take.
        grace: Duration,
    },
    /// Stop at once: nothing can be recorded any more.
    Lost,
}

/// How long the next job of a concurrency key waits for a handler that does not notice that its lease is lost.
const LETTING_GO_MAX: Duration = Duration::from_secs(1);

/// The leases, by job.
#[derive(Debug, Default)]
pub struct Leases {
    held: Mutex<HashMap<JobId, Held>>,
    /// The orders of lost leases that had a place of a concurrency key, until their holders in this process let go.
    letting_go: Mutex<Vec<watch::Sender<Order>>>,
}

/// A lease, while it lasts.
#[derive(Debug)]
struct Held {
    token: LeaseToken,
    attempt: u32,
    orders: watch::Sender<Order>,
    live: Live,
    /// `live` has changed since it was last kept.
    changed: bool,
    /// When it ends unless it is renewed; never, where its holder lives in this process.
    deadline: Option<Timestamp>,
    progress_timeout: Option<Duration>,
    last_sign: Timestamp,
    output: Option<Arc<Output>>,
    /// Its holder is at work, in this process, in a place of a concurrency key.
    has_place: bool,
}

/// A lease whose time is over.
#[derive(Clone, Debug, PartialEq)]
pub struct Overdue {
    /// The lease.
    pub token: LeaseToken,
    /// Why it is over.
    pub cause: LeaseEnd,
    /// The last that was heard of its attempt.
    pub live: Live,
}

impl Leases {
    /// Keeps the lease that `job` is under, until `deadline` unless it is renewed; not where it, or a later one, is kept
    /// already.
    pub fn insert(&self, job: &Job, live: Live, deadline: Option<Timestamp>, now: Timestamp) {
        let Some(token) = job.lease_token() else { return };
        let order = match (job.state, job.cancel_deadline) {
            (State::Cancelling, Some(deadline)) => Order::Cancel { grace: deadline.since(now) },
            _ => Order::Continue,
        };
        let held = Held {
            token,
            attempt: job.attempt,
            orders: watch::Sender::new(order),
            live,
            changed: false,
            deadline,
            progress_timeout: job.options.progress_timeout,
            last_sign: now,
            output: None,
            has_place: deadline.is_none() && job.options.concurrency.is_some(),
        };
        match self.held.lock().entry(job.id) {
            Entry::Vacant(entry) => {
                entry.insert(held);
            }
            Entry::Occupied(mut entry) if entry.get().token.epoch < token.epoch => {
                self.end(entry.insert(held));
            }
            Entry::Occupied(_) => {}
        }
    }

    /// The leases that are kept here.
    pub fn tokens(&self) -> HashSet<LeaseToken> {
        self.held.lock().values().map(|held| held.token).collect()
    }

    /// Forgets a lease that has ended.
    pub fn lose(&self, token: &LeaseToken) {
        let mut leases = self.held.lock();
        if let Some(held) = leases.remove(&token.job) {
            if held.token == *token {
                self.end(held);
            } else {
                leases.insert(token.job, held);
            }
        }
    }

    fn end(&self, held: Held) {
        held.orders.send_replace(Order::Lost);
        if held.has_place && !held.orders.is_closed() {
            let mut letting_go = self.letting_go.lock();
            letting_go.retain(|orders| !orders.is_closed());
            letting_go.push(held.orders);
        }
    }

    /// Waits until the handlers in this process whose leases were lost have let go, so that no other begins in their place
    /// before. One that blocks its thread cannot be stopped, and is not waited for any longer. Cancel safe.
    pub async fn have_let_go(&self) {
        let ended: Vec<_> = {
            let mut ended = self.letting_go.lock();
            ended.retain(|orders| !orders.is_closed());
            ended.clone()
        };
        let closed = async {
            for orders in &ended {
                orders.closed().await;
            }
        };
        if tokio::time::timeout(LETTING_GO_MAX, closed).await.is_err() {
            self.letting_go.lock().retain(|orders| !ended.iter().any(|other| other.same_channel(orders)));
        }
    }

    /// What the holder of this lease is to do, from now on.
    pub fn orders(&self, token: &LeaseToken) -> Option<watch::Receiver<Order>> {
        self.with(token, |held| held.orders.subscribe()).ok()
    }

    /// Whether this very lease is kept here.
    pub fn has(&self, token: &LeaseToken) -> bool {
        self.with(token, |_| ()).is_ok()
    }

    /// Takes note of a step that a job has taken.
    pub fn follow(&self, job: &Job, now: Timestamp) {
        let mut leases = self.held.lock();
        let Entry::Occupied(mut entry) = leases.entry(job.id) else { return };
        if job.lease_token() != Some(entry.get().token) {
            self.end(entry.remove());
            return;
        }
        let held = entry.get_mut();
        held.attempt = job.attempt;
        if let (State::Cancelling, Some(deadline)) = (job.state, job.cancel_deadline) {
            held.orders.send_if_modified(|order| {
                let continues = *order == Order::Continue;
                if continues {
                    *order = Order::Cancel { grace: deadline.since(now) };
                }
                continues
            });
        }
    }

    /// Takes a report into account; returns what is now to be shown.
    pub fn report(
        &self,
        token: &LeaseToken,
        progress: Option<Progress>,
        metrics: Metrics,
        now: Timestamp,
    ) -> Result<(u32, Live), Error> {
        self.with(token, |held| {
            if let Some(progress) = progress {
                held.live.progress = held.live.progress.advanced_by(progress, now);
            }
            held.live.metrics.extend(metrics);
            held.changed = true;
            held.last_sign = now;
            (held.attempt, held.live.clone())
        })
    }

    /// The attempt has given a sign of life other than a report.
    pub fn touch(&self, token: &LeaseToken, now: Timestamp) -> Result<(), Error> {
        self.with(token, |held| held.last_sign = now)
    }

    /// What is latest-wins of the attempt under this lease.
    pub fn live(&self, token: &LeaseToken) -> Option<Live> {
        self.with(token, |held| held.live.clone()).ok()
    }

    /// The same, as of the end of the attempt, which its holder is about to report: it does no more.
    pub fn last_live(&self, token: &LeaseToken) -> Live {
        let last = self.with(token, |held| {
            held.has_place = false;
            held.live.clone()
        });
        last.unwrap_or_default()
    }

    /// What is latest-wins of a job's current attempt, if that is held here.
    pub fn live_of(&self, job: &Job) -> Option<Live> {
        let held = self.held.lock();
        let held = held.get(&job.id).filter(|held| held.attempt == job.attempt && job.lease.is_some())?;
        Some(held.live.clone())
    }

    /// The output of the attempt under this lease, made by the first that asks.
    pub fn output(&self, token: &LeaseToken, now: Timestamp) -> Result<Arc<Output>, Error> {
        self.with(token, |held| {
            held.last_sign = now;
            Arc::clone(held.output.get_or_insert_with(Arc::default))
        })
    }

    /// The same, if there was any.
    pub fn known_output(&self, token: &LeaseToken) -> Option<Arc<Output>> {
        self.with(token, |held| held.output.clone()).ok().flatten()
    }

    /// Up to `limit` attempts whose latest-wins part has changed since the last time.
    pub fn take_changed(&self, limit: usize) -> Vec<LiveUpdate> {
        let mut held = self.held.lock();
        let changed = held.values_mut().filter(|held| held.changed && held.attempt > 0).take(limit);
        changed
            .map(|held| {
                held.changed = false;
                LiveUpdate { job: held.token.job, attempt: held.attempt, live: held.live.clone() }
            })
            .collect()
    }

    /// The leases whose time is over.
    pub fn overdue(&self, now: Timestamp) -> Vec<Overdue> {
        let held = self.held.lock();
        let overdue = held.values().filter_map(|held| {
            let silent = now.since(held.last_sign);
            let cause = match (held.deadline, held.progress_timeout) {
                (Some(deadline), _) if deadline <= now && held.attempt == 0 => LeaseEnd::Unaccepted,
                (Some(deadline), _) if deadline <= now => LeaseEnd::Expired,
                (_, Some(timeout)) if silent > timeout => LeaseEnd::Stalled,
                _ => return None,
            };
            Some(Overdue { token: held.token, cause, live: held.live.clone() })
        });
        overdue.collect()
    }

    /// Gives every lease this much more time: the server was stopped for as long and heard nobody.
    pub fn postpone(&self, duration: Duration) {
        for held in self.held.lock().values_mut() {
            held.deadline = held.deadline.map(|deadline| deadline.after(duration));
            held.last_sign = held.last_sign.after(duration);
        }
    }

    fn with<T>(&self, token: &LeaseToken, act: impl FnOnce(&mut Held) -> T) -> Result<T, Error> {
        let mut held = self.held.lock();
        match held.get_mut(&token.job) {
            Some(held) if held.token == *token => Ok(act(held)),
            Some(_) | None => Err(Error::Refused(Refusal::LeaseLost)),
        }
    }
}
