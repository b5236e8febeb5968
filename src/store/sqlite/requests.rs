//! Request ids: which job a request has made before.
//!
//! Random keys cost a B-tree a page each. So a request is appended to a table in the order of its job, and its hash is
//! kept in memory until there are many, which then go into the index in sorted portions, many to a page: a
//! log-structured merge of two levels. Memory and the time to open are bounded by [`RECENT_MAX`].

use super::load::{self, ReadError};
use super::rows;
use crate::job::{JobId, RequestKey, Timestamp};
use crate::store::is_remembered;
use crate::store::record::{self, Position};
use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// How many requests may be in memory alone: about 4 MB.
const RECENT_MAX: usize = 1 << 16;
/// How many of them one commit takes into the index; sorted, they lie close together.
const PORTION: usize = 512;

/// A request as it is kept.
#[derive(Debug, Serialize, Deserialize)]
struct Request {
    tenant: String,
    id: String,
    fingerprint: [u8; 32],
    job: JobId,
}

/// The newer requests, and where the older ones are.
#[derive(Debug)]
pub struct Requests {
    /// By hash; the few that share one are told apart by what is stored.
    recent: HashMap<i64, Vec<i64>>,
    count: usize,
    /// The portion that is on its way into the index, sorted by hash, the largest first.
    merging: Vec<(i64, i64)>,
    /// The last ordinal of that portion.
    merging_up_to: i64,
}

/// What a request id stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// The same request made this job.
    Same(JobId),
    /// It was used for another request.
    Other,
}

impl Requests {
    /// Reads those that are not in the index yet.
    pub fn open(connection: &Connection) -> Result<Self, ReadError> {
        let merged: i64 =
            connection.query_row("SELECT value FROM meta WHERE name = 'merged'", [], |row| row.get(0))?;
        let mut requests =
            Self { recent: HashMap::new(), count: 0, merging: Vec::new(), merging_up_to: merged };
        let mut statement = connection.prepare("SELECT ordinal, record FROM requests WHERE ordinal > ?1")?;
        let mut rows = statement.query([merged])?;
        while let Some(row) = rows.next()? {
            let ordinal: i64 = row.get(0)?;
            let record = row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?;
            match decode(ordinal, record) {
                Ok(request) => requests.remember(rows::hash(&[&request.tenant, &request.id]), ordinal),
                // Its job knows it as well, so that a repeat hears of the damage rather than make another job.
                Err(error) => match name_of(connection, ordinal) {
                    Some(hash) => requests.remember(hash, ordinal),
                    None => tracing::error!(%error, "a request id is lost"),
                },
            }
        }
        Ok(requests)
    }

