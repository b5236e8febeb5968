//! A reader's way through many jobs: those that match now, then each change, latest wins.
//!
//! It is pulled by whoever reads it. It holds its place in the ring of changes, which jobs those were, which it has told of
//! since the last sync, and at most a page of jobs; one that falls behind begins anew.

use super::changes::{Behind, Change, Reader, States};
use super::{Engine, Error, Page, Parts};
use crate::job::{Filter, JobId, Snapshot};
use crate::store::Forgotten;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// After how much silence a watcher is told that the stream is alive.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// How many jobs a watcher holds at a time.
const PAGE_JOBS: usize = 64;
/// How many bytes of them.
const PAGE_BYTES: usize = 256 << 10;
/// How many of the jobs that it has told of a watcher remembers: half a MiB of them.
const TOLD_MAX: usize = 1 << 15;

/// How jobs are to be watched.
#[derive(Clone, Debug)]
pub struct WatchJobsOptions {
    /// Which.
    pub filter: Arc<Filter>,
    /// The shortest time between two messages about one job.
    pub minimum_interval: Duration,
    /// How many of those that match now come first.
    pub initial_jobs: usize,
}

/// What a watcher is told next.
#[derive(Clone, Debug)]
pub enum JobsMessage {
    /// A job that matches.
    Job(Box<Snapshot>),
    /// A job that matched and does not any more. Told at least once: what is read for one change may be newer than the next.
    Departed(Box<Snapshot>),
    /// A job that matched is no more.
    Forgotten(JobId),
    /// The reader knows what the server knows; what was not sent since the last of these is stale.
    Synced,
    /// Nothing has happened for a while.
    Keepalive,
}

/// Jobs that are being watched.
#[derive(Debug)]
pub struct WatchJobs {
    engine: Engine,
    tenant: String,
    options: WatchJobsOptions,
    /// As the filter has them.
    states: States,
    reader: Reader,
    phase: Phase,
    /// What has changed since the reader was told of it last.
    changed: HashMap<JobId, Changed>,
    /// The order in which to tell of it.
    order: VecDeque<JobId>,
    /// Of which jobs the reader was told since the last sync. It takes what was told before as stale at the next one, and
    /// has to be told again of these; nothing where there are too many.
    told: Option<HashSet<JobId>>,
    ready: VecDeque<JobsMessage>,
    next_round: Instant,
    last_sent: Instant,
}

/// How far it is.
#[derive(Clone, Copy, Debug)]
enum Phase {
    Begin,
    /// So many of those that match now are to come, from there on.
    Listing {
        left: usize,
        before: Option<i64>,
    },
    /// Tells what has changed since it began to list.
    CatchingUp,
    Synced,
}

/// What is known of a job that has changed.
#[derive(Debug, Default)]
struct Changed {
    /// The states that it was in since the reader was told of it.
    states: States,
    forgotten: Option<Arc<Forgotten>>,
    /// The reader knows of it.
    is_told: bool,
    /// It has its place in the order.
    is_ordered: bool,
}

impl WatchJobs {
    /// Takes a place in the ring of changes.
    pub(super) fn open(engine: &Engine, tenant: &str, options: WatchJobsOptions) -> Self {
        let states = match options.filter.states.as_slice() {
            [] => States::of(crate::job::State::ALL),
            some => States::of(some.iter().copied()),
        };
        let now = Instant::now();
        Self {
            engine: engine.clone(),
            tenant: tenant.to_owned(),
            options,
            states,
            reader: engine.shared().changes.join(),
            phase: Phase::Begin,
            changed: HashMap::new(),
            order: VecDeque::new(),
            told: Some(HashSet::new()),
            ready: VecDeque::new(),
            next_round: now,
            last_sent: now,
        }
    }

    /// Waits for what is to be told next.
    pub async fn next(&mut self) -> Result<JobsMessage, Error> {
        loop {
            if self.reader.is_closing() {
                return Err(Error::stopping());
            }
            if let Some(message) = self.ready.pop_front() {
                self.last_sent = Instant::now();
                self.remember(&message);
                return Ok(message);
            }
            match self.phase {
                Phase::Begin => self.begin()?,
                Phase::Listing { left: 0, .. } => {
                    self.phase = if self.take_changes().is_ok() { Phase::CatchingUp } else { Phase::Begin };
                }
                Phase::Listing { left, before } => self.list(left, before).await?,
                Phase::CatchingUp if self.order.is_empty() => {
                    self.end_round();
                    self.phase = Phase::Synced;
                    self.ready.push_back(JobsMessage::Synced);
                }
                Phase::CatchingUp => self.tell().await?,
                Phase::Synced if self.order.is_empty() => self.wait().await,
                Phase::Synced => {
                    self.tell().await?;
                    if self.order.is_empty() {
                        self.end_round();
                    }
                }
            }
        }
    }

    /// Takes note of what the reader knows when it has been told this.
    fn remember(&mut self, message: &JobsMessage) {
        match message {
            JobsMessage::Job(snapshot) => {
                if let Some(told) = &mut self.told {
                    told.insert(snapshot.job.id);
                    if told.len() > TOLD_MAX {
                        self.told = None;
                    }
                }
            }
            JobsMessage::Departed(snapshot) => self.unlearn(snapshot.job.id),
            JobsMessage::Forgotten(job) => self.unlearn(*job),
            JobsMessage::Synced => self.told = Some(HashSet::new()),
            JobsMessage::Keepalive => {}
        }
    }

