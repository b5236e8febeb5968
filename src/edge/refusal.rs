//! What the edge answers itself: a status and a sentence. The only place where the body of a refusal is made.

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use http::{Response, StatusCode};
use http_body_util::Full;
use std::sync::Arc;

/// Is told the stable reason of each refusal.
pub(super) type Refused = Arc<dyn Fn(&'static str) + Send + Sync>;

/// That what is called text, or anything else, is never taken for a page.
pub(super) const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");

/// A refusal that says why.
pub(super) fn refusal(status: StatusCode, sentence: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(format!("{sentence}\n"))));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, NOSNIFF);
    // What has two meanings may be followed by more of it. HTTP/2 frames cannot, and hyper leaves the header out there.
    if status == StatusCode::BAD_REQUEST {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
