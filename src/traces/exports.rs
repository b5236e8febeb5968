//! The way of spans to a collector: a bounded queue and a thread that sends them on in batches.
//!
//! Nobody ever waits for it. What has no room in the queue, and what the collector does not take, is lost, and that is said once in a
//! while.

use opentelemetry::KeyValue;
use opentelemetry_otlp::WithExportConfig;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::resource::EnvResourceDetector;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, SpanData, SpanExporter, SpanProcessor,
};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How many spans may wait to be sent; about a kilobyte each.
const QUEUE_MAX: usize = 4_096;
/// How many are sent at once.
const BATCH_MAX: usize = 512;
/// How long one waits for company: what a crash may lose.
const SEND_INTERVAL: Duration = Duration::from_secs(1);
/// How often it is said that spans are lost.
const SAID_INTERVAL: Duration = Duration::from_secs(60);

/// A collector cannot be reached by such an address.
#[derive(Debug, thiserror::Error)]
#[error("`{endpoint}` is no address of a collector: {why}; it is, for example, http://127.0.0.1:4317")]
pub struct BadEndpoint {
    endpoint: String,
    why: String,
}

/// Takes spans.
#[derive(Debug)]
pub struct Exports {
    processor: BatchSpanProcessor,
    tally: Arc<Tally>,
}

/// What has become of spans.
#[derive(Debug, Default)]
struct Tally {
    waiting: AtomicUsize,
    lost: Mutex<Lost>,
}

#[derive(Debug, Default)]
struct Lost {
    /// Since it was last said.
    spans: usize,
    said: Option<Instant>,
}

/// An exporter whose failures are told.
#[derive(Debug)]
struct Told<E> {
    exporter: E,
    tally: Arc<Tally>,
}

/// Checks the address of a collector.
pub fn check_endpoint(endpoint: &str) -> Result<(), BadEndpoint> {
    let bad = |why: &str| BadEndpoint { endpoint: endpoint.to_owned(), why: why.to_owned() };
    match endpoint.split_once("://") {
        Some(("http", host)) if !host.is_empty() && !host.starts_with(['/', ':']) => Ok(()),
        Some(("http", _)) => Err(bad("it names no host")),
        Some(("https", _)) => Err(bad("this version has no TLS")),
        Some(_) | None => Err(bad("it does not begin with http://")),
    }
}

/// An exporter to a collector that speaks OTLP over gRPC. It connects when there is something to send.
pub fn otlp(endpoint: &str) -> Result<impl SpanExporter + use<>, BadEndpoint> {
    check_endpoint(endpoint)?;
    let exporter = opentelemetry_otlp::SpanExporter::builder().with_tonic().with_endpoint(endpoint).build();
    exporter.map_err(|error| BadEndpoint { endpoint: endpoint.to_owned(), why: error.to_string() })
}

impl Exports {
    /// Starts the thread.
    pub fn start(exporter: impl SpanExporter + 'static) -> Self {
        let tally = Arc::new(Tally::default());
        let config = BatchConfigBuilder::default()
            .with_max_queue_size(QUEUE_MAX)
            .with_max_export_batch_size(BATCH_MAX)
            .with_scheduled_delay(SEND_INTERVAL)
            .build();
        let told = Told { exporter, tally: Arc::clone(&tally) };
        let mut processor = BatchSpanProcessor::new(told, config);
        processor.set_resource(&resource());
        Self { processor, tally }
    }

    /// Takes a span, where there is room for it.
    pub fn record(&self, span: SpanData) {
        // The processor's own queue is never full so: it would not say what it has dropped.
        if self.tally.waiting.fetch_add(1, Ordering::Relaxed) >= QUEUE_MAX {
            self.tally.waiting.fetch_sub(1, Ordering::Relaxed);
            return self.tally.lose(1, &"there are more than can be sent");
        }
        self.processor.on_end(span);
    }

