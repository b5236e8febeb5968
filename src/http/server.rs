//! What is to be known of the server itself: whether it is there, whether it takes work, and how to talk to it.

use super::Http;
use super::body::{Answer, full};
use super::openapi::DOCUMENT;
use super::problem::Problem;
use crate::metrics::CONTENT_TYPE as METRICS;
use crate::wire::status;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Method, Response};

/// The methods of all of them.
const ALLOW: &str = "GET, HEAD";

/// An address of the server's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Own {
    /// `/healthz`: the process answers, and its inner parts are there.
    Alive,
    /// `/readyz`: what is written, or was a moment ago, becomes durable, and the server is not about to stop.
    Ready,
    /// `/openapi.json`: the JSON API as a document.
    Document,
    /// `/metrics`: what it does, in figures.
    Metrics,
}

/// The one that a path names.
pub fn find(method: &Method, path: &str) -> Option<Result<Own, Problem>> {
    let own = match path {
        "/healthz" => Own::Alive,
        "/readyz" => Own::Ready,
        "/openapi.json" => Own::Document,
        "/metrics" => Own::Metrics,
        _ => return None,
    };
    let asked = matches!(*method, Method::GET | Method::HEAD);
    Some(if asked { Ok(own) } else { Err(Problem::method(ALLOW.to_owned())) })
}

/// Answers one of them.
pub async fn answer(http: &Http, own: Own) -> Result<Answer, Problem> {
    let (body, content_type) = match own {
        Own::Alive => {
            http.api.alive()?;
            (full("alive\n"), "text/plain; charset=utf-8")
        }
        Own::Ready => {
            http.api.ready().await?;
            (full("ready\n"), "text/plain; charset=utf-8")
        }
        Own::Document => (full(DOCUMENT.clone()), "application/json"),
        Own::Metrics => {
            let text = http.scrapes.text().await.map_err(|error| status::status(&error))?;
            (full(text), METRICS)
        }
    };
    let mut answer = Response::new(body);
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    Ok(answer)
}
