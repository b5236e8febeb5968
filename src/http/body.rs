//! Bodies: those of requests, which come in time and within their limit or not at all, and those of answers.

use super::problem::Problem;
use crate::api::MESSAGE_BYTES_MAX;
use crate::edge::room::Place;
use crate::wire::status;
use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, Response, StatusCode};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt, Either, Full, StreamBody};
use serde::Serialize;
use std::io;
use std::pin::Pin;
use std::time::Duration;
use tokio::time::Instant;

/// How long a body may pause: longer than a link loses packets.
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// How long a body may take in all: the largest one at a megabit a second.
const BODY_TIME_MAX: Duration = Duration::from_secs(40);

/// An answer whose body is there, or comes in pieces.
pub type Answer = Response<Body>;

/// The body of an answer.
pub type Body = Either<Full<Bytes>, StreamBody<Pieces>>;

/// What comes in pieces. An error breaks the answer off, so that nobody takes it for whole.
pub type Pieces = Pin<Box<dyn futures_core::Stream<Item = io::Result<Frame<Bytes>>> + Send>>;

/// A body that is there.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Either::Left(Full::new(bytes.into()))
}

/// A JSON text as a body.
pub fn json(value: &impl Serialize) -> Body {
    full(serde_json::to_vec(value).expect("what we send has a JSON form"))
}

/// A body that comes in pieces.
pub fn pieces(pieces: Pieces) -> Body {
    Either::Right(StreamBody::new(pieces))
}

/// An answer to a HEAD: what the body would be is said, and it is not there. Only over HTTP/1.1 would it be left out below.
pub fn without(answer: Answer) -> Answer {
    let (mut parts, body) = answer.into_parts();
    if let Some(length) = body.size_hint().exact().filter(|_| parts.status != StatusCode::NO_CONTENT) {
        parts.headers.insert(CONTENT_LENGTH, length.into());
    }
    Response::from_parts(parts, full(Bytes::new()))
}

/// The content-type of a call of the API: a web page of elsewhere cannot send it without being asked.
pub const JSON: &str = "application/json";
/// The content-type of a form.
pub const FORM: &str = "application/x-www-form-urlencoded";

/// The whole body of a request, which is of this type or empty. It has its place for as long as it lives.
pub async fn read(
    headers: &HeaderMap,
    body: impl http_body::Body<Data = Bytes>,
    essence: &str,
) -> Result<Bytes, Problem> {
    let too_large = || {
        let detail = format!("the body is too large; the limit is {} MiB", MESSAGE_BYTES_MAX >> 20);
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "MESSAGE_TOO_LARGE", detail)
    };
    let announced = body.size_hint().lower();
    if announced > 0 && !is_of(headers, essence) {
        return Err(other_type(essence));
    }
    if announced > MESSAGE_BYTES_MAX as u64 {
        return Err(too_large());
    }
    let (mut whole, mut body) = (Whole::default(), std::pin::pin!(body));
    let end = Instant::now() + BODY_TIME_MAX;
    while let Some(frame) = next_frame(&mut body, end).await? {
        let Some(data) = frame.data_ref().filter(|data| !data.is_empty()) else { continue };
        // An empty body of unknown length has no type.
        if !is_of(headers, essence) {
            return Err(other_type(essence));
        }
        if whole.bytes.len() + data.len() > MESSAGE_BYTES_MAX {
            return Err(too_large());
        }
        whole.extend(data)?;
    }
    Ok(if whole.bytes.is_empty() { Bytes::new() } else { Bytes::from_owner(whole) })
}

/// The next piece of a body, which has come before `end`, and without too long a pause.
async fn next_frame(
    body: &mut (impl http_body::Body<Data = Bytes> + Unpin),
    end: Instant,
) -> Result<Option<Frame<Bytes>>, Problem> {
    let until = end.min(Instant::now() + PAUSE_MAX);
    match tokio::time::timeout_at(until, body.frame()).await {
        Ok(frame) => frame.transpose().map_err(|_| {
            let detail = "the body does not come to its end";
            Problem::new(StatusCode::BAD_REQUEST, "MALFORMED_REQUEST", detail)
        }),
        Err(_) => {
            let detail = "the body did not come in time";
            Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "BODY_TIMEOUT", detail))
        }
    }
}

/// What has come of a body, in its place.
#[derive(Default)]
struct Whole {
    bytes: BytesMut,
    place: Place,
}

impl Whole {
    fn extend(&mut self, data: &[u8]) -> Result<(), Problem> {
        self.place.fit(self.bytes.len() + data.len()).map_err(|_| status::busy())?;
        self.bytes.extend_from_slice(data);
        Ok(())
    }
}

impl AsRef<[u8]> for Whole {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

fn other_type(essence: &str) -> Problem {
    let detail = format!("the content-type of a body is {essence}, and it is not compressed");
    Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "CONTENT_TYPE_UNKNOWN", detail)
}

/// Whether the body is of this type, and of no other.
fn is_of(headers: &HeaderMap, essence: &str) -> bool {
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let (Some(Ok(first)), None) = (types.next().map(|value| value.to_str()), types.next()) else {
        return false;
    };
    let first = first.split(';').next().unwrap_or_default().trim();
    first.eq_ignore_ascii_case(essence) && !headers.contains_key(CONTENT_ENCODING)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes of a body of so many pieces, each so long after the other.
    async fn heard(pieces: usize, pause: Duration) -> Result<Bytes, Problem> {
        let frames = futures_util::stream::unfold(pieces, move |left| async move {
            tokio::time::sleep(pause).await;
            (left > 0).then(|| (Ok::<_, io::Error>(Frame::data(Bytes::from_static(b" "))), left - 1))
        });
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
        read(&headers, StreamBody::new(Box::pin(frames)), JSON).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_comes_drop_by_drop_is_cut() {
        let pause = PAUSE_MAX - Duration::from_secs(1);

        assert_eq!(heard(3, pause).await.unwrap().len(), 3);
        let late = heard(4, pause).await.unwrap_err();

        assert_eq!((late.status, late.reason()), (StatusCode::REQUEST_TIMEOUT, "BODY_TIMEOUT"));
    }

    #[test]
    fn json_is_known_by_its_content_type() {
        let is = |types: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in types {
                headers.append(CONTENT_TYPE, http::HeaderValue::from_static(value));
            }
            is_of(&headers, JSON)
        };

        assert!(is(&["application/json"]) && is(&["Application/JSON; charset=utf-8"]));
        for bad in [&[][..], &["text/plain"], &["application/json+x"], &["application/json", "text/plain"]] {
            assert!(!is(bad), "{bad:?}");
        }
    }
}
