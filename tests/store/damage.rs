//! What is found of a store that is damaged before it is opened: a log that is not whole, and what contradicts itself.

use crate::bench::{KEEPER, QUEUE_MAX, START};
use crate::builders::*;
use longhaul::job::*;
use longhaul::store::*;
use rusqlite::Connection;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

const SETTINGS: Settings = Settings { queue_max: QUEUE_MAX, free_bytes_min: 0, readers: 1, keeper: KEEPER.0 };
const HEAD_BYTES: usize = 32;
const FRAME_BYTES: usize = 24 + 4_096;

/// A job with labels and a request id.
fn named(id: &str) -> Spec {
    let request = RequestKey { id: id.to_owned(), fingerprint: [7; 32] };
    let labels = [("team".to_owned(), id.to_owned())].into();
    Spec { request: Some(request), labels, ..spec("work") }
}

fn submit(store: &SqliteStore, spec: Spec) -> Outcome {
    let submission = Submission { spec: Arc::new(spec), chance: 1 };
    store.commit(vec![Operation::Submit(vec![submission])], START).unwrap().remove(0)
}

fn open(folder: &Path) -> Result<SqliteStore, OpenError> {
    SqliteStore::open(folder, SETTINGS)
}

fn log(folder: &Path) -> PathBuf {
    folder.join("store/longhaul.db-wal")
}

/// A folder as a server leaves it that is killed after four commits, and where the frames of each commit lie in the log.
fn killed() -> (TempDir, Vec<Range<usize>>) {
    let (lived, left) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = open(lived.path()).unwrap();
    let mut commits = Vec::new();
    let mut begin = HEAD_BYTES;
    for id in ["one", "two", "three", "four"] {
        submit(&store, named(id));
        let end = std::fs::metadata(log(lived.path())).unwrap().len() as usize;
        commits.push(begin..end);
        begin = end;
    }
    std::fs::create_dir(left.path().join("store")).unwrap();
    for name in ["longhaul.db", "longhaul.db-wal"] {
        std::fs::copy(lived.path().join("store").join(name), left.path().join("store").join(name)).unwrap();
    }
    (left, commits)
}

fn flip(file: &Path, at: usize) {
    let mut bytes = std::fs::read(file).unwrap();
    bytes[at] ^= 0x20;
    std::fs::write(file, bytes).unwrap();
}

fn jobs(store: &SqliteStore) -> usize {
    store.list(DEFAULT_TENANT, &Filter::default(), first(100), Parts::FULL).unwrap().jobs.len()
}

#[test]
fn a_log_is_refused_where_commits_lie_behind_what_is_not_whole() {
    let (folder, commits) = killed();
    let whole = std::fs::read(log(folder.path())).unwrap();
    // Each word of the head, and of a frame's head; and some bytes of each page before the last two commits.
    let mut places: Vec<usize> = (0..HEAD_BYTES).step_by(4).collect();
    for frame in (HEAD_BYTES..commits[1].end).step_by(FRAME_BYTES) {
        places.extend((frame..frame + 24).step_by(4));
        places.extend([frame + 24, frame + 1_000, frame + FRAME_BYTES - 1]);
    }

    for at in places {
        flip(&log(folder.path()), at);
        let refused = open(folder.path()).map(|store| jobs(&store));
        std::fs::write(log(folder.path()), &whole).unwrap();

        assert!(
            matches!(&refused, Err(error) if error.to_string().contains("the log of the store")),
            "{at}: {refused:?}"
        );
    }
    assert_eq!(jobs(&open(folder.path()).unwrap()), 4);
}

#[test]
fn a_commit_that_a_power_cut_tore_is_no_damage() {
    let (folder, commits) = killed();
    let whole = std::fs::read(log(folder.path())).unwrap();

    for at in commits[3].clone().step_by(512) {
        // Cut off there, not written there, and written there alone.
        let mut torn = whole.clone();
        torn[at..(at + 512).min(whole.len())].fill(0);
        let mut others = whole.clone();
        others[commits[3].start..at].fill(0);
        for log_left in [&whole[..at], &torn[..], &others[..]] {
            let (again, _) = killed();
            std::fs::remove_dir_all(again.path().join("store")).unwrap();
            std::fs::create_dir(again.path().join("store")).unwrap();
            std::fs::copy(folder.path().join("store/longhaul.db"), again.path().join("store/longhaul.db"))
                .unwrap();
            std::fs::write(log(again.path()), log_left).unwrap();

            let left = jobs(&open(again.path()).unwrap());

            // Some of it was nothing but zeros before.
            assert_eq!(left, if log_left == &whole[..] { 4 } else { 3 }, "{at}");
        }
    }
}

