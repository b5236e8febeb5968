//! What clients ask for: start, repeat, stop and forget jobs, and read them.

use super::{
    Count, Engine, Error, EventLimit, Listed, Page, Parts, Stopping, Watch, WatchJobs, WatchJobsOptions,
    WatchOptions,
};
use crate::job::{Command, Event, Filter, Job, JobId, Place, RequestKey, Sequence, Snapshot, Spec, Trace};
use crate::store::{Operation, Outcome, Retry, Submission, Submitted};
use std::sync::Arc;
use std::time::Duration;

/// A job that was started.
#[derive(Clone, Debug, PartialEq)]
pub struct Started {
    /// The job, without its input.
    pub snapshot: Snapshot,
    /// The same request had made it before.
    pub repeated: bool,
}

impl Engine {
    /// Creates a job, or finds the one that its request id has already made. It is durable when this returns.
    pub async fn start(&self, spec: Spec) -> Result<Started, Error> {
        let mut started = self.start_all(vec![spec]).await?;
        Ok(started.pop().expect("there is one for each spec"))
    }

    /// Creates jobs, or finds those that their request ids have already made; all or none, in one durable step.
    ///
    /// A scheduled time is by the system's clock, which clients go by: it becomes what the engine's own clock will tell then.
    pub async fn start_all(&self, mut specs: Vec<Spec>) -> Result<Vec<Started>, Error> {
        for time in specs.iter_mut().filter_map(|spec| spec.options.schedule_time.as_mut()) {
            *time = self.shared().clock.translate(*time);
        }
        let specs: Vec<Arc<Spec>> = specs.into_iter().map(Arc::new).collect();
        let submit = |spec: &Arc<Spec>| Submission { spec: Arc::clone(spec), chance: self.shared().chance() };
        let operation = Operation::Submit(specs.iter().map(submit).collect());
        let Outcome::Submit(outcome) = self.shared().committer().commit(operation).await? else {
            unreachable!("an outcome is of its operation's kind")
        };
        let mut started = Vec::with_capacity(specs.len());
        for (submitted, spec) in outcome?.into_iter().zip(specs) {
            started.push(match submitted {
                Submitted::Created(job) => Started { snapshot: created(*job, &spec), repeated: false },
                Submitted::Repeated(id) => {
                    Started { snapshot: self.get(id, Parts::BASIC).await?, repeated: true }
                }
            });
        }
        Ok(started)
    }

    /// Creates a job like one that has ended, or finds the one that the request id has already made.
    pub async fn retry(
        &self,
        tenant: &str,
        job: JobId,
        request: Option<RequestKey>,
        trace: Option<Trace>,
    ) -> Result<Started, Error> {
        let _turn = self.shared().retries.acquire().await.map_err(|_| Error::stopping())?;
        let output = self.resumable(tenant, job).await?;
        let (tenant, chance) = (tenant.to_owned(), self.shared().chance());
        let retry = Retry { job, tenant, request, trace, output, chance };
        let Outcome::Retry(outcome) = self.shared().committer().commit(Operation::Retry(retry)).await? else {
            unreachable!("an outcome is of its operation's kind")
        };
        let (id, repeated) = match outcome? {
            Submitted::Created(job) => (job.id, false),
            Submitted::Repeated(id) => (id, true),
        };
        Ok(Started { snapshot: self.get(id, Parts::BASIC).await?, repeated })
    }

    /// Asks that a job stop, within `grace` or the server's own period. Repeating it, or asking after the end, changes
    /// nothing and is no error.
    pub async fn cancel(
        &self,
        id: JobId,
        reason: String,
        grace: Option<Duration>,
    ) -> Result<Snapshot, Error> {
        let grace = grace.unwrap_or(self.shared().settings.cancel_grace);
        let command = Command::Cancel { reason, grace };
        let operation = Operation::Apply(id, Box::new(command));
        let Outcome::Apply(outcome) = self.shared().committer().commit(operation).await? else {
            unreachable!("an outcome is of its operation's kind")
        };
        outcome?;
        self.get(id, Parts::BASIC).await
    }

    /// Forgets a job that has ended.
    pub async fn delete(&self, id: JobId) -> Result<(), Error> {
        let Outcome::Delete(outcome) = self.shared().committer().commit(Operation::Delete(id)).await? else {
            unreachable!("an outcome is of its operation's kind")
        };
        Ok(outcome.map(drop)?)
    }

