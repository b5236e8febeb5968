//! What happened to a job, from any point on: in order, without a gap, to the end and no further.

use crate::bench::*;
use longhaul::engine::{Error, Form, Message, SharedBody, SharedEvent, WatchOptions};
use longhaul::job::*;
use longhaul::store::{Operation, Store};
use rstest::rstest;
use std::sync::{Arc, Weak};

/// Two attempts that say something in every way.
async fn live_through(bench: &Bench, job: JobId) {
    let first = bench.lease().await.token;
    bench.write(&first, "one").await;
    bench.engine.report(&first, progress(0.5), [("tokens".to_owned(), 1.0)].into()).unwrap();
    within(bench.engine.append_log(&first, 0, line("two"))).await.unwrap();
    within(bench.engine.fail(&first, failure(), None)).await.unwrap();
    bench.pass(2 * SECOND).await;
    let second = bench.lease().await.token;
    assert_eq!(second.job, job);
    within(bench.engine.enter_stage(&second, "three".into())).await.unwrap();
    for n in 0..100 {
        within(bench.engine.append_log(&second, n, line("four"))).await.unwrap();
    }
    bench.write(&second, "five").await;
    bench.complete(&second).await;
}

#[rstest]
#[tokio::test(start_paused = true)]
async fn a_watch_from_the_beginning_is_the_whole_history(
    #[values(Kept::Memory, Kept::Sqlite)] kept_in: Kept,
) {
    let bench = Bench::on(kept_in).await;
    let job = bench.start().await;
    let engine = bench.engine.clone();
    let options = WatchOptions { after: Some(0), ..options() };
    let live = tokio::spawn(async move { to_the_end(engine.watch(job, options).await.unwrap()).await });

    live_through(&bench, job).await;

    let history = bench.history(job).await;
    assert_eq!(kept(&within(live).await.unwrap()), history);
    assert_eq!(kept(&to_the_end(bench.watch(job, Some(0)).await).await), history);
}

