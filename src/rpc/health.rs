//! Health of the server and of each of its services, by the standard `grpc.health.v1` protocol.
//!
//! It says whether calls are welcome here, not whether a disk is well.

use tonic_health::ServingStatus;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};

/// The handle by which clients are told that this server is about to end.
#[derive(Clone, Debug)]
pub struct Health {
    reporter: HealthReporter,
    services: Vec<&'static str>,
}

impl Health {
    pub(super) fn new() -> (Self, HealthServer<HealthService>) {
        let reporter = HealthReporter::new();
        let service = HealthServer::new(HealthService::from_health_reporter(reporter.clone()));
        // The empty name is the server as a whole.
        (Self { reporter, services: vec![""] }, service)
    }

    pub(super) fn add(&mut self, service: &'static str) {
        self.services.push(service);
    }

    /// Reports SERVING for the server and all its services.
    pub async fn serving(&self) {
        self.set(ServingStatus::Serving).await;
    }

    /// Reports NOT_SERVING for the server and all its services, while calls are still answered.
    pub async fn not_serving(&self) {
        self.set(ServingStatus::NotServing).await;
    }

    /// Reports NOT_SERVING, and ends all watches of health: one never ends by itself, and would hold up the drain.
    pub async fn end(&self) {
        self.not_serving().await;
        let mut reporter = self.reporter.clone();
        for service in &self.services {
            reporter.clear_service_status(service).await;
        }
    }

    async fn set(&self, status: ServingStatus) {
        for service in &self.services {
            self.reporter.set_service_status(service, status).await;
        }
    }
}
