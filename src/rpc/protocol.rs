//! Tells gRPC from all else that comes to the port, and refuses what is neither well-formed gRPC nor anything else.
//!
//! A web page can send a `POST` to any server without asking first, but not with the content-type of gRPC.

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode, Version};
use http_body_util::{Either, Full};
use hyper::service::Service;
use pin_project_lite::pin_project;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

/// Passes gRPC to `calls`, and what is of another kind to `beside`.
pub(super) struct Protocol<G, H> {
    services: Arc<[&'static str]>,
    calls: G,
    beside: H,
}

/// What a request is.
#[derive(Debug)]
enum Kind {
    Grpc,
    /// It cannot be a call, but nothing else either.
    Refused(Response<Full<Bytes>>),
    Other,
}

impl<G, H> Protocol<G, H> {
    pub(super) fn new(services: Arc<[&'static str]>, calls: G, beside: H) -> Self {
        Self { services, calls, beside }
    }

    fn kind<R>(&self, request: &Request<R>) -> Kind {
        let grpc = is_grpc(request.headers().get(CONTENT_TYPE));
        let known = || {
            let service = super::router::service_of(request.uri().path());
            self.services.iter().any(|name| Some(*name) == service)
        };
        if !grpc && !known() {
            return Kind::Other;
        }
        if request.method() != Method::POST {
            let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "a gRPC call is a POST\n");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
            return Kind::Refused(response);
        }
        if !grpc {
            let text = "the content-type of a gRPC call is application/grpc or application/grpc+proto\n";
            return Kind::Refused(plain(StatusCode::UNSUPPORTED_MEDIA_TYPE, text));
        }
        // The status of a call is in its trailers, which HTTP/1.1 clients do not ask for.
        match request.version() {
            Version::HTTP_2 => Kind::Grpc,
            _ => Kind::Refused(plain(StatusCode::HTTP_VERSION_NOT_SUPPORTED, "gRPC needs HTTP/2\n")),
        }
    }
}

fn is_grpc(content_type: Option<&HeaderValue>) -> bool {
    content_type
        .and_then(|value| value.as_bytes().strip_prefix(b"application/grpc"))
        .is_some_and(|rest| matches!(rest, [] | [b'+', b'p', b'r', b'o', b't', b'o', ..] | [b';', ..]))
}

fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// What the answer of either service, or a refusal, has as its body.
pub(super) type Body<B, C> = Either<Full<Bytes>, Either<B, C>>;

impl<G, H, R, B, C> Service<Request<R>> for Protocol<G, H>
where
    G: Service<Request<R>, Response = Response<B>>,
    H: Service<Request<R>, Response = Response<C>, Error = G::Error>,
{
    type Response = Response<Body<B, C>>;
    type Error = G::Error;
    type Future = Answer<G::Future, H::Future>;

    fn call(&self, request: Request<R>) -> Self::Future {
        match self.kind(&request) {
            Kind::Grpc => Answer::Grpc { inner: self.calls.call(request) },
            Kind::Refused(refusal) => Answer::Refused { refusal: Some(refusal) },
            Kind::Other => Answer::Other { inner: self.beside.call(request) },
        }
    }
}

pin_project! {
    /// The answer to come, or the refusal.
    #[project = Projected]
    pub(super) enum Answer<F, H> {
        /// Of a call.
        Grpc { #[pin] inner: F },
        /// Of nobody.
        Refused { refusal: Option<Response<Full<Bytes>>> },
        /// Of whatever is beside gRPC.
        Other { #[pin] inner: H },
    }
}

impl<F, H, B, C, E> Future for Answer<F, H>
where
    F: Future<Output = Result<Response<B>, E>>,
    H: Future<Output = Result<Response<C>, E>>,
{
    type Output = Result<Response<Body<B, C>>, E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            Projected::Grpc { inner } => {
                let response = ready!(inner.poll(context))?;
                Poll::Ready(Ok(response.map(|body| Either::Right(Either::Left(body)))))
            }
            Projected::Other { inner } => {
                let response = ready!(inner.poll(context))?;
                Poll::Ready(Ok(response.map(|body| Either::Right(Either::Right(body)))))
            }
            Projected::Refused { refusal } => {
                let response = refusal.take().expect("a future is not polled after it was ready");
                Poll::Ready(Ok(response.map(Either::Left)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_is_known_by_its_content_type() {
        let is = |text| is_grpc(Some(&HeaderValue::from_static(text)));

        assert!(is("application/grpc") && is("application/grpc+proto") && is("application/grpc;charset=x"));
        assert!(!is("application/grpc-web+proto") && !is("application/grpc+json") && !is("text/plain"));
        assert!(!is_grpc(None));
    }

    #[test]
    fn each_refusal_has_its_own_status() {
        let protocol = Protocol::new(Arc::from(["a.B"]), (), ());
        let status = |method: &str, uri: &str, content_type: &str, version| {
            let request = Request::builder().method(method).uri(uri).version(version);
            let request = request.header(CONTENT_TYPE, content_type).body(()).unwrap();
            match protocol.kind(&request) {
                Kind::Grpc => Ok("grpc"),
                Kind::Other => Ok("other"),
                Kind::Refused(response) => Err(response.status().as_u16()),
            }
        };
        let (ours, http2) = ("http://localhost:3000/a.B/C", Version::HTTP_2);

        assert_eq!(status("POST", ours, "application/grpc", http2), Ok("grpc"));
        assert_eq!(status("POST", "http://localhost/x.Y/Z", "application/grpc", http2), Ok("grpc"));
        assert_eq!(status("GET", "http://localhost/", "text/html", http2), Ok("other"));
        assert_eq!(status("POST", "/v1/jobs", "application/json", Version::HTTP_11), Ok("other"));
        assert_eq!(status("GET", ours, "text/html", http2), Err(405));
        assert_eq!(status("GET", ours, "application/grpc", http2), Err(405));
        assert_eq!(status("POST", ours, "text/plain", http2), Err(415));
        assert_eq!(status("POST", ours, "application/grpc", Version::HTTP_11), Err(505));
    }
}
