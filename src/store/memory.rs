//! Jobs in memory: small and obviously correct, the model that every other store is compared with.
//!
//! It keeps values in maps, looks at all of them for each question, and is gone with its process.

use super::*;
use crate::job::{
    Body, Command, IDS_PER_MILLISECOND, Live, Place, Spec, State, Transition, resume, transition,
};
use bytes::Bytes;
use parking_lot::Mutex;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A store for tests and simulations.
#[derive(Debug)]
pub struct MemoryStore {
    kept: Mutex<Kept>,
    queue_max: u64,
    keeper: Keeper,
}

/// All that is committed.
#[derive(Clone, Debug, Default)]
struct Kept {
    jobs: BTreeMap<JobId, Record>,
    /// By tenant and request id: the request's fingerprint, and the job that it made.
    requests: BTreeMap<(String, String), ([u8; 32], JobId)>,
    /// The newest ticket and its time, whether its job is kept or not.
    last: Option<(JobId, Timestamp)>,
    /// For each set of kinds the tenant that was served last.
    served: BTreeMap<Arc<[String]>, String>,
}

/// A job and what belongs to it.
#[derive(Clone, Debug)]
struct Record {
    job: Job,
    spec: Arc<Spec>,
    events: Vec<Event>,
    result: Option<Bytes>,
    checkpoint: Option<Bytes>,
    /// The latest-wins part, and the attempt that it belongs to.
    live: (u32, Live),
}

impl MemoryStore {
    /// An empty store in which `queue_max` jobs may wait.
    pub fn new(queue_max: u64, keeper: Keeper) -> Self {
        Self { kept: Mutex::default(), queue_max, keeper }
    }

    /// A copy as a restart would leave it: with all that is stored, and nothing that was only remembered.
    pub fn reopened(&self) -> Self {
        let kept = Kept { served: BTreeMap::new(), ..self.kept.lock().clone() };
        Self { kept: Mutex::new(kept), queue_max: self.queue_max, keeper: self.keeper }
    }
}

impl Store for MemoryStore {
    fn commit(&self, batch: Vec<Operation>, now: Timestamp) -> Result<Vec<Outcome>, Error> {
        let mut kept = self.kept.lock();
        let carry_out = |operation| match operation {
            Operation::Submit(submissions) => Outcome::Submit(kept.submit(&submissions, self.queue_max, now)),
            Operation::Claim(claim) => Outcome::Claim(kept.claim(&claim, self.keeper, now)),
            Operation::Apply(id, command) => Outcome::Apply(kept.apply(id, *command, now).map(Box::new)),
            Operation::Sweep { limit, chance } => Outcome::Sweep(kept.sweep(limit, chance, now)),
            Operation::KeepLive(updates) => {
                updates.into_iter().for_each(|update| kept.keep_live(update));
                Outcome::KeepLive
            }
            Operation::Probe => Outcome::Probe,
            Operation::Retry(retry) => Outcome::Retry(kept.retry(&retry, self.queue_max, now)),
            Operation::Delete(id) => Outcome::Delete(kept.delete(id).map(Box::new)),
            Operation::Prune { limit } => Outcome::Prune(kept.prune(limit, now)),
        };
        Ok(batch.into_iter().map(carry_out).collect())
    }

    fn get(&self, ids: &[JobId], parts: Parts) -> Result<Vec<Option<Snapshot>>, Error> {
        let kept = self.kept.lock();
        Ok(ids.iter().map(|id| kept.jobs.get(id).map(|record| record.snapshot(parts))).collect())
    }

