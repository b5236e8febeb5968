//! Moves the write-ahead log into the database, beside the writer, so that nobody waits for it.

use super::schema::Folder;
use parking_lot::{Condvar, Mutex};
use rusqlite::hooks::Wal;
use rusqlite::{Connection, OpenFlags};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;

/// From how many pages on the log is moved, about 16 MiB: rarely enough to gather writes to one page, often enough to keep
/// reads and the next start short.
const PAGES: u32 = 4_000;
/// From how many pages on the writer does it itself. It is the only one that can start the log anew while commits come
/// without a pause, since a log is only begun again when all of it has been moved.
const PAGES_MAX: u32 = 32_000;

/// A thread with a connection of its own.
#[derive(Debug)]
pub struct WalCheckpointer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Pages in the log, as of the last commit.
    pages: AtomicU32,
    wanted: Mutex<Wanted>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Wanted {
    checkpoint: bool,
    stop: bool,
}

impl WalCheckpointer {
    /// Starts the thread.
    pub fn start(folder: &Folder) -> rusqlite::Result<Self> {
        let connection = folder.connect(OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        let shared = Arc::new(Shared::default());
        let thread = std::thread::Builder::new().name("wal-checkpoint".into()).spawn({
            let shared = Arc::clone(&shared);
            move || shared.run(&connection)
        });
        let thread = thread.map_err(|error| {
            let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_NOMEM);
            rusqlite::Error::SqliteFailure(code, Some(format!("no thread for checkpoints: {error}")))
        })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Counts the pages that `writer` has in the log.
    pub fn watch(&self, writer: &mut Connection) -> rusqlite::Result<()> {
        let shared = Arc::clone(&self.shared);
        writer.wal_hook(Some(move |_: &mut Wal, pages| {
            shared.pages.store(u32::try_from(pages).unwrap_or(0), Ordering::Relaxed);
            Ok(())
        }))
    }

    /// Sees to the log after a commit of `writer`.
    pub fn after_commit(&self, writer: &Connection) {
        let pages = self.shared.pages.load(Ordering::Relaxed);
        if pages >= PAGES_MAX {
            checkpoint(writer);
        } else if pages >= PAGES {
            let mut wanted = self.shared.wanted.lock();
            if !wanted.checkpoint {
                wanted.checkpoint = true;
                self.shared.changed.notify_one();
            }
        }
    }
}

impl Shared {
    fn run(&self, connection: &Connection) {
        loop {
            {
                let mut wanted = self.wanted.lock();
                while !wanted.checkpoint && !wanted.stop {
                    self.changed.wait(&mut wanted);
                }
                if wanted.stop {
                    return;
                }
            }
            checkpoint(connection);
            self.wanted.lock().checkpoint = false;
        }
    }
}

impl Drop for WalCheckpointer {
    fn drop(&mut self) {
        self.shared.wanted.lock().stop = true;
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Moves what can be moved without waiting for anybody. A failure is harmless: the log stays, and the next one tries again.
fn checkpoint(connection: &Connection) {
    if let Err(error) = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())) {
        tracing::warn!(%error, "the log could not be moved into the database");
    }
}
