//! Whether there is room for new jobs: in the queue, and on the disk.
//!
//! New jobs are refused while there still is some space, so that those that are there can end.

use crate::store::Rejection;
use rusqlite::Connection;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How often the disk is looked at, however many jobs are started.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// After how many bytes of inputs, and of what is taken over, it is looked at all the same.
const LOOK_BYTES: usize = 4 << 20;
/// So much of a disk is never kept free: a small one shall hold jobs as well.
const SHARE_MAX: u64 = 10;

/// What new jobs must have room in.
#[derive(Clone, Debug)]
pub struct Room {
    /// How many jobs may wait.
    pub queue_max: u64,
    /// How much of the disk new jobs leave free; at most a tenth of it.
    pub free_bytes_min: u64,
    /// Where the jobs are kept.
    pub folder: PathBuf,
    /// When the disk was looked at last, and what was found.
    pub looked: Option<(Instant, Result<(), Rejection>)>,
    /// How many bytes of inputs, and of what is taken over, came since.
    pub bytes: usize,
}

impl Room {
    /// Whether so many new jobs, which begin with so many bytes, fit in beside those that wait.
    pub fn check(
        &mut self,
        connection: &Connection,
        waiting: u64,
        new: u64,
        bytes: usize,
    ) -> Result<(), Rejection> {
        if new == 0 {
            return Ok(());
        }
        if waiting + new > self.queue_max {
            return Err(Rejection::QueueFull { limit: self.queue_max });
        }
        self.bytes += bytes;
        match &self.looked {
            Some((when, found)) if when.elapsed() < LOOK_INTERVAL && self.bytes < LOOK_BYTES => found.clone(),
            _ => {
                let found = self.look(connection);
                (self.looked, self.bytes) = (Some((Instant::now(), found.clone())), 0);
                found
            }
        }
    }

    fn look(&self, connection: &Connection) -> Result<(), Rejection> {
        // Where a disk does not tell, the first write that fails does.
        let Ok(disk) = rustix::fs::statvfs(&self.folder) else { return Ok(()) };
        // What forgotten jobs have left in the database is nearly as good as free.
        let pragma =
            |name| connection.pragma_query_value(None, name, |row| row.get::<_, u32>(0)).unwrap_or(0);
        let within = u64::from(pragma("freelist_count")) * u64::from(pragma("page_size"));
        let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
        check_space(bytes(disk.f_bavail), within, bytes(disk.f_blocks), self.free_bytes_min)
    }
}

/// Whether the disk has as much free as is to be, a half of it outside of the database: a commit is written to the log first.
fn check_space(free: u64, within: u64, whole: u64, free_bytes_min: u64) -> Result<(), Rejection> {
    let limit = free_bytes_min.min(whole / SHARE_MAX);
    let all = free.saturating_add(within);
    if all < limit || free < limit / 2 { Err(Rejection::DiskFull { free, limit }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{Command, DEFAULT_TENANT, JobId, LeaseToken, Live, Terms, Timestamp, Wish};
    use crate::store::sqlite::{Settings, SqliteStore};
    use crate::store::{Claim, Operation, Outcome, Retry, Slot, Store, Submission, Submitted};
    use bytes::Bytes;
    use std::path::Path;
    use std::sync::Arc;

    const NOW: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);

    #[test]
    fn a_disk_keeps_what_is_set_free_and_a_small_one_a_tenth() {
        assert_eq!(
            check_space(999, 0, 1_000_000, 1_000),
            Err(Rejection::DiskFull { free: 999, limit: 1_000 })
        );
        assert_eq!(check_space(1_000, 0, 1_000_000, 1_000), Ok(()));
        assert_eq!(check_space(99, 0, 1_000, 1_000), Err(Rejection::DiskFull { free: 99, limit: 100 }));
        assert_eq!(check_space(100, 0, 1_000, 1_000), Ok(()));
        assert_eq!(check_space(0, 0, 1_000, 0), Ok(()));
        assert_eq!(check_space(500, 500, 1_000_000, 1_000), Ok(()), "with what is free in the database");
        assert_eq!(
            check_space(499, 9_999, 1_000_000, 1_000),
            Err(Rejection::DiskFull { free: 499, limit: 1_000 }),
            "but for the log"
        );
    }

    fn commit(store: &SqliteStore, operation: Operation) -> Outcome {
        store.commit(vec![operation], NOW).unwrap().remove(0)
    }

    fn apply(store: &SqliteStore, id: JobId, command: Command) {
        let outcome = commit(store, Operation::Apply(id, Box::new(command)));
        assert!(matches!(outcome, Outcome::Apply(Ok(_))), "{outcome:?}");
    }

    /// A store with a job that was cancelled and has left so much output, all of which its checkpoint keeps.
    fn store(folder: &Path, output: &Bytes) -> (SqliteStore, JobId) {
        let settings = Settings { queue_max: 100, free_bytes_min: 0, readers: 1, keeper: 1 };
        let store = SqliteStore::open(folder, settings).unwrap();
        let wish = Wish { kind: "work".into(), input: "{}".into(), ..Default::default() };
        let spec = Arc::new(wish.into_spec(DEFAULT_TENANT, &Terms::default()).expect("a sound wish"));
        commit(&store, Operation::Submit(vec![Submission { spec, chance: 1 }]));
        let slot = Slot { taker: 0, worker: "w".into(), secret: 1, term: None, in_process: true };
        let claim = Claim { kinds: ["work".to_owned()].into(), slots: vec![slot], bytes: usize::MAX };
        let Outcome::Claim(dealt) = commit(&store, Operation::Claim(claim)) else { unreachable!("a claim") };
        let lease: LeaseToken = dealt.claimed[0].token;
        let (data, channel) = (output.clone(), String::new());
        apply(&store, lease.job, Command::AppendOutput { lease, channel, reset_to: None, offset: 0, data });
        let output_bytes = output.len() as u64;
        apply(&store, lease.job, Command::Checkpoint { lease, number: 1, output_bytes, data: "far".into() });
        apply(&store, lease.job, Command::Cancel { reason: String::new(), grace: Duration::ZERO });
        let failed =
            Command::Fail { lease, failure: None, retry_delay: None, live: Live::default(), jitter: 0.0 };
        apply(&store, lease.job, failed);
        (store, lease.job)
    }

    #[test]
    fn what_a_retried_job_takes_over_counts_until_the_disk_is_looked_at_again() {
        let folder = tempfile::tempdir().unwrap();
        let output = Bytes::from(vec![b'x'; 1_000]);
        let (store, job) = store(folder.path(), &output);
        let full = Rejection::DiskFull { free: 1, limit: 2 };
        if let Some(writer) = &mut *store.writer.lock() {
            // Found a moment ago, however long the test takes; and nearly so many bytes have come since.
            let when = Instant::now() + Duration::from_secs(3_600);
            writer.room.looked = Some((when, Err(full.clone())));
            writer.room.bytes = LOOK_BYTES - 1_000;
        }
        let retry = |output| {
            let tenant = DEFAULT_TENANT.to_owned();
            let retry = Retry { tenant, job, chance: 2, request: None, trace: None, output };
            commit(&store, Operation::Retry(retry))
        };

        let without = retry(None);
        let with = retry(Some(output));

        assert!(matches!(&without, Outcome::Retry(Err(why)) if *why == full), "{without:?}");
        assert!(matches!(&with, Outcome::Retry(Ok(Submitted::Created(_)))), "{with:?}");
    }
}
