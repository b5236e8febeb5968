//! A store of an earlier version, as a server of that version left it, opened by this one.
//!
//! The fixtures were made by those servers themselves. Version 1: jobs in seven states, two with request ids, three of a
//! concurrency key; one was running when it was killed. Version 2: jobs in six states, three of them with labels.
//! Version 3: six jobs, of which one was claimed and one ran, both under leases with terms of their own. Version 4: a job in every
//! state, with labels, request ids, a concurrency key, two channels of output and a log, and an id whose job is forgotten.
//! Version 5: the same, and three jobs that have a checkpoint: one has failed, one waits for its retry and one for a worker.

use crate::bench::{QUEUE_MAX, WHOLE};
use crate::builders::{first, wish};
use longhaul::job::*;
use longhaul::store::*;
use rusqlite::Connection;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use tempfile::TempDir;

const SETTINGS: Settings = Settings { queue_max: QUEUE_MAX, free_bytes_min: 0, readers: 2, keeper: 1 };

/// A data folder with the fixture of version 1 in it.
fn old() -> (TempDir, PathBuf) {
    of_version(1)
}

/// A data folder with a fixture in it.
fn of_version(version: u32) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("store/longhaul.db");
    std::fs::create_dir(folder.path().join("store")).unwrap();
    let packed = std::fs::File::open(format!("tests/store/fixtures/version{version}.db.gz")).unwrap();
    let unpacked = std::fs::File::create(&database).unwrap();
    let gzip = Command::new("gzip").arg("-dc").stdin(Stdio::from(packed)).stdout(unpacked).status().unwrap();
    assert!(gzip.success());
    (folder, database)
}

/// What a database of any version says of its jobs, in columns for people: id, kind and state.
fn rows(database: &PathBuf) -> Vec<(Vec<u8>, String, String)> {
    let connection = Connection::open(database).unwrap();
    let mut statement = connection.prepare("SELECT id, kind, state FROM jobs ORDER BY ordinal DESC").unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
    rows.map(Result::unwrap).collect()
}

fn version(database: &PathBuf) -> i64 {
    let connection = Connection::open(database).unwrap();
    connection.query_one("SELECT value FROM meta WHERE name = 'version'", [], |row| row.get(0)).unwrap()
}

fn list(store: &SqliteStore, filter: &Filter) -> Vec<Snapshot> {
    store.list(DEFAULT_TENANT, filter, first(100), Parts::FULL).unwrap().jobs
}

#[test]
fn everything_is_there_and_can_be_listed_counted_and_claimed() {
    let (folder, database) = old();
    let before = rows(&database);
    assert_eq!((before.len(), version(&database)), (10, 1));

    let store = SqliteStore::open(folder.path(), SETTINGS).unwrap();

    let all = list(&store, &Filter::default());
    let seen: Vec<_> = all
        .iter()
        .map(|snapshot| &snapshot.job)
        .map(|job| (job.id.as_bytes().to_vec(), job.kind.clone(), job.state.name().to_owned()))
        .collect();
    assert_eq!(seen, before);
    let mut expected: BTreeMap<(String, String), u64> = BTreeMap::new();
    for (_, kind, state) in &before {
        *expected.entry((kind.clone(), state.clone())).or_default() += 1;
    }
    let counted = store.count(DEFAULT_TENANT, &[], 100).unwrap().into_iter();
    assert_eq!(
        counted
            .map(|count| ((count.kind, count.state.name().to_owned()), count.jobs))
            .collect::<BTreeMap<_, _>>(),
        expected
    );
    for snapshot in &all {
        let job = &snapshot.job;
        let history = store.events(&[(job.id, 0)], WHOLE).unwrap().remove(0);
        assert_eq!(history.len() as u64, job.sequence(), "{}", job.id);
        let by_state =
            Filter { states: vec![job.state], kinds: vec![job.kind.clone()], ..Default::default() };
        assert!(list(&store, &by_state).contains(snapshot));
        if !snapshot.labels.is_empty() {
            let by_labels = Filter { labels: snapshot.labels.clone(), ..Default::default() };
            assert!(list(&store, &by_labels).contains(snapshot));
        }
    }
    assert!(all.iter().any(|snapshot| !snapshot.labels.is_empty()), "the fixture has a job with labels");

    // The queue goes on, and what has ended is forgotten in its time.
    let now = Timestamp::from_micros(1_900_000_000_000_000);
    let claim = wish(&["nobody"], 1..4, true);
    let outcomes = store.commit(vec![Operation::Claim(claim), Operation::Prune { limit: 100 }], now).unwrap();
    let [Outcome::Claim(dealt), Outcome::Prune(pruned)] = &outcomes[..] else { panic!("{outcomes:?}") };
    assert_eq!((dealt.claimed.len(), pruned.forgotten.len()), (2, 3));
    drop(store);
    assert_eq!((rows(&database).len(), version(&database)), (7, 5));
}

