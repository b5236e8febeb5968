//! `longhaul watch`: shows a job until it ends, over every break of the connection and restart of the server.

use super::bars::Terminal;
use super::connect::{Client, Connect, HEADING, SERVER};
use super::follow::{Screen, follow};
use super::lines::{JsonLines, Lines};
use super::text::printable;
use super::times::Time;
use super::view::View;
use crate::proto::WatchJobRequest;
use crate::proto::job::State;
use clap::Args;
use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

/// Watch a job to its end
///
/// It reconnects by itself and goes on where it was. On a terminal it shows a bar and, at the end, the whole output on standard
/// output; elsewhere a line for each thing that happens. Ctrl-C ends the watch, and the job goes on.
///
/// It exits with 0 if the job succeeds, with 1 if not, and with 130 after Ctrl-C.
///
/// Example: longhaul watch 0199a6d0-3c6a-7c5e-9d1b-5a8f0f6f2c11
#[derive(Args, Clone, Debug)]
#[command(verbatim_doc_comment)]
pub struct Watch {
    /// The ticket
    job: String,
    /// Only what happened after this event of the job's history
    #[arg(long, value_name = "SEQUENCE", default_value_t = 0)]
    after: i64,
    #[command(flatten)]
    connect: Connect,
    #[command(flatten)]
    patience: Patience,
}

/// What shells exit with after Ctrl-C: 128 and the number of the signal.
const INTERRUPTED: u8 = 130;

/// How long a watch goes on without its server.
#[derive(Args, Clone, Copy, Debug)]
pub struct Patience {
    /// How long to try again while the server cannot be reached
    #[arg(long = "patience", help_heading = HEADING, value_name = "TIME", default_value = "5m")]
    time: Time,
}

impl Watch {
    /// Does it.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let client = self.connect.client().await?;
        to_the_end(client, &self.job, self.after, &self.connect, self.patience).await
    }
}

/// Shows a job until it ends, and says whether it succeeded.
pub async fn to_the_end(
    client: Client,
    job: &str,
    after: i64,
    connect: &Connect,
    patience: Patience,
) -> anyhow::Result<ExitCode> {
    let request =
        WatchJobRequest { job_id: job.to_owned(), after_sequence: Some(after), ..Default::default() };
    let bars = !connect.json && std::io::stderr().is_terminal();
    let mut screen: Box<dyn Screen> = match (connect.json, bars) {
        (true, _) => Box::new(JsonLines),
        (false, true) => Box::new(Terminal::default().bar("")),
        (false, false) => Box::new(Lines::new(std::io::stdout(), "")),
    };
    let Patience { time: Time(patience) } = patience;
    let view = tokio::select! {
        view = follow(client, request, patience, screen.as_mut()) => view?,
        interrupted = tokio::signal::ctrl_c() => {
            interrupted?;
            screen.leave();
            eprint!("{}", farewell(job, &connect.server));
            return Ok(ExitCode::from(INTERRUPTED));
        }
    };
    if bars {
        print_output(&view)?;
    }
    Ok(exit(&view))
}

/// The bar showed only the newest line of it. A program gets it byte for byte.
fn print_output(view: &View) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    if !out.is_terminal() {
        out.write_all(view.output())?;
    } else if !view.output().is_empty() {
        writeln!(out, "{}", printable(&String::from_utf8_lossy(view.output())).trim_end_matches('\n'))?;
    }
    out.flush()
}

/// What somebody who leaves is told.
fn farewell(job: &str, server: &str) -> String {
    let option = if server == SERVER { String::new() } else { format!(" --server {server}") };
    let job = printable(job);
    format!(
        "\nThe job goes on. To go on watching:\n  longhaul watch{option} {job}\nTo stop it:\n  longhaul \
         cancel{option} {job}\n"
    )
}

/// What a script is told of a job that has ended.
pub fn exit(view: &View) -> ExitCode {
    match view.state {
        State::Succeeded => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}
