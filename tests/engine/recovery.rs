//! What a new process makes of what the last one left.

use crate::lab::*;
use longhaul::job::*;
use std::time::Duration;

#[tokio::test]
async fn an_attempt_that_ended_with_its_process_runs_again_and_does_not_count() {
    let lab = Lab::new().await;
    let first = lab.start_and_run(plain()).await;
    let id = first.token.job;
    within(lab.engine.append_output(&first.token, "", "half a sen".into())).await.unwrap();

    let lab = lab.crash().await;
    let second = lab.run().await;

    let job = &second.snapshot.job;
    assert_eq!((second.token.job, job.attempt, job.counted_attempts, job.restarts), (id, 2, 1, 1));
    let reasons: Vec<_> = steps(&lab.history(id).await).into_iter().map(|(_, reason)| reason).collect();
    assert!(reasons.contains(&"SERVER_RESTART".to_owned()), "{reasons:?}");
    within(lab.engine.complete(&second.token, "{}".into())).await.unwrap();
    assert!(lab.engine.complete(&first.token, "{}".into()).await.is_err());
}

#[tokio::test]
async fn a_job_that_takes_its_server_down_does_not_do_so_for_ever() {
    let mut lab = Lab::new().await;
    let id = lab.start(plain()).await;

    for _ in 0..10 {
        lab.run().await;
        lab = lab.crash().await;
        assert_eq!(lab.job(id).await.state, State::Pending);
    }
    lab.run().await;
    let lab = lab.crash().await;

    let job = lab.job(id).await;
    assert_eq!(job.state, State::Failed);
    assert_eq!(job.failure.unwrap().reason, reason::SERVER_RESTART);
}

#[tokio::test]
async fn a_worker_elsewhere_keeps_its_lease_over_a_restart() {
    let lab = Lab::new().await;
    lab.start(plain()).await;
    let leased = within(lab.engine.lease(&worker(false), 1)).await.unwrap().remove(0);
    within(lab.engine.enter_stage(&leased.token, "begun".into())).await.unwrap();

    let lab = lab.crash().await;
    within(lab.engine.enter_stage(&leased.token, "goes on".into())).await.unwrap();
    within(lab.engine.complete(&leased.token, "{}".into())).await.unwrap();

    let steps = steps(&lab.history(leased.token.job).await);
    assert_eq!(steps.last().unwrap().0, State::Succeeded);
    assert!(!steps.iter().any(|(_, reason)| reason == "SERVER_RESTART"), "{steps:?}");
}

#[tokio::test]
async fn what_became_due_while_nobody_was_there_is_done_at_the_start() {
    let lab = Lab::new().await;
    let later = START.after(Duration::from_secs(60));
    lab.start(spec(|options| options.schedule_time = Some(later))).await;

    let clock = lab.clock.clone();
    clock.advance(Duration::from_secs(61));
    let lab = lab.crash().await;

    lab.run().await;
}