#[test]
fn a_store_that_contradicts_itself_is_refused() {
    let lived = tempfile::tempdir().unwrap();
    let store = open(lived.path()).unwrap();
    submit(&store, named("one"));
    let Outcome::Claim(dealt) =
        store.commit(vec![Operation::Claim(wish(&["work"], 0..1, true))], START).unwrap().remove(0)
    else {
        panic!("a claim has another outcome")
    };
    let token = dealt.claimed[0].token;
    store.commit(vec![apply(token.job, complete(token))], START).unwrap();
    submit(&store, named("two"));
    leave_checkpoint(&store, "other");
    drop(store);

    for wound in [
        "UPDATE jobs SET place = 4 WHERE state = 'PENDING'",
        "UPDATE jobs SET rank = 7 WHERE state = 'PENDING'",
        "UPDATE jobs SET purge = NULL WHERE state = 'SUCCEEDED'",
        "UPDATE jobs SET due = 7 WHERE state = 'PENDING'",
        "UPDATE jobs SET concurrency_key = 'one' WHERE state = 'PENDING'",
        "UPDATE counters SET jobs = jobs + 1 WHERE state = 'PENDING'",
        "DELETE FROM counters WHERE state = 'PENDING'",
        "DELETE FROM jobs WHERE state = 'PENDING'",
        "DELETE FROM specs WHERE ordinal = (SELECT min(ordinal) FROM specs)",
        "DELETE FROM results",
        "DELETE FROM checkpoints",
        "UPDATE checkpoints SET ordinal = (SELECT min(ordinal) FROM jobs)",
        "UPDATE checkpoints SET ordinal = ordinal + 1",
        "UPDATE results SET ordinal = ordinal + 1",
        "UPDATE live SET ordinal = ordinal + 1",
        "DELETE FROM events WHERE sequence = 2",
        "UPDATE events SET ordinal = ordinal + 1",
        "DELETE FROM labels WHERE ordinal = (SELECT min(ordinal) FROM labels)",
        "UPDATE labels SET hash = hash + 1",
        "DELETE FROM requests WHERE ordinal = (SELECT min(ordinal) FROM requests)",
        "UPDATE meta SET value = (SELECT max(ordinal) FROM jobs) WHERE name = 'merged'",
        "INSERT INTO left_histories SELECT ordinal + 1 FROM jobs; UPDATE events SET ordinal = ordinal + 1",
    ] {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("store")).unwrap();
        let database = folder.path().join("store/longhaul.db");
        std::fs::copy(lived.path().join("store/longhaul.db"), &database).unwrap();
        let connection = Connection::open(&database).unwrap();
        let before = connection.total_changes();
        connection.execute_batch(wound).unwrap();
        let is_wounded = connection.total_changes() != before;
        drop(connection);

        let refused = open(folder.path());

        assert_eq!(refused.is_err(), is_wounded, "{wound}: {refused:?}");
        assert!(is_wounded || wound.contains("live"), "{wound} changes nothing");
    }
    assert_eq!(jobs(&open(lived.path()).unwrap()), 3);
}

/// Lets an attempt of this kind record a checkpoint and lose its lease; the job is ready again.
fn leave_checkpoint(store: &SqliteStore, kind: &str) -> JobId {
    submit(store, spec(kind));
    let token = claim(store, kind)[0].token;
    let commands = [
        output(token, 0, "hello, world"),
        checkpoint(token, 1, 5, "at five"),
        end_lease(token, KEEPER, LeaseEnd::Expired),
    ];
    store.commit(commands.map(|command| apply(token.job, command)).into(), START).unwrap();
    token.job
}

/// The ready jobs of a kind.
fn claim(store: &SqliteStore, kind: &str) -> Vec<Claimed> {
    let claim = Operation::Claim(wish(&[kind], 0..9, true));
    match store.commit(vec![claim], START).unwrap().remove(0) {
        Outcome::Claim(dealt) => dealt.claimed,
        other => panic!("a claim has another outcome: {other:?}"),
    }
}

