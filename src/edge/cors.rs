//! Lets pages of allowed origins read answers, as browsers ask for it (the Fetch standard, "CORS protocol").
//!
//! Not tower-http's layer: it answers a foreign page's question with 200, and the check of who asks is ours anyway.

use super::refusal::NOSNIFF;
use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, CONTENT_TYPE,
    HeaderValue, ORIGIN, VARY, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::Full;

const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, DELETE");
/// What gRPC-Web, the JSON API and server-sent events send beyond what any page may.
const SENT: HeaderValue = HeaderValue::from_static(
    "content-type, x-grpc-web, x-user-agent, grpc-timeout, idempotency-key, last-event-id, traceparent, tracestate",
);
/// What they tell in headers.
const TOLD: HeaderValue =
    HeaderValue::from_static("grpc-status, grpc-message, grpc-status-details-bin, location, retry-after");
/// How many seconds a browser need not ask again: two hours, more than which none remembers.
const MAX_AGE: HeaderValue = HeaderValue::from_static("7200");
const BY_ORIGIN: HeaderValue = HeaderValue::from_static("origin");

/// Whether a browser asks what a page may send.
pub(super) fn is_preflight<R>(request: &Request<R>) -> bool {
    let headers = request.headers();
    request.method() == Method::OPTIONS
        && headers.contains_key(ORIGIN)
        && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// The answer for an allowed origin.
pub(super) fn preflight(origin: HeaderValue) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, SENT);
    headers.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE);
    headers.insert(VARY, BY_ORIGIN);
    headers.insert(X_CONTENT_TYPE_OPTIONS, NOSNIFF);
    response
}

/// What a browser is told with an answer, unless it is gRPC's, which none reads: where pages of other origins may call,
/// that it is for this one.
pub(super) fn amend(headers: &mut HeaderMap, origin: Option<HeaderValue>, vary: bool) {
    if headers.get(CONTENT_TYPE).is_some_and(|content_type| content_type == "application/grpc") {
        return;
    }
    headers.insert(X_CONTENT_TYPE_OPTIONS, NOSNIFF);
    if vary {
        headers.append(VARY, BY_ORIGIN);
    }
    if let Some(origin) = origin {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, TOLD);
    }
}
