//! Watches as server-sent events (WHATWG HTML, section 9.2): what an `EventSource` reads, resumes and gives up.
//!
//! The `id` of an event is its cursor, so that a browser names the last one when it comes again. Any answer but 200 makes it
//! give up for good: it gets one only where coming again is of no use.

use super::body::{Answer, Pieces, full, pieces};
use super::problem::Problem;
use crate::api;
use crate::engine::{Error, Form, JobsMessage, Message, SharedBody, SharedEvent, Watch, WatchJobs};
use crate::job::{Body, Sequence};
use crate::proto::{WatchJobRequest, WatchJobsRequest};
use crate::wire::{raw, status};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, Response, StatusCode};
use http_body::Frame;
use serde_json::value::RawValue;
use std::io;
use std::panic::AssertUnwindSafe;
use tonic::{Code, Status};

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream");
/// Sent before anything else: how long a browser waits before it comes again, instead of its own three seconds or more.
const BEGIN: &[u8] = b"retry: 1000\n\n";
/// Shows a quiet stream to be alive, without any reader being told.
const KEEPALIVE: &[u8] = b": nothing new\n\n";

/// Follows a job. `Last-Event-ID` is the cursor of one who comes again, and wins over the address, which is the same each time.
pub async fn watch(
    api: &api::Jobs,
    mut request: WatchJobRequest,
    headers: &HeaderMap,
) -> Result<Answer, Problem> {
    let last = last_event(headers)?;
    let first = request.after_sequence;
    let mut watch = Err(Status::out_of_range("no cursor was tried yet"));
    // A cursor that the job has not reached is one of another life of it: the reader begins anew.
    for after in [last.or(first), first, None] {
        request.after_sequence = after;
        watch = api.watch(request.clone()).await;
        if watch.as_ref().err().is_none_or(|error| error.code() != Code::OutOfRange) {
            break;
        }
    }
    let resumes = last.is_some() && request.after_sequence == last;
    match watch {
        Ok(watch) if resumes && watch.is_told() => {
            // The reader has seen the end and would come again for ever.
            let mut answer = Response::new(full(Bytes::new()));
            *answer.status_mut() = StatusCode::NO_CONTENT;
            Ok(answer)
        }
        Ok(mut watch) => {
            if resumes && let Err(error) = watch.look().await {
                return passing_or_not(status::status(&error), headers);
            }
            Ok(answer(stream_of(watch, next_of_one)))
        }
        Err(error) => passing_or_not(error, headers),
    }
}

/// A reader that would give up for good is told to come again of what will pass: a stream that breaks off at once.
fn passing_or_not(error: Status, headers: &HeaderMap) -> Result<Answer, Problem> {
    let accepts = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok());
    let is_event_source = accepts.is_some_and(|accept| accept.contains("text/event-stream"));
    match error.code() == Code::Unavailable && (is_event_source || headers.contains_key(LAST_EVENT_ID)) {
        true => Ok(answer(Box::pin(stream::once(async { Err(broken_off()) })))),
        false => Err(error.into()),
    }
}

/// Follows all jobs that match a filter.
pub fn watch_all(api: &api::Jobs, request: WatchJobsRequest) -> Result<Answer, Problem> {
    Ok(answer(stream_of(api.watch_all(request)?, next_of_many)))
}

/// The cursor that a reader who comes again has seen last.
fn last_event(headers: &HeaderMap) -> Result<Option<i64>, Problem> {
    let Some(id) = headers.get(LAST_EVENT_ID) else { return Ok(None) };
    let cursor = id.to_str().ok().and_then(|id| id.parse::<u64>().ok()).and_then(|id| i64::try_from(id).ok());
    match cursor {
        Some(cursor) => Ok(Some(cursor)),
        // A browser sends an empty one where no event had an id.
        None if id.is_empty() => Ok(None),
        None => {
            let detail = "last-event-id is not the id of an event";
            Err(Problem::new(StatusCode::BAD_REQUEST, "INVALID_REQUEST", detail))
        }
    }
}

fn answer(events: Pieces) -> Answer {
    let begin = stream::once(async { Ok(Frame::data(Bytes::from_static(BEGIN))) });
    let mut answer = Response::new(pieces(Box::pin(begin.chain(events))));
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, EVENT_STREAM);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Asks nginx not to wait for more.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    answer
}

/// What comes next of a watch, and the watch where more may come.
type Next<W> = Option<(io::Result<Bytes>, Option<W>)>;

