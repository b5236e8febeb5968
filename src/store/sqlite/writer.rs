//! The one connection that writes: a batch, a transaction, a flush.
//!
//! What it remembers follows from the tables. So after any error it is thrown away and opened anew, and nothing has to be
//! undone in memory.

use super::counters::Counters;
use super::load::{self, ReadError};
use super::requests::{Known, Requests, is_kept};
use super::room::Room;
use super::rows;
use super::schema::BUSY_TIMEOUT;
use super::{claim, forget, sweep};
use crate::job::{
    Command, IDS_PER_MILLISECOND, Job, JobId, Keeper, Live, Place, Spec, State, Timestamp, Transition,
    resume, transition,
};
use crate::store::*;
use rusqlite::{Connection, OptionalExtension, params};
use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

/// How much time passes between two notes of the time: so much less may be remembered after a restart.
const NOTE_TIME: Duration = Duration::from_secs(1);

/// The writing side of a store.
#[derive(Debug)]
pub struct Writer {
    pub(super) connection: Connection,
    pub(super) keeper: Keeper,
    pub(super) room: Room,
    pub(super) requests: Requests,
    /// The last id that was given.
    pub(super) last_ordinal: i64,
    pub(super) last_create_time: Timestamp,
    /// The newest time that is noted.
    latest: Timestamp,
    pub(super) counters: Counters,
    /// The jobs that a worker has, as their rows say: nearly all commands are for one of them.
    held: HashMap<JobId, Job>,
    /// For each set of kinds the tenant that was served last.
    pub(super) served: HashMap<String, String>,
    /// The concurrency keys that a sweep has to look at: some job of theirs came to wait, or left its place.
    pub(super) keys: BTreeSet<(String, String)>,
}

