//! Calls of the JSON API, over HTTP/2 as gRPC has it, and over HTTP/1.1 as scripts and browsers have it.

use anyhow::ensure;
use bytes::Bytes;
use http::{Method, Request, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::net::SocketAddr;
use tokio::net::TcpStream;

/// One caller's way to the server.
pub enum Sender {
    /// A connection of its own.
    One(http1::SendRequest<Full<Bytes>>),
    /// A connection that it shares with others.
    Two(http2::SendRequest<Full<Bytes>>),
}

/// Connections of HTTP/1.1, one for each caller.
pub async fn one(address: SocketAddr, callers: usize) -> anyhow::Result<Vec<Sender>> {
    let mut senders = Vec::with_capacity(callers);
    for _ in 0..callers {
        let (sender, connection) = http1::handshake(TokioIo::new(open(address).await?)).await?;
        tokio::spawn(connection);
        senders.push(Sender::One(sender));
    }
    Ok(senders)
}

/// As many connections of HTTP/2 as `connections`, which the callers share.
pub async fn two(address: SocketAddr, callers: usize, connections: usize) -> anyhow::Result<Vec<Sender>> {
    let mut shared = Vec::with_capacity(connections);
    for _ in 0..connections {
        let io = TokioIo::new(open(address).await?);
        let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
        tokio::spawn(connection);
        shared.push(sender);
    }
    Ok(shared.iter().cycle().take(callers).cloned().map(Sender::Two).collect())
}

async fn open(address: SocketAddr) -> anyhow::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

impl Sender {
    /// Calls once, and reads the answer, which must be a success.
    pub async fn call(&mut self, method: Method, path: &str, body: &str) -> anyhow::Result<Bytes> {
        let body = Full::new(Bytes::copy_from_slice(body.as_bytes()));
        let request = Request::builder().method(method).header("content-type", "application/json");
        let answer = match self {
            Self::One(sender) => {
                sender.ready().await?;
                sender.send_request(request.uri(path).header("host", "localhost").body(body)?).await?
            }
            Self::Two(sender) => {
                sender.ready().await?;
                let uri = Uri::builder().scheme("http").authority("localhost").path_and_query(path);
                sender.send_request(request.uri(uri.build()?).body(body)?).await?
            }
        };
        ensure!(answer.status().is_success(), "the server answered {}", answer.status());
        Ok(answer.into_body().collect().await?.to_bytes())
    }
}
