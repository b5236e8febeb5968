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
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, Response, StatusCode};
use http_body::Frame;
use serde_json::value::RawValue;
use std::io;
use std::panic::AssertUnwindSafe;
use tonic::Code;

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
    request.after_sequence = last.or(request.after_sequence);
    let mut knows_cursor = last.is_some();
    let watch = match api.watch(request.clone()).await {
        // A cursor that the job has not reached is one of another life of it: the reader begins anew.
        Err(error) if error.code() == Code::OutOfRange => {
            request.after_sequence = None;
            knows_cursor = false;
            api.watch(request).await
        }
        other => other,
    };
    match watch {
        Ok(watch) if knows_cursor && watch.is_told() => {
            // The reader has seen the end and would come again for ever.
            let mut answer = Response::new(full(Bytes::new()));
            *answer.status_mut() = StatusCode::NO_CONTENT;
            Ok(answer)
        }
        Ok(watch) => Ok(answer(stream_of(watch, next_of_one))),
        // It will pass, and the reader has been here before.
        Err(error) if last.is_some() && error.code() == Code::Unavailable => {
            Ok(answer(Box::pin(stream::empty())))
        }
        Err(error) => Err(error.into()),
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
type Next<W> = Option<(Bytes, Option<W>)>;

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
    Box::pin(caught.map(|frame| frame.map(Frame::data).map_err(|_| io::Error::other("a watch panicked"))))
}

async fn next_of_one(mut watch: Watch) -> Next<Watch> {
    let frame = match watch.next().await? {
        Ok(Message::Snapshot { snapshot, cursor }) => {
            event("snapshot", Some(cursor), &raw::snapshot(&snapshot, cursor))
        }
        Ok(Message::Shared(shared)) => shared
            .encoded(Form::Text, |shared| event(name(shared), Some(shared.sequence), &raw::shared(shared))),
        Ok(Message::Keepalive { .. }) => Bytes::from_static(KEEPALIVE),
        Err(error) => return last_words(&error),
    };
    Some((frame, Some(watch)))
}

async fn next_of_many(mut watch: WatchJobs) -> Next<WatchJobs> {
    let message = match watch.next().await {
        Ok(message) => message,
        Err(error) => return last_words(&error),
    };
    let name = match &message {
        JobsMessage::Job(_) => "job",
        JobsMessage::Departed(_) => "departed",
        JobsMessage::Forgotten(_) => "forgottenJobId",
        JobsMessage::Synced => "synced",
        JobsMessage::Keepalive => return Some((Bytes::from_static(KEEPALIVE), Some(watch))),
    };
    Some((event(name, None, &raw::watched_jobs(&message)), Some(watch)))
}

/// A stream that breaks off without a word is one that its reader takes up again; what will not pass is said.
fn last_words<W>(error: &Error) -> Next<W> {
    if error.is_transient() {
        return None;
    }
    let problem = Problem::from(status::status(error));
    Some((event("problem", None, &raw::write(problem.details())), None))
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