    fn list(&self, tenant: &str, filter: &Filter, page: Page, parts: Parts) -> Result<Listed, Error> {
        let kept = self.kept.lock();
        let newest_first = kept.jobs.values().rev();
        let older =
            newest_first.filter(|record| page.before.is_none_or(|before| record.job.id.ordinal() < before));
        let snapshots = older.map(|record| record.snapshot(parts));
        let mut matching =
            snapshots.filter(|snapshot| snapshot.job.tenant == tenant && filter.matches(snapshot)).peekable();
        let mut listed = Listed::default();
        let mut bytes = 0;
        while let Some(snapshot) = matching.next_if(|snapshot| {
            bytes += size(snapshot);
            listed.jobs.is_empty() || listed.jobs.len() < page.jobs && bytes <= page.bytes
        }) {
            listed.jobs.push(snapshot);
        }
        listed.next = matching.peek().map(|next| next.job.id.ordinal() + 1);
        Ok(listed)
    }

    fn count(&self, tenant: &str, kinds: &[String], limit: usize) -> Result<Vec<Count>, Error> {
        let kept = self.kept.lock();
        let mut counts: BTreeMap<(String, usize), Count> = BTreeMap::new();
        let theirs = kept.jobs.values().map(|record| &record.job).filter(|job| job.tenant == tenant);
        for job in theirs.filter(|job| kinds.is_empty() || kinds.contains(&job.kind)) {
            let place = (job.kind.clone(), job.state as usize);
            let count = Count { kind: job.kind.clone(), state: job.state, jobs: 0 };
            counts.entry(place).or_insert(count).jobs += 1;
        }
        Ok(counts.into_values().take(limit).collect())
    }

    fn queue(&self, tenant: &str, kind: &str, limit: usize) -> Result<Vec<Rank>, Error> {
        let kept = self.kept.lock();
        let jobs = kept.jobs.values().map(|record| &record.job);
        let theirs = jobs.filter(|job| job.tenant == tenant && job.kind == kind);
        let mut ranks: Vec<Rank> = theirs.filter(|job| job.place() == Place::Ready).map(Rank::of).collect();
        ranks.sort_unstable();
        ranks.truncate(limit);
        Ok(ranks)
    }

    fn events(&self, wanted: &[(JobId, Sequence)], limit: EventLimit) -> Result<Vec<Vec<Event>>, Error> {
        let kept = self.kept.lock();
        let history = |(id, after): &(JobId, Sequence)| match kept.jobs.get(id) {
            Some(record) => record.history(*after, limit),
            None => Vec::new(),
        };
        Ok(wanted.iter().map(history).collect())
    }

    fn held(&self, after: Option<JobId>, limit: usize) -> Result<Vec<Job>, Error> {
        let kept = self.kept.lock();
        let jobs = kept.jobs.values().map(|record| &record.job);
        let later = jobs.filter(|job| after.is_none_or(|after| job.id > after));
        let held = later.filter(|job| job.lease.as_ref().is_some_and(|lease| lease.keeper == self.keeper));
        Ok(held.take(limit).cloned().collect())
    }

    fn keeper(&self) -> Keeper {
        self.keeper
    }
}

impl Kept {
    /// Looks at all of them before it takes one in.
    fn submit(
        &mut self,
        submissions: &[Submission],
        queue_max: u64,
        now: Timestamp,
    ) -> Result<Vec<Submitted>, Rejection> {
        let mut within = BTreeMap::new();
        let mut new = 0;
        for (index, Submission { spec, .. }) in submissions.iter().enumerate() {
            let Some(request) = &spec.request else {
                new += 1;
                continue;
            };
            let key = (spec.tenant.clone(), request.id.clone());
            let kept = self.remembered(&key, now);
            let fingerprint = kept.map(|(fingerprint, _)| fingerprint);
            match fingerprint.or_else(|| within.get(&key).copied()) {
                Some(fingerprint) if fingerprint == request.fingerprint => {
                    if kept.is_some_and(|(_, id)| !self.jobs.contains_key(&id)) {
                        return Err(Rejection::NotFound);
                    }
                }
                Some(_) => return Err(Rejection::RequestIdReused { index }),
                None => {
                    within.insert(key, request.fingerprint);
                    new += 1;
                }
            }
        }
        self.check_room(new, queue_max)?;
        Ok(submissions.iter().map(|submission| self.admit(submission, now)).collect())
    }

