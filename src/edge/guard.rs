//! Lets in only what is meant for this server.

use super::cors;
use super::hosts::Hosts;
use super::late::Late;
use super::origin::{Origins, Source, is_safe};
use super::refusal::{Refused, refusal};
use super::target::target;
use bytes::Bytes;
use http::header::HeaderValue;
use http::{Request, Response, StatusCode};
use http_body_util::{Either, Full};
use hyper::body::Body;
use hyper::service::Service;
use pin_project_lite::pin_project;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// Refuses what must not reach the inner service, with a plain HTTP answer, and answers what browsers ask on their own.
pub(super) struct Guard<S> {
    hosts: Hosts,
    origins: Origins,
    refused: Refused,
    inner: S,
}

impl<S> Guard<S> {
    pub(super) fn new(hosts: Hosts, origins: Origins, refused: Refused, inner: S) -> Self {
        Self { hosts, origins, refused, inner }
    }

    fn judge<R>(&self, request: &Request<R>) -> Verdict {
        let target = match target(request) {
            Ok(target) => target,
            Err(sentence) => return Verdict::Refused(StatusCode::BAD_REQUEST, "TARGET_AMBIGUOUS", sentence),
        };
        if !self.hosts.allow(target.host()) {
            let sentence = "this server has no such name; the setting allowed_hosts can give it one";
            return Verdict::Refused(StatusCode::FORBIDDEN, "HOST_UNKNOWN", sentence);
        }
        match self.origins.source(request, &target) {
            Source::Allowed(origin) if cors::is_preflight(request) => Verdict::Preflight(origin),
            Source::Allowed(origin) => Verdict::Admitted(Some(origin)),
            Source::Own => Verdict::Admitted(None),
            Source::Foreign if is_safe(request.method()) && !cors::is_preflight(request) => {
                Verdict::Admitted(None)
            }
            Source::Foreign => {
                let sentence =
                    "a page of this origin may change nothing here; the setting allowed_origins can let it";
                Verdict::Refused(StatusCode::FORBIDDEN, "ORIGIN_FOREIGN", sentence)
            }
        }
    }
}

/// What becomes of a request.
enum Verdict {
    /// It is let in; the page of this other origin may read the answer.
    Admitted(Option<HeaderValue>),
    /// It only asks what a page of this origin may send.
    Preflight(HeaderValue),
    /// It is not let in, for this stable reason, and hears why in a sentence.
    Refused(StatusCode, &'static str, &'static str),
}

impl<S, R, B> Service<Request<R>> for Guard<S>
where
    S: Service<Request<R>, Response = Response<B>>,
    R: Body<Data = Bytes> + Send + Unpin + 'static,
{
    type Response = Response<Either<Full<Bytes>, B>>;
    type Error = S::Error;
    type Future = Answer<S::Future>;

    fn call(&self, request: Request<R>) -> Self::Future {
        let answer = match self.judge(&request) {
            Verdict::Admitted(origin) => {
                let vary = self.origins.vary();
                return Answer::Passed { inner: self.inner.call(request), origin, vary };
            }
            Verdict::Preflight(origin) => cors::preflight(origin),
            Verdict::Refused(status, reason, sentence) => {
                (self.refused)(reason);
                refusal(status, sentence)
            }
        };
        Answer::Own { answer: Late::to(request, answer) }
    }
}

pin_project! {
    /// The answer to come, or the guard's own.
    #[project = Projected]
    pub(super) enum Answer<F> {
        Passed { #[pin] inner: F, origin: Option<HeaderValue>, vary: bool },
        Own { answer: Late<Full<Bytes>> },
    }
}

impl<F, B, E> Future for Answer<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<Either<Full<Bytes>, B>>, E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            Projected::Passed { inner, origin, vary } => {
                let mut response = ready!(inner.poll(context))?;
                cors::amend(response.headers_mut(), origin.take(), *vary);
                Poll::Ready(Ok(response.map(Either::Right)))
            }
            Projected::Own { answer } => {
                let response = ready!(Pin::new(answer).poll(context));
                Poll::Ready(Ok(response.map(Either::Left)))
            }
        }
    }
}
