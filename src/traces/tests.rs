//! What is recorded of jobs, over a real engine and on a clock moved by hand.

use super::*;
use crate::clock::ManualClock;
use crate::engine::{self, Engine, Leased, Worker};
use crate::job::*;
use crate::store::{MemoryStore, Parts};
use crate::wire::status;
use crate::{api, proto};
use opentelemetry::Value;
use opentelemetry::trace::{SpanId, Status};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SpanData};
use rstest::rstest;
use std::time::SystemTime;

const SECOND: Duration = Duration::from_secs(1);
const BEGIN: Timestamp = Timestamp::from_micros(1_790_000_000_000_000);
const KEEPER: Keeper = Keeper(1);
const CLIENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const UNSAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

/// An engine whose jobs are traced, with what was recorded of them.
struct Bench {
    engine: Engine,
    store: Arc<MemoryStore>,
    clock: Arc<ManualClock>,
    traces: Traces,
    exporter: InMemorySpanExporter,
}

impl Bench {
    async fn new() -> Self {
        Self::with(100, 1_000).await
    }

    async fn with(traces_per_second: u32, queue_max: u64) -> Self {
        let clock = Arc::new(ManualClock::new(BEGIN));
        let exporter = InMemorySpanExporter::default();
        let told: Arc<dyn Clock> = Arc::clone(&clock) as _;
        let traces = Traces::over(exporter.clone(), traces_per_second, KEEPER, told, Arc::new(rand::random));
        let store = Arc::new(MemoryStore::new(queue_max, KEEPER));
        let engine = start(&store, &clock, &traces).await;
        Self { engine, store, clock, traces, exporter }
    }

    /// Stops, and starts again in another process over what is stored.
    async fn restart(&mut self) {
        within(self.engine.close()).await;
        self.store = Arc::new(self.store.reopened());
        let told: Arc<dyn Clock> = Arc::clone(&self.clock) as _;
        self.spans();
        self.traces = Traces::over(self.exporter.clone(), 100, KEEPER, told, Arc::new(rand::random));
        self.engine = start(&self.store, &self.clock, &self.traces).await;
    }

    /// Starts a job as the edge does.
    async fn start(&self, came: Option<Trace>) -> Result<JobId, engine::Error> {
        let mut call = self.traces.arrived("StartJob", came).begin(1);
        let wish =
            Wish { kind: "work".into(), input: "{}".into(), trace: call.trace(0), ..Default::default() };
        let spec = wish.into_spec(DEFAULT_TENANT, &Terms::default()).unwrap();
        let started = within(call.commit(self.engine.start(spec), status::fault)).await?;
        call.has_started(&started.snapshot, started.repeated);
        Ok(started.snapshot.job.id)
    }

    async fn lease(&self, in_process: bool) -> Leased {
        let worker =
            Worker { name: "worker-1".into(), kinds: ["work".to_owned()].into(), in_process, term: None };
        within(self.engine.enlist(&worker).lease(1)).await.unwrap().pop().unwrap()
    }

    async fn complete(&self, token: &LeaseToken) {
        within(self.engine.complete(token, "{}".into(), Metrics::new(), None)).await.unwrap();
    }

    async fn fail(&self, token: &LeaseToken, failure: Option<Failure>) {
        within(self.engine.fail(token, failure, None)).await.unwrap();
    }

    /// What was recorded so far.
    fn spans(&self) -> Vec<SpanData> {
        self.traces.0.as_ref().unwrap().exports.flush();
        self.exporter.get_finished_spans().unwrap()
    }

    /// The only span of this name.
    fn span(&self, name: &str) -> SpanData {
        let mut found: Vec<_> = self.spans().into_iter().filter(|span| span.name == name).collect();
        assert_eq!(found.len(), 1, "{name}: {found:?}");
        found.remove(0)
    }

    /// The names of what was recorded, in order.
    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = self.spans().iter().map(|span| span.name.to_string()).collect();
        names.sort();
        names
    }

    fn pass(&self, duration: Duration) {
        self.clock.advance(duration);
    }
}

async fn start(store: &Arc<MemoryStore>, clock: &Arc<ManualClock>, traces: &Traces) -> Engine {
    let settings =
        engine::Settings { observers: traces.observer().into_iter().collect(), ..Default::default() };
    let (store, clock) = (Arc::clone(store) as _, Arc::clone(clock) as _);
    Engine::start_up(store, clock, settings, Arc::new(rand::random)).await.unwrap()
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future).await.expect("it takes far too long")
}

