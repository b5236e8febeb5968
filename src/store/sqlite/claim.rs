//! Which ready jobs a worker gets.
//!
//! The queue is a part of the index `shelf`: what a claim costs does not depend on how many jobs are in it.

use super::load::{self, ReadError};
use super::rows;
use super::writer::Writer;
use crate::job::{Command, Snapshot, Timestamp};
use crate::store::{Claim, Claimed, Dealt, Rank};
use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, params};

/// How many tenants one claim looks at; the next one goes on behind them.
const TENANTS_MAX: usize = 64;
/// How many sets of kinds are remembered with the tenant that they served last.
const SERVED_MAX: usize = 1_000;

/// Leases what `claim` asks for.
pub fn claim(writer: &mut Writer, claim: Claim, now: Timestamp) -> Result<Dealt, ReadError> {
    let wanted = claim.slots.len();
    let mut claimed = Vec::with_capacity(wanted);
    let mut bytes = 0;
    let set = claim.kinds.join("\0");
    let (chosen, mut exhausted) = choose(writer, &claim.kinds, &set, wanted)?;
    for (ordinal, slot) in chosen.into_iter().zip(claim.slots) {
        let (mut snapshot, checkpoint) = match load(&writer.connection, ordinal) {
            Ok(Some(loaded)) => loaded,
            Ok(None) => continue,
            Err(ReadError::Damaged(error)) => {
                tracing::error!(%error, "a ready job cannot be read and is set aside");
                rows::set_aside(&writer.connection, ordinal)?;
                exhausted = false;
                continue;
            }
            Err(error) => return Err(error),
        };
        bytes += snapshot.input.as_ref().map_or(0, Bytes::len) + checkpoint.len();
        if bytes > claim.bytes && !claimed.is_empty() {
            exhausted = false;
            break;
        }
        let command = Command::Lease {
            worker: slot.worker,
            keeper: writer.keeper,
            secret: slot.secret,
            in_process: slot.in_process,
            term: slot.term,
            accept: slot.in_process,
        };
        let Ok(step) = writer.step(&snapshot.job, command, now)? else { continue };
        let Some(token) = step.job.lease_token() else { continue };
        snapshot.job = step.job;
        claimed.push(Claimed { taker: slot.taker, snapshot, token, checkpoint, events: step.events });
    }
    if let Some(last) = claimed.last() {
        if writer.served.len() >= SERVED_MAX {
            writer.served.clear();
        }
        writer.served.insert(set, last.snapshot.job.tenant.clone());
    }
    Ok(Dealt { claimed, exhausted })
}

/// A ready job with all that its worker needs, and the data of its checkpoint.
fn load(connection: &Connection, ordinal: i64) -> Result<Option<(Snapshot, Bytes)>, ReadError> {
    let Some(snapshot) = load::assignment(connection, ordinal)? else { return Ok(None) };
    let checkpoint = load::checkpoint(connection, &snapshot.job)?;
    Ok(Some((snapshot, checkpoint)))
}

/// The jobs to lease: a round over the tenants that have one, then another, until there are enough; and whether these are
/// all there are.
fn choose(
    writer: &Writer,
    kinds: &[String],
    set: &str,
    wanted: usize,
) -> Result<(Vec<i64>, bool), ReadError> {
    let last = writer.served.get(set).map_or("", String::as_str);
    let tenants = tenants_after(&writer.connection, kinds, last)?;
    let mut queues = Vec::with_capacity(tenants.len());
    for tenant in &tenants {
        queues.push(heads(&writer.connection, kinds, tenant, wanted)?.into_iter());
    }
    let mut chosen = Vec::new();
    while chosen.len() < wanted {
        let before = chosen.len();
        let left = wanted - before;
        chosen.extend(queues.iter_mut().filter_map(Iterator::next).take(left).map(|rank| rank.ordinal));
        if chosen.len() == before {
            return Ok((chosen, tenants.len() < TENANTS_MAX));
        }
    }
    Ok((chosen, false))
}

/// The tenants that have a ready job of these kinds, in turn, beginning behind `last`.
fn tenants_after(connection: &Connection, kinds: &[String], last: &str) -> Result<Vec<String>, ReadError> {
    let mut statement = connection.prepare_cached(
        "SELECT tenant FROM jobs INDEXED BY shelf WHERE place = 1 AND kind = ?1 AND tenant > ?2
         ORDER BY tenant LIMIT 1",
    )?;
    let mut next = |after: &str| -> Result<Option<String>, ReadError> {
        let mut first: Option<String> = None;
        for kind in kinds {
            let tenant: Option<String> = statement.query_row([kind, after], |row| row.get(0)).optional()?;
            first = match (first, tenant) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            };
        }
        Ok(first)
    };
    let mut tenants = Vec::new();
    let mut after = last.to_owned();
    let mut wrapped = last.is_empty();
    while tenants.len() < TENANTS_MAX {
        match next(&after)? {
            Some(tenant) if wrapped && !last.is_empty() && tenant.as_str() > last => break,
            Some(tenant) => {
                after.clone_from(&tenant);
                tenants.push(tenant);
            }
            None if wrapped => break,
            None => {
                wrapped = true;
                after.clear();
            }
        }
    }
    Ok(tenants)
}

/// The first ready jobs of a tenant over all of these kinds, best first.
fn heads(
    connection: &Connection,
    kinds: &[String],
    tenant: &str,
    limit: usize,
) -> Result<Vec<Rank>, ReadError> {
    let mut heads = Vec::new();
    for kind in kinds {
        heads.extend(queue(connection, tenant, kind, limit)?);
    }
    heads.sort_unstable();
    heads.truncate(limit);
    Ok(heads)
}

/// The first ready jobs of a tenant and kind, best first.
pub fn queue(
    connection: &Connection,
    tenant: &str,
    kind: &str,
    limit: usize,
) -> Result<Vec<Rank>, ReadError> {
    let mut statement = connection.prepare_cached(
        "SELECT rank, ordinal FROM jobs INDEXED BY shelf WHERE place = 1 AND kind = ?1 AND tenant = ?2
         ORDER BY rank, ordinal LIMIT ?3",
    )?;
    let rows = statement.query_map(params![kind, tenant, limit as i64], |row| {
        Ok(Rank { urgency: row.get(0)?, ordinal: row.get(1)? })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}
