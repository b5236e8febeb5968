//! Brings a store of an earlier version to the present one, in one transaction: it is of one version or the other.

use super::load::{self, ReadError};
use super::rows;
use super::schema::VERSION;
use rusqlite::{Connection, OptionalExtension};

/// Brings a store from `version` to the present one.
pub fn bring_up(connection: &mut Connection, version: u32, tables: &str) -> Result<(), ReadError> {
    let moment = connection.transaction()?;
    match version {
        1 => from_version_1(&moment, tables)?,
        // Versions 2 to 4 differ in their records alone, each of which tells its own version; 5 has one table more.
        _ => moment
            .execute_batch("CREATE TABLE checkpoints (ordinal INTEGER PRIMARY KEY, record BLOB NOT NULL)")?,
    }
    moment.execute("UPDATE meta SET value = ?1 WHERE name = 'version'", [VERSION])?;
    Ok(moment.commit()?)
}

/// Version 1 had an index for each of what `shelf` is for now, no labels, counters by state alone, and forgot nothing.
fn from_version_1(moment: &Connection, tables: &str) -> Result<(), ReadError> {
    moment.execute_batch(
        "DROP INDEX ready; DROP INDEX due; DROP INDEX held; DROP INDEX blocked; DROP INDEX granted;
         DROP TABLE counters; ALTER TABLE jobs ADD COLUMN purge INTEGER;",
    )?;
    // What is there already stays as it is.
    let new = tables
        .replace("CREATE TABLE ", "CREATE TABLE IF NOT EXISTS ")
        .replace("CREATE INDEX ", "CREATE INDEX IF NOT EXISTS ");
    moment.execute_batch(&new)?;
    let mut last: Option<i64> = None;
    loop {
        let next: Option<i64> = moment
            .prepare_cached("SELECT ordinal FROM jobs WHERE ordinal > ?1 ORDER BY ordinal LIMIT 1")?
            .query_row([last.unwrap_or(i64::MIN)], |row| row.get(0))
            .optional()?;
        let Some(ordinal) = next else { break };
        last = next;
        match (load::job(moment, ordinal), load::carried(moment, ordinal)) {
            (Ok(Some(job)), Ok(carried)) => rows::place_anew(moment, &job, &carried.labels)?,
            (Err(ReadError::Sqlite(error)), _) | (_, Err(ReadError::Sqlite(error))) => {
                return Err(error.into());
            }
            (Ok(None), _) => {}
            (Err(ReadError::Damaged(error)), _) | (_, Err(ReadError::Damaged(error))) => {
                tracing::error!(%error, "a job cannot be read and is set aside");
                rows::set_aside(moment, ordinal)?;
            }
        }
    }
    moment.execute_batch(
        "INSERT INTO counters (tenant, kind, state, jobs)
             SELECT tenant, kind, state, count(*) FROM jobs GROUP BY tenant, kind, state;",
    )?;
    Ok(())
}
