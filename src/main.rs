//! Parses, runs, exits; nothing else. It chooses where memory comes from for the whole process.

use clap::Parser;
use longhaul::cli::Cli;
use std::process::ExitCode;

#[global_allocator]
static MEMORY: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    Cli::parse().run()
}
