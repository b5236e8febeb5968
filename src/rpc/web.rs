//! gRPC-Web: what gRPC says in trailers is the end of the body, so that pages can read it, over either version of HTTP.
//!
//! `tonic-web` translates; here a request's body is read first. A call has one message, so it is not long, and one that
//! is too large is heard to its end: a client that still sends would miss the answer.

use crate::edge::room::{self, Place};
use crate::wire::status;
use bytes::{Bytes, BytesMut};
use http::{Request, Response};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::service::Service;
use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio_stream::once;
use tonic::Status;
use tonic::codegen::BoxFuture;
use tonic_web::GrpcWebLayer;
use tower::{Layer, Service as _};

/// How long a request's body may take: the largest over 1 Mbit/s. Who sends slower only wants to hold a connection.
const BODY_TIME_MAX: Duration = Duration::from_secs(60);

/// How much of a body is kept: the largest message in base64. The message's own length tells that it is too large.
const BODY_BYTES_MAX: usize = 6 << 20;

/// How much of a body is heard at all.
const HEARD_BYTES_MAX: usize = 64 << 20;

/// Calls gRPC on behalf of gRPC-Web.
pub(super) struct Web<S>(Arc<S>);

impl<S> Web<S> {
    pub(super) fn new(calls: S) -> Self {
        Self(Arc::new(calls))
    }
}

impl<S, R, B> Service<Request<R>> for Web<S>
where
    S: Service<Request<tonic::body::Body>, Response = Response<B>, Error = Infallible>,
    S: Send + Sync + 'static,
    S::Future: Send,
    R: Body<Data = Bytes> + Send + 'static,
    B: Body<Data = Bytes, Error = Status> + Send + 'static,
{
    type Response = Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn call(&self, request: Request<R>) -> Self::Future {
        let calls = Arc::clone(&self.0);
        Box::pin(async move {
            let (head, body) = request.into_parts();
            // Until the answer: what a call works on is a copy.
            let mut place = Place::default();
            let (body, mut broken) = match read(body, &mut place).await {
                Ok(bytes) => (bytes, None),
                Err(status) => (Bytes::new(), Some(status)),
            };
            let calls = tower::service_fn(move |request: Request<tonic::body::Body>| {
                calls.call(match broken.take() {
                    None => request,
                    Some(status) => request.map(|_| breaks(status)),
                })
            });
            let request = Request::from_parts(head, Full::new(body));
            GrpcWebLayer::new().layer(calls).call(request).await
        })
    }
}

/// A body that is an error from the start, so that the call fails with it like any other.
fn breaks(status: Status) -> tonic::body::Body {
    tonic::body::Body::new(StreamBody::new(once(Err::<Frame<Bytes>, _>(status))))
}

/// Reads a body to its end, and keeps what a call may have and there is room for.
async fn read<R: Body<Data = Bytes>>(body: R, place: &mut Place) -> Result<Bytes, Status> {
    let mut body = pin!(body);
    let (mut kept, mut heard) = (Ok(BytesMut::new()), 0);
    let reading = async {
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| Status::cancelled("the request's body ended before its time"))?;
            let Ok(data) = frame.into_data() else { continue };
            heard += data.len();
            if heard > HEARD_BYTES_MAX {
                break;
            }
            kept = kept.and_then(|kept| keep(kept, &data, place));
        }
        Ok(kept)
    };
    match tokio::time::timeout(BODY_TIME_MAX, reading).await {
        Ok(Ok(Ok(kept))) => Ok(kept.freeze()),
        Ok(Ok(Err(room::Full))) => Err(status::busy()),
        Ok(Err(status)) => Err(status),
        Err(_) => Err(Status::deadline_exceeded(format!(
            "the request's body did not come within {} s",
            BODY_TIME_MAX.as_secs()
        ))),
    }
}

fn keep(mut kept: BytesMut, data: &[u8], place: &mut Place) -> Result<BytesMut, room::Full> {
    let more = data.len().min(BODY_BYTES_MAX - kept.len());
    if place.fit(kept.len() + more).is_err() {
        // What it has is for others now.
        *place = Place::default();
        return Err(room::Full);
    }
    kept.extend_from_slice(&data[..more]);
    Ok(kept)
}
