//! Amends errors on their way out: each has a `google.rpc.ErrorInfo`, and tonic's odd codes become the usual
//! ones.
//!
//! An error that has details already is left as it is, and so is every success: of its body only the trailers
//! are looked at. The reason of each error is told on, so that it can be counted.

use crate::wire::refusals::Refusals;
use crate::wire::status::{DOMAIN, ENCODING_UNKNOWN, MESSAGE_TOO_LARGE, reason};
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Frame, SizeHint};
use hyper::service::Service;
use pin_project_lite::pin_project;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// What tonic calls INTERNAL although the request is at fault, by the beginning of its message.
const MALFORMED: [&str; 5] = [
    "failed to decode Protobuf message",
    "protocol error: received message",
    "Error decompressing",
    "Unexpected EOF decoding stream",
    "Missing request message",
];

/// What `tonic-web` begins its messages with.
const WEB: &str = "tonic-web: ";

fn amend(headers: &mut HeaderMap, refusals: &Refusals) {
    if headers.get(Status::GRPC_STATUS).is_none_or(|code| code == "0") {
        return;
    }
    let Some(status) = Status::from_header_map(headers) else { return };
    if headers.contains_key(Status::GRPC_STATUS_DETAILS) {
        let info = status.get_details_error_info();
        refusals.tell(info.as_ref().map_or(reason(status.code()), |info| &info.reason));
        return;
    }
    let (code, reason, message) = translate(status.code(), status.message());
    refusals.tell(reason);
    let details = ErrorDetails::with_error_info(reason, DOMAIN, [] as [(String, String); 0]);
    let amended = Status::with_error_details(code, message, details);
    amended.add_header(headers).expect("a message that came from headers fits into headers");
}

fn translate(code: Code, message: &str) -> (Code, &'static str, &str) {
    let begins = |beginning: &&str| message.starts_with(*beginning);
    match code {
        Code::OutOfRange if message.contains("message length too large") => {
            (Code::ResourceExhausted, MESSAGE_TOO_LARGE, message)
        }
        Code::ResourceExhausted if message.contains("decompressing") => (code, MESSAGE_TOO_LARGE, message),
        Code::Internal if MALFORMED.iter().any(begins) => {
            (Code::InvalidArgument, reason(Code::InvalidArgument), message)
        }
        // What is said of a body that is not the base64 it should be; only then it fails there.
        Code::Internal if message.starts_with(WEB) => {
            (Code::InvalidArgument, reason(Code::InvalidArgument), &message[WEB.len()..])
        }
        Code::Unimplemented if message.starts_with("Content is compressed") => {
            (code, ENCODING_UNKNOWN, message)
        }
        Code::Unimplemented if message.is_empty() => (code, reason(code), "this server has no such method"),
        _ => (code, reason(code), message),
    }
}

/// Runs the inner service and amends its errors.
pub(super) struct Amend<S>(pub(super) S, pub(super) Refusals);

impl<S, R, B> Service<Request<R>> for Amend<S>
where
    S: Service<Request<R>, Response = Response<B>>,
{
    type Response = Response<Body<B>>;
    type Error = S::Error;
    type Future = Answer<S::Future>;

    fn call(&self, request: Request<R>) -> Self::Future {
        Answer { inner: self.0.call(request), refusals: self.1.clone() }
    }
}

pin_project! {
    /// The answer to come.
    pub(super) struct Answer<F> {
        #[pin]
        inner: F,
        refusals: Refusals,
    }
}

impl<F, B, E> Future for Answer<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<Body<B>>, E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut response = ready!(this.inner.poll(context))?;
        amend(response.headers_mut(), this.refusals);
        let refusals = std::mem::take(this.refusals);
        Poll::Ready(Ok(response.map(|inner| Body { inner, refusals })))
    }
}

pin_project! {
    /// The inner body, with its trailers amended.
    pub(super) struct Body<B> {
        #[pin]
        inner: B,
        refusals: Refusals,
    }
}

impl<B: http_body::Body<Data = Bytes>> http_body::Body for Body<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.project();
        let mut polled = this.inner.poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &mut polled
            && let Some(trailers) = frame.trailers_mut()
        {
            amend(trailers, this.refusals);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::status::REASONS;
    use parking_lot::Mutex;
    use std::sync::Arc;

    fn amended(status: Status) -> Status {
        told(status).0
    }

    /// The status as it leaves, and the reasons that are counted.
    fn told(status: Status) -> (Status, Vec<String>) {
        let reasons = Arc::new(Mutex::new(Vec::new()));
        let refusals = {
            let reasons = Arc::clone(&reasons);
            Refusals::to(move |reason| reasons.lock().push(reason.to_owned()))
        };
        let mut headers = super::super::trailers(&status);
        amend(&mut headers, &refusals);
        let reasons = reasons.lock().clone();
        (Status::from_header_map(&headers).unwrap(), reasons)
    }

    #[test]
    fn an_error_without_details_is_given_the_reason_of_its_code() {
        let status = amended(Status::unavailable("the store is being reopened, 50 % done"));

        let info = status.get_details_error_info().unwrap();
        assert_eq!((info.domain.as_str(), info.reason.as_str()), (DOMAIN, "UNAVAILABLE"));
        assert_eq!(status.message(), "the store is being reopened, 50 % done");
    }

    #[test]
    fn what_tonic_says_oddly_is_said_as_usual() {
        let cases = [
            (
                Status::out_of_range("Error, decoded message length too large: found 9 bytes"),
                Code::ResourceExhausted,
                "MESSAGE_TOO_LARGE",
            ),
            (Status::out_of_range("the job is at 7"), Code::OutOfRange, "OUT_OF_RANGE"),
            (
                Status::internal("failed to decode Protobuf message: invalid tag"),
                Code::InvalidArgument,
                "MALFORMED_REQUEST",
            ),
            (
                Status::internal("tonic-web: malformed base64 request"),
                Code::InvalidArgument,
                "MALFORMED_REQUEST",
            ),
            (Status::internal("a bug"), Code::Internal, "INTERNAL"),
            (Status::unimplemented(""), Code::Unimplemented, "METHOD_UNKNOWN"),
        ];
        for (given, code, reason) in cases {
            let status = amended(given);

            assert!(REASONS.contains(&reason), "{reason}");
            assert_eq!(status.code(), code);
            assert_eq!(status.get_details_error_info().unwrap().reason, reason);
            assert!(!status.message().is_empty());
        }
    }

    #[test]
    fn the_reason_of_each_error_is_told_on_as_it_leaves() {
        let details = ErrorDetails::with_error_info("QUEUE_FULL", DOMAIN, [] as [(String, String); 0]);
        let detailed = Status::with_error_details(Code::ResourceExhausted, "full", details);
        let strange = Status::with_details(Code::NotFound, "not one of ours", "?".into());

        assert_eq!(told(detailed).1, ["QUEUE_FULL"]);
        assert_eq!(told(Status::unimplemented("")).1, ["METHOD_UNKNOWN"]);
        assert_eq!(told(strange).1, ["NOT_FOUND"]);
        assert!(told(Status::ok("")).1.is_empty());
    }

    #[test]
    fn an_error_with_details_and_a_success_are_left_alone() {
        let details =
            ErrorDetails::with_error_info("QUEUE_FULL", DOMAIN, [("limit".to_owned(), "10".to_owned())]);
        let detailed = Status::with_error_details(Code::ResourceExhausted, "full", details);

        assert_eq!(amended(detailed).get_details_error_info().unwrap().reason, "QUEUE_FULL");
        assert!(amended(Status::ok("")).details().is_empty());
    }
}