    fn check_room(&self, new: u64, queue_max: u64) -> Result<(), Rejection> {
        let waiting = self.jobs.values().filter(|record| record.job.state.is_waiting()).count() as u64;
        match new > 0 && waiting + new > queue_max {
            true => Err(Rejection::QueueFull { limit: queue_max }),
            false => Ok(()),
        }
    }

    /// What a request id stands for still.
    fn remembered(&self, key: &(String, String), now: Timestamp) -> Option<([u8; 32], JobId)> {
        let request = self.requests.get(key).copied();
        request.filter(|(_, id)| is_remembered(id.ordinal(), self.jobs.contains_key(id), now))
    }

    fn retry(&mut self, retry: &Retry, queue_max: u64, now: Timestamp) -> Result<Submitted, Rejection> {
        if let Some(request) = &retry.request {
            match self.remembered(&(retry.tenant.clone(), request.id.clone()), now) {
                Some((fingerprint, id)) if fingerprint == request.fingerprint => {
                    return Ok(Submitted::Repeated(id));
                }
                Some(_) => return Err(Rejection::RequestIdReused { index: 0 }),
                None => {}
            }
        }
        let record = self.jobs.get(&retry.job).filter(|record| record.job.tenant == retry.tenant);
        let record = record.ok_or(Rejection::NotFound)?;
        if !record.job.state.is_final() {
            return Err(Rejection::Active);
        }
        let spec =
            Arc::new(Spec::again(&record.snapshot(Parts::FULL), retry.request.clone(), retry.trace.clone()));
        let kept = record.job.checkpoint().zip(record.checkpoint.clone());
        self.check_room(1, queue_max)?;
        let submitted = self.admit(&Submission { spec, chance: retry.chance }, now);
        match (submitted, kept, &retry.output) {
            (Submitted::Created(job), Some((bytes, data)), Some(output)) if bytes == output.len() as u64 => {
                let step = resume(&job, output.clone(), data);
                let record = self.jobs.get_mut(&job.id).expect("it was just taken in");
                record.job = step.job;
                record.events.extend(step.events);
                record.checkpoint = step.checkpoint;
                Ok(Submitted::Created(Box::new(record.job.clone())))
            }
            (submitted, ..) => Ok(submitted),
        }
    }

    fn delete(&mut self, id: JobId) -> Result<Forgotten, Rejection> {
        let record = self.jobs.get(&id).ok_or(Rejection::NotFound)?;
        if !record.job.state.is_final() {
            return Err(Rejection::Active);
        }
        let forgotten = Forgotten { job: record.job.clone(), labels: record.spec.labels.clone() };
        self.jobs.remove(&id);
        Ok(forgotten)
    }

    fn prune(&mut self, limit: usize, now: Timestamp) -> Pruned {
        let purge = |record: &Record| Some((record.job.purge_time()?, record.job.id));
        let mut over: Vec<_> =
            self.jobs.values().filter_map(purge).filter(|(time, _)| *time <= now).collect();
        over.sort_unstable();
        let forgotten: Vec<Forgotten> =
            over.into_iter().take(limit).filter_map(|(_, id)| self.delete(id).ok()).collect();
        let next_due = match forgotten.len() < limit {
            true => self.jobs.values().filter_map(purge).map(|(time, _)| time).min(),
            false => Some(now),
        };
        Pruned { forgotten, next_due }
    }

    fn admit(&mut self, submission: &Submission, now: Timestamp) -> Submitted {
        let spec = &submission.spec;
        let key = spec.request.as_ref().map(|request| (spec.tenant.clone(), request.id.clone()));
        if let Some((_, id)) = key.as_ref().and_then(|key| self.remembered(key, now)) {
            return Submitted::Repeated(id);
        }
        let (id, create_time) = self.next_ticket(submission.chance, now);
        self.last = Some((id, create_time));
        let job = Job::new(id, spec, create_time);
        if let (Some(key), Some(request)) = (key, &spec.request) {
            self.requests.insert(key, (request.fingerprint, id));
        }
        let events = vec![job.first_event()];
        let record = Record {
            job: job.clone(),
            spec: Arc::clone(spec),
            events,
            result: None,
            checkpoint: None,
            live: Default::default(),
        };
        self.jobs.insert(id, record);
        Submitted::Created(Box::new(job))
    }

