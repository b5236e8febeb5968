//! How fast longhaul is beside a bare tonic server, on this machine and in this run: `cargo bench --bench speed`.
//!
//! This process only orders and reports. Servers and load are processes of their own: the built `longhaul`, or this very
//! program in another role. What is measured and how it is read is told in benches/README.md.

mod calls;
mod chat;
mod collector;
mod crowd;
mod disk;
mod echo;
mod handlers;
mod json;
mod lives;
mod load;
mod measure;
mod process;
mod programs;
mod provider;
mod queue;
mod redis;
mod report;
mod roles;
mod stalled;
mod watchers;
mod workers;

use clap::Parser;
use std::time::Duration;

/// The same for all that are measured.
#[global_allocator]
static MEMORY: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures the built longhaul beside a bare tonic server.
#[derive(Debug, Parser)]
struct Options {
    /// Shorter rounds, for a look while something is being changed
    #[arg(long)]
    quick: bool,
    /// Measure only these: start, alone, status, lives, watchers, stalled, batch, queue, prune,
    /// workers, programs, http, traces, crowd, chat
    #[arg(long, value_delimiter = ',', value_name = "NAME,…")]
    only: Vec<String>,
    /// How often each pair is measured; ratios are medians over the rounds
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// What this process is, where this program has started itself
    #[arg(long, hide = true)]
    role: Option<String>,
    /// cargo says so
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    /// How long one round of calls takes.
    fn round(&self) -> Duration {
        Duration::from_secs(if self.quick { 1 } else { 4 })
    }

    fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == name)
    }
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    match &options.role {
        Some(role) => roles::play(role),
        None => measure::all(&options),
    }
}
