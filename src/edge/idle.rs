//! How long a connection of HTTP/1.1 may be silent between two requests, and how long the headers of one may take.
//!
//! hyper has one time for both, and lets us bring the clock; this one shortens the time once something has come. What came
//! together with the request before counts as silence.

use hyper::rt::{Sleep, Timer};
use pin_project_lite::pin_project;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Instant;

/// How many bytes have come over a connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Came(Arc<AtomicUsize>);

impl Came {
    pub(super) fn more(&self, bytes: usize) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }

    fn so_far(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// hyper's clock for the headers of one connection, which it asks to wake it as late as the next request may begin.
pub(super) struct Headers {
    came: Came,
    limit: Duration,
    first: AtomicBool,
}

impl Headers {
    /// Headers that have begun, and those of the first request, may take as long as `limit`.
    pub(super) fn new(came: Came, limit: Duration) -> Self {
        Self { came, limit, first: AtomicBool::new(true) }
    }
}

impl Timer for Headers {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(self.now() + duration)
    }

    fn sleep_until(&self, deadline: std::time::Instant) -> Pin<Box<dyn Sleep>> {
        Box::pin(Waiting {
            sleep: tokio::time::sleep_until(deadline.into()),
            came: self.came.clone(),
            // Who has just connected has begun.
            silent_at: (!self.first.swap(false, Ordering::Relaxed)).then(|| self.came.so_far()),
            begun: false,
            limit: self.limit,
        })
    }

    fn now(&self) -> std::time::Instant {
        Instant::now().into()
    }
}

pin_project! {
    /// Waits for the headers of a request.
    struct Waiting {
        #[pin]
        sleep: tokio::time::Sleep,
        came: Came,
        silent_at: Option<usize>,
        begun: bool,
        limit: Duration,
    }
}

impl Sleep for Waiting {}

impl Future for Waiting {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        if !*this.begun && *this.silent_at != Some(this.came.so_far()) {
            *this.begun = true;
            this.sleep.as_mut().reset(Instant::now() + *this.limit);
        }
        this.sleep.poll(context)
    }
}

#[cfg(test)]
mod tests {
    use super::super::calls::Calls;
    use super::super::listen::Options;
    use super::super::preface::Preface;
    use super::*;
    use bytes::Bytes;
    use http::Response;
    use http_body_util::{BodyExt, Full};
    use hyper::service::service_fn;
    use hyper_util::rt::TokioIo;
    use std::convert::Infallible;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    const REQUEST: &[u8] = b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\n\r\nx";

    /// A connection to a service that reads a request and answers it.
    fn connect() -> DuplexStream {
        let (client, server) = tokio::io::duplex(1 << 10);
        let (options, calls, came) = (Options::default(), Calls::default(), Came::default());
        let io = TokioIo::new(Preface::new(server, options.first_byte_timeout, came.clone()));
        let protocols = options.protocols(calls, came);
        tokio::spawn(async move {
            let service = service_fn(async |request: http::Request<hyper::body::Incoming>| {
                request.into_body().collect().await.unwrap();
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::new())))
            });
            let _ = protocols.serve_connection(io, service).await;
        });
        client
    }

    async fn exchange(client: &mut DuplexStream) {
        client.write_all(REQUEST).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(client.read_u8().await.unwrap());
        }
        assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", answer.escape_ascii());
    }

    /// How many seconds pass until the server ends the connection.
    async fn end(mut client: DuplexStream) -> u64 {
        let began = Instant::now();
        client.read_to_end(&mut Vec::new()).await.unwrap();
        began.elapsed().as_secs()
    }

    #[tokio::test(start_paused = true)]
    async fn between_requests_a_connection_may_be_silent_for_long() {
        let mut client = connect();

        for _ in 0..3 {
            exchange(&mut client).await;
            tokio::time::sleep(Duration::from_secs(74)).await;
        }
        exchange(&mut client).await;

        assert_eq!(end(client).await, 75);
    }

    #[tokio::test(start_paused = true)]
    async fn headers_that_have_begun_come_soon() {
        for silence in [0, 74] {
            let mut client = connect();
            exchange(&mut client).await;
            tokio::time::sleep(Duration::from_secs(silence)).await;
            client.write_all(&REQUEST[..30]).await.unwrap();

            assert_eq!(end(client).await, 10, "after {silence} s");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_is_new_says_at_once_what_it_wants() {
        for sent in [0, 10, 30] {
            let mut client = connect();
            client.write_all(&REQUEST[..sent]).await.unwrap();

            assert_eq!(end(client).await, 10, "{sent} bytes");
        }
    }
}