#[test]
fn a_request_id_of_then_stands_for_its_job() {
    let (folder, _) = old();
    let store = SqliteStore::open(folder.path(), SETTINGS).unwrap();

    let named: Vec<Snapshot> = list(&store, &Filter::default())
        .into_iter()
        .filter(|snapshot| snapshot.request_id.is_some())
        .collect();

    assert_eq!(named.len(), 2);
    for snapshot in named {
        // Whatever it asks for now, it is known that it was another request.
        let request = RequestKey { id: snapshot.request_id.unwrap(), fingerprint: [0; 32] };
        let spec = Spec { request: Some(request), ..crate::builders::spec("work") };
        let submission = Submission { spec: std::sync::Arc::new(spec), chance: 1 };
        let outcome = store.commit(vec![Operation::Submit(vec![submission])], snapshot.job.create_time);
        assert!(matches!(outcome.unwrap()[0], Outcome::Submit(Err(Rejection::RequestIdReused { index: 0 }))));
    }
}

#[test]
fn one_that_is_broken_off_leaves_the_old_store() {
    let (folder, database) = old();
    let before = rows(&database);
    let connection = Connection::open(&database).unwrap();
    // The eighth job cannot be brought over.
    connection
        .execute_batch(
            "CREATE TRIGGER fault BEFORE UPDATE ON jobs WHEN (SELECT count(*) FROM jobs WHERE ordinal < OLD.ordinal) = 7
             BEGIN SELECT RAISE(ABORT, 'the disk is on fire'); END",
        )
        .unwrap();

    let refused = SqliteStore::open(folder.path(), SETTINGS).unwrap_err();

    assert!(refused.to_string().contains("the disk is on fire"), "{refused}");
    assert_eq!((rows(&database), version(&database)), (before.clone(), 1));
    connection.execute_batch("DROP TRIGGER fault").unwrap();
    drop(connection);
    let store = SqliteStore::open(folder.path(), SETTINGS).unwrap();
    assert_eq!(list(&store, &Filter::default()).len(), before.len());
}

#[test]
fn the_records_of_version_2_are_read_and_go_on() {
    let (folder, database) = of_version(2);
    let before = rows(&database);
    assert_eq!((before.len(), version(&database)), (7, 2));

    let store = SqliteStore::open(folder.path(), SETTINGS).unwrap();

    let all = list(&store, &Filter::default());
    assert_eq!(all.len(), before.len());
    assert!(all.iter().all(|one| one.trace.is_none() && one.job.lease_term.is_none()));
    assert!(all.iter().any(|one| one.result.is_some()) && all.iter().any(|one| !one.labels.is_empty()));
    let running = &all.iter().find(|one| one.job.state == State::Running).unwrap().job;
    assert_eq!(running.emitted.stage, "");
    assert!(running.emitted.stages > 0);
    let stage =
        longhaul::job::Command::EnterStage { lease: running.lease_token().unwrap(), name: "later".into() };
    store.commit(vec![Operation::Apply(running.id, Box::new(stage))], running.state_time).unwrap();
    drop(store);

    let store = SqliteStore::open(folder.path(), SETTINGS).unwrap();
    let found = store.get(&[running.id], Parts::FULL).unwrap().remove(0).unwrap();
    assert_eq!((found.job.emitted.stage.as_str(), version(&database)), ("later", 5));
}

#[test]
fn the_records_of_version_3_are_read_and_go_on() {
    let (folder, database) = of_version(3);
    assert_eq!((rows(&database).len(), version(&database)), (6, 3));

    let store = SqliteStore::open(folder.path(), SETTINGS).unwrap();

    let all = list(&store, &Filter::default());
    assert_eq!(all.len(), 6);
    assert!(all.iter().all(|one| one.job.unaccepted == 0));
    let of = |kind: &str| &all.iter().find(|one| one.job.kind == kind).unwrap().job;
    let term = |job: &Job| job.lease_term.map(|term| term.as_secs());
    assert_eq!((term(of("claimed")), term(of("running"))), (Some(60), Some(3_600)));
    let (claimed, lease) = (of("claimed"), of("claimed").lease.as_ref().unwrap());
    let lapse = longhaul::job::Command::EndLease {
        epoch: claimed.epoch,
        keeper: lease.keeper,
        cause: LeaseEnd::Unaccepted,
        live: Live::default(),
        jitter: 0.0,
    };
    store.commit(vec![Operation::Apply(claimed.id, Box::new(lapse))], claimed.state_time).unwrap();
    drop(store);

    let store = SqliteStore::open(folder.path(), SETTINGS).unwrap();
    let found = store.get(&[claimed.id], Parts::FULL).unwrap().remove(0).unwrap();
    assert_eq!((found.job.unaccepted, version(&database)), (1, 5));
}

