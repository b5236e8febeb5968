//! Forgetting jobs: at a client's word, or when their time to be kept is over.
//!
//! A step takes little time, however much belongs to a job: a history that is too long for one step, and a request id that
//! must outlive its job, are noted as left and go later.

use super::load::{self, ReadError};
use super::rows;
use super::writer::Writer;
use crate::job::{Job, JobId, Timestamp};
use crate::store::{Forgotten, Pruned, REQUEST_IDS_KEPT, Rejection, is_remembered};
use rusqlite::{Connection, OptionalExtension, params};

/// A history up to this number of events, and of this many bytes of output, goes together with its job.
const SHORT_HISTORY_EVENTS: u64 = 64;
const SHORT_HISTORY_BYTES: u64 = 128 << 10;
/// How many events of a longer one go in a step, and for how many jobs they count.
const PORTION_EVENTS: i64 = 64;
const PORTION_WEIGHT: usize = 8;
const FIRST_LEFT_REQUEST: &str = "SELECT min(ordinal) FROM left_requests";

/// Forgets one job that has ended.
pub fn delete(
    writer: &mut Writer,
    id: JobId,
    now: Timestamp,
) -> Result<Result<Forgotten, Rejection>, ReadError> {
    let job = match writer.load(id)? {
        Some(Ok(job)) => job,
        Some(Err(damaged)) => return Ok(Err(damaged)),
        None => return Ok(Err(Rejection::NotFound)),
    };
    if !job.state.is_final() {
        return Ok(Err(Rejection::Active));
    }
    match forget(writer, job, now) {
        Ok(forgotten) => Ok(Ok(forgotten)),
        Err(ReadError::Damaged(error)) => Ok(Err(Rejection::Damaged(error.to_string()))),
        Err(error) => Err(error),
    }
}

