//! Jobs as rows: what is written to each table. No decisions here.

use crate::job::*;
use crate::store::record::{self, Position};
use crate::store::{LiveUpdate, Rank};
use rusqlite::{Connection, params};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// What is only carried along, beside the input.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Carried {
    /// The client's own tags.
    pub labels: BTreeMap<String, String>,
    /// The request that made it.
    pub request_id: Option<String>,
    /// The job that it repeats.
    pub retry_of: Option<JobId>,
    /// Covers the input, which is a column of its own.
    pub input_crc: u32,
    /// Where its trace begins.
    pub trace: Option<Trace>,
}

/// The numbers of the places, which the indexes are bound to. They are part of the stored form.
pub mod place {
    /// Pending, and a worker may have it.
    pub const READY: i64 = 1;
    /// Pending, and waits for a place of its concurrency key.
    pub const BLOCKED: i64 = 2;
    /// Pending, and a worker is about to have it.
    pub const OFFERED: i64 = 3;
    /// The states of the same names.
    pub const SCHEDULED: i64 = 4;
    pub const RETRYING: i64 = 5;
    pub const RUNNING: i64 = 6;
    pub const CANCELLING: i64 = 7;
    pub const SUCCEEDED: i64 = 8;
    pub const FAILED: i64 = 9;
    pub const CANCELLED: i64 = 10;
    pub const EXPIRED: i64 = 11;
    /// Where a row lies that cannot be read: out of everybody's way.
    pub const DAMAGED: i64 = 12;

    /// Where jobs lie that a worker has or is about to have.
    pub const HELD: [i64; 3] = [OFFERED, RUNNING, CANCELLING];
}

/// Where a job lies.
pub fn place_of(job: &Job) -> i64 {
    match (job.state, job.place()) {
        (State::Pending, Place::Blocked) => place::BLOCKED,
        (State::Pending, Place::Held) => place::OFFERED,
        (State::Pending, Place::Ready | Place::Waiting | Place::Done) => place::READY,
        (state, _) => places_of(state)[0],
    }
}

/// Where jobs in a state lie.
pub fn places_of(state: State) -> &'static [i64] {
    match state {
        State::Pending => &[place::READY, place::BLOCKED, place::OFFERED],
        State::Scheduled => &[place::SCHEDULED],
        State::Retrying => &[place::RETRYING],
        State::Running => &[place::RUNNING],
        State::Cancelling => &[place::CANCELLING],
        State::Succeeded => &[place::SUCCEEDED],
        State::Failed => &[place::FAILED],
        State::Cancelled => &[place::CANCELLED],
        State::Expired => &[place::EXPIRED],
    }
}

/// Whether the jobs of a place lie there by rank.
pub fn is_ranked(place: i64) -> bool {
    matches!(place, place::READY | place::BLOCKED)
}

fn rank_of(job: &Job, place: i64) -> i64 {
    if is_ranked(place) { Rank::of(job).urgency } else { 0 }
}

/// A hash that stays the same for as long as stores exist.
pub fn hash(parts: &[&str]) -> i64 {
    let mut hasher = Sha256::new();
    let (last, others) = parts.split_last().expect("there is something to hash");
    for part in others {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.update(last);
    let digest = hasher.finalize();
    i64::from_le_bytes(digest[..8].try_into().expect("a digest has 32 bytes"))
}

fn columns(job: &Job) -> [&[u8]; 3] {
    [job.id.as_bytes(), job.tenant.as_bytes(), job.kind.as_bytes()]
}

/// Writes a new job.
pub fn insert(connection: &Connection, job: &Job, spec: &Spec) -> rusqlite::Result<()> {
    let ordinal = job.id.ordinal();
    let place = place_of(job);
    let concurrency = job.options.concurrency.as_ref();
    connection
        .prepare_cached(
            "INSERT INTO jobs (ordinal, id, tenant, kind, state, place, rank, due, concurrency_key,
             concurrency_limit, granted, record) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, NULL, ?11)",
        )?
        .execute(params![
            ordinal,
            job.id.as_bytes(),
            job.tenant,
            job.kind,
            job.state.name(),
            place,
            rank_of(job, place),
            job.next_due().map(Timestamp::as_micros),
            concurrency.map(|concurrency| &concurrency.key),
            concurrency.map(|concurrency| concurrency.limit),
            record::encode(Position::of("job", ordinal), &columns(job), job),
        ])?;
    let carried = Carried {
        labels: spec.labels.clone(),
        request_id: spec.request.as_ref().map(|request| request.id.clone()),
        retry_of: spec.retry_of,
        input_crc: crc32fast::hash(&spec.input),
        trace: spec.trace.clone(),
    };
    let carried = record::encode(Position::of("spec", ordinal), &[], &carried);
    connection
        .prepare_cached("INSERT INTO specs (ordinal, record, input) VALUES (?1, ?2, ?3)")?
        .execute(params![ordinal, carried, spec.input.as_ref()])?;
    insert_labels(connection, job, &spec.labels)
}