    /// An id and a time of creation behind all others.
    fn next_ticket(&self, chance: u64, now: Timestamp) -> (JobId, Timestamp) {
        let Some((last, last_time)) = self.last else {
            return (JobId::new(now, 0, chance), now);
        };
        let create_time = now.max(last_time);
        let id = JobId::new(create_time, 0, chance);
        if id.ordinal() > last.ordinal() {
            return (id, create_time);
        }
        // A counter that runs over goes on in the next millisecond.
        let next = last.ordinal() + 1;
        let millisecond = Timestamp::from_micros(next / i64::from(IDS_PER_MILLISECOND) * 1000);
        (JobId::new(millisecond, JobId::counter(next), chance), create_time.max(millisecond))
    }

    fn claim(&mut self, claim: &Claim, keeper: Keeper, now: Timestamp) -> Dealt {
        let mut claimed = Vec::new();
        let mut bytes = 0;
        for slot in &claim.slots {
            let Some(id) = self.first_ready(&claim.kinds) else {
                return Dealt { claimed, exhausted: true };
            };
            let record = &self.jobs[&id];
            let checkpoint = record.checkpoint.clone().unwrap_or_default();
            let size = record.spec.input.len() + checkpoint.len();
            if !claimed.is_empty() && bytes + size > claim.bytes {
                break;
            }
            bytes += size;
            let command = Command::Lease {
                worker: slot.worker.clone(),
                keeper,
                secret: slot.secret,
                in_process: slot.in_process,
                term: slot.term,
                accept: slot.in_process,
            };
            let step = self.apply(id, command, now).expect("a ready job can be leased");
            let token = step.job.lease_token().expect("it was just leased");
            let snapshot = Snapshot { live: Live::default(), ..self.jobs[&id].snapshot(Parts::FULL) };
            self.served.insert(Arc::clone(&claim.kinds), snapshot.job.tenant.clone());
            claimed.push(Claimed { taker: slot.taker, snapshot, token, checkpoint, events: step.events });
        }
        Dealt { claimed, exhausted: false }
    }

    /// The best ready job of the tenant whose turn it is.
    fn first_ready(&self, kinds: &Arc<[String]>) -> Option<JobId> {
        let jobs = self.jobs.values().map(|record| &record.job);
        let ready: Vec<&Job> =
            jobs.filter(|job| job.place() == Place::Ready && kinds.contains(&job.kind)).collect();
        let tenants: BTreeSet<&String> = ready.iter().map(|job| &job.tenant).collect();
        let behind_last = |tenant: &&&String| self.served.get(kinds).is_none_or(|last| **tenant > last);
        let turn = tenants.iter().find(behind_last).or(tenants.first())?;
        ready.iter().filter(|job| job.tenant == **turn).min_by_key(|job| rank(job)).map(|job| job.id)
    }

    fn apply(&mut self, id: JobId, command: Command, now: Timestamp) -> Result<Transition, Rejection> {
        let record = self.jobs.get_mut(&id).ok_or(Rejection::NotFound)?;
        let step = transition(&record.job, command, now)?;
        record.job = step.job.clone();
        record.events.extend(step.events.iter().cloned());
        if let Some(result) = &step.result {
            record.result = Some(result.clone());
        }
        if let Some(data) = &step.checkpoint {
            record.checkpoint = Some(data.clone());
        } else if step.job.checkpoint().is_none() {
            record.checkpoint = None;
        }
        if let Some(live) = &step.live {
            record.live = (step.job.attempt, live.clone());
        }
        Ok(step)
    }