#[test]
fn a_damaged_checkpoint_is_no_attempt_s_and_costs_its_own_job_alone() {
    for wound in [
        "UPDATE checkpoints SET record = CAST(substr(record, 1, 3) || x'00' || substr(record, 5) AS BLOB)",
        "UPDATE checkpoints SET record = zeroblob(9)",
        "UPDATE checkpoints SET record = x''",
    ] {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path()).unwrap();
        let id = leave_checkpoint(&store, "work");
        drop(store);
        let database = Connection::open(folder.path().join("store/longhaul.db")).unwrap();
        assert_eq!(database.execute(wound, []), Ok(1));
        drop(database);
        let store = open(folder.path()).unwrap();
        submit(&store, named("two"));

        let claimed = claim(&store, "work");
        let cancelled = store.commit(vec![apply(id, cancel())], START).unwrap().remove(0);
        let retry = |output| Retry {
            tenant: DEFAULT_TENANT.into(),
            job: id,
            chance: 1,
            request: None,
            trace: None,
            output,
        };
        let retried =
            store.commit(vec![Operation::Retry(retry(Some("hello".into())))], START).unwrap().remove(0);

        // It is set aside, where a client may end it; it is neither begun anew in silence nor given half of what it was.
        assert_eq!(claimed.iter().filter(|one| one.token.job == id).count(), 0, "{wound}");
        assert_eq!(claimed.len(), 1, "{wound}: the other one is handed out");
        assert!(matches!(&cancelled, Outcome::Apply(Ok(step)) if step.job.state == State::Cancelled));
        assert!(matches!(retried, Outcome::Retry(Err(Rejection::Damaged(_)))), "{wound}: {retried:?}");
        assert_eq!(store.get(&[id], Parts::FULL).unwrap()[0].as_ref().unwrap().job.checkpoint(), Some(5));
    }
}

#[test]
fn a_repeat_hears_that_its_request_id_is_damaged() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).unwrap();
    submit(&store, named("one"));
    drop(store);
    let database = Connection::open(folder.path().join("store/longhaul.db")).unwrap();
    let mut record: Vec<u8> =
        database.query_one("SELECT record FROM requests", [], |row| row.get(0)).unwrap();
    record[3] ^= 1;
    database.execute("UPDATE requests SET record = ?1", [record]).unwrap();
    drop(database);
    let store = open(folder.path()).unwrap();

    let repeated = submit(&store, named("one"));
    let another = submit(&store, named("two"));

    assert!(matches!(repeated, Outcome::Submit(Err(Rejection::Damaged(_)))), "{repeated:?}");
    assert!(matches!(another, Outcome::Submit(Ok(_))), "{another:?}");
}

#[test]
fn a_time_that_was_noted_and_is_damaged_moves_no_clock() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).unwrap();
    submit(&store, named("one"));
    let later = START.after(Duration::from_secs(60));
    let submission = Submission { spec: Arc::new(named("two")), chance: 1 };
    store.commit(vec![Operation::Submit(vec![submission])], later).unwrap();
    drop(store);
    assert_eq!(open(folder.path()).unwrap().latest(), later);

    let database = Connection::open(folder.path().join("store/longhaul.db")).unwrap();
    let changed = database.execute("UPDATE meta SET value = value + (1 << 53) WHERE name = 'latest'", []);
    drop(database);

    assert_eq!(changed, Ok(1));
    assert_eq!(open(folder.path()).unwrap().latest(), later, "the newest job tells as well");
}

#[test]
fn a_job_that_was_set_aside_and_comes_back_has_its_times_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).unwrap();
    let limit = |options: &mut Options| options.schedule_to_close_timeout = Some(10 * SECOND);
    submit(&store, tuned("work", limit));
    let Outcome::Claim(dealt) =
        store.commit(vec![Operation::Claim(wish(&["work"], [1], false))], START).unwrap().remove(0)
    else {
        panic!("a claim has its own outcome")
    };
    let token = dealt.claimed[0].token;
    let late = START.after(11 * SECOND);
    let sweep = || Operation::Sweep { limit: 10, chance: 0 };
    Connection::open(folder.path().join("store/longhaul.db"))
        .unwrap()
        .execute("UPDATE jobs SET record = zeroblob(9)", [])
        .unwrap();

    // Due, and set aside; but its worker goes on, and what it says is written.
    store.commit(vec![sweep()], late).unwrap();
    store.commit(vec![apply(token.job, accept(token))], late).unwrap();
    drop(store);
    let store = open(folder.path()).unwrap();
    store.commit(vec![sweep()], late).unwrap();

    let job = store.get(&[token.job], Parts::BASIC).unwrap().remove(0).unwrap().job;
    assert_eq!(job.state, State::Failed, "it was late");
}
