//! Parses, runs, exits; nothing else.

use clap::Parser;
use longhaul::cli::Cli;
use std::process::ExitCode;

fn main() -> ExitCode {
    Cli::parse().run()
}
