//! What only a store on a disk has: a folder, a lock, a version, and rows that can be damaged.

use crate::bench::{KEEPER, QUEUE_MAX, START, WHOLE};
use crate::builders::*;
use longhaul::job::*;
use longhaul::store::*;
use rusqlite::Connection;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tempfile::TempDir;

const SETTINGS: Settings = Settings { queue_max: QUEUE_MAX, free_bytes_min: 0, readers: 2, keeper: KEEPER.0 };

fn open(folder: &TempDir) -> Result<SqliteStore, OpenError> {
    SqliteStore::open(folder.path(), SETTINGS)
}

/// A look into the database beside the store.
fn database(folder: &TempDir) -> Connection {
    Connection::open(folder.path().join("store/longhaul.db")).unwrap()
}

fn submit(store: &SqliteStore, specs: &[Spec]) -> Vec<JobId> {
    let submissions =
        specs.iter().zip(1..).map(|(spec, chance)| Submission { spec: Arc::new(spec.clone()), chance });
    match store.commit(vec![Operation::Submit(submissions.collect())], START).unwrap().remove(0) {
        Outcome::Submit(Ok(submitted)) => submitted
            .into_iter()
            .map(|one| match one {
                Submitted::Created(job) => job.id,
                Submitted::Repeated(id) => id,
            })
            .collect(),
        other => panic!("{other:?}"),
    }
}

fn claim(store: &SqliteStore, count: u64) -> Vec<Claimed> {
    let claim = wish(&["work"], 0..count, true);
    match store.commit(vec![Operation::Claim(claim)], START).unwrap().remove(0) {
        Outcome::Claim(dealt) => dealt.claimed,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_store_opens_and_commits_while_somebody_else_reads_it() {
    let folder = tempfile::tempdir().unwrap();
    let first = open(&folder).unwrap();
    submit(&first, &[spec("work")]);
    // A backup, or a replicator: it sees one moment for as long as it takes.
    let reader = database(&folder);
    let count = || reader.query_one("SELECT count(*) FROM jobs", [], |row| row.get::<_, i64>(0)).unwrap();
    reader.execute_batch("BEGIN").unwrap();
    assert_eq!(count(), 1);
    submit(&first, &[spec("work")]);
    drop(first);

    let second = open(&folder).unwrap();
    submit(&second, &[spec("work")]);

    assert_eq!(claim(&second, 9).len(), 3);
    assert_eq!(count(), 1);
}

#[test]
fn every_batch_that_changed_something_tells_that_it_was_flushed() {
    let folder = tempfile::tempdir().unwrap();
    let flushes = Arc::new(AtomicUsize::new(0));
    let told = Arc::clone(&flushes);
    let store = open(&folder).unwrap().timed(move |_| {
        told.fetch_add(1, Ordering::SeqCst);
    });

    submit(&store, &[spec("work"), spec("work")]);
    assert_eq!(claim(&store, 2).len(), 2);
    assert_eq!(claim(&store, 1).len(), 0);

    assert_eq!(flushes.load(Ordering::SeqCst), 2);
}

#[test]
fn a_folder_has_one_server_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let first = open(&folder).unwrap();

    let second = open(&folder);
    assert!(matches!(second, Err(OpenError::InUse(_))), "{second:?}");

    drop(first);
    open(&folder).unwrap();
}

#[test]
fn a_store_remembers_the_newest_time_to_a_second_also_where_nobody_started_a_job_then() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder).unwrap();
    assert_eq!(store.latest(), Timestamp::default());
    submit(&store, &[spec("work"), spec("work")]);
    let later = START.after(Duration::from_secs(60));
    let soon = later.after(Duration::from_millis(900));
    for time in [later, soon] {
        store.commit(vec![Operation::Claim(wish(&["work"], 0..1, true))], time).unwrap();
    }

    drop(store);
    let latest = open(&folder).unwrap().latest();

    assert_eq!(latest, later, "the last change was less than a second after it");
}

#[test]
fn what_an_interrupted_first_start_left_behind_is_in_nobodys_way() {
    let folder = tempfile::tempdir().unwrap();
    let draft = folder.path().join("store.new");
    std::fs::create_dir(&draft).unwrap();
    std::fs::write(draft.join("longhaul.db"), b"half a database").unwrap();

    let store = open(&folder).unwrap();

    assert_eq!(submit(&store, &[spec("work")]).len(), 1);
    assert!(!draft.exists());
}

