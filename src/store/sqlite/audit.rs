//! Whether a store contradicts itself: its indexes its tables, a row's columns its record, one table another.
//!
//! Records have a CRC of their own. One that is damaged is no business of this: it is told to whoever asks for that job.

use super::load::{self, ReadError};
use super::rows;
use crate::job::State;
use rusqlite::{Connection, OptionalExtension};

/// Stores of up to so many bytes are looked through at each start: a start must not take long, least of all after a crash. Of a
/// larger one, the records that are read are checked.
pub const BYTES_MAX: u64 = 16 << 20;

/// Statements that find nothing in a store that is whole, and what it is if they do.
const CONTRADICTIONS: [(&str, &str); 8] = [
    ("SELECT ordinal FROM jobs EXCEPT SELECT ordinal FROM specs", "a job without its spec"),
    (
        "SELECT ordinal FROM specs UNION SELECT ordinal FROM emitted UNION SELECT ordinal FROM live
         UNION SELECT ordinal FROM results UNION SELECT ordinal FROM checkpoints EXCEPT SELECT ordinal FROM jobs",
        "a part of a job that is not there",
    ),
    (
        "SELECT DISTINCT ordinal FROM events EXCEPT SELECT ordinal FROM jobs EXCEPT SELECT ordinal FROM left_histories",
        "a history of a job that is not there",
    ),
    (
        "SELECT ordinal FROM requests EXCEPT SELECT ordinal FROM jobs EXCEPT SELECT ordinal FROM left_requests",
        "a request id of a job that is not there",
    ),
    ("SELECT ordinal FROM labels EXCEPT SELECT ordinal FROM jobs", "a label of a job that is not there"),
    (
        "SELECT ordinal FROM requests WHERE ordinal <= (SELECT value FROM meta WHERE name = 'merged')
         EXCEPT SELECT ordinal FROM request_index",
        "a request id that is not in its index",
    ),
    (
        "SELECT 0 FROM (SELECT tenant, kind, state, count(*) FROM jobs GROUP BY tenant, kind, state
         EXCEPT SELECT tenant, kind, state, jobs FROM counters)",
        "a count that is not true",
    ),
    (
        "SELECT 0 FROM (SELECT tenant, kind, state, jobs FROM counters
         EXCEPT SELECT tenant, kind, state, count(*) FROM jobs GROUP BY tenant, kind, state)",
        "a count of nothing",
    ),
];

/// Looks through all of it; what is wrong, if anything is.
pub fn look_through(connection: &Connection) -> Result<Option<String>, ReadError> {
    // The tables and their indexes fit together, and every page is in its place.
    let found: String = connection.query_one("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    if found != "ok" {
        return Ok(Some(found));
    }
    for (sql, what) in CONTRADICTIONS {
        if let Some(ordinal) = connection.query_row(sql, [], |row| row.get::<_, i64>(0)).optional()? {
            return Ok(Some(format!("there is {what} (job number {ordinal})")));
        }
    }
    let ordinals: Vec<i64> = connection
        .prepare("SELECT ordinal FROM jobs ORDER BY ordinal")?
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    for ordinal in ordinals {
        match contradiction(connection, ordinal) {
            Ok(None) | Err(ReadError::Damaged(_)) => {}
            Ok(Some(what)) => return Ok(Some(format!("{what} (job number {ordinal})"))),
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// What of a job contradicts its record.
fn contradiction(connection: &Connection, ordinal: i64) -> Result<Option<&'static str>, ReadError> {
    let Some(job) = load::job(connection, ordinal)? else { return Ok(None) };
    if job.id.ordinal() != ordinal {
        return Ok(Some("a job lies in another's place"));
    }
    let carried = load::carried(connection, ordinal)?;
    let count = |sql: &str| connection.prepare_cached(sql)?.query_row([ordinal], |row| row.get::<_, i64>(0));
    if !rows::is_placed(connection, &job)? {
        return Ok(Some("what stands beside a job's record does not follow from it"));
    }
    for (key, value) in &carried.labels {
        let mut label = connection.prepare_cached("SELECT 1 FROM labels WHERE hash = ?1 AND ordinal = ?2")?;
        if !label.exists([rows::hash(&[&job.tenant, key, value]), ordinal])? {
            return Ok(Some("a job cannot be found by a label"));
        }
    }
    // The first event is not stored.
    let events = job.sequence() as i64 - 1;
    if count("SELECT count(*) FROM events WHERE ordinal = ?1")? != events
        || count("SELECT ifnull(max(sequence), 1) FROM events WHERE ordinal = ?1")? != events + 1
    {
        return Ok(Some("a history has not as many events as its job"));
    }
    if (job.state == State::Succeeded) != (count("SELECT count(*) FROM results WHERE ordinal = ?1")? == 1) {
        return Ok(Some("a result is not there, or one that nobody gave"));
    }
    if job.checkpoint().is_some() != (count("SELECT count(*) FROM checkpoints WHERE ordinal = ?1")? == 1) {
        return Ok(Some("a checkpoint is not there, or one that the job does not know of"));
    }
    if carried.request_id.is_some() && count("SELECT count(*) FROM requests WHERE ordinal = ?1")? == 0 {
        return Ok(Some("a request id is not there"));
    }
    Ok(None)
}