fn came(parent: &str) -> Option<Trace> {
    Some(Trace { parent: parent.into(), state: "vendor=1".into() })
}

/// The span that whoever gets this trace is in.
fn named(trace: &Option<Trace>) -> SpanId {
    Context::of(trace.as_ref().unwrap()).unwrap().span
}

fn id(span: &SpanData) -> SpanId {
    span.span_context.span_id()
}

fn text(span: &SpanData, key: &str) -> Option<String> {
    let found = span.attributes.iter().find(|attribute| attribute.key.as_str() == key);
    found.map(|attribute| attribute.value.as_str().into_owned())
}

/// Seconds since the test began.
fn at(time: SystemTime) -> f64 {
    let begin = Duration::from_micros(BEGIN.as_micros() as u64);
    (time.duration_since(SystemTime::UNIX_EPOCH).unwrap() - begin).as_secs_f64()
}

fn times(span: &SpanData) -> (f64, f64) {
    (at(span.start_time), at(span.end_time))
}

fn failed(reason: &'static str) -> Status {
    Status::Error { description: reason.into() }
}

#[tokio::test]
async fn a_job_is_one_tree_from_its_client_to_its_worker() {
    let bench = Bench::new().await;

    let job = bench.start(came(CLIENT)).await.unwrap();
    bench.pass(2 * SECOND);
    let leased = bench.lease(false).await;
    bench.pass(SECOND);
    within(bench.engine.accept(&leased.token)).await.unwrap();
    bench.pass(4 * SECOND);
    bench.complete(&leased.token).await;

    let (call, commit, attempt) = (bench.span("StartJob"), bench.span("commit"), bench.span("attempt 1"));
    let (queue, claim) = (bench.span("queue"), bench.span("claim"));
    assert_eq!(call.parent_span_id, named(&came(CLIENT)));
    for child in [&commit, &queue, &claim, &attempt] {
        assert_eq!(child.parent_span_id, id(&call), "{child:?}");
    }
    let told = leased.snapshot.trace.clone();
    assert_eq!(named(&told), id(&attempt));
    assert_eq!(told.unwrap().state, "vendor=1");
    let spans = bench.spans();
    assert_eq!(spans.len(), 5);
    for span in &spans {
        assert_eq!(span.span_context.trace_id().to_string(), CLIENT[3..35]);
        assert_eq!(span.status, Status::Unset);
        assert_eq!(text(span, "job.id"), (span.name != "commit").then(|| job.to_string()), "{span:?}");
    }
    assert_eq!((times(&queue), times(&claim), times(&attempt)), ((0.0, 2.0), (2.0, 3.0), (3.0, 7.0)));
    assert_eq!(text(&attempt, "worker.id").as_deref(), Some("worker-1"));
    assert_eq!(text(&attempt, "job.kind").as_deref(), Some("work"));
    assert_eq!(text(&attempt, "job.outcome").as_deref(), Some("SUCCEEDED"));
    assert!(
        attempt.attributes.iter().any(|one| one.key.as_str() == "job.attempt" && one.value == Value::I64(1))
    );
}

#[tokio::test]
async fn a_job_whose_client_has_no_trace_begins_one() {
    let bench = Bench::new().await;

    bench.start(None).await.unwrap();
    let leased = bench.lease(true).await;
    bench.complete(&leased.token).await;

    let (call, attempt) = (bench.span("StartJob"), bench.span("attempt 1"));
    assert_eq!(call.parent_span_id, SpanId::INVALID);
    assert_eq!(attempt.span_context.trace_id(), call.span_context.trace_id());
    assert_eq!(attempt.parent_span_id, id(&call));
    assert_eq!(named(&leased.snapshot.trace), id(&attempt));
}

