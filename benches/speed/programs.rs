//! Programs as workers: what a program costs beside a handler in the worker's own process, and a process for each job beside
//! processes alone.

use crate::calls::wish;
use crate::load::{Load, connect};
use crate::measure::{Run, folder};
use crate::report::{Report, Unit, median};
use crate::roles::{self, Role, Server};
use crate::workers::{BATCH, Counted, KIND, worker};
use anyhow::{Context as _, ensure};
use longhaul::proto::job_service_client::JobServiceClient;
use longhaul::proto::*;
use serde::{Deserialize, Serialize};
use std::io::{BufRead as _, Write as _};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tonic::transport::Channel;

/// As many as the no-op jobs of `workers` have.
const SLOTS: usize = 64;
/// Processes that run at once where nothing else is done: twice the cores.
const PROCESSES: usize = 4;
/// Slots in which each job has a process: more, since a slot waits for the disk between two of them.
const FRESH_SLOTS: usize = 32;

/// What is measured, in jobs or processes a second.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum Programs {
    /// No-op jobs by a handler of this process.
    Bare(SocketAddr, usize),
    /// The same by programs that take job after job.
    Persistent(SocketAddr, usize),
    /// The same by a program for each job.
    Fresh(SocketAddr, usize, Script),
    /// The same program, started and waited for, and nothing else.
    Alone(usize, Script),
}

/// A program that reads its job and gives a result.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum Script {
    /// The smallest there is.
    Shell,
    /// A small one of the kind that people write.
    Python,
}

