//! The only reader of the time: the system's clock, and one that is moved by hand.

use crate::job::Timestamp;
use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::watch;

/// Tells the time and waits for it.
pub trait Clock: Send + Sync + 'static {
    /// What time it is. Never goes back while the process lives.
    fn now(&self) -> Timestamp;

    /// Waits until it is `time`.
    fn sleep_until(&self, time: Timestamp) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}

/// The system's clock as it was when the process began, moved on by the monotonic clock, so that a jump of the system's
/// clock neither ends leases nor fires timers.
#[derive(Debug)]
pub struct SystemClock {
    began: Instant,
    wall: Timestamp,
}

impl SystemClock {
    /// Reads the system's clock, once.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads it")]
    pub fn new() -> Self {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self { began: Instant::now(), wall: Timestamp::default().after(since) }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        self.wall.after(self.began.elapsed())
    }

    fn sleep_until(&self, time: Timestamp) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(tokio::time::sleep(time.since(self.now())))
    }
}

/// A clock that stands still until somebody moves it.
#[derive(Debug)]
pub struct ManualClock {
    now: watch::Sender<Timestamp>,
}

impl ManualClock {
    /// A clock that stands at `now`.
    pub fn new(now: Timestamp) -> Self {
        Self { now: watch::Sender::new(now) }
    }

    /// Moves it on.
    pub fn advance(&self, duration: Duration) {
        self.now.send_modify(|now| *now = now.after(duration));
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        *self.now.borrow()
    }

    fn sleep_until(&self, time: Timestamp) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            // The sender is part of the clock, so it lives as long as this wait.
            let _ = self.now.subscribe().wait_for(|now| *now >= time).await;
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_sleeper_wakes_when_the_clock_is_moved_past_its_time() {
        let clock = ManualClock::new(Timestamp::from_micros(0));
        let time = Timestamp::from_micros(2_000_000);

        let slept = async {
            clock.sleep_until(time).await;
            clock.now()
        };
        let moved = async {
            clock.advance(Duration::from_secs(1));
            tokio::task::yield_now().await;
            clock.advance(Duration::from_secs(1));
        };

        assert_eq!(tokio::join!(slept, moved).0, time);
    }

    #[test]
    fn the_system_clock_never_goes_back() {
        let clock = SystemClock::new();

        let times: Vec<_> = (0..1000).map(|_| clock.now()).collect();

        assert!(times.is_sorted());
    }
}