#[rstest]
#[tokio::test]
async fn each_attempt_is_a_span_of_its_own_and_so_is_each_wait(#[values(true, false)] in_process: bool) {
    let bench = Bench::new().await;
    let job = bench.start(came(CLIENT)).await.unwrap();
    bench.pass(SECOND);
    let first = bench.lease(in_process).await;
    within(bench.engine.accept(&first.token)).await.unwrap();
    bench.pass(SECOND);

    bench.fail(&first.token, Some(Failure::new("BROKEN", "it broke"))).await;
    // Its wait is over, whatever chance made it.
    bench.pass(3_600 * SECOND);
    within(async {
        while bench.engine.get(job, Parts::BASIC).await.unwrap().job.state != State::Pending {
            tokio::task::yield_now().await;
        }
    })
    .await;
    bench.pass(5 * SECOND);
    let second = bench.lease(in_process).await;
    within(bench.engine.accept(&second.token)).await.unwrap();
    bench.pass(SECOND);
    bench.complete(&second.token).await;

    let (one, two) = (bench.span("attempt 1"), bench.span("attempt 2"));
    assert_eq!((one.status.clone(), two.status.clone()), (failed("BROKEN"), Status::Unset));
    assert_eq!((times(&one), times(&two)), ((1.0, 2.0), (3607.0, 3608.0)));
    assert_eq!(text(&one, "job.outcome").as_deref(), Some("RETRYING"));
    assert_eq!([&first, &second].map(|leased| named(&leased.snapshot.trace)), [id(&one), id(&two)]);
    assert_eq!(one.parent_span_id, two.parent_span_id);
    let waits: Vec<_> = bench.spans().iter().filter(|span| span.name == "queue").map(times).collect();
    assert_eq!(waits, [(0.0, 1.0), (3602.0, 3607.0)]);
    assert!(bench.traces.0.as_ref().unwrap().attempts.lock().is_empty());
}

#[tokio::test]
async fn a_cancelled_attempt_is_no_failure() {
    let bench = Bench::new().await;
    let job = bench.start(came(CLIENT)).await.unwrap();
    let leased = bench.lease(true).await;

    within(bench.engine.cancel(job, String::new(), None)).await.unwrap();
    bench.pass(SECOND);
    bench.fail(&leased.token, None).await;

    let attempt = bench.span("attempt 1");
    assert_eq!((times(&attempt), attempt.status.clone()), ((0.0, 1.0), Status::Unset));
    assert_eq!(text(&attempt, "job.outcome").as_deref(), Some("CANCELLED"));
    assert_eq!(text(&attempt, "job.reason").as_deref(), Some(reason::WORKER_STOPPED));
}

#[tokio::test]
async fn a_claim_that_comes_to_nothing_is_in_the_tree_under_the_name_that_its_worker_was_told() {
    let bench = Bench::new().await;
    bench.start(came(CLIENT)).await.unwrap();
    let lapsed = bench.lease(false).await;
    bench.pass(SECOND);

    within(bench.engine.release(&lapsed.token, String::new(), Duration::ZERO)).await.unwrap();
    bench.pass(SECOND);
    let leased = bench.lease(true).await;
    bench.complete(&leased.token).await;

    let claim = bench.span("claim");
    assert_eq!((id(&claim), claim.status.clone()), (named(&lapsed.snapshot.trace), failed("LAPSED")));
    assert_eq!(times(&claim), (0.0, 1.0));
    let waits: Vec<_> = bench.spans().iter().filter(|span| span.name == "queue").map(times).collect();
    assert_eq!(waits, [(0.0, 0.0), (1.0, 2.0)]);
}

#[rstest]
#[case::its_client_does_not_want_it(came(UNSAMPLED))]
#[case::it_is_no_trace(Some(Trace { parent: "nonsense".into(), state: String::new() }))]
#[tokio::test]
async fn what_is_not_sampled_passes_through_unchanged(#[case] trace: Option<Trace>) {
    let bench = Bench::new().await;

    let job = bench.start(trace.clone()).await.unwrap();
    let leased = bench.lease(false).await;
    bench.complete(&leased.token).await;

    assert_eq!(bench.engine.get(job, Parts::BASIC).await.unwrap().trace, trace);
    assert_eq!(leased.snapshot.trace, trace);
    assert_eq!(bench.names(), [""; 0]);
}

#[tokio::test]
async fn off_means_that_nothing_is_touched_and_nobody_is_told() {
    let off = Traces::default();

    let mut call = off.arrived("StartJob", came(CLIENT)).begin(1);
    let committed: Result<u8, String> = call.commit(async { Ok(7) }, |_| None).await;

    assert_eq!((call.trace(0), committed), (came(CLIENT), Ok(7)));
    assert!(off.observer().is_none());
    off.shut_down().await;
}

#[tokio::test]
async fn past_the_limit_a_job_is_recorded_in_no_part_and_its_trace_passes_through() {
    let bench = Bench::with(2, 1_000).await;
    let mut told = Vec::new();

    for _ in 0..3 {
        bench.start(came(CLIENT)).await.unwrap();
        let leased = bench.lease(true).await;
        bench.complete(&leased.token).await;
        told.push(leased.snapshot.trace);
    }

    assert_eq!(told[2], came(CLIENT));
    assert_ne!(told[1], came(CLIENT));
    let (once, twice) = (["StartJob", "attempt 1", "commit", "queue"], bench.names());
    assert_eq!(twice, once.map(|name| [name; 2]).concat());
    bench.pass(SECOND);
    bench.start(None).await.unwrap();
    assert_eq!(bench.names().iter().filter(|name| *name == "StartJob").count(), 3);
}

