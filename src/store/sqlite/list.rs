//! Lists: jobs that match a filter, newest first, without looking at those that do not.
//!
//! Each part of a filter that has an index is a [`Source`] of ordinals in falling order, a union of runs of that index. A
//! list is their intersection, found by letting each in turn say how far down the next candidate is (the zigzag merge
//! join of Google's Datastore: Barrett, "Under the covers of the App Engine Datastore", Google I/O 2008).

use super::load::{self, ReadError};
use super::rows::{self, place};
use crate::job::{Filter, JobId, State};
use crate::store::{Count, Listed, Page, Parts, size};
use rusqlite::{Connection, OptionalExtension, ToSql, params};
use std::collections::VecDeque;

/// How many steps a page may search before it ends, short or empty: some ten milliseconds.
const STEPS_MAX: usize = 2_000;
/// How many ordinals of a run are read at once, at first and at most.
const CHUNK: usize = 8;
const CHUNK_MAX: usize = 256;

/// As [`Store::list`](crate::store::Store::list).
pub fn list(
    connection: &mut Connection,
    tenant: &str,
    filter: &Filter,
    page: Page,
    parts: Parts,
) -> Result<Listed, ReadError> {
    // All of it sees one moment.
    let moment = connection.transaction()?;
    let mut sources = sources(&moment, tenant, filter)?;
    let first = filter.created_from.map_or(i64::MIN, JobId::first_ordinal);
    // One more than the last that may match; a millisecond holds times on both sides.
    let end = filter
        .created_before
        .map_or(i64::MAX, |time| JobId::first_ordinal(time.after(std::time::Duration::from_millis(1))));
    let mut before = page.before.unwrap_or(i64::MAX).min(end);
    let mut listed = Listed::default();
    let (mut bytes, mut steps) = (0, 0);
    while let Some(candidate) = next_candidate(&moment, &mut sources, before, &mut steps)? {
        if candidate.ordinal < first {
            break;
        }
        if listed.jobs.len() == page.jobs || !candidate.is_agreed || steps > STEPS_MAX {
            listed.next = Some(candidate.ordinal.saturating_add(1));
            break;
        }
        before = candidate.ordinal;
        steps += 1;
        let snapshot = match load::snapshot(&moment, candidate.ordinal, parts) {
            Ok(Some(snapshot)) => snapshot,
            Ok(None) => continue,
            Err(ReadError::Damaged(error)) => {
                tracing::error!(%error, "a job cannot be read and is not listed");
                continue;
            }
            Err(error) => return Err(error),
        };
        // Hashes may be shared, and a millisecond may lie on both sides of a limit.
        if snapshot.job.tenant != tenant || !filter.matches(&snapshot) {
            continue;
        }
        bytes += size(&snapshot);
        if bytes > page.bytes && !listed.jobs.is_empty() {
            listed.next = Some(candidate.ordinal.saturating_add(1));
            break;
        }
        listed.jobs.push(snapshot);
    }
    Ok(listed)
}

/// Where a search is.
struct Candidate {
    ordinal: i64,
    /// Every source has it; otherwise the search has used up its steps here.
    is_agreed: bool,
}

/// The largest ordinal below `before` that every source has.
fn next_candidate(
    connection: &Connection,
    sources: &mut [Source],
    before: i64,
    steps: &mut usize,
) -> rusqlite::Result<Option<Candidate>> {
    let Some(mut ordinal) = before.checked_sub(1) else { return Ok(None) };
    loop {
        let asked = ordinal;
        for source in &mut *sources {
            match source.at_most(connection, ordinal)? {
                Some(found) => ordinal = found,
                None => return Ok(None),
            }
        }
        if ordinal == asked || sources.len() == 1 {
            return Ok(Some(Candidate { ordinal, is_agreed: true }));
        }
        *steps += 1;
        if *steps > STEPS_MAX {
            return Ok(Some(Candidate { ordinal, is_agreed: false }));
        }
    }
}

/// The ordinals of the jobs that match one part of a filter.
struct Source(Vec<Run>);

impl Source {
    /// The largest that is not above `limit`. From call to call the limit only falls.
    fn at_most(&mut self, connection: &Connection, limit: i64) -> rusqlite::Result<Option<i64>> {
        let mut largest = None;
        for run in &mut self.0 {
            largest = largest.max(run.at_most(connection, limit)?);
        }
        Ok(largest)
    }
}

