//! Lets in only what may be a gRPC call that was meant for this server.
//!
//! Without these checks any web page could start jobs on a visitor's own machine: by a form or a `fetch` that
//! needs no preflight, or by a name of its own that it lets point to 127.0.0.1. Requests that are not gRPC
//! end here; HTTP will branch off at the same place.

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, HOST, HeaderValue};
use http::uri::Authority;
use http::{Method, Request, Response, StatusCode, Version};
use http_body_util::{Either, Full};
use hyper::service::Service;
use pin_project_lite::pin_project;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

/// The names under which this server may be called.
pub(super) struct Hosts {
    names: Vec<String>,
    any_address: bool,
}

impl Hosts {
    /// Allows the loopback names, the address that is listened on, and those of the setting.
    pub(super) fn new(listen: IpAddr, allowed: &[String]) -> Self {
        let usual = ["127.0.0.1", "localhost", "[::1]"].map(str::to_owned);
        let listen = match listen {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("[{address}]"),
        };
        let any_address = ["0.0.0.0", "[::]"].contains(&listen.as_str());
        Self {
            names: usual.into_iter().chain([listen]).chain(allowed.iter().cloned()).collect(),
            any_address,
        }
    }

    fn allow(&self, host: &str) -> bool {
        self.names.iter().any(|name| name.eq_ignore_ascii_case(host))
            || host.trim_start_matches('[').trim_end_matches(']').parse().is_ok_and(|address: IpAddr| {
                // Listening on every address, each is ours; and only a name can be made to point here.
                address.is_loopback() || self.any_address
            })
    }
}

/// Refuses what must not reach a service, with a plain HTTP answer.
pub(super) struct Guard<S> {
    hosts: Hosts,
    services: Arc<[&'static str]>,
    inner: S,
}

impl<S> Guard<S> {
    pub(super) fn new(hosts: Hosts, services: Arc<[&'static str]>, inner: S) -> Self {
        Self { hosts, services, inner }
    }

    fn refuse<R>(&self, request: &Request<R>) -> Option<Response<Full<Bytes>>> {
        let allowed = match request.uri().authority() {
            Some(authority) => self.hosts.allow(authority.host()),
            None => host(request).is_some_and(|authority| self.hosts.allow(authority.host())),
        };
        if !allowed {
            let text = "this server has no such name; the setting allowed_hosts can give it one\n";
            return Some(plain(StatusCode::FORBIDDEN, text));
        }
        let grpc = is_grpc(request.headers().get(CONTENT_TYPE));
        let known = || {
            let service = super::router::service_of(request.uri().path());
            self.services.iter().any(|name| Some(*name) == service)
        };
        if !grpc && !known() {
            return Some(plain(
                StatusCode::NOT_FOUND,
                "there is nothing here; gRPC is spoken on this port\n",
            ));
        }
        if request.method() != Method::POST {
            let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "a gRPC call is a POST\n");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
            return Some(response);
        }
        if !grpc {
            let text = "the content-type of a gRPC call is application/grpc or application/grpc+proto\n";
            return Some(plain(StatusCode::UNSUPPORTED_MEDIA_TYPE, text));
        }
        // The status of a call is in its trailers, which HTTP/1.1 clients do not ask for.
        (request.version() != Version::HTTP_2)
            .then(|| plain(StatusCode::HTTP_VERSION_NOT_SUPPORTED, "gRPC needs HTTP/2\n"))
    }
}

fn host<R>(request: &Request<R>) -> Option<Authority> {
    Authority::try_from(request.headers().get(HOST)?.as_bytes()).ok()
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

impl<S, R, B> Service<Request<R>> for Guard<S>
where
    S: Service<Request<R>, Response = Response<B>>,
{
    type Response = Response<Either<Full<Bytes>, B>>;
    type Error = S::Error;
    type Future = Answer<S::Future>;

    fn call(&self, request: Request<R>) -> Self::Future {
        match self.refuse(&request) {
            None => Answer::Passed { inner: self.inner.call(request) },
            refused => Answer::Refused { refused },
        }
    }
}

pin_project! {
    /// The answer to come, or the refusal.
    #[project = Projected]
    pub(super) enum Answer<F> {
        Passed { #[pin] inner: F },
        Refused { refused: Option<Response<Full<Bytes>>> },
    }
}

impl<F, B, E> Future for Answer<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<Either<Full<Bytes>, B>>, E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            Projected::Passed { inner } => {
                let response = ready!(inner.poll(context))?;
                Poll::Ready(Ok(response.map(Either::Right)))
            }
            Projected::Refused { refused } => {
                let response = refused.take().expect("a future is not polled after it was ready");
                Poll::Ready(Ok(response.map(Either::Left)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_server_are_answered() {
        let hosts = Hosts::new("10.1.2.3".parse().unwrap(), &["jobs.example.org".into()]);

        for host in
            ["localhost", "LocalHost", "127.0.0.1", "127.8.8.8", "[::1]", "10.1.2.3", "Jobs.example.org"]
        {
            assert!(hosts.allow(host), "{host}");
        }
        for host in ["", "example.org", "localhost.example.org", "127.0.0.1.nip.io", "10.1.2.4", "[::2]"] {
            assert!(!hosts.allow(host), "{host}");
        }
    }

    #[test]
    fn a_server_on_every_address_answers_to_each_but_to_no_strange_name() {
        let hosts = Hosts::new("0.0.0.0".parse().unwrap(), &[]);

        assert!(hosts.allow("192.168.1.7"));
        assert!(hosts.allow("[2001:db8::1]"));
        assert!(!hosts.allow("evil.example"));
    }

    #[test]
    fn grpc_is_known_by_its_content_type() {
        let is = |text| is_grpc(Some(&HeaderValue::from_static(text)));

        assert!(is("application/grpc") && is("application/grpc+proto") && is("application/grpc;charset=x"));
        assert!(!is("application/grpc-web+proto") && !is("application/grpc+json") && !is("text/plain"));
        assert!(!is_grpc(None));
    }

    #[test]
    fn each_refusal_has_its_own_status() {
        let hosts = Hosts::new("127.0.0.1".parse().unwrap(), &[]);
        let guard = Guard::new(hosts, Arc::from(["a.B"]), ());
        let status = |method: &str, uri: &str, content_type: &str, version| {
            let request = Request::builder().method(method).uri(uri).version(version);
            let request = request.header(CONTENT_TYPE, content_type).body(()).unwrap();
            guard.refuse(&request).map(|response| response.status().as_u16())
        };
        let (ours, http2) = ("http://localhost:3000/a.B/C", Version::HTTP_2);

        assert_eq!(status("POST", ours, "application/grpc", http2), None);
        assert_eq!(status("POST", "http://localhost/x.Y/Z", "application/grpc", http2), None);
        assert_eq!(status("POST", "http://evil.example/a.B/C", "application/grpc", http2), Some(403));
        assert_eq!(status("POST", "/a.B/C", "application/grpc", http2), Some(403));
        assert_eq!(status("GET", "http://localhost/", "text/html", http2), Some(404));
        assert_eq!(status("GET", ours, "text/html", http2), Some(405));
        assert_eq!(status("GET", ours, "application/grpc", http2), Some(405));
        assert_eq!(status("POST", ours, "text/plain", http2), Some(415));
        assert_eq!(status("POST", ours, "application/grpc-web", http2), Some(415));
        assert_eq!(status("POST", ours, "application/grpc", Version::HTTP_11), Some(505));
    }
}
