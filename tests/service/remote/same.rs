//! What a handler does comes to the same end in the server's process and elsewhere.

use super::*;

/// Puts a server with a job, and lets a test see its end: once with the slots of the server, once with a worker elsewhere.
async fn here_and_elsewhere(
    options: JobOptions,
    acts: impl AsyncFn(&Strings),
    check: impl Fn(&str, &StateChange),
) {
    for place in ["here", "elsewhere"] {
        let (handler, strings) = puppet();
        let registry = Registry::default().with(KIND, handler);
        let (slots, registry, far) = match place {
            "here" => (1, registry, None),
            _ => (0, Registry::default(), Some(registry)),
        };
        let server = Server::with(registry, |options| {
            options.slots = Some(slots);
            options.lease_duration = Some(Time(Duration::from_secs(3)));
        })
        .await;
        let _pool = far.map(|registry| worker(&server, registry));
        let mut client = server.client().await;
        let options = Some(options.clone());
        let job = ok(client.start_job(StartJobRequest { options, ..start(KIND, "{}") })).await;

        acts(&strings).await;
        let history = kept(&to_the_end(ok(client.watch_job(watch(&job, 0))).await).await);

        check(place, &last(&history));
    }
}

fn once() -> JobOptions {
    let retry_policy = Some(RetryPolicy { maximum_attempts: 1, ..Default::default() });
    JobOptions { retry_policy, ..Default::default() }
}

#[tokio::test]
async fn a_job_that_has_reported_once_and_is_silent_then_stalls() {
    let timeout = Some(prost_types::Duration { seconds: 2, nanos: 0 });
    let silent = async |strings: &Strings| {
        strings.pull(Act::Progress(0.5)).await.unwrap();
        strings.pull(Act::Metric("tokens", 1.0)).await.unwrap();
        // Until it is dropped.
        strings.pull(Act::Hang).await.unwrap();
    };

    here_and_elsewhere(JobOptions { progress_timeout: timeout, ..once() }, silent, |place, last| {
        assert_eq!((last.state(), last.reason.as_str()), (State::Failed, "STALLED"), "{place}");
    })
    .await;
}

#[tokio::test]
async fn a_failure_that_is_too_long_ends_its_job() {
    let fails = async |strings: &Strings| {
        let failure = Failure {
            details: Some(format!("[{}]", "1,".repeat(20_000)).into()),
            ..Failure::new("no luck", "x".repeat(1 << 20)).permanent()
        };
        let _ = strings.pull(Act::Return(Err(failure))).await;
    };

    here_and_elsewhere(once(), fails, |place, last| {
        assert_eq!((last.state(), last.reason.as_str()), (State::Failed, "NO_LUCK"), "{place}");
    })
    .await;
}

#[tokio::test]
async fn more_channels_than_there_may_be_are_a_failure_for_good() {
    let writes = async |strings: &Strings| {
        for name in ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"] {
            // Elsewhere the refusal comes later, or not before the end.
            if let Err(failure) = strings.pull(Act::Output(name, "text".into())).await {
                let _ = strings.pull(Act::Return(Err(failure))).await;
                return;
            }
        }
        strings.succeed("{}").await;
    };

    here_and_elsewhere(JobOptions::default(), writes, |place, last| {
        assert_eq!((last.state(), last.reason.as_str()), (State::Failed, "OUTPUT_LIMIT"), "{place}");
    })
    .await;
}

#[tokio::test]
async fn a_measurement_that_is_no_number_costs_no_success() {
    let measures = async |strings: &Strings| {
        strings.pull(Act::Metric("loss", f64::NAN)).await.unwrap();
        for number in 0..70 {
            strings.pull(Act::Metric(format!("m{number}").leak(), 1.0)).await.unwrap();
        }
        strings.succeed("{}").await;
    };

    here_and_elsewhere(once(), measures, |place, last| {
        assert_eq!((last.state(), last.metrics.len()), (State::Succeeded, 64), "{place}");
    })
    .await;
}

#[tokio::test]
async fn a_result_that_is_no_json_is_none() {
    let returns = async |strings: &Strings| strings.succeed("{").await;

    here_and_elsewhere(JobOptions::default(), returns, |place, last| {
        assert_eq!((last.state(), last.reason.as_str()), (State::Failed, "INVALID_RESULT"), "{place}");
    })
    .await;
}
