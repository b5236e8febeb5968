//! A doorbell: whoever listens wakes when it rings, and finds the latest that is to be known.
//!
//! As tokio's `watch`, but all wake in the order in which they began to wait, where `watch` wakes them by lot: a simulation
//! comes to the same run each time.

use parking_lot::{RwLock, RwLockReadGuard};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::Notify;

/// Where it is rung.
#[derive(Debug, Default)]
pub struct Bell<T>(Arc<Shared<T>>);

#[derive(Debug, Default)]
struct Shared<T> {
    latest: RwLock<T>,
    /// How often it has rung. Grows under the lock.
    rings: AtomicU64,
    rung: Notify,
}

/// Where it is heard.
#[derive(Debug)]
pub struct Listener<T> {
    shared: Arc<Shared<T>>,
    heard: u64,
}

impl<T> Bell<T> {
    /// Silent so far.
    pub fn new(latest: T) -> Self {
        let latest = RwLock::new(latest);
        Self(Arc::new(Shared { latest, rings: AtomicU64::new(0), rung: Notify::new() }))
    }

    /// Changes what is to be known, and rings if that is news.
    pub fn ring_if(&self, change: impl FnOnce(&mut T) -> bool) {
        let mut latest = self.0.latest.write();
        if change(&mut latest) {
            self.0.rings.fetch_add(1, Ordering::Release);
            drop(latest);
            self.0.rung.notify_waiters();
        }
    }

    /// Changes what is to be known, and rings.
    pub fn ring(&self, change: impl FnOnce(&mut T)) {
        self.ring_if(|latest| {
            change(latest);
            true
        });
    }

    /// Listens, from now on.
    pub fn listen(&self) -> Listener<T> {
        let heard = self.0.rings.load(Ordering::Acquire);
        Listener { shared: Arc::clone(&self.0), heard }
    }
}

impl<T> Listener<T> {
    /// The latest, which may be newer than the last ring that was heard.
    pub fn latest(&self) -> RwLockReadGuard<'_, T> {
        self.shared.latest.read()
    }

    /// The latest, as if every ring up to it had been heard.
    pub fn hear(&mut self) -> RwLockReadGuard<'_, T> {
        let latest = self.shared.latest.read();
        self.heard = self.shared.rings.load(Ordering::Acquire);
        latest
    }

    /// Waits for a ring that was not heard yet, and hears it. Cancel safe.
    pub async fn rung(&mut self) {
        loop {
            // Woken also by a ring between this line and the wait.
            let next = self.shared.rung.notified();
            let rings = self.shared.rings.load(Ordering::Acquire);
            if rings != self.heard {
                self.heard = rings;
                return;
            }
            next.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use futures_util::future::join_all;
    use parking_lot::Mutex;

    #[tokio::test]
    async fn a_ring_is_heard_once_and_none_is_missed() {
        let bell = Bell::new(0);
        bell.ring(|latest| *latest = 1);
        let mut listener = bell.listen();

        assert!(listener.rung().now_or_never().is_none(), "what rang before is not news");
        bell.ring(|latest| *latest = 2);
        bell.ring(|latest| *latest = 3);
        assert!(listener.rung().now_or_never().is_some());
        assert!(listener.rung().now_or_never().is_none());
        bell.ring_if(|_| false);
        assert!(listener.rung().now_or_never().is_none());
        bell.ring(|latest| *latest = 4);
        assert_eq!(*listener.hear(), 4);
        assert!(listener.rung().now_or_never().is_none(), "what was heard is not news");
    }

    #[tokio::test]
    async fn all_wake_in_the_order_in_which_they_wait() {
        let bell = Bell::new(());
        let order = Mutex::new(Vec::new());
        let all = (0..100).map(|number| {
            let (mut listener, order) = (bell.listen(), &order);
            async move {
                listener.rung().await;
                order.lock().push(number);
            }
        });
        let mut all = std::pin::pin!(join_all(all));
        assert!((&mut all).now_or_never().is_none());

        bell.ring(|()| ());
        all.await;

        assert_eq!(*order.lock(), (0..100).collect::<Vec<_>>());
    }
}
