//! The tables, and how a new store comes into being: whole or not at all.

use super::{audit, log, migrate};
use crate::store::OpenError;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};
use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The version of the tables and of the records in them.
pub const VERSION: u32 = 5;

/// What every connection is set to. FULL: each commit is on the disk before it is answered.
const PRAGMAS: &str = "PRAGMA synchronous=FULL; PRAGMA foreign_keys=OFF;
    PRAGMA temp_store=MEMORY; PRAGMA cache_size=-16384;";

/// How long to wait for what another process has locked.
pub const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// A job is found by its ordinal, which its id contains; so no index of ids is needed, and a new job goes to the end of
/// every table.
///
/// `shelf` is the queue and what lists look into at once: `place` is finer than a job's state (the numbers are in `rows`), and
/// `rank` orders those that wait for a worker; it is 0 for all others, which so lie in the order of creation.
const TABLES: &str = "
    -- What decides over a job's life. `state` and `id` stand in columns for people.
    CREATE TABLE jobs (
        ordinal INTEGER PRIMARY KEY,
        id BLOB NOT NULL,
        tenant TEXT NOT NULL,
        kind TEXT NOT NULL,
        state TEXT NOT NULL,
        place INTEGER NOT NULL,
        rank INTEGER NOT NULL,
        due INTEGER,
        purge INTEGER,
        concurrency_key TEXT,
        concurrency_limit INTEGER,
        granted INTEGER,
        record BLOB NOT NULL
    );
    CREATE INDEX shelf ON jobs (place, kind, tenant, rank, ordinal);
    CREATE INDEX due ON jobs (due) WHERE due IS NOT NULL;
    CREATE INDEX purge ON jobs (purge) WHERE purge IS NOT NULL;
    CREATE INDEX blocked ON jobs (tenant, concurrency_key, concurrency_limit, rank, ordinal) WHERE place = 2;
    CREATE INDEX granted ON jobs (tenant, concurrency_key) WHERE granted = 1;

    -- What never changes and is only carried along.
    CREATE TABLE specs (ordinal INTEGER PRIMARY KEY, record BLOB NOT NULL, input BLOB NOT NULL);
    -- What changes with every piece of output.
    CREATE TABLE emitted (ordinal INTEGER PRIMARY KEY, record BLOB NOT NULL);
    -- What is latest-wins.
    CREATE TABLE live (ordinal INTEGER PRIMARY KEY, record BLOB NOT NULL);
    CREATE TABLE results (ordinal INTEGER PRIMARY KEY, record BLOB NOT NULL);
    -- The data of checkpoints, of jobs that have one.
    CREATE TABLE checkpoints (ordinal INTEGER PRIMARY KEY, record BLOB NOT NULL);
    -- The history, but for each job's first event, which follows from its row.
    CREATE TABLE events (
        ordinal INTEGER NOT NULL,
        sequence INTEGER NOT NULL,
        record BLOB NOT NULL,
        PRIMARY KEY (ordinal, sequence)
    ) WITHOUT ROWID;

    -- Request ids, in the order of their jobs; the index takes them up in sorted portions.
    CREATE TABLE requests (ordinal INTEGER PRIMARY KEY, record BLOB NOT NULL);
    CREATE TABLE request_index (hash INTEGER NOT NULL, ordinal INTEGER NOT NULL, PRIMARY KEY (hash, ordinal)) WITHOUT ROWID;

    -- Jobs that are forgotten, but whose history was too long for one step, or whose request id is remembered longer.
    CREATE TABLE left_histories (ordinal INTEGER PRIMARY KEY);
    CREATE TABLE left_requests (ordinal INTEGER PRIMARY KEY);

    -- Which jobs have a label, by its hash.
    CREATE TABLE labels (hash INTEGER NOT NULL, ordinal INTEGER NOT NULL, PRIMARY KEY (hash, ordinal)) WITHOUT ROWID;

    CREATE TABLE counters (
        tenant TEXT NOT NULL,
        kind TEXT NOT NULL,
        state TEXT NOT NULL,
        jobs INTEGER NOT NULL,
        PRIMARY KEY (tenant, kind, state)
    ) WITHOUT ROWID;
    CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
";

/// A data folder that this process has locked.
#[derive(Debug)]
pub struct Folder {
    database: PathBuf,
    lock: File,
}