fn insert_labels(
    connection: &Connection,
    job: &Job,
    labels: &BTreeMap<String, String>,
) -> rusqlite::Result<()> {
    for (key, value) in labels {
        connection
            .prepare_cached("INSERT OR IGNORE INTO labels (hash, ordinal) VALUES (?1, ?2)")?
            .execute([hash(&[&job.tenant, key, value]), job.id.ordinal()])?;
    }
    Ok(())
}

/// Writes all that follows from a job's record, for a store whose tables were different.
pub fn place_anew(
    connection: &Connection,
    job: &Job,
    labels: &BTreeMap<String, String>,
) -> rusqlite::Result<()> {
    let place = place_of(job);
    let (due, purge) = (job.next_due(), job.purge_time());
    connection
        .prepare_cached("UPDATE jobs SET place = ?2, rank = ?3, due = ?4, purge = ?5 WHERE ordinal = ?1")?
        .execute(params![
            job.id.ordinal(),
            place,
            rank_of(job, place),
            due.map(Timestamp::as_micros),
            purge.map(Timestamp::as_micros),
        ])?;
    insert_labels(connection, job, labels)
}

/// Whether what stands beside a job's record follows from it, but where it was [set aside](set_aside).
pub fn is_placed(connection: &Connection, job: &Job) -> rusqlite::Result<bool> {
    let place = place_of(job);
    let concurrency = job.options.concurrency.as_ref();
    connection
        .prepare_cached(
            "SELECT 1 FROM jobs WHERE ordinal = ?1 AND state = ?2 AND concurrency_key IS ?3 AND concurrency_limit IS ?4
             AND granted IS ?5 AND (place = ?6 OR place = ?7 AND rank = ?8 AND due IS ?9 AND purge IS ?10)",
        )?
        .exists(params![
            job.id.ordinal(),
            job.state.name(),
            concurrency.map(|concurrency| &concurrency.key),
            concurrency.map(|concurrency| concurrency.limit),
            job.granted.then_some(1),
            place::DAMAGED,
            place,
            rank_of(job, place),
            job.next_due().map(Timestamp::as_micros),
            job.purge_time().map(Timestamp::as_micros),
        ])
}

