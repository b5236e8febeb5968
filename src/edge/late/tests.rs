//! What is heard of a body before the answer, on a clock that waits for nobody.

use super::*;
use http::StatusCode;
use http_body_util::{Empty, StreamBody};
use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio_stream::{Stream, StreamExt};

type Piece = Result<Frame<Bytes>, Infallible>;

const PIECE: usize = 64 << 10;

/// A service that reads so many pieces of a body, and then answers.
async fn answer<R: Body<Data = Bytes> + Send + Unpin + 'static>(
    request: Request<R>,
    reads: usize,
) -> Response<Empty<Bytes>> {
    let service = Patient(hyper::service::service_fn(move |mut request: Request<Lent<R>>| async move {
        for _ in 0..reads {
            request.body_mut().frame().await;
        }
        let mut response = Response::new(Empty::new());
        *response.status_mut() = StatusCode::NOT_FOUND;
        Ok::<_, Infallible>(response)
    }));
    service.call(request).await.unwrap()
}

fn closes<B>(response: &Response<B>) -> bool {
    response.headers().get(CONNECTION).is_some_and(|value| value == "close")
}

/// A body of so many pieces, each after a pause, which counts those that were taken.
fn body(
    pieces: usize,
    pause: Duration,
) -> (impl Body<Data = Bytes, Error = Infallible> + Send + Unpin + 'static, Arc<AtomicUsize>) {
    let taken = Arc::<AtomicUsize>::default();
    let stream: Pin<Box<dyn Stream<Item = Piece> + Send>> = {
        let taken = Arc::clone(&taken);
        Box::pin(tokio_stream::iter(0..pieces).then(move |_| {
            let taken = Arc::clone(&taken);
            async move {
                tokio::time::sleep(pause).await;
                taken.fetch_add(1, Ordering::Relaxed);
                Ok(Frame::data(Bytes::from_static(&[0; PIECE])))
            }
        }))
    };
    (StreamBody::new(stream), taken)
}

#[tokio::test(start_paused = true)]
async fn a_body_is_heard_to_its_end_whoever_has_read_some_of_it() {
    for reads in [0, 1, 99, 100, 101] {
        let (body, taken) = body(100, Duration::from_millis(10));

        let response = answer(Request::new(body), reads).await;

        assert_eq!(response.status(), StatusCode::NOT_FOUND);
        assert!(!closes(&response), "{reads}");
        assert_eq!(taken.load(Ordering::Relaxed), 100, "{reads}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_too_long_or_too_slow_is_answered_all_the_same() {
    let most = HEARD_BYTES_MAX as usize / PIECE;
    for (pieces, pause, expected) in [
        (10_000, Duration::ZERO, most + 1),
        (10_000, PAUSE_MAX - Duration::from_millis(1), 5),
        (10_000, PAUSE_MAX + Duration::from_millis(1), 0),
    ] {
        for (version, ends) in [(Version::HTTP_11, true), (Version::HTTP_2, false)] {
            let (body, taken) = body(pieces, pause);
            let mut request = Request::new(body);
            *request.version_mut() = version;
            let began = Instant::now();

            let response = answer(request, 0).await;

            assert_eq!(closes(&response), ends, "{pause:?}");
            assert_eq!(taken.load(Ordering::Relaxed), expected, "{pause:?}");
            assert!(began.elapsed() <= TIME_MAX + Duration::from_millis(1), "on the paused clock");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_waits_to_be_asked_is_answered_without() {
    for (version, reads, expected) in
        [(Version::HTTP_11, 0, 0), (Version::HTTP_11, 1, 100), (Version::HTTP_2, 0, 0)]
    {
        let (body, taken) = body(100, Duration::ZERO);
        let request = Request::builder().version(version).header(EXPECT, "100-Continue").body(body).unwrap();

        let response = answer(request, reads).await;

        assert_eq!(closes(&response), version == Version::HTTP_11 && reads == 0);
        assert_eq!(taken.load(Ordering::Relaxed), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_without_a_body_is_answered_at_once() {
    let began = Instant::now();

    let response = answer(Request::new(Empty::<Bytes>::new()), 0).await;

    assert!(!closes(&response));
    assert_eq!(began.elapsed(), Duration::ZERO, "on the paused clock");
}
