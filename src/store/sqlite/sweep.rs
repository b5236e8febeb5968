//! What is due, and the places of concurrency keys.

use super::load::{self, ReadError};
use super::rows;
use super::writer::Writer;
use crate::job::{Command, Timestamp, Transition};
use crate::store::{Swept, jitter};
use rusqlite::{Connection, OptionalExtension, params};
use std::collections::BTreeSet;

/// How many different limits of one key are told apart; jobs with yet another wait until one of these is gone.
const LIMITS_MAX: usize = 16;
/// How many keys a sweep looks at: of many few may have a place to give, and looking takes its time as well.
const KEYS_MAX: usize = 500;

/// Does up to `limit` things that are due by `now`.
pub fn sweep(writer: &mut Writer, limit: usize, chance: u64, now: Timestamp) -> Result<Swept, ReadError> {
    let mut transitions = Vec::new();
    let due: Vec<i64> = writer
        .connection
        .prepare_cached("SELECT ordinal FROM jobs INDEXED BY due WHERE due IS NOT NULL AND due <= ?1 ORDER BY due LIMIT ?2")?
        .query_map([now.as_micros(), limit as i64], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    for ordinal in due {
        let job = match load::job(&writer.connection, ordinal) {
            Ok(Some(job)) => job,
            Ok(None) => continue,
            Err(ReadError::Damaged(error)) => {
                tracing::error!(%error, "a due job cannot be read and is set aside");
                rows::set_aside(&writer.connection, ordinal)?;
                continue;
            }
            Err(error) => return Err(error),
        };
        let live = if job.lease.is_some() { writer.live(&job)? } else { Default::default() };
        let command = Command::Advance { live, jitter: jitter(chance, ordinal) };
        if let Ok(step) = writer.step(&job, command, now)? {
            transitions.push(step);
        }
    }
    grant(writer, limit, now, &mut transitions)?;
    let next_due = match transitions.len() >= limit || !writer.keys.is_empty() {
        true => Some(now),
        false => next_due(writer)?,
    };
    Ok(Swept { transitions, next_due })
}

fn next_due(writer: &Writer) -> Result<Option<Timestamp>, ReadError> {
    let micros: Option<i64> = writer
        .connection
        .prepare_cached("SELECT due FROM jobs INDEXED BY due WHERE due IS NOT NULL ORDER BY due LIMIT 1")?
        .query_row([], |row| row.get(0))
        .optional()?;
    Ok(micros.map(Timestamp::from_micros))
}

/// Makes blocked jobs ready for as long as their keys have places, in the transaction that takes the place.
fn grant(
    writer: &mut Writer,
    limit: usize,
    now: Timestamp,
    transitions: &mut Vec<Transition>,
) -> Result<(), ReadError> {
    for _ in 0..KEYS_MAX {
        let Some((tenant, key)) = writer.keys.first().cloned() else { break };
        while let Some(ordinal) = first_blocked(writer, &tenant, &key)? {
            if transitions.len() >= limit {
                return Ok(());
            }
            let job = match load::job(&writer.connection, ordinal) {
                Ok(Some(job)) => job,
                Ok(None) => break,
                Err(ReadError::Damaged(error)) => {
                    tracing::error!(%error, "a blocked job cannot be read and is set aside");
                    rows::set_aside(&writer.connection, ordinal)?;
                    continue;
                }
                Err(error) => return Err(error),
            };
            match writer.step(&job, Command::Grant, now)? {
                Ok(step) => transitions.push(step),
                Err(_) => break,
            }
        }
        writer.keys.remove(&(tenant, key));
    }
    Ok(())
}

/// The keys that some job waits for.
pub fn waited_for(connection: &Connection) -> rusqlite::Result<BTreeSet<(String, String)>> {
    let mut first = connection.prepare(
        "SELECT tenant, concurrency_key FROM jobs INDEXED BY blocked WHERE place = 2
         ORDER BY tenant, concurrency_key LIMIT 1",
    )?;
    let mut next = connection.prepare(
        "SELECT tenant, concurrency_key FROM jobs INDEXED BY blocked
         WHERE place = 2 AND (tenant, concurrency_key) > (?1, ?2) ORDER BY tenant, concurrency_key LIMIT 1",
    )?;
    let mut keys = BTreeSet::new();
    let mut found = first.query_row([], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    // From one key to the next, however many jobs wait for each.
    while let Some((tenant, key)) = found {
        found = next.query_row([&tenant, &key], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
        keys.insert((tenant, key));
    }
    Ok(keys)
}

/// The best blocked job of a key whose own limit leaves a place for it.
fn first_blocked(writer: &Writer, tenant: &str, key: &str) -> Result<Option<i64>, ReadError> {
    let connection = &writer.connection;
    let taken: i64 = connection
        .prepare_cached(
            "SELECT count(*) FROM jobs INDEXED BY granted WHERE granted = 1 AND tenant = ?1 AND concurrency_key = ?2",
        )?
        .query_row([tenant, key], |row| row.get(0))?;
    let mut next_limit = connection.prepare_cached(
        "SELECT concurrency_limit FROM jobs INDEXED BY blocked WHERE place = 2 AND tenant = ?1
         AND concurrency_key = ?2 AND concurrency_limit > ?3 ORDER BY concurrency_limit LIMIT 1",
    )?;
    let mut head = connection.prepare_cached(
        "SELECT rank, ordinal FROM jobs INDEXED BY blocked WHERE place = 2 AND tenant = ?1
         AND concurrency_key = ?2 AND concurrency_limit = ?3 ORDER BY rank, ordinal LIMIT 1",
    )?;
    let mut best: Option<(i64, i64)> = None;
    let mut above = taken;
    for _ in 0..LIMITS_MAX {
        let limit = next_limit.query_row(params![tenant, key, above], |row| row.get(0)).optional()?;
        let Some(limit) = limit else { break };
        above = limit;
        let first: (i64, i64) =
            head.query_row(params![tenant, key, limit], |row| Ok((row.get(0)?, row.get(1)?)))?;
        best = Some(best.map_or(first, |best| best.min(first)));
    }
    Ok(best.map(|(_, ordinal)| ordinal))
}