    fn unlearn(&mut self, job: JobId) {
        if let Some(told) = &mut self.told {
            told.remove(&job);
        }
    }

    fn begin(&mut self) -> Result<(), Error> {
        let Some(told) = &self.told else {
            return Err(Error::Unavailable("too many changes to tell of: watch again".into()));
        };
        self.changed.clear();
        let mut order: Vec<JobId> = told.iter().copied().collect();
        order.sort_unstable();
        self.order = order.into();
        let known = || Changed { states: self.states, is_told: true, is_ordered: true, forgotten: None };
        self.changed.extend(told.iter().map(|job| (*job, known())));
        // Whatever happens from now on is told after the list, and what happened before is in it.
        let _ = self.reader.read(|_| {});
        self.phase = Phase::Listing { left: self.options.initial_jobs, before: None };
        Ok(())
    }

    async fn list(&mut self, left: usize, before: Option<i64>) -> Result<(), Error> {
        let page = Page { before, jobs: left.min(PAGE_JOBS), bytes: PAGE_BYTES };
        let filter = Arc::clone(&self.options.filter);
        let listed = self.engine.list(&self.tenant, filter, page, Parts::BASIC).await?;
        let left = if listed.next.is_some() { left - listed.jobs.len() } else { 0 };
        let jobs = listed.jobs.into_iter().map(|snapshot| JobsMessage::Job(Box::new(snapshot)));
        self.ready.extend(jobs);
        self.phase = Phase::Listing { left, before: listed.next };
        Ok(())
    }

    /// Takes note of all that has changed.
    fn take_changes(&mut self) -> Result<(), Behind> {
        let (changed, order) = (&mut self.changed, &mut self.order);
        self.reader.read(|change: &Change| {
            let known = changed.entry(change.job).or_default();
            if !std::mem::replace(&mut known.is_ordered, true) {
                order.push_back(change.job);
            }
            known.states = known.states.and(change.states);
            if change.forgotten.is_some() {
                known.forgotten.clone_from(&change.forgotten);
            }
        })
    }

    /// Gets the next of the jobs that have changed, and makes messages of them.
    async fn tell(&mut self) -> Result<(), Error> {
        let ids: Vec<JobId> = self.order.iter().take(PAGE_JOBS).copied().collect();
        let snapshots = self.engine.get_all(ids.clone()).await?;
        self.order.drain(..ids.len());
        for (id, snapshot) in ids.into_iter().zip(snapshots) {
            let Some(changed) = self.changed.remove(&id) else { continue };
            match (self.message(id, &changed, snapshot), &changed.forgotten) {
                (Some(message), _) => self.ready.push_back(message),
                // It is gone, and that will be told soon: until then it is not known whether it matched.
                (None, None) if changed.states.meets(self.states) => {
                    self.changed.insert(id, Changed { is_ordered: false, ..changed });
                }
                (None, _) => {}
            }
        }
        Ok(())
    }

    /// What a change means to this watcher, if anything.
    fn message(&self, id: JobId, changed: &Changed, snapshot: Option<Snapshot>) -> Option<JobsMessage> {
        let filter = &self.options.filter;
        let matched = changed.states.meets(self.states);
        match (snapshot, &changed.forgotten) {
            (Some(snapshot), _) => {
                let job = &snapshot.job;
                if job.tenant != self.tenant || !filter.may_match(job, &snapshot.labels) {
                    None
                } else if filter.has_state(job.state) {
                    Some(JobsMessage::Job(Box::new(snapshot)))
                } else {
                    matched.then(|| JobsMessage::Departed(Box::new(snapshot)))
                }
            }
            (None, Some(forgotten)) => {
                let Forgotten { job, labels } = forgotten.as_ref();
                let meant = job.tenant == self.tenant && filter.may_match(job, labels);
                (meant && matched).then_some(JobsMessage::Forgotten(job.id))
            }
            // It went while the reader was behind.
            (None, None) if changed.is_told => Some(JobsMessage::Forgotten(id)),
            (None, None) => None,
        }
    }

    /// No job is told of again before the interval is over.
    fn end_round(&mut self) {
        self.next_round = Instant::now() + self.options.minimum_interval;
    }

    /// Waits until there is something to tell.
    async fn wait(&mut self) {
        let keepalive = self.last_sent + KEEPALIVE;
        let has_news = self.reader.has_news();
        let until = if has_news { self.next_round.min(keepalive) } else { keepalive };
        if until > Instant::now() {
            let Reader { bell, closing, .. } = &mut self.reader;
            tokio::select! {
                biased;
                () = closing.cancelled() => {}
                // What comes on top of what is there already need not wake anybody.
                () = bell.rung(), if !has_news => {}
                () = tokio::time::sleep_until(until) => {}
            }
        }
        let now = Instant::now();
        if self.reader.has_news() && self.next_round <= now {
            if self.take_changes().is_err() {
                self.phase = Phase::Begin;
            }
        } else if keepalive <= now {
            self.ready.push_back(JobsMessage::Keepalive);
        }
    }
}
