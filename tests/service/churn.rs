//! Jobs that come, run, end and go, beside those who list and watch them: what they see is what there is.
//!
//! A failure names the seed that repeats the order of what is asked. `LONGHAUL_SEED` plays another one, `LONGHAUL_STEPS` a
//! longer one.

use crate::support::*;
use longhaul::processor;
use longhaul::proto::job::State;
use longhaul::proto::watch_jobs_response::Event;
use longhaul::proto::*;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use tonic::Streaming;

const KINDS: [&str; 3] = ["simulate", "nobody", "summarize"];
const TEAMS: [&str; 2] = ["voice", "text"];
/// How many jobs there are at most: a watch begins with no more.
const JOBS_MAX: usize = 400;

/// Somebody who changes things.
struct Churn {
    chance: StdRng,
    client: Client,
    /// All that are there.
    jobs: Vec<String>,
    number: usize,
}

impl Churn {
    fn new(seed: u64, client: Client) -> Self {
        Self { chance: StdRng::seed_from_u64(seed), client, jobs: Vec::new(), number: 0 }
    }

    fn request(&mut self) -> StartJobRequest {
        self.number += 1;
        let chance = &mut self.chance;
        let kind = *KINDS.choose(chance).unwrap();
        let input = match kind {
            "summarize" => r#"{"text":"One thing. Another thing. A third."}"#.to_owned(),
            _ => {
                let seconds = chance.random_range(0..30) as f64 / 100.0;
                let error = *[0.0, 0.0, 0.3].choose(chance).unwrap();
                format!(r#"{{"prompt":"a b c","seconds":{seconds},"steps":4,"chaos":{{"error":{error}}}}}"#)
            }
        };
        let labels = [("team".to_owned(), (*TEAMS.choose(chance).unwrap()).to_owned())].into();
        let initial_interval = Some(prost_types::Duration { seconds: 0, nanos: 30_000_000 });
        let options = JobOptions {
            priority: chance.random_range(-1..=1),
            retry_policy: Some(RetryPolicy { maximum_attempts: 2, initial_interval, ..Default::default() }),
            ..Default::default()
        };
        StartJobRequest { labels, options: Some(options), ..start(kind, &input) }
    }

    /// One thing that somebody may do.
    async fn step(&mut self) {
        let full = self.jobs.len() > JOBS_MAX - 20;
        let job = self.jobs.choose(&mut self.chance).cloned();
        match (self.chance.random_range(0..100), job) {
            (0..40, _) if !full => {
                let request = self.request();
                self.jobs.push(ok(self.client.start_job(request)).await.id);
            }
            (40..45, _) if !full => {
                let requests = (0..8).map(|_| self.request()).collect();
                let jobs = ok(self.client.batch_start_jobs(BatchStartJobsRequest { requests })).await.jobs;
                self.jobs.extend(jobs.into_iter().map(|job| job.id));
            }
            (45..65, Some(job_id)) => {
                ok(self.client.cancel_job(CancelJobRequest { job_id, ..Default::default() })).await;
            }
            (65..70, Some(job_id)) if !full => {
                let retry = RetryJobRequest { job_id, ..Default::default() };
                // It may not have ended.
                if let Ok(job) = within(self.client.retry_job(retry)).await {
                    self.jobs.push(job.into_inner().id);
                }
            }
            (_, Some(job_id)) => {
                let delete = DeleteJobRequest { job_id: job_id.clone() };
                if within(self.client.delete_job(delete)).await.is_ok() {
                    self.jobs.retain(|other| *other != job_id);
                }
            }
            (_, None) => {}
        }
    }
}

fn seed() -> u64 {
    std::env::var("LONGHAUL_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_261_123)
}

fn steps(least: usize) -> usize {
    std::env::var("LONGHAUL_STEPS").ok().and_then(|steps| steps.parse().ok()).unwrap_or(least)
}

fn filters() -> [JobFilter; 5] {
    let states = |states: &[State]| JobFilter {
        states: states.iter().map(|state| i32::from(*state)).collect(),
        ..Default::default()
    };
    let voice = [("team".to_owned(), "voice".to_owned())];
    [
        // All but those of the flood, which are more than a watch begins with.
        JobFilter { kinds: KINDS.map(str::to_owned).into(), ..Default::default() },
        states(&[State::Running]),
        JobFilter {
            labels: voice.clone().into(),
            ..states(&[State::Pending, State::Running, State::Retrying])
        },
        JobFilter { kinds: vec!["nobody".to_owned()], labels: voice.into(), ..Default::default() },
        states(&[State::Succeeded, State::Failed, State::Cancelled]),
    ]
}

/// A whole listing, in pages of this size.
async fn list(client: &mut Client, filter: &JobFilter, page_size: i32) -> Vec<Job> {
    let mut request = ListJobsRequest { filter: Some(filter.clone()), page_size, ..Default::default() };
    let mut jobs = Vec::new();
    loop {
        let page = ok(client.list_jobs(request.clone())).await;
        jobs.extend(page.jobs);
        if page.next_page_token.is_empty() {
            return jobs;
        }
        request.page_token = page.next_page_token;
    }
}

/// The oracle knows which jobs match from before a listing until after it: they change no more, or never leave the filter.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_is_there_throughout_a_listing_is_on_exactly_one_page() {
    let seed = seed();
    println!("LONGHAUL_SEED={seed}");
    let server = Server::with(processor::built_in(), |options| options.slots = Some(8)).await;
    let mut churn = Churn::new(seed, server.client().await);
    let mut reader = server.client().await;
    let (stop, mut stopped) = tokio::sync::watch::channel(false);
    let mut touched = BTreeSet::new();

    let listings = tokio::spawn(async move {
        let mut compared = 0;
        let mut chance = StdRng::seed_from_u64(seed + 1);
        while !*stopped.borrow_and_update() {
            // What is always true of a job, whatever becomes of it.
            let filter = [
                JobFilter::default(),
                JobFilter { kinds: vec!["nobody".to_owned()], ..Default::default() },
                JobFilter { labels: [("team".to_owned(), "text".to_owned())].into(), ..Default::default() },
                JobFilter {
                    kinds: KINDS.map(str::to_owned).into(),
                    states: (1..=9).collect(),
                    ..Default::default()
                },
            ];
            let filter = filter.choose(&mut chance).unwrap().clone();
            let whole = JobFilter::default();
            let matches = |job: &Job| {
                (filter.kinds.is_empty() || filter.kinds.contains(&job.kind))
                    && filter.labels.iter().all(|(key, value)| job.labels.get(key) == Some(value))
            };
            let before: BTreeSet<String> = list(&mut reader, &whole, 1_000)
                .await
                .into_iter()
                .filter(&matches)
                .map(|job| job.id)
                .collect();
            let page_size = chance.random_range(1..30);
            let listed = list(&mut reader, &filter, page_size).await;
            let after: BTreeSet<String> = list(&mut reader, &whole, 1_000)
                .await
                .into_iter()
                .filter(&matches)
                .map(|job| job.id)
                .collect();

            let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
            listed.iter().for_each(|job| *seen.entry(&job.id).or_default() += 1);
            for id in before.intersection(&after) {
                assert_eq!(seen.get(id.as_str()), Some(&1), "{id} in pages of {page_size} by {filter:?}");
                compared += 1;
            }
            assert!(seen.values().all(|times| *times == 1), "a job was there twice");
            assert!(listed.iter().all(&matches), "a job that does not match");
            let order = |job: &Job| job.create_time.map(|time| (time.seconds, time.nanos));
            assert!(listed.is_sorted_by_key(|job| std::cmp::Reverse((order(job), job.id.clone()))));
        }
        compared
    });
    for _ in 0..steps(3_000) {
        churn.step().await;
        touched.extend(churn.jobs.last().cloned());
    }
    stop.send(true).unwrap();
    let compared = listings.await.unwrap();

    assert!(compared > 1_000, "only {compared} jobs were there throughout a listing");
    assert!(touched.len() > 500, "only {} jobs", touched.len());
}

/// What a reader of WatchJobs knows.
#[derive(Default)]
struct Known {
    jobs: BTreeMap<String, Job>,
    /// What was sent since the last sync.
    sent: BTreeSet<String>,
    syncs: usize,
}

impl Known {
    /// Another stream begins: by its first sync, whatever it has not sent is stale.
    fn begin(&mut self) {
        self.sent.clear();
    }

