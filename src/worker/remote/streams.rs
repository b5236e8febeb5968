//! The two streams of a worker elsewhere, each made anew whenever it ends, however it ended.

use super::book::Book;
use super::connection::{Client, Connection};
use crate::engine::Chance;
use crate::proto::{self, work_response::Message};
use crate::worker::backoff::Backoff;
use futures_util::{StreamExt, stream};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior};
use tonic::{Status, Streaming};

/// How long a server has to greet.
const WELCOME_TIME: Duration = Duration::from_secs(10);
/// How often progress is reported, at most.
const REPORT_EVERY: Duration = Duration::from_millis(50);
/// How often a worker gives a sign, where the server does not say.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(10);
/// After how many intervals without an answer nobody is there: each heartbeat has one. A third would be the end of the leases.
const SILENT_INTERVALS: u32 = 2;

/// Does something when a stream ends, also when it is dropped.
struct Ended<F: Fn()>(F);

impl<F: Fn()> Drop for Ended<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// Keeps a `Work` stream, for ever.
pub async fn work(book: Arc<Book>, connection: Arc<Connection>, chance: Chance) {
    book.is_wanted().await;
    let mut backoff = Backoff::default();
    loop {
        let began = Instant::now();
        match one_work(&book, &connection).await {
            Ok(()) => tracing::debug!("the server has ended the stream of work"),
            Err(status) => tracing::warn!(%status, "the stream of work broke; trying again"),
        }
        backoff.pause_after(began.elapsed(), chance()).await;
    }
}

async fn one_work(book: &Arc<Book>, connection: &Connection) -> Result<(), Status> {
    let silent = || {
        connection.leave();
        Status::deadline_exceeded("the server was silent")
    };
    let (stream, hello) = book.begin_work();
    // What is said is pulled by the connection, which would hold its half open until there is something to say.
    let _ended = Ended(|| book.end_work());
    let following = stream::unfold(Arc::clone(book), move |book| async move {
        let message = book.next_message(stream).await?;
        Some((message, book))
    });
    let requests = stream::iter([hello]).chain(following);
    let (mut client, _) = connection.client();
    let greeting = async {
        let mut responses = client.work(requests).await?.into_inner();
        match next(&mut responses).await? {
            Some(Message::Welcome(welcome)) => Ok((welcome, responses)),
            Some(_) | None => Err(Status::internal("the server did not greet")),
        }
    };
    let greeted = tokio::time::timeout(WELCOME_TIME, greeting).await;
    let (welcome, mut responses) = greeted.map_err(|_| silent())??;
    let terms = welcome.terms.unwrap_or_default();
    let interval = terms.heartbeat_interval.and_then(|interval| interval.try_into().ok());
    let interval = interval.filter(|interval: &Duration| !interval.is_zero()).unwrap_or(HEARTBEAT_INTERVAL);
    welcome.directives.into_iter().for_each(|directive| book.direct(directive));

    let mut beat = tokio::time::interval(interval);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut due, mut reported) = (false, Instant::now());
    let mut silence = std::pin::pin!(tokio::time::sleep(SILENT_INTERVALS * interval));
    let mut heard = Instant::now();
    loop {
        tokio::select! {
            // What has come was said in time, however late it is listened to.
            biased;
            response = next(&mut responses) => {
                heard = Instant::now();
                match response? {
                    None => return Ok(()),
                    Some(response) => take(book, response)?,
                }
            }
            () = silence.as_mut() => {
                let until = heard + SILENT_INTERVALS * interval;
                if until <= Instant::now() {
                    return Err(silent());
                }
                silence.as_mut().reset(until);
            }
            _ = beat.tick() => book.beat(),
            () = book.reported(), if !due => due = true,
            () = tokio::time::sleep_until(reported + REPORT_EVERY), if due => {
                (due, reported) = (false, Instant::now());
                book.tell_changes();
            }
        }
    }
}

async fn next(responses: &mut Streaming<proto::WorkResponse>) -> Result<Option<Message>, Status> {
    // What a later server may say beside is passed over.
    while let Some(response) = responses.message().await? {
        if let Some(message) = response.message {
            return Ok(Some(message));
        }
    }
    Ok(None)
}

fn take(book: &Book, message: Message) -> Result<(), Status> {
    match message {
        Message::Welcome(_) => return Err(Status::internal("the server greeted twice")),
        Message::Assignment(assignment) => book.assign(assignment).map_err(Status::internal)?,
        Message::Directives(answer) => {
            answer.directives.into_iter().for_each(|directive| book.direct(directive));
        }
        Message::Ack(ack) => book.acknowledge(ack),
        // Leases stay valid: when the stream ends, there is another.
        Message::GoAway(_) => tracing::info!("the server is about to stop"),
    }
    Ok(())
}

/// Keeps an `Emit` stream while there is something to send, for ever.
pub async fn emit(book: Arc<Book>, connection: Arc<Connection>, chance: Chance) {
    let mut backoff = Backoff::default();
    loop {
        book.has_output().await;
        let began = Instant::now();
        let (client, left) = connection.client();
        let emitted = tokio::select! {
            biased;
            emitted = one_emit(&book, client) => emitted,
            // Whether somebody is there at the other end shows on the other stream.
            () = left.cancelled() => Err(Status::deadline_exceeded("the server was silent")),
        };
        if let Err(status) = emitted {
            tracing::warn!(%status, "the stream of output broke; trying again");
        }
        backoff.pause_after(began.elapsed(), chance()).await;
    }
}

async fn one_emit(book: &Arc<Book>, mut client: Client) -> Result<(), Status> {
    let stream = book.begin_emit();
    let _ended = Ended(|| book.end_emit());
    let frames = stream::unfold(Arc::clone(book), move |book| async move {
        let frame = book.next_frame(stream).await?;
        Some((frame, book))
    });
    let mut answers = client.emit(frames).await?.into_inner();
    while let Some(answer) = answers.message().await? {
        // What is behind a refused frame has a gap before it: all is sent again, after a pause and on another stream.
        book.settle(answer).map_err(Status::unavailable)?;
    }
    Ok(())
}