#[rstest]
#[tokio::test(start_paused = true)]
async fn a_watch_resumes_after_any_message(#[values(Kept::Memory, Kept::Sqlite)] kept_in: Kept) {
    let bench = Bench::on(kept_in).await;
    let job = bench.start().await;
    let engine = bench.engine.clone();
    let options = WatchOptions { after: Some(0), ..options() };
    let live = tokio::spawn(async move { to_the_end(engine.watch(job, options).await.unwrap()).await });
    live_through(&bench, job).await;
    let seen = within(live).await.unwrap();

    let history = bench.history(job).await;
    for message in seen {
        let resumed = to_the_end(bench.watch(job, Some(message.sequence)).await).await;
        assert_eq!(kept(&resumed), history[message.sequence as usize..], "after {}", message.sequence);
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_message_is_the_job_and_where_it_is() {
    let bench = Bench::new().await;
    let job = bench.run().await.token.job;
    for (after, wanted) in [(None, 2), (Some(0), 0), (Some(1), 1)] {
        let mut watch = within(bench.engine.watch(job, WatchOptions { after, ..options() })).await.unwrap();

        let first = within(watch.next()).await.unwrap().unwrap();

        let Message::Snapshot { snapshot, cursor } = first else { panic!("{first:?}") };
        assert_eq!((snapshot.job.state, snapshot.job.sequence(), cursor), (State::Running, 2, wanted));
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_of_a_job_that_has_ended_ends() {
    let bench = Bench::new().await;
    let token = bench.run().await.token;
    bench.complete(&token).await;

    assert!(to_the_end(bench.watch(token.job, None).await).await.is_empty());
    assert!(to_the_end(bench.watch(token.job, Some(3)).await).await.is_empty());
    let last = to_the_end(bench.watch(token.job, Some(2)).await).await;
    assert_eq!(reasons(&kept(&last)), [reason::COMPLETED]);
}

#[tokio::test(start_paused = true)]
async fn a_watch_goes_on_until_the_job_has_ended() {
    let bench = Bench::new().await;
    let leased = bench.run().await;
    let mut watch = bench.watch(leased.token.job, None).await;

    within(bench.engine.cancel(leased.token.job, String::new(), None)).await.unwrap();
    assert_eq!(reasons(&kept(&drain(&mut watch).await)), [reason::CANCEL_REQUESTED]);
    assert!(at_once(watch.next()).await.is_none());
    bench.pass(10 * SECOND).await;

    assert_eq!(reasons(&kept(&to_the_end(watch).await)), [reason::GRACE_PERIOD_ENDED]);
}

#[tokio::test(start_paused = true)]
async fn there_is_no_watch_of_no_job_nor_from_ahead_of_it() {
    let bench = Bench::new().await;
    let job = bench.start().await;
    let nobody = JobId::new(Timestamp::default(), 1, 1);

    let unknown = within(bench.engine.watch(nobody, options())).await.err();
    let ahead = within(bench.engine.watch(job, WatchOptions { after: Some(2), ..options() })).await.err();

    assert_eq!(unknown, Some(Error::NotFound));
    assert_eq!(ahead, Some(Error::AheadOfJob { after: 2, sequence: 1 }));
}

#[tokio::test(start_paused = true)]
async fn output_is_left_out_where_it_is_not_wanted() {
    let bench = Bench::new().await;
    let job = bench.start().await;
    let watch = bench.watch_with(job, WatchOptions { after: Some(0), omit_output: true, ..options() }).await;

    live_through(&bench, job).await;

    let seen = kept(&to_the_end(watch).await);
    let is_output =
        |event: &Event| matches!(event.body, Body::OutputAppended { .. } | Body::OutputReset { .. });
    let history = bench.history(job).await;
    assert!(history.iter().any(is_output));
    let wanted: Vec<Event> = history.into_iter().filter(|event| !is_output(event)).collect();
    assert_eq!(seen, wanted);
}

#[rstest]
#[case::to_a_watcher_that_has_seen_nothing(0)]
#[case::to_a_watcher_that_has_seen_all(3)]
#[tokio::test(start_paused = true)]
async fn a_doorbell_that_was_lost_costs_a_second(#[case] lines: u64) {
    let bench = Bench::new().await;
    let token = bench.run().await.token;
    let mut watch = bench.watch(token.job, None).await;
    for n in 0..lines {
        within(bench.engine.append_log(&token, n, line("seen"))).await.unwrap();
    }
    assert_eq!(drain(&mut watch).await.len() as u64, lines);

    let complete =
        Command::Complete { lease: token, result: "{}".into(), live: Live::default(), output_bytes: None };
    bench.store.commit(vec![Operation::Apply(token.job, Box::new(complete))], bench.engine.now()).unwrap();
    assert!(at_once(watch.next()).await.is_none());
    bench.pass(SECOND).await;

    assert_eq!(reasons(&kept(&to_the_end(watch).await)), [reason::COMPLETED]);
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_closes_sends_watchers_away_without_an_end() {
    let bench = Bench::new().await;
    let leased = bench.run().await;
    let mut watch = bench.watch(leased.token.job, None).await;

    bench.engine.close_streams();
    let mut late = bench.watch(leased.token.job, None).await;
    bench.complete(&leased.token).await;

    for watch in [&mut watch, &mut late] {
        let next = within(watch.next()).await;
        assert!(matches!(next, Some(Err(Error::Unavailable(_)))), "{next:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn silence_is_broken_by_a_sign_of_life() {
    let bench = Bench::new().await;
    let job = bench.run().await.token.job;
    let mut watch = bench.watch(job, None).await;

    for _ in 0..2 {
        bench.pass(14 * SECOND).await;
        assert!(at_once(watch.next()).await.is_none());
        bench.pass(SECOND).await;
        let next = at_once(watch.next()).await;
        assert!(matches!(next, Some(Some(Ok(Message::Keepalive { cursor: 2, attempt: 1, .. })))), "{next:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn watchers_share_the_work_of_encoding() {
    let bench = Bench::new().await;
    let token = bench.run().await.token;
    let mut watches = Vec::new();
    for _ in 0..10 {
        watches.push(bench.watch(token.job, None).await);
    }
    let (mut seen, mut encoded) = (0, 0);

    for n in 0..20 {
        within(bench.engine.append_log(&token, n, line("again"))).await.unwrap();
        bench.engine.report(&token, progress(0.5), Metrics::new()).unwrap();
        for watch in &mut watches {
            for event in drain(watch).await {
                seen += 1;
                event.encoded(Form::Binary, |_| {
                    encoded += 1;
                    "encoded".into()
                });
            }
        }
    }

    assert_eq!((seen, encoded), (400, 40));
}

#[tokio::test(start_paused = true)]
async fn a_watcher_that_does_not_read_misses_nothing_and_holds_nothing() {
    let bench = Bench::new().await;
    let token = bench.run().await.token;
    let slow = bench.watch(token.job, None).await;
    let mut quick = bench.watch(token.job, None).await;
    let mut events = Vec::new();

    let batch: u64 = 50;
    for n in 0..200 {
        let lines = (0..batch).flat_map(|_| line("one of many")).collect();
        within(bench.engine.append_log(&token, n * batch, lines)).await.unwrap();
        events.extend(drain(&mut quick).await.iter().map(Arc::downgrade));
    }

    assert_eq!(events.len(), 10_000);
    // The tail of the job is 64 events, whoever does not read them.
    let held = events.iter().filter(|event| event.strong_count() > 0).count();
    assert!(held <= 64, "{held} events are held");
    bench.complete(&token).await;
    assert_eq!(kept(&to_the_end(slow).await), bench.history(token.job).await[2..]);
}

#[tokio::test]
async fn past_what_all_tails_may_have_a_job_keeps_its_newest_event_alone() {
    const JOBS: usize = 400;
    const OUTPUT: usize = 192 << 10;
    let bench = Bench::new().await;
    let mut watched = Vec::new();
    for _ in 0..JOBS {
        let token = bench.run().await.token;
        watched.push((bench.watch(token.job, None).await, token));
    }

    let (mut events, mut read) = (Vec::new(), 0);
    let bytes = |event: &SharedEvent| match &event.body {
        SharedBody::Kept(Body::OutputAppended { data, .. }) => data.len(),
        _ => 0,
    };
    for (watch, token) in &mut watched {
        bench.write(token, vec![b'x'; OUTPUT]).await;
        bench.complete(token).await;
        while let Some(message) = within(watch.next()).await {
            if let Message::Shared(event) = message.unwrap() {
                read += bytes(&event);
                events.push(Arc::downgrade(&event));
            }
        }
    }

    assert_eq!(read, JOBS * OUTPUT, "whoever watches has it all");
    let held: usize = events.iter().filter_map(Weak::upgrade).map(|event| bytes(&event)).sum();
    let most = 64 << 20;
    assert!((most - OUTPUT..=most + OUTPUT).contains(&held), "{held} bytes are held");
}
