//! Accepts connections and serves HTTP/2 and HTTP/1.1 on each.
//!
//! Not tonic's own server: that one has no cap, waits forever for a first byte, and turns hyper's limits off.
//! Nothing that a connection does ends the loop or harms another connection.

use super::calls::Calls;
use super::idle::{Came, Headers};
use super::origin::Origin;
use super::preface::Preface;
use super::refusal::Refused;
use bytes::Bytes;
use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use rustix::net::sockopt;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tonic::codegen::StdError;

/// How long accepting rests after an error such as EMFILE: short for a client, long enough not to spin.
const REST: Duration = Duration::from_millis(50);

/// How long nothing more is said of such an error: with connections that come and go it may come and go as often.
const QUIET: Duration = Duration::from_secs(10);

/// How soon an unanswered probe of a silent socket is repeated: a few lost packets end no connection.
const PROBE_INTERVAL: Duration = Duration::from_secs(5);

/// Calls at once on one connection. More than a client needs, and no connection can hold all memory.
const STREAMS_MAX: u32 = 1_000;

/// All headers of a request together. Tokens and traces are a few KiB.
const HEADERS_BYTES_MAX: u32 = 16 * 1024;

/// Streams that a client opened and reset before they were accepted; past it the connection ends ("rapid
/// reset").
const PENDING_RESETS_MAX: usize = 20;

/// Streams that were reset because of a client's own protocol errors; past it the connection ends.
const ERROR_RESETS_MAX: usize = 1_024;

/// What is buffered for one stream whose reader is slow: ten thousand stalled watchers stay below 1 GiB.
const SEND_BUFFER_BYTES_MAX: usize = 64 * 1024;

/// What a client may send ahead on one stream, before the service reads it.
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;

/// What a client may send ahead on one connection, and so what it can make this server hold for it: far more than on one
/// stream, for the sake of small messages. Beside its bytes h2 counts what each DATA frame costs, up to half of this window all
/// together, and ends the connection with all its streams when that is exceeded; and what one stream may send ahead in messages
/// of 70 bytes, as reports and tokens are, counts 700 KiB. So five streams that nobody reads for a moment are no harm.
const CONNECTION_WINDOW_BYTES: u32 = 32 * STREAM_WINDOW_BYTES;

/// How the port is served; the defaults are those of the design.
#[derive(Clone, Debug)]
pub struct Options {
    /// Names under which this server may be called, beside loopback names and the address that it listens on.
    pub allowed_hosts: Vec<String>,
    /// Origins of pages that may call this server, beside its own.
    pub allowed_origins: Vec<Origin>,
    /// Connections at once, 20,000: each costs a file descriptor and its buffers. One more is closed at once.
    pub connections_max: usize,
    /// The time a connection has for its first bytes, and a request of HTTP/1.1 for its headers, 10 s: enough for a slow link,
    /// too little to hoard connections.
    pub first_byte_timeout: Duration,
    /// How long a connection of HTTP/1.1 is kept for its next request, 75 s: above the 60 s after which most clients and
    /// balancers let go of it, so that it is they who do. A request that crosses our end of it would be lost.
    pub idle_timeout: Duration,
    /// How often a silent connection is pinged, by HTTP/2 or by TCP, 20 s: below the usual idle limit of a NAT or balancer.
    pub keepalive_interval: Duration,
    /// How long the answer to a ping may take before the connection counts as dead, 20 s.
    pub keepalive_timeout: Duration,
    /// The time that calls have to end after the shutdown began, 30 s: what orchestrators grant by default.
    pub drain_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            allowed_hosts: Vec::new(),
            allowed_origins: Vec::new(),
            connections_max: 20_000,
            first_byte_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            keepalive_interval: Duration::from_secs(20),
            keepalive_timeout: Duration::from_secs(20),
            drain_timeout: Duration::from_secs(30),
        }
    }
}

impl Options {
    /// Sets what the socket itself can watch over. Where the system refuses, the connection works without.
    fn prepare(&self, stream: &TcpStream) {
        // A request is a small write that waits for nothing: Nagle would hold it back.
        let _ = stream.set_nodelay(true);
        // HTTP/1.1 has no pings: a peer that has vanished, or that has not taken anything of what waits for it, is told by
        // the system, and after the same time.
        let patience = self.keepalive_interval + self.keepalive_timeout;
        let _ = sockopt::set_tcp_keepidle(stream, self.keepalive_interval);
        let _ = sockopt::set_tcp_keepintvl(stream, PROBE_INTERVAL);
        let _ = sockopt::set_tcp_user_timeout(stream, patience.as_millis().try_into().unwrap_or(u32::MAX));
        let _ = sockopt::set_socket_keepalive(stream, true);
    }

