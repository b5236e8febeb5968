//! Concurrency keys as somebody outside sees them: never are more jobs of a key at work than its limit, while servers are
//! killed, and every job comes to its end.
//!
//! Who sees it is this process. It starts servers of its own and kills them; their handlers tell it, over one connection, of
//! each beginning before the work and of each end after it. A handler's end is told before the engine hears of it, and a
//! beginning after the claim is durable, so what is told is in the order in which it was true. With a kill ends all that ran.
//!
//! A failure names the seed. `LONGHAUL_SEED` plays another one, `LONGHAUL_LIVES` more servers.

mod support;

use bytes::Bytes;
use longhaul::cli::serve;
use longhaul::cli::settings::Options;
use longhaul::job::Failure;
use longhaul::proto::job::State;
use longhaul::proto::*;
use longhaul::worker::{Context, Handler, Registry};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::error::Error as _;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use support::*;
use tonic::transport::Channel;

const KEYS: usize = 20;
const KIND: &str = "told";
/// In the environment of a server that is to be killed: where its data is, where it listens, to whom it tells.
const SERVER: &str = "LONGHAUL_KEYS_SERVER";

fn limit(key: usize) -> i32 {
    1 + (key % 3) as i32
}

/// What a job is to do.
#[derive(Debug, Deserialize, Serialize)]
struct Input {
    key: usize,
    milliseconds: u64,
    end: End,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
enum End {
    Success,
    Failure,
    Panic,
}

/// What a handler tells.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
enum Told {
    Listening(SocketAddr),
    Begin {
        key: usize,
        job: String,
        attempt: u32,
    },
    End {
        key: usize,
        job: String,
        attempt: u32,
    },
    /// Told by nobody: all that ran has ended.
    Killed,
}

// The server that is killed.

#[derive(Clone, Debug)]
struct Teller(std::sync::mpsc::Sender<Told>);

impl Teller {
    fn connect(address: &str) -> Self {
        let mut stream = TcpStream::connect(address).unwrap();
        let (sender, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for told in told {
                if writeln!(stream, "{}", serde_json::to_string(&told).unwrap()).is_err() {
                    // Nobody listens any more.
                    std::process::exit(1);
                }
            }
        });
        Self(sender)
    }

    fn tell(&self, told: Told) {
        self.0.send(told).unwrap();
    }
}

/// Tells of the end however it comes: also by a panic, and where the handler is dropped.
struct Working<'a>(&'a Teller, Told);

impl Drop for Working<'_> {
    fn drop(&mut self) {
        self.0.tell(self.1.clone());
    }
}

