//! Tells gRPC from all else that comes to the port, and refuses what is neither well-formed gRPC nor anything else.
//!
//! A web page can send a `POST` to any server without asking first, but not with a content-type of gRPC or gRPC-Web.

use crate::edge::Late;
use crate::wire::refusals::Refusals;
use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode, Version};
use http_body_util::{Either, Full};
use hyper::service::Service;
use pin_project_lite::pin_project;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

const CONTENT_TYPES: &str = "the content-type of a gRPC call is application/grpc or application/grpc+proto, and of gRPC-Web \
                             application/grpc-web or application/grpc-web-text, with or without +proto\n";

/// Passes gRPC to `calls`, gRPC-Web to `web`, and what is of another kind to `beside`.
pub(super) struct Protocol<G, W, H> {
    services: Arc<[&'static str]>,
    calls: G,
    web: W,
    beside: H,
    refusals: Refusals,
}

/// What a request is.
#[derive(Debug)]
enum Kind {
    Grpc,
    GrpcWeb,
    /// It cannot be a call, but nothing else either, for this stable reason.
    Refused(&'static str, Response<Full<Bytes>>),
    Other,
}

impl<G, W, H> Protocol<G, W, H> {
    pub(super) fn new(
        services: Arc<[&'static str]>,
        calls: G,
        web: W,
        beside: H,
        refusals: Refusals,
    ) -> Self {
        Self { services, calls, web, beside, refusals }
    }

    fn kind<R>(&self, request: &Request<R>) -> Kind {
        let content_type = request.headers().get(CONTENT_TYPE);
        let grpc = is_grpc(content_type);
        let web = !grpc && is_grpc_web(content_type);
        let known = || {
            let service = super::router::service_of(request.uri().path());
            self.services.iter().any(|name| Some(*name) == service)
        };
        if !grpc && !web && !known() {
            return Kind::Other;
        }
        if request.method() != Method::POST {
            let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "a gRPC call is a POST\n");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
            return Kind::Refused("METHOD_UNKNOWN", response);
        }
        if web {
            return Kind::GrpcWeb;
        }
        if !grpc {
            return Kind::Refused(
                "CONTENT_TYPE_UNKNOWN",
                plain(StatusCode::UNSUPPORTED_MEDIA_TYPE, CONTENT_TYPES),
            );
        }
        // The status of a call is in its trailers, which HTTP/1.1 clients do not ask for.
        match request.version() {
            Version::HTTP_2 => Kind::Grpc,
            _ => {
                let text = "gRPC needs HTTP/2; gRPC-Web does not\n";
                Kind::Refused("HTTP_VERSION_UNKNOWN", plain(StatusCode::HTTP_VERSION_NOT_SUPPORTED, text))
            }
        }
    }
}

fn is_grpc(content_type: Option<&HeaderValue>) -> bool {
    content_type
        .and_then(|value| value.as_bytes().strip_prefix(b"application/grpc"))
        .is_some_and(|rest| matches!(rest, [] | [b'+', b'p', b'r', b'o', b't', b'o', ..] | [b';', ..]))
}

/// Whether it is one of the types that `tonic-web` knows.
fn is_grpc_web(content_type: Option<&HeaderValue>) -> bool {
    content_type
        .and_then(|value| value.as_bytes().strip_prefix(b"application/grpc-web"))
        .is_some_and(|rest| matches!(rest, b"" | b"+proto" | b"-text" | b"-text+proto"))
}

fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// What the answer of a service, or a refusal, has as its body.
pub(super) type Body<B, V, C> = Either<B, Either<Either<Full<Bytes>, V>, C>>;

impl<G, W, H, R, B, V, C> Service<Request<R>> for Protocol<G, W, H>
where
    G: Service<Request<R>, Response = Response<B>>,
    W: Service<Request<R>, Response = Response<V>, Error = G::Error>,
    H: Service<Request<R>, Response = Response<C>, Error = G::Error>,
    R: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
{
    type Response = Response<Body<B, V, C>>;
    type Error = G::Error;
    type Future = Answer<G::Future, W::Future, H::Future>;

    fn call(&self, request: Request<R>) -> Self::Future {
        match self.kind(&request) {
            Kind::Grpc => Answer::Grpc { inner: self.calls.call(request) },
            Kind::GrpcWeb => Answer::GrpcWeb { inner: self.web.call(request) },
            Kind::Refused(reason, refusal) => {
                self.refusals.tell(reason);
                Answer::Refused { refusal: Late::to(request, refusal) }
            }
            Kind::Other => Answer::Other { inner: self.beside.call(request) },
        }
    }
}

pin_project! {
    /// The answer to come, or the refusal.
    #[project = Projected]
    pub(super) enum Answer<F, W, H> {
        /// Of a call.
        Grpc { #[pin] inner: F },
        /// Of a call by a page.
        GrpcWeb { #[pin] inner: W },
        /// Of nobody.
        Refused { refusal: Late<Full<Bytes>> },
        /// Of whatever is beside gRPC.
        Other { #[pin] inner: H },
    }
}

impl<F, W, H, B, V, C, E> Future for Answer<F, W, H>
where
    F: Future<Output = Result<Response<B>, E>>,
    W: Future<Output = Result<Response<V>, E>>,
    H: Future<Output = Result<Response<C>, E>>,
{
    type Output = Result<Response<Body<B, V, C>>, E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            Projected::Grpc { inner } => {
                let response = ready!(inner.poll(context))?;
                Poll::Ready(Ok(response.map(Either::Left)))
            }
            Projected::GrpcWeb { inner } => {
                let response = ready!(inner.poll(context))?;
                Poll::Ready(Ok(response.map(|body| Either::Right(Either::Left(Either::Right(body))))))
            }
            Projected::Other { inner } => {
                let response = ready!(inner.poll(context))?;
                Poll::Ready(Ok(response.map(|body| Either::Right(Either::Right(body)))))
            }
            Projected::Refused { refusal } => {
                let response = ready!(Pin::new(refusal).poll(context));
                Poll::Ready(Ok(response.map(|body| Either::Right(Either::Left(Either::Left(body))))))
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
    fn grpc_web_has_four_content_types() {
        let is = |text| is_grpc_web(Some(&HeaderValue::from_static(text)));

        assert!(is("application/grpc-web") && is("application/grpc-web+proto"));
        assert!(is("application/grpc-web-text") && is("application/grpc-web-text+proto"));
        assert!(
            !is("application/grpc-web+json") && !is("application/grpc-website") && !is("application/grpc")
        );
        assert!(!is_grpc_web(None));
    }

    #[test]
    fn each_refusal_has_its_own_status() {
        let protocol = Protocol::new(Arc::from(["a.B"]), (), (), (), Refusals::default());
        let status = |method: &str, uri: &str, content_type: &str, version| {
            let request = Request::builder().method(method).uri(uri).version(version);
            let request = request.header(CONTENT_TYPE, content_type).body(()).unwrap();
            match protocol.kind(&request) {
                Kind::Grpc => Ok("grpc"),
                Kind::GrpcWeb => Ok("web"),
                Kind::Other => Ok("other"),
                Kind::Refused(_, response) => Err(response.status().as_u16()),
            }
        };
        let (ours, http2) = ("http://localhost:3000/a.B/C", Version::HTTP_2);

        assert_eq!(status("POST", ours, "application/grpc", http2), Ok("grpc"));
        assert_eq!(status("POST", "http://localhost/x.Y/Z", "application/grpc", http2), Ok("grpc"));
        assert_eq!(status("GET", "http://localhost/", "text/html", http2), Ok("other"));
        assert_eq!(status("POST", "/v1/jobs", "application/json", Version::HTTP_11), Ok("other"));
        for version in [Version::HTTP_11, http2] {
            assert_eq!(status("POST", ours, "application/grpc-web+proto", version), Ok("web"));
            assert_eq!(status("POST", "/x.Y/Z", "application/grpc-web-text", version), Ok("web"));
            assert_eq!(status("GET", ours, "application/grpc-web", version), Err(405));
            assert_eq!(status("POST", ours, "application/grpc-web+json", version), Err(415));
        }
        assert_eq!(status("GET", ours, "text/html", http2), Err(405));
        assert_eq!(status("GET", ours, "application/grpc", http2), Err(405));
        assert_eq!(status("POST", ours, "text/plain", http2), Err(415));
        assert_eq!(status("POST", ours, "application/grpc", Version::HTTP_11), Err(505));
    }
}
