//! JSON, server-sent events and pages over plain HTTP, on either of its versions.
//!
//! `routes` (where an address leads) → `body` (a request's, within its limits) → `json` (a request of the contract) → `api` →
//! `jobs` or `events` (the answer). What goes wrong is a `problem`. `ai` has addresses and words of its own, `pages` is for people.

mod accept;
mod ai;
mod body;
mod events;
#[cfg(test)]
mod fake;
mod jobs;
mod json;
mod lasting;
mod openapi;
mod pages;
mod problem;
mod routes;
mod scrapes;
mod server;

pub use pages::{Overviews, Token};
pub use scrapes::Scrapes;

use crate::api;
use crate::wire::refusals::Refusals;
use body::Answer;
use bytes::Bytes;
use futures_util::FutureExt;
use http::{Method, Request, Response, StatusCode};
use http_body::Body;
use hyper::service::Service;
use problem::Problem;
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;

/// The service of everything that is not gRPC.
#[derive(Clone, Debug)]
pub struct Http {
    /// The calls.
    pub api: api::Jobs,
    /// The figures.
    pub scrapes: Scrapes,
    /// Each refusal is told.
    pub refusals: Refusals,
    /// The kind of the jobs that `/ai/start` starts.
    pub ai_kind: Arc<str>,
    /// By which forms of our own pages are known.
    pub token: Token,
    /// What pages show beside the jobs.
    pub overviews: Overviews,
}

impl Http {
    async fn answer(self, request: Request<impl Body<Data = Bytes>>) -> Answer {
        let refusals = self.refusals.clone();
        let is_head = request.method() == Method::HEAD;
        let answered = AssertUnwindSafe(self.find(request)).catch_unwind().await;
        let answered = answered.unwrap_or_else(|_| {
            // The panic's own text may quote an input, and inputs are never logged.
            tracing::error!("a request panicked and was answered 500");
            let detail = "the server failed at this request; the fault is its own";
            Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL", detail))
        });
        let answer = answered.unwrap_or_else(|problem| {
            refusals.tell(problem.reason());
            problem.into_answer()
        });
        if is_head { body::without(answer) } else { answer }
    }

    async fn find(self, request: Request<impl Body<Data = Bytes>>) -> Result<Answer, Problem> {
        let (parts, body) = request.into_parts();
        let (method, path) = (&parts.method, parts.uri.path());
        if let Some(own) = server::find(method, path) {
            return server::answer(&self, own?).await;
        }
        if let Some((call, ticket)) = routes::find(routes::ROUTES, method, path)? {
            return jobs::answer(&self.api, call, ticket, &parts, body).await;
        }
        if let Some((call, ticket)) = routes::find(ai::ROUTES, method, path)? {
            return ai::answer(&self.api, &self.ai_kind, call, ticket, &parts, body).await;
        }
        if let Some((call, name)) = routes::find(pages::ROUTES, method, path)? {
            let page = pages::answer(&self.api, &self.token, &self.overviews, call, name, &parts, body);
            // It takes more room than the calls of the API, which would all have to have it.
            return Box::pin(page).await;
        }
        Err(Problem::nothing())
    }
}

impl<R: Body<Data = Bytes> + Send + 'static> Service<Request<R>> for Http {
    type Response = Response<body::Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<R>) -> Self::Future {
        Box::pin(self.clone().answer(request).map(Ok))
    }
}
