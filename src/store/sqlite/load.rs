//! Jobs, read from their rows; whatever is damaged is found here.

use super::rows::Carried;
use crate::job::*;
use crate::store::record::{self, Position};
use crate::store::{Error, Parts};
use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, Row};

/// A failure of the database, or of one row in it.
#[derive(Debug)]
pub enum ReadError {
    /// The database does not answer.
    Sqlite(rusqlite::Error),
    /// One row is damaged.
    Damaged(Error),
}

impl From<rusqlite::Error> for ReadError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl From<Error> for ReadError {
    fn from(error: Error) -> Self {
        Self::Damaged(error)
    }
}

/// A job from the columns of [`job`].
fn read_job(row: &Row<'_>) -> Result<Job, ReadError> {
    let id: [u8; 16] = row.get(0)?;
    let id = JobId::from_bytes(id);
    let (tenant, kind): (String, String) = (row.get(1)?, row.get(2)?);
    let ordinal = id.ordinal();
    let columns = [id.as_bytes().as_slice(), tenant.as_bytes(), kind.as_bytes()];
    let record = row.get_ref(3)?.as_blob().map_err(rusqlite::Error::from)?;
    let mut job: Job = record::decode(Position::of("job", ordinal), &columns, record)?;
    if let Some(emitted) = row.get_ref(4)?.as_blob_or_null().map_err(rusqlite::Error::from)? {
        job.emitted = record::decode(Position::of("emission", ordinal), &[], emitted)?;
    }
    Ok(Job { id, tenant, kind, ..job })
}

/// The job with this number, if it is kept.
pub fn job(connection: &Connection, ordinal: i64) -> Result<Option<Job>, ReadError> {
    const SQL: &str = "SELECT j.id, j.tenant, j.kind, j.record, e.record
        FROM jobs j LEFT JOIN emitted e ON e.ordinal = j.ordinal WHERE j.ordinal = ?1";
    let mut statement = connection.prepare_cached(SQL)?;
    let mut rows = statement.query([ordinal])?;
    rows.next()?.map(read_job).transpose()
}

/// What is carried along with a job: its labels, and the request that made it.
pub fn carried(connection: &Connection, ordinal: i64) -> Result<Carried, ReadError> {
    let record: Option<Vec<u8>> = connection
        .prepare_cached("SELECT record FROM specs WHERE ordinal = ?1")?
        .query_row([ordinal], |row| row.get(0))
        .optional()?;
    Ok(record::decode(Position::of("spec", ordinal), &[], &record.unwrap_or_default())?)
}

/// The latest-wins part of a job's current or last attempt.
pub fn live(connection: &Connection, job: &Job) -> Result<Live, ReadError> {
    let ordinal = job.id.ordinal();
    let record: Option<Vec<u8>> = connection
        .prepare_cached("SELECT record FROM live WHERE ordinal = ?1")?
        .query_row([ordinal], |row| row.get(0))
        .optional()?;
    decode_live(job, record.as_deref())
}

fn decode_live(job: &Job, record: Option<&[u8]>) -> Result<Live, ReadError> {
    let Some(record) = record else { return Ok(Live::default()) };
    let (attempt, live): (u32, Live) =
        record::decode(Position::of("progress", job.id.ordinal()), &[], record)?;
    Ok(if attempt == job.attempt { live } else { Live::default() })
}

/// The data of the checkpoint that a job has; empty where it has none, which its row says.
pub fn checkpoint(connection: &Connection, job: &Job) -> Result<Bytes, ReadError> {
    if job.checkpoint().is_none() {
        return Ok(Bytes::new());
    }
    let ordinal = job.id.ordinal();
    let record: Option<Vec<u8>> = connection
        .prepare_cached("SELECT record FROM checkpoints WHERE ordinal = ?1")?
        .query_row([ordinal], |row| row.get(0))
        .optional()?;
    Ok(record::decode(Position::of("checkpoint", ordinal), &[], &record.unwrap_or_default())?)
}

/// The result of a job that succeeded.
pub fn result(connection: &Connection, ordinal: i64) -> Result<Option<Bytes>, ReadError> {
    let record: Option<Vec<u8>> = connection
        .prepare_cached("SELECT record FROM results WHERE ordinal = ?1")?
        .query_row([ordinal], |row| row.get(0))
        .optional()?;
    Ok(record.map(|record| decode_result(ordinal, &record)).transpose()?)
}

