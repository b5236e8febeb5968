//! Whether a long queue costs more than a short one: two stores, one a thousand times as long as the other, side by side.

use crate::calls::{Call, wish};
use crate::load::{Calls, Figures, Load, connect, quantile};
use crate::measure::{CALLERS, CONNECTIONS, Run, folder, show};
use crate::process::memory;
use crate::report::{Report, Unit, median, thousands, time};
use crate::roles::{self, Server};
use anyhow::{Context as _, ensure};
use longhaul::cli::serve;
use longhaul::clock::{Clock as _, SystemClock};
use longhaul::job::{Command, DEFAULT_TENANT, JobId, Live, Terms, Timestamp, Wish};
use longhaul::proto::job_service_client::JobServiceClient;
use longhaul::proto::{CountJobsRequest, GetStatusRequest, JobFilter, ListJobsRequest, StartJobRequest, job};
use longhaul::store::{
    Claim, Dealt, Operation, Outcome, Settings, Slot, SqliteStore, Store, Submission, Submitted,
};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tonic::transport::Channel;

/// The short queue, and so many finished jobs beside it.
const SHORT: usize = 1_000;
/// How many jobs one commit takes while a store is filled.
const PORTION: usize = 1_000;
/// How many of its jobs are asked for later.
const SAMPLES: usize = 1_000;
/// The kind of nearly all jobs, which nobody runs.
const KIND: &str = "bench";
const LABEL: &str = "team";
const LABELS: usize = 10;
const DAY: Duration = Duration::from_secs(24 * 3600);

/// A store with many jobs, half of them ready and half of them finished.
struct Filled {
    folder: TempDir,
    ids: Vec<JobId>,
}

impl Filled {
    fn new(ready: usize, finished: usize, retention: Duration) -> anyhow::Result<Self> {
        let folder = folder()?;
        let store = open(folder.path())?;
        let mut filler = Filler { store, clock: SystemClock::new(), ids: Vec::new(), number: 0, retention };
        for _ in 0..finished / PORTION {
            let submitted = filler.submit(PORTION)?;
            filler.finish(submitted)?;
        }
        for _ in 0..ready / PORTION {
            filler.submit(PORTION)?;
        }
        let step = (filler.ids.len() / SAMPLES).max(1);
        let ids = filler.ids.iter().copied().step_by(step).collect();
        Ok(Self { folder, ids })
    }
}

fn open(folder: &Path) -> anyhow::Result<SqliteStore> {
    Ok(SqliteStore::open(folder, Settings { queue_max: u64::MAX, free_bytes_min: 0, readers: 2, keeper: 7 })?)
}

/// Fills a store by the same operations that a server commits.
struct Filler {
    store: SqliteStore,
    clock: SystemClock,
    ids: Vec<JobId>,
    number: usize,
    retention: Duration,
}

impl Filler {
    fn commit(&self, batch: Vec<Operation>) -> anyhow::Result<Vec<Outcome>> {
        Ok(self.store.commit(batch, self.clock.now())?)
    }

    fn submit(&mut self, count: usize) -> anyhow::Result<usize> {
        let mut submissions = Vec::with_capacity(count);
        for _ in 0..count {
            self.number += 1;
            let label = (self.number % LABELS).to_string();
            let wish = Wish {
                kind: KIND.to_owned(),
                input: wish_input().into(),
                priority: (self.number % 3) as i32,
                labels: [(LABEL.to_owned(), label)].into(),
                retention: Some(self.retention),
                ..Default::default()
            };
            let spec = wish.into_spec(DEFAULT_TENANT, &Terms::default()).expect("a sound wish");
            submissions.push(Submission { spec: Arc::new(spec), chance: rand::random() });
        }
        for outcome in self.commit(vec![Operation::Submit(submissions)])? {
            let Outcome::Submit(Ok(submitted)) = outcome else { anyhow::bail!("refused: {outcome:?}") };
            self.ids.extend(submitted.iter().map(|one| match one {
                Submitted::Created(job) => job.id,
                Submitted::Repeated(id) => *id,
            }));
        }
        Ok(count)
    }