    /// What `key` stands for, if it was used before and is remembered still.
    pub fn find(
        &self,
        connection: &Connection,
        tenant: &str,
        key: &RequestKey,
        now: Timestamp,
    ) -> Result<Option<Known>, ReadError> {
        let hash = rows::hash(&[tenant, &key.id]);
        let recent = self.recent.get(&hash).into_iter().flatten().copied();
        let mut statement = connection.prepare_cached("SELECT ordinal FROM request_index WHERE hash = ?1")?;
        let indexed: Vec<i64> =
            statement.query_map([hash], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
        for ordinal in recent.chain(indexed) {
            let record: Option<Vec<u8>> = connection
                .prepare_cached("SELECT record FROM requests WHERE ordinal = ?1")?
                .query_row([ordinal], |row| row.get(0))
                .optional()?;
            let Some(record) = record else { continue };
            let request = decode(ordinal, &record)?;
            if request.tenant == tenant && request.id == key.id {
                // Most are young, and need no look at their jobs.
                if !is_remembered(ordinal, false, now) && !is_kept(connection, ordinal)? {
                    continue;
                }
                let same = request.fingerprint == key.fingerprint;
                return Ok(Some(if same { Known::Same(request.job) } else { Known::Other }));
            }
        }
        Ok(None)
    }

    /// Keeps what made `job`.
    pub fn insert(
        &mut self,
        connection: &Connection,
        tenant: &str,
        key: &RequestKey,
        job: JobId,
    ) -> rusqlite::Result<()> {
        let ordinal = job.ordinal();
        let request =
            Request { tenant: tenant.to_owned(), id: key.id.clone(), fingerprint: key.fingerprint, job };
        let record = record::encode(Position::of("request id", ordinal), &[], &request);
        connection
            .prepare_cached("INSERT INTO requests (ordinal, record) VALUES (?1, ?2)")?
            .execute(params![ordinal, record])?;
        self.remember(rows::hash(&[tenant, &key.id]), ordinal);
        Ok(())
    }

    /// Deletes what made the job with this ordinal, if it was named.
    pub fn delete(&mut self, connection: &Connection, ordinal: i64) -> Result<(), ReadError> {
        let record: Option<Vec<u8>> = connection
            .prepare_cached("SELECT record FROM requests WHERE ordinal = ?1")?
            .query_row([ordinal], |row| row.get(0))
            .optional()?;
        let Some(record) = record else { return Ok(()) };
        connection.prepare_cached("DELETE FROM requests WHERE ordinal = ?1")?.execute([ordinal])?;
        match decode(ordinal, &record) {
            Ok(request) => {
                let hash = rows::hash(&[&request.tenant, &request.id]);
                self.forget(hash, ordinal);
                connection
                    .prepare_cached("DELETE FROM request_index WHERE hash = ?1 AND ordinal = ?2")?
                    .execute([hash, ordinal])?;
            }
            // Its entry in the index leads nowhere, which does no harm.
            Err(error) => tracing::error!(%error, "a request id is lost"),
        }
        Ok(())
    }

    /// Takes the next portion into the index, where there are many in memory. Part of each commit.
    pub fn merge(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        if self.merging.is_empty() && self.count > RECENT_MAX {
            let entries =
                self.recent.iter().flat_map(|(hash, ordinals)| ordinals.iter().map(|o| (*hash, *o)));
            self.merging = entries.collect();
            self.merging_up_to = self.merging.iter().map(|(_, ordinal)| *ordinal).max().unwrap_or_default();
            self.merging.sort_unstable_by(|left, right| right.cmp(left));
        }
        if self.merging.is_empty() {
            return Ok(());
        }
        let mut insert = connection
            .prepare_cached("INSERT OR IGNORE INTO request_index (hash, ordinal) VALUES (?1, ?2)")?;
        for _ in 0..PORTION {
            let Some((hash, ordinal)) = self.merging.pop() else { break };
            // It may have been deleted meanwhile.
            if self.forget(hash, ordinal) {
                insert.execute([hash, ordinal])?;
            }
        }
        // Not before the whole round is in: after a crash it is read again from its beginning.
        if self.merging.is_empty() {
            connection
                .prepare_cached("UPDATE meta SET value = ?1 WHERE name = 'merged'")?
                .execute([self.merging_up_to])?;
        }
        Ok(())
    }

    fn remember(&mut self, hash: i64, ordinal: i64) {
        self.recent.entry(hash).or_default().push(ordinal);
        self.count += 1;
    }

    /// Whether it was there.
    fn forget(&mut self, hash: i64, ordinal: i64) -> bool {
        let Some(ordinals) = self.recent.get_mut(&hash) else { return false };
        let Some(place) = ordinals.iter().position(|other| *other == ordinal) else { return false };
        ordinals.swap_remove(place);
        if ordinals.is_empty() {
            self.recent.remove(&hash);
        }
        self.count -= 1;
        true
    }
}

/// The hash of the request id that a job has by its own account, if it has one and can be read.
fn name_of(connection: &Connection, ordinal: i64) -> Option<i64> {
    let job = load::job(connection, ordinal).ok()??;
    let request_id = load::carried(connection, ordinal).ok()?.request_id?;
    Some(rows::hash(&[&job.tenant, &request_id]))
}

/// Whether the job with this ordinal is not forgotten.
pub fn is_kept(connection: &Connection, ordinal: i64) -> rusqlite::Result<bool> {
    connection.prepare_cached("SELECT 1 FROM jobs WHERE ordinal = ?1")?.exists([ordinal])
}

fn decode(ordinal: i64, record: &[u8]) -> Result<Request, crate::store::Error> {
    record::decode(Position::of("request id", ordinal), &[], record)
}
