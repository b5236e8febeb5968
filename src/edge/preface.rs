//! A connection that must send its first bytes in time.
//!
//! Neither hyper nor tonic ends a connection that never says what it speaks. Later silence is the business of
//! pings (HTTP/2) and of `idle` (HTTP/1.1), which is told here what has come.

use super::idle::Came;
use pin_project_lite::pin_project;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// The length of HTTP/2's preface, by which hyper tells the versions apart; no HTTP/1.1 request is shorter.
const PREFACE_BYTES: usize = 24;

pin_project! {
    /// Fails its reads once the time is over and fewer bytes than a preface have come.
    pub(super) struct Preface<T> {
        #[pin]
        inner: T,
        missing: usize,
        came: Came,
        timer: Option<Pin<Box<Sleep>>>,
    }
}

impl<T> Preface<T> {
    pub(super) fn new(inner: T, limit: Duration, came: Came) -> Self {
        Self { inner, missing: PREFACE_BYTES, came, timer: Some(Box::pin(tokio::time::sleep(limit))) }
    }
}

impl<T: AsyncRead> AsyncRead for Preface<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.project();
        let before = buffer.filled().len();
        let polled = this.inner.poll_read(context, buffer);
        let read = buffer.filled().len() - before;
        this.came.more(read);
        if let Some(timer) = this.timer {
            *this.missing = this.missing.saturating_sub(read);
            if *this.missing == 0 {
                *this.timer = None;
            } else if timer.as_mut().poll(context).is_ready() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
        polled
    }
}

impl<T: AsyncWrite> AsyncWrite for Preface<T> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.project().inner.poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.project().inner.poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().inner.poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().inner.poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const LIMIT: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn silence_and_half_a_preface_end_in_time() {
        for sent in [&b""[..], b"PRI * HTTP/2.0"] {
            let (mut client, server) = tokio::io::duplex(64);
            let mut server = Preface::new(server, LIMIT, Came::default());
            client.write_all(sent).await.unwrap();

            let error = server.read_exact(&mut [0; PREFACE_BYTES]).await.unwrap_err();

            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn after_the_preface_a_connection_may_be_silent() {
        let (mut client, server) = tokio::io::duplex(64);
        let mut server = Preface::new(server, LIMIT, Came::default());
        client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        server.read_exact(&mut [0; PREFACE_BYTES]).await.unwrap();

        let silence = tokio::time::timeout(LIMIT * 100, server.read_u8()).await;

        assert!(silence.is_err(), "the read is still pending");
    }
}