/// A stretch of an index in which ordinals are in order.
struct Run {
    stretch: Stretch,
    /// Read, but not passed yet.
    ahead: VecDeque<i64>,
    chunk: usize,
    has_more: bool,
}

/// Which stretch of which index.
enum Stretch {
    /// Every job.
    Jobs,
    /// The jobs of a kind at a place.
    Shelf { place: i64, kind: String, tenant: String, rank: i64 },
    /// The jobs with a label.
    Label { hash: i64 },
}

impl Run {
    fn new(stretch: Stretch) -> Self {
        Self { stretch, ahead: VecDeque::new(), chunk: CHUNK, has_more: true }
    }

    fn at_most(&mut self, connection: &Connection, limit: i64) -> rusqlite::Result<Option<i64>> {
        while self.ahead.front().is_some_and(|ordinal| *ordinal > limit) {
            self.ahead.pop_front();
        }
        if self.ahead.is_empty() && self.has_more {
            self.read(connection, limit)?;
            // Whoever reads on and on reads more at once.
            self.chunk = (2 * self.chunk).min(CHUNK_MAX);
        }
        Ok(self.ahead.front().copied())
    }

    fn read(&mut self, connection: &Connection, limit: i64) -> rusqlite::Result<()> {
        let chunk = self.chunk as i64;
        let mut read = |sql: &str, of: &[&dyn ToSql]| -> rusqlite::Result<()> {
            let mut statement = connection.prepare_cached(sql)?;
            let mut rows = statement.query(of)?;
            while let Some(row) = rows.next()? {
                self.ahead.push_back(row.get(0)?);
            }
            Ok(())
        };
        match &self.stretch {
            Stretch::Jobs => read(
                "SELECT ordinal FROM jobs WHERE ordinal <= ?1 ORDER BY ordinal DESC LIMIT ?2",
                params![limit, chunk],
            ),
            Stretch::Shelf { place, kind, tenant, rank } => read(
                "SELECT ordinal FROM jobs INDEXED BY shelf WHERE place = ?3 AND kind = ?4 AND tenant = ?5
                 AND rank = ?6 AND ordinal <= ?1 ORDER BY ordinal DESC LIMIT ?2",
                params![limit, chunk, place, kind, tenant, rank],
            ),
            Stretch::Label { hash } => read(
                "SELECT ordinal FROM labels WHERE hash = ?3 AND ordinal <= ?1 ORDER BY ordinal DESC LIMIT ?2",
                params![limit, chunk, hash],
            ),
        }?;
        self.has_more = self.ahead.len() as i64 == chunk;
        Ok(())
    }
}

/// What a filter has indexes for; every job, where it has none.
fn sources(connection: &Connection, tenant: &str, filter: &Filter) -> rusqlite::Result<Vec<Source>> {
    let mut sources = Vec::new();
    for (key, value) in &filter.labels {
        let hash = rows::hash(&[tenant, key, value]);
        sources.push(Source(vec![Run::new(Stretch::Label { hash })]));
    }
    if !filter.states.is_empty() || !filter.kinds.is_empty() {
        let states = State::ALL.into_iter().filter(|state| filter.has_state(*state));
        let mut runs = Vec::new();
        for place in states.flat_map(rows::places_of) {
            shelf_runs(connection, tenant, *place, &filter.kinds, &mut runs)?;
        }
        sources.push(Source(runs));
    }
    if sources.is_empty() {
        sources.push(Source(vec![Run::new(Stretch::Jobs)]));
    }
    Ok(sources)
}

/// The runs of a place: one for each kind, and of those that lie by rank one for each rank.
fn shelf_runs(
    connection: &Connection,
    tenant: &str,
    place: i64,
    kinds: &[String],
    runs: &mut Vec<Run>,
) -> rusqlite::Result<()> {
    let found = if kinds.is_empty() { kinds_at(connection, place)? } else { kinds.to_vec() };
    for kind in found {
        let mut rank = if rows::is_ranked(place) {
            next_rank(connection, place, &kind, tenant, i64::MIN)?
        } else {
            Some(0)
        };
        while let Some(this) = rank {
            let (kind, tenant) = (kind.clone(), tenant.to_owned());
            rank = match rows::is_ranked(place) {
                true => next_rank(connection, place, &kind, &tenant, this)?,
                false => None,
            };
            runs.push(Run::new(Stretch::Shelf { place, kind, tenant, rank: this }));
        }
    }
    Ok(())
}

