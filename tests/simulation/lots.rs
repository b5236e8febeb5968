//! Chance, all of it from one seed.

use longhaul::engine::Chance;
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{Rng, RngExt, SeedableRng};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// What is drawn from. A copy draws from the same.
#[derive(Clone)]
pub struct Lots(Arc<Mutex<SmallRng>>, u64);

impl Lots {
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(SmallRng::seed_from_u64(seed))), seed)
    }

    /// Others, that depend on these and nothing else.
    pub fn fork(&self) -> Self {
        Self::new(self.number())
    }

    pub fn number(&self) -> u64 {
        self.0.lock().next_u64()
    }

    pub fn among(&self, range: Range<u64>) -> u64 {
        self.0.lock().random_range(range)
    }

    /// True once in so many times.
    pub fn one_in(&self, times: u64) -> bool {
        self.among(0..times) == 0
    }

    pub fn pick<'a, T>(&self, from: &'a [T]) -> &'a T {
        &from[self.among(0..from.len() as u64) as usize]
    }

    pub fn millis(&self, range: Range<u64>) -> Duration {
        Duration::from_millis(self.among(range))
    }

    /// Others that depend on these, the time and `what` alone, and not on who of several draws first at that time: tokio wakes
    /// those who wait for a `watch` in an order of its own.
    pub fn of_the_moment(&self, epoch: Instant, what: &str) -> Self {
        let what = crc32fast::hash(what.as_bytes());
        Self::new(self.1 ^ epoch.elapsed().as_micros() as u64 ^ u64::from(what) << 32)
    }

    /// Numbers for somebody several of whose tasks may draw at a time.
    pub fn chance_of_the_moment(&self, epoch: Instant) -> Chance {
        let lots = self.clone();
        Arc::new(move || lots.of_the_moment(epoch, "").number())
    }

    pub fn chance(&self) -> Chance {
        let lots = self.clone();
        Arc::new(move || lots.number())
    }
}
