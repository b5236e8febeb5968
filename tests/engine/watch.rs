//! A watch is a cursor: ordered, complete, once, over the end and without a memory of its own.

use crate::lab::*;
use bytes::Bytes;
use longhaul::engine::{Error, Message, SharedBody};
use longhaul::job::*;
use longhaul::store::{Operation, Store};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

#[tokio::test]
async fn a_slow_watcher_misses_nothing_that_is_kept() {
    let lab = Lab::new().await;
    let leased = lab.start_and_run(plain()).await;
    let id = leased.token.job;
    let mut slow = lab.watch(id, 0).await;
    within(slow.next()).await.unwrap().unwrap();

    // Far more than any tail holds.
    for n in 0..900 {
        within(lab.engine.enter_stage(&leased.token, n.to_string())).await.unwrap();
    }
    within(lab.engine.complete(&leased.token, "{}".into())).await.unwrap();

    let messages = to_the_end(slow).await;
    let numbers: Vec<_> = messages.iter().filter_map(kept).map(|(sequence, _)| sequence).collect();
    assert_eq!(numbers, (1..=lab.history(id).await.len() as u64).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_watch_resumes_at_every_message() {
    let lab = Lab::new().await;
    let leased = lab.start_and_run(plain()).await;
    let id = leased.token.job;
    for n in 0..5 {
        within(lab.engine.enter_stage(&leased.token, n.to_string())).await.unwrap();
        within(lab.engine.append_output(&leased.token, "", "words ".into())).await.unwrap();
    }
    within(lab.engine.complete(&leased.token, "{}".into())).await.unwrap();
    let whole: Vec<_> = to_the_end(lab.watch(id, 0).await).await.iter().filter_map(kept).collect();

    for after in 0..=whole.len() {
        let resumed = to_the_end(lab.watch(id, after as u64).await).await;
        assert!(matches!(&resumed[0], Message::Snapshot { cursor, .. } if *cursor == after as u64));
        assert_eq!(resumed.iter().filter_map(kept).collect::<Vec<_>>(), whole[after..]);
    }
}

#[tokio::test]
async fn what_is_latest_wins_is_shown_at_once_and_carries_the_cursor() {
    let lab = Lab::new().await;
    let leased = lab.start_and_run(plain()).await;
    let mut watch = lab.watch(leased.token.job, 0).await;
    for _ in 0..3 {
        within(watch.next()).await.unwrap().unwrap();
    }
    lab.store.block();

    let progress = Progress { fraction: Some(0.5), ..Default::default() };
    lab.engine.report(&leased.token, Some(progress), [("tokens".to_owned(), 3.0)].into()).unwrap();
    let both = [within(watch.next()).await.unwrap().unwrap(), within(watch.next()).await.unwrap().unwrap()];
    lab.store.unblock();

    let mut kinds = Vec::new();
    for message in both {
        let Message::Shared(shared) = message else { panic!("{message:?}") };
        assert_eq!(shared.sequence, 2);
        kinds.push(match &shared.body {
            SharedBody::Progress(progress) => format!("{:?}", progress.fraction),
            SharedBody::Metrics(values) => format!("{values:?}"),
            SharedBody::Kept(body) => panic!("{body:?}"),
        });
    }
    assert_eq!(kinds, ["Some(0.5)", r#"{"tokens": 3.0}"#]);
}

#[tokio::test]
async fn an_event_is_encoded_once_for_all_that_keep_up() {
    let lab = Lab::new().await;
    let leased = lab.start_and_run(plain()).await;
    let mut watches = Vec::new();
    for _ in 0..10 {
        let mut watch = lab.watch(leased.token.job, 2).await;
        within(watch.next()).await.unwrap().unwrap();
        watches.push(watch);
    }

    within(lab.engine.enter_stage(&leased.token, "shared".into())).await.unwrap();
    let encodings = AtomicUsize::new(0);
    for watch in &mut watches {
        let Message::Shared(shared) = within(watch.next()).await.unwrap().unwrap() else {
            panic!("no event")
        };
        assert!(matches!(&shared.body, SharedBody::Kept(Body::StageEntered { name }) if name == "shared"));
        shared.encoded(|_| {
            encodings.fetch_add(1, Ordering::Relaxed);
            Bytes::from_static(b"encoded")
        });
    }

    assert_eq!(encodings.into_inner(), 1);
}

#[tokio::test]
async fn a_doorbell_that_was_lost_is_made_good() {
    let lab = Lab::new().await;
    let id = lab.start(plain()).await;
    let mut watch = lab.watch(id, 1).await;
    within(watch.next()).await.unwrap().unwrap();

    // Behind the engine's back, as another server on a shared store would.
    let store: Arc<dyn Store> = lab.store.clone();
    let cancel = Command::Cancel { reason: String::new(), grace: Duration::ZERO };
    store.commit(vec![Operation::Apply(id, Box::new(cancel))], START).unwrap();

    let (sequence, _) = kept(&within(watch.next()).await.unwrap().unwrap()).expect("a kept event");
    assert_eq!(sequence, 2);
    assert!(within(watch.next()).await.is_none(), "it has ended");
}

#[tokio::test]
async fn a_server_that_stops_sends_its_watchers_away() {
    let lab = Lab::new().await;
    let id = lab.start(plain()).await;
    let mut watch = lab.watch(id, 0).await;
    for _ in 0..2 {
        within(watch.next()).await.unwrap().unwrap();
    }

    lab.engine.close_watches();

    assert!(matches!(within(watch.next()).await, Some(Err(Error::Unavailable(_)))));
    let mut late = lab.watch(id, 0).await;
    within(async {
        while let Some(next) = late.next().await {
            if let Err(error) = next {
                assert!(matches!(error, Error::Unavailable(_)), "{error:?}");
                return;
            }
        }
        panic!("a watch that ended well before its job");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_quiet_stream_shows_that_it_is_alive() {
    let lab = Lab::new().await;
    // Time that stands still passes while the committer works: no call here may be bounded by it.
    let id = lab.engine.start(plain()).await.unwrap().snapshot.job.id;
    let mut watch = lab.watch(id, 1).await;
    watch.next().await.unwrap().unwrap();

    let began = tokio::time::Instant::now();
    let message = watch.next().await.unwrap().unwrap();

    assert!(matches!(message, Message::Keepalive { cursor: 1, .. }), "{message:?}");
    assert!(began.elapsed() >= Duration::from_secs(14), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_cursor_ahead_of_the_job_is_refused() {
    let lab = Lab::new().await;
    let id = lab.start(plain()).await;
    let options = longhaul::engine::WatchOptions {
        after: Some(2),
        minimum_interval: Duration::ZERO,
        omit_output: false,
        parts: longhaul::engine::Parts::BASIC,
    };

    let refused = lab.engine.watch(id, options).await.err();

    assert!(matches!(refused, Some(Error::AheadOfJob { after: 2, sequence: 1 })), "{refused:?}");
}
