//! The JSON API: a request of the contract, a call of `api`, a JSON text.

use super::body::{self, Answer, full, json as json_body, read};
use super::events;
use super::json;
use super::problem::Problem;
use super::routes::Call;
use crate::api::{self, Counts, EventsPage, JOBS_INLINE_MAX, JSON_INLINE_MAX};
use crate::engine::Started;
use crate::proto::{self, DeleteJobRequest, GetStatusRequest};
use crate::wire::trace::trace;
use crate::wire::{raw, reply};
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION};
use http::request::Parts;
use http::{HeaderMap, Response, StatusCode};
use serde::Serialize;
use serde_json::value::RawValue;
use tonic::Status;

/// The content-type of an answer.
const JSON: HeaderValue = HeaderValue::from_static(body::JSON);
/// The header that is the `request_id` of a call (draft-ietf-httpapi-idempotency-key-header).
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// As in gRPC's metadata.
const REPEATED: HeaderName = HeaderName::from_static("longhaul-repeated");

/// Answers one of the calls about the job that the address names.
pub async fn answer(
    api: &api::Jobs,
    call: Call,
    ticket: &str,
    parts: &Parts,
    body: impl http_body::Body<Data = Bytes>,
) -> Result<Answer, Problem> {
    let query = parts.uri.query().unwrap_or_default();
    let given = [("jobId", ticket)];
    let body = parameters(parts, body).await?;
    // What waits for a commit is made of it, and as large.
    let _place = body.clone();
    Ok(match call {
        Call::Start => {
            let mut request = parsed(body, json::start).await?;
            add_key(&parts.headers, &mut request.request_id)?;
            let started = api.start(request, trace(&parts.headers)).await?;
            self::ticket(&started)
        }
        Call::StartBatch => {
            let request = parsed(body, json::batch).await?;
            if parts.headers.contains_key(IDEMPOTENCY_KEY) {
                let detail = "a batch has no idempotency-key; each of its requests may have a requestId";
                return Err(Problem::new(StatusCode::BAD_REQUEST, "INVALID_REQUEST", detail));
            }
            let started = api.start_batch(request, trace(&parts.headers)).await?;
            let jobs = api::aside(started.len() > JOBS_INLINE_MAX, move || {
                started.iter().map(|started| raw::job(&started.snapshot)).collect()
            });
            shown(StatusCode::OK, &Jobs { jobs: jobs.await?, next_page_token: String::new() })
        }
        Call::Status => {
            let snapshot = api.status(json::from_query::<GetStatusRequest>(query, &given)?).await?;
            shown(StatusCode::OK, &api::show(snapshot, raw::job).await?)
        }
        Call::Watch => events::watch(api, json::from_query(query, &given)?, &parts.headers).await?,
        Call::WatchAll => events::watch_all(api, json::from_query(query, &[])?)?,
        Call::List => {
            let show = |snapshot: &_| {
                let job = raw::job(snapshot);
                let bytes = job.get().len();
                (job, bytes)
            };
            let page = api.list(json::from_query(query, &[])?).await?;
            let (jobs, next_page_token) = page.show(show).await?;
            shown(StatusCode::OK, &Jobs { jobs, next_page_token })
        }
        Call::Count => {
            let Counts { counts, truncated } = api.count(json::from_query(query, &[])?).await?;
            let counts = counts.iter().map(reply::count).collect();
            shown(StatusCode::OK, &proto::CountJobsResponse { counts, truncated })
        }
        Call::History => {
            let page = api.history(json::from_query(query, &given)?).await?;
            let events = api::aside(page.events.len() > JOBS_INLINE_MAX, move || Events::new(&page));
            shown(StatusCode::OK, &events.await?)
        }
        Call::Cancel => {
            let snapshot = api.cancel(parsed(body, json::from_body_about(ticket)).await?).await?;
            shown(StatusCode::OK, &raw::job(&snapshot))
        }
        Call::Retry => {
            let mut request: proto::RetryJobRequest = parsed(body, json::from_body_about(ticket)).await?;
            add_key(&parts.headers, &mut request.request_id)?;
            self::ticket(&api.retry(request, trace(&parts.headers)).await?)
        }
        Call::Delete => {
            api.delete(json::from_query::<DeleteJobRequest>(query, &given)?).await?;
            let mut answer = Response::new(full(Bytes::new()));
            *answer.status_mut() = StatusCode::NO_CONTENT;
            answer
        }
    })
}

