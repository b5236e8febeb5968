//! The leases that this server keeps: deadlines, and what is latest-wins of their attempts.
//!
//! All of it is in memory and can be thrown away: after a restart every lease gets a fresh term. Heartbeats never touch the
//! disk.

use super::error::Error;
use super::output::Output;
use super::sent::Begun;
use super::workers::Holders;
use crate::job::limits::METRICS_MAX;
use crate::job::{Job, JobId, LeaseEnd, LeaseToken, Live, Metrics, Progress, Refusal, State, Timestamp};
use crate::store::LiveUpdate;
use parking_lot::Mutex;
use std::collections::{BTreeSet, HashMap};
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

/// What the server wants of the holder of a lease that goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Directive {
    /// What to do.
    pub order: Order,
    /// When the lease ends unless it is renewed.
    pub expire_time: Timestamp,
}

/// How long the next job of a concurrency key waits for a handler that does not notice that its lease is lost.
const LETTING_GO_MAX: Duration = Duration::from_secs(1);

/// The leases that this server keeps.
#[derive(Debug)]
pub struct Leases {
    /// How long one lasts without a sign of its holder, where that did not ask for something else.
    term: Duration,
    /// How soon a claim must be accepted.
    accept_timeout: Duration,
    kept: Mutex<Kept>,
    /// The orders of lost leases that had a place of a concurrency key, until their holders in this process let go.
    letting_go: Mutex<Vec<watch::Sender<Order>>>,
}

/// The leases, by job, and how many of them each worker has: elsewhere, and in this process, where others may be called so.
#[derive(Debug, Default)]
struct Kept {
    held: HashMap<JobId, Held>,
    by_worker: [HashMap<String, usize>; 2],
}

/// A lease, while it lasts.
#[derive(Debug)]
struct Held {
    token: LeaseToken,
    worker: String,
    /// Its attempt has begun, and has this number.
    accepted: bool,
    attempt: u32,
    term: Duration,
    orders: watch::Sender<Order>,
    live: Live,
    /// `live` has changed since it was last kept.
    changed: bool,
    /// When it ends unless it is renewed; never, where its holder lives in this process.
    deadline: Option<Timestamp>,
    /// That has passed, and its end is on its way to the store: whether it comes to it is decided there.
    ending: bool,
    /// When a worker must have let go that is to cancel.
    let_go_by: Timestamp,
    progress_timeout: Option<Duration>,
    last_sign: Timestamp,
    /// What the attempt had sent when this server took note of its lease.
    emitted: Begun,
    output: Option<Arc<Output>>,
    /// The stage that the last heartbeat entered, whether that is durable yet or not; empty where it is not known.
    stage: String,
    /// How many commands heartbeats have queued, and up to which of them all are done.
    queued: u64,
    done: u64,
    /// Its holder is at work, in this process, in a place of a concurrency key.
    has_place: bool,
}

impl Held {
    /// Where its holder is: 1 in this process, and 0 elsewhere.
    fn side(&self) -> usize {
        usize::from(self.deadline.is_none())
    }
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

impl Kept {
    fn insert(&mut self, held: Held) -> Option<Held> {
        *self.by_worker[held.side()].entry(held.worker.clone()).or_default() += 1;
        let before = self.held.insert(held.token.job, held);
        before.inspect(|before| self.uncount(before))
    }

    fn remove(&mut self, token: &LeaseToken) -> Option<Held> {
        self.get(token)?;
        self.held.remove(&token.job).inspect(|held| self.uncount(held))
    }

    fn uncount(&mut self, held: &Held) {
        let by_worker = &mut self.by_worker[held.side()];
        if let Some(count) = by_worker.get_mut(&held.worker) {
            *count -= 1;
            if *count == 0 {
                by_worker.remove(&held.worker);
            }
        }
    }

    fn get(&mut self, token: &LeaseToken) -> Option<&mut Held> {
        self.held.get_mut(&token.job).filter(|held| held.token == *token)
    }
}

impl Leases {
    /// Keeps none yet.
    pub fn new(term: Duration, accept_timeout: Duration) -> Self {
        Self { term, accept_timeout, kept: Mutex::default(), letting_go: Mutex::default() }
    }