#[rstest]
#[tokio::test]
async fn an_attempt_elsewhere_that_outlives_the_server_is_one_span(#[values(true, false)] accepted: bool) {
    let mut bench = Bench::new().await;
    bench.start(came(CLIENT)).await.unwrap();
    let leased = bench.lease(false).await;
    if accepted {
        within(bench.engine.accept(&leased.token)).await.unwrap();
    }
    bench.pass(SECOND);

    bench.restart().await;
    bench.pass(SECOND);
    bench.complete(&leased.token).await;

    let attempt = bench.span("attempt 1");
    assert_eq!(id(&attempt), named(&leased.snapshot.trace));
    assert_eq!(attempt.parent_span_id, id(&bench.span("StartJob")));
    assert_eq!(times(&attempt), (if accepted { 0.0 } else { 2.0 }, 2.0));
}

#[tokio::test]
async fn an_attempt_that_the_end_of_the_server_ended_is_recorded_by_the_next_one() {
    let mut bench = Bench::new().await;
    bench.start(came(CLIENT)).await.unwrap();
    let first = bench.lease(true).await;
    bench.pass(SECOND);

    bench.restart().await;
    bench.pass(SECOND);
    let second = bench.lease(true).await;
    bench.complete(&second.token).await;

    let (one, two) = (bench.span("attempt 1"), bench.span("attempt 2"));
    assert_eq!((id(&one), id(&two)), (named(&first.snapshot.trace), named(&second.snapshot.trace)));
    assert_eq!((one.status.clone(), times(&one)), (failed(reason::SERVER_RESTART), (0.0, 1.0)));
    assert_eq!(one.parent_span_id, two.parent_span_id);
}

#[tokio::test]
async fn a_lease_that_ended_unseen_is_recorded_as_that() {
    let bench = Bench::new().await;
    bench.start(came(CLIENT)).await.unwrap();
    let leased = bench.lease(true).await;
    let shared = bench.traces.0.as_ref().unwrap();
    let other = LeaseToken { epoch: 9, ..leased.token };

    shared.lost(&other);
    shared.lost(&leased.token);
    bench.complete(&leased.token).await;

    let attempt = bench.span("attempt 1");
    assert_eq!(text(&attempt, "job.outcome").as_deref(), Some("UNKNOWN"));
    assert!(shared.attempts.lock().is_empty());
}

#[tokio::test]
async fn a_call_that_is_refused_says_why_and_one_whose_caller_is_gone_ends_all_the_same() {
    let bench = Bench::with(100, 0).await;

    bench.start(came(CLIENT)).await.unwrap_err();
    assert_eq!(bench.span("StartJob").status, failed("QUEUE_FULL"));
    assert_eq!(bench.span("commit").status, failed("QUEUE_FULL"));
    bench.exporter.reset();
    let mut gone = bench.traces.arrived("StartJob", came(CLIENT)).begin(1);
    {
        let mut forever = Box::pin(gone.commit(std::future::pending::<Result<(), String>>(), |_| None));
        assert!(futures_util::poll!(&mut forever).is_pending());
    }
    drop(gone);

    assert_eq!(bench.names(), ["StartJob", "commit"]);
}

#[tokio::test]
async fn a_flood_of_bad_requests_leaves_nothing_and_does_not_end_the_tracing_of_good_ones() {
    let bench = Bench::with(1, 1_000).await;
    let api = api::Jobs::new(bench.engine.clone()).traced(bench.traces.clone());
    let start = |kind: &str| proto::StartJobRequest {
        kind: kind.into(),
        request_id: "once".into(),
        ..Default::default()
    };
    let batch = |kind: &str| proto::BatchStartJobsRequest { requests: vec![start(kind)] };
    let retry = |job: &str| proto::RetryJobRequest { job_id: job.into(), request_id: String::new() };

    for _ in 0..3 {
        within(api.start(start("NO"), came(CLIENT))).await.unwrap_err();
        within(api.start_batch(batch("NO"), came(CLIENT))).await.unwrap_err();
        within(api.start_batch(proto::BatchStartJobsRequest::default(), None)).await.unwrap();
        within(api.retry(retry("nonsense"), None)).await.unwrap_err();
        within(api.retry(retry(&JobId::default().to_string()), None)).await.unwrap_err();
    }
    assert_eq!(bench.names(), [""; 0]);
    let started = within(api.start(start("work"), came(CLIENT))).await.unwrap();
    bench.pass(SECOND);
    for _ in 0..3 {
        // The name of the request is another's.
        within(api.start(start("other"), came(CLIENT))).await.unwrap_err();
        within(api.start_batch(batch("other"), came(CLIENT))).await.unwrap_err();
    }
    within(api.start(start("work"), came(CLIENT))).await.unwrap();

    assert_eq!(bench.names(), ["StartJob", "StartJob", "commit", "commit"]);
    let jobs: Vec<_> = bench.spans().iter().filter_map(|span| text(span, "job.id")).collect();
    assert_eq!(jobs, vec![started.snapshot.job.id.to_string(); 2]);
    assert!(bench.spans().iter().all(|span| span.status == Status::Unset));
}