/// A watch as frames, one for each message that its reader takes.
fn stream_of<W, F>(watch: W, next: impl Fn(W) -> F + Send + Clone + 'static) -> Pieces
where
    W: Send + 'static,
    F: Future<Output = Next<W>> + Send + 'static,
{
    let frames = stream::unfold(Some(watch), move |watch| {
        let next = next.clone();
        async move { next(watch?).await }
    });
    // A panic breaks the stream off; it must not look like its end, nor take the connection's other streams with it.
    let caught = AssertUnwindSafe(frames).catch_unwind();
    Box::pin(caught.map(|caught| {
        let frame = caught.unwrap_or_else(|_| {
            tracing::error!("a watch panicked and was broken off");
            Err(broken_off())
        });
        frame.map(Frame::data)
    }))
}

fn broken_off() -> io::Error {
    io::Error::other("the watch broke off before the end")
}

async fn next_of_one(mut watch: Watch) -> Next<Watch> {
    let frame = match watch.next().await? {
        Ok(Message::Snapshot { snapshot, cursor }) => {
            let shown = api::show(*snapshot, move |snapshot| raw::snapshot(snapshot, cursor)).await;
            let Ok(shown) = shown else { return Some((Err(broken_off()), None)) };
            event("snapshot", Some(cursor), &shown)
        }
        Ok(Message::Shared(shared)) => shared
            .encoded(Form::Text, |shared| event(name(shared), Some(shared.sequence), &raw::shared(shared))),
        Ok(Message::Keepalive { .. }) => Bytes::from_static(KEEPALIVE),
        Err(error) => return last_words(&error),
    };
    Some((Ok(frame), Some(watch)))
}

async fn next_of_many(mut watch: WatchJobs) -> Next<WatchJobs> {
    let message = match watch.next().await {
        Ok(message) => message,
        Err(error) => return last_words(&error),
    };
    let frame = match &message {
        JobsMessage::Job(_) => event("job", None, &raw::watched_jobs(&message)),
        JobsMessage::Departed(_) => event("departed", None, &raw::watched_jobs(&message)),
        JobsMessage::Forgotten(_) => event("forgottenJobId", None, &raw::watched_jobs(&message)),
        JobsMessage::Synced => event("synced", None, &raw::watched_jobs(&message)),
        JobsMessage::Keepalive => Bytes::from_static(KEEPALIVE),
    };
    Some((Ok(frame), Some(watch)))
}

/// A stream that breaks off is one that its reader takes up again. What will not pass is said, and then the stream ends: a
/// break would take these words with it.
fn last_words<W>(error: &Error) -> Next<W> {
    if error.is_transient() {
        return Some((Err(broken_off()), None));
    }
    let problem = Problem::from(status::status(error));
    Some((Ok(event("problem", None, &raw::write(problem.details()))), None))
}

fn name(shared: &SharedEvent) -> &'static str {
    match &shared.body {
        SharedBody::Kept(Body::StateChanged(_)) => "stateChange",
        SharedBody::Kept(Body::StageEntered { .. }) => "stage",
        SharedBody::Kept(Body::OutputAppended { .. }) => "output",
        SharedBody::Kept(Body::OutputReset { .. }) => "outputReset",
        SharedBody::Kept(Body::Logged(_)) => "log",
        SharedBody::Progress(_) => "progress",
        SharedBody::Metrics(_) => "metrics",
        SharedBody::Queue { .. } => "queueUpdate",
    }
}

/// An event. A JSON text that came with line ends has them still: each line is a line of data, which its reader joins again.
fn event(name: &str, id: Option<Sequence>, data: &RawValue) -> Bytes {
    let data = data.get();
    let mut frame = String::with_capacity(data.len() + 64);
    if let Some(id) = id {
        frame.push_str(&format!("id: {id}\n"));
    }
    frame.push_str(&format!("event: {name}\n"));
    for line in data.split(['\n', '\r']) {
        frame.push_str("data: ");
        frame.push_str(line);
        frame.push('\n');
    }
    frame.push('\n');
    frame.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_has_its_cursor_its_name_and_its_data_line_by_line() {
        let text = RawValue::from_string("{\"a\":\r\n1}".to_owned()).unwrap();

        let frame = event("output", Some(7), &text);

        assert_eq!(frame, "id: 7\nevent: output\ndata: {\"a\":\ndata: \ndata: 1}\n\n");
    }

    #[tokio::test]
    async fn a_watch_ends_well_only_where_coming_again_is_of_no_use() {
        async fn told(left: u32) -> Next<u32> {
            match left {
                0 => None,
                7 => panic!("on purpose"),
                9 => last_words(&Error::Unavailable("stopping".into())),
                8 => last_words(&Error::NotFound),
                left => Some((Ok(Bytes::from_static(b"x")), Some(left - 1))),
            }
        }
        let ends = async |from: u32| {
            let all: Vec<_> = stream_of(from, told).take(9).map(|frame| frame.is_ok()).collect().await;
            all
        };

        assert_eq!(ends(2).await, [true, true]);
        assert_eq!(ends(9).await, [false]);
        // What will not pass has been said.
        assert_eq!(ends(8).await, [true]);
        assert_eq!(ends(7).await[..1], [false]);
    }

    #[test]
    fn the_last_event_of_one_who_comes_again_is_a_cursor() {
        let last = |id: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(LAST_EVENT_ID, HeaderValue::from_static(id));
            last_event(&headers)
        };

        assert_eq!(last("42").unwrap(), Some(42));
        assert_eq!(last("").unwrap(), None);
        for bad in ["-1", "x", "9223372036854775808", "1 2"] {
            assert_eq!(last(bad).unwrap_err().status, StatusCode::BAD_REQUEST, "{bad}");
        }
    }
}