    /// Keeps the lease that `job` is under, for a whole term; not where it, or a later one, is kept already.
    pub fn insert(&self, job: &Job, live: Live, now: Timestamp) {
        let (Some(token), Some(lease)) = (job.lease_token(), &job.lease) else { return };
        let order = match (job.state, job.cancel_deadline) {
            (State::Cancelling, Some(deadline)) => Order::Cancel { grace: deadline.since(now) },
            _ => Order::Continue,
        };
        let term = job.lease_term.unwrap_or(self.term);
        let deadline = now.after(if lease.accepted { term } else { self.accept_timeout });
        let held = Held {
            token,
            worker: lease.worker.clone(),
            accepted: lease.accepted,
            attempt: job.attempt,
            term,
            orders: watch::Sender::new(order),
            live,
            changed: false,
            deadline: (!lease.in_process).then_some(deadline),
            ending: false,
            let_go_by: job.cancel_deadline.unwrap_or(now),
            progress_timeout: job.options.progress_timeout,
            last_sign: now,
            emitted: Begun::of(job),
            output: None,
            stage: if lease.accepted { job.emitted.stage.clone() } else { String::new() },
            queued: 0,
            done: 0,
            has_place: lease.in_process && job.options.concurrency.is_some(),
        };
        let mut kept = self.kept.lock();
        if kept.held.get(&job.id).is_none_or(|known| known.token.epoch < token.epoch)
            && let Some(before) = kept.insert(held)
        {
            self.end(before);
        }
    }

    /// How many leases a worker of this name has, in this process or elsewhere.
    pub fn held_by(&self, in_process: bool, worker: &str) -> usize {
        self.kept.lock().by_worker[usize::from(in_process)].get(worker).copied().unwrap_or(0)
    }

    /// How many leases each worker has, by whether it is in this process and by its name.
    pub fn holders(&self) -> Holders {
        let kept = self.kept.lock();
        let sides = [false, true].into_iter().zip(&kept.by_worker);
        let counts = sides.flat_map(|(in_process, side)| side.iter().map(move |one| (in_process, one)));
        counts.map(|(in_process, (name, count))| ((in_process, name.clone()), *count)).collect()
    }

    /// How many leases are kept here.
    pub fn count(&self) -> usize {
        self.kept.lock().held.len()
    }

    /// The leases that are kept here.
    pub fn tokens(&self) -> BTreeSet<LeaseToken> {
        self.kept.lock().held.values().map(|held| held.token).collect()
    }

