//! The door for people: what `longhaul` does when it is called by hand.

pub mod serve;
pub mod settings;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// A job server for long-running AI work
///
/// Clients start jobs and have a durable ticket at once; workers run them; anyone with the ticket watches progress and output
/// live, leaves, comes back, and misses nothing.
///
/// To begin: longhaul demo
#[derive(Debug, Parser)]
#[command(name = "longhaul", version, verbatim_doc_comment)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(Box<serve::Serve>),
}

impl Cli {
    /// Does what was asked for.
    pub fn run(self) -> ExitCode {
        let done = match self.command {
            Command::Serve(serve) => run_server(*serve),
        };
        match done {
            Ok(code) => code,
            Err(error) => {
                eprintln!("longhaul: {error:#}");
                ExitCode::FAILURE
            }
        }
    }
}

fn run_server(serve: serve::Serve) -> anyhow::Result<ExitCode> {
    let settings = serve.settings()?;
    serve::log(&settings)?;
    serve::runtime(settings.worker_threads)?.block_on(serve::run(settings))?;
    Ok(ExitCode::SUCCESS)
}