    /// Takes in a message; whether it was a sync.
    fn apply(&mut self, event: Event) -> bool {
        match event {
            Event::Job(job) => {
                self.sent.insert(job.id.clone());
                self.jobs.insert(job.id.clone(), job);
            }
            Event::Departed(Job { id, .. }) | Event::ForgottenJobId(id) => drop(self.jobs.remove(&id)),
            Event::Synced(_) => {
                let sent = std::mem::take(&mut self.sent);
                self.jobs.retain(|id, _| sent.contains(id));
                self.syncs += 1;
                return true;
            }
            Event::Keepalive(_) => {}
        }
        false
    }

    /// Reads until nothing comes for a while.
    async fn settle(&mut self, stream: &mut Streaming<WatchJobsResponse>) {
        while let Ok(message) = tokio::time::timeout(Duration::from_millis(150), stream.message()).await {
            self.apply(message.unwrap().unwrap().event.unwrap());
        }
    }
}

fn request(filter: &JobFilter) -> WatchJobsRequest {
    let minimum_interval = Some(prost_types::Duration { seconds: 0, nanos: 5_000_000 });
    WatchJobsRequest { filter: Some(filter.clone()), minimum_interval, initial_jobs: 1_000 }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_watcher_of_many_knows_is_what_a_listing_says() {
    let seed = seed();
    println!("LONGHAUL_SEED={seed}");
    let mut server = Server::with(processor::built_in(), |options| options.slots = Some(4)).await;
    let mut churn = Churn::new(seed, server.client().await);
    let filters = filters();
    let mut known: Vec<Known> = filters.iter().map(|_| Known::default()).collect();
    let mut streams = Vec::new();
    for filter in &filters {
        streams.push(ok(narrow_client(&server.url()).await.watch_jobs(request(filter))).await);
    }
    let mut departures = 0;
    let mut begun = filters.len();

    for round in 0..steps(12) {
        for _ in 0..60 {
            churn.step().await;
        }
        if round % 4 == 1 {
            // Nobody reads: so much happens that the server has to wait, and then more than it remembers.
            for _ in 0..600 {
                churn.step().await;
            }
            for _ in 0..34 {
                let requests = vec![start("flood", "{}"); 1_000];
                ok(churn.client.batch_start_jobs(BatchStartJobsRequest { requests })).await;
            }
        }
        if round % 4 == 3 {
            // Breaks every stream.
            server.restart().await;
            churn.client = server.client().await;
            streams.clear();
            for (filter, known) in filters.iter().zip(&mut known) {
                known.begin();
                streams.push(ok(narrow_client(&server.url()).await.watch_jobs(request(filter))).await);
                begun += 1;
            }
        }
        // What runs comes to its end, so that the world stands still.
        // One listing sees one moment: of two, a job that is leased between them is in neither.
        let moving = JobFilter {
            kinds: vec!["simulate".to_owned(), "summarize".to_owned()],
            states: [State::Scheduled, State::Pending, State::Running, State::Retrying, State::Cancelling]
                .map(i32::from)
                .into(),
            ..Default::default()
        };
        within(async {
            while !list(&mut churn.client, &moving, 1_000).await.is_empty() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;

        for ((filter, known), stream) in filters.iter().zip(&mut known).zip(&mut streams) {
            let before = known.jobs.len();
            let listed = list(&mut churn.client, filter, 1_000).await;
            let listed: BTreeMap<String, Job> = listed.into_iter().map(|job| (job.id.clone(), job)).collect();
            // Silence says little on a busy machine: what has not come yet may still.
            let end = Instant::now() + PATIENCE;
            loop {
                known.settle(stream).await;
                if known.jobs == listed || Instant::now() > end {
                    break;
                }
            }
            departures += before.saturating_sub(known.jobs.len());
            assert_eq!(
                known.jobs.keys().collect::<Vec<_>>(),
                listed.keys().collect::<Vec<_>>(),
                "round {round}, after {} syncs, by {filter:?}",
                known.syncs
            );
            for (id, job) in &listed {
                assert_eq!(&known.jobs[id], job, "round {round}, by {filter:?}");
            }
        }
    }

    let syncs: usize = known.iter().map(|known| known.syncs).sum();
    assert!(syncs > begun, "{syncs} syncs of {begun} streams: no reader has ever fallen behind");
    assert!(departures > 0, "no job has ever left a filter");
}
