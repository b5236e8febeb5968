use super::fake::{Fake, Said};
use super::*;
use crate::job::limits::*;
use crate::job::{LogLevel, Metrics, Progress};
use async_trait::async_trait;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::time::Instant;

/// A handler that is a function.
struct Does<F>(F);

#[async_trait]
impl<F, R> Handler for Does<F>
where
    F: Fn(Arc<Running>) -> R + Send + Sync + 'static,
    R: Future<Output = Result<Bytes, Failure>> + Send,
{
    async fn run(&self, context: &Context) -> Result<Bytes, Failure> {
        let running =
            Arc::new(Running { cancelled: context.cancelled().clone(), attempt: context.assignment.attempt });
        (self.0)(running).await
    }
}

/// What such a function may want to know.
struct Running {
    cancelled: CancellationToken,
    attempt: u32,
}

fn pool<F, R>(source: &Fake, slots: usize, handler: F) -> Pool<Fake>
where
    F: Fn(Arc<Running>) -> R + Send + Sync + 'static,
    R: Future<Output = Result<Bytes, Failure>> + Send + 'static,
{
    Pool::start(source.clone(), Registry::default().with("work", Does(handler)), slots)
}

fn done() -> Result<Bytes, Failure> {
    Ok(Bytes::from_static(b"{}"))
}

/// Lets every task do what it can at this moment.
async fn settle() {
    tokio::time::sleep(Duration::from_nanos(1)).await;
}

