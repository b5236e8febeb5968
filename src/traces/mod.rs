//! Traces: the spans of a job from the call that starts it to the end of each attempt, exported by OTLP.
//!
//! A job outlives every stack frame and the process, so no span lives on a stack: what belongs to a job is told by its stored
//! [`Trace`], and a span is made when its end is known. What is not recorded is passed on as it came.

mod attempts;
mod bucket;
mod call;
mod context;
mod exports;
mod span;

pub use call::{Arrival, Call};
pub use exports::{BadEndpoint, check_endpoint};

use crate::clock::Clock;
use crate::engine::{Chance, Observe};
use crate::job::{Event, Job, Keeper, LeaseToken, Snapshot, Timestamp, Trace};
use attempts::Attempts;
use bucket::Bucket;
use context::{Context, Key};
use exports::Exports;
use opentelemetry::trace::SpanKind;
use opentelemetry_sdk::trace::SpanExporter;
use parking_lot::Mutex;
use span::Span;
use std::sync::Arc;
use std::time::Duration;

/// How long the last spans may take on their way out when the server stops: a collector that is there needs far less.
const FLUSH_TIME: Duration = Duration::from_secs(3);

/// What is set for traces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where spans are sent, as an `http://` URL of a collector that speaks OTLP over gRPC.
    pub endpoint: String,
    /// How many jobs a second are started with a recorded trace, or a recorded part of their client's.
    pub traces_per_second: u32,
}

/// The handle for all who have something to record; a copy costs a reference count. Off, it does nothing.
#[derive(Clone, Debug, Default)]
pub struct Traces(Option<Arc<Shared>>);

/// What the handles share.
struct Shared {
    clock: Arc<dyn Clock>,
    chance: Chance,
    key: Key,
    bucket: Mutex<Bucket>,
    attempts: Mutex<Attempts>,
    exports: Exports,
}

impl Traces {
    /// Records, and exports to a collector; the keeper is that of the store with the jobs. Must be called in a tokio runtime, which
    /// the connection lives in.
    pub fn start(
        settings: &Settings,
        keeper: Keeper,
        clock: Arc<dyn Clock>,
        chance: Chance,
    ) -> Result<Self, BadEndpoint> {
        let exporter = exports::otlp(&settings.endpoint)?;
        Ok(Self::over(exporter, settings.traces_per_second, keeper, clock, chance))
    }

    /// Records, and exports so.
    pub fn over(
        exporter: impl SpanExporter + 'static,
        traces_per_second: u32,
        keeper: Keeper,
        clock: Arc<dyn Clock>,
        chance: Chance,
    ) -> Self {
        let key = Key::of(keeper);
        let bucket = Mutex::new(Bucket::new(traces_per_second, clock.now()));
        let attempts = Mutex::new(Attempts::new(key.clone()));
        let exports = Exports::start(exporter);
        Self(Some(Arc::new(Shared { clock, chance, key, bucket, attempts, exports })))
    }

    /// A call that is to start jobs has come, with this trace. It is recorded from now on, if it turns out to be valid.
    pub fn arrived(&self, name: &'static str, came: Option<Trace>) -> Arrival {
        let time = self.0.as_ref().map_or(Timestamp::default(), |shared| shared.clock.now());
        Arrival { shared: self.0.clone(), name, came, time }
    }

    /// Tells `count` how many spans are lost, whenever some are. It must be short; only the first one is told.
    pub fn count_lost(&self, count: impl Fn(u64) + Send + Sync + 'static) {
        if let Some(shared) = &self.0 {
            shared.exports.count_lost(count);
        }
    }

    /// Who is to be told what becomes of jobs.
    pub fn observer(&self) -> Option<Arc<dyn Observe>> {
        self.0.clone().map(|shared| shared as Arc<dyn Observe>)
    }

    /// Exports what is left, for a few seconds at most. To be called once nothing is recorded any more.
    pub async fn shut_down(self) {
        let Some(shared) = self.0 else { return };
        // It waits for its own thread.
        let _ = tokio::task::spawn_blocking(move || shared.exports.shut_down(FLUSH_TIME)).await;
    }
}

impl Shared {
    /// A span for a call, where that is to be recorded: its client has not decided against it, and there is room for it. With it
    /// goes for how many of its jobs there is.
    fn begin(
        self: &Arc<Self>,
        name: &'static str,
        came: Option<&Trace>,
        time: Timestamp,
        jobs: usize,
    ) -> Option<(call::Open, usize)> {
        let parent = came.and_then(Context::of);
        if came.is_some() && parent.as_ref().is_none_or(|parent| !parent.is_sampled()) {
            return None;
        }
        let recorded = self.bucket.lock().take(jobs, self.clock.now());
        if recorded == 0 {
            return None;
        }
        let context = match &parent {
            Some(parent) => parent.started((self.chance)(), &self.key),
            None => Context::root((self.chance)(), (self.chance)()).started((self.chance)(), &self.key),
        };
        let span = Span {
            parent: parent.map(|parent| parent.span),
            is_remote: true,
            kind: SpanKind::Server,
            ..Span::new(context, name, time)
        };
        Some((call::Open::new(Arc::clone(self), span), recorded))
    }

    /// What is told instead of what came, where nothing is recorded: a span that somebody has seen of ours must not be taken for
    /// one that was recorded now.
    fn passed_on(&self, came: Trace) -> Trace {
        let ours = Context::of(&came).filter(|context| context.is_recorded(&self.key));
        ours.map_or(came, |context| context.unsampled().told())
    }

    /// The tokens that were taken for a call are there for others.
    fn give_back(&self, tokens: usize) {
        self.bucket.lock().put_back(tokens);
    }

    fn record(&self, spans: impl IntoIterator<Item = Span>) {
        spans.into_iter().for_each(|span| self.exports.record(span.data()));
    }
}

impl Observe for Shared {
    fn leased(&self, snapshot: &mut Snapshot) {
        let now = self.clock.now();
        let waited = self.attempts.lock().leased(snapshot, now, || (self.chance)());
        self.record(waited);
    }

    fn adopted(&self, snapshot: &Snapshot) {
        self.attempts.lock().adopted(snapshot, self.clock.now());
    }

    fn compared(&self, is_kept: &dyn Fn(&LeaseToken) -> bool) {
        self.attempts.lock().keep(is_kept);
    }

    fn moved(&self, job: &Job, events: &[Event]) {
        let mut attempts = self.attempts.lock();
        if !attempts.is_empty() {
            let ended = attempts.moved(job, events, self.clock.now(), || (self.chance)());
            drop(attempts);
            self.record(ended);
        }
    }

    fn lost(&self, token: &LeaseToken) {
        let ended = self.attempts.lock().lost(token, self.clock.now());
        self.record(ended);
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Shared").field("exports", &self.exports).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