#[tokio::test]
async fn a_call_is_recorded_from_its_arrival() {
    let bench = Bench::new().await;

    let arrival = bench.traces.arrived("StartJob", came(CLIENT));
    bench.pass(2 * SECOND);
    drop(arrival.begin(1));

    assert_eq!(times(&bench.span("StartJob")), (0.0, 2.0));
}

#[tokio::test]
async fn past_the_limit_no_parent_is_taken_for_a_recorded_call_neither_a_forged_one_nor_our_own() {
    let bench = Bench::with(1, 1_000).await;
    let forged = Context::of(&came(CLIENT).unwrap()).unwrap().started(7, &Key::of(Keeper(2))).told();
    let job = bench.start(came(CLIENT)).await.unwrap();
    let ours = bench.engine.get(job, Parts::BASIC).await.unwrap().trace.unwrap();
    bench.complete(&bench.lease(true).await.token).await;
    let recorded = bench.names();
    let mut told = Vec::new();

    for came in [&forged, &ours] {
        bench.start(Some(came.clone())).await.unwrap();
        let leased = bench.lease(true).await;
        bench.complete(&leased.token).await;
        told.push(leased.snapshot.trace.unwrap());
    }

    assert_eq!(told, [forged, Context::of(&ours).unwrap().unsampled().told()]);
    assert_eq!(bench.names(), recorded);
}

#[tokio::test]
async fn of_a_batch_as_many_jobs_are_recorded_as_the_limit_allows_and_the_others_in_no_part() {
    let bench = Bench::with(2, 1_000).await;
    let api = api::Jobs::new(bench.engine.clone()).traced(bench.traces.clone());
    let one = proto::StartJobRequest { kind: "work".into(), ..Default::default() };
    let batch = |jobs| proto::BatchStartJobsRequest { requests: vec![one.clone(); jobs] };

    within(api.start_batch(batch(5), came(CLIENT))).await.unwrap();
    within(api.start(one.clone(), None)).await.unwrap();
    let mut passed_on = 0;
    for _ in 0..6 {
        let leased = bench.lease(true).await;
        bench.complete(&leased.token).await;
        passed_on += usize::from(leased.snapshot.trace == came(CLIENT));
    }

    assert_eq!(passed_on, 3);
    let once = ["BatchStartJobs", "attempt 1", "attempt 1", "commit", "queue", "queue"];
    assert_eq!(bench.names(), once);
    let call = bench.span("BatchStartJobs");
    let number = |key: &str| call.attributes.iter().find(|one| one.key.as_str() == key).map(|one| &one.value);
    assert_eq!([number("jobs"), number("jobs.recorded")], [Some(&Value::I64(5)), Some(&Value::I64(2))]);
}

#[tokio::test]
async fn a_lease_that_had_ended_before_it_was_adopted_is_forgotten() {
    let bench = Bench::new().await;
    let job = bench.start(came(CLIENT)).await.unwrap();
    let leased = bench.lease(false).await;
    let snapshot = bench.engine.get(job, Parts::BASIC).await.unwrap();
    within(bench.engine.accept(&leased.token)).await.unwrap();
    bench.complete(&leased.token).await;
    let shared = bench.traces.0.as_ref().unwrap();
    within(bench.engine.close()).await;
    let recorded = bench.names();

    shared.adopted(&snapshot);
    assert!(!shared.attempts.lock().is_empty());
    start(&Arc::new(bench.store.reopened()), &bench.clock, &bench.traces).await;

    assert!(shared.attempts.lock().is_empty());
    assert_eq!(bench.names(), recorded);
}