#[test]
fn the_records_of_version_4_are_read_and_go_on() {
    let (folder, database) = of_version(4);
    assert_eq!((rows(&database).len(), version(&database)), (13, 4));

    let store = SqliteStore::open(folder.path(), SETTINGS).unwrap();

    let all = list(&store, &Filter::default());
    assert!(all.len() == 13 && all.iter().all(|one| one.job.emitted.checkpoint.is_none()));
    let running = &all.iter().find(|one| one.job.state == State::Running).unwrap().job;
    let (lease, keeper) = (running.lease_token().unwrap(), running.lease.as_ref().unwrap().keeper);
    let begun = crate::builders::checkpoint(lease, 1, 1, "begun");
    let end = crate::builders::end_lease(lease, keeper, LeaseEnd::Expired);
    let commands = [begun, end].map(|command| Operation::Apply(running.id, Box::new(command)));
    store.commit(commands.into(), running.state_time).unwrap();
    drop(store);

    let store = SqliteStore::open(folder.path(), SETTINGS).unwrap();
    let claim = Operation::Claim(wish(&["runs"], [1], true));
    let outcomes = store.commit(vec![claim], running.state_time).unwrap();
    let [Outcome::Claim(dealt)] = &outcomes[..] else { panic!("{outcomes:?}") };
    assert_eq!((&dealt.claimed[0].checkpoint[..], version(&database)), (&b"begun"[..], 5));
}

#[test]
fn the_store_of_the_present_version_is_kept_with_a_job_in_every_state() {
    let (folder, database) = of_version(5);
    let before = rows(&database);
    let of_a_new_store = {
        let folder = tempfile::tempdir().unwrap();
        drop(SqliteStore::open(folder.path(), SETTINGS).unwrap());
        version(&folder.path().join("store/longhaul.db"))
    };
    assert_eq!(
        (before.len(), version(&database)),
        (14, of_a_new_store),
        "a new version needs a fixture of its own"
    );

    let store = SqliteStore::open(folder.path(), SETTINGS).unwrap();

    let all = list(&store, &Filter::default());
    assert_eq!(all.len(), before.len());
    for state in State::ALL {
        assert!(all.iter().any(|one| one.job.state == state), "{state:?}");
    }
    let of = |kind: &str| all.iter().find(|one| one.job.kind == kind).unwrap();
    assert_eq!(of("succeeds").result.as_deref(), Some(br#"{"answer":42}"#.as_slice()));
    assert_eq!(of("runs").labels["run"], "7");
    assert_eq!(of("runs").request_id.as_deref(), Some("runs-1"));
    assert_eq!(of("runs").job.emitted.channels.len(), 2);
    assert_eq!(all.iter().filter(|one| one.job.place() == Place::Blocked).count(), 1);
    assert_eq!(of("fails").job.failure.as_ref().unwrap().message, "it broke");
    for one in &all {
        let history = store.events(&[(one.job.id, 0)], WHOLE).unwrap().remove(0);
        assert_eq!(history.len() as u64, one.job.sequence(), "{}", one.job.kind);
    }
    let checkpoints = ["fails", "retries", "resumes", "succeeds"].map(|kind| of(kind).job.checkpoint());
    assert_eq!(checkpoints, [Some(4), Some(8), Some(6), None]);
    let claims = [wish(&["waits"], 1..9, true), wish(&["resumes"], 1..9, true)].map(Operation::Claim);
    let outcomes = store.commit(claims.into(), of("runs").job.state_time).unwrap();
    let [Outcome::Claim(waited), Outcome::Claim(resumed)] = &outcomes[..] else { panic!("{outcomes:?}") };
    assert_eq!((waited.claimed.len(), resumed.claimed.len()), (2, 1));
    assert_eq!(&resumed.claimed[0].checkpoint[..], br#"{"word": 2}"#);
}
