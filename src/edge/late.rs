//! Answers once a request's body has been heard, even where nobody reads it.
//!
//! A client that still sends loses an answer that comes too early: over HTTP/2 its stream is reset, and over HTTP/1.1 its
//! connection is closed. Only what waits for `100 Continue` sends nothing yet, and is answered at once.

use bytes::Bytes;
use http::header::{CONNECTION, EXPECT, HeaderValue};
use http::{Request, Response, Version};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, SizeHint};
use hyper::service::Service;
use parking_lot::Mutex;
use pin_project_lite::pin_project;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// How much of a body is heard that nobody reads: twice the largest that any door takes, which is what an honest client is
/// out by.
const HEARD_BYTES_MAX: u64 = 8 << 20;

/// How long such a body may pause: longer than most losses of packets, and what a client is held up by that waits for its
/// answer instead of sending.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// How long it may take in all: as long as a connection may be silent at first. All of it comes in time over 7 Mbit/s.
const TIME_MAX: Duration = Duration::from_secs(10);

/// Lends each request's body to the inner service, and holds its answer back until the rest of the body has been heard.
#[derive(Clone, Debug)]
pub struct Patient<S>(pub S);

impl<S, R, B> Service<Request<R>> for Patient<S>
where
    S: Service<Request<Lent<R>>, Response = Response<B>>,
    R: Body<Data = Bytes> + Send + Unpin + 'static,
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = Answer<S::Future, R, B>;

    fn call(&self, request: Request<R>) -> Self::Future {
        let manner = Manner::of(&request);
        // Without a body there is nothing to give back.
        let back = (!request.body().is_end_stream()).then(Back::default);
        let request = request.map(|body| Lent { body: Some(body), asked: false, back: back.clone() });
        Answer { inner: self.0.call(request), manner, back, late: None }
    }
}

pin_project! {
    /// The answer to come.
    pub struct Answer<F, R, B> {
        #[pin]
        inner: F,
        manner: Manner,
        back: Option<Back<R>>,
        late: Option<Late<B>>,
    }
}

impl<F, R, B, E> Future for Answer<F, R, B>
where
    F: Future<Output = Result<Response<B>, E>>,
    R: Body<Data = Bytes> + Send + Unpin + 'static,
{
    type Output = Result<Response<B>, E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if this.late.is_none() {
            let response = ready!(this.inner.poll(context))?;
            let Some((body, asked)) = this.back.take().and_then(|back| back.0.lock().take()) else {
                return Poll::Ready(Ok(response));
            };
            let waits = this.manner.waits && !asked;
            *this.late = Some(Late::new(Manner { waits, ..*this.manner }, body, response));
        }
        let late = this.late.as_mut().expect("it has just been made");
        Pin::new(late).poll(context).map(Ok)
    }
}

/// Where a body goes, and whether any of it was asked for, once its reader has let go of it before its end.
struct Back<R>(Arc<Mutex<Option<(R, bool)>>>);

impl<R> Default for Back<R> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<R> Clone for Back<R> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// A request's body, which goes back to the edge when its reader lets go of it.
pub struct Lent<R: Body> {
    /// Until its end.
    body: Option<R>,
    asked: bool,
    back: Option<Back<R>>,
}

impl<R: Body<Data = Bytes> + Unpin> Body for Lent<R> {
    type Data = Bytes;
    type Error = R::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, R::Error>>> {
        self.asked = true;
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(body).poll_frame(context));
        if !matches!(frame, Some(Ok(_))) {
            self.body = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(R::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or(SizeHint::with_exact(0), R::size_hint)
    }
}

impl<R: Body> Drop for Lent<R> {
    fn drop(&mut self) {
        if let (Some(body), Some(back)) = (self.body.take(), &self.back) {
            *back.0.lock() = Some((body, self.asked));
        }
    }
}

/// How the client of a request sends.
#[derive(Clone, Copy, Debug)]
struct Manner {
    /// One request after the other, so that what follows an answer must be known for what it is.
    in_turn: bool,
    /// Not before it was asked to.
    waits: bool,
}

impl Manner {
    fn of<R>(request: &Request<R>) -> Self {
        let expects = request.headers().get(EXPECT);
        Self {
            in_turn: request.version() < Version::HTTP_2,
            waits: expects.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue")),
        }
    }
}

/// An answer that is there, and waits until the request's body has been heard or has taken too long.
pub struct Late<B> {
    response: Option<Response<B>>,
    in_turn: bool,
    heard: bool,
    hearing: Option<Pin<Box<dyn Future<Output = bool> + Send>>>,
}

impl<B> Late<B> {
    /// Answers a request that nobody reads.
    pub fn to<R>(request: Request<R>, response: Response<B>) -> Self
    where
        R: Body<Data = Bytes> + Send + Unpin + 'static,
    {
        Self::new(Manner::of(&request), request.into_body(), response)
    }

    fn new<R>(manner: Manner, body: R, response: Response<B>) -> Self
    where
        R: Body<Data = Bytes> + Send + Unpin + 'static,
    {
        let heard = body.is_end_stream();
        let hopeless = manner.waits || body.size_hint().lower() > HEARD_BYTES_MAX;
        let hearing = (!heard && !hopeless).then(|| Box::pin(hear(body)) as Pin<Box<_>>);
        Self { response: Some(response), in_turn: manner.in_turn, heard, hearing }
    }
}

impl<B> Unpin for Late<B> {}

impl<B> Future for Late<B> {
    type Output = Response<B>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Response<B>> {
        if let Some(hearing) = &mut self.hearing {
            self.heard = ready!(hearing.as_mut().poll(context));
            self.hearing = None;
        }
        let mut response = self.response.take().expect("a future is not polled after it was ready");
        if !self.heard && self.in_turn {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Poll::Ready(response)
    }
}

/// Hears a body to its end; whether it came to it.
async fn hear<R: Body<Data = Bytes> + Unpin>(mut body: R) -> bool {
    let (mut heard, end) = (0, Instant::now() + TIME_MAX);
    loop {
        let until = end.min(Instant::now() + PAUSE_MAX);
        match timeout_at(until, body.frame()).await {
            Ok(Some(Ok(frame))) => heard += frame.data_ref().map_or(0, |data| data.len() as u64),
            Ok(None) => return true,
            Ok(Some(Err(_))) | Err(_) => return false,
        }
        if heard > HEARD_BYTES_MAX {
            return false;
        }
    }
}

#[cfg(test)]
mod tests;
