//! What the figures say of jobs, commits, workers and watchers, as they are read at `/metrics`.

use crate::bench::*;
use crate::hostile::*;
use futures_util::future::join_all;
use longhaul::api::Jobs;
use longhaul::engine::*;
use longhaul::http::Scrapes;
use longhaul::job::*;
use longhaul::metrics::{KINDS_MAX, Metrics, SERVED_KINDS};
use longhaul::proto::{StartJobRequest, start_job_request};
use std::collections::BTreeSet;
use std::sync::Arc;

/// How many kinds have a label while no worker begins a job.
const UNSERVED: usize = KINDS_MAX - SERVED_KINDS;

/// An engine whose figures are kept.
struct Kept {
    bench: Bench,
    metrics: Arc<Metrics>,
}

impl Kept {
    async fn start() -> Self {
        let metrics = Arc::new(Metrics::new(Timestamp::default(), &["work".to_owned()], 3, &["QUEUE_FULL"]));
        let observers = [Arc::clone(&metrics) as Arc<dyn Observe>].into_iter().collect();
        let bench =
            Bench::with(crate::bench::Kept::Memory, Settings { observers, ..Default::default() }).await;
        Self { bench, metrics }
    }

    async fn text(&self) -> String {
        self.metrics.text(&self.bench.engine)
    }

    /// The value of a series; each has to be there, if only with 0.
    async fn figure(&self, series: &str) -> f64 {
        let text = self.text().await;
        let value = |line: &str| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok();
        text.lines().find_map(value).unwrap_or_else(|| panic!("there is no {series} in:\n{text}"))
    }

    async fn figures<const N: usize>(&self, series: [&str; N]) -> [f64; N] {
        let mut figures = [0.0; N];
        for (figure, series) in figures.iter_mut().zip(series) {
            *figure = self.figure(series).await;
        }
        figures
    }
}

/// The labels of this name that a metric has.
fn labels(text: &str, metric: &str, name: &str) -> BTreeSet<String> {
    let lines = text.lines().filter(|line| line.starts_with(&format!("{metric}{{")));
    let label = |line: &str| line.split_once(&format!("{name}=\""))?.1.split('"').next().map(str::to_owned);
    lines.filter_map(label).collect()
}