/// The kinds that have a job at a place, each found by a jump over the one before.
fn kinds_at(connection: &Connection, place: i64) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare_cached(
        "SELECT kind FROM jobs INDEXED BY shelf WHERE place = ?1 AND kind > ?2 ORDER BY kind LIMIT 1",
    )?;
    let mut kinds: Vec<String> = Vec::new();
    loop {
        let last = kinds.last().map_or("", String::as_str);
        match statement.query_row(params![place, last], |row| row.get(0)).optional()? {
            Some(kind) => kinds.push(kind),
            None => return Ok(kinds),
        }
    }
}

fn next_rank(
    connection: &Connection,
    place: i64,
    kind: &str,
    tenant: &str,
    after: i64,
) -> rusqlite::Result<Option<i64>> {
    connection
        .prepare_cached(
            "SELECT rank FROM jobs INDEXED BY shelf WHERE place = ?1 AND kind = ?2 AND tenant = ?3 AND rank > ?4
             ORDER BY rank LIMIT 1",
        )?
        .query_row(params![place, kind, tenant, after], |row| row.get(0))
        .optional()
}

/// The first `limit` ordinals after `after` of jobs that a worker has, in their order.
pub fn held_after(connection: &Connection, after: i64, limit: usize) -> rusqlite::Result<Vec<i64>> {
    let mut tenants = connection.prepare_cached(
        "SELECT tenant FROM jobs INDEXED BY shelf WHERE place = ?1 AND kind = ?2 AND tenant > ?3
         ORDER BY tenant LIMIT 1",
    )?;
    let mut next = connection.prepare_cached(
        "SELECT ordinal FROM jobs INDEXED BY shelf WHERE place = ?1 AND kind = ?2 AND tenant = ?3 AND rank = 0
         AND ordinal > ?4 ORDER BY ordinal LIMIT ?5",
    )?;
    let mut ordinals = Vec::new();
    for place in place::HELD {
        for kind in kinds_at(connection, place)? {
            let mut last = String::new();
            while let Some(tenant) =
                tenants.query_row(params![place, kind, last], |row| row.get::<_, String>(0)).optional()?
            {
                let found =
                    next.query_map(params![place, kind, tenant, after, limit as i64], |row| row.get(0))?;
                for ordinal in found {
                    ordinals.push(ordinal?);
                }
                last = tenant;
            }
        }
    }
    ordinals.sort_unstable();
    ordinals.truncate(limit);
    Ok(ordinals)
}

/// As [`Store::count`](crate::store::Store::count).
pub fn count(
    connection: &Connection,
    tenant: &str,
    kinds: &[String],
    limit: usize,
) -> Result<Vec<Count>, ReadError> {
    let mut counts: Vec<Count> = Vec::new();
    let mut read = |sql: &str, of: &[&dyn ToSql]| -> rusqlite::Result<()> {
        let mut statement = connection.prepare_cached(sql)?;
        let mut rows = statement.query(of)?;
        while let Some(row) = rows.next()? {
            let (kind, name, jobs): (String, String, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
            let state = State::ALL.into_iter().find(|state| state.name() == name);
            if let (Some(state), Ok(jobs)) = (state, u64::try_from(jobs)) {
                counts.push(Count { kind, state, jobs });
            }
        }
        Ok(())
    };
    if kinds.is_empty() {
        let sql = "SELECT kind, state, jobs FROM counters WHERE tenant = ?1 ORDER BY kind LIMIT ?2";
        read(sql, params![tenant, limit as i64])?;
    }
    for kind in kinds {
        let sql = "SELECT kind, state, jobs FROM counters WHERE tenant = ?1 AND kind = ?2";
        read(sql, params![tenant, kind])?;
    }
    counts.sort_by(|left, right| (&left.kind, left.state as usize).cmp(&(&right.kind, right.state as usize)));
    counts.dedup();
    counts.truncate(limit);
    Ok(counts)
}