    fn sweep(&mut self, limit: usize, chance: u64, now: Timestamp) -> Swept {
        let mut transitions = Vec::new();
        let due = self.jobs.values().filter_map(|record| Some((record.job.next_due()?, record.job.id)));
        let mut due: Vec<_> = due.filter(|(time, _)| *time <= now).collect();
        due.sort_unstable();
        for (_, id) in due.into_iter().take(limit) {
            let command =
                Command::Advance { live: self.jobs[&id].live(), jitter: jitter(chance, id.ordinal()) };
            transitions.extend(self.apply(id, command, now));
        }
        while transitions.len() < limit
            && let Some(id) = self.first_blocked()
        {
            transitions.extend(self.apply(id, Command::Grant, now));
        }
        let next_due = match transitions.len() < limit {
            true => self.jobs.values().filter_map(|record| record.job.next_due()).min(),
            false => Some(now),
        };
        Swept { transitions, next_due }
    }

    /// The best blocked job of the first concurrency key that has a place for one.
    fn first_blocked(&self) -> Option<JobId> {
        let mut taken: BTreeMap<(&str, &str), u32> = BTreeMap::new();
        let keyed = || self.jobs.values().filter_map(|record| Some((key(&record.job)?, &record.job)));
        for (key, _) in keyed().filter(|(_, job)| job.granted) {
            *taken.entry(key).or_default() += 1;
        }
        let blocked = keyed().filter(|(_, job)| job.place() == Place::Blocked);
        let fitting = blocked.filter(|(key, job)| {
            let limit = job.options.concurrency.as_ref().map_or(0, |concurrency| concurrency.limit);
            taken.get(key).copied().unwrap_or(0) < limit
        });
        fitting.min_by_key(|(key, job)| (*key, rank(job))).map(|(_, job)| job.id)
    }

    fn keep_live(&mut self, update: LiveUpdate) {
        if let Some(record) = self.jobs.get_mut(&update.job)
            && matches!(record.job.state, State::Running | State::Cancelling)
            && record.job.attempt == update.attempt
        {
            record.live = (update.attempt, update.live);
        }
    }
}

impl Record {
    /// What is latest-wins of the current or last attempt, never of one before it.
    fn live(&self) -> Live {
        match &self.live {
            (attempt, live) if *attempt == self.job.attempt => live.clone(),
            _ => Live::default(),
        }
    }

    fn snapshot(&self, parts: Parts) -> Snapshot {
        Snapshot {
            job: self.job.clone(),
            labels: self.spec.labels.clone(),
            request_id: self.spec.request.as_ref().map(|request| request.id.clone()),
            retry_of: self.spec.retry_of,
            trace: self.spec.trace.clone(),
            input: parts.input.then(|| self.spec.input.clone()),
            result: self.result.clone().filter(|_| parts.result),
            live: self.live(),
            queue_position: None,
        }
    }

    fn history(&self, after: Sequence, limit: EventLimit) -> Vec<Event> {
        let mut bytes = 0;
        let later = self.events.iter().filter(|event| event.sequence > after).take(limit.events);
        let page = later.enumerate().take_while(|(index, event)| {
            bytes += event_size(event);
            *index == 0 || bytes <= limit.bytes
        });
        page.map(|(_, event)| event.clone()).collect()
    }
}

/// Its order of merit: priority, then creation.
fn rank(job: &Job) -> (Reverse<i8>, JobId) {
    (Reverse(job.options.priority), job.id)
}

/// Its concurrency key, within its tenant.
fn key(job: &Job) -> Option<(&str, &str)> {
    Some((&job.tenant, &job.options.concurrency.as_ref()?.key))
}

/// About how many bytes it takes.
fn event_size(event: &Event) -> usize {
    let result = match &event.body {
        Body::StateChanged(change) => change.result.as_ref().map_or(0, Bytes::len),
        _ => 0,
    };
    result + postcard::to_stdvec(event).map_or(0, |record| record.len())
}
