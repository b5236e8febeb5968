//! What the disk itself takes: the least that anything durable costs.

use crate::load::quantile;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

const BLOCK: [u8; 4096] = [0x5a; 4096];
const APPENDS: usize = 300;

/// The usual time of an append of 4 KiB and an fdatasync, to a growing file in this folder.
pub fn append_and_sync(folder: &Path) -> anyhow::Result<Duration> {
    let mut file = tempfile::tempfile_in(folder)?;
    let mut times = Vec::with_capacity(APPENDS);
    for _ in 0..APPENDS {
        let start = Instant::now();
        file.write_all(&BLOCK)?;
        file.sync_data()?;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    Ok(quantile(&times, 0.5))
}
