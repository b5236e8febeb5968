//! The gRPC edge: everything between a request and a gRPC service.
//!
//! From outside in: `protocol` (is it gRPC, and well-formed) → `amend` (every error has its ErrorInfo) → `panic` → `deadline` →
//! `router` (by the service's name). It knows no job; what a service does is its own affair.

mod amend;
mod deadline;
mod emit;
mod health;
mod job_service;
mod panic;
mod protocol;
mod reports;
mod router;
mod streams;
mod work;
mod worker_service;

pub use health::Health;
pub use job_service::Jobs;
pub use router::Grpc;
pub use worker_service::Workers;

use crate::proto;
use crate::wire::refusals::Refusals;
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use hyper::body::{Body, Incoming};
use hyper::service::Service;
use std::convert::Infallible;
use tonic::Status;
use tonic::codegen::StdError;
use tonic_reflection::pb::{v1, v1alpha};

/// The services that one port offers, with health and reflection among them.
pub struct Services {
    router: router::Router,
    health: Health,
    refusals: Refusals,
}

impl Default for Services {
    fn default() -> Self {
        Self::new()
    }
}

impl Services {
    /// Reflection and health, and no service of our own yet.
    pub fn new() -> Self {
        let (health, service) = Health::new();
        let router = router::Router::default();
        Self { router, health, refusals: Refusals::default() }.reflected().with(service)
    }

    /// Adds a service, which is healthy once the server serves. What is added first is found first.
    pub fn service<S: Grpc>(mut self, service: S) -> Self {
        self.health.add(S::NAME);
        self.with(service)
    }

    /// Tells the reason of every error that leaves.
    pub fn refusals(self, refusals: Refusals) -> Self {
        Self { refusals, ..self }
    }

    /// Returns the handle by which the owner of the port tells clients whether calls are welcome.
    pub fn health(&self) -> Health {
        self.health.clone()
    }

    /// Answers gRPC, and leaves all other requests to `beside`.
    pub fn beside<H, B>(
        self,
        beside: H,
    ) -> impl Service<
        Request<Incoming>,
        Response = Response<impl Body<Data = Bytes, Error = StdError> + Send + 'static>,
        Error = Infallible,
        Future: Send + 'static,
    > + Send
    + Sync
    + 'static
    where
        H: Service<Request<Incoming>, Response = Response<B>, Error = Infallible, Future: Send + 'static>,
        H: Send + Sync + 'static,
        B: Body<Data = Bytes, Error: Into<StdError>> + Send + 'static,
    {
        let names = self.router.names();
        let calls = panic::CatchPanic(deadline::Deadline(self.router));
        protocol::Protocol::new(names, amend::Amend(calls, self.refusals), beside)
    }

    fn with<S: Grpc>(mut self, service: S) -> Self {
        self.router.add(service);
        self
    }

    // grpcurl before 1.9 asks for v1alpha only. Without the descriptors of tonic-types no client could decode
    // the details of an error.
    fn reflected(self) -> Self {
        let builder = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
                .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        // Each version knows its own descriptors only, and should list the other as well.
        let v1 = builder().register_encoded_file_descriptor_set(v1alpha::FILE_DESCRIPTOR_SET).build_v1();
        let v1alpha = builder().register_encoded_file_descriptor_set(v1::FILE_DESCRIPTOR_SET).build_v1alpha();
        let (v1, v1alpha) = v1.and_then(|v1| Ok((v1, v1alpha?))).expect("the descriptors are compiled in");
        self.with(v1).with(v1alpha)
    }
}

/// Puts a status of our own into trailers, for a stream that has already begun.
fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(3);
    status.add_header(&mut trailers).expect("our own messages are plain text");
    trailers
}