#[tokio::test(start_paused = true)]
async fn no_more_jobs_run_at_once_than_there_are_slots() {
    let (source, at_once, most) =
        (Fake::default(), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counts = (Arc::clone(&at_once), Arc::clone(&most));
    let pool = pool(&source, 3, move |_| {
        let (at_once, most) = (Arc::clone(&counts.0), Arc::clone(&counts.1));
        async move {
            most.fetch_max(at_once.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_secs(1)).await;
            at_once.fetch_sub(1, Ordering::SeqCst);
            done()
        }
    });

    for _ in 0..10 {
        source.offer("work", "{}", 1);
    }
    tokio::time::sleep(Duration::from_secs(10)).await;
    pool.drain(Duration::from_secs(1)).await;

    assert_eq!(most.load(Ordering::SeqCst), 3);
    assert_eq!(source.said(), vec![Said::Completed("{}".to_owned()); 10]);
    assert!(source.asked().iter().all(|count| (1..=3).contains(count)), "{:?}", source.asked());
}

#[tokio::test(start_paused = true)]
async fn a_panic_ends_its_own_job_only() {
    let source = Fake::default();
    let pool = pool(&source, 1, |running| async move {
        assert!(running.attempt > 1, "the first one panics");
        done()
    });

    source.offer("work", "{}", 1);
    source.offer("work", "{}", 2);
    settle().await;
    pool.drain(Duration::from_secs(1)).await;

    let said = source.said();
    let Said::Failed(failure) = &said[0] else { panic!("{said:?}") };
    assert_eq!((failure.reason.as_ref(), failure.permanent), (reason::PANIC, false));
    assert!(failure.message.contains("the first one panics"), "{}", failure.message);
    assert_eq!(said[1..], [Said::Completed("{}".to_owned())]);
}

#[tokio::test(start_paused = true)]
async fn what_a_handler_fails_of_is_recorded() {
    let source = Fake::default();
    let failure = Failure::new("PROVIDER_REFUSED", "no").permanent();
    let returned = failure.clone();
    let _pool = pool(&source, 1, move |_| std::future::ready(Err(returned.clone())));

    source.offer("work", "{}", 1);

    assert_eq!(source.end().await, Said::Failed(failure));
}

#[tokio::test(start_paused = true)]
async fn what_is_returned_after_a_cancellation_does_not_count() {
    let source = Fake::default();
    let _pool = pool(&source, 1, |running| async move {
        running.cancelled.cancelled().await;
        done()
    });

    let orders = source.offer("work", "{}", 1);
    settle().await;
    orders.send(Order::Cancel { grace: Duration::from_secs(10) }).unwrap();

    assert_eq!(source.end().await, Said::Stopped);
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_does_not_listen_ends_with_its_lease() {
    let source = Fake::default();
    let pool = pool(&source, 1, |running| async move {
        if running.attempt == 1 {
            std::future::pending::<()>().await;
        }
        done()
    });

    let orders = source.offer("work", "{}", 1);
    settle().await;
    orders.send(Order::Cancel { grace: Duration::from_secs(10) }).unwrap();
    settle().await;
    assert_eq!(source.said(), []);
    orders.send(Order::Lost).unwrap();
    source.offer("work", "{}", 2);
    settle().await;
    pool.drain(Duration::from_secs(1)).await;

    // Nothing of the first: it has no lease to say it under.
    assert_eq!(source.said(), [Said::Completed("{}".to_owned())]);
}

#[tokio::test(start_paused = true)]
async fn a_source_that_is_gone_ends_the_handler() {
    let source = Fake::default();
    let pool = pool(&source, 1, |_| std::future::pending());

    drop(source.offer("work", "{}", 1));
    settle().await;
    source.leave();

    let began = Instant::now();
    pool.drain(Duration::from_secs(60)).await;
    assert_eq!((source.said(), began.elapsed()), (vec![], Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn a_drain_waits_for_what_runs_and_leases_no_more() {
    let source = Fake::default();
    let pool = pool(&source, 2, |_| async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        done()
    });
    let began = Instant::now();
    source.offer("work", "{}", 1);
    settle().await;

    let later = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        source.offer("work", "{}", 1);
    };
    tokio::join!(later, pool.drain(Duration::from_secs(30)));

    assert_eq!(began.elapsed().as_secs(), 5);
    assert_eq!(source.said(), [Said::Completed("{}".to_owned())]);
}

#[tokio::test(start_paused = true)]
async fn what_a_drain_cannot_wait_for_is_given_back() {
    let source = Fake::default();
    let pool = pool(&source, 1, |_| std::future::pending());
    source.offer("work", "{}", 1);
    settle().await;

    let began = Instant::now();
    pool.drain(Duration::from_secs(30)).await;

    assert_eq!(began.elapsed().as_secs(), 30);
    assert_eq!(source.said(), [Said::Interrupted]);
}

#[tokio::test(start_paused = true)]
async fn an_end_of_unknown_outcome_is_recorded_again_and_a_refused_one_is_not() {
    let source = Fake::default();
    let _pool = pool(&source, 1, |_| std::future::ready(done()));

    source.fail_end(Error::Transient("a flush failed".to_owned()));
    source.fail_end(Error::Transient("the disk is full".to_owned()));
    source.offer("work", "{}", 1);
    assert_eq!(source.end().await, Said::Completed("{}".to_owned()));

    source.fail_end(Error::Lost("the lease has ended".to_owned()));
    source.offer("work", "{}", 2);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(source.said().len(), 1, "{:?}", source.said());
}

#[tokio::test(start_paused = true)]
async fn a_source_that_cannot_lease_is_asked_again_less_and_less_often() {
    let source = Fake::default();
    for _ in 0..8 {
        source.fail_lease(Error::Transient("the disk is full".to_owned()));
    }
    let began = Instant::now();
    let _pool = pool(&source, 1, |_| std::future::ready(done()));

    source.offer("work", "{}", 1);
    source.end().await;

    // 50, 100, 200 … ms, and no more than 2 s at a time; each at least half of that.
    let longest = 50 + 100 + 200 + 400 + 800 + 1600 + 2000 + 2000;
    assert!((longest / 2..=longest).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_result_beyond_the_limit_is_a_failure_that_no_retry_helps() {
    let source = Fake::default();
    let _pool = pool(&source, 1, |_| std::future::ready(Ok(vec![b' '; RESULT_BYTES_MAX + 1].into())));

    source.offer("work", "{}", 1);

    let Said::Failed(failure) = source.end().await else { panic!("{:?}", source.said()) };
    assert_eq!((failure.reason.as_ref(), failure.permanent), ("RESULT_TOO_LARGE", true));
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_recorded_however_long_or_odd_it_is() {
    let source = Fake::default();
    let odd = Failure { details: Some("[1]".into()), ..Failure::new("no luck", "x".repeat(1 << 20)) };
    let _pool = pool(&source, 1, move |_| std::future::ready(Err(odd.clone())));

    source.offer("work", "{}", 1);

    let Said::Failed(failure) = source.end().await else { panic!("{:?}", source.said()) };
    assert_eq!((failure.reason.as_ref(), failure.details), ("NO_LUCK", None));
    assert_eq!(failure.message.len(), FAILURE_MESSAGE_BYTES_MAX);
}

#[tokio::test(start_paused = true)]
async fn details_that_are_refused_do_not_cost_the_failure() {
    let source = Fake::default();
    let failure = Failure { details: Some(r#"{"a":1}"#.into()), ..Failure::new("X", "why") };
    let _pool = pool(&source, 1, move |_| std::future::ready(Err(failure.clone())));

    source.fail_end(Error::Refused("failure.details: too many".to_owned()));
    source.offer("work", "{}", 1);

    assert_eq!(source.end().await, Said::Failed(Failure::new("X", "why")));
}

#[tokio::test(start_paused = true)]
async fn output_that_cannot_be_recorded_fails_the_attempt() {
    for (error, reason, permanent) in [
        (Error::OutputLimit("too much".to_owned()), "OUTPUT_LIMIT", true),
        (Error::OutputConflict("other bytes".to_owned()), "OUTPUT_CONFLICT", false),
    ] {
        let source = Fake::default();
        let _pool = pool(&source, 1, |_| std::future::ready(done()));

        source.fail_end(error);
        source.offer("work", "{}", 1);

        let Said::Failed(failure) = source.end().await else { panic!("{:?}", source.said()) };
        assert_eq!((failure.reason.as_ref(), failure.permanent), (reason, permanent));
    }
}

#[tokio::test(start_paused = true)]
async fn a_drain_does_not_wait_for_a_source_that_is_away() {
    let source = Fake::default();
    let pool = pool(&source, 1, |_| std::future::ready(done()));
    for _ in 0..1_000 {
        source.fail_end(Error::Transient("away".to_owned()));
    }
    source.offer("work", "{}", 1);
    settle().await;

    let began = Instant::now();
    pool.drain(Duration::from_secs(30)).await;

    assert!((30..35).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_result_that_is_not_json_is_a_failure_that_no_retry_helps() {
    let source = Fake::default();
    let _pool = pool(&source, 1, |_| std::future::ready(Ok(Bytes::from_static(b"{"))));

    source.offer("work", "{}", 1);

    let Said::Failed(failure) = source.end().await else { panic!("{:?}", source.said()) };
    assert_eq!((failure.reason.as_ref(), failure.permanent), ("INVALID_RESULT", true));
}

#[tokio::test(start_paused = true)]
async fn no_slots_lease_nothing() {
    let source = Fake::default();
    let pool = pool(&source, 0, |_| std::future::ready(done()));

    source.offer("work", "{}", 1);
    settle().await;
    pool.drain(Duration::from_secs(1)).await;

    assert_eq!(source.asked(), Vec::<usize>::new());
}

fn context(source: &Fake, input: &str) -> Context {
    source.offer("work", input, 1);
    let job = leased(source);
    Context::new(job.assignment, job.token, Arc::new(source.clone()))
}

/// The job that was offered, at once.
fn leased(source: &Fake) -> LeasedJob {
    let kinds: Arc<[String]> = [].into();
    let lease = pin!(source.lease(&kinds, 1));
    match lease.poll(&mut std::task::Context::from_waker(std::task::Waker::noop())) {
        Poll::Ready(Ok(mut leased)) => leased.remove(0),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_is_too_long_for_people_is_cut_at_a_character() {
    let source = Fake::default();
    let context = context(&source, "{}");

    context.stage(&"ä".repeat(STAGE_CHARACTERS_MAX + 5)).await.unwrap();
    context.log(LogLevel::Info, "ä".repeat(LOG_LINE_BYTES_MAX)).await.unwrap();
    context.log(LogLevel::Warn, "second").await.unwrap();

    let said = source.said();
    assert_eq!(said[0], Said::Stage("ä".repeat(STAGE_CHARACTERS_MAX)));
    let (Said::Log(0, first), Said::Log(1, _)) = (&said[1], &said[2]) else { panic!("{said:?}") };
    assert_eq!(first.message.len(), LOG_LINE_BYTES_MAX);
}

#[tokio::test]
async fn more_measurements_than_are_kept_are_refused() {
    let context = context(&Fake::default(), "{}");
    let many: Metrics = (0..=METRICS_MAX).map(|n| (n.to_string(), 1.0)).collect();

    assert!(context.metrics(many).unwrap_err().permanent);
    assert!(context.metrics(Metrics::from([("x".repeat(NAME_CHARACTERS_MAX + 1), 1.0)])).is_err());
}

#[tokio::test]
async fn what_is_no_number_is_left_out() {
    let source = Fake::default();
    let context = context(&source, "{}");

    context.metrics([("a".to_owned(), f64::NAN), ("b".to_owned(), 1.0)].into()).unwrap();
    context.progress(Progress { fraction: Some(f64::NAN), completed: -1, ..Default::default() }).unwrap();

    let said = source.said();
    assert_eq!(said[0], Said::Metrics([("b".to_owned(), 1.0)].into()));
    assert_eq!(said[1], Said::Progress(Progress::default()));
}

#[tokio::test]
async fn an_input_that_cannot_be_used_is_a_failure_that_names_the_field() {
    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Input {
        #[expect(dead_code, reason = "only its name matters")]
        seconds: Vec<f64>,
    }
    let cases = [
        (r#"{"secods": [1]}"#, "secods: unknown field `secods`"),
        (r#"{"seconds": [1, "x"]}"#, "seconds[1]: invalid type: string"),
        ("{}", "missing field `seconds`"),
    ];
    for (input, beginning) in cases {
        let failure = context(&Fake::default(), input).parse_input::<Input>().unwrap_err();

        assert_eq!((failure.reason.as_ref(), failure.permanent), ("INVALID_INPUT", true));
        assert!(failure.message.starts_with(beginning), "{}", failure.message);
    }
}

/// Writes, records, and tries what cannot be.
struct Records;

#[async_trait]
impl Handler for Records {
    async fn run(&self, context: &Context) -> Result<Bytes, Failure> {
        assert_eq!(context.last_checkpoint().map(|data| &data[..]), Some(&b"four"[..]));
        context.output_to("reasoning", "hm").await?;
        context.output("five ").await?;
        context.checkpoint("five", context.output_bytes()).await?;
        let large = context.checkpoint(vec![0; CHECKPOINT_BYTES_MAX + 1], 0).await.unwrap_err();
        let ahead = context.checkpoint("six", context.output_bytes() + 1).await.unwrap_err();
        Ok(format!(r#"["{}","{}"]"#, large.message, ahead.message).into())
    }
}

#[tokio::test(start_paused = true)]
async fn a_handler_goes_on_from_a_checkpoint_and_records_the_next() {
    let source = Fake::default();
    let _pool = Pool::start(source.clone(), Registry::default().with("work", Records), 1);

    source.offer_from("work", "{}", 2, "four", 4);
    let end = source.end().await;

    let refused = r#"["a checkpoint is 262145 bytes; the limit is 262144","a checkpoint keeps 10 bytes of output; there are 9"]"#;
    assert_eq!(end, Said::Completed(refused.into()));
    let recorded: Vec<Said> =
        source.said().into_iter().filter(|said| matches!(said, Said::Checkpoint(..))).collect();
    assert_eq!(recorded, [Said::Checkpoint("five".into(), 9)]);
}

#[tokio::test(start_paused = true)]
async fn behind_a_closed_gate_jobs_wait_and_what_runs_goes_on() {
    let (source, gate, start) = (Fake::default(), Gate::default(), Instant::now());
    let registry = Registry::default().with(
        "work",
        Does(|_| async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            done()
        }),
    );
    let _pool = Pool::start_behind(gate.clone(), source.clone(), registry, 2);
    source.offer("work", "{}", 1);
    settle().await;

    gate.close(Duration::from_secs(30));
    settle().await;
    source.offer("work", "{}", 1);
    tokio::time::sleep(Duration::from_secs(60)).await;

    let ends: Vec<_> = source.times().iter().map(|time| time.duration_since(start).as_secs()).collect();
    assert_eq!(ends, [1, 31]);
}

#[tokio::test(start_paused = true)]
async fn a_source_rests_once_for_each_time_that_the_gate_closes_while_jobs_are_waited_for() {
    let (source, gate) = (Fake::default(), Gate::default());
    let registry = Registry::default().with("work", Does(|_| std::future::ready(done())));
    let _pool = Pool::start_behind(gate.clone(), source.clone(), registry, 2);
    settle().await;

    for pauses in 1..=3 {
        gate.close(Duration::from_secs(30));
        settle().await;
        assert_eq!((source.rests(), source.asked().len()), (pauses, pauses));
        gate.opened().await;
        settle().await;
        assert_eq!((source.rests(), source.asked().len()), (pauses, pauses + 1), "it is asked again");
    }
}
