//! One port for all protocols: everything between a TCP socket and what answers a request.
//!
//! From outside in: `listen` (accept loop, connection limits, drain) → `preface` (time to the first bytes) → `calls` (all in
//! the connection's task) → `guard` (Host). It knows no protocol above HTTP, and no job.

mod calls;
mod guard;
mod hosts;
mod listen;
mod preface;

pub use listen::Options;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::service::Service;
use std::convert::Infallible;
use std::io;
use tokio::net::TcpListener;
use tonic::codegen::StdError;

/// Serves until `shutdown` is ready, and then until all requests have ended or the drain time is over. How many connections
/// there are is `told` as often as it changes.
///
/// # Errors
///
/// Only where the listener cannot tell its own address; once it serves, no error ends it.
pub async fn serve<S, B>(
    listener: TcpListener,
    options: Options,
    service: S,
    told: impl Fn(usize),
    shutdown: impl Future<Output = ()>,
) -> io::Result<()>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Send + Sync + 'static,
    S::Future: Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<StdError>,
{
    let hosts = hosts::Hosts::new(listener.local_addr()?.ip(), &options.allowed_hosts);
    listen::run(listener, guard::Guard::new(hosts, service), &options, told, shutdown).await;
    Ok(())
}
