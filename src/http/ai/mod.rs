//! The routes of the hackathon application that longhaul began as, so that its clients work unchanged.
//!
//! Other addresses, names and words for the same calls, and no behaviour of their own: `request` (what is asked) → `api` →
//! `shown` (the job in those words). A browser is sent on to the job's page.

mod describe;
mod request;
mod shown;

use self::shown::{Cancelled, Jobs, Started, Status};
pub use describe::paths;

use super::accept::prefers_page;
use super::body::Answer;
use super::jobs::{add_key, issued, parameters, parsed, shown};
use super::pages::{negotiated, sent_on};
use super::problem::Problem;
use super::routes::{Route, route};
use crate::api;
use crate::engine;
use crate::job::Snapshot;
use crate::proto::CancelJobRequest;
use crate::wire::trace::trace;
use bytes::Bytes;
use http::request::Parts;
use http::{Method, StatusCode};

/// What an address is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// Start a job.
    Start,
    /// A job as it is now.
    Status,
    /// A page of jobs, newest first.
    List,
    /// Ask that a job stop.
    Cancel,
}

/// What of a job is shown: what it was asked to do is not, and would take the bytes that a page has for results.
const SHOWN: engine::Parts = engine::Parts::RESULT;

/// All of them.
pub const ROUTES: &[Route<Call>] = &[
    route(Method::POST, "/ai/start", Call::Start, "AiStart"),
    route(Method::GET, "/ai/status/{jobId}", Call::Status, "AiStatus"),
    route(Method::GET, "/ai/jobs", Call::List, "AiJobs"),
    route(Method::POST, "/ai/cancel", Call::Cancel, "AiCancel"),
];

/// Answers one of the calls; what is started is of this kind.
pub async fn answer(
    api: &api::Jobs,
    kind: &str,
    call: Call,
    ticket: &str,
    parts: &Parts,
    body: impl http_body::Body<Data = Bytes>,
) -> Result<Answer, Problem> {
    let body = parameters(parts, body).await?;
    let _place = body.clone();
    match call {
        Call::Start => start(api, kind, parts, body).await,
        Call::List => list(api, parts.uri.query().unwrap_or_default()).await,
        Call::Cancel => cancel(api, body).await,
        Call::Status if prefers_page(&parts.headers) => {
            Ok(negotiated(&parts.headers, redirect(api, parts, ticket).await))
        }
        Call::Status => Ok(negotiated(&parts.headers, status(api, parts, ticket).await)),
    }
}

async fn start(api: &api::Jobs, kind: &str, parts: &Parts, body: Bytes) -> Result<Answer, Problem> {
    let most = api.terms(kind).input_bytes_max;
    let mut request = parsed(body, move |text| request::start(text, most)).await?;
    kind.clone_into(&mut request.kind);
    add_key(&parts.headers, &mut request.request_id)?;
    let started = api.start(request, trace(&parts.headers)).await?;
    let location = format!("/ai/status/{}", started.snapshot.job.id);
    Ok(issued(&started, location, &Started::new(&started)))
}

async fn status(api: &api::Jobs, parts: &Parts, ticket: &str) -> Result<Answer, Problem> {
    let snapshot = find(api, parts, ticket, SHOWN).await?;
    let now = api.now();
    let text = api::show(snapshot, move |snapshot| Status::new(snapshot, now).text()).await?;
    Ok(shown(StatusCode::OK, &text))
}

async fn list(api: &api::Jobs, query: &str) -> Result<Answer, Problem> {
    let page = api.list_parts(request::list(query)?, SHOWN).await?;
    let now = api.now();
    let show = move |snapshot: &_| {
        let text = Status::new(snapshot, now).text();
        let bytes = text.get().len();
        (text, bytes)
    };
    let (jobs, next_page_token) = page.show(show).await?;
    Ok(shown(StatusCode::OK, &Jobs { jobs, next_page_token }))
}

async fn cancel(api: &api::Jobs, body: Bytes) -> Result<Answer, Problem> {
    let job_id = request::cancel(&body)?;
    let snapshot = api.cancel(CancelJobRequest { job_id, ..Default::default() }).await?;
    Ok(shown(StatusCode::OK, &Cancelled::new(&snapshot)))
}

async fn redirect(api: &api::Jobs, parts: &Parts, ticket: &str) -> Result<Answer, Problem> {
    let snapshot = find(api, parts, ticket, engine::Parts::BASIC).await?;
    Ok(sent_on(format!("/jobs/{}", snapshot.job.id)))
}

/// The job that an address names, which has no query.
async fn find(
    api: &api::Jobs,
    parts: &Parts,
    ticket: &str,
    shown: engine::Parts,
) -> Result<Snapshot, Problem> {
    request::none(parts.uri.query().unwrap_or_default())?;
    Ok(api.parts(ticket, shown).await?)
}
