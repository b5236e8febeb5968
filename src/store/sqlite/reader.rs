//! The connections that read. They see what is committed and wait for no writer.

use super::load::{self, ReadError};
use super::schema::Folder;
use super::{claim, list};
use crate::job::{Body, Event, Filter, Job, JobId, Keeper, Sequence, Snapshot, State};
use crate::store::record::{self, Position};
use crate::store::{Count, Error, EventLimit, Listed, Page, Parts, Rank};
use parking_lot::{Mutex, MutexGuard};
use rusqlite::{Connection, OpenFlags};
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A fixed number of connections that take turns.
#[derive(Debug)]
pub struct Readers {
    connections: Vec<Mutex<Connection>>,
    next: AtomicUsize,
}

impl Readers {
    /// Opens `count` connections.
    pub fn open(folder: &Folder, count: usize) -> rusqlite::Result<Self> {
        let connect = |_| folder.connect(OpenFlags::SQLITE_OPEN_READ_ONLY).map(Mutex::new);
        let connections = (0..count).map(connect).collect::<rusqlite::Result<_>>()?;
        Ok(Self { connections, next: AtomicUsize::new(0) })
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        let free = self.connections.iter().find_map(|connection| connection.try_lock());
        free.unwrap_or_else(|| {
            let next = self.next.fetch_add(1, Ordering::Relaxed);
            self.connections[next % self.connections.len()].lock()
        })
    }

    /// The name under which this server keeps leases.
    pub fn keeper(&self) -> Result<Keeper, ReadError> {
        let connection = self.connection();
        let keeper: i64 =
            connection.query_row("SELECT value FROM meta WHERE name = 'keeper'", [], |row| row.get(0))?;
        Ok(Keeper(keeper as u64))
    }

    /// As [`Store::get`](crate::store::Store::get).
    pub fn get(&self, ids: &[JobId], parts: Parts) -> Result<Vec<Option<Snapshot>>, Error> {
        let connection = self.connection();
        let mut found = Vec::with_capacity(ids.len());
        for id in ids {
            let snapshot = load::snapshot(&connection, id.ordinal(), parts)?;
            found.push(snapshot.filter(|snapshot| snapshot.job.id == *id));
        }
        Ok(found)
    }

    /// As [`Store::list`](crate::store::Store::list).
    pub fn list(&self, tenant: &str, filter: &Filter, page: Page, parts: Parts) -> Result<Listed, Error> {
        Ok(list::list(&mut self.connection(), tenant, filter, page, parts)?)
    }

    /// As [`Store::count`](crate::store::Store::count).
    pub fn count(&self, tenant: &str, kinds: &[String], limit: usize) -> Result<Vec<Count>, Error> {
        Ok(list::count(&self.connection(), tenant, kinds, limit)?)
    }

    /// As [`Store::queue`](crate::store::Store::queue).
    pub fn queue(&self, tenant: &str, kind: &str, limit: usize) -> Result<Vec<Rank>, Error> {
        Ok(claim::queue(&self.connection(), tenant, kind, limit)?)
    }

    /// As [`Store::events`](crate::store::Store::events).
    pub fn events(&self, wanted: &[(JobId, Sequence)], limit: EventLimit) -> Result<Vec<Vec<Event>>, Error> {
        let connection = self.connection();
        let mut histories = Vec::with_capacity(wanted.len());
        for (id, after) in wanted {
            histories.push(history(&connection, *id, *after, limit)?);
        }
        Ok(histories)
    }

    /// As [`Store::held`](crate::store::Store::held).
    pub fn held(&self, keeper: Keeper, after: Option<JobId>, limit: usize) -> Result<Vec<Job>, Error> {
        let connection = self.connection();
        let mut after = after.map_or(i64::MIN, JobId::ordinal);
        let mut held = Vec::new();
        // Whose a lease is stands in the record; those of others must not shorten the page.
        while held.len() < limit {
            let ordinals = list::held_after(&connection, after, limit).map_err(ReadError::from)?;
            let Some(last) = ordinals.last() else { break };
            after = *last;
            for ordinal in ordinals {
                match load::job(&connection, ordinal) {
                    Ok(Some(job)) if job.lease.as_ref().is_some_and(|lease| lease.keeper == keeper) => {
                        held.push(job);
                    }
                    Ok(_) => {}
                    Err(ReadError::Damaged(error)) => tracing::error!(%error, "a held job cannot be read"),
                    Err(error) => return Err(error.into()),
                }
            }
        }
        held.truncate(limit);
        Ok(held)
    }
}

fn history(
    connection: &Connection,
    id: JobId,
    after: Sequence,
    limit: EventLimit,
) -> Result<Vec<Event>, ReadError> {
    let ordinal = id.ordinal();
    // The first event follows from the row, and whether there is a job of this id at all as well.
    let job = match load::job(connection, ordinal)? {
        Some(job) if job.id == id => job,
        _ => return Ok(Vec::new()),
    };
    let mut events = Vec::new();
    if after == 0 && limit.events > 0 {
        events.push(job.first_event());
    }
    let mut statement = connection.prepare_cached(
        "SELECT sequence, record FROM events WHERE ordinal = ?1 AND sequence > ?2 ORDER BY sequence LIMIT ?3",
    )?;
    let left = limit.events.saturating_sub(events.len());
    let after = i64::try_from(after).unwrap_or(i64::MAX);
    let mut rows = statement.query([ordinal, after, i64::try_from(left).unwrap_or(i64::MAX)])?;
    let mut bytes = 0;
    while let Some(row) = rows.next()? {
        let number = row.get::<_, i64>(0)? as u64;
        let record = row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?;
        let mut event: Event = record::decode(Position { what: "event", ordinal, number }, &[], record)?;
        bytes += record.len();
        if let Body::StateChanged(change) = &mut event.body
            && change.state == State::Succeeded
        {
            change.result = load::result(connection, ordinal)?;
            bytes += change.result.as_ref().map_or(0, |result| result.len());
        }
        if bytes > limit.bytes && !events.is_empty() {
            break;
        }
        events.push(event);
    }
    Ok(events)
}

impl fmt::Display for ReadError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(error) => error.fmt(formatter),
            Self::Damaged(error) => error.fmt(formatter),
        }
    }
}

impl From<ReadError> for Error {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Sqlite(error) => Self::Unavailable(error.to_string()),
            ReadError::Damaged(error) => error,
        }
    }
}
