//! How many jobs there are by tenant, kind and state, so that nobody has to count rows.

use crate::job::State;
use rusqlite::{Connection, params};
use std::collections::HashMap;

const STATES: usize = State::ALL.len();

/// The counts, as the table has them once a batch is written.
#[derive(Debug)]
pub struct Counters {
    tallies: HashMap<String, HashMap<String, Tally>>,
    /// Those that the table does not have yet.
    changed: Vec<(String, String)>,
    waiting: i64,
}

/// The jobs of one tenant and kind, by the position of their state in [`State::ALL`].
#[derive(Debug, Default)]
struct Tally {
    now: [i64; STATES],
    stored: [i64; STATES],
    is_changed: bool,
}

impl Counters {
    /// Reads what is stored.
    pub fn open(connection: &Connection) -> rusqlite::Result<Self> {
        let mut counters = Self { tallies: HashMap::new(), changed: Vec::new(), waiting: 0 };
        let mut statement = connection.prepare("SELECT tenant, kind, state, jobs FROM counters")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (tenant, kind, name, jobs): (String, String, String, i64) =
                (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
            let Some(state) = State::ALL.into_iter().find(|state| state.name() == name) else { continue };
            let tally = counters.tallies.entry(tenant).or_default().entry(kind).or_default();
            tally.now[state as usize] = jobs;
            tally.stored[state as usize] = jobs;
            counters.waiting += if state.is_waiting() { jobs } else { 0 };
        }
        Ok(counters)
    }

    /// So many more jobs are in this state.
    pub fn add(&mut self, tenant: &str, kind: &str, state: State, change: i64) {
        if state.is_waiting() {
            self.waiting += change;
        }
        // Nearly always both are known, and nothing has to be allocated.
        if !self.tallies.get(tenant).is_some_and(|kinds| kinds.contains_key(kind)) {
            self.tallies.entry(tenant.to_owned()).or_default().entry(kind.to_owned()).or_default();
        }
        let Some(tally) = self.tallies.get_mut(tenant).and_then(|kinds| kinds.get_mut(kind)) else { return };
        tally.now[state as usize] += change;
        if !std::mem::replace(&mut tally.is_changed, true) {
            self.changed.push((tenant.to_owned(), kind.to_owned()));
        }
    }

    /// How many jobs wait for a worker.
    pub fn waiting(&self) -> u64 {
        u64::try_from(self.waiting).unwrap_or(0)
    }

    /// Writes what has changed. A count of nothing is no row, and is not remembered.
    pub fn write(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        for (tenant, kind) in self.changed.drain(..) {
            let Some(kinds) = self.tallies.get_mut(&tenant) else { continue };
            let Some(tally) = kinds.get_mut(&kind) else { continue };
            tally.is_changed = false;
            for state in State::ALL {
                let jobs = tally.now[state as usize];
                if jobs == tally.stored[state as usize] {
                    continue;
                }
                tally.stored[state as usize] = jobs;
                if jobs == 0 {
                    connection
                        .prepare_cached(
                            "DELETE FROM counters WHERE tenant = ?1 AND kind = ?2 AND state = ?3",
                        )?
                        .execute((&tenant, &kind, state.name()))?;
                } else {
                    connection
                        .prepare_cached(
                            "INSERT OR REPLACE INTO counters (tenant, kind, state, jobs) VALUES (?1, ?2, ?3, ?4)",
                        )?
                        .execute(params![tenant, kind, state.name(), jobs])?;
                }
            }
            if tally.now == [0; STATES] {
                kinds.remove(&kind);
            }
        }
        Ok(())
    }
}
