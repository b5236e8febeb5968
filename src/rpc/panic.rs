//! Turns a panic into INTERNAL: of a handler, and of a stream while it is sent.
//!
//! A stream that breaks must never look like one that has ended. A producer in a task of its own is not seen
//! from here.

use super::trailers;
use bytes::Bytes;
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use hyper::service::Service;
use pin_project_lite::pin_project;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};
use tonic::Status;

/// Runs the inner service so that a panic ends one call only.
pub(super) struct CatchPanic<S>(pub(super) S);

impl<S, R, B> Service<Request<R>> for CatchPanic<S>
where
    S: Service<Request<R>, Response = Response<B>>,
{
    type Response = Response<Body<B>>;
    type Error = S::Error;
    type Future = Answer<S::Future>;

    fn call(&self, request: Request<R>) -> Self::Future {
        // What a panic leaves half done is dropped and never looked at again.
        Answer { inner: catch_unwind(AssertUnwindSafe(|| self.0.call(request))).ok() }
    }
}

pin_project! {
    /// The answer to come. Without its inner future it has panicked.
    pub(super) struct Answer<F> {
        #[pin]
        inner: Option<F>,
    }
}

impl<F, B, E> Future for Answer<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<Body<B>>, E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if let Some(inner) = this.inner.as_mut().as_pin_mut()
            && let Ok(polled) = catch_unwind(AssertUnwindSafe(|| inner.poll(context)))
        {
            return polled.map_ok(|response| response.map(|body| Body { inner: Some(body) }));
        }
        this.inner.set(None);
        Poll::Ready(Ok(panicked().into_http()))
    }
}

pin_project! {
    /// The inner body, or nothing where there is none or it has panicked.
    pub(super) struct Body<B> {
        #[pin]
        inner: Option<B>,
    }
}

impl<B> Default for Body<B> {
    fn default() -> Self {
        Self { inner: None }
    }
}

impl<B: http_body::Body<Data = Bytes>> http_body::Body for Body<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let mut this = self.project();
        let Some(inner) = this.inner.as_mut().as_pin_mut() else { return Poll::Ready(None) };
        catch_unwind(AssertUnwindSafe(|| inner.poll_frame(context))).unwrap_or_else(|_| {
            this.inner.set(None);
            Poll::Ready(Some(Ok(Frame::trailers(trailers(&panicked())))))
        })
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(B::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or(SizeHint::with_exact(0), B::size_hint)
    }
}

// The panic's own text may quote an input, and inputs are never logged.
fn panicked() -> Status {
    tracing::error!("a call panicked and was answered INTERNAL");
    Status::internal("the server failed at this call; the fault is its own")
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;
    use std::convert::Infallible;
    use tonic::Code;

    #[derive(Default)]
    struct Panics;

    impl http_body::Body for Panics {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            panic!("on purpose")
        }
    }

    fn code(headers: &http::HeaderMap) -> Code {
        Status::from_header_map(headers).unwrap().code()
    }

    #[tokio::test]
    async fn a_handler_that_panics_is_answered_internal() {
        let service = CatchPanic(hyper::service::service_fn(|_: Request<String>| async {
            if true {
                panic!("on purpose")
            }
            Ok::<_, Infallible>(Response::new(Panics))
        }));

        let response = service.call(Request::new(String::new())).await.unwrap();

        assert_eq!(code(response.headers()), Code::Internal);
        assert!(http_body::Body::is_end_stream(response.body()));
    }

    #[tokio::test]
    async fn a_stream_that_panics_ends_internal_and_only_once() {
        let service = CatchPanic(hyper::service::service_fn(|_: Request<String>| async {
            Ok::<_, Infallible>(Response::new(Panics))
        }));

        let mut body = service.call(Request::new(String::new())).await.unwrap().into_body();
        let last = body.frame().await.unwrap().unwrap().into_trailers().unwrap();

        assert_eq!(code(&last), Code::Internal);
        assert!(body.frame().await.is_none());
    }
}