/// Writes what a transition has made of a job.
pub fn update(connection: &Connection, before: &Job, step: &Transition) -> rusqlite::Result<()> {
    let job = &step.job;
    let ordinal = job.id.ordinal();
    let emitted_only = job.state_sequence == before.state_sequence
        && job.lease == before.lease
        && job.granted == before.granted;
    let record = || record::encode(Position::of("job", ordinal), &columns(job), job);
    let (state, place) = (job.state.name(), place_of(job));
    let rank = rank_of(job, place);
    let keeps_times =
        job.granted == before.granted && job.next_due() == before.next_due() && !job.state.is_final();
    // Three indexes less to look at, for most of all steps. A row that was set aside has lost its times.
    let written = keeps_times
        && !emitted_only
        && {
            let sql = "UPDATE jobs SET state = ?2, place = ?3, rank = ?4, record = ?5 WHERE ordinal = ?1 AND place <> ?6";
            let rest = params![ordinal, state, place, rank, record(), place::DAMAGED];
            connection.prepare_cached(sql)?.execute(rest)? > 0
        };
    // Of what was emitted the row says nothing.
    if !emitted_only && !written {
        let (due, purge) = (job.next_due(), job.purge_time());
        let (due, purge) = (due.map(Timestamp::as_micros), purge.map(Timestamp::as_micros));
        connection
            .prepare_cached(
                "UPDATE jobs SET state = ?2, place = ?3, rank = ?4, due = ?5, purge = ?6, granted = ?7, record = ?8
                 WHERE ordinal = ?1",
            )?
            .execute(params![ordinal, state, place, rank, due, purge, job.granted.then_some(1), record()])?;
    }
    if job.emitted != before.emitted {
        let record = record::encode(Position::of("emission", ordinal), &[], &job.emitted);
        connection
            .prepare_cached("INSERT OR REPLACE INTO emitted (ordinal, record) VALUES (?1, ?2)")?
            .execute(params![ordinal, record])?;
    }
    for event in &step.events {
        let position = Position { what: "event", ordinal, number: event.sequence };
        connection
            .prepare_cached("INSERT INTO events (ordinal, sequence, record) VALUES (?1, ?2, ?3)")?
            .execute(params![ordinal, event.sequence as i64, record::encode(position, &[], event)])?;
    }
    if let Some(result) = &step.result {
        let record = record::encode(Position::of("result", ordinal), &[], result);
        connection
            .prepare_cached("INSERT INTO results (ordinal, record) VALUES (?1, ?2)")?
            .execute(params![ordinal, record])?;
    }
    if let Some(data) = &step.checkpoint {
        let record = record::encode(Position::of("checkpoint", ordinal), &[], data);
        connection
            .prepare_cached("INSERT OR REPLACE INTO checkpoints (ordinal, record) VALUES (?1, ?2)")?
            .execute(params![ordinal, record])?;
    } else if before.checkpoint().is_some() && job.checkpoint().is_none() {
        connection.prepare_cached("DELETE FROM checkpoints WHERE ordinal = ?1")?.execute([ordinal])?;
    }
    if let Some(live) = &step.live {
        write_live(connection, &LiveUpdate { job: job.id, attempt: job.attempt, live: live.clone() })?;
    }
    Ok(())
}

/// Writes the latest-wins part of an attempt.
pub fn write_live(connection: &Connection, update: &LiveUpdate) -> rusqlite::Result<()> {
    let ordinal = update.job.ordinal();
    let record = record::encode(Position::of("progress", ordinal), &[], &(update.attempt, &update.live));
    connection
        .prepare_cached("INSERT OR REPLACE INTO live (ordinal, record) VALUES (?1, ?2)")?
        .execute(params![ordinal, record])?;
    Ok(())
}

/// Puts a row that cannot be read out of everybody's way; what is left of it stays for whoever repairs it.
pub fn set_aside(connection: &Connection, ordinal: i64) -> rusqlite::Result<()> {
    connection
        .prepare_cached("UPDATE jobs SET place = ?2, due = NULL, purge = NULL WHERE ordinal = ?1")?
        .execute(params![ordinal, place::DAMAGED])?;
    Ok(())
}

/// Deletes all of a job but its history and its request id.
pub fn delete(connection: &Connection, job: &Job, labels: &BTreeMap<String, String>) -> rusqlite::Result<()> {
    let ordinal = job.id.ordinal();
    for (key, value) in labels {
        connection
            .prepare_cached("DELETE FROM labels WHERE hash = ?1 AND ordinal = ?2")?
            .execute([hash(&[&job.tenant, key, value]), ordinal])?;
    }
    for sql in [
        "DELETE FROM jobs WHERE ordinal = ?1",
        "DELETE FROM specs WHERE ordinal = ?1",
        "DELETE FROM emitted WHERE ordinal = ?1",
        "DELETE FROM live WHERE ordinal = ?1",
        "DELETE FROM results WHERE ordinal = ?1",
    ] {
        connection.prepare_cached(sql)?.execute([ordinal])?;
    }
    // Most jobs have none, and none has to be looked for.
    if job.checkpoint().is_some() {
        connection.prepare_cached("DELETE FROM checkpoints WHERE ordinal = ?1")?.execute([ordinal])?;
    }
    Ok(())
}
