//! The time of one process: tokio's, which is paused, from wherever its clock stood when it began.

use longhaul::clock::Clock;
use longhaul::job::Timestamp;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;
use tokio::time::Instant;

/// Where the time begins.
pub const BEGIN: Timestamp = Timestamp::from_micros(1_790_000_000_000_000);

/// As `clock::SystemClock`: read once, then moved on by the monotonic clock, and never behind what is stored.
#[derive(Clone, Debug)]
pub struct ProcessClock {
    wall: Timestamp,
    began: Instant,
}

impl ProcessClock {
    /// A process that begins now, on a machine whose clock is so far ahead of the true time, and that remembers `newest`.
    pub fn begun(epoch: Instant, ahead: Duration, newest: Timestamp) -> Self {
        let began = Instant::now();
        Self { wall: BEGIN.after(began - epoch).after(ahead).max(newest), began }
    }
}

impl Clock for ProcessClock {
    fn now(&self) -> Timestamp {
        self.wall.after(self.began.elapsed())
    }

    fn sleep_until(&self, time: Timestamp) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(tokio::time::sleep(time.since(self.now())))
    }
}
