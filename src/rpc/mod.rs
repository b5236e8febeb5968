//! The gRPC edge: everything between a request and a gRPC service.
//!
//! From outside in: `protocol` (is it gRPC, and well-formed) → `room` (for what is sent), or `web` where it is gRPC-Web → `amend`
//! (every error has its ErrorInfo) → `panic` → `deadline` → `router` (by the service's name). It knows no job; what a service does
//! is its own affair.

mod amend;
mod deadline;
mod emit;
mod health;
mod job_service;
mod panic;
mod protocol;
mod reports;
mod room;
mod router;
mod streams;
mod web;
mod work;
mod worker_service;

pub use health::Health;
pub use job_service::Jobs;
pub use room::Sent;
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
    router: router::Router<Sent>,
    /// Those that pages may call.
    web: router::Router<tonic::body::Body>,
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
        let ((router, web), refusals) = Default::default();
        Self { router, web, health, refusals }.reflected().with(service.clone()).with_web(service)
    }

    /// Adds a service, which is healthy once the server serves. What is added first is found first.
    pub fn service<S: Grpc>(mut self, service: S) -> Self {
        self.health.add(S::NAME);
        self.with(service)
    }

    /// Adds a service that pages may call as well, by gRPC-Web.
    pub fn web_service<S: Grpc + Grpc<tonic::body::Body>>(self, service: S) -> Self {
        self.with_web(service.clone()).service(service)
    }

    /// Tells the reason of every error that leaves.
    pub fn refusals(self, refusals: Refusals) -> Self {
        Self { refusals, ..self }
    }

    /// Returns the handle by which the owner of the port tells clients whether calls are welcome.
    pub fn health(&self) -> Health {
        self.health.clone()
    }

    /// Answers gRPC and gRPC-Web, and leaves all other requests to `beside`.
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
        let web = web::Web::new(calls(self.web, self.refusals.clone()));
        let calls = room::Counted(calls(self.router, self.refusals.clone()));
        protocol::Protocol::new(names, calls, web, beside, self.refusals)
    }

    fn with<S: Grpc>(mut self, service: S) -> Self {
        self.router.add(service);
        self
    }

    fn with_web<S: Grpc<tonic::body::Body>>(mut self, service: S) -> Self {
        self.web.add(service);
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

type Calls<R> = amend::Amend<panic::CatchPanic<deadline::Deadline<router::Router<R>>>>;

/// The way of a call to its service.
fn calls<R>(router: router::Router<R>, refusals: Refusals) -> Calls<R> {
    amend::Amend(panic::CatchPanic(deadline::Deadline(router)), refusals)
}

/// Puts a status of our own into trailers, for a stream that has already begun.
fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(3);
    status.add_header(&mut trailers).expect("our own messages are plain text");
    trailers
}
