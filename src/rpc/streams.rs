//! Watches as streams: each is pulled by its client, one message at a time.

use crate::engine::{Watch, WatchJobs};
use crate::proto::{EncodedEvent, WatchJobsResponse};
use crate::wire::{reply, status};
use futures_core::Stream;
use futures_util::stream;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio_util::sync::ReusableBoxFuture;
use tonic::Status;

/// A job's watch as a stream.
pub fn watch_job(watch: Watch) -> WatchStream {
    WatchStream(ReusableBoxFuture::new(next_message(watch)))
}

/// A watch over many jobs as a stream, which ends with an error only.
pub fn watch_jobs(watch: WatchJobs) -> impl Stream<Item = Result<WatchJobsResponse, Status>> + Send {
    stream::unfold(Some(watch), async |watch| {
        let mut watch = watch?;
        Some(match watch.next().await {
            Ok(message) => (Ok(reply::watched_jobs(&message)), Some(watch)),
            Err(error) => (Err(status::status(&error)), None),
        })
    })
}

/// A watch as a stream. It ends without an error only where the watch does: after the job's last event.
pub struct WatchStream(ReusableBoxFuture<'static, (Watch, Option<Result<EncodedEvent, Status>>)>);

async fn next_message(mut watch: Watch) -> (Watch, Option<Result<EncodedEvent, Status>>) {
    let next = watch.next().await;
    (
        watch,
        next.map(|next| next.map(|message| reply::watched(&message)).map_err(|error| status::status(&error))),
    )
}

impl Stream for WatchStream {
    type Item = Result<EncodedEvent, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let (watch, next) = std::task::ready!(self.0.poll(context));
        self.0.set(next_message(watch));
        Poll::Ready(next)
    }
}