impl Folder {
    /// Locks `path` and makes a store in it where there is none. `keeper` is the new store's name for its server.
    pub fn open(path: &Path, keeper: u64) -> Result<Self, OpenError> {
        let failed = |why: &dyn std::fmt::Display| OpenError::Failed {
            folder: path.display().to_string(),
            why: why.to_string(),
        };
        fs::create_dir_all(path).map_err(|error| failed(&error))?;
        let lock = File::create(path.join("lock")).map_err(|error| failed(&error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(OpenError::InUse(path.display().to_string())),
            Err(TryLockError::Error(error)) => return Err(failed(&error)),
        }
        let store = path.join("store");
        let folder = Self { database: database(path), lock };
        if !store.try_exists().map_err(|error| failed(&error))? {
            sync_above(path).map_err(|error| failed(&error))?;
            create_store(path, &store, keeper).map_err(|error| failed(&error))?;
        }
        // Also for one that is there: whoever moved it to its place may have been killed before this.
        sync(path).map_err(|error| failed(&error))?;
        let database = &folder.database;
        let mut name = database.as_os_str().to_owned();
        name.push("-wal");
        let wal = PathBuf::from(name);
        if let Some(damage) = log::check(&wal).map_err(|error| failed(&error))? {
            return Err(failed(&damage));
        }
        let size = |path: &Path| path.metadata().map_or(0, |data| data.len());
        let bytes = size(database) + size(&wal);
        let mut connection =
            folder.connect(OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(|error| failed(&error))?;
        match read_version(&connection).map_err(|error| failed(&error))? {
            VERSION => {
                let damage = match bytes <= audit::BYTES_MAX {
                    true => audit::look_through(&connection).map_err(|error| failed(&error))?,
                    false => None,
                };
                match damage {
                    Some(damage) => Err(failed(&format_args!("it is damaged: {damage}"))),
                    None => Ok(folder),
                }
            }
            found @ 1..VERSION => {
                migrate::bring_up(&mut connection, found, TABLES).map_err(|error| failed(&error))?;
                tracing::info!("the store was brought from version {found} to version {VERSION}");
                Ok(folder)
            }
            found => Err(OpenError::Version { found, known: VERSION }),
        }
    }

    /// Another connection to the store.
    pub fn connect(&self, flags: OpenFlags) -> rusqlite::Result<Connection> {
        connect(&self.database, flags)
    }

    /// Flushes the names in the store's folder. SQLite does so when it makes a log, but takes no notice of a failure; a log
    /// without a name is gone after a power cut, with all that was acknowledged.
    pub fn sync(&self) -> rusqlite::Result<()> {
        let folder = self.database.parent().expect("the database lies in the store's folder");
        sync(folder).map_err(|error| {
            let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_IOERR_DIR_FSYNC);
            rusqlite::Error::SqliteFailure(
                code,
                Some(format!("the store's folder cannot be flushed: {error}")),
            )
        })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A program that is being started holds the file as well until it runs, and so the lock, unless that is given back.
        let _ = self.lock.unlock();
    }
}

/// Where a data folder has its database.
pub fn database(folder: &Path) -> PathBuf {
    folder.join("store").join("longhaul.db")
}

/// A connection to a store that is there.
pub fn connect(database: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(database, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.execute_batch(PRAGMAS)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    // Keeps prepared statements as they are: otherwise each new value bound is a reason to plan anew.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

/// The version of a store's tables.
pub fn read_version(connection: &Connection) -> rusqlite::Result<u32> {
    connection.query_row("SELECT value FROM meta WHERE name = 'version'", [], |row| row.get(0))
}

/// Sees to it that a new data folder is still there after a power cut, with those above it that were missing. Which those
/// are, nobody knows after a start that was killed, so all of them are flushed.
fn sync_above(path: &Path) -> std::io::Result<()> {
    for folder in path.canonicalize()?.ancestors().skip(1) {
        match sync(folder) {
            // Not ours, so neither made by us; or of a kind that cannot be flushed.
            Err(error) if matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::InvalidInput) => {}
            other => other?,
        }
    }
    Ok(())
}

/// Makes the store beside its place, and moves it there when all of it is on the disk: a process that dies in between
/// leaves either no store or a whole one.
fn create_store(parent: &Path, store: &Path, keeper: u64) -> Result<(), Box<dyn std::error::Error>> {
    let draft = parent.join("store.new");
    if draft.try_exists()? {
        fs::remove_dir_all(&draft)?;
    }
    fs::create_dir(&draft)?;
    let database = draft.join("longhaul.db");
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
    let connection = connect(&database, flags)?;
    // The mode is told first and written to the file afterwards: only who asks for a second row learns of an error there.
    let mode: String = connection.query_one("PRAGMA journal_mode=WAL", [], |row| row.get(0))?;
    if mode != "wal" {
        return Err(format!("the journal mode is {mode} and cannot be changed to wal").into());
    }
    connection.execute_batch(&format!("BEGIN; {TABLES} COMMIT;"))?;
    let meta = [("version", i64::from(VERSION)), ("keeper", keeper as i64), ("merged", 0)];
    for (name, value) in meta {
        connection.execute("INSERT INTO meta (name, value) VALUES (?1, ?2)", (name, value))?;
    }
    connection.close().map_err(|(_, error)| error)?;
    File::open(&database)?.sync_all()?;
    sync(&draft)?;
    fs::rename(&draft, store)?;
    Ok(())
}

/// Flushes the names in a folder.
pub fn sync(folder: &Path) -> std::io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_free_again_though_a_program_that_is_being_started_has_its_files() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::open(place.path(), 1).unwrap();
        // As a fork has it, until it runs something else.
        let _inherited = folder.lock.try_clone().unwrap();
        assert!(matches!(Folder::open(place.path(), 1), Err(OpenError::InUse(_))));

        drop(folder);

        Folder::open(place.path(), 1).unwrap();
    }
}