#[async_trait::async_trait]
impl Handler for Teller {
    async fn run(&self, context: &Context) -> Result<Bytes, Failure> {
        let Input { key, milliseconds, end } = context.parse_input()?;
        let (job, attempt) = (context.assignment.id.to_string(), context.assignment.attempt);
        self.tell(Told::Begin { key, job: job.clone(), attempt });
        let _working = Working(self, Told::End { key, job, attempt });
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(milliseconds)) => {}
            () = context.cancelled().cancelled() => {}
        }
        match end {
            End::Success => Ok("{}".into()),
            End::Failure => Err(Failure::new("BROKEN", "it broke")),
            End::Panic => panic!("it panicked"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the server that the other tests start and kill"]
async fn server() {
    let wish = std::env::var(SERVER).expect("it is started by the other tests");
    let [data, listen, to]: [&str; 3] = wish.split('|').collect::<Vec<_>>().try_into().unwrap();
    std::panic::set_hook(Box::new(|_| {}));
    let teller = Teller::connect(to);
    let options = Options {
        listen: Some(listen.parse().unwrap()),
        data_dir: Some(data.into()),
        slots: Some(32),
        ..Default::default()
    };
    let registry = Registry::default().with(KIND, teller.clone());
    let running = serve::start(options.settle().unwrap(), registry).await.unwrap();
    teller.tell(Told::Listening(running.address()));
    std::future::pending::<()>().await;
}

// Who looks at it from outside.

/// All that was told, in order.
type Log = Arc<Mutex<Vec<Told>>>;

/// Servers, one after the other, on one folder and one port.
struct Lives {
    data: PathBuf,
    listen: SocketAddr,
    ear: TcpListener,
    log: Log,
    now: Option<(Child, JoinHandle<()>)>,
}

impl Lives {
    fn begin(data: &Path) -> Self {
        let ear = TcpListener::bind("127.0.0.1:0").unwrap();
        let listen = "127.0.0.1:0".parse().unwrap();
        let mut lives = Self { data: data.to_owned(), listen, ear, log: Log::default(), now: None };
        lives.start();
        lives
    }

    fn start(&mut self) {
        let wish = format!("{}|{}|{}", self.data.display(), self.listen, self.ear.local_addr().unwrap());
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "server", "--ignored", "--nocapture"]).env(SERVER, wish);
        let child = command.stdout(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(self.ear.accept().unwrap().0).lines();
        // A line that a kill cut off is a beginning that nobody noticed, or an end that came with the kill.
        let told = lines.map_while(Result::ok).map_while(|line| serde_json::from_str(&line).ok());
        let log = Arc::clone(&self.log);
        let (listening, address) = std::sync::mpsc::channel();
        let listener = std::thread::spawn(move || {
            told.for_each(|told| match told {
                Told::Listening(address) => listening.send(address).unwrap(),
                told => log.lock().push(told),
            });
        });
        self.now = Some((child, listener));
        self.listen = address.recv().expect("it says where it listens");
    }

    /// SIGKILL. All that the server told before is in the log then.
    fn kill(&mut self) {
        let Some((mut child, listener)) = self.now.take() else { return };
        child.kill().unwrap();
        child.wait().unwrap();
        listener.join().unwrap();
        self.log.lock().push(Told::Killed);
    }

    /// A client that finds the next server as well.
    fn client(&self) -> Client {
        let endpoint = Channel::from_shared(format!("http://{}", self.listen)).unwrap();
        Client::new(endpoint.connect_lazy())
    }
}

impl Drop for Lives {
    fn drop(&mut self) {
        self.kill();
    }
}

/// At how much each key was at work at most, or what is wrong.
fn check(log: &[Told]) -> Result<BTreeMap<usize, usize>, String> {
    let mut working: BTreeMap<usize, BTreeSet<(&str, u32)>> = BTreeMap::new();
    let mut peaks = BTreeMap::new();
    for (place, told) in log.iter().enumerate() {
        match told {
            Told::Listening(_) => {}
            Told::Begin { key, job, attempt } => {
                let working = working.entry(*key).or_default();
                if working.iter().any(|(other, _)| other == job) {
                    return Err(format!("{place}: two attempts of {job} at once"));
                }
                working.insert((job, *attempt));
                if *key < KEYS && working.len() > limit(*key) as usize {
                    return Err(format!("{place}: {} of key {key} at once: {working:?}", working.len()));
                }
                let peak = peaks.entry(*key).or_default();
                *peak = working.len().max(*peak);
            }
            Told::End { key, job, attempt } => {
                let was_there = working.get_mut(key).is_some_and(|working| working.remove(&(job, *attempt)));
                if !was_there {
                    return Err(format!("{place}: an end without a beginning: {told:?}"));
                }
            }
            Told::Killed => working.clear(),
        }
    }
    Ok(peaks)
}

/// Somebody who starts jobs, and cancels some.
struct Caller {
    chance: StdRng,
    client: Client,
    name: usize,
    number: usize,
    /// Whether the jobs have the keys that they name.
    protected: bool,
    started: Vec<String>,
}

impl Caller {
    fn request(&mut self) -> StartJobRequest {
        self.number += 1;
        let chance = &mut self.chance;
        // A few have no key at all.
        let key = chance.random_range(0..KEYS + 2);
        let end =
            *[End::Success, End::Success, End::Success, End::Failure, End::Panic].choose(chance).unwrap();
        let input = Input { key, milliseconds: chance.random_range(0..12), end };
        let initial_interval = Some(prost_types::Duration { seconds: 0, nanos: 20_000_000 });
        let mut options = JobOptions {
            priority: chance.random_range(-2..=2),
            retry_policy: Some(RetryPolicy { maximum_attempts: 3, initial_interval, ..Default::default() }),
            ..Default::default()
        };
        if chance.random_range(0..10) == 0 {
            options.schedule_time = in_time(Duration::from_millis(chance.random_range(0..100)));
        }
        if chance.random_range(0..10) == 0 {
            // Some attempts are ended from outside.
            options.start_to_close_timeout = Some(prost_types::Duration { seconds: 0, nanos: 4_000_000 });
        }
        if self.protected && key < KEYS {
            options.concurrency_key = format!("key {key}");
            options.concurrency_limit = limit(key);
        }
        StartJobRequest {
            request_id: format!("{} {}", self.name, self.number),
            options: Some(options),
            ..start(KIND, &serde_json::to_string(&input).unwrap())
        }
    }

    /// Repeats a call until it is answered: it has a request id, or may be repeated as it is.
    async fn answered<T, F>(&self, call: impl Fn(Client) -> F) -> T
    where
        F: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    {
        within(async {
            loop {
                match call(self.client.clone()).await {
                    Ok(answer) => return answer.into_inner(),
                    // A server that is stopped says UNAVAILABLE; tonic's client has other words for one that is gone.
                    Err(status) => {
                        let is_gone = status.code() == tonic::Code::Unavailable || status.source().is_some();
                        assert!(is_gone, "{status:?}");
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                }
            }
        })
        .await
    }

    async fn step(&mut self) {
        match self.chance.random_range(0..100) {
            0..10 if !self.started.is_empty() => {
                let job_id = self.started.choose(&mut self.chance).unwrap().clone();
                let cancel = CancelJobRequest { job_id, ..Default::default() };
                let call = |mut client: Client| {
                    let cancel = cancel.clone();
                    async move { client.cancel_job(cancel).await }
                };
                self.answered(call).await;
            }
            10..15 => {
                let batch = BatchStartJobsRequest { requests: (0..10).map(|_| self.request()).collect() };
                let call = |mut client: Client| {
                    let batch = batch.clone();
                    async move { client.batch_start_jobs(batch).await }
                };
                let jobs = self.answered(call).await.jobs;
                self.started.extend(jobs.into_iter().map(|job| job.id));
            }
            _ => {
                let request = self.request();
                let call = |mut client: Client| {
                    let request = request.clone();
                    async move { client.start_job(request).await }
                };
                let job = self.answered(call).await;
                self.started.push(job.id);
            }
        }
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|number| number.parse().ok()).unwrap_or(default)
}

/// So many servers under load, each killed, and one that brings everything to its end. Returns what was told.
async fn live(seed: u64, servers: u64, protected: bool) -> Vec<Told> {
    println!("LONGHAUL_SEED={seed}");
    let data = tempfile::tempdir().unwrap();
    let mut lives = Lives::begin(data.path());
    let mut chance = StdRng::seed_from_u64(seed);
    let stop = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..4)
        .map(|name| {
            let chance = StdRng::seed_from_u64(chance.random());
            let client = lives.client();
            let mut caller = Caller { chance, client, name, number: 0, protected, started: Vec::new() };
            let stop = Arc::clone(&stop);
            tokio::spawn(async move {
                while !stop.load(Ordering::SeqCst) {
                    caller.step().await;
                    tokio::time::sleep(Duration::from_millis(4)).await;
                }
                caller
            })
        })
        .collect();

    for _ in 0..servers {
        tokio::time::sleep(Duration::from_millis(chance.random_range(200..1_500))).await;
        tokio::task::block_in_place(|| lives.kill());
        tokio::task::block_in_place(|| lives.start());
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    stop.store(true, Ordering::SeqCst);
    let mut started = Vec::new();
    for caller in callers {
        started.extend(caller.await.unwrap().started);
    }

    let mut client = lives.client();
    for id in &started {
        let request = WatchJobRequest { job_id: id.clone(), ..Default::default() };
        let events = to_the_end(ok(client.watch_job(request)).await).await;
        assert!(!events.is_empty());
    }
    let active = [State::Scheduled, State::Pending, State::Running, State::Retrying, State::Cancelling];
    let filter = Some(JobFilter { states: active.map(i32::from).into(), ..Default::default() });
    assert_eq!(ok(client.list_jobs(ListJobsRequest { filter, ..Default::default() })).await.jobs, []);
    println!("{} jobs in {} lives", started.len(), servers + 1);
    tokio::task::block_in_place(|| lives.kill());
    std::mem::take(&mut *lives.log.lock())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn never_are_more_jobs_of_a_key_at_work_than_its_limit_and_all_of_them_end() {
    let log = live(number("LONGHAUL_SEED", 20_261_123), number("LONGHAUL_LIVES", 8), true).await;

    let peaks = check(&log).unwrap_or_else(|violation| panic!("{violation}"));
    // A limit that is never reached shows nothing.
    let reached = (0..KEYS).filter(|key| peaks.get(key) == Some(&(limit(*key) as usize))).count();
    assert_eq!(reached, KEYS, "{peaks:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_keys_the_same_load_is_seen_to_be_too_much() {
    let log = live(1, 0, false).await;

    let violation = check(&log).unwrap_err();
    assert!(violation.contains("at once"), "{violation}");
}

#[test]
fn what_is_wrong_in_a_log_is_found() {
    let begin = |job: &str, key| Told::Begin { key, job: job.to_owned(), attempt: 1 };
    let end = |job: &str, key| Told::End { key, job: job.to_owned(), attempt: 1 };

    // Key 1 has a limit of 2.
    let well = [begin("a", 1), begin("b", 1), end("a", 1), begin("c", 1), Told::Killed, begin("b", 1)];
    assert_eq!(check(&well), Ok([(1, 2)].into()));
    assert!(check(&[begin("a", 1), begin("b", 1), begin("c", 1)]).is_err());
    assert!(check(&[begin("a", 1), begin("a", 1)]).is_err());
    assert!(check(&[begin("a", 1), Told::Killed, end("a", 1)]).is_err());
}
