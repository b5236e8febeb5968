//! The way of spans to a collector: a bounded queue and a thread that sends them on in batches.
//!
//! Nobody ever waits for it. What has no room in the queue, and what the collector does not take, is lost. All of that is counted, and
//! said: at once, then once in a while, and what is left when the server stops.

use opentelemetry::KeyValue;
use opentelemetry_otlp::WithExportConfig;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::resource::EnvResourceDetector;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, SpanData, SpanExporter, SpanProcessor,
};
use parking_lot::Mutex;
use std::borrow::Cow;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
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
    /// On their way to the collector.
    sent: AtomicUsize,
    lost: Mutex<Lost>,
    counted: Counted,
}

#[derive(Debug, Default)]
struct Lost {
    /// Since it was last said.
    spans: usize,
    /// Why the last of them were.
    why: Cow<'static, str>,
    said: Option<Instant>,
}

/// Who is told how many spans are lost.
#[derive(Default)]
struct Counted(OnceLock<Box<dyn Fn(u64) + Send + Sync>>);

impl fmt::Debug for Counted {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Counted")
    }
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
            return self.tally.lose(1, "there are more than can be sent".into());
        }
        self.processor.on_end(span);
    }

    /// Tells `count` how many spans are lost, whenever some are. It is called by whoever records, and must be short; only the first
    /// one is told.
    pub fn count_lost(&self, count: impl Fn(u64) + Send + Sync + 'static) {
        let _ = self.tally.counted.0.set(Box::new(count));
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
            Err(error) => {
                let left = [&self.tally.waiting, &self.tally.sent].map(|spans| spans.load(Ordering::Relaxed));
                self.tally.lose(left.iter().sum(), error.to_string().into());
            }
        }
        self.tally.say_rest();
    }
}

impl Tally {
    fn lose(&self, spans: usize, why: Cow<'static, str>) {
        if spans == 0 {
            return;
        }
        if let Some(count) = self.counted.0.get() {
            count(spans as u64);
        }
        let mut lost = self.lost.lock();
        lost.spans += spans;
        lost.why = why;
        let is_due = lost.said.is_none_or(|said| said.elapsed() >= SAID_INTERVAL);
        let due = is_due.then(|| lost.take());
        // Whoever writes logs may take its time.
        drop(lost);
        due.iter().for_each(Lost::say);
    }

    /// Says what was not said yet.
    fn say_rest(&self) {
        let rest = self.lost.lock().take();
        if rest.spans > 0 {
            rest.say();
        }
    }
}

impl Lost {
    /// What is to be said now.
    fn take(&mut self) -> Self {
        std::mem::replace(self, Self { said: Some(Instant::now()), ..Self::default() })
    }

    fn say(&self) {
        tracing::warn!(spans = self.spans, why = %self.why, "spans are lost");
    }
}

impl<E: SpanExporter> SpanExporter for Told<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        self.tally.sent.fetch_add(spans, Ordering::Relaxed);
        self.tally.waiting.fetch_sub(spans, Ordering::Relaxed);
        let exported = self.exporter.export(batch).await;
        self.tally.sent.fetch_sub(spans, Ordering::Relaxed);
        if let Err(error) = &exported {
            self.tally.lose(spans, error.to_string().into());
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

    /// What this thread has logged.
    #[derive(Clone, Default)]
    struct Said(Arc<Mutex<Vec<u8>>>);

    impl Said {
        fn listen(&self) -> tracing::subscriber::DefaultGuard {
            let said = self.clone();
            let logs = tracing_subscriber::fmt().with_ansi(false).with_writer(move || said.clone());
            tracing::subscriber::set_default(logs.finish())
        }

        fn text(&self) -> String {
            String::from_utf8_lossy(&self.0.lock()).into_owned()
        }
    }

    impl std::io::Write for Said {
        fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
            self.0.lock().extend(text);
            Ok(text.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// How many spans these exports say are lost.
    fn counted(exports: &Exports) -> Arc<AtomicUsize> {
        let counted = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&counted);
        exports.count_lost(move |spans| {
            count.fetch_add(spans as usize, Ordering::Relaxed);
        });
        counted
    }

    #[test]
    fn a_collector_that_hangs_holds_up_nobody_and_costs_a_bounded_queue() {
        let ((begun, batches), (leave, waits)) = (channel(), channel());
        let exports = Exports::start(Slow { begun, leave: Mutex::new(waits) });
        let (counted, said) = (counted(&exports), Said::default());
        let _heard = said.listen();
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
        assert_eq!(counted.load(Ordering::Relaxed), 100 + BATCH_MAX + QUEUE_MAX);
        let said = said.text();
        assert_eq!(said.matches("spans are lost").count(), 2, "{said}");
        assert!(said.contains("spans=1 why=there are more than can be sent"), "{said}");
        assert!(said.contains(&format!("spans={} why=", 99 + BATCH_MAX + QUEUE_MAX)), "{said}");
    }

    #[test]
    fn what_a_collector_still_has_not_taken_when_the_server_must_go_is_counted() {
        let ((begun, batches), (leave, waits)) = (channel(), channel());
        let exports = Exports::start(Slow { begun, leave: Mutex::new(waits) });
        let counted = counted(&exports);
        let span = Span::new(Context::root(1, 2).by_chance(3), "span", Timestamp::from_micros(1)).data();
        for _ in 0..BATCH_MAX {
            exports.record(span.clone());
        }
        assert_eq!(batches.recv(), Ok(BATCH_MAX));
        exports.record(span);

        exports.shut_down(Duration::from_millis(1));

        assert_eq!(counted.load(Ordering::Relaxed), BATCH_MAX + 1);
        drop(leave);
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