#[test]
fn a_store_of_a_later_version_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(&folder).unwrap());
    database(&folder).execute("UPDATE meta SET value = 99 WHERE name = 'version'", []).unwrap();

    let refused = open(&folder).unwrap_err();

    assert!(matches!(refused, OpenError::Version { found: 99, .. }), "{refused:?}");
}

#[test]
fn a_folder_that_cannot_be_used_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, b"").unwrap();

    let refused = SqliteStore::open(&file, SETTINGS).unwrap_err().to_string();

    assert!(refused.contains(file.to_str().unwrap()), "{refused}");
}

#[test]
fn a_closed_store_is_one_file() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder).unwrap();
    submit(&store, &[spec("work")]);
    drop(store);

    let left = std::fs::read_dir(folder.path().join("store")).unwrap();
    let names: Vec<_> = left.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();

    assert_eq!(names, ["longhaul.db"]);
}

/// Flips a bit in the middle of one column of the first row.
fn damage(folder: &TempDir, table: &str, column: &str) {
    let database = database(folder);
    let query = format!("SELECT {column} FROM {table} ORDER BY ordinal LIMIT 1");
    let mut bytes: Vec<u8> = database.query_row(&query, [], |row| row.get(0)).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let change =
        format!("UPDATE {table} SET {column} = ?1 WHERE ordinal = (SELECT min(ordinal) FROM {table})");
    assert!(database.execute(&change, [bytes]).unwrap() > 0);
}

#[test]
fn a_damaged_job_is_reported_to_who_asks_for_it_and_stops_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder).unwrap();
    let ids = submit(&store, &[spec("work"), spec("work")]);
    drop(store);
    damage(&folder, "jobs", "record");
    let store = open(&folder).unwrap();

    let read = store.get(&ids[..1], Parts::BASIC);
    let applied =
        store.commit(vec![apply(ids[0], cancel()), apply(ids[1], stage_of_nobody())], START).unwrap();
    let claimed = claim(&store, 2);

    assert!(matches!(read, Err(Error::Damaged { .. })), "{read:?}");
    assert!(matches!(applied[0], Outcome::Apply(Err(Rejection::Damaged(_)))), "{applied:?}");
    assert_eq!(claimed.iter().map(|one| one.token.job).collect::<Vec<_>>(), [ids[1]]);
    assert!(store.get(&ids[1..], Parts::FULL).unwrap()[0].is_some());
}

fn stage_of_nobody() -> Command {
    stage(LeaseToken { job: JobId::default(), epoch: 1, secret: 1 }, "none")
}

#[test]
fn no_damage_goes_unnoticed() {
    for (table, column) in
        [("specs", "input"), ("specs", "record"), ("events", "record"), ("results", "record")]
    {
        let folder = tempfile::tempdir().unwrap();
        let store = open(&folder).unwrap();
        let ids = submit(&store, &[spec("work")]);
        let token = claim(&store, 1)[0].token;
        store.commit(vec![apply(token.job, complete(token))], START).unwrap();
        drop(store);
        damage(&folder, table, column);
        let store = open(&folder).unwrap();

        let read = store.get(&ids, Parts::FULL).map(drop).and(store.events(&[(ids[0], 0)], WHOLE).map(drop));

        assert!(matches!(read, Err(Error::Damaged { .. })), "{table}.{column}: {read:?}");
    }
}

#[test]
fn a_write_that_fails_is_not_acknowledged_and_the_next_one_may_work() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder).unwrap();
    let before = submit(&store, &[spec("work")]);
    // Whoever looks into the database with their own tool may lock it.
    let other = database(&folder);
    other.execute_batch("BEGIN IMMEDIATE").unwrap();

    let refused = store.commit(vec![apply(before[0], cancel())], START);
    other.execute_batch("ROLLBACK").unwrap();
    let again = store.commit(vec![apply(before[0], cancel())], START).unwrap();

    assert!(matches!(refused, Err(Error::Unavailable(_))), "{refused:?}");
    assert!(matches!(again[0], Outcome::Apply(Ok(_))));
}

#[test]
fn anybody_may_look_into_the_database_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder).unwrap();
    submit(&store, &[spec("work")]);

    let seen: (String, String) = database(&folder)
        .query_row("SELECT kind, state FROM jobs", [], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap();

    assert_eq!(seen, ("work".to_owned(), "PENDING".to_owned()));
    assert!(Path::new(&folder.path().join("lock")).exists());
}
