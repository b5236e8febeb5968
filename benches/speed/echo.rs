//! The yardstick: tonic's own server with one service that does nothing but answer.

use crate::roles::announce;
use longhaul::proto::StartJobRequest;
use std::convert::Infallible;
use std::task::{Context, Poll};
use tonic::body::Body;
use tonic::codegen::BoxFuture;
use tonic::server::{Grpc, NamedService};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

/// The path of the method that answers with the request.
pub const ECHO: &str = "/bench.Bare/Echo";
/// As many as longhaul takes on one connection.
const STREAMS_MAX: u32 = 1_000;

/// The bare service.
#[derive(Clone)]
struct Bare;

/// Serves until the process ends.
pub async fn serve() -> anyhow::Result<()> {
    let incoming = TcpIncoming::bind("127.0.0.1:0".parse()?)?.with_nodelay(Some(true));
    announce(incoming.local_addr()?);
    let server = Server::builder().max_concurrent_streams(STREAMS_MAX).add_service(Bare);
    Ok(server.serve_with_incoming(incoming).await?)
}

async fn echo(request: Request<StartJobRequest>) -> Result<Response<StartJobRequest>, Status> {
    Ok(Response::new(request.into_inner()))
}

impl NamedService for Bare {
    const NAME: &'static str = "bench.Bare";
}

impl tower::Service<http::Request<Body>> for Bare {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move {
            let mut grpc = Grpc::new(ProstCodec::default());
            Ok(grpc.unary(tower::service_fn(echo), request).await)
        })
    }
}
