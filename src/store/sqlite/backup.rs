//! A copy of a store as it is at one moment, made beside a server that goes on writing, or without one.
//!
//! It is made by another process and needs nothing of the server: SQLite's online backup copies what one read transaction
//! sees. Meanwhile the server's log only grows, by what is written.

use super::schema::{self, VERSION};
use crate::store::BackupError;
use rusqlite::backup::Backup;
use rusqlite::{Connection, OpenFlags};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempPath;

/// How many pages are copied at once, 4 MiB.
const STEP_PAGES: std::ffi::c_int = 1_024;
/// How long to wait where the disk has no lock to give.
const BUSY_PAUSE: Duration = Duration::from_millis(10);

/// What a backup has in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackedUp {
    /// How many jobs.
    pub jobs: u64,
    /// How many bytes the file has.
    pub bytes: u64,
}

/// Copies the store in the data folder `data` into the new file `file`, which comes into being when all of it is there,
/// checked and on the disk. A file that is there already stays as it is.
pub fn back_up(data: &Path, file: &Path) -> Result<BackedUp, BackupError> {
    let store = schema::database(data);
    if !store.is_file() {
        return Err(BackupError::NoStore(data.display().to_string()));
    }
    let failed = |why: &dyn std::fmt::Display| BackupError::Failed {
        file: file.display().to_string(),
        why: why.to_string(),
    };
    let source = open(&store).map_err(|error| failed(&error))?;
    let draft = Draft::open(file, &failed)?;
    let backed_up = draft.fill(&source).map_err(|error| failed(&error))?;
    draft.publish(file).map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => BackupError::Exists(file.display().to_string()),
        _ => failed(&error),
    })?;
    Ok(backed_up)
}

/// A connection that sees one moment until it is closed, and writes nothing.
fn open(store: &Path) -> Result<Connection, Box<dyn std::error::Error>> {
    let source = schema::connect(store, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    source.execute_batch("BEGIN")?;
    // It is the first read that chooses the moment.
    match schema::read_version(&source)? {
        0..=VERSION => Ok(source),
        later => {
            Err(format!("the store has version {later}; this program knows versions up to {VERSION}").into())
        }
    }
}

/// The file while it is not whole. Its name is always the same, so one that a killed process left is used again.
struct Draft {
    path: TempPath,
    /// It is locked, so that two who make the same backup do not write into each other's.
    file: File,
}

impl Draft {
    fn open(
        target: &Path,
        failed: &impl Fn(&dyn std::fmt::Display) -> BackupError,
    ) -> Result<Self, BackupError> {
        let mut path = target.as_os_str().to_owned();
        path.push(".partial");
        let path = PathBuf::from(path);
        let file = File::options().write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(|error| failed(&error))?;
        file.try_lock().map_err(|_| failed(&"another backup is being written to it"))?;
        // Whoever had the lock before may have brought it to its end.
        if target.symlink_metadata().is_ok() {
            let _ = std::fs::remove_file(&path);
            return Err(BackupError::Exists(target.display().to_string()));
        }
        let path = TempPath::try_from_path(path).map_err(|error| failed(&error))?;
        file.set_len(0).map_err(|error| failed(&error))?;
        Ok(Self { path, file })
    }

    fn fill(&self, source: &Connection) -> Result<BackedUp, Box<dyn std::error::Error>> {
        let mut copy = Connection::open_with_flags(&self.path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        // Nobody needs half of it: it is flushed at the end, and thrown away otherwise.
        copy.execute_batch("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF;")?;
        Backup::new(source, &mut copy)?.run_to_completion(STEP_PAGES, BUSY_PAUSE, None)?;
        let found: String = copy.query_one("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        if found != "ok" {
            return Err(format!("the copy is damaged: {found}").into());
        }
        let jobs = copy.query_one("SELECT total(jobs) FROM counters", [], |row| row.get::<_, f64>(0))? as u64;
        copy.close().map_err(|(_, error)| error)?;
        self.file.sync_all()?;
        Ok(BackedUp { jobs, bytes: self.file.metadata()?.len() })
    }

    fn publish(self, target: &Path) -> std::io::Result<()> {
        self.path.persist_noclobber(target).map_err(|error| error.error)?;
        let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty());
        schema::sync(folder.unwrap_or(Path::new(".")))
    }
}
