//! The end of a server, told to those who work elsewhere: first that it is near, then that it is there.
//!
//! They hear of it in the order in which they began to wait, so that a simulation comes to the same run each time.

use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// Whether the server is about to stop, for those who are to go elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopping {
    /// It is not.
    No,
    /// No more work is given out; streams last this long at least.
    Draining(Duration),
    /// All streams end.
    Closing,
}

/// Where it is said. There is no way back.
#[derive(Debug, Default)]
pub(super) struct Stop {
    /// How long streams last at least, once that is known.
    time: OnceLock<Duration>,
    draining: CancellationToken,
    closing: CancellationToken,
    listeners: TaskTracker,
}

/// Where it is heard.
#[derive(Debug)]
pub struct StopListener {
    stop: Arc<Stop>,
    heard: Stopping,
    _present: TaskTrackerToken,
}

impl Stop {
    /// Says that streams last `time` at least. The first to say so is believed.
    pub fn drain(&self, time: Duration) {
        self.time.get_or_init(|| time);
        self.draining.cancel();
    }

    /// Says that all streams end.
    pub fn close(&self) {
        self.closing.cancel();
    }

    /// What was said.
    pub fn now(&self) -> Stopping {
        match self.time.get() {
            _ if self.closing.is_cancelled() => Stopping::Closing,
            Some(time) => Stopping::Draining(*time),
            None => Stopping::No,
        }
    }

    /// Listens, also to what was said before.
    pub fn listen(self: &Arc<Self>) -> StopListener {
        StopListener { stop: Arc::clone(self), heard: Stopping::No, _present: self.listeners.token() }
    }

    /// Waits until nobody listens.
    pub async fn left(&self) {
        self.listeners.close();
        self.listeners.wait().await;
    }
}

impl StopListener {
    /// Waits for what it has not heard yet. Cancel safe; nothing comes after the end.
    pub async fn next(&mut self) -> Stopping {
        let stop = &self.stop;
        match self.heard {
            Stopping::No => tokio::select! {
                biased;
                () = stop.closing.cancelled() => {}
                () = stop.draining.cancelled() => {}
            },
            Stopping::Draining(_) => stop.closing.cancelled().await,
            Stopping::Closing => std::future::pending().await,
        }
        self.heard = stop.now();
        self.heard
    }
}
