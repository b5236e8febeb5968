//! `longhaul backup`: what it copies while a server writes, what a restored copy does, and what a kill leaves.

mod support;

use longhaul::proto::job::State;
use longhaul::proto::*;
use rusqlite::{Connection, OpenFlags};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use support::binary::{Process, longhaul};
use support::*;
use tempfile::TempDir;

fn back_up(data: &Path, file: &Path) -> Output {
    longhaul().arg("backup").arg(file).arg("--data-dir").arg(data).output().unwrap()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Makes a copy the store of a new data folder.
fn restore(copy: &Path) -> TempDir {
    let data = tempfile::tempdir().unwrap();
    std::fs::create_dir(data.path().join("store")).unwrap();
    std::fs::copy(copy, data.path().join("store/longhaul.db")).unwrap();
    data
}

/// Starts jobs until it is told to stop, some short and some that take long, and notes which were acknowledged.
async fn load(mut client: Client, stop: Arc<AtomicBool>, noted: tokio::sync::mpsc::UnboundedSender<Job>) {
    for n in 0.. {
        if stop.load(Ordering::SeqCst) {
            return;
        }
        let seconds = if n % 50 == 0 { 3.0 } else { 0.01 };
        let input = format!(r#"{{"prompt":"{}","seconds":{seconds},"steps":2}}"#, "word ".repeat(200));
        match within(client.start_job(start("simulate", &input))).await {
            Ok(job) => drop(noted.send(job.into_inner())),
            // The server was killed.
            Err(_) => return,
        }
    }
}

/// Every job of a list, by its id.
async fn listed(client: &mut Client) -> BTreeMap<String, Job> {
    let mut request = ListJobsRequest { page_size: 1_000, ..Default::default() };
    let mut jobs = BTreeMap::new();
    loop {
        let page = ok(client.list_jobs(request.clone())).await;
        jobs.extend(page.jobs.into_iter().map(|job| (job.id.clone(), job)));
        if page.next_page_token.is_empty() {
            return jobs;
        }
        request.page_token = page.next_page_token;
    }
}

/// A server under load, with what it has acknowledged so far.
struct Loaded {
    server: Process,
    data: TempDir,
    folder: TempDir,
    stop: Arc<AtomicBool>,
    noted: tokio::sync::mpsc::UnboundedReceiver<Job>,
}

impl Loaded {
    async fn begin() -> Self {
        let data = tempfile::tempdir().unwrap();
        let server = Process::serve(data.path(), "127.0.0.1:0", &["--slots", "4", "--log", "error"]);
        let stop = Arc::new(AtomicBool::new(false));
        let (sender, noted) = tokio::sync::mpsc::unbounded_channel();
        for _ in 0..4 {
            tokio::spawn(load(client(&server.url()).await, Arc::clone(&stop), sender.clone()));
        }
        Self { server, data, folder: tempfile::tempdir().unwrap(), stop, noted }
    }

    /// Where its backup is to be.
    fn copy(&self) -> PathBuf {
        self.folder.path().join("jobs.db")
    }

    /// Makes it, beside whatever goes on.
    fn back_up(&self) -> Output {
        tokio::task::block_in_place(|| back_up(self.data.path(), &self.copy()))
    }

    /// Begins to make it.
    fn begin_backup(&self) -> Child {
        let mut command = longhaul();
        command.arg("backup").arg(self.copy()).arg("--data-dir").arg(self.data.path());
        command.stdout(Stdio::null()).spawn().unwrap()
    }

    /// So many more acknowledged jobs.
    async fn acknowledged(&mut self, count: usize) -> Vec<Job> {
        let mut jobs = Vec::new();
        for _ in 0..count {
            jobs.push(within(self.noted.recv()).await.expect("the load goes on"));
        }
        jobs
    }
}

/// Serves a restored copy: it has all of these jobs, and brings every job to its end.
async fn assert_resumes(copy: &Path, jobs: &[Job]) {
    let data = restore(copy);
    let server = Process::serve(data.path(), "127.0.0.1:0", &["--slots", "16", "--log", "error"]);
    let mut client = client(&server.url()).await;

    let there = listed(&mut client).await;
    let missing: Vec<&Job> = jobs.iter().filter(|job| !there.contains_key(&job.id)).collect();
    assert!(missing.is_empty(), "{} of {} jobs are missing", missing.len(), jobs.len());
    for job in there.values() {
        reach(&mut client, job, State::Succeeded).await;
    }
    // It goes on like any other.
    let new = ok(client.start_job(simulated("a b"))).await;
    assert!(!there.contains_key(&new.id));
    reach(&mut client, &new, State::Succeeded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_made_under_load_has_what_was_acknowledged_and_resumes() {
    let mut loaded = Loaded::begin().await;
    let copy = loaded.copy();
    let before = loaded.acknowledged(600).await;

    let output = loaded.back_up();
    let after = loaded.acknowledged(50).await;
    loaded.stop.store(true, Ordering::SeqCst);

    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).starts_with(&format!("{}: ", copy.display())), "{}", said(&output));
    assert_eq!(std::fs::read_dir(loaded.folder.path()).unwrap().count(), 1, "the copy is one file");
    // The server has not waited for the end of it, nor is anything of it in the server's way.
    let mut client = client(&loaded.server.url()).await;
    reach(&mut client, after.last().unwrap(), State::Succeeded).await;
    drop(client);
    assert_resumes(&copy, &before).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_is_whole_although_the_server_was_killed_meanwhile() {
    let mut loaded = Loaded::begin().await;
    let copy = loaded.copy();
    let before = loaded.acknowledged(600).await;

    let mut backup = loaded.begin_backup();
    loaded.server.kill();

    assert!(backup.wait().unwrap().success());
    assert_resumes(&copy, &before).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_can_be_made_where_no_server_runs() {
    let mut loaded = Loaded::begin().await;
    let copy = loaded.copy();
    let before = loaded.acknowledged(300).await;
    loaded.server.kill();

    let output = loaded.back_up();

    assert!(output.status.success(), "{}", said(&output));
    assert_resumes(&copy, &before).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_that_is_killed_leaves_no_file_and_the_next_one_is_whole() {
    let mut loaded = Loaded::begin().await;
    let copy = loaded.copy();
    loaded.acknowledged(600).await;
    let mut killed = 0;

    for wait in (0..40).map(|n| std::time::Duration::from_micros(n * 500)) {
        let mut backup = loaded.begin_backup();
        tokio::time::sleep(wait).await;
        backup.kill().unwrap();
        if backup.wait().unwrap().success() {
            std::fs::remove_file(&copy).unwrap();
        } else {
            killed += 1;
            assert!(!copy.exists() || is_whole(&copy), "half a copy after {wait:?}");
            let _ = std::fs::remove_file(&copy);
        }
    }
    let before = loaded.acknowledged(10).await;
    let output = loaded.back_up();
    loaded.stop.store(true, Ordering::SeqCst);

    assert!(killed > 10, "only {killed} of them were killed");
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(
        std::fs::read_dir(loaded.folder.path()).unwrap().count(),
        1,
        "something is left of the killed ones"
    );
    assert_resumes(&copy, &before).await;
}

fn is_whole(copy: &Path) -> bool {
    let check = |connection: Connection| {
        connection.query_one("PRAGMA integrity_check", [], |row| row.get::<_, String>(0))
    };
    let found = Connection::open_with_flags(copy, OpenFlags::SQLITE_OPEN_READ_WRITE).and_then(check);
    found.is_ok_and(|found| found == "ok")
}

/// Shows that the checks above can fail: a file that is copied while it changes lacks what the log has, at least.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plain_copy_of_the_database_is_not_a_backup() {
    let mut loaded = Loaded::begin().await;
    let before = loaded.acknowledged(600).await;

    let data = restore(&loaded.data.path().join("store/longhaul.db"));
    loaded.stop.store(true, Ordering::SeqCst);

    let database = data.path().join("store/longhaul.db");
    let jobs = Connection::open(&database)
        .and_then(|copy| copy.query_one("SELECT count(*) FROM jobs", [], |row| row.get::<_, i64>(0)));
    assert!(!is_whole(&database) || jobs.is_ok_and(|jobs| (jobs as usize) < before.len()));
}

#[test]
fn what_cannot_be_backed_up_is_told_and_changes_nothing() {
    let data = tempfile::tempdir().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("jobs.db");

    let nothing = back_up(data.path(), &copy);
    drop(Process::serve(data.path(), "127.0.0.1:0", &["--slots", "0", "--log", "error"]));
    std::fs::write(&copy, "precious").unwrap();
    let taken = back_up(data.path(), &copy);
    let nowhere = back_up(data.path(), &folder.path().join("no/such/folder.db"));

    for (output, code, words) in [
        (nothing, 2, "there is no store in"),
        (taken, 2, "is there already"),
        (nowhere, 1, "cannot back up to"),
    ] {
        assert_eq!(output.status.code(), Some(code), "{}", said(&output));
        assert!(said(&output).contains(words), "{}", said(&output));
    }
    assert_eq!(std::fs::read_to_string(&copy).unwrap(), "precious");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}