async fn fail(bench: &Bench, token: &LeaseToken, failure: Failure) -> State {
    within(bench.engine.fail(token, Some(failure), None)).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_life_is_counted_by_its_steps_and_its_times() {
    let kept = Kept::start().await;
    let bench = &kept.bench;
    bench.start().await;
    bench.pass(3 * SECOND).await;
    let leased = bench.lease().await;
    bench.pass(2 * SECOND).await;

    bench.complete(&leased.token).await;

    let counted = kept.figures([
        r#"longhaul_jobs_started_total{kind="work"}"#,
        r#"longhaul_attempts_started_total{kind="work"}"#,
        r#"longhaul_jobs_ended_total{kind="work",state="SUCCEEDED"}"#,
        r#"longhaul_attempts_ended_total{reason="COMPLETED"}"#,
        r#"longhaul_queue_time_seconds_count{kind="work"}"#,
        r#"longhaul_run_time_seconds_count{kind="work"}"#,
        r#"longhaul_jobs{kind="work",state="SUCCEEDED"}"#,
    ]);
    assert_eq!(counted.await, [1.0; 7]);
    let times =
        ["longhaul_queue_time_seconds_sum{kind=\"work\"}", "longhaul_run_time_seconds_sum{kind=\"work\"}"];
    assert_eq!(kept.figures(times).await, [3.0, 2.0]);
    let buckets = [
        r#"longhaul_run_time_seconds_bucket{le="1.0",kind="work"}"#,
        r#"longhaul_run_time_seconds_bucket{le="5.0",kind="work"}"#,
    ];
    assert_eq!(kept.figures(buckets).await, [0.0, 1.0]);
}

#[tokio::test(start_paused = true)]
async fn a_job_of_two_attempts_waits_once_and_runs_twice() {
    let kept = Kept::start().await;
    let bench = &kept.bench;
    bench.start_with(|options| options.retry.maximum_attempts = 2).await;
    let first = bench.lease().await;
    fail(bench, &first.token, Failure::new("OF_MY_OWN", "it broke")).await;
    bench.pass(60 * SECOND).await;

    let second = bench.lease().await;
    fail(bench, &second.token, Failure::new(reason::EXIT_CODE, "it broke again")).await;

    let counted = kept.figures([
        r#"longhaul_jobs_started_total{kind="work"}"#,
        r#"longhaul_queue_time_seconds_count{kind="work"}"#,
        r#"longhaul_attempts_started_total{kind="work"}"#,
        r#"longhaul_run_time_seconds_count{kind="work"}"#,
        r#"longhaul_jobs_ended_total{kind="work",state="FAILED"}"#,
        r#"longhaul_attempts_ended_total{reason="EXIT_CODE"}"#,
        r#"longhaul_attempts_ended_total{reason="OTHER"}"#,
    ]);
    assert_eq!(counted.await, [1.0, 1.0, 2.0, 2.0, 1.0, 1.0, 1.0]);
    assert!(!kept.text().await.contains("OF_MY_OWN"));
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_the_end_of_a_server_cut_short_is_counted_and_not_measured() {
    let mut kept = Kept::start().await;
    kept.bench.run().await;
    kept.bench.pass(SECOND).await;

    within(kept.bench.engine.close()).await;
    kept.bench.clock.advance(3_600 * SECOND);
    kept.bench.start_again().await;

    let counted = kept.figures([
        r#"longhaul_attempts_started_total{kind="work"}"#,
        r#"longhaul_attempts_ended_total{reason="SERVER_RESTART"}"#,
        r#"longhaul_run_time_seconds_count{kind="work"}"#,
    ]);
    assert_eq!(counted.await, [1.0, 1.0, 0.0]);
}

#[tokio::test(start_paused = true)]
async fn a_worker_cannot_fail_for_a_reason_of_a_good_end() {
    let kept = Kept::start().await;
    kept.bench.start_with(|options| options.retry.maximum_attempts = 1).await;
    let leased = kept.bench.lease().await;

    fail(&kept.bench, &leased.token, Failure::new(reason::COMPLETED, "it is not")).await;

    let counted = kept.figures([
        r#"longhaul_jobs_ended_total{kind="work",state="FAILED"}"#,
        r#"longhaul_attempts_ended_total{reason="COMPLETED"}"#,
        r#"longhaul_attempts_ended_total{reason="OTHER"}"#,
    ]);
    assert_eq!(counted.await, [1.0, 0.0, 1.0]);
}

#[tokio::test(start_paused = true)]
async fn a_job_that_nobody_began_has_an_outcome_and_no_attempt() {
    let kept = Kept::start().await;
    let bench = &kept.bench;
    let cancelled = bench.start().await;
    bench.start_with(|options| options.schedule_to_start_timeout = Some(SECOND)).await;

    within(bench.engine.cancel(cancelled, String::new(), None)).await.unwrap();
    bench.pass(2 * SECOND).await;

    let counted = kept.figures([
        r#"longhaul_jobs_ended_total{kind="work",state="CANCELLED"}"#,
        r#"longhaul_jobs_ended_total{kind="work",state="EXPIRED"}"#,
        r#"longhaul_attempts_started_total{kind="work"}"#,
        r#"longhaul_run_time_seconds_count{kind="work"}"#,
    ]);
    assert_eq!(counted.await, [1.0, 1.0, 0.0, 0.0]);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_is_cancelled_ends_once_when_its_worker_lets_go() {
    let kept = Kept::start().await;
    let leased = kept.bench.run().await;
    let cancelled = kept.bench.engine.cancel(leased.token.job, String::new(), None);
    within(cancelled).await.unwrap();
    assert_eq!(kept.figure(r#"longhaul_run_time_seconds_count{kind="work"}"#).await, 0.0);

    within(kept.bench.engine.fail(&leased.token, None, None)).await.unwrap();

    let counted = kept.figures([
        r#"longhaul_run_time_seconds_count{kind="work"}"#,
        r#"longhaul_attempts_ended_total{reason="WORKER_STOPPED"}"#,
        r#"longhaul_attempts_ended_total{reason="CANCEL_REQUESTED"}"#,
    ]);
    assert_eq!(counted.await, [1.0, 1.0, 0.0]);
}

#[tokio::test(start_paused = true)]
async fn leases_workers_and_watchers_are_counted_while_they_are_there() {
    let kept = Kept::start().await;
    let series = [
        "longhaul_leases",
        r#"longhaul_workers{kind="work"}"#,
        r#"longhaul_watchers{watching="job"}"#,
        r#"longhaul_watchers{watching="jobs"}"#,
    ];
    assert_eq!(kept.figures(series).await, [0.0; 4]);

    let leased = kept.bench.run().await;
    let places = [kept.bench.engine.enlist(&pool()), kept.bench.engine.enlist(&remote())];
    let watches =
        [kept.bench.watch(leased.token.job, None).await, kept.bench.watch(leased.token.job, None).await];
    let many = kept.bench.engine.watch_jobs(
        DEFAULT_TENANT,
        WatchJobsOptions { filter: Arc::default(), minimum_interval: SECOND, initial_jobs: 0 },
    );
    assert_eq!(kept.figures(series).await, [1.0, 1.0, 2.0, 1.0]);

    kept.bench.complete(&leased.token).await;
    drop((places, watches, many));
    assert_eq!(kept.figures(series).await, [0.0; 4]);
}

#[tokio::test(start_paused = true)]
async fn a_commit_tells_how_many_operations_it_had() {
    let kept = Kept::start().await;
    let series = ["longhaul_commit_operations_count", "longhaul_commit_operations_sum"];
    let bench = &kept.bench;
    let [commits, operations] = kept.figures(series).await;
    bench.store.block();
    let mut first = Box::pin(bench.engine.start(named("first")));
    assert!(at_once(&mut first).await.is_none());
    let store = Arc::clone(&bench.store);
    within(tokio::task::spawn_blocking(move || store.wait_for_blocked())).await.unwrap();
    let mut others: Vec<_> = (0..5).map(|n| Box::pin(bench.engine.start(named(&n.to_string())))).collect();
    for other in &mut others {
        assert!(at_once(other).await.is_none());
    }

    bench.store.unblock();
    within(first).await.unwrap();
    for other in others {
        within(other).await.unwrap();
    }

    assert_eq!(kept.figures(series).await, [commits + 2.0, operations + 6.0]);
    let times = r#"longhaul_commit_seconds_count{outcome="committed"}"#;
    assert_eq!(kept.figure(times).await, commits + 2.0);
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_failed_is_counted_apart() {
    let kept = Kept::start().await;
    let series = [
        "longhaul_commits_failed_total",
        r#"longhaul_commit_seconds_count{outcome="failed"}"#,
        r#"longhaul_commit_seconds_count{outcome="committed"}"#,
    ];
    let [.., commits] = kept.figures(series).await;

    kept.bench.store.fail(any, Fault::Unavailable);
    within(kept.bench.engine.start(named("lost"))).await.unwrap_err();

    assert_eq!(kept.figures(series).await, [1.0, 1.0, commits]);
}

#[tokio::test(start_paused = true)]
async fn only_so_many_kinds_have_a_label_of_their_own() {
    let kept = Kept::start().await;
    let extra = 30;
    for n in 0..UNSERVED - 1 + extra {
        kept.bench.start_spec(spec(&format!("kind-{n:04}"))).await;
    }

    let text = kept.text().await;

    let metrics = [
        "longhaul_jobs",
        "longhaul_jobs_started_total",
        "longhaul_jobs_ended_total",
        "longhaul_queue_time_seconds_bucket",
    ];
    for metric in metrics {
        let kinds = labels(&text, metric, "kind");
        assert_eq!(kinds.len(), UNSERVED + 1, "{metric}");
        assert!(kinds.contains("work") && kinds.contains("other") && kinds.contains("kind-0000"), "{metric}");
    }
    let others =
        [r#"longhaul_jobs_started_total{kind="other"}"#, r#"longhaul_jobs{kind="other",state="PENDING"}"#];
    assert_eq!(kept.figures(others).await, [extra as f64; 2]);
    assert_eq!(kept.figure(r#"longhaul_jobs{kind="kind-0007",state="PENDING"}"#).await, 1.0);
}

#[tokio::test(start_paused = true)]
async fn some_labels_are_kept_for_kinds_that_a_worker_serves() {
    let kept = Kept::start().await;
    for n in 0..KINDS_MAX {
        kept.bench.start_spec(spec(&format!("invented-{n:04}"))).await;
    }
    for n in 0..SERVED_KINDS + 1 {
        let kind = format!("served-{n:04}");
        kept.bench.start_spec(spec(&kind)).await;
        kept.bench.lease_for(&Worker { kinds: [kind].into(), ..pool() }).await;
    }

    let kinds = labels(&kept.text().await, "longhaul_attempts_started_total", "kind");

    assert_eq!(kinds.len(), KINDS_MAX + 1);
    assert_eq!(kinds.iter().filter(|kind| kind.starts_with("served-")).count(), SERVED_KINDS);
    assert_eq!(kept.figure(r#"longhaul_attempts_started_total{kind="served-0000"}"#).await, 1.0);
    assert_eq!(kept.figure(r#"longhaul_attempts_started_total{kind="other"}"#).await, 1.0);
}

#[tokio::test(start_paused = true)]
async fn what_a_worker_says_that_it_can_run_takes_no_label() {
    let kept = Kept::start().await;
    let invented: Vec<String> = (0..KINDS_MAX).map(|n| format!("invented-{n:04}")).collect();
    let place = kept.bench.engine.enlist(&Worker { kinds: invented.into(), ..remote() });
    assert_eq!(kept.figure(r#"longhaul_workers{kind="other"}"#).await, 1.0);

    kept.bench.start_spec(spec("later")).await;

    assert_eq!(kept.figure(r#"longhaul_jobs{kind="later",state="PENDING"}"#).await, 1.0);
    assert_eq!(labels(&kept.text().await, "longhaul_workers", "kind").len(), 3);
    drop(place);
}

#[tokio::test(start_paused = true)]
async fn a_scrape_gives_no_label_to_what_it_finds() {
    let kept = Kept::start().await;
    let counts = |kind: String, jobs| Count { kind, state: State::Failed, jobs };
    let mut known: Vec<Count> = (0..2 * KINDS_MAX).map(|n| counts(format!("kind-{n:04}"), 1)).collect();
    known.push(counts("zebra".into(), 1));
    known.push(Count { state: State::Pending, ..counts("zebra".into(), 1) });
    kept.metrics.remember(&known);

    let kinds = labels(&kept.text().await, "longhaul_jobs", "kind");

    assert_eq!(kinds.len(), UNSERVED);
    assert!(["work", "zebra", "kind-0000"].iter().all(|kind| kinds.contains(*kind)), "{kinds:?}");
    assert_eq!(labels(&kept.text().await, "longhaul_jobs", "kind"), kinds);
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_is_called_as_all_others_are_is_one_of_them() {
    let kept = Kept::start().await;
    // As many as are added up without a label come after it.
    let many = (0..10_500).map(|n| spec(&format!("z-{n:05}")));
    kept.bench.start_spec(spec("other")).await;
    within(kept.bench.engine.start_all(many.collect())).await.unwrap();

    let others =
        [r#"longhaul_jobs_started_total{kind="other"}"#, r#"longhaul_jobs{kind="other",state="PENDING"}"#];

    let unlabelled = (1 + 10_500 - (UNSERVED - 1)) as f64;
    let cut = (10_000 - (UNSERVED - 1)) as f64;
    assert_eq!(kept.figures(others).await, [unlabelled, cut]);
}

#[tokio::test(start_paused = true)]
async fn a_kind_with_a_label_is_counted_right_however_many_others_there_are() {
    let kept = Kept::start().await;
    // As many as are added up without a label come before it.
    let many = (0..10_500).map(|n| spec(&format!("kind-{n:05}")));
    within(kept.bench.engine.start_all(many.collect())).await.unwrap();
    kept.bench.start().await;
    kept.bench.run().await;

    let counted = kept.figures([
        r#"longhaul_jobs{kind="work",state="PENDING"}"#,
        r#"longhaul_jobs{kind="work",state="RUNNING"}"#,
        r#"longhaul_jobs{kind="kind-00000",state="PENDING"}"#,
    ]);

    assert_eq!(counted.await, [1.0; 3]);
    assert_eq!(labels(&kept.text().await, "longhaul_jobs", "kind").len(), UNSERVED + 1);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_counted_by_its_reason_where_that_is_known() {
    let kept = Kept::start().await;

    for reason in ["QUEUE_FULL", "QUEUE_FULL", "ANYTHING", "AT_ALL"] {
        kept.metrics.refused(reason);
    }

    let series =
        [r#"longhaul_refusals_total{reason="QUEUE_FULL"}"#, r#"longhaul_refusals_total{reason="OTHER"}"#];
    assert_eq!(kept.figures(series).await, [2.0, 2.0]);
    assert_eq!(labels(&kept.text().await, "longhaul_refusals_total", "reason").len(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_text_ends_as_its_format_asks() {
    let kept = Kept::start().await;

    let text = kept.text().await;

    assert!(text.ends_with("# EOF\n"), "{text}");
    assert!(text.contains("# UNIT longhaul_run_time_seconds seconds\n"));
}

#[tokio::test(start_paused = true)]
async fn many_who_ask_at_once_get_one_text_and_another_a_moment_later() {
    let kept = Kept::start().await;
    let scrapes = Scrapes::new(kept.bench.engine.clone(), Arc::clone(&kept.metrics));
    let asked = || join_all((0..64).map(|_| scrapes.text()));

    let texts: BTreeSet<_> = within(asked()).await.into_iter().map(|text| text.unwrap().as_ptr()).collect();
    assert_eq!((texts.len(), kept.bench.store.counts()), (1, 1));
    kept.bench.start().await;
    within(asked()).await;
    assert_eq!(kept.bench.store.counts(), 1);
    kept.bench.pass(SECOND).await;

    let later = within(scrapes.text()).await.unwrap();
    assert_eq!(kept.bench.store.counts(), 2);
    let later = std::str::from_utf8(&later).unwrap();
    assert!(later.contains(r#"longhaul_jobs{kind="work",state="PENDING"} 1"#), "{later}");
}

#[tokio::test(start_paused = true)]
async fn one_text_is_made_at_a_time_though_who_asked_for_it_is_gone() {
    let kept = Kept::start().await;
    let scrapes = Scrapes::new(kept.bench.engine.clone(), Arc::clone(&kept.metrics));
    for _ in 0..10 {
        let mut gone = Box::pin(scrapes.text());
        assert!(futures_util::poll!(&mut gone).is_pending() || kept.bench.store.counts() == 1);
    }

    within(scrapes.text()).await.unwrap();

    assert_eq!(kept.bench.store.counts(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_changed_nothing_is_not_counted() {
    let kept = Kept::start().await;
    let leased = kept.bench.run().await;
    kept.bench.complete(&leased.token).await;
    let series =
        ["longhaul_commit_operations_count", r#"longhaul_commit_seconds_count{outcome="committed"}"#];
    let before = kept.figures(series).await;

    within(kept.bench.engine.cancel(leased.token.job, String::new(), None)).await.unwrap();
    kept.bench.settle().await;

    assert_eq!(kept.figures(series).await, before);
}

#[tokio::test(start_paused = true)]
async fn a_start_is_measured_however_it_ends() {
    let kept = Kept::start().await;
    let api = Jobs::new(kept.bench.engine.clone()).measured(Arc::clone(&kept.metrics));
    let request = |kind: &str| StartJobRequest {
        kind: kind.into(),
        payload: Some(start_job_request::Payload::InputJson("{}".into())),
        ..Default::default()
    };

    within(api.start(request("work"), None)).await.unwrap();
    within(api.start(request("No Such Kind"), None)).await.unwrap_err();
    kept.bench.store.block();
    assert!(at_once(api.start(request("work"), None)).await.is_none());
    kept.bench.store.unblock();

    let counted = kept.figures([
        r#"longhaul_start_job_seconds_count{outcome="started"}"#,
        r#"longhaul_start_job_seconds_count{outcome="failed"}"#,
    ]);
    assert_eq!(counted.await, [1.0, 2.0]);
}