    fn finish(&self, count: usize) -> anyhow::Result<()> {
        let claimed = self.commit(vec![claim(count)])?;
        let mut completions = Vec::with_capacity(count);
        for outcome in claimed {
            let Outcome::Claim(Dealt { claimed, .. }) = outcome else {
                anyhow::bail!("refused: {outcome:?}")
            };
            ensure!(claimed.len() == count, "only {} of {count} jobs were ready", claimed.len());
            for claimed in claimed {
                let lease = claimed.token;
                let (result, live) = ("{}".into(), Live::default());
                let command = Command::Complete { lease, result, live, output_bytes: None };
                completions.push(Operation::Apply(lease.job, Box::new(command)));
            }
        }
        self.commit(completions).map(drop)
    }
}

fn wish_input() -> String {
    match wish(KIND).payload {
        Some(longhaul::proto::start_job_request::Payload::InputJson(text)) => text,
        _ => unreachable!("wishes are sent as text"),
    }
}

fn claim(count: usize) -> Operation {
    let slot =
        |_| Slot { worker: "bench".into(), secret: rand::random(), in_process: true, ..Default::default() };
    Operation::Claim(Claim {
        kinds: [KIND.to_owned()].into(),
        slots: (0..count).map(slot).collect(),
        bytes: usize::MAX,
    })
}

/// Times of one call on the short queue and on the long one, taken in turn.
#[derive(Default)]
struct Turns {
    short: Vec<Duration>,
    long: Vec<Duration>,
}

impl Turns {
    fn ratio(&mut self) -> f64 {
        self.short.sort_unstable();
        self.long.sort_unstable();
        quantile(&self.long, 0.5).as_secs_f64() / quantile(&self.short, 0.5).as_secs_f64()
    }

    fn describe(&self) -> String {
        let of = |times: &[Duration]| {
            format!("p50 {} p99 {}", time(quantile(times, 0.5)), time(quantile(times, 0.99)))
        };
        format!("short {} · long {}", of(&self.short), of(&self.long))
    }
}

type Client = JobServiceClient<Channel>;