/// The body of a call, which has its parameters either there or in the query of its address.
pub(super) async fn parameters(
    parts: &Parts,
    body: impl http_body::Body<Data = Bytes>,
) -> Result<Bytes, Problem> {
    let body = read(&parts.headers, body, body::JSON).await?;
    if parts.method != http::Method::POST && !body.is_empty() {
        let detail = "this call takes its parameters from the address; it has no body";
        return Err(Problem::new(StatusCode::BAD_REQUEST, "MALFORMED_REQUEST", detail));
    }
    if parts.method == http::Method::POST && parts.uri.query().is_some_and(|query| !query.is_empty()) {
        let detail = "this call takes its parameters from the body; its address has no query";
        return Err(Problem::new(StatusCode::BAD_REQUEST, "MALFORMED_REQUEST", detail));
    }
    Ok(body)
}

/// Jobs, and where their list goes on.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Jobs {
    jobs: Vec<Box<RawValue>>,
    #[serde(skip_serializing_if = "String::is_empty")]
    next_page_token: String,
}

/// A page of a history.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Events {
    events: Vec<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_after_sequence: Option<String>,
}

impl Events {
    fn new(page: &EventsPage) -> Self {
        Self {
            events: page.events.iter().map(|event| raw::event(page.job, event)).collect(),
            next_after_sequence: page.next_after.map(|after| after.to_string()),
        }
    }
}

/// Reads a body as JSON: on a thread that nobody else waits for, where it is large.
pub(super) async fn parsed<T: Send + 'static>(
    body: Bytes,
    parse: impl FnOnce(&[u8]) -> Result<T, Status> + Send + 'static,
) -> Result<T, Status> {
    api::aside(body.len() > JSON_INLINE_MAX, move || parse(&body)).await?
}

/// The header and the field are one thing.
pub(super) fn add_key(headers: &HeaderMap, request_id: &mut String) -> Result<(), Problem> {
    let mut keys = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(key) = keys.next() else { return Ok(()) };
    let text = key.to_str().unwrap_or_default();
    // The draft wants quotes; few who send one know that.
    let text = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    if text.is_empty() || keys.next().is_some() || !request_id.is_empty() && *request_id != text {
        let detail = "the idempotency-key is not one text, or not the requestId of the body";
        return Err(Problem::new(StatusCode::BAD_REQUEST, "INVALID_REQUEST", detail));
    }
    text.clone_into(request_id);
    Ok(())
}

/// The ticket of a job that was started, now or before.
fn ticket(started: &Started) -> Answer {
    let location = format!("/v1/jobs/{}", started.snapshot.job.id);
    issued(started, location, &raw::job(&started.snapshot))
}

/// What a start is answered: the job lies at `location`, newly or since a request before.
pub(super) fn issued(started: &Started, location: String, shown: &impl Serialize) -> Answer {
    let status = if started.repeated { StatusCode::OK } else { StatusCode::CREATED };
    let mut answer = self::shown(status, shown);
    let headers = answer.headers_mut();
    headers.insert(LOCATION, HeaderValue::try_from(location).expect("a ticket is plain text"));
    if started.repeated {
        headers.insert(REPEATED, HeaderValue::from_static("true"));
    }
    answer
}

/// A JSON text with this status.
pub(super) fn shown(status: StatusCode, value: &impl Serialize) -> Answer {
    let mut answer = Response::new(json_body(value));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, JSON);
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}
