//! The door for people: what `longhaul` does when it is called by hand.

mod backup;
mod bars;
mod cancel;
pub mod chat;
mod collector;
mod completions;
mod connect;
mod delete;
mod demo;
mod each;
mod follow;
mod history;
mod lines;
mod list;
pub mod logs;
mod program;
mod retry;
pub mod serve;
pub mod settings;
mod start;
mod status;
mod table;
mod text;
pub mod times;
mod view;
mod watch;
mod worker;

use crate::processor::exec::warden;
use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// A job server for long-running AI work
///
/// Clients start jobs and have a durable ticket at once; workers run them; anyone with the ticket watches progress and output
/// live, leaves, comes back, and misses nothing.
///
/// To begin: longhaul demo
///
/// It exits with 0 if all is well, 1 if a job did not succeed or something failed, 2 if what was asked for cannot be, and 3 if
/// there is no server.
#[derive(Debug, Parser)]
#[command(name = "longhaul", version, verbatim_doc_comment)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::Demo),
    Serve(Box<serve::Serve>),
    Worker(Box<worker::Worker>),
    Start(start::Start),
    List(list::List),
    Watch(watch::Watch),
    Status(status::Status),
    History(history::History),
    Cancel(cancel::Cancel),
    Retry(retry::Retry),
    Delete(delete::Delete),
    Backup(backup::Backup),
    Completions(completions::Completions),
    Man(completions::Man),
    #[command(hide = true)]
    Warden,
    #[command(hide = true)]
    Launch(program::Launch),
}

impl Cli {
    /// Does what was asked for.
    pub fn run(self) -> ExitCode {
        let done = match self.command {
            Command::Serve(serve) => run_server(*serve),
            Command::Worker(worker) => client(worker.run()),
            Command::Demo(demo) => client(demo.run()),
            Command::Start(start) => client(start.run()),
            Command::List(list) => client(list.run()),
            Command::History(history) => client(history.run()),
            Command::Watch(watch) => client(watch.run()),
            Command::Status(status) => client(status.run()),
            Command::Cancel(cancel) => client(cancel.run()),
            Command::Retry(retry) => client(retry.run()),
            Command::Delete(delete) => client(delete.run()),
            Command::Backup(backup) => backup.run(),
            Command::Completions(completions) => completions.run(),
            Command::Man(man) => man.run(),
            Command::Warden => Ok(warden::run()),
            Command::Launch(launch) => launch.run(),
        };
        done.unwrap_or_else(|error| {
            // Whoever read has seen enough.
            if text::is_closed_pipe(&error) {
                return ExitCode::SUCCESS;
            }
            eprintln!("longhaul: {}", connect::explanation(&error));
            ExitCode::from(connect::exit_code(&error))
        })
    }
}

fn run_server(serve: serve::Serve) -> anyhow::Result<ExitCode> {
    let settings = serve.settings().map_err(|error| connect::Usage(format!("{error:#}")))?;
    logs::begin(&settings.log, settings.log_format)?;
    serve::runtime(settings.worker_threads)?.block_on(serve::run(settings))?;
    Ok(ExitCode::SUCCESS)
}

fn client(command: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    serve::runtime(2)?.block_on(command)
}
