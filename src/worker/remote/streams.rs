//! The two streams of a worker elsewhere, each made anew whenever it ends, however it ended.

use super::book::Book;
use crate::proto::worker_service_client::WorkerServiceClient;
use crate::proto::{self, work_response::Message};
use futures_util::{StreamExt, stream};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior};
use tonic::transport::Channel;
use tonic::{Status, Streaming};

type Client = WorkerServiceClient<Channel>;

/// How long to wait before a stream is made anew: the first time, and at most.
const TRY_AGAIN: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// How long a server has to greet.
const WELCOME_TIME: Duration = Duration::from_secs(10);
/// How often progress is reported, at most.
const REPORT_EVERY: Duration = Duration::from_millis(50);
/// How often a worker gives a sign, where the server does not say.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(10);

/// Keeps a `Work` stream, for ever.
pub async fn work(book: Arc<Book>, client: Client) {
    let mut pause = TRY_AGAIN.0;
    loop {
        let mut greeted = false;
        match one_work(&book, client.clone(), &mut greeted).await {
            Ok(()) => tracing::debug!("the server has ended the stream of work"),
            Err(status) => tracing::warn!(%status, "the stream of work broke; trying again"),
        }
        pause = if greeted { TRY_AGAIN.0 } else { (pause * 2).min(TRY_AGAIN.1) };
        tokio::time::sleep(jittered(pause)).await;
    }
}

async fn one_work(book: &Arc<Book>, client: Client, greeted: &mut bool) -> Result<(), Status> {
    let (stream, hello) = book.begin_work();
    let following = stream::unfold(Arc::clone(book), move |book| async move {
        let message = book.next_message(stream).await?;
        Some((message, book))
    });
    let requests = stream::iter([hello]).chain(following);
    let mut responses = {
        let mut client = client;
        tokio::time::timeout(WELCOME_TIME, client.work(requests)).await.map_err(|_| silent())??.into_inner()
    };
    let Some(Message::Welcome(welcome)) =
        tokio::time::timeout(WELCOME_TIME, next(&mut responses)).await.map_err(|_| silent())??
    else {
        return Err(Status::internal("the server did not greet"));
    };
    *greeted = true;
    let terms = welcome.terms.unwrap_or_default();
    let interval = terms.heartbeat_interval.and_then(|interval| interval.try_into().ok());
    let interval = interval.filter(|interval: &Duration| !interval.is_zero()).unwrap_or(HEARTBEAT_INTERVAL);
    book.welcome(welcome.directives);

    let mut beat = tokio::time::interval(interval);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut due, mut reported) = (false, Instant::now());
    let mut heard = Instant::now();
    loop {
        tokio::select! {
            response = next(&mut responses) => {
                heard = Instant::now();
                match response? {
                    None => return Ok(()),
                    Some(response) => take(book, response)?,
                }
            }
            _ = beat.tick() => {
                // Each heartbeat is answered, so one that hears nothing is cut off.
                if heard.elapsed() > 3 * interval {
                    return Err(silent());
                }
                book.beat(true);
            }
            () = book.reported(), if !due => due = true,
            () = tokio::time::sleep_until(reported + REPORT_EVERY), if due => {
                (due, reported) = (false, Instant::now());
                book.beat(false);
            }
        }
    }
}

fn silent() -> Status {
    Status::deadline_exceeded("the server was silent")
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
pub async fn emit(book: Arc<Book>, client: Client) {
    let mut pause = TRY_AGAIN.0;
    loop {
        book.has_output().await;
        let began = Instant::now();
        if let Err(status) = one_emit(&book, client.clone()).await {
            tracing::warn!(%status, "the stream of output broke; trying again");
        }
        pause = if began.elapsed() > TRY_AGAIN.1 { TRY_AGAIN.0 } else { (pause * 2).min(TRY_AGAIN.1) };
        tokio::time::sleep(jittered(pause)).await;
    }
}

async fn one_emit(book: &Arc<Book>, mut client: Client) -> Result<(), Status> {
    let stream = book.begin_emit();
    let frames = stream::unfold(Arc::clone(book), move |book| async move {
        let frame = book.next_frame(stream).await?;
        Some((frame, book))
    });
    let mut answers = client.emit(frames).await?.into_inner();
    while let Some(answer) = answers.message().await? {
        book.settle(answer);
    }
    Ok(())
}

/// Somewhere between half of a pause and the whole, so that workers do not come back all at once.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(rand::random_range(0.5..1.0))
}
