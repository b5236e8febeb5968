//! Pages for people: all jobs, and each of them, live where scripts run and true without.
//!
//! What they show and do is what the API shows and does: the server writes a page as things stand, its script (`assets`) follows
//! the same watches that every client has. `document` is the frame of all, `forms` what they send.

mod assets;
mod counts;
mod dashboard;
mod document;
mod forms;
mod job;
mod overview;
mod past;
mod rows;
mod search;
mod words;

pub use forms::Token;
pub use overview::Overviews;

use super::accept::prefers_page;
use super::body::{Answer, full};
use super::jobs::shown;
use super::json::{invalid, pairs};
use super::problem::Problem;
use super::routes::{Route, route};
use crate::api;
use crate::engine::Parts;
use crate::job::State;
use crate::proto::start_job_request::Payload;
use crate::proto::{CancelJobRequest, CountJobsRequest, DeleteJobRequest, RetryJobRequest, StartJobRequest};
use crate::wire::status;
use crate::wire::trace::trace;
use bytes::Bytes;
use forms::Form;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, LOCATION, VARY};
use http::request::Parts as Head;
use http::{HeaderMap, Method, Response, StatusCode};
use search::Asked;
use serde::Serialize;
use std::sync::Arc;

/// What an address is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// All jobs.
    Dashboard,
    /// What the script of that asks for now and then.
    Overview,
    /// A job.
    Job,
    /// What a form does.
    Form(Deed),
    /// A file of the pages.
    Asset,
}

/// What a form does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// Starts a job.
    Start,
    /// Asks that one stop.
    Cancel,
    /// Starts one again, as a new one.
    Retry,
    /// Forgets one.
    Delete,
}

/// All of them. What stands in the place of the ticket of a file is its name.
pub const ROUTES: &[Route<Call>] = &[
    route(Method::GET, "/", Call::Dashboard, "Dashboard"),
    route(Method::GET, "/overview", Call::Overview, "Overview"),
    route(Method::GET, "/jobs/{jobId}", Call::Job, "JobPage"),
    route(Method::POST, "/jobs", Call::Form(Deed::Start), "StartForm"),
    route(Method::POST, "/jobs/{jobId}/cancel", Call::Form(Deed::Cancel), "CancelForm"),
    route(Method::POST, "/jobs/{jobId}/retry", Call::Form(Deed::Retry), "RetryForm"),
    route(Method::POST, "/jobs/{jobId}/delete", Call::Form(Deed::Delete), "DeleteForm"),
    route(Method::GET, "/assets/{jobId}", Call::Asset, "Asset"),
];

/// Answers one of the calls about what the address names.
pub async fn answer(
    api: &api::Jobs,
    token: &Token,
    overviews: &Overviews,
    call: Call,
    name: &str,
    head: &Head,
    body: impl http_body::Body<Data = Bytes>,
) -> Result<Answer, Problem> {
    let page = match call {
        Call::Asset => {
            return assets::answer(name, head.uri.query(), &head.headers).ok_or_else(Problem::nothing);
        }
        Call::Overview => return overview(overviews, head).await,
        Call::Dashboard => dashboard(api, token, overviews, head).await,
        Call::Job => job(api, token, name, head).await,
        Call::Form(deed) => change(api, token, deed, name, head, body).await,
    };
    Ok(negotiated(&head.headers, page))
}

/// An answer that depends on who asks: to a browser, what went wrong is a page as well.
pub(super) fn negotiated(headers: &HeaderMap, told: Result<Answer, Problem>) -> Answer {
    let mut answer = told.unwrap_or_else(|problem| match prefers_page(headers) {
        true => document::problem(&problem),
        false => problem.into_answer(),
    });
    answer.headers_mut().insert(VARY, HeaderValue::from_static("accept"));
    answer
}

