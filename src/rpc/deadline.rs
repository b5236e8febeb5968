//! Keeps the deadline that a client sets with `grpc-timeout`: for the answer, and for a stream to its end.
//!
//! tonic would answer CANCELLED, and only where the answer has not begun. A call without the header costs no
//! timer. A call that is dropped here may still take effect: what is being committed is finished elsewhere.

use super::trailers;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response};
use http_body::{Frame, SizeHint};
use hyper::service::Service;
use pin_project_lite::pin_project;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Sleep;
use tonic::Status;

const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// The protocol's own limit: at most eight digits.
const TIMEOUT_DIGITS_MAX: usize = 8;

/// Runs the inner service under the deadline of each request.
pub(super) struct Deadline<S>(pub(super) S);

impl<S, R, B> Service<Request<R>> for Deadline<S>
where
    S: Service<Request<R>, Response = Response<B>>,
{
    type Response = Response<Body<B>>;
    type Error = S::Error;
    type Future = Answer<S::Future>;

    fn call(&self, mut request: Request<R>) -> Self::Future {
        match request.headers_mut().remove(TIMEOUT).map(|value| parse(&value)) {
            None => Answer { inner: Some(self.0.call(request)), timer: None, malformed: false },
            Some(Some(timeout)) if !timeout.is_zero() => {
                let timer = Some(Box::pin(tokio::time::sleep(timeout)));
                Answer { inner: Some(self.0.call(request)), timer, malformed: false }
            }
            Some(refused) => Answer { inner: None, timer: None, malformed: refused.is_none() },
        }
    }
}

fn parse(value: &HeaderValue) -> Option<Duration> {
    let (unit, digits) = value.as_bytes().split_last()?;
    let well_formed =
        (1..=TIMEOUT_DIGITS_MAX).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
    let count: u64 = well_formed.then(|| std::str::from_utf8(digits).ok()?.parse().ok())??;
    match unit {
        b'H' => Some(Duration::from_secs(count * 3600)),
        b'M' => Some(Duration::from_secs(count * 60)),
        b'S' => Some(Duration::from_secs(count)),
        b'm' => Some(Duration::from_millis(count)),
        b'u' => Some(Duration::from_micros(count)),
        b'n' => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

fn expired() -> Status {
    Status::deadline_exceeded("the call's deadline has passed; it may or may not have taken effect")
}

fn malformed() -> Status {
    Status::invalid_argument("grpc-timeout is malformed; it is 1 to 8 digits and one of H, M, S, m, u, n")
}

pin_project! {
    /// The answer to come. Without its inner future the call was refused or has expired.
    pub(super) struct Answer<F> {
        #[pin]
        inner: Option<F>,
        timer: Option<Pin<Box<Sleep>>>,
        malformed: bool,
    }
}

impl<F, B, E> Future for Answer<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<Body<B>>, E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if let Some(inner) = this.inner.as_mut().as_pin_mut() {
            if let Poll::Ready(answer) = inner.poll(context) {
                let timer = this.timer.take();
                return Poll::Ready(answer.map(|r| r.map(|body| Body { inner: Some(body), timer })));
            }
            if this.timer.as_mut().is_none_or(|timer| timer.as_mut().poll(context).is_pending()) {
                return Poll::Pending;
            }
            this.inner.set(None);
        }
        let status = if *this.malformed { malformed() } else { expired() };
        Poll::Ready(Ok(status.into_http()))
    }
}

pin_project! {
    /// The inner body until the deadline, or nothing.
    pub(super) struct Body<B> {
        #[pin]
        inner: Option<B>,
        timer: Option<Pin<Box<Sleep>>>,
    }
}

impl<B> Default for Body<B> {
    fn default() -> Self {
        Self { inner: None, timer: None }
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
        // First the timer: a stream that always has something to send has a deadline too.
        if this.timer.as_mut().is_some_and(|timer| timer.as_mut().poll(context).is_ready()) {
            *this.timer = None;
            this.inner.set(None);
            return Poll::Ready(Some(Ok(Frame::trailers(trailers(&expired())))));
        }
        match this.inner.as_pin_mut() {
            Some(inner) => inner.poll_frame(context),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(B::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or(SizeHint::with_exact(0), B::size_hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::{BodyExt, StreamBody};
    use std::convert::Infallible;
    use tonic::Code;

    fn request(timeout: &'static str) -> Request<String> {
        Request::builder().header(TIMEOUT, timeout).body(String::new()).unwrap()
    }

    fn code(headers: &http::HeaderMap) -> Code {
        Status::from_header_map(headers).unwrap().code()
    }

    #[test]
    fn a_timeout_is_up_to_eight_digits_and_a_unit() {
        let parsed = |text| parse(&HeaderValue::from_static(text));

        assert_eq!(parsed("2H"), Some(Duration::from_secs(7200)));
        assert_eq!(parsed("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        assert_eq!(parsed("15m"), Some(Duration::from_millis(15)));
        assert_eq!(parsed("7n"), Some(Duration::from_nanos(7)));
        for text in ["", "S", "5", "5s", "+5S", "-1S", "1.5S", "123456789S", " 5S"] {
            assert_eq!(parsed(text), None, "{text:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_takes_too_long_ends_with_deadline_exceeded() {
        let service = Deadline(hyper::service::service_fn(|_: Request<String>| {
            std::future::pending::<Result<Response<http_body_util::Empty<Bytes>>, Infallible>>()
        }));

        for (timeout, expected) in
            [("20m", Code::DeadlineExceeded), ("0n", Code::DeadlineExceeded), ("soon", Code::InvalidArgument)]
        {
            let response = service.call(request(timeout)).await.unwrap();
            assert_eq!(code(response.headers()), expected, "{timeout}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_ends_with_deadline_exceeded_however_busy_it_is() {
        let service = Deadline(hyper::service::service_fn(|request: Request<String>| async move {
            assert!(!request.headers().contains_key(TIMEOUT));
            let data = || Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"more")));
            let frames = tokio_stream::iter(std::iter::repeat_with(data));
            Ok::<_, Infallible>(Response::new(StreamBody::new(frames)))
        }));

        let mut body = service.call(request("1S")).await.unwrap().into_body();
        assert!(body.frame().await.unwrap().unwrap().is_data());
        tokio::time::advance(Duration::from_secs(2)).await;
        let last = body.frame().await.unwrap().unwrap().into_trailers().unwrap();

        assert_eq!(code(&last), Code::DeadlineExceeded);
        assert!(body.frame().await.is_none());
    }
}
