//! Lets in only what is meant for this server.

use super::hosts::Hosts;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body_util::{Either, Full};
use hyper::service::Service;
use pin_project_lite::pin_project;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// Refuses what must not reach the inner service, with a plain HTTP answer.
pub(super) struct Guard<S> {
    hosts: Hosts,
    inner: S,
}

impl<S> Guard<S> {
    pub(super) fn new(hosts: Hosts, inner: S) -> Self {
        Self { hosts, inner }
    }

    fn refuse<R>(&self, request: &Request<R>) -> Option<Response<Full<Bytes>>> {
        (!self.hosts.allow_request(request)).then(|| {
            let text = "this server has no such name; the setting allowed_hosts can give it one\n";
            let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
            *response.status_mut() = StatusCode::FORBIDDEN;
            let plain = HeaderValue::from_static("text/plain; charset=utf-8");
            response.headers_mut().insert(CONTENT_TYPE, plain);
            response
        })
    }
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
