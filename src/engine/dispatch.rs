//! Wakes workers that wait for work.
//!
//! It knows no jobs: which one a worker gets is decided by the store when the worker claims. A hint that is lost costs a
//! moment, since a worker that waits claims again by itself after a while.

use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Notify;

/// The workers that wait, by kind, in the order in which they came.
#[derive(Debug, Default)]
pub struct Dispatch {
    waiting: Mutex<HashMap<String, VecDeque<Arc<Waiter>>>>,
}

#[derive(Debug, Default)]
struct Waiter {
    woken: AtomicBool,
    notify: Notify,
}

/// A worker's place among those that wait. Taken before it claims, so that no hint falls in between.
#[derive(Debug)]
pub struct Place<'a> {
    dispatch: &'a Dispatch,
    kinds: Arc<[String]>,
    waiter: Arc<Waiter>,
    /// It was woken, but did not come to claim.
    owes: bool,
}

impl Dispatch {
    /// Takes a place for a worker of these kinds.
    pub fn enlist(&self, kinds: &Arc<[String]>) -> Place<'_> {
        let waiter = Arc::new(Waiter::default());
        let mut waiting = self.waiting.lock();
        for kind in kinds.iter() {
            waiting.entry(kind.clone()).or_default().push_back(Arc::clone(&waiter));
        }
        Place { dispatch: self, kinds: Arc::clone(kinds), waiter, owes: true }
    }

    /// A job of this kind is ready: wakes the worker that has waited longest.
    pub fn hint(&self, kind: &str) {
        let mut waiting = self.waiting.lock();
        let Some(queue) = waiting.get_mut(kind) else { return };
        while let Some(waiter) = queue.pop_front() {
            if !waiter.woken.swap(true, Ordering::Relaxed) {
                waiter.notify.notify_one();
                return;
            }
        }
    }
}

impl Place<'_> {
    /// Waits for a hint.
    pub async fn wait(&self) {
        self.waiter.notify.notified().await;
    }

    /// Its worker has got work and needs no hint.
    pub fn served(mut self) {
        // A hint that came meanwhile was for one job, which others may still want.
        self.owes = self.waiter.woken.load(Ordering::Relaxed);
    }

    /// Its worker is about to claim, as the hint told.
    pub fn leave(mut self) {
        self.owes = false;
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let woken = self.waiter.woken.swap(true, Ordering::Relaxed);
        let mut waiting = self.dispatch.waiting.lock();
        for kind in self.kinds.iter() {
            if let Some(queue) = waiting.get_mut(kind) {
                queue.retain(|waiter| !Arc::ptr_eq(waiter, &self.waiter));
                if queue.is_empty() {
                    waiting.remove(kind);
                }
            }
        }
        drop(waiting);
        if woken && self.owes {
            for kind in self.kinds.iter() {
                self.dispatch.hint(kind);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;
    use std::task::{Context, Poll, Waker};

    fn kinds(names: &[&str]) -> Arc<[String]> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn is_woken(place: &Place<'_>) -> bool {
        let wait = std::pin::pin!(place.wait());
        wait.poll(&mut Context::from_waker(Waker::noop())) == Poll::Ready(())
    }

    #[test]
    fn a_hint_wakes_the_one_that_has_waited_longest_for_its_kind() {
        let dispatch = Dispatch::default();
        let other = dispatch.enlist(&kinds(&["b"]));
        let first = dispatch.enlist(&kinds(&["a", "b"]));
        let second = dispatch.enlist(&kinds(&["a"]));

        dispatch.hint("a");

        assert!(is_woken(&first) && !is_woken(&second) && !is_woken(&other));
    }

    #[test]
    fn a_worker_that_leaves_after_its_hint_passes_it_on() {
        let dispatch = Dispatch::default();
        let first = dispatch.enlist(&kinds(&["a"]));
        let second = dispatch.enlist(&kinds(&["a"]));

        dispatch.hint("a");
        drop(first);

        assert!(is_woken(&second));
    }

    #[test]
    fn nobody_is_remembered_after_leaving() {
        let dispatch = Dispatch::default();

        drop(dispatch.enlist(&kinds(&["a", "b"])));
        dispatch.hint("a");

        assert!(dispatch.waiting.lock().is_empty());
    }
}