impl Script {
    fn command(self) -> anyhow::Result<Command> {
        let (program, arguments) = match self {
            Self::Shell => ("/bin/sh".to_owned(), ["-c", r#"read -r job; echo '{"result":1}'"#]),
            Self::Python => (interpreter()?, ["-Sc", r#"input(); print('{"result":1}')"#]),
        };
        let mut command = Command::new(program);
        command.args(arguments);
        Ok(command)
    }
}

/// Python itself, and not what may be in its place in the `PATH`, to choose among several.
fn interpreter() -> anyhow::Result<String> {
    let told = Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output()?;
    Ok(String::from_utf8(told.stdout)?.trim().to_owned())
}

/// Does what was ordered.
pub async fn run(order: Programs) -> anyhow::Result<f64> {
    match order {
        Programs::Bare(address, jobs) => {
            let _pool = worker(address, Counted(Arc::default()))?;
            carried(address, jobs).await
        }
        Programs::Persistent(address, jobs) => {
            let myself = roles::myself(&Role::Program)?;
            let _worker = Worker::start(address, SLOTS, &["--persistent"], &myself)?;
            carried(address, jobs).await
        }
        Programs::Fresh(address, jobs, script) => {
            let _worker = Worker::start(address, FRESH_SLOTS, &[], &script.command()?)?;
            carried(address, jobs).await
        }
        Programs::Alone(processes, script) => {
            tokio::task::spawn_blocking(move || alone(processes, script)).await?
        }
    }
}

/// Is a program that gives each job its result.
pub fn program() -> anyhow::Result<()> {
    let (mut jobs, mut results) = (std::io::stdin().lock(), std::io::stdout().lock());
    let mut job = String::new();
    while jobs.read_line(&mut job)? > 0 {
        ensure!(job.starts_with('{'), "no job: {job}");
        results.write_all(b"{\"result\":null}\n")?;
        results.flush()?;
        job.clear();
    }
    Ok(())
}

/// How many jobs a second come to their end, once the worker has warmed up.
async fn carried(address: SocketAddr, count: usize) -> anyhow::Result<f64> {
    let mut client =
        JobServiceClient::new(connect(address, 1).await?.remove(0)).max_decoding_message_size(64 << 20);
    fill(&mut client, count / 10).await?;
    succeeded(&mut client, count / 10).await?;
    let began = Instant::now();
    fill(&mut client, count).await?;
    succeeded(&mut client, count / 10 + count).await?;
    Ok(count as f64 / began.elapsed().as_secs_f64())
}

async fn fill(client: &mut JobServiceClient<Channel>, count: usize) -> anyhow::Result<()> {
    let mut left = count;
    while left > 0 {
        let batch = left.min(BATCH);
        client.batch_start_jobs(BatchStartJobsRequest { requests: vec![wish(KIND); batch] }).await?;
        left -= batch;
    }
    Ok(())
}

async fn succeeded(client: &mut JobServiceClient<Channel>, wanted: usize) -> anyhow::Result<()> {
    loop {
        let counts =
            client.count_jobs(CountJobsRequest { kinds: vec![KIND.into()] }).await?.into_inner().counts;
        let of =
            |state| counts.iter().find(|count| count.state() == state).map_or(0, |count| count.jobs as usize);
        ensure!(of(job::State::Failed) == 0, "jobs have failed");
        if of(job::State::Succeeded) == wanted {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Processes a second, each of the same program, with its job on standard input and its result read.
fn alone(count: usize, script: Script) -> anyhow::Result<f64> {
    let command = {
        let whole = script.command()?;
        move || {
            let mut command = Command::new(whole.get_program());
            command.args(whole.get_args());
            command
        }
    };
    let left = AtomicUsize::new(count);
    let began = Instant::now();
    std::thread::scope(|scope| {
        let runners: Vec<_> = (0..PROCESSES)
            .map(|_| {
                scope.spawn(|| -> anyhow::Result<()> {
                    while left
                        .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1))
                        .is_ok()
                    {
                        let mut child = command().stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
                        child.stdin.take().context("a pipe")?.write_all(b"{}\n")?;
                        ensure!(child.wait_with_output()?.status.success());
                    }
                    Ok(())
                })
            })
            .collect();
        runners.into_iter().try_for_each(|runner| runner.join().expect("a runner does not panic"))
    })?;
    Ok(count as f64 / began.elapsed().as_secs_f64())
}

/// `longhaul worker` in a process of its own, which ends with this value.
struct Worker(Child);

impl Worker {
    fn start(address: SocketAddr, slots: usize, flags: &[&str], program: &Command) -> anyhow::Result<Self> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_longhaul"));
        command.args(["worker", "--server", &address.to_string(), "--kind", KIND, "--log", "warn"]);
        command.args(["--slots", &slots.to_string()]).args(flags).arg("--");
        command.arg(program.get_program()).args(program.get_args());
        Ok(Self(command.stdout(Stdio::null()).spawn()?))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It has ended already where this fails.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Run<'_> {
    /// Programs beside what is done without them, in turn.
    pub fn programs(&self, report: &mut Report) -> anyhow::Result<()> {
        println!("\nprograms as workers");
        let few = if self.options.quick { 1 } else { 4 };
        let measured = |what: &dyn Fn(SocketAddr) -> Programs| -> anyhow::Result<f64> {
            let folder = folder()?;
            let server = Server::longhaul(folder.path())?;
            roles::load(Load::Programs(what(server.address)))
        };
        let mut persistent = Vec::new();
        for round in 1..=self.options.rounds {
            let bare = measured(&|address| Programs::Bare(address, few * 10_000))?;
            let by_programs = measured(&|address| Programs::Persistent(address, few * 10_000))?;
            println!("  round {round}: {bare:.0} bare, {by_programs:.0} by programs");
            persistent.push((bare, by_programs));
        }
        let ratio = |pairs: &[(f64, f64)]| median(pairs.iter().map(|(one, other)| one / other));
        let rate =
            |pairs: &[(f64, f64)]| Unit::PerSecond("jobs").show(median(pairs.iter().map(|pair| pair.1)));
        report.at_most(
            "time of a job by a persistent program, of a handler's",
            ratio(&persistent),
            1.3,
            Unit::Times,
        );
        report.beside("the same", rate(&persistent));
        for (script, count) in [(Script::Shell, few * 2_000), (Script::Python, few * 400)] {
            let mut fresh = Vec::new();
            for round in 1..=self.options.rounds {
                let alone = measured(&|_| Programs::Alone(count, script))?;
                let by_processes = measured(&|address| Programs::Fresh(address, count, script))?;
                println!(
                    "  round {round}: {alone:.0} processes of {script:?}, {by_processes:.0} jobs by them"
                );
                fresh.push((alone, by_processes));
            }
            let what = format!("jobs by a process of {script:?} each, of the processes alone");
            report.at_least(&what, 1.0 / ratio(&fresh), 0.8, Unit::Percent);
            report.beside("the same", rate(&fresh));
        }
        Ok(())
    }
}