impl Writer {
    /// Reads what it must remember. Moves the log into the database first, as far as nobody else is reading it; all of it
    /// where a commit has failed: after a failed flush the log's end may be gone from the disk though it can still be read.
    pub fn open(
        connection: Connection,
        keeper: Keeper,
        room: Room,
        has_failed: bool,
    ) -> Result<Self, ReadError> {
        connection.execute_batch("PRAGMA wal_autocheckpoint=0")?;
        // A backup may take its time. Whoever starts need not wait for its end.
        connection.busy_timeout(if has_failed { BUSY_TIMEOUT } else { Duration::ZERO })?;
        let is_moved = connection
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| Ok(row.get::<_, i64>(0)? == 0))?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        if !is_moved && has_failed {
            return Err(rusqlite::Error::SqliteFailure(
                rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY),
                Some("somebody else reads the store, so the log cannot be moved into the database".into()),
            )
            .into());
        }
        let (last_ordinal, last_create_time) = last_ticket(&connection)?;
        let latest = noted_time(&connection)?.max(last_create_time);
        let keys = sweep::waited_for(&connection)?;
        Ok(Self {
            requests: Requests::open(&connection)?,
            counters: Counters::open(&connection)?,
            connection,
            keeper,
            room,
            last_ordinal,
            last_create_time,
            latest,
            held: HashMap::new(),
            served: HashMap::new(),
            keys,
        })
    }

    /// Carries out `batch` in one transaction, which is to be [committed](Self::commit). After an error this writer must not
    /// be used again.
    pub fn carry_out_all(&mut self, batch: Vec<Operation>, now: Timestamp) -> Result<Vec<Outcome>, Error> {
        let unavailable = |error: ReadError| match error {
            ReadError::Sqlite(error) => Error::Unavailable(error.to_string()),
            ReadError::Damaged(error) => error,
        };
        self.connection.execute_batch("BEGIN IMMEDIATE").map_err(|e| unavailable(e.into()))?;
        let changes = self.connection.total_changes();
        let mut outcomes = Vec::with_capacity(batch.len());
        for operation in batch {
            outcomes.push(self.carry_out(operation, now).map_err(unavailable)?);
        }
        // A batch that changed nothing is not to be flushed for this.
        if self.connection.total_changes() != changes && now.since(self.latest) >= NOTE_TIME {
            self.note_time(now).map_err(|e| unavailable(e.into()))?;
        }
        self.requests.merge(&self.connection).map_err(|e| unavailable(e.into()))?;
        self.counters.write(&self.connection).map_err(|e| unavailable(e.into()))?;
        Ok(outcomes)
    }

    /// Writes the transaction to the log and flushes it. After an error this writer must not be used again.
    pub fn commit(&self) -> Result<(), Error> {
        self.connection.execute_batch("COMMIT").map_err(|error| Error::Unknown(error.to_string()))
    }

    /// The newest time that this store was told, as far as that is noted.
    pub fn latest(&self) -> Timestamp {
        self.latest.max(self.last_create_time)
    }

    fn note_time(&mut self, now: Timestamp) -> rusqlite::Result<()> {
        let micros = now.as_micros();
        let mut note =
            self.connection.prepare_cached("INSERT OR REPLACE INTO meta (name, value) VALUES (?1, ?2)")?;
        note.execute(params!["latest", micros])?;
        note.execute(params!["latest_sum", time_sum(micros)])?;
        drop(note);
        self.latest = now;
        Ok(())
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
            Operation::Probe => {
                self.connection
                    .prepare_cached("INSERT OR REPLACE INTO meta (name, value) VALUES ('probed', ?1)")?
                    .execute([now.as_micros()])?;
                Outcome::Probe
            }
            Operation::Retry(retry) => Outcome::Retry(self.retry(&retry, now)?),
            Operation::Delete(id) => Outcome::Delete(forget::delete(self, id, now)?.map(Box::new)),
            Operation::Prune { limit } => Outcome::Prune(forget::prune(self, limit, now)?),
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
            let found = match self.requests.find(&self.connection, &spec.tenant, request, now) {
                Err(ReadError::Damaged(error)) => return Ok(Err(Rejection::Damaged(error.to_string()))),
                other => other?,
            };
            known.push(match found {
                Some(Known::Other) => return Ok(Err(Rejection::RequestIdReused { index })),
                // Nobody could be answered with it, and the others would have been made.
                Some(Known::Same(job)) if !is_kept(&self.connection, job.ordinal())? => {
                    return Ok(Err(Rejection::NotFound));
                }
                Some(Known::Same(job)) => Some(Earlier::Kept(job)),
                None if earlier < index => Some(Earlier::InBatch(earlier)),
                None => None,
            });
        }
        let new = known.iter().filter(|known| known.is_none()).count() as u64;
        let bytes = submissions.iter().map(|submission| submission.spec.input.len()).sum();
        if let Err(full) = self.room.check(&self.connection, self.counters.waiting(), new, bytes) {
            return Ok(Err(full));
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

    fn retry(&mut self, retry: &Retry, now: Timestamp) -> Result<Result<Submitted, Rejection>, ReadError> {
        // The request first: it may be a repeat of one whose job is forgotten by now.
        let tenant = &retry.tenant;
        if let Some(request) = &retry.request {
            match self.requests.find(&self.connection, tenant, request, now) {
                Ok(Some(Known::Same(job))) => return Ok(Ok(Submitted::Repeated(job))),
                Ok(Some(Known::Other)) => return Ok(Err(Rejection::RequestIdReused { index: 0 })),
                Ok(None) => {}
                Err(ReadError::Damaged(error)) => return Ok(Err(Rejection::Damaged(error.to_string()))),
                Err(error) => return Err(error),
            }
        }
        let snapshot = match load::snapshot(&self.connection, retry.job.ordinal(), Parts::FULL) {
            Ok(Some(snapshot)) if snapshot.job.id == retry.job && snapshot.job.tenant == *tenant => snapshot,
            Ok(_) => return Ok(Err(Rejection::NotFound)),
            Err(ReadError::Damaged(error)) => return Ok(Err(Rejection::Damaged(error.to_string()))),
            Err(error) => return Err(error),
        };
        if !snapshot.job.state.is_final() {
            return Ok(Err(Rejection::Active));
        }
        let spec = Spec::again(&snapshot, retry.request.clone(), retry.trace.clone());
        let output = retry.output.as_ref();
        let output = output.filter(|output| snapshot.job.checkpoint() == Some(output.len() as u64));
        let kept = match output.map(|output| (output, load::checkpoint(&self.connection, &snapshot.job))) {
            None => None,
            Some((output, Ok(checkpoint))) => Some((output.clone(), checkpoint)),
            Some((_, Err(ReadError::Damaged(error)))) => {
                return Ok(Err(Rejection::Damaged(error.to_string())));
            }
            Some((_, Err(error))) => return Err(error),
        };
        let taken_over = kept.as_ref().map_or(0, |(output, checkpoint)| output.len() + checkpoint.len());
        let bytes = spec.input.len() + taken_over;
        if let Err(full) = self.room.check(&self.connection, self.counters.waiting(), 1, bytes) {
            return Ok(Err(full));
        }
        let mut job = self.create(&spec, retry.chance, now)?;
        if let Some((output, checkpoint)) = kept {
            let step = resume(&job, output, checkpoint);
            rows::update(&self.connection, &job, &step)?;
            job = step.job;
        }
        Ok(Ok(Submitted::Created(Box::new(job))))
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
        self.counters.add(&job.tenant, &job.kind, job.state, 1);
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
    pub(super) fn load(&self, id: JobId) -> Result<Option<Result<Job, Rejection>>, ReadError> {
        match load::job(&self.connection, id.ordinal()) {
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
            if job.state != step.job.state {
                self.counters.add(&job.tenant, &job.kind, job.state, -1);
                self.counters.add(&job.tenant, &job.kind, step.job.state, 1);
            }
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
        match load::live(&self.connection, job) {
            Err(ReadError::Damaged(_)) => Ok(Live::default()),
            other => other,
        }
    }
}

/// The newest time that was noted, unless the note is damaged: a clock goes by it.
fn noted_time(connection: &Connection) -> rusqlite::Result<Timestamp> {
    let value = |name: &str| {
        let sql = "SELECT value FROM meta WHERE name = ?1";
        connection.query_row(sql, [name], |row| row.get::<_, i64>(0)).optional()
    };
    Ok(match (value("latest")?, value("latest_sum")?) {
        (Some(micros), Some(sum)) if sum == time_sum(micros) => Timestamp::from_micros(micros),
        (None, None) => Timestamp::default(),
        _ => {
            tracing::error!("the time that the store has noted is damaged; it goes by its newest job");
            Timestamp::default()
        }
    })
}

fn time_sum(micros: i64) -> i64 {
    i64::from(crc32fast::hash(&micros.to_be_bytes()))
}

/// The last ordinal that was given, and when.
fn last_ticket(connection: &Connection) -> Result<(i64, Timestamp), ReadError> {
    let kept: Option<i64> = connection.query_row("SELECT max(ordinal) FROM jobs", [], |row| row.get(0))?;
    let forgotten = forget::last_forgotten(connection)?;
    match kept {
        Some(kept) if forgotten.is_none_or(|(forgotten, _)| forgotten < kept) => {
            let time = match load::job(connection, kept) {
                Ok(job) => job.map(|job| job.create_time),
                Err(ReadError::Damaged(_)) => None,
                Err(error) => return Err(error),
            };
            // Its id tells as much, to the millisecond.
            Ok((kept, time.unwrap_or(JobId::time_of(kept + i64::from(IDS_PER_MILLISECOND)))))
        }
        _ => Ok(forgotten.unwrap_or_default()),
    }
}

/// The job that a submission repeats.
enum Earlier {
    Kept(JobId),
    InBatch(usize),
}