    /// Makes sure that this server takes work: it is not about to stop, and what it writes becomes durable, or was a moment ago.
    pub async fn ready(&self) -> Result<(), Error> {
        match self.shared().stop.now() {
            Stopping::No => {}
            Stopping::Draining(_) | Stopping::Closing => return Err(Error::stopping()),
        }
        self.shared().committer().probe(&self.shared().clock).await
    }

    /// Whether nothing will ever be written again, though nobody has stopped the engine.
    pub fn is_dead(&self) -> bool {
        self.shared().committer().is_dead()
    }

    /// Returns a job as it is now.
    ///
    /// Reads on the caller's own thread: a row of a database in memory is nearer than another thread is.
    pub async fn get(&self, id: JobId, parts: Parts) -> Result<Snapshot, Error> {
        let shared = self.shared();
        let mut snapshot = shared.store.get(&[id], parts)?.pop().flatten().ok_or(Error::NotFound)?;
        self.add_live(&mut snapshot);
        snapshot.queue_position = shared.queues.position(shared.store.as_ref(), &snapshot.job, self.now());
        Ok(snapshot)
    }

    /// Returns jobs as they are now, in the order of `ids`, without their places in queues; none for one that is not kept.
    pub(super) async fn get_all(&self, ids: Vec<JobId>) -> Result<Vec<Option<Snapshot>>, Error> {
        let mut snapshots = self.read(move |store| store.get(&ids, Parts::BASIC)).await?;
        snapshots.iter_mut().flatten().for_each(|snapshot| self.add_live(snapshot));
        Ok(snapshots)
    }

    /// Returns a page of a tenant's jobs that match a filter, newest first.
    pub async fn list(
        &self,
        tenant: &str,
        filter: Arc<Filter>,
        page: Page,
        parts: Parts,
    ) -> Result<Listed, Error> {
        let tenant = tenant.to_owned();
        let mut listed = self.read(move |store| store.list(&tenant, &filter, page, parts)).await?;
        listed.jobs.iter_mut().for_each(|snapshot| self.add_live(snapshot));
        Ok(listed)
    }

    /// Counts a tenant's jobs by kind and state, of these kinds or of all; up to `limit` counts.
    pub async fn count(&self, tenant: &str, kinds: Vec<String>, limit: usize) -> Result<Vec<Count>, Error> {
        let tenant = tenant.to_owned();
        self.aside(move |engine| engine.count_here(&tenant, &kinds, limit)).await?
    }

    /// Counts likewise, on the caller's own thread, which has to be one that may block.
    pub fn count_here(&self, tenant: &str, kinds: &[String], limit: usize) -> Result<Vec<Count>, Error> {
        Ok(self.shared().store.count(tenant, kinds, limit)?)
    }

    /// Returns a job's kept events after a sequence, oldest first; empty where there are no more.
    pub async fn history(&self, id: JobId, after: Sequence, limit: EventLimit) -> Result<Vec<Event>, Error> {
        let mut histories = self.read(move |store| store.events(&[(id, after)], limit)).await?;
        let history = histories.pop().unwrap_or_default();
        if history.is_empty() {
            // No more events, or no such job any more?
            self.get(id, Parts::BASIC).await?;
        }
        Ok(history)
    }

    /// Watches a job from a cursor on.
    pub async fn watch(&self, id: JobId, options: WatchOptions) -> Result<Watch, Error> {
        Watch::open(self, id, options).await
    }

    /// Watches all of a tenant's jobs that match a filter.
    pub fn watch_jobs(&self, tenant: &str, options: WatchJobsOptions) -> WatchJobs {
        WatchJobs::open(self, tenant, options)
    }

    /// A running attempt's latest-wins part is newer in memory than in the store.
    fn add_live(&self, snapshot: &mut Snapshot) {
        if snapshot.job.place() == Place::Held
            && let Some(live) = self.shared().leases.live_of(&snapshot.job)
        {
            snapshot.live = live;
        }
    }
}

fn created(job: Job, spec: &Spec) -> Snapshot {
    Snapshot {
        job,
        labels: spec.labels.clone(),
        request_id: spec.request.as_ref().map(|request| request.id.clone()),
        retry_of: spec.retry_of,
        trace: spec.trace.clone(),
        input: None,
        result: None,
        live: Default::default(),
        queue_position: None,
    }
}