fn decode_result(ordinal: i64, record: &[u8]) -> Result<Bytes, Error> {
    record::decode(Position::of("result", ordinal), &[], record)
}

/// Reads whole jobs, without their inputs and results.
const BASIC: &str = "SELECT j.id, j.tenant, j.kind, j.record, e.record, s.record, l.record, NULL, NULL
    FROM jobs j LEFT JOIN emitted e ON e.ordinal = j.ordinal LEFT JOIN specs s ON s.ordinal = j.ordinal
    LEFT JOIN live l ON l.ordinal = j.ordinal WHERE j.ordinal = ?1";

/// Reads whole jobs, without their inputs.
const RESULT: &str = "SELECT j.id, j.tenant, j.kind, j.record, e.record, s.record, l.record, NULL, r.record
    FROM jobs j LEFT JOIN emitted e ON e.ordinal = j.ordinal LEFT JOIN specs s ON s.ordinal = j.ordinal
    LEFT JOIN live l ON l.ordinal = j.ordinal LEFT JOIN results r ON r.ordinal = j.ordinal WHERE j.ordinal = ?1";

/// Reads whole jobs, without their results.
const INPUT: &str = "SELECT j.id, j.tenant, j.kind, j.record, e.record, s.record, l.record, s.input, NULL
    FROM jobs j LEFT JOIN emitted e ON e.ordinal = j.ordinal LEFT JOIN specs s ON s.ordinal = j.ordinal
    LEFT JOIN live l ON l.ordinal = j.ordinal WHERE j.ordinal = ?1";

/// Reads whole jobs.
const FULL: &str = "SELECT j.id, j.tenant, j.kind, j.record, e.record, s.record, l.record, s.input, r.record
    FROM jobs j LEFT JOIN emitted e ON e.ordinal = j.ordinal LEFT JOIN specs s ON s.ordinal = j.ordinal
    LEFT JOIN live l ON l.ordinal = j.ordinal LEFT JOIN results r ON r.ordinal = j.ordinal WHERE j.ordinal = ?1";

/// Reads what a worker needs to begin: there is no result, and what an earlier attempt reported is over.
const ASSIGNMENT: &str = "SELECT j.id, j.tenant, j.kind, j.record, e.record, s.record, NULL, s.input, NULL
    FROM jobs j LEFT JOIN emitted e ON e.ordinal = j.ordinal LEFT JOIN specs s ON s.ordinal = j.ordinal
    WHERE j.ordinal = ?1";

/// The whole job with this number, if it is kept.
pub fn snapshot(connection: &Connection, ordinal: i64, parts: Parts) -> Result<Option<Snapshot>, ReadError> {
    let sql = match (parts.input, parts.result) {
        (false, false) => BASIC,
        (false, true) => RESULT,
        (true, false) => INPUT,
        (true, true) => FULL,
    };
    query_snapshot(connection, sql, ordinal)
}

/// A ready job with all that its worker needs.
pub fn assignment(connection: &Connection, ordinal: i64) -> Result<Option<Snapshot>, ReadError> {
    query_snapshot(connection, ASSIGNMENT, ordinal)
}

fn query_snapshot(connection: &Connection, sql: &str, ordinal: i64) -> Result<Option<Snapshot>, ReadError> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([ordinal])?;
    rows.next()?.map(read_snapshot).transpose()
}

/// A whole job from the columns of these.
fn read_snapshot(row: &Row<'_>) -> Result<Snapshot, ReadError> {
    let job = read_job(row)?;
    let ordinal = job.id.ordinal();
    let blob = |index| -> Result<Option<&[u8]>, ReadError> {
        Ok(row.get_ref(index)?.as_blob_or_null().map_err(rusqlite::Error::from)?)
    };
    let carried: Carried = record::decode(Position::of("spec", ordinal), &[], blob(5)?.unwrap_or_default())?;
    let live = decode_live(&job, blob(6)?)?;
    let input = blob(7)?.map(Bytes::copy_from_slice);
    if input.as_ref().is_some_and(|input| crc32fast::hash(input) != carried.input_crc) {
        let why = format!("its checksum does not match (job number {ordinal})");
        return Err(Error::Damaged { what: "input", why }.into());
    }
    let result = blob(8)?.map(|record| decode_result(ordinal, record)).transpose()?;
    Ok(Snapshot {
        job,
        labels: carried.labels,
        request_id: carried.request_id,
        retry_of: carried.retry_of,
        trace: carried.trace,
        input,
        result,
        live,
        queue_position: None,
    })
}
