//! How long to wait before something that failed on its way is tried again.

use std::time::Duration;

/// The first wait.
const FIRST: Duration = Duration::from_millis(50);
/// The longest wait; what has gone well for longer than this begins anew.
const LONGEST: Duration = Duration::from_secs(2);

/// Waits that double.
#[derive(Debug)]
pub struct Backoff {
    next: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: FIRST }
    }
}

impl Backoff {
    /// Waits, longer than the last time: somewhere between half of the time and the whole, as `chance` has it, so that those
    /// that failed together do not come back together.
    pub async fn pause(&mut self, chance: u64) {
        let share = (chance >> 11) as f64 / (1u64 << 53) as f64;
        tokio::time::sleep(self.next.mul_f64(0.5 + 0.5 * share)).await;
        self.next = (self.next * 2).min(LONGEST);
    }

    /// The same after something that went well for a time.
    pub async fn pause_after(&mut self, went_well: Duration, chance: u64) {
        if went_well > LONGEST {
            *self = Self::default();
        }
        self.pause(chance).await;
    }
}