/// Forgets about `limit` jobs whose time is over, and of what is left of others.
pub fn prune(writer: &mut Writer, limit: usize, now: Timestamp) -> Result<Pruned, ReadError> {
    let mut pruned = Pruned::default();
    let over: Vec<i64> = writer
        .connection
        .prepare_cached(
            "SELECT ordinal FROM jobs INDEXED BY purge WHERE purge IS NOT NULL AND purge <= ?1
             ORDER BY purge, ordinal LIMIT ?2",
        )?
        .query_map(params![now.as_micros(), limit as i64], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    let mut done = over.len();
    for ordinal in over {
        let forgotten = match load::job(&writer.connection, ordinal) {
            Ok(Some(job)) => forget(writer, job, now),
            Ok(None) => continue,
            Err(error) => Err(error),
        };
        match forgotten {
            Ok(forgotten) => pruned.forgotten.push(forgotten),
            Err(ReadError::Damaged(error)) => {
                tracing::error!(%error, "a job whose time is over cannot be read and is set aside");
                rows::set_aside(&writer.connection, ordinal)?;
            }
            Err(error) => return Err(error),
        }
    }
    while done < limit && clear_history(&writer.connection)? {
        done += PORTION_WEIGHT;
    }
    while done < limit && clear_request(writer, now)? {
        done += 1;
    }
    pruned.next_due = if done >= limit { Some(now) } else { next_due(&writer.connection)? };
    Ok(pruned)
}

/// Deletes all of a job that may go now.
fn forget(writer: &mut Writer, job: Job, now: Timestamp) -> Result<Forgotten, ReadError> {
    let ordinal = job.id.ordinal();
    let carried = load::carried(&writer.connection, ordinal)?;
    rows::delete(&writer.connection, &job, &carried.labels)?;
    let history_is_short =
        job.sequence() <= SHORT_HISTORY_EVENTS && job.emitted.history_bytes <= SHORT_HISTORY_BYTES;
    match history_is_short {
        true => execute(&writer.connection, "DELETE FROM events WHERE ordinal = ?1", ordinal)?,
        false => execute(&writer.connection, "INSERT INTO left_histories (ordinal) VALUES (?1)", ordinal)?,
    }
    match carried.request_id {
        None => {}
        Some(_) if is_remembered(ordinal, false, now) => {
            execute(&writer.connection, "INSERT INTO left_requests (ordinal) VALUES (?1)", ordinal)?;
        }
        Some(_) => writer.requests.delete(&writer.connection, ordinal)?,
    }
    if ordinal == writer.last_ordinal {
        note_last(&writer.connection, &job)?;
    }
    writer.counters.add(&job.tenant, &job.kind, job.state, -1);
    Ok(Forgotten { job, labels: carried.labels })
}

fn execute(connection: &Connection, sql: &str, ordinal: i64) -> rusqlite::Result<()> {
    connection.prepare_cached(sql)?.execute([ordinal]).map(drop)
}

/// Deletes a portion of a history that is left; whether there was one.
fn clear_history(connection: &Connection) -> rusqlite::Result<bool> {
    let Some(ordinal) = first(connection, "SELECT min(ordinal) FROM left_histories")? else {
        return Ok(false);
    };
    let event: Option<i64> = connection
        .prepare_cached("SELECT min(sequence) FROM events WHERE ordinal = ?1")?
        .query_row([ordinal], |row| row.get(0))?;
    match event {
        Some(event) => {
            connection
                .prepare_cached("DELETE FROM events WHERE ordinal = ?1 AND sequence < ?2")?
                .execute([ordinal, event + PORTION_EVENTS])?;
        }
        None => execute(connection, "DELETE FROM left_histories WHERE ordinal = ?1", ordinal)?,
    }
    Ok(true)
}

/// Deletes the oldest request id that is left, if it need not be remembered any more; whether it was deleted.
fn clear_request(writer: &mut Writer, now: Timestamp) -> Result<bool, ReadError> {
    match first(&writer.connection, FIRST_LEFT_REQUEST)? {
        Some(ordinal) if !is_remembered(ordinal, false, now) => {
            writer.requests.delete(&writer.connection, ordinal)?;
            execute(&writer.connection, "DELETE FROM left_requests WHERE ordinal = ?1", ordinal)?;
            Ok(true)
        }
        Some(_) | None => Ok(false),
    }
}

fn first(connection: &Connection, sql: &str) -> rusqlite::Result<Option<i64>> {
    connection.prepare_cached(sql)?.query_row([], |row| row.get(0))
}

fn next_due(connection: &Connection) -> rusqlite::Result<Option<Timestamp>> {
    let purge: Option<i64> = connection
        .prepare_cached(
            "SELECT purge FROM jobs INDEXED BY purge WHERE purge IS NOT NULL ORDER BY purge LIMIT 1",
        )?
        .query_row([], |row| row.get(0))
        .optional()?;
    let request = first(connection, FIRST_LEFT_REQUEST)?;
    let request = request.map(|ordinal| JobId::time_of(ordinal).after(REQUEST_IDS_KEPT));
    Ok(purge.map(Timestamp::from_micros).into_iter().chain(request).min())
}

/// The newest ticket must not be given again, though its job is no more.
fn note_last(connection: &Connection, job: &Job) -> rusqlite::Result<()> {
    let last = [("last_ordinal", job.id.ordinal()), ("last_create_time", job.create_time.as_micros())];
    for (name, value) in last {
        connection
            .prepare_cached("INSERT OR REPLACE INTO meta (name, value) VALUES (?1, ?2)")?
            .execute(params![name, value])?;
    }
    Ok(())
}

/// The ordinal and the time of creation of the newest ticket that was noted so.
pub fn last_forgotten(connection: &Connection) -> rusqlite::Result<Option<(i64, Timestamp)>> {
    let value = |name: &str| -> rusqlite::Result<Option<i64>> {
        connection.query_row("SELECT value FROM meta WHERE name = ?1", [name], |row| row.get(0)).optional()
    };
    let time = value("last_create_time")?.map(Timestamp::from_micros);
    Ok(value("last_ordinal")?.zip(time))
}
