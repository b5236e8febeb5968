//! The network edge: everything between a TCP socket and a gRPC service.
//!
//! From outside in: `listen` (accept loop, connection limits, drain) → `preface` (time to the first bytes) →
//! `calls` (all in the connection's task) → `guard` (Host, method, content-type) → `amend` (every error has its
//! ErrorInfo) → `panic` → `deadline` → `router` (by the service's name). It knows no job; what a service does is
//! its own affair.

mod amend;
mod calls;
mod deadline;
mod emit;
mod guard;
mod health;
mod job_service;
mod listen;
mod panic;
mod preface;
mod reports;
mod router;
mod streams;
mod work;
mod worker_service;

pub use health::Health;
pub use job_service::Jobs;
pub use listen::Options;
pub use router::Grpc;
pub use worker_service::Workers;

use crate::proto;
use http::HeaderMap;
use std::io;
use tokio::net::TcpListener;
use tonic::Status;
use tonic_reflection::pb::{v1, v1alpha};

/// The services that one port offers, with health and reflection among them.
pub struct Server {
    options: Options,
    router: router::Router,
    health: Health,
}

impl Server {
    /// Makes a server that offers reflection and health, and no service of its own yet.
    pub fn new(options: Options) -> Self {
        let (health, service) = Health::new();
        let router = router::Router::default();
        Self { options, router, health }.reflected().with(service)
    }

    /// Adds a service, which is healthy from then on. What is added first is found first.
    pub fn service<S: Grpc>(mut self, service: S) -> Self {
        self.health.add(S::NAME);
        self.with(service)
    }

    /// Returns the handle by which the owner of the shutdown tells clients early that they should go
    /// elsewhere.
    pub fn health(&self) -> Health {
        self.health.clone()
    }

    /// Serves until `shutdown` is ready, and then until all requests have ended or the drain time is over.
    ///
    /// # Errors
    ///
    /// Only where the listener cannot tell its own address; once it serves, no error ends it.
    pub async fn serve(self, listener: TcpListener, shutdown: impl Future<Output = ()>) -> io::Result<()> {
        let Self { options, router, health } = self;
        let hosts = guard::Hosts::new(listener.local_addr()?.ip(), &options.allowed_hosts);
        let names = router.names();
        health.serving().await;

        let calls = panic::CatchPanic(deadline::Deadline(router));
        let service = guard::Guard::new(hosts, names, amend::Amend(calls));
        let shutdown = async {
            shutdown.await;
            health.end().await;
        };
        listen::run(listener, service, &options, shutdown).await;
        Ok(())
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