impl Run<'_> {
    /// Everything on a queue of a million beside one of a thousand.
    pub fn queue(&self, report: &mut Report) -> anyhow::Result<()> {
        let many = if self.options.quick { 100_000 } else { 1_000_000 };
        println!("\n{} ready jobs and as many finished ones, beside {SHORT}", thousands(many as f64));
        let began = Instant::now();
        let (short, long) = (Filled::new(SHORT, SHORT, DAY)?, Filled::new(many, many, DAY)?);
        println!("  filled in {}", time(began.elapsed()));

        let mut claims = Turns::default();
        {
            let stores = (open(short.folder.path())?, open(long.folder.path())?);
            let clock = SystemClock::new();
            let one = |store: &SqliteStore| -> anyhow::Result<Duration> {
                let began = Instant::now();
                store.commit(vec![claim(1)], clock.now())?;
                Ok(began.elapsed())
            };
            for _ in 0..SHORT / 2 {
                claims.short.push(one(&stores.0)?);
                claims.long.push(one(&stores.1)?);
            }
        }
        let ratio = claims.ratio();
        println!("  a claim: {}", claims.describe());
        report.at_most("a claim, of the short queue's", ratio, 1.3, Unit::Times);

        // The servers are killed once, with something to do.
        drop(Server::longhaul(long.folder.path())?);
        let runtime = serve::runtime(2)?;
        let began = Instant::now();
        let server = Server::longhaul(long.folder.path())?;
        runtime.block_on(async {
            let mut client = client(&server).await?;
            get(&mut client, long.ids[0]).await
        })?;
        report.at_most(
            "from the start after a kill to the first answer",
            began.elapsed().as_secs_f64(),
            1.0,
            Unit::Time,
        );
        let beside = Server::longhaul(short.folder.path())?;
        let empty_folder = folder()?;
        let empty = Server::longhaul(empty_folder.path())?;
        runtime.block_on(self.calls_in_turn(report, (&beside, &short), (&server, &long), &empty))?;

        let starts = |server: &Server| {
            let (callers, connections, time) = (CALLERS, CONNECTIONS, self.options.round());
            let order =
                Calls { address: server.address, what: Call::Start, callers, connections, time, pid: None };
            roles::load::<Figures>(Load::Calls(order))
        };
        let mut ratios = Vec::new();
        for round in 1..=self.options.rounds {
            let (short, long) = (starts(&beside)?, starts(&server)?);
            println!(
                "  round {round}: StartJob, {CALLERS} callers: short {} · long {}",
                show(&short),
                show(&long)
            );
            ratios.push(short.rate / long.rate);
        }
        report.at_most("StartJob, 64 callers, of the short queue's", median(ratios), 1.6, Unit::Times);
        let above = memory(server.pid())?.saturating_sub(memory(empty.pid())?);
        report.at_most("memory above an empty server's", above as f64, 64.0 * 1024.0 * 1024.0, Unit::Bytes);
        Ok(())
    }

    async fn calls_in_turn(
        &self,
        report: &mut Report,
        short: (&Server, &Filled),
        long: (&Server, &Filled),
        empty: &Server,
    ) -> anyhow::Result<()> {
        let rounds = if self.options.quick { 1_000 } else { 4_000 };
        let (mut on_short, mut on_long) = (client(short.0).await?, client(long.0).await?);
        let mut on_empty = client(empty).await?;
        let (mut gets, mut starts) = (Turns::default(), Turns::default());
        for round in 0..rounds {
            gets.short.push(get(&mut on_short, short.1.ids[round % short.1.ids.len()]).await?);
            gets.long.push(get(&mut on_long, long.1.ids[round * 7 % long.1.ids.len()]).await?);
            starts.short.push(start(&mut on_short).await?);
            starts.long.push(start(&mut on_long).await?);
            start(&mut on_empty).await?;
        }
        let ratio = gets.ratio();
        println!("  GetStatus: {}", gets.describe());
        report.at_most("GetStatus, of the short queue's", ratio, 1.3, Unit::Times);
        let ratio = starts.ratio();
        println!("  StartJob, one caller: {}", starts.describe());
        report.at_most("StartJob, one caller, of the short queue's", ratio, 1.6, Unit::Times);
        for (name, filter) in filters(long.1) {
            let mut pages = Vec::new();
            for filter in filter {
                pages.extend(walk(&mut on_long, filter).await?);
            }
            pages.sort_unstable();
            let (p50, worst) = (quantile(&pages, 0.5), quantile(&pages, 0.999));
            println!("  a page by {name}: p50 {} worst {} of {}", time(p50), time(worst), pages.len());
            report.at_most(
                &format!("a page of ListJobs by {name}, p99"),
                quantile(&pages, 0.99).as_secs_f64(),
                5e-3,
                Unit::Time,
            );
        }
        Ok(())
    }

    /// Whether forgetting a million jobs holds up those who start others.
    pub fn prune(&self, report: &mut Report) -> anyhow::Result<()> {
        let many = if self.options.quick { 100_000 } else { 1_000_000 };
        println!("\nStartJob while {} jobs are forgotten", thousands(many as f64));
        let kept = Filled::new(SHORT, many, DAY)?;
        let over = Filled::new(SHORT, many, Duration::ZERO)?;
        for (what, callers, connections) in [("one caller", 1, 1), ("64 callers", CALLERS, CONNECTIONS)] {
            let time = self.options.round();
            let starts = |server: &Server| {
                let order = Calls {
                    address: server.address,
                    what: Call::Start,
                    callers,
                    connections,
                    time,
                    pid: None,
                };
                roles::load::<Figures>(Load::Calls(order))
            };
            let calm = {
                let server = Server::longhaul(kept.folder.path())?;
                starts(&server)?
            };
            let server = Server::longhaul(over.folder.path())?;
            let runtime = serve::runtime(1)?;
            let finished = || runtime.block_on(async { finished(&mut client(&server).await?).await });
            let (began, before) = (Instant::now(), finished()?);
            let busy = starts(&server)?;
            let (left, elapsed) = (finished()?, began.elapsed().as_secs_f64());
            ensure!(left > 0, "all was forgotten before the measurement was over");
            println!("  {what}: calm {} · meanwhile {}", show(&calm), show(&busy));
            let pace = (before - left) as f64 / elapsed;
            report.beside(&format!("forgotten meanwhile, {what}"), Unit::PerSecond("jobs").show(pace));
            let ratio = busy.p99.as_secs_f64() / calm.p99.as_secs_f64();
            report.at_most(
                &format!("StartJob's p99 meanwhile, {what}, of the calm one"),
                ratio,
                3.0,
                Unit::Times,
            );
        }
        Ok(())
    }

    /// How many jobs a second come in by the hundred.
    pub fn batch(&self, report: &mut Report) -> anyhow::Result<()> {
        println!("\nBatchStartJobs of 100");
        let folder = folder()?;
        let server = Server::longhaul(folder.path())?;
        let time = self.options.round();
        let calls = |address, what, callers| {
            let order = Calls { address, what, callers, connections: CONNECTIONS, time, pid: None };
            roles::load::<Figures>(Load::Calls(order))
        };
        let (mut ratios, mut rates) = (Vec::new(), Vec::new());
        for round in 1..=self.options.rounds {
            let echo = calls(self.echo.address, Call::Echo, CALLERS)?;
            let batch = calls(server.address, Call::Batch, 16)?;
            println!("  round {round}: echo {} · batches {}", show(&echo), show(&batch));
            rates.push(batch.rate * 100.0);
            ratios.push(batch.rate * 100.0 / echo.rate);
        }
        report.at_least("jobs started in batches, of the echo's calls", median(ratios), 1.5, Unit::Times);
        report.beside("jobs started in batches", Unit::PerSecond("jobs").show(median(rates)));
        Ok(())
    }
}