/// Sends a browser on.
pub(super) fn sent_on(location: String) -> Answer {
    let mut answer = Response::new(full(Bytes::new()));
    *answer.status_mut() = StatusCode::SEE_OTHER;
    let location = HeaderValue::try_from(location).expect("an address of ours is plain text");
    answer.headers_mut().insert(LOCATION, location);
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

async fn dashboard(
    api: &api::Jobs,
    token: &Token,
    overviews: &Overviews,
    head: &Head,
) -> Result<Answer, Problem> {
    let search = match search::parse(head.uri.query().unwrap_or_default())? {
        Asked::List(search) => search,
        Asked::Elsewhere(address) => return Ok(sent_on(address)),
    };
    let overview = overviews.get().await.map_err(|error| status::status(&error))?;
    let counts = api.count(CountJobsRequest::default()).await?;
    let page = api.list(search.request()).await?;
    let (known, now) = (Arc::clone(&overview), api.now());
    let (jobs, older) = page.show(move |snapshot| rows::row(snapshot, &known.workers.kinds, now)).await?;
    let blank = token.blank([api.chance(), api.chance()]);
    let counts = counts::Table::new(&counts, &overview.workers.kinds);
    let view = dashboard::View { search, jobs, older, overview, counts, now };
    Ok(api::aside(true, move || view.page(&blank)).await?)
}

async fn overview(overviews: &Overviews, head: &Head) -> Result<Answer, Problem> {
    if let Some(parameter) = pairs(head.uri.query().unwrap_or_default()).next() {
        return Err(invalid(&parameter?.0, "this address has no parameters").into());
    }
    let overview = overviews.get().await.map_err(|error| status::status(&error))?;
    let mut answer = Response::new(full(overview.text.clone()));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(super::body::JSON));
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(answer)
}

async fn job(api: &api::Jobs, token: &Token, ticket: &str, head: &Head) -> Result<Answer, Problem> {
    if let Some(parameter) = pairs(head.uri.query().unwrap_or_default()).next() {
        return Err(invalid(&parameter?.0, "this address has no parameters").into());
    }
    let snapshot = api.parts(ticket, Parts::FULL).await?;
    let past = past::past(api, &snapshot.job).await?;
    let is_served = snapshot.job.state != State::Pending || api.is_served(&snapshot.job.kind);
    let (blank, now) = (token.blank([api.chance(), api.chance()]), api.now());
    Ok(api::show(snapshot, move |snapshot| job::page(snapshot, &past, &blank, is_served, now)).await?)
}

/// What a form has changed, and where that is to be seen.
#[derive(Serialize)]
struct Changed {
    location: String,
}

async fn change(
    api: &api::Jobs,
    token: &Token,
    deed: Deed,
    ticket: &str,
    head: &Head,
    body: impl http_body::Body<Data = Bytes>,
) -> Result<Answer, Problem> {
    let fields: &[&str] = if deed == Deed::Start { &["kind", "input"] } else { &[] };
    let form = Form::read(&head.headers, body, token, fields).await?;
    let (job_id, request_id) = (ticket.to_owned(), form.request());
    let location = match deed {
        Deed::Start => {
            let payload = Some(form.get("input")).filter(|input| !input.trim().is_empty());
            let request = StartJobRequest {
                kind: form.get("kind").to_owned(),
                payload: payload.map(|input| Payload::InputJson(input.to_owned())),
                request_id,
                ..Default::default()
            };
            format!("/jobs/{}", api.start(request, trace(&head.headers)).await?.snapshot.job.id)
        }
        Deed::Retry => {
            let request = RetryJobRequest { job_id, request_id };
            format!("/jobs/{}", api.retry(request, trace(&head.headers)).await?.snapshot.job.id)
        }
        Deed::Cancel => {
            let request = CancelJobRequest { job_id, ..Default::default() };
            format!("/jobs/{}", api.cancel(request).await?.job.id)
        }
        Deed::Delete => {
            api.delete(DeleteJobRequest { job_id }).await?;
            "/".to_owned()
        }
    };
    if prefers_page(&head.headers) {
        return Ok(sent_on(location));
    }
    Ok(shown(StatusCode::OK, &Changed { location }))
}
