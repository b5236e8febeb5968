//! The clocks of machines: how far each is off is somebody's whim, and how fast tokio's, which is paused.

use longhaul::clock::SystemClock;
use longhaul::job::Timestamp;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// Where the time begins.
const BEGIN: Timestamp = Timestamp::from_micros(1_790_000_000_000_000);
/// By how much clocks are set, at most.
pub const DAY: Duration = Duration::from_secs(24 * 3600);

/// The system's clock of one machine.
#[derive(Clone)]
pub struct MachineClock {
    epoch: Instant,
    /// In microseconds.
    ahead: Arc<AtomicU64>,
}

impl MachineClock {
    /// One that is so far ahead of where the time begins.
    pub fn new(ahead: Duration) -> Self {
        let clock = Self { epoch: Instant::now(), ahead: Arc::default() };
        clock.set(ahead);
        clock
    }

    /// Sets it to be so far ahead, for all that run by it.
    pub fn set(&self, ahead: Duration) {
        self.ahead.store(ahead.as_micros() as u64, Ordering::SeqCst);
    }

    pub fn now(&self) -> Timestamp {
        let ahead = Duration::from_micros(self.ahead.load(Ordering::SeqCst));
        BEGIN.after(self.epoch.elapsed()).after(ahead)
    }

    /// The clock of a process that begins now and remembers `newest`.
    pub fn begin(&self, newest: Timestamp) -> SystemClock {
        let clock = self.clone();
        SystemClock::of(Arc::new(move || clock.now()), newest)
    }
}
