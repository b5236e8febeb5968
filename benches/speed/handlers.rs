//! The kinds of jobs that only a benchmark runs, and the longhaul that has them.

use crate::roles::{WORKER_THREADS, announce};
use async_trait::async_trait;
use bytes::Bytes;
use longhaul::cli::settings::Options;
use longhaul::cli::{logs, serve};
use longhaul::clock::{Clock as _, SystemClock};
use longhaul::job::{Failure, Progress};
use longhaul::worker::{Context, Handler, Registry};
use std::path::PathBuf;
use std::time::Duration;
use tokio::time::MissedTickBehavior;

/// The stage of a ticking job.
pub const STAGE: &str = "Analyzing the prompt";
/// As many no-op jobs at once as there are callers who start them.
const SLOTS: usize = 64;
/// What a flood writes at a time. It begins with the time at which it was written, in microseconds.
pub const FLOOD_PIECE_BYTES: usize = 16 << 10;
/// What that time takes.
pub const STAMP_BYTES: usize = size_of::<i64>();
/// What a flood writes in all.
pub const FLOOD_BYTES: usize = 30 << 20;
/// The time that the watchers of a flood have to come.
const FLOOD_DELAY: Duration = Duration::from_secs(1);
/// The time between two updates of a ticking job: 20 a second.
pub const TICK: Duration = Duration::from_millis(50);

/// Serves until the process ends.
pub async fn serve(folder: PathBuf) -> anyhow::Result<()> {
    let settings = Options {
        listen: Some("127.0.0.1:0".parse()?),
        data_dir: Some(folder),
        slots: Some(SLOTS),
        worker_threads: Some(WORKER_THREADS),
        log: Some("warn".to_owned()),
        ..Default::default()
    };
    let settings = settings.settle()?;
    logs::begin(&settings.log, settings.log_format)?;
    let registry = Registry::default().with("noop", Noop).with("ticks", Ticks).with("flood", Flood);
    let running = serve::start(settings, registry).await?;
    announce(running.address());
    std::future::pending().await
}

/// Does nothing, well.
struct Noop;

#[async_trait]
impl Handler for Noop {
    async fn run(&self, _: &Context) -> Result<Bytes, Failure> {
        Ok(Bytes::from_static(b"null"))
    }
}

/// Reports progress at a steady pace, and never ends.
struct Ticks;

#[async_trait]
impl Handler for Ticks {
    async fn run(&self, context: &Context) -> Result<Bytes, Failure> {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for completed in 0.. {
            ticks.tick().await;
            let fraction = Some((completed as f64 / 10_000.0).min(0.9));
            context.progress(Progress { fraction, stage: STAGE.into(), completed, ..Default::default() })?;
        }
        Ok(Bytes::from_static(b"null"))
    }
}

/// Writes output as fast as it is taken, once its watchers are there.
struct Flood;

#[async_trait]
impl Handler for Flood {
    async fn run(&self, context: &Context) -> Result<Bytes, Failure> {
        let clock = SystemClock::new();
        tokio::time::sleep(FLOOD_DELAY).await;
        for _ in 0..FLOOD_BYTES / FLOOD_PIECE_BYTES {
            let mut piece = vec![b'x'; FLOOD_PIECE_BYTES];
            piece[..STAMP_BYTES].copy_from_slice(&clock.now().as_micros().to_be_bytes());
            context.output(piece).await?;
        }
        Ok(Bytes::from_static(b"null"))
    }
}
