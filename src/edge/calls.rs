//! Runs the calls of a connection in the connection's own task.
//!
//! A task for each call would be woken for its answer, and wake the connection's task in turn, which would write that one
//! answer: two switches and a system call for each. Here the answers that a commit brings at once are written at once. The
//! price is that the calls of one connection share a thread, as its frames do anyway.

use futures_util::Stream;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

type Call = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Takes the calls that a connection brings.
#[derive(Clone, Default)]
pub(super) struct Calls(Arc<Mutex<Vec<Call>>>);

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Calls {
    fn execute(&self, call: F) {
        self.0.lock().push(Box::pin(call));
    }
}

impl Calls {
    /// Runs `connection` and its calls until the connection has ended. What is left of them then has nobody to answer.
    pub(super) async fn run<C: Future>(self, connection: C) -> C::Output {
        let mut connection = pin!(connection);
        let mut running = FuturesUnordered::new();
        std::future::poll_fn(move |context| {
            loop {
                if let Poll::Ready(ended) = connection.as_mut().poll(context) {
                    return Poll::Ready(ended);
                }
                running.extend(self.0.lock().drain(..));
                if !advance(&mut running, context) {
                    return Poll::Pending;
                }
                // Some have been answered: the connection writes that.
            }
        })
        .await
    }
}

/// Lets the calls go on that can; whether one has ended.
fn advance(running: &mut FuturesUnordered<Call>, context: &mut Context<'_>) -> bool {
    let mut ended = false;
    while let Poll::Ready(Some(())) = Pin::new(&mut *running).poll_next(context) {
        ended = true;
    }
    ended
}