async fn client(server: &Server) -> anyhow::Result<Client> {
    let channel = connect(server.address, 1).await?.pop().context("there is one connection")?;
    Ok(JobServiceClient::new(channel).max_decoding_message_size(64 << 20))
}

async fn get(client: &mut Client, id: JobId) -> anyhow::Result<Duration> {
    let began = Instant::now();
    client.get_status(GetStatusRequest { job_id: id.to_string(), ..Default::default() }).await?;
    Ok(began.elapsed())
}

async fn start(client: &mut Client) -> anyhow::Result<Duration> {
    let began = Instant::now();
    client.start_job(StartJobRequest { ..wish("other") }).await?;
    Ok(began.elapsed())
}

async fn finished(client: &mut Client) -> anyhow::Result<i64> {
    let counts = client.count_jobs(CountJobsRequest::default()).await?.into_inner().counts;
    Ok(counts.iter().filter(|count| count.state() == job::State::Succeeded).map(|count| count.jobs).sum())
}

/// By what is listed: each with a filter that matches the newest jobs and one that begins in the middle.
fn filters(filled: &Filled) -> Vec<(&'static str, Vec<JobFilter>)> {
    let middle = filled.ids[filled.ids.len() / 4];
    let time = JobId::time_of(middle.ordinal());
    let both = |filter: JobFilter| {
        let create_time_max = Some(timestamp(time));
        vec![filter.clone(), JobFilter { create_time_max, ..filter }]
    };
    let states = |state: job::State| JobFilter { states: vec![state.into()], ..Default::default() };
    vec![
        ("state PENDING", vec![states(job::State::Pending)]),
        ("state SUCCEEDED", both(states(job::State::Succeeded))),
        ("kind", both(JobFilter { kinds: vec![KIND.to_owned()], ..Default::default() })),
        (
            "label",
            both(JobFilter { labels: [(LABEL.to_owned(), "7".to_owned())].into(), ..Default::default() }),
        ),
        (
            "state, kind and label",
            both(JobFilter {
                kinds: vec![KIND.to_owned()],
                labels: [(LABEL.to_owned(), "7".to_owned())].into(),
                ..states(job::State::Succeeded)
            }),
        ),
        ("nothing", both(JobFilter::default())),
    ]
}

fn timestamp(time: Timestamp) -> prost_types::Timestamp {
    let micros = time.as_micros();
    prost_types::Timestamp { seconds: micros / 1_000_000, nanos: (micros % 1_000_000) as i32 * 1_000 }
}

/// The times of the first fifty pages, each of fifty jobs.
async fn walk(client: &mut Client, filter: JobFilter) -> anyhow::Result<Vec<Duration>> {
    let mut request = ListJobsRequest { filter: Some(filter), ..Default::default() };
    let mut times = Vec::new();
    for _ in 0..50 {
        let began = Instant::now();
        let page = client.list_jobs(request.clone()).await?.into_inner();
        times.push(began.elapsed());
        ensure!(!page.jobs.is_empty(), "a page without a job");
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            break;
        }
    }
    Ok(times)
}