    /// Sends what waits.
    #[cfg(test)]
    pub fn flush(&self) {
        self.processor.force_flush().expect("they can be sent");
    }

    /// Sends what waits, for so long at most, and stops. It blocks.
    pub fn shut_down(&self, time: Duration) {
        match self.processor.shutdown_with_timeout(time) {
            Ok(()) | Err(OTelSdkError::AlreadyShutdown) => {}
            Err(error) => tracing::warn!(%error, "the last spans are lost"),
        }
    }
}

impl Tally {
    fn lose(&self, spans: usize, why: &(dyn std::fmt::Display + Sync)) {
        let mut lost = self.lost.lock();
        lost.spans += spans;
        if lost.said.is_none_or(|said| said.elapsed() >= SAID_INTERVAL) {
            tracing::warn!(spans = lost.spans, %why, "spans are lost");
            *lost = Lost { spans: 0, said: Some(Instant::now()) };
        }
    }
}

impl<E: SpanExporter> SpanExporter for Told<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        self.tally.waiting.fetch_sub(spans, Ordering::Relaxed);
        let exported = self.exporter.export(batch).await;
        if let Err(error) = &exported {
            self.tally.lose(spans, error);
        }
        exported
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

/// Who sends the spans, unless OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say otherwise.
fn resource() -> Resource {
    let name = std::env::var("OTEL_SERVICE_NAME").ok().filter(|name| !name.is_empty());
    Resource::builder()
        .with_service_name(name.unwrap_or_else(|| "longhaul".to_owned()))
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_detector(Box::new(EnvResourceDetector::new()))
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Timestamp;
    use crate::traces::context::Context;
    use crate::traces::span::Span;
    use rstest::rstest;
    use std::sync::mpsc::{Receiver, Sender, channel};

    /// An exporter that waits for leave.
    #[derive(Debug)]
    struct Slow {
        begun: Sender<usize>,
        leave: Mutex<Receiver<()>>,
    }

    impl SpanExporter for Slow {
        async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
            let _ = self.begun.send(batch.len());
            let _ = self.leave.lock().recv();
            Err(OTelSdkError::InternalFailure("as told".into()))
        }
    }

    #[test]
    fn a_collector_that_hangs_holds_up_nobody_and_costs_a_bounded_queue() {
        let ((begun, batches), (leave, waits)) = (channel(), channel());
        let exports = Exports::start(Slow { begun, leave: Mutex::new(waits) });
        let span = Span::new(Context::root(1, 2).by_chance(3), "span", Timestamp::from_micros(1)).data();

        for _ in 0..BATCH_MAX {
            exports.record(span.clone());
        }
        assert_eq!(batches.recv(), Ok(BATCH_MAX));
        for _ in 0..QUEUE_MAX + 100 {
            exports.record(span.clone());
        }

        assert_eq!(exports.tally.waiting.load(Ordering::Relaxed), QUEUE_MAX);
        // The first of them was said at once.
        assert_eq!(exports.tally.lost.lock().spans, 99);
        drop(leave);
        exports.shut_down(Duration::from_secs(30));
        assert_eq!(batches.try_iter().sum::<usize>(), QUEUE_MAX);
        assert_eq!(exports.tally.lost.lock().spans, 99 + BATCH_MAX + QUEUE_MAX);
    }

    #[rstest]
    #[case("http://127.0.0.1:4317", true)]
    #[case("http://collector", true)]
    #[case("https://collector:4317", false)]
    #[case("127.0.0.1:4317", false)]
    #[case("http://", false)]
    #[case("http://:4317", false)]
    #[case("http://a b:1", false)]
    #[tokio::test]
    async fn only_an_address_that_can_be_one_is_taken(#[case] endpoint: &str, #[case] passes: bool) {
        let made = otlp(endpoint);

        assert_eq!(made.is_ok(), passes, "{endpoint}");
        assert!(made.err().is_none_or(|error| error.to_string().contains(endpoint)));
    }
}
