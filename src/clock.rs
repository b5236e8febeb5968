//! The only reader of the time: the system's clock, and one that is moved by hand.

use crate::job::Timestamp;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::watch;
use tokio::time::Instant;

/// Tells the time and waits for it.
pub trait Clock: Send + Sync + 'static {
    /// What time it is. Never goes back while the process lives.
    fn now(&self) -> Timestamp;

    /// Waits until it is `time`.
    fn sleep_until(&self, time: Timestamp) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;

    /// When that will be here which others, who go by the system's clock, call `time`.
    fn translate(&self, time: Timestamp) -> Timestamp;
}

/// Clocks that differ by less agree: a moment keeps the name that it was given.
const DRIFT: Duration = Duration::from_secs(1);
/// While the time is ahead of the system's clock, every so many seconds pass as one less.
const CATCH_UP: u32 = 10;

/// Reads a system's clock.
pub type Reading = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// The system's clock as it was when the process began, moved on by the monotonic clock, so that a jump of the system's
/// clock neither ends leases nor fires timers.
pub struct SystemClock {
    system: Reading,
    began: Instant,
    wall: Timestamp,
    /// How far that was ahead of the system's clock.
    ahead: Duration,
}

impl SystemClock {
    /// Reads the system's clock, once.
    pub fn new() -> Self {
        Self::not_before(Timestamp::default())
    }

    /// The same, for somebody who remembers the time `newest`: where the system's clock has gone behind that, time goes on from
    /// there, and passes a tenth slower until both are the same. So nothing happens before what had led to it, no wait that
    /// was begun is as long as the jump, and none is shorter than it should be.
    pub fn not_before(newest: Timestamp) -> Self {
        Self::of(Arc::new(system_time), newest)
    }

    /// The same on a system whose clock is read so, and whose monotonic clock is tokio's.
    pub fn of(system: Reading, newest: Timestamp) -> Self {
        let now = system();
        Self { system, began: Instant::now(), wall: now.max(newest), ahead: newest.since(now) }
    }

    /// How far it was ahead of the system's clock at first.
    pub fn began_ahead(&self) -> Duration {
        self.ahead
    }

    fn ahead_after(&self, elapsed: Duration) -> Duration {
        self.ahead.saturating_sub(elapsed / CATCH_UP)
    }

    fn at(&self, elapsed: Duration) -> Timestamp {
        let caught_up = self.ahead - self.ahead_after(elapsed);
        self.wall.after(elapsed - caught_up)
    }
}

/// Puts `time` as far from `here` as it is from `there`, which is the same moment on another clock.
fn translated(time: Timestamp, there: Timestamp, here: Timestamp) -> Timestamp {
    let (ahead, behind) = (here.since(there), there.since(here));
    match ahead.max(behind) < DRIFT {
        true => time,
        false => Timestamp::from_micros(
            time.as_micros().saturating_add(here.as_micros()).saturating_sub(there.as_micros()),
        ),
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the one place that reads it")]
fn system_time() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp::default().after(since)
}

impl fmt::Debug for SystemClock {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { began, wall, ahead, .. } = self;
        formatter
            .debug_struct("SystemClock")
            .field("began", began)
            .field("wall", wall)
            .field("ahead", ahead)
            .finish_non_exhaustive()
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        self.at(self.began.elapsed())
    }

    fn sleep_until(&self, time: Timestamp) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            // While time passes slower, one sleep is not long enough.
            loop {
                tokio::time::sleep(time.since(self.now())).await;
                if time <= self.now() {
                    break;
                }
            }
        })
    }

    fn translate(&self, time: Timestamp) -> Timestamp {
        let (there, here) = ((self.system)(), self.now());
        match self.ahead.is_zero() || here.since(there) < DRIFT || time <= there {
            true => translated(time, there, here),
            // Until then it passes slower.
            false => self.at(self.began.elapsed() + time.since(there)),
        }
    }
}

/// A clock that stands still until somebody moves it.
#[derive(Debug)]
pub struct ManualClock {
    now: watch::Sender<Timestamp>,
    ahead: Duration,
}

impl ManualClock {
    /// A clock that stands at `now`.
    pub fn new(now: Timestamp) -> Self {
        Self::ahead_by(Duration::ZERO, now)
    }

    /// The same, where others go by one that is so far behind.
    pub fn ahead_by(ahead: Duration, now: Timestamp) -> Self {
        Self { now: watch::Sender::new(now), ahead }
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

    fn translate(&self, time: Timestamp) -> Timestamp {
        time.after(self.ahead)
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
    fn a_clock_that_is_ahead_waits_for_the_system_without_standing_still() {
        let newest = SystemClock::new().now().after(Duration::from_secs(60));
        let clock = SystemClock { ahead: Duration::from_secs(60), ..SystemClock::not_before(newest) };

        let passed = [0, 10, 600, 601, 86_400].map(|secs| clock.at(Duration::from_secs(secs)).since(newest));

        assert_eq!(passed.map(|passed| passed.as_secs()), [0, 9, 540, 541, 86_340]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_to_come_is_as_far_off_on_a_clock_that_waits_for_the_system() {
        let system = Timestamp::from_micros(1_790_000_000_000_000);
        let began = Instant::now();
        let reading = Arc::new(move || system.after(began.elapsed()));
        let clock = SystemClock::of(reading, system.after(Duration::from_secs(100)));
        let in_time = |secs| system.after(Duration::from_secs(secs));

        let due = [10, 5_000].map(|secs| clock.translate(in_time(secs)));

        for (due, secs) in due.into_iter().zip([10, 4_990]) {
            tokio::time::advance(Duration::from_secs(secs)).await;
            assert_eq!(clock.now(), due);
        }
    }

    #[test]
    fn a_moment_on_another_clock_is_as_far_off_as_on_this_one() {
        let at = |secs: i64| Timestamp::from_micros(secs * 1_000_000);

        assert_eq!(translated(at(1_010), at(1_000), at(5_000)), at(5_010), "this one is ahead");
        assert_eq!(translated(at(5_010), at(5_000), at(1_000)), at(1_010), "this one is behind");
        assert_eq!(translated(at(1_010), at(1_000), Timestamp::from_micros(1_000_000_700)), at(1_010));
    }

    #[test]
    fn a_clock_that_is_behind_nothing_is_the_systems() {
        let clock = SystemClock::not_before(Timestamp::from_micros(1));

        let passed = clock.at(Duration::from_secs(100)).since(clock.at(Duration::ZERO));

        assert_eq!((clock.ahead, passed), (Duration::ZERO, Duration::from_secs(100)));
    }

    #[test]
    fn the_system_clock_never_goes_back() {
        let clock = SystemClock::new();

        let times: Vec<_> = (0..1000).map(|_| clock.now()).collect();

        assert!(times.is_sorted());
    }
}
