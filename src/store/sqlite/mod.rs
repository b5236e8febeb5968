//! Jobs in SQLite: one connection that writes, a few that read, and one that moves the log into the database.

mod audit;
mod backup;
mod claim;
mod counters;
mod forget;
mod list;
mod load;
mod log;
mod migrate;
mod reader;
mod requests;
mod room;
mod rows;
mod schema;
mod sweep;
mod wal_checkpoint;
mod writer;

use super::{Count, Error, EventLimit, Listed, OpenError, Operation, Outcome, Page, Parts, Rank, Store};
use crate::job::{Event, Filter, Job, JobId, Keeper, Sequence, Snapshot, Timestamp};
pub use backup::{BackedUp, back_up};
use load::ReadError;
use parking_lot::Mutex;
use reader::Readers;
use room::Room;
use rusqlite::OpenFlags;
use schema::Folder;
use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};
use wal_checkpoint::WalCheckpointer;
use writer::Writer;

/// What is set for a store when it is opened.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How many jobs may wait.
    pub queue_max: u64,
    /// How much of the disk new jobs leave free, so that others can end; at most a tenth of it.
    pub free_bytes_min: u64,
    /// How many reads may go on at once; more of them take turns.
    pub readers: usize,
    /// The name of a new store's server for itself, any number.
    pub keeper: u64,
}

/// A store in a folder of its own.
///
/// Commits go through the write-ahead log and are flushed before they are answered (`synchronous=FULL`). One process at a
/// time has the folder; anybody may look into the database meanwhile.
#[derive(Debug)]
pub struct SqliteStore {
    // Fields are dropped in this order. Those that only read go first, since the last connection moves the log into the
    // database; nobody writes or checkpoints any more when the lock is given back.
    readers: Readers,
    writer: Mutex<Option<Writer>>,
    wal: WalCheckpointer,
    keeper: Keeper,
    room: Room,
    flushed: Flushed,
    folder: Folder,
}

/// Who is told how long a flush has taken.
struct Flushed(Box<dyn Fn(Duration) + Send + Sync>);

impl fmt::Debug for Flushed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Flushed")
    }
}

impl SqliteStore {
    /// Opens the store in `folder`, and makes one there if there is none.
    pub fn open(folder: &Path, settings: Settings) -> Result<Self, OpenError> {
        let failed = |error: ReadError| OpenError::Failed {
            folder: folder.display().to_string(),
            why: error.to_string(),
        };
        let opened = Folder::open(folder, settings.keeper)?;
        let readers = Readers::open(&opened, settings.readers.max(1)).map_err(|e| failed(e.into()))?;
        let wal = WalCheckpointer::start(&opened).map_err(|e| failed(e.into()))?;
        let keeper = readers.keeper().map_err(failed)?;
        let store = Self {
            writer: Mutex::new(None),
            wal,
            readers,
            keeper,
            room: Room {
                queue_max: settings.queue_max,
                free_bytes_min: settings.free_bytes_min,
                folder: folder.to_owned(),
                looked: None,
                bytes: 0,
            },
            flushed: Flushed(Box::new(|_| {})),
            folder: opened,
        };
        let writer = store.open_writer(false).map_err(failed)?;
        *store.writer.lock() = Some(writer);
        Ok(store)
    }

    /// Tells `flushed` with each batch how long it has taken to write it to the log and to flush that, all in one statement of
    /// SQLite's, also where that failed. Of a batch that changed nothing it is not told: such a one is not flushed. It is called by
    /// whoever commits, and must be short.
    pub fn timed(self, flushed: impl Fn(Duration) + Send + Sync + 'static) -> Self {
        Self { flushed: Flushed(Box::new(flushed)), ..self }
    }

    /// The newest time that the store was told, as far as it remembers that after a restart: at most a second before its last
    /// change. A clock that goes on from there leaves nothing that it has in the future.
    pub fn latest(&self) -> Timestamp {
        self.writer.lock().as_ref().map(Writer::latest).unwrap_or_default()
    }

    fn open_writer(&self, has_failed: bool) -> Result<Writer, ReadError> {
        let connection = self.folder.connect(OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        let mut writer = Writer::open(connection, self.keeper, self.room.clone(), has_failed)?;
        // Not before: to turn automatic checkpoints off, as it does, takes any hook away.
        self.wal.watch(&mut writer.connection)?;
        self.folder.sync()?;
        Ok(writer)
    }
}

impl Store for SqliteStore {
    fn commit(&self, batch: Vec<Operation>, now: Timestamp) -> Result<Vec<Outcome>, Error> {
        let mut place = self.writer.lock();
        let mut writer = match place.take() {
            Some(writer) => writer,
            // The last commit ended in an error: nothing is acknowledged until all is read anew from what the disk has.
            None => self.open_writer(true).map_err(|error| Error::Unavailable(error.to_string()))?,
        };
        let changes = writer.connection.total_changes();
        let outcomes = writer.carry_out_all(batch, now)?;
        let has_changed = writer.connection.total_changes() != changes;
        let began = Instant::now();
        let committed = writer.commit();
        if has_changed {
            (self.flushed.0)(began.elapsed());
        }
        committed?;
        self.wal.after_commit(&writer.connection);
        *place = Some(writer);
        Ok(outcomes)
    }

    fn get(&self, ids: &[JobId], parts: Parts) -> Result<Vec<Option<Snapshot>>, Error> {
        self.readers.get(ids, parts)
    }

    fn list(&self, tenant: &str, filter: &Filter, page: Page, parts: Parts) -> Result<Listed, Error> {
        self.readers.list(tenant, filter, page, parts)
    }

    fn count(&self, tenant: &str, kinds: &[String], limit: usize) -> Result<Vec<Count>, Error> {
        self.readers.count(tenant, kinds, limit)
    }

    fn queue(&self, tenant: &str, kind: &str, limit: usize) -> Result<Vec<Rank>, Error> {
        self.readers.queue(tenant, kind, limit)
    }

    fn events(&self, wanted: &[(JobId, Sequence)], limit: EventLimit) -> Result<Vec<Vec<Event>>, Error> {
        self.readers.events(wanted, limit)
    }

    fn held(&self, after: Option<JobId>, limit: usize) -> Result<Vec<Job>, Error> {
        self.readers.held(self.keeper, after, limit)
    }

    fn keeper(&self) -> Keeper {
        self.keeper
    }
}
