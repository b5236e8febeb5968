//! What calls have sent over gRPC has a place in the room that all requests share, until they have been answered.
//!
//! tonic keeps a message until it is whole, however long that takes; so what needs room has its time too. A call of small
//! messages takes neither. Where an answer has begun, the request is a stream, of which messages are taken one by one.

use crate::edge::room::{FREE_BYTES, Place};
use crate::wire::status;
use bytes::Bytes;
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use hyper::service::Service;
use parking_lot::Mutex;
use pin_project_lite::pin_project;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::Sleep;
use tonic::Status;
use tonic::codegen::StdError;

/// How long a message may take once it needs room: the largest over 1 Mbit/s, as a call of gRPC-Web may.
const MESSAGE_TIME_MAX: Duration = Duration::from_secs(60);

/// The flag and the length that stand before each message.
const PREFIX_BYTES: usize = 5;

/// Counts what each call has sent.
pub(super) struct Counted<S>(pub(super) S);

impl<S, R, B> Service<Request<R>> for Counted<S>
where
    S: Service<Request<Sent<R>>, Response = Response<B>>,
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = Answer<S::Future>;

    fn call(&self, request: Request<R>) -> Self::Future {
        let place = Arc::new(Mutex::new(Place::default()));
        let request = request.map(|body| Sent {
            body,
            kept: 0,
            message: Message::default(),
            place: Arc::clone(&place),
            timer: None,
        });
        Answer { inner: self.0.call(request), place: Some(place) }
    }
}

pin_project! {
    /// The answer to come. Until then it keeps the place: what a call works on is a copy of what was sent.
    pub(super) struct Answer<F> {
        #[pin]
        inner: F,
        place: Option<Arc<Mutex<Place>>>,
    }
}

impl<F: Future> Future for Answer<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let answer = ready!(this.inner.poll(context));
        *this.place = None;
        Poll::Ready(answer)
    }
}

/// What a call sends.
pub struct Sent<R = Incoming> {
    body: R,
    /// How much of it somebody keeps.
    kept: usize,
    message: Message,
    place: Arc<Mutex<Place>>,
    /// For what needs room.
    timer: Option<Pin<Box<Sleep>>>,
}

impl<R> Sent<R> {
    /// Who asks for more of a stream has taken every message that was whole.
    fn give_back(&mut self) {
        // The call does not hold the place any more.
        if Arc::strong_count(&self.place) > 1 {
            return;
        }
        if self.kept > FREE_BYTES && self.kept > self.message.seen {
            // It is never larger than before.
            let _ = self.place.lock().fit(self.message.seen);
            self.timer = (self.message.seen > FREE_BYTES).then(timer);
        }
        self.kept = self.message.seen;
    }

    fn keep(&mut self, data: &[u8]) -> Result<(), Status> {
        self.message.pass(data);
        self.kept += data.len();
        if self.kept > FREE_BYTES {
            self.place.lock().fit(self.kept).map_err(|_| status::busy())?;
            self.timer.get_or_insert_with(timer);
        }
        Ok(())
    }
}

impl<R> http_body::Body for Sent<R>
where
    R: http_body::Body<Data = Bytes, Error: Into<StdError>> + Unpin,
{
    type Data = Bytes;
    type Error = StdError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StdError>>> {
        let this = &mut *self;
        this.give_back();
        let frame = match Pin::new(&mut this.body).poll_frame(context) {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                let Some(timer) = &mut this.timer else { return Poll::Pending };
                ready!(timer.as_mut().poll(context));
                return Poll::Ready(Some(Err(late().into())));
            }
        };
        Poll::Ready(frame.map(|frame| {
            let frame = frame.map_err(Into::into)?;
            if let Some(data) = frame.data_ref() {
                this.keep(data)?;
            }
            Ok(frame)
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The place of a message that came compressed, of which less was counted than there is now; for one that did not, none.
pub(super) fn unpacked<M: prost::Message>(request: &tonic::Request<M>) -> Result<Place, Status> {
    let mut place = Place::default();
    if request.metadata().contains_key("grpc-encoding") {
        place.fit(request.get_ref().encoded_len()).map_err(|_| status::busy())?;
    }
    Ok(place)
}

fn timer() -> Pin<Box<Sleep>> {
    Box::pin(tokio::time::sleep(MESSAGE_TIME_MAX))
}

fn late() -> Status {
    Status::deadline_exceeded(format!(
        "the request's message did not come within {} s",
        MESSAGE_TIME_MAX.as_secs()
    ))
}

/// How far the message that comes just now has come.
#[derive(Debug, Default)]
struct Message {
    /// None of a message that is whole.
    seen: usize,
    prefix: [u8; PREFIX_BYTES],
    /// How much of it is still to come, once its prefix is there.
    rest: usize,
}

impl Message {
    fn pass(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            let missing = PREFIX_BYTES.saturating_sub(self.seen);
            let more = data.len().min(if missing > 0 { missing } else { self.rest });
            if missing > 0 {
                self.prefix[self.seen..self.seen + more].copy_from_slice(&data[..more]);
            } else {
                self.rest -= more;
            }
            self.seen += more;
            data = &data[more..];
            if missing > 0 && more == missing {
                let [_, length @ ..] = self.prefix;
                self.rest = u32::from_be_bytes(length) as usize;
            }
            if self.seen >= PREFIX_BYTES && self.rest == 0 {
                self.seen = 0;
            }
        }
    }
}

#[cfg(test)]
mod tests;