    pub(super) fn protocols(&self, calls: Calls, came: Came) -> auto::Builder<Calls> {
        let mut builder = auto::Builder::new(calls);
        builder
            .http1()
            .timer(Headers::new(came, self.first_byte_timeout))
            .header_read_timeout(self.idle_timeout)
            .max_buf_size(HEADERS_BYTES_MAX as usize);
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(self.keepalive_interval)
            .keep_alive_timeout(self.keepalive_timeout)
            .max_concurrent_streams(STREAMS_MAX)
            .max_header_list_size(HEADERS_BYTES_MAX)
            .max_pending_accept_reset_streams(PENDING_RESETS_MAX)
            .max_local_error_reset_streams(ERROR_RESETS_MAX)
            .max_send_buf_size(SEND_BUFFER_BYTES_MAX)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
        builder
    }
}

/// Serves until `shutdown`, then drains: no new connection, GOAWAY to all, and after the limit an end.
pub(super) async fn run<S, B>(
    listener: TcpListener,
    service: S,
    options: &Options,
    told: impl Fn(usize),
    refused: Refused,
    shutdown: impl Future<Output = ()>,
) where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Send + Sync + 'static,
    S::Future: Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<StdError>,
{
    let service = Arc::new(service);
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    let mut accepting = Accepting { listener, said: None, full: false };
    let mut shutdown = std::pin::pin!(shutdown);

    loop {
        let stream = tokio::select! {
            () = &mut shutdown => break,
            Some(ended) = connections.join_next() => {
                log_panic(ended);
                told(connections.len());
                continue;
            }
            accepted = accepting.next() => accepted,
        };
        let Some(stream) = stream else { continue };
        if accepting.refuses(connections.len(), options.connections_max) {
            refused("CONNECTION_LIMIT");
            continue;
        }
        options.prepare(&stream);
        let came = Came::default();
        let io = TokioIo::new(Preface::new(stream, options.first_byte_timeout, came.clone()));
        let (service, watcher) = (service.clone(), graceful.watcher());
        let calls = Calls::default();
        let protocols = options.protocols(calls.clone(), came);
        connections.spawn(async move {
            let connection = watcher.watch(protocols.serve_connection(io, service));
            if let Err(error) = calls.run(connection).await {
                tracing::debug!(error, "a connection broke");
            }
        });
        told(connections.len());
    }

    // Closes the port: a new client is refused at once and goes elsewhere.
    drop(accepting);
    if tokio::time::timeout(options.drain_timeout, graceful.shutdown()).await.is_err() {
        while let Some(ended) = connections.try_join_next() {
            log_panic(ended);
        }
        tracing::warn!(connections = connections.len(), "cut off what had not ended within the drain time");
    }
    connections.shutdown().await;
}

/// The listening socket, and what was already said about it.
struct Accepting {
    listener: TcpListener,
    /// When it was last said that accepting fails.
    said: Option<Instant>,
    full: bool,
}

impl Accepting {
    async fn next(&mut self) -> Option<TcpStream> {
        match self.listener.accept().await {
            Ok((stream, _)) => Some(stream),
            // The client has gone before we came; that says nothing about the next one.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => None,
            Err(error) => {
                if self.said.is_none_or(|said| said.elapsed() > QUIET) {
                    self.said = Some(Instant::now());
                    tracing::error!(%error, "cannot accept connections; is the limit of open files too low?");
                }
                tokio::time::sleep(REST).await;
                None
            }
        }
    }

    // A connection over the cap is closed, not left in the backlog, where its client would wait without an
    // answer.
    fn refuses(&mut self, connections: usize, limit: usize) -> bool {
        let full = connections >= limit;
        if full && !std::mem::replace(&mut self.full, full) {
            tracing::warn!(limit, "refusing connections; connections_max is reached");
        }
        self.full = full;
        full
    }
}

fn log_panic(ended: Result<(), JoinError>) {
    if ended.is_err_and(|error| error.is_panic()) {
        tracing::error!("a connection's task panicked; the others go on");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_peer_that_has_vanished_is_noticed_by_the_socket() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();

        Options::default().prepare(&stream);

        assert!(sockopt::socket_keepalive(&stream).unwrap() && stream.nodelay().unwrap());
        assert_eq!(sockopt::tcp_keepidle(&stream).unwrap(), Duration::from_secs(20));
        assert_eq!(sockopt::tcp_user_timeout(&stream).unwrap(), 40_000);
    }
}
