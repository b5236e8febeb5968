//! The one connection that writes: a batch, a transaction, a flush.
//!
//! What it remembers follows from the tables. So after any error it is thrown away and opened anew, and nothing has to be
//! undone in memory.

use super::requests::{Known, Requests};
use super::rows::{self, ReadError};
use super::{claim, sweep};
use crate::job::{
    Command, IDS_PER_MILLISECOND, Job, JobId, Keeper, Live, Place, State, Timestamp, Transition, transition,
};
use crate::store::*;
use rusqlite::{Connection, OptionalExtension};
use std::collections::{BTreeSet, HashMap};

/// The writing side of a store.
#[derive(Debug)]
pub struct Writer {
    pub(super) connection: Connection,
    pub(super) keeper: Keeper,
    queue_max: u64,
    requests: Requests,
    /// The last id that was given.
    last_ordinal: i64,
    last_create_time: Timestamp,
    counters: Counters,
    /// The jobs that a worker has, as their rows say: nearly all commands are for one of them.
    held: HashMap<JobId, Job>,
    /// For each set of kinds the tenant that was served last.
    pub(super) served: HashMap<String, String>,
    /// The concurrency keys that a sweep has to look at: some job of theirs came to wait, or left its place.
    pub(super) keys: BTreeSet<(String, String)>,
}

/// How many jobs are in each state.
#[derive(Debug, Default)]
struct Counters {
    jobs: HashMap<&'static str, i64>,
    changed: HashMap<&'static str, i64>,
}

