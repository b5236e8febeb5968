//! `longhaul worker`: a program of any language as a worker of a server elsewhere.

use super::connect::{self, SERVER, Usage};
use super::logs;
use super::program::{MYSELF, ProgramOptions};
use super::settings::LogFormat;
use super::start::label;
use super::text::print_line;
use super::times::Time;
use crate::job::check_kind;
use crate::processor::exec::Exec;
use crate::worker::{Identity, Pool, Registry, RemoteSource};
use anyhow::ensure;
use clap::Args;
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// More slots than any machine runs programs for.
const SLOTS_MAX: usize = 1_000;
/// How long running jobs may take to end when the worker stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// Run a program of any language as a worker
///
/// The program needs no library: it gets its job as a line of JSON on standard input, and tells its progress, output and result by
/// lines on standard output. The leases are held here, whatever the program does, and it is ended with all that it has started when its
/// job is cancelled. The whole protocol is the page docs/child-protocol.md.
///
/// Stop it with Ctrl-C or SIGTERM: it takes no more jobs, and gives back those that do not end in time.
///
/// Example: longhaul worker --kind transcribe --slots 2 -- python transcribe.py
#[derive(Args, Clone, Debug)]
#[command(verbatim_doc_comment)]
pub struct Worker {
    /// The server
    #[arg(long, env = "LONGHAUL_SERVER", value_name = "URL", default_value = SERVER)]
    server: String,
    /// A kind of jobs that the program runs
    #[arg(long = "kind", value_name = "KIND", required = true)]
    kinds: Vec<String>,
    /// How many jobs run at once [default: the cores]
    #[arg(long, value_name = "NUMBER")]
    slots: Option<usize>,
    /// The worker's own name [default: the machine's name and the process's number]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// A tag of the worker, for people
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// How long running jobs may take to end when the worker stops [default: 30s]
    #[arg(long, env = "LONGHAUL_DRAIN_TIMEOUT", value_name = "TIME")]
    drain_timeout: Option<Time>,
    /// How logs are written [default: text]
    #[arg(long, env = "LONGHAUL_LOG_FORMAT", value_name = "FORMAT")]
    log_format: Option<LogFormat>,
    /// What is logged [default: info]
    #[arg(long, env = "LONGHAUL_LOG", value_name = "FILTER")]
    log: Option<String>,
    /// The program.
    #[command(flatten)]
    program: ProgramOptions,
}

impl Worker {
    /// Works until a signal tells to stop.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        logs::begin(self.log.as_deref().unwrap_or("info"), self.log_format.unwrap_or_default())?;
        for kind in &self.kinds {
            check_kind(kind).map_err(|violations| Usage(format!("--kind: {}", violations[0].description)))?;
        }
        let slots = self.slots.unwrap_or_else(|| std::thread::available_parallelism().map_or(2, usize::from));
        usage(|| {
            ensure!((1..=SLOTS_MAX).contains(&slots), "--slots is {slots}; it must be from 1 to {SLOTS_MAX}");
            Ok(())
        })?;
        let program = usage(|| self.program.settle())?;
        let name = self.name.unwrap_or_else(own_name);
        let endpoint = connect::endpoint(&self.server)?;
        let identity = Identity { worker_id: name.clone(), labels: self.labels.into_iter().collect() };
        let exec = Exec::new(program, MYSELF);
        let registry =
            self.kinds.iter().fold(Registry::default(), |registry, kind| registry.with(kind, exec.clone()));

        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let pool = Pool::start(RemoteSource::start(endpoint, identity), registry, slots);
        print_line(&format!(
            "longhaul worker {name}: {} in {slots} slots, of {}",
            self.kinds.join(", "),
            self.server
        ))?;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        tracing::info!("stopping; a second signal stops at once");
        let drain_timeout = self.drain_timeout.map_or(DRAIN_TIMEOUT, |Time(time)| time);
        tokio::select! {
            () = pool.drain(drain_timeout) => Ok(ExitCode::SUCCESS),
            _ = interrupt.recv() => anyhow::bail!("stopped at once"),
            _ = terminate.recv() => anyhow::bail!("stopped at once"),
        }
    }
}

/// What is wrong with what was asked for is a slip of whoever asked.
fn usage<T>(check: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    check().map_err(|error| Usage(format!("{error:#}")).into())
}

fn own_name() -> String {
    let machine = rustix::system::uname().nodename().to_string_lossy().into_owned();
    format!("{machine}-{}", std::process::id())
}
