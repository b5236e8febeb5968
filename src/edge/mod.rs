//! One port for all protocols: everything between a TCP socket and what answers a request.
//!
//! From outside in: `listen` (accept loop, connection limits, drain) → `preface` (time to the first bytes), `idle` (time to the next) → `calls` (all in
//! the connection's task) → `guard` (one target, Host, Origin, CORS). What is refused unread is answered `late`; what is
//! read has its part of the `room`. It knows no protocol above HTTP, and no job.

mod calls;
mod cors;
mod guard;
mod hosts;
mod idle;
mod late;
mod listen;
mod origin;
mod preface;
mod refusal;
pub mod room;
mod target;

pub use late::{Late, Lent, Patient};
pub use listen::Options;
pub use origin::{NoOrigin, Origin};

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::service::Service;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use tokio::net::TcpListener;
use tonic::codegen::StdError;

/// Serves until `shutdown` is ready, and then until all requests have ended or the drain time is over. How many connections
/// there are is `told` as often as it changes, and of each request and each connection that is refused, the stable reason is
/// told to `refused`.
///
/// # Errors
///
/// Only where the listener cannot tell its own address; once it serves, no error ends it.
pub async fn serve<S, B>(
    listener: TcpListener,
    options: Options,
    service: S,
    told: impl Fn(usize),
    refused: impl Fn(&'static str) + Send + Sync + 'static,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Send + Sync + 'static,
    S::Future: Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<StdError>,
{
    let hosts = hosts::Hosts::new(listener.local_addr()?.ip(), &options.allowed_hosts);
    let origins = origin::Origins::new(options.allowed_origins.clone());
    let refused: refusal::Refused = Arc::new(refused);
    let guard = guard::Guard::new(hosts, origins, Arc::clone(&refused), service);
    listen::run(listener, guard, &options, told, refused, shutdown).await;
    Ok(())
}