impl Writer {
    /// Reads what it must remember. Makes sure first that all that was acknowledged before is in the database itself: after
    /// a failed flush the log's end may be gone from the disk though it can still be read.
    pub fn open(connection: Connection, keeper: Keeper, queue_max: u64) -> Result<Self, ReadError> {
        connection.execute_batch("PRAGMA wal_autocheckpoint=0")?;
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| match row.get::<_, i64>(0)? {
            0 => Ok(()),
            _ => Err(rusqlite::Error::SqliteFailure(
                rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY),
                Some("the log could not be moved into the database".into()),
            )),
        })?;
        let last_ordinal: Option<i64> =
            connection.query_row("SELECT max(ordinal) FROM jobs", [], |row| row.get(0))?;
        let last_ordinal = last_ordinal.unwrap_or(0);
        let last_create_time = match rows::load(&connection, last_ordinal) {
            Ok(job) => job.map_or(Timestamp::default(), |job| job.create_time),
            // Its id tells as much, to the millisecond.
            Err(ReadError::Damaged(_)) => {
                Timestamp::from_micros((last_ordinal / i64::from(IDS_PER_MILLISECOND) + 1) * 1000)
            }
            Err(error) => return Err(error),
        };
        let mut jobs = HashMap::new();
        for state in State::ALL {
            let count: Option<i64> = connection
                .query_row("SELECT jobs FROM counters WHERE state = ?1", [state.name()], |row| row.get(0))
                .optional()?;
            jobs.insert(state.name(), count.unwrap_or(0));
        }
        let keys = connection
            .prepare("SELECT DISTINCT tenant, concurrency_key FROM jobs WHERE place = 3")?
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<rusqlite::Result<_>>()?;
        Ok(Self {
            requests: Requests::open(&connection)?,
            connection,
            keeper,
            queue_max,
            last_ordinal,
            last_create_time,
            counters: Counters { jobs, changed: HashMap::new() },
            held: HashMap::new(),
            served: HashMap::new(),
            keys,
        })
    }

    /// Carries out `batch` in one transaction. After an error this writer must not be used again.
    pub fn commit(&mut self, batch: Vec<Operation>, now: Timestamp) -> Result<Vec<Outcome>, Error> {
        let unavailable = |error: ReadError| match error {
            ReadError::Sqlite(error) => Error::Unavailable(error.to_string()),
            ReadError::Damaged(error) => error,
        };
        self.connection.execute_batch("BEGIN IMMEDIATE").map_err(|e| unavailable(e.into()))?;
        let mut outcomes = Vec::with_capacity(batch.len());
        for operation in batch {
            outcomes.push(self.carry_out(operation, now).map_err(unavailable)?);
        }
        self.requests.merge(&self.connection).map_err(|e| unavailable(e.into()))?;
        self.write_counters().map_err(|e| unavailable(e.into()))?;
        self.connection.execute_batch("COMMIT").map_err(|error| Error::Unknown(error.to_string()))?;
        Ok(outcomes)
    }

    fn carry_out(&mut self, operation: Operation, now: Timestamp) -> Result<Outcome, ReadError> {
        Ok(match operation {
            Operation::Submit(submissions) => Outcome::Submit(self.submit(&submissions, now)?),
            Operation::Claim(claim) => Outcome::Claim(claim::claim(self, claim, now)?),
            Operation::Apply(id, command) => Outcome::Apply(self.apply(id, *command, now)?.map(Box::new)),
            Operation::Sweep { limit, chance } => Outcome::Sweep(sweep::sweep(self, limit, chance, now)?),
            Operation::KeepLive(updates) => {
                for update in &updates {
                    self.keep_live(update)?;
                }
                Outcome::KeepLive
            }
        })
    }

    fn submit(
        &mut self,
        submissions: &[Submission],
        now: Timestamp,
    ) -> Result<Result<Vec<Submitted>, Rejection>, ReadError> {
        let mut known = Vec::with_capacity(submissions.len());
        let mut within: HashMap<(&str, &str), usize> = HashMap::new();
        for (index, Submission { spec, .. }) in submissions.iter().enumerate() {
            let Some(request) = &spec.request else {
                known.push(None);
                continue;
            };
            // One that stands in the batch twice is the other's repeat; which job that is, is known once it is made.
            let earlier = *within.entry((&spec.tenant, &request.id)).or_insert(index);
            if submissions[earlier].spec.request.as_ref() != Some(request) {
                return Ok(Err(Rejection::RequestIdReused { index }));
            }
            let found = match self.requests.find(&self.connection, &spec.tenant, request) {
                Err(ReadError::Damaged(error)) => return Ok(Err(Rejection::Damaged(error.to_string()))),
                other => other?,
            };
            known.push(match found {
                Some(Known::Other) => return Ok(Err(Rejection::RequestIdReused { index })),
                Some(Known::Same(job)) => Some(Earlier::Kept(job)),
                None if earlier < index => Some(Earlier::InBatch(earlier)),
                None => None,
            });
        }
        let new = known.iter().filter(|known| known.is_none()).count() as u64;
        if new > 0 && self.counters.waiting() + new > self.queue_max {
            return Ok(Err(Rejection::QueueFull { limit: self.queue_max }));
        }
        let mut submitted: Vec<Submitted> = Vec::with_capacity(submissions.len());
        for (Submission { spec, chance }, known) in submissions.iter().zip(known) {
            let next = match known {
                Some(Earlier::Kept(job)) => Submitted::Repeated(job),
                Some(Earlier::InBatch(index)) => match &submitted[index] {
                    Submitted::Created(job) => Submitted::Repeated(job.id),
                    Submitted::Repeated(job) => Submitted::Repeated(*job),
                },
                None => Submitted::Created(Box::new(self.create(spec, *chance, now)?)),
            };
            submitted.push(next);
        }
        Ok(Ok(submitted))
    }

    fn create(&mut self, spec: &Spec, chance: u64, now: Timestamp) -> Result<Job, ReadError> {
        let create_time = now.max(self.last_create_time);
        let mut id = JobId::new(create_time, 0, chance);
        if id.ordinal() <= self.last_ordinal {
            // A counter that runs over goes on in the next millisecond, which then is the time of creation.
            let next = self.last_ordinal + 1;
            let millis = next / i64::from(IDS_PER_MILLISECOND);
            id = JobId::new(Timestamp::from_micros(millis * 1000), JobId::counter(next), chance);
        }
        let ordinal = id.ordinal();
        let floor = Timestamp::from_micros(ordinal / i64::from(IDS_PER_MILLISECOND) * 1000);
        let job = Job::new(id, spec, create_time.max(floor));
        rows::insert(&self.connection, &job, spec)?;
        if let Some(request) = &spec.request {
            self.requests.insert(&self.connection, &spec.tenant, request, id)?;
        }
        self.last_ordinal = ordinal;
        self.last_create_time = job.create_time;
        self.counters.add(job.state, 1);
        self.note_key(&job);
        Ok(job)
    }

    fn apply(
        &mut self,
        id: JobId,
        command: Command,
        now: Timestamp,
    ) -> Result<Result<Transition, Rejection>, ReadError> {
        let job = match self.held.remove(&id) {
            Some(job) => job,
            None => match self.load(id)? {
                Some(Ok(job)) => job,
                Some(Err(rejection)) => return Ok(Err(rejection)),
                None => return Ok(Err(Rejection::NotFound)),
            },
        };
        let stepped = self.step(&job, command, now)?.map_err(Rejection::from);
        if stepped.is_err() {
            self.note_held(&job);
        }
        Ok(stepped)
    }

    /// The job with this id; a damaged row concerns whoever asked for it, not the batch.
    fn load(&self, id: JobId) -> Result<Option<Result<Job, Rejection>>, ReadError> {
        match rows::load(&self.connection, id.ordinal()) {
            Ok(job) => Ok(job.filter(|job| job.id == id).map(Ok)),
            Err(ReadError::Damaged(error)) => Ok(Some(Err(Rejection::Damaged(error.to_string())))),
            Err(error) => Err(error),
        }
    }

    /// Lets `job` carry out `command`, and writes what came of it.
    pub(super) fn step(
        &mut self,
        job: &Job,
        command: Command,
        now: Timestamp,
    ) -> Result<Result<Transition, crate::job::Refusal>, ReadError> {
        let step = match transition(job, command, now) {
            Ok(step) => step,
            Err(refusal) => return Ok(Err(refusal)),
        };
        if step.job != *job {
            rows::update(&self.connection, job, &step)?;
            self.counters.add(job.state, -1);
            self.counters.add(step.job.state, 1);
            if job.granted && !step.job.granted || step.job.place() == Place::Blocked {
                self.note_key(&step.job);
            }
        }
        self.note_held(&step.job);
        Ok(Ok(step))
    }

    /// Remembers the row of a job that a worker has, and forgets it when it has the job no more.
    fn note_held(&mut self, job: &Job) {
        match job.place() {
            Place::Held => drop(self.held.insert(job.id, job.clone())),
            Place::Ready | Place::Waiting | Place::Blocked | Place::Done => drop(self.held.remove(&job.id)),
        }
    }

    /// A sweep has to look at the job's concurrency key, if it has one.
    fn note_key(&mut self, job: &Job) {
        if let Some(concurrency) = &job.options.concurrency {
            self.keys.insert((job.tenant.clone(), concurrency.key.clone()));
        }
    }

    fn keep_live(&mut self, update: &LiveUpdate) -> Result<(), ReadError> {
        let Some(Ok(job)) = self.load(update.job)? else { return Ok(()) };
        let runs = matches!(job.state, State::Running | State::Cancelling);
        if runs && job.attempt == update.attempt {
            rows::write_live(&self.connection, update)?;
        }
        Ok(())
    }

    /// The latest-wins part that is kept of a job's attempt; nothing where that is damaged.
    pub(super) fn live(&self, job: &Job) -> Result<Live, ReadError> {
        match rows::load_live(&self.connection, job) {
            Err(ReadError::Damaged(_)) => Ok(Live::default()),
            other => other,
        }
    }

    fn write_counters(&mut self) -> rusqlite::Result<()> {
        for (state, change) in self.counters.changed.drain().filter(|(_, change)| *change != 0) {
            self.connection
                .prepare_cached(
                    "INSERT INTO counters (state, jobs) VALUES (?1, ?2)
                     ON CONFLICT (state) DO UPDATE SET jobs = jobs + excluded.jobs",
                )?
                .execute((state, change))?;
        }
        Ok(())
    }
}

/// The job that a submission repeats.
enum Earlier {
    Kept(JobId),
    InBatch(usize),
}

impl Counters {
    fn add(&mut self, state: State, change: i64) {
        *self.jobs.entry(state.name()).or_default() += change;
        *self.changed.entry(state.name()).or_default() += change;
    }

    fn waiting(&self) -> u64 {
        let waiting = State::ALL.into_iter().filter(|state| state.is_waiting());
        waiting.map(|state| self.jobs.get(state.name()).copied().unwrap_or(0)).sum::<i64>().max(0) as u64
    }
}
