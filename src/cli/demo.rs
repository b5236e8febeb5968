//! `longhaul demo`: a server with a few jobs to look at, gone when it ends.

use super::bars::Terminal;
use super::connect::{Connect, call};
use super::follow::{Screen, follow};
use super::lines::Lines;
use super::logs;
use super::serve;
use super::settings::{LISTEN, Options};
use super::view::View;
use crate::processor::{self, simulate, summarize};
use crate::proto::job::State;
use crate::proto::{JobOptions, RetryPolicy, StartJobRequest, WatchJobRequest, start_job_request::Payload};
use anyhow::Context as _;
use clap::Args;
use serde_json::json;
use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

/// The server is in this very process.
const PATIENCE: Duration = Duration::from_secs(5);
/// What is to be summarized.
const TEXT: &str = include_str!("demo.txt");
const STORY: &str = "Once upon a time a job took longer than a request may. Its caller left, came back, and \
                     found it right where it was.";

/// See it work: a server, four jobs, and their progress
///
/// Everything is kept in a temporary folder and gone at the end. One of the jobs fails twice on purpose, and its third attempt
/// succeeds; one really summarizes a text. Afterwards the server goes on until Ctrl-C, for you to try your own.
#[derive(Args, Clone, Debug)]
#[command(verbatim_doc_comment)]
pub struct Demo {
    /// The address to listen on
    #[arg(long, env = "LONGHAUL_LISTEN", value_name = "ADDRESS", default_value = LISTEN)]
    listen: SocketAddr,
    /// End when the jobs have ended, with 0 if all of them succeeded
    #[arg(long)]
    exit: bool,
}

impl Demo {
    /// The settings of its server, which keeps jobs in `folder`.
    pub fn options(&self, folder: &std::path::Path) -> Options {
        Options {
            listen: Some(self.listen),
            data_dir: Some(folder.to_owned()),
            slots: Some(wishes().len()),
            // What the jobs do is shown already, and logs would run through the bars.
            log: Some("error".to_owned()),
            ..Default::default()
        }
    }

    /// Shows it.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let folder = tempfile::tempdir().context("no temporary folder can be made")?;
        let settings = self.options(folder.path()).settle()?;
        logs::begin(&settings.log, settings.log_format)?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let running = serve::start(settings, processor::built_in()).await?;
        let server = running.address();
        println!("longhaul listening on {server}; jobs are in {}\n", folder.path().display());

        let shown = async {
            let all_succeeded = show(server).await?;
            if self.exit {
                return anyhow::Ok(all_succeeded);
            }
            println!("\n{}", hints(server).trim_start());
            std::future::pending().await
        };
        let all_succeeded = tokio::select! {
            shown = shown => shown?,
            _ = interrupt.recv() => true,
            _ = terminate.recv() => true,
        };
        running.shut_down().await;
        Ok(if all_succeeded { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// A job of the demo.
struct Wish {
    label: &'static str,
    kind: &'static str,
    input: serde_json::Value,
}

fn wishes() -> [Wish; 4] {
    let simulated = |label, seconds: f64, error: f64, prompt| Wish {
        label,
        kind: simulate::KIND,
        input: json!({
            "prompt": prompt,
            "seconds": seconds,
            "chaos": {"error": error},
            "seed": simulate::SEED_THAT_FAILS_TWICE,
        }),
    };
    [
        simulated("quick", 4.0, 0.0, "A short question deserves a short answer."),
        simulated("steady", 8.0, 0.0, STORY),
        simulated("unlucky", 3.0, 0.5, "If at first you fail, try again, and again."),
        Wish { label: "summary", kind: summarize::KIND, input: json!({"text": TEXT, "sentences": 2}) },
    ]
}

impl Wish {
    fn request(&self) -> StartJobRequest {
        StartJobRequest {
            kind: self.kind.to_owned(),
            payload: Some(Payload::InputJson(self.input.to_string())),
            options: Some(JobOptions {
                retry_policy: Some(RetryPolicy { maximum_attempts: 3, ..Default::default() }),
                ..Default::default()
            }),
            labels: [("demo".to_owned(), self.label.to_owned())].into(),
            ..Default::default()
        }
    }
}

/// Starts the jobs and shows each to its end; says whether all succeeded.
async fn show(server: SocketAddr) -> anyhow::Result<bool> {
    let connect = Connect { server: server.to_string(), json: false };
    let mut client = connect.client().await?;
    let terminal = std::io::stderr().is_terminal().then(Terminal::default);
    let mut watches = JoinSet::new();
    for wish in wishes() {
        let job = client.start_job(call(wish.request())).await?.into_inner();
        let mut screen: Box<dyn Screen> = match &terminal {
            Some(terminal) => Box::new(terminal.bar(wish.label)),
            None => Box::new(Lines::new(std::io::stdout(), wish.label)),
        };
        let request = WatchJobRequest { job_id: job.id, after_sequence: Some(0), ..Default::default() };
        let client = client.clone();
        watches.spawn(async move { follow(client, request, PATIENCE, screen.as_mut()).await });
    }
    let mut all_succeeded = true;
    while let Some(watch) = watches.join_next().await {
        let view: View = watch??;
        all_succeeded &= view.state == State::Succeeded;
    }
    Ok(all_succeeded)
}

/// What to try next.
fn hints(server: SocketAddr) -> String {
    let option = if server.to_string() == LISTEN { String::new() } else { format!(" --server {server}") };
    format!(
        "
The server goes on. In another terminal:

  longhaul start{option} simulate --prompt \"Hello, world\" --watch

or with no code of ours at all:

  grpcurl -plaintext -d '{{\"kind\":\"simulate\",\"input\":{{\"prompt\":\"Hello, world\"}}}}' {server} \\
      longhaul.v1.JobService/StartJob
  grpcurl -plaintext -d '{{\"job_id\":\"THE ID\",\"after_sequence\":0}}' {server} longhaul.v1.JobService/WatchJob

Ctrl-C ends it."
    )
}