    /// Forgets a lease that has ended.
    pub fn lose(&self, token: &LeaseToken) {
        if let Some(held) = self.kept.lock().remove(token) {
            self.end(held);
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

    /// What the holder of this lease is to do, from now on, and when it ends as it is now.
    pub fn orders(&self, token: &LeaseToken) -> Option<(watch::Receiver<Order>, Timestamp)> {
        self.with(token, |held| (held.orders.subscribe(), held.deadline.unwrap_or(held.last_sign))).ok()
    }

    /// Whether this very lease is kept here.
    pub fn has(&self, token: &LeaseToken) -> bool {
        self.with(token, |_| ()).is_ok()
    }

    /// A heartbeat has come for a lease, which gives it another term; one that is not accepted yet keeps its time for that.
    ///
    /// Returns the number of a command that is to be queued, and durable, before what came with it is shown: one that enters
    /// `stage`, where there is one, or else accepts. That is so where something is new, where it is not certain that the lease
    /// goes on, and where another heartbeat's command is on its way, since what is shown must not overtake.
    pub fn beat(&self, token: &LeaseToken, stage: &str, now: Timestamp) -> Result<Option<u64>, Error> {
        self.with(token, |held| {
            let goes_on = held.accepted && !held.ending;
            if goes_on {
                held.deadline = held.deadline.map(|_| now.after(held.term));
            }
            let enters = !stage.is_empty() && stage != held.stage;
            if goes_on && !enters && held.queued == held.done {
                return None;
            }
            if !stage.is_empty() {
                stage.clone_into(&mut held.stage);
            }
            held.queued += 1;
            Some(held.queued)
        })
    }

    /// The command of a heartbeat that has this number, and so all before it, is done. Where that went well the lease goes on.
    pub fn beaten(&self, token: &LeaseToken, number: u64, well: bool, now: Timestamp) {
        let _ = self.with(token, |held| {
            held.done = held.done.max(number);
            match well {
                true => {
                    held.ending = false;
                    held.deadline = held.deadline.map(|_| now.after(held.term));
                }
                false => held.stage.clear(),
            }
        });
    }

    /// What its holder is to do as of now.
    pub fn directive(&self, token: &LeaseToken, now: Timestamp) -> Result<Directive, Error> {
        self.with(token, |held| {
            let order = match *held.orders.borrow() {
                Order::Cancel { .. } => Order::Cancel { grace: held.let_go_by.since(now) },
                other => other,
            };
            Directive { order, expire_time: held.deadline.unwrap_or(now) }
        })
    }

    /// Whether the attempt under this lease has begun.
    pub fn is_accepted(&self, token: &LeaseToken) -> Result<bool, Error> {
        self.with(token, |held| held.accepted)
    }

    /// Takes note of a step that a job has taken.
    pub fn follow(&self, job: &Job, now: Timestamp) {
        let mut kept = self.kept.lock();
        let Some(held) = kept.held.get_mut(&job.id) else { return };
        let lease = job.lease.as_ref().filter(|_| job.lease_token() == Some(held.token));
        let Some(lease) = lease else {
            let token = held.token;
            if let Some(held) = kept.remove(&token) {
                self.end(held);
            }
            return;
        };
        if lease.accepted && !held.accepted {
            held.accepted = true;
            held.ending = false;
            held.deadline = held.deadline.map(|_| now.after(held.term));
            held.last_sign = now;
            held.emitted = Begun::of(job);
        }
        held.attempt = job.attempt;
        if let (State::Cancelling, Some(deadline)) = (job.state, job.cancel_deadline) {
            held.let_go_by = deadline;
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
            measure(&mut held.live.metrics, metrics);
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

    /// Takes the last measurements of an attempt whose end its holder is about to report, and so is at work no more; returns
    /// the last of it that is latest-wins.
    pub fn take_last(&self, token: &LeaseToken, metrics: Metrics) -> Live {
        let last = self.with(token, |held| {
            held.has_place = false;
            measure(&mut held.live.metrics, metrics);
            held.live.clone()
        });
        last.unwrap_or_default()
    }

    /// What is latest-wins of a job's current attempt, if that is held here.
    pub fn live_of(&self, job: &Job) -> Option<Live> {
        let kept = self.kept.lock();
        let held = kept.held.get(&job.id)?;
        let is_current = held.accepted && held.attempt == job.attempt && job.lease.is_some();
        is_current.then(|| held.live.clone())
    }

    /// The output of the attempt under this lease, made by the first that asks.
    pub fn output(&self, token: &LeaseToken, now: Timestamp) -> Result<Arc<Output>, Error> {
        self.with(token, |held| {
            held.last_sign = now;
            Arc::clone(held.output.get_or_insert_with(|| Arc::new(Output::new(&held.emitted))))
        })
    }

    /// The same, if there was any.
    pub fn known_output(&self, token: &LeaseToken) -> Option<Arc<Output>> {
        self.with(token, |held| held.output.clone()).ok().flatten()
    }

    /// Up to `limit` attempts whose latest-wins part has changed since the last time, in the order of their jobs.
    pub fn take_changed(&self, limit: usize) -> Vec<LiveUpdate> {
        let mut kept = self.kept.lock();
        let changed = kept.held.values_mut().filter(|held| held.changed && held.accepted).take(limit);
        let update = |held: &mut Held| {
            held.changed = false;
            LiveUpdate { job: held.token.job, attempt: held.attempt, live: held.live.clone() }
        };
        let mut updates: Vec<_> = changed.map(update).collect();
        updates.sort_unstable_by_key(|update| update.job);
        updates
    }

    /// The leases whose time is over, in the order of their jobs. They are to be ended, and none of them is renewed any more unless
    /// that fails.
    pub fn overdue(&self, now: Timestamp) -> Vec<Overdue> {
        let mut kept = self.kept.lock();
        let overdue = kept.held.values_mut().filter_map(|held| {
            let silent = now.since(held.last_sign);
            let cause = match (held.deadline, held.progress_timeout) {
                (Some(deadline), _) if deadline <= now && !held.accepted => LeaseEnd::Unaccepted,
                (Some(deadline), _) if deadline <= now => LeaseEnd::Expired,
                (_, Some(timeout)) if held.accepted && silent > timeout => LeaseEnd::Stalled,
                _ => return None,
            };
            held.ending = true;
            Some(Overdue { token: held.token, cause, live: held.live.clone() })
        });
        let mut overdue: Vec<_> = overdue.collect();
        overdue.sort_unstable_by_key(|overdue| overdue.token.job);
        overdue
    }

    /// Gives every lease this much more time: the server was stopped for as long and heard nobody.
    pub fn postpone(&self, duration: Duration) {
        for held in self.kept.lock().held.values_mut() {
            held.deadline = held.deadline.map(|deadline| deadline.after(duration));
            held.last_sign = held.last_sign.after(duration);
        }
    }

    fn with<T>(&self, token: &LeaseToken, act: impl FnOnce(&mut Held) -> T) -> Result<T, Error> {
        self.kept.lock().get(token).map(act).ok_or(Error::Refused(Refusal::LeaseLost))
    }
}

/// Adds measurements; of new names only as many as there is room for.
fn measure(known: &mut Metrics, metrics: Metrics) {
    for (name, value) in metrics {
        if known.len() < METRICS_MAX || known.contains_key(&name) {
            known.insert(name, value);
        }
    }
}
